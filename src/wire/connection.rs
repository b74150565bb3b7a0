//! One connection after its handshake: reads, writes, and listens for silence, in one task.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use super::reader::{FrameReader, ReadFailure};
use super::turns::{TURN_BYTES, TURN_FRAMES, Turns};
use super::{Frame, Outbound, kind, outbound};
use crate::mutant::Mutant;
use crate::record::LogId;
use crate::seam::Duplex;

/// The dialer pings after this long without a byte from the other end.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// The dialer gives up after so many intervals without a byte.
const DIALER_SILENT_INTERVALS_MAX: u32 = 4;
/// The acceptor, which is pinged, gives up after so many.
const ACCEPTOR_SILENT_INTERVALS_MAX: u32 = 15;
/// How long a connection that ends may take to deliver its last frames.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are read and dropped meanwhile, so that the other end gets to see them.
const LINGER_BYTES_MAX: u64 = 1 << 20;
/// Longest reason that is taken from the other end.
const REASON_BYTES_MAX: usize = 1 << 10;

pub(crate) type Reader = FrameReader<ReadHalf<Box<dyn Duplex>>>;
pub(crate) type Writer = WriteHalf<Box<dyn Duplex>>;

/// An open connection: hellos have been exchanged.
pub(crate) struct Connection {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) out: Outbound,
}

/// Which end of a connection this is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side<'a> {
    Dialer,
    /// The turns of the connections of its listener.
    Acceptor(&'a Turns),
}

impl Side<'_> {
    /// Frames and bytes that are taken before others have their turn. On the dialer's side that lets those run whom they
    /// were for: what they send next goes out while the others still wait, and the two ends work at the same time. On the
    /// acceptor's side no client keeps a thread for as long as it sends small frames.
    fn turn(self) -> (usize, usize) {
        match self {
            Self::Dialer => (TURN_FRAMES, TURN_BYTES),
            Self::Acceptor(turns) => turns.length(),
        }
    }

    async fn end_turn(self) {
        match self {
            Self::Dialer => outbound::after_others().await,
            Self::Acceptor(turns) if !Mutant::FramesInOneTurn.is_active() => turns.end().await,
            Self::Acceptor(_) => {}
        }
    }
}

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The other end closed it, between two frames.
    Closed,
    /// The other end closed it and said why.
    Told(String),
    /// This end closes it, and tells the other one why.
    Ours(String),
    /// It broke.
    Broken(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("the other end closed it"),
            Self::Told(reason) => write!(f, "the other end closed it: {reason}"),
            Self::Ours(reason) | Self::Broken(reason) => f.write_str(reason),
        }
    }
}

impl Connection {
    /// Runs the connection until it ends, or until `stop` resolves. `on_frame` gets the frames in
    /// order; its error is told to the other end.
    pub(crate) async fn run(
        self,
        side: Side<'_>,
        stop: impl Future<Output = ()>,
        mut on_frame: impl FnMut(Frame) -> Result<(), String>,
    ) -> End {
        let Self { mut reader, writer, out } = self;
        let heard = reader.heard();
        let mut write = pin!(out.write_to(writer));
        let end = tokio::select! {
            biased;
            reason = out.closed() => End::Broken(reason.to_string()),
            end = read(side, &mut reader, &out, &mut on_frame) => end,
            written = &mut write => match written {
                Ok(()) => End::Broken("it was closed here".to_owned()),
                Err(error) => End::Broken(format!("writing failed: {error}")),
            },
            end = listen(side, &heard, &out) => end,
            () = stop => End::Ours("it shuts down".to_owned()),
        };
        if let End::Ours(reason) = &end {
            linger(reason, &out, write, reader).await;
        }
        out.close(&end.to_string());
        end
    }
}

async fn read(
    side: Side<'_>,
    reader: &mut Reader,
    out: &Outbound,
    on_frame: &mut impl FnMut(Frame) -> Result<(), String>,
) -> End {
    let (mut turn, mut bytes) = (0, 0);
    loop {
        let (turn_max, bytes_max) = side.turn();
        if turn >= turn_max || bytes >= bytes_max {
            (turn, bytes) = (0, 0);
            side.end_turn().await;
        }
        turn += 1;
        let frame = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return End::Closed,
            Err(failure @ (ReadFailure::Io(_) | ReadFailure::Torn)) => {
                return End::Broken(failure.to_string());
            }
            Err(failure) => return End::Ours(failure.to_string()),
        };
        bytes += frame.head.len() + frame.body.len();
        match frame.kind {
            kind::PING => {
                out.send_head(kind::PONG, LogId::default(), frame.correlation, &[]);
            }
            kind::PONG => {}
            kind::REFUSE => return End::Told(reason_of(&frame)),
            _ => {
                if let Err(reason) = on_frame(frame) {
                    return End::Ours(reason);
                }
            }
        }
    }
}

/// Resolves when the other end has been silent for too long.
async fn listen(side: Side<'_>, heard: &AtomicU64, out: &Outbound) -> End {
    let silent_max = match side {
        Side::Dialer => DIALER_SILENT_INTERVALS_MAX,
        Side::Acceptor(_) => ACCEPTOR_SILENT_INTERVALS_MAX,
    };
    let mut before = heard.load(Ordering::Relaxed);
    let mut silent = 0;
    loop {
        sleep(PING_INTERVAL).await;
        let now = heard.load(Ordering::Relaxed);
        silent = if now == before { silent + 1 } else { 0 };
        before = now;
        if silent > silent_max {
            return End::Broken(format!("nothing was heard for {:?}", PING_INTERVAL * silent));
        }
        if silent > 0 && matches!(side, Side::Dialer) {
            out.send_head(kind::PING, LogId::default(), 0, &[]);
        }
    }
}

/// Delivers what is queued and the reason.
async fn linger(
    reason: &str,
    out: &Outbound,
    write: Pin<&mut impl Future<Output = std::io::Result<()>>>,
    reader: Reader,
) {
    out.finish(kind::REFUSE, reason);
    let farewell = async {
        if write.await.is_ok() {
            drain(reader.into_inner()).await;
        }
    };
    // Past the limit the connection is simply dropped.
    let _ = timeout(LINGER, farewell).await;
}

/// Reads on until the other end closes: a socket that is closed with unread bytes in it is reset,
/// and what was sent last may be lost.
async fn drain(io: impl tokio::io::AsyncRead + Unpin) {
    let _ = tokio::io::copy(&mut io.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await;
}

/// Tells the other end why, and closes.
pub(crate) async fn refuse(
    reader: ReadHalf<Box<dyn Duplex>>,
    writer: Writer,
    out: &Outbound,
    reason: &str,
) {
    out.finish(kind::REFUSE, reason);
    let farewell = async {
        if out.write_to(writer).await.is_ok() {
            drain(reader).await;
        }
    };
    let _ = timeout(LINGER, farewell).await;
}

/// The reason in a `REFUSE` frame, cut to a sane length and without control characters.
pub(crate) fn reason_of(frame: &Frame) -> String {
    let bytes = &frame.head[..frame.head.len().min(REASON_BYTES_MAX)];
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect()
}
