//! The handshake: each end says who it is, or why it refuses.

use serde::{Deserialize, Serialize};
use tokio::io::{ReadHalf, split};

use super::connection::{Connection, Reader, Writer, reason_of, refuse};
use super::reader::FrameReader;
use super::{Frame, OutFrame, Outbound, Protocol, WireLimits, kind};
use crate::format::codec;
use crate::format::frame::FrameError;
use crate::seam::Duplex;

/// Longest address that a node may give: a host's name has at most 253 bytes.
pub(crate) const ADDR_BYTES_MAX: usize = 300;
/// Largest frame before the other end is known.
const HELLO_BYTES_MAX: usize = 4 << 10;

/// First message in each direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) protocol: Protocol,
    /// 0 from a node that has not joined a cluster yet, and from clients.
    pub(crate) cluster: u128,
    /// Sender's node id, 0 from clients.
    pub(crate) node_id: u64,
    /// Random number of the sender's data directory, made when it was; 0 from clients.
    pub(crate) incarnation: u128,
    /// The node that the dialer means to reach, 0 if any.
    pub(crate) target: u64,
    /// Absent from clients.
    pub(crate) intro: Option<Intro>,
}

/// The further details that a node gives, in the body of the hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intro {
    /// Random number of the sender's process.
    pub(crate) session: u128,
    /// `host:port` where nodes reach the sender.
    pub(crate) peer_addr: String,
    /// `host:port` where clients reach it; empty if it serves none.
    pub(crate) client_addr: String,
    /// Incarnation of the data that the dialer expects the target to have; 0 if it does not know.
    pub(crate) expects: u128,
    /// A member has talked to this process.
    pub(crate) took_part: bool,
    /// Generation of the sender's data when its process began.
    pub(crate) began: u64,
    /// Its generation now.
    pub(crate) generation: u64,
}

/// A hello's head. The protocol is in the frame's magic.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HelloHead {
    cluster: u128,
    node_id: u64,
    incarnation: u128,
    target: u64,
    /// Largest frame that the sender takes.
    frame_bytes_max: u32,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// One end refused.
    Refused(String),
    /// The other end speaks another version of the protocol.
    OtherVersion { theirs: u8, ours: u8 },
    /// It broke.
    Broken(String),
}

/// Writes our hello, and returns the connection if the other end's hello passes `check`.
pub(crate) async fn dial(
    io: Box<dyn Duplex>,
    hello: &Hello,
    check: impl Fn(&Hello) -> Result<(), String>,
    limits: &WireLimits,
) -> Result<Connection, HandshakeError> {
    let (mut reader, mut writer) = halves(io);
    // Whoever refuses early closes early: what he said comes before the failure to write.
    let sent = send(&mut writer, hello, limits).await;
    let frame = next(&mut reader).await?;
    if frame.kind == kind::REFUSE {
        return Err(HandshakeError::Refused(reason_of(&frame)));
    }
    sent?;
    let (theirs, frame_bytes_max) = read_hello(&frame, &reader).map_err(HandshakeError::Refused)?;
    let checked = if theirs.protocol == hello.protocol {
        check(&theirs)
    } else {
        Err("it speaks another protocol there".to_owned())
    };
    let out = Outbound::new(hello.protocol, limits.queue_bytes_max, frame_bytes_max);
    if let Err(reason) = checked {
        refuse(reader.into_inner(), writer, &out, &reason).await;
        return Err(HandshakeError::Refused(reason));
    }
    reader.set_frame_bytes_max(limits.frame_bytes_max);
    Ok(Connection { reader, writer, out })
}

/// Waits for the other end's hello, and answers with the one that `open` gives, or refuses with
/// its reason.
pub(crate) async fn accept<T, F>(
    io: Box<dyn Duplex>,
    open: impl FnOnce(Hello) -> F,
    limits: &WireLimits,
) -> Result<(Connection, T), HandshakeError>
where
    F: Future<Output = Result<(Hello, T), String>>,
{
    let (mut reader, mut writer) = halves(io);
    let opened = match next(&mut reader).await {
        Ok(frame) => match read_hello(&frame, &reader) {
            Ok((theirs, frame_bytes_max)) => {
                open(theirs).await.map(|opened| (opened, frame_bytes_max))
            }
            Err(reason) => Err(reason),
        },
        Err(HandshakeError::Refused(reason)) => Err(reason),
        Err(HandshakeError::OtherVersion { theirs, ours }) => {
            // The frame that says so has our version, which is enough for the other end to say the same.
            Err(other_version(theirs, ours))
        }
        Err(broken) => return Err(broken),
    };
    let protocol = reader.protocol().unwrap_or(Protocol::Peer);
    match opened {
        Ok(((ours, session), frame_bytes_max)) => {
            send(&mut writer, &ours, limits).await?;
            reader.set_frame_bytes_max(limits.frame_bytes_max);
            reader.set_incoming(limits.incoming.clone());
            let out = Outbound::new(protocol, limits.queue_bytes_max, frame_bytes_max)
                .counted(limits.queued.as_ref());
            Ok((Connection { reader, writer, out }, session))
        }
        Err(reason) => {
            let out = Outbound::new(protocol, limits.queue_bytes_max, HELLO_BYTES_MAX);
            refuse(reader.into_inner(), writer, &out, &reason).await;
            Err(HandshakeError::Refused(reason))
        }
    }
}

/// Refuses without asking who it is.
pub(crate) async fn turn_away(io: Box<dyn Duplex>, reason: &str) {
    let (reader, writer) = split(io);
    let out = Outbound::new(Protocol::Peer, HELLO_BYTES_MAX, HELLO_BYTES_MAX);
    refuse(reader, writer, &out, reason).await;
}

fn halves(io: Box<dyn Duplex>) -> (Reader, Writer) {
    let (reader, writer): (ReadHalf<_>, Writer) = split(io);
    (FrameReader::new(reader, HELLO_BYTES_MAX), writer)
}

async fn send(
    writer: &mut Writer,
    hello: &Hello,
    limits: &WireLimits,
) -> Result<(), HandshakeError> {
    let head = HelloHead {
        cluster: hello.cluster,
        node_id: hello.node_id,
        incarnation: hello.incarnation,
        target: hello.target,
        frame_bytes_max: u32::try_from(limits.frame_bytes_max).unwrap_or(u32::MAX),
    };
    let frame = OutFrame {
        kind: kind::HELLO,
        head: codec::encode(&head).into(),
        body: hello.intro.iter().map(|intro| codec::encode(intro).into()).collect(),
        ..OutFrame::default()
    };
    super::outbound::write_one(writer, hello.protocol, frame)
        .await
        .map_err(|error| HandshakeError::Broken(format!("writing failed: {error}")))
}

/// What a node says of a version that is not its own.
pub(crate) fn other_version(theirs: u8, ours: u8) -> String {
    FrameError::Version { found: theirs, ours }.to_string()
}

async fn next(reader: &mut Reader) -> Result<Frame, HandshakeError> {
    use super::reader::ReadFailure::{Frame, Io, Torn};
    match reader.next().await {
        Ok(Some(frame)) => Ok(frame),
        Ok(None) => Err(HandshakeError::Broken("it closed without a word".to_owned())),
        Err(Frame(FrameError::Version { found, ours })) => {
            Err(HandshakeError::OtherVersion { theirs: found, ours })
        }
        Err(failure @ (Io(_) | Torn)) => Err(HandshakeError::Broken(failure.to_string())),
        Err(failure) => Err(HandshakeError::Refused(failure.to_string())),
    }
}

fn read_hello(frame: &Frame, reader: &Reader) -> Result<(Hello, usize), String> {
    let protocol = reader.protocol().filter(|_| frame.kind == kind::HELLO);
    let protocol = protocol.ok_or_else(|| format!("kind {} came before hello", frame.kind))?;
    let head: HelloHead = codec::decode(&frame.head).map_err(|error| error.to_string())?;
    let hello = Hello {
        protocol,
        cluster: head.cluster,
        node_id: head.node_id,
        incarnation: head.incarnation,
        target: head.target,
        intro: read_intro(&frame.body)?,
    };
    Ok((hello, head.frame_bytes_max as usize))
}

fn read_intro(body: &[u8]) -> Result<Option<Intro>, String> {
    if body.is_empty() {
        return Ok(None);
    }
    let intro: Intro = codec::decode(body).map_err(|error| error.to_string())?;
    let odd = |addr: &str| addr.len() > ADDR_BYTES_MAX || addr.contains(char::is_control);
    if odd(&intro.peer_addr) || odd(&intro.client_addr) {
        return Err("an address in the hello is not valid".to_owned());
    }
    Ok(Some(intro))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_has_these_bytes() {
        let head =
            HelloHead { cluster: 1, node_id: 2, incarnation: 3, target: 4, frame_bytes_max: 5 };
        let mut golden = [0; 52];
        for (at, value) in [(0, 1), (16, 2), (24, 3), (40, 4), (48, 5)] {
            golden[at] = value;
        }
        assert_eq!(codec::encode(&head), golden);
        assert_eq!(codec::decode(&golden), Ok(head));
    }

    #[test]
    fn what_a_node_says_of_itself_is_bounded_and_may_be_absent() {
        let intro = |peer_addr: &str| Intro {
            session: 1,
            peer_addr: peer_addr.to_owned(),
            client_addr: String::new(),
            expects: 2,
            took_part: true,
            began: 3,
            generation: 4,
        };
        assert_eq!(read_intro(&[]), Ok(None));
        let sound = intro("n1:1");
        assert_eq!(read_intro(&codec::encode(&sound)), Ok(Some(sound)));
        for odd in [intro(&"x".repeat(ADDR_BYTES_MAX + 1)), intro("a\nb:1")] {
            read_intro(&codec::encode(&odd)).expect_err("refused");
        }
        read_intro(&[1, 2, 3]).expect_err("cut short");
    }
}
