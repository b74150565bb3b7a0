//! Frames from a byte stream, as slices of the receive buffer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::patience::Patience;
use super::{Claim, Claimant, Frame, Protocol, Queued};
use crate::format::frame::{self, FrameError, FrameHeader, HEADER_BYTES};
use crate::mutant::Mutant;
use crate::record::LogId;

/// Small frames share buffers of this size.
const CHUNK_BYTES: usize = 64 << 10;
/// A body up to this size leaves its buffer: one that is kept would pin all of it, many times its own size. A larger one pins
/// little more than itself, if most of the buffer is kept, and 16 times as much at most.
const COPIED_BODY_BYTES_MAX: usize = 4 << 10;
/// A larger frame gets a buffer of exactly its size.
const SHARED_FRAME_BYTES_MAX: usize = CHUNK_BYTES / 2;
/// So much of a large frame has to come before there is room for the rest, unless there is ample room: one that brings
/// nothing but its header holds little.
const STEP: usize = CHUNK_BYTES;
/// A chunk with less room left is given up for a new one.
const ROOM_BYTES_MIN: usize = 4 << 10;
/// A frame that has begun must be complete within this time.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFailure {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a frame of the other protocol came in")]
    Mixed,
    #[error("a frame was not complete within {FRAME_TIMEOUT:?}")]
    Slow,
    #[error("the connection ended within a frame")]
    Torn,
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
}

/// Reads frames. Not cancel safe: a `next` that is dropped may lose bytes.
pub(crate) struct FrameReader<R> {
    io: R,
    buf: BytesMut,
    /// Of the frame at the front, once header and head are verified.
    header: Option<FrameHeader>,
    /// Bytes that `buf` must hold before there is more to parse.
    wanted: usize,
    frame_bytes_max: usize,
    protocol: Option<Protocol>,
    patience: Patience,
    heard: Arc<AtomicU64>,
    /// Counts large frames of several connections while they come in.
    incoming: Option<Arc<Queued>>,
    /// What the frame that comes in has taken of that, and since when.
    claimed: Option<(Instant, Vec<Claim>)>,
    /// Bytes of such frames that were complete.
    finished: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Takes frames of either protocol until the first one decides.
    pub(crate) fn new(io: R, frame_bytes_max: usize) -> Self {
        Self {
            io,
            buf: BytesMut::new(),
            header: None,
            wanted: HEADER_BYTES,
            frame_bytes_max,
            protocol: None,
            patience: Patience::new(FRAME_TIMEOUT),
            heard: Arc::default(),
            incoming: None,
            claimed: None,
            finished: 0,
        }
    }

    /// The protocol of the frames so far.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// Another limit for the frames that follow.
    pub(crate) fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Counts the large frames that follow among those of other connections.
    pub(crate) fn set_incoming(&mut self, incoming: Option<Arc<Queued>>) {
        self.incoming = incoming;
    }

    /// Counts reads that brought something.
    pub(crate) fn heard(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.heard)
    }

    /// The stream below.
    pub(crate) fn into_inner(self) -> R {
        self.io
    }

    /// The next frame; none if the connection was closed between two frames.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadFailure> {
        loop {
            if let Some(frame) = self.parse()? {
                self.patience.reset();
                // The frame's receiver has other limits.
                self.finished = self.finished.saturating_add(self.held());
                self.claimed = None;
                return Ok(Some(frame));
            }
            self.claim().await?;
            if self.fill().await? == 0 {
                return if self.buf.is_empty() { Ok(None) } else { Err(ReadFailure::Torn) };
            }
        }
    }

    /// Cuts a frame off the buffer, if it holds one.
    fn parse(&mut self) -> Result<Option<Frame>, ReadFailure> {
        if self.header.is_none() {
            let Some(bytes) = self.buf.first_chunk::<HEADER_BYTES>() else {
                if let Some(magic) = self.buf.first_chunk() {
                    // What is no frame need not be long enough for a header.
                    Protocol::of(*magic)?;
                }
                self.wanted = HEADER_BYTES;
                return Ok(None);
            };
            let header = FrameHeader::decode(bytes, self.frame_bytes_max)?;
            if self.protocol.is_some_and(|protocol| protocol != header.protocol) {
                return Err(ReadFailure::Mixed);
            }
            self.wanted = header.covered_bytes();
            let Some(covered) = self.buf.get(HEADER_BYTES..self.wanted) else { return Ok(None) };
            frame::verify(bytes, covered)?;
            self.protocol = Some(header.protocol);
            self.wanted = header.frame_bytes();
            self.header = Some(header);
        }
        let Some(header) = self.header.take_if(|header| self.buf.len() >= header.frame_bytes())
        else {
            return Ok(None);
        };
        let mut bytes = if header.frame_bytes() > SHARED_FRAME_BYTES_MAX {
            // Its own buffer, or the front of a chunk; what follows must not keep it alive.
            let rest = self.buf.split_off(header.frame_bytes());
            let own = std::mem::take(&mut self.buf);
            self.buf.extend_from_slice(&rest);
            own.freeze()
        } else {
            self.buf.split_to(header.frame_bytes()).freeze()
        };
        bytes.advance(HEADER_BYTES);
        let head = bytes.split_to(header.head_bytes as usize);
        if bytes.len() <= COPIED_BODY_BYTES_MAX && !Mutant::SmallBodiesShareChunks.is_active() {
            bytes = Bytes::copy_from_slice(&bytes);
        }
        self.wanted = HEADER_BYTES;
        Ok(Some(Frame {
            kind: header.kind,
            log: LogId(header.log),
            correlation: header.correlation,
            head,
            body: bytes,
        }))
    }

    /// Bytes of room that the frame has.
    fn held(&self) -> usize {
        self.claimed.iter().flat_map(|(_, claims)| claims).map(Claim::bytes).sum()
    }

    /// Bytes that may be there before more room is claimed, if the frame needs any.
    fn reach(&self) -> usize {
        match self.incoming {
            Some(_) if self.wanted > SHARED_FRAME_BYTES_MAX => self.wanted.min(self.held()),
            _ => self.wanted,
        }
    }

    /// Waits until there is room for a large frame that comes in. Nothing is allocated for it before.
    async fn claim(&mut self) -> Result<(), ReadFailure> {
        let Some(incoming) = &self.incoming else { return Ok(()) };
        let held = self.held();
        if self.wanted <= SHARED_FRAME_BYTES_MAX || self.buf.len() < held || self.wanted <= held {
            return Ok(());
        }
        let missing = self.wanted - held;
        let at_once =
            held > 0 || incoming.is_ample_for(missing) || Mutant::HeadersTakeRoom.is_active();
        // A part of it may have come with small frames before it.
        let bytes = if at_once { missing } else { missing.min(self.buf.len() + STEP) };
        let one_is_enough = Mutant::AnyFrameProves.is_active() && self.finished > 0;
        let claimant = match one_is_enough || self.finished >= self.wanted {
            true => Claimant::Proven,
            false => Claimant::New,
        };
        let claim = incoming.claim(claimant, bytes);
        let claim = tokio::time::timeout(FRAME_TIMEOUT, claim).await;
        let (_, claims) = self.claimed.get_or_insert_with(|| (Instant::now(), Vec::new()));
        claims.push(claim.map_err(|_| ReadFailure::Slow)?);
        Ok(())
    }

    /// Reads once, with room for what is wanted. Zero at the end of the stream.
    async fn fill(&mut self) -> Result<usize, ReadFailure> {
        let begun = !self.buf.is_empty();
        let room = self.make_room();
        let come = self.buf.len();
        let Self { io, buf, patience, heard, incoming, claimed, .. } = self;
        let mut buf = buf.limit(room);
        let read = io.read_buf(&mut buf);
        let read = async { if begun { patience.limit(read).await } else { read.await } };
        let read = match (incoming, claimed) {
            (Some(incoming), Some((since, _))) => tokio::select! {
                biased;
                read = read => read,
                // It comes in more slowly than the others can wait for.
                () = incoming.pressed(*since, || come, || true) => return Err(ReadFailure::Slow),
            },
            _ => read.await,
        };
        match read {
            Ok(count) => {
                heard.fetch_add(1, Ordering::Relaxed);
                Ok(count)
            }
            // From `patience`; what the system reports has a number.
            Err(error)
                if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() =>
            {
                Err(ReadFailure::Slow)
            }
            Err(error) => Err(ReadFailure::Io(error)),
        }
    }

    /// How many bytes to read at most, with the room for them.
    fn make_room(&mut self) -> usize {
        let reach = self.reach();
        let missing = reach - self.buf.len();
        if self.wanted > SHARED_FRAME_BYTES_MAX {
            if self.buf.capacity() < reach {
                let mut own = BytesMut::with_capacity(reach);
                own.extend_from_slice(&self.buf);
                self.buf = own;
            }
            return missing;
        }
        if self.buf.capacity() - self.buf.len() < missing.max(ROOM_BYTES_MIN) {
            // In place if no frame of this chunk is alive any more, else a new chunk.
            self.buf.reserve(CHUNK_BYTES.saturating_sub(self.buf.len()).max(missing));
        }
        self.buf.capacity() - self.buf.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::wire::{OutFrame, Outbound};

    const LIMIT: usize = 1 << 20;

    /// The bytes that a connection would carry.
    async fn written(frames: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let out = Outbound::new(Protocol::Peer, usize::MAX, LIMIT);
        for (head, body) in frames {
            let body = vec![Bytes::copy_from_slice(body)];
            assert!(out.send(OutFrame { head: head.clone().into(), body, ..OutFrame::default() }));
        }
        let mut bytes = Vec::new();
        let writer = out.write_to(&mut bytes);
        out.finish(0, "");
        writer.await.expect("memory takes all");
        bytes
    }

    /// All frames of `bytes`, which come in pieces of `step`, and how it ended.
    async fn read(bytes: &[u8], step: usize) -> (Vec<Frame>, Option<ReadFailure>) {
        let (mut sender, io) = tokio::io::duplex(step);
        let send = async move {
            // Fails when the reader has seen enough.
            let _ = sender.write_all(bytes).await;
        };
        let receive = async move {
            let mut reader = FrameReader::new(io, LIMIT);
            let mut frames = Vec::new();
            loop {
                match reader.next().await {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => return (frames, None),
                    Err(failure) => return (frames, Some(failure)),
                }
            }
        };
        tokio::join!(send, receive).1
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("runtime").block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            sizes in prop::collection::vec((0..600_usize, 0..80_000_usize), 1..8),
            step in 1..100_000_usize,
        ) {
            let frames: Vec<_> =
                sizes.iter().map(|(head, body)| (vec![1; *head], vec![2; *body])).collect();
            let step = if step < 64 { step + 64 } else { step };
            let (read, failure) = block_on(async { read(&written(&frames).await, step).await });
            prop_assert!(failure.is_none(), "{:?}", failure);
            // The last one is the farewell of `finish`.
            prop_assert_eq!(read.len(), frames.len() + 1);
            for (read, (head, body)) in read.iter().zip(&frames) {
                prop_assert!(read.head == head && read.body == body);
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_allocate_past_the_limit(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            begun: bool,
        ) {
            if begun && bytes.len() > 40 {
                bytes[..5].copy_from_slice(b"QLFP\x04");
                (bytes[6], bytes[7]) = (0, 0);
                bytes[32..36].fill(0);
            }
            let room = block_on(async {
                let mut reader = FrameReader::new(&bytes[..], LIMIT);
                while let Ok(Some(_)) = reader.next().await {}
                reader.buf.capacity()
            });
            prop_assert!(room <= LIMIT + HEADER_BYTES, "{} bytes", room);
        }

        #[test]
        fn a_damaged_head_never_comes_out(at in 0..44_usize, flip in 1..=255_u8) {
            let frames = [(b"head".to_vec(), vec![])];
            let mut bytes = block_on(written(&frames));
            bytes.truncate(44);
            bytes[at] ^= flip;
            let (read, failure) = block_on(read(&bytes, 64));
            prop_assert!(read.is_empty() && failure.is_some());
        }
    }

    #[tokio::test]
    async fn small_frames_share_a_chunk_and_a_large_one_has_its_own_buffer() {
        let mut frames = vec![(vec![1; 10], vec![2; 5000]); 40];
        frames.push((vec![], vec![3; 500_000]));
        frames.extend(vec![(vec![1; 10], vec![2; 5000]); 40]);
        let bytes = written(&frames).await;
        let mut reader = FrameReader::new(&bytes[..], LIMIT);
        let mut kept = Vec::new();
        while let Some(frame) = reader.next().await.expect("frames") {
            assert!(reader.buf.capacity() <= 2 * CHUNK_BYTES, "{}", reader.buf.capacity());
            kept.push(frame.body);
        }
        let near = |a: &Bytes, b: &Bytes| a.as_ptr().addr().abs_diff(b.as_ptr().addr());
        assert_eq!(near(&kept[0], &kept[1]), 5050, "no copy was made");
    }

    #[tokio::test]
    async fn a_small_body_that_is_kept_does_not_keep_what_came_with_it() {
        let frames = vec![(vec![1; 10], vec![2; 1]), (vec![1; 10], vec![2; 4096])];
        let bytes = written(&frames).await;
        let mut reader = FrameReader::new(&bytes[..], LIMIT);
        while let Some(frame) = reader.next().await.expect("frames") {
            let behind_head = frame.head.as_ptr().addr() + frame.head.len();
            assert!(frame.body.is_empty() || frame.body.as_ptr().addr() != behind_head);
        }
    }

    /// The begin of a frame of so many bytes.
    async fn begin_of(bytes: usize) -> Vec<u8> {
        let mut whole = written(&[(Vec::new(), vec![7; bytes])]).await;
        whole.truncate(1000);
        whole
    }

    #[tokio::test(start_paused = true)]
    async fn large_frames_that_are_not_finished_have_a_limit_together_and_end_once_others_wait() {
        let incoming = Queued::new(100_000);
        let mut clients = Vec::new();
        let mut readers = Vec::new();
        let begin = begin_of(60_000).await;
        for _ in 0..5 {
            let (mut client, io) = tokio::io::duplex(1 << 20);
            client.write_all(&begin).await.expect("it is taken");
            clients.push(client);
            let mut reader = FrameReader::new(io, LIMIT);
            reader.set_incoming(Some(Arc::clone(&incoming)));
            readers.push(tokio::spawn(async move {
                let ended = reader.next().await.map(|frame| frame.is_some());
                (reader.buf.capacity(), ended)
            }));
        }
        let since = Instant::now();
        // Another one writes all of its frame, and has its turn long before the time of a frame is up.
        let (mut honest, io) = tokio::io::duplex(1 << 20);
        honest.write_all(&written(&[(Vec::new(), vec![7; 60_000])]).await).await.expect("taken");
        let mut reader = FrameReader::new(io, LIMIT);
        reader.set_incoming(Some(Arc::clone(&incoming)));
        let frame = reader.next().await.expect("it comes in").expect("a frame");
        assert_eq!(frame.body.len(), 60_000);
        assert!(since.elapsed() < FRAME_TIMEOUT / 2, "{:?}", since.elapsed());
        drop(clients);
        for reader in readers {
            let (_, ended) = reader.await.expect("no panic");
            assert!(matches!(ended, Err(ReadFailure::Slow | ReadFailure::Torn)), "{ended:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn headers_of_large_frames_take_little_of_the_room_and_no_time_of_other_clients() {
        const LARGE: usize = 900_000;
        let incoming = Queued::new(10 * LARGE);
        let begin = begin_of(LARGE).await;
        let mut clients = Vec::new();
        let mut readers = Vec::new();
        for _ in 0..100 {
            let (mut client, io) = tokio::io::duplex(1 << 20);
            client.write_all(&begin).await.expect("it is taken");
            clients.push(client);
            let mut reader = FrameReader::new(io, LIMIT);
            reader.set_incoming(Some(Arc::clone(&incoming)));
            readers.push(tokio::spawn(async move { reader.next().await.map(|_| ()) }));
        }
        tokio::task::yield_now().await;
        let (mut honest, io) = tokio::io::duplex(2 << 20);
        let whole = written(&[(Vec::new(), vec![7; LARGE])]).await;
        let mut reader = FrameReader::new(io, LIMIT);
        reader.set_incoming(Some(Arc::clone(&incoming)));
        let since = Instant::now();
        for _ in 0..3 {
            honest.write_all(&whole[..whole.len() - 40]).await.expect("taken");
            let frame = reader.next().await.expect("it comes in").expect("a frame");
            assert_eq!(frame.body.len(), LARGE);
        }
        assert!(since.elapsed() < Duration::from_millis(100), "{:?}", since.elapsed());
        readers.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_connection_that_finished_a_small_frame_waits_for_room_for_a_large_one() {
        const ROOM: usize = 2_000_000;
        let incoming = Queued::new(ROOM);
        // Little is left of what is for those that have finished nothing.
        let _held = incoming.claim(Claimant::Proven, ROOM + ROOM / 2 - 150_000).await;
        let (mut client, io) = tokio::io::duplex(1 << 20);
        let mut reader = FrameReader::new(io, LIMIT);
        reader.set_incoming(Some(Arc::clone(&incoming)));
        let whole = |bytes: usize| async move { written(&[(Vec::new(), vec![7; bytes])]).await };
        let mut small = whole(100_000).await;
        // Without the farewell.
        small.truncate(100_000 + HEADER_BYTES);
        client.write_all(&small).await.expect("taken");
        reader.next().await.expect("it comes in").expect("a frame");
        assert!(reader.finished > 0);
        let _more = incoming.claim(Claimant::Proven, 100_000).await;
        client.write_all(&begin_of(200_000).await).await.expect("taken");
        assert!(reader.next().now_or_never().is_none());
        assert_eq!(reader.held(), 0, "it has proven little");
        reader.finished = 300_000;
        assert!(reader.next().now_or_never().is_none());
        assert!(reader.held() > 0, "it has proven that it finishes as much");
    }
}
