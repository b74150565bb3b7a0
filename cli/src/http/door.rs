//! Where connections come in. A health check is answered here, before it would need a place among the other requests:
//! nothing that those do delays it. A connection's first bytes decide.
//!
//! Whoever has not brought enough of them to decide waits here. If too many do, the oldest ends, but not before a last look
//! at what it has brought meanwhile. So connections that bring nothing, or half of a request, keep no check from its answer.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::serve::Listener;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::mutant::Mutant;

/// Connections that may wait here; few in tests, which may not open many files.
const UNDECIDED_MAX: usize = if cfg!(test) { 32 } else { 256 };
/// How long one may, and how long it may take its answer.
const UNDECIDED_TIME: Duration = Duration::from_secs(10);
/// A longer head of a request is no health check's.
const HEAD_MAX: usize = 8 << 10;

/// What is asked about the node's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    Live,
    Ready,
}

/// Says how the node is: none if it is well, or what is wrong.
pub(super) type Examine =
    Arc<dyn Fn(Probe) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A connection with some other request, of which these bytes were read.
pub(super) struct Other {
    pub(super) stream: TcpStream,
    pub(super) read: Vec<u8>,
}

/// What the first bytes of a connection say.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Undecided,
    Health(Probe),
    Other,
}

fn kind(head: &[u8]) -> Kind {
    for (start, probe) in [(&b"GET /livez"[..], Probe::Live), (b"GET /readyz", Probe::Ready)] {
        match head.strip_prefix(start) {
            Some([b' ' | b'?', rest @ ..]) => {
                // All of it: bytes that are not read when the connection ends take the answer with them.
                let whole = rest.windows(4).any(|end| end == b"\r\n\r\n");
                return match whole || Mutant::HalfRequestDecides.is_active() {
                    true => Kind::Health(probe),
                    false if head.len() < HEAD_MAX => Kind::Undecided,
                    false => Kind::Other,
                };
            }
            None if start.starts_with(head) => return Kind::Undecided,
            Some([]) => return Kind::Undecided,
            _ => {}
        }
    }
    Kind::Other
}

/// The connections that wait here; the sender ends one.
#[derive(Default)]
struct Undecided(Mutex<(u64, BTreeMap<u64, oneshot::Sender<()>>)>);

impl Undecided {
    fn held(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, oneshot::Sender<()>>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, for which the oldest connection has to go if there is none.
    fn take(self: &Arc<Self>) -> (Place, oneshot::Receiver<()>) {
        let (sender, ends) = oneshot::channel();
        let mut held = self.held();
        let (last, waiting) = &mut *held;
        if waiting.len() >= UNDECIDED_MAX
            && !Mutant::UndecidedUnbounded.is_active()
            && let Some((_, oldest)) = waiting.pop_first()
        {
            // It may have ended by itself.
            let _ = oldest.send(());
        }
        *last += 1;
        waiting.insert(*last, sender);
        (Place { undecided: Arc::clone(self), number: *last }, ends)
    }
}

/// A connection's place, until it is dropped.
struct Place {
    undecided: Arc<Undecided>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.undecided.held().1.remove(&self.number);
    }
}

/// Takes connections for as long as it is polled, and hands those on that ask for something else.
pub(super) async fn keep(mut listener: TcpListener, examine: Examine, others: mpsc::Sender<Other>) {
    let undecided = Arc::new(Undecided::default());
    loop {
        let (stream, _) = Listener::accept(&mut listener).await;
        let_in(stream, &undecided, &examine, &others);
    }
}

fn let_in(
    stream: TcpStream,
    undecided: &Arc<Undecided>,
    examine: &Examine,
    others: &mpsc::Sender<Other>,
) {
    let (place, ends) = undecided.take();
    tokio::spawn(serve(stream, place, ends, Arc::clone(examine), others.clone()));
}

async fn serve(
    mut stream: TcpStream,
    place: Place,
    mut ends: oneshot::Receiver<()>,
    examine: Examine,
    others: mpsc::Sender<Other>,
) {
    let mut read = Vec::new();
    let decided = tokio::select! {
        biased;
        kind = decide(&mut stream, &mut read) => kind,
        _ = &mut ends => {
            if Mutant::NoLastLook.is_active() {
                return;
            }
            let Some(looked) = last_look(stream, &mut read) else { return };
            stream = looked;
            // Another request finds no place.
            Some(kind(&read)).filter(|kind| *kind != Kind::Other)
        }
        () = tokio::time::sleep(UNDECIDED_TIME) => None,
    };
    match decided {
        Some(Kind::Health(probe)) => {
            drop(place);
            let answer = examine(probe).await;
            // Its client may be gone.
            let _ = tokio::time::timeout(UNDECIDED_TIME, tell(stream, answer)).await;
        }
        Some(Kind::Other) => {
            tokio::select! {
                biased;
                // An error means that the node stops.
                next = others.reserve() => drop(next.map(|next| next.send(Other { stream, read }))),
                _ = ends => {}
            }
        }
        Some(Kind::Undecided) | None => {}
    }
}

/// Reads until it is known what is asked. None if the connection ends.
async fn decide(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<Kind> {
    loop {
        match kind(read) {
            Kind::Undecided => {}
            decided => return Some(decided),
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

/// Reads what is there, though this process may not have been told of it yet. None if the connection has ended.
fn last_look(stream: TcpStream, read: &mut Vec<u8>) -> Option<TcpStream> {
    let mut stream = stream.into_std().ok()?;
    let mut buf = [0; HEAD_MAX];
    match stream.read(&mut buf) {
        Ok(bytes) => read.extend_from_slice(&buf[..bytes]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(_) => return None,
    }
    TcpStream::from_std(stream).ok()
}

async fn tell(mut stream: TcpStream, answer: Result<(), String>) -> std::io::Result<()> {
    let (status, body) = match answer {
        Ok(()) => ("200 OK", "ok\n".to_owned()),
        Err(reason) => ("503 Service Unavailable", format!("{reason}\n")),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream as Client};

    use super::*;

    const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

    #[test]
    fn the_first_bytes_decide_once_there_are_enough() {
        for undecided in
            [&b""[..], b"G", b"GET /live", b"GET /livez", b"GET /readyz HTTP/1.1\r\nh:"]
        {
            assert_eq!(kind(undecided), Kind::Undecided, "{}", undecided.escape_ascii());
        }
        assert_eq!(kind(LIVEZ), Kind::Health(Probe::Live));
        assert_eq!(kind(b"GET /readyz?x=1 HTTP/1.1\r\n\r\n"), Kind::Health(Probe::Ready));
        for other in [&b"GET /livezz HTTP/1.1\r\n\r\n"[..], b"GET /m", b"HEAD", b"\r\n", b"x"] {
            assert_eq!(kind(other), Kind::Other, "{}", other.escape_ascii());
        }
        let long = [b"GET /livez ", &[b'x'; HEAD_MAX][..]].concat();
        assert_eq!(kind(&long), Kind::Other);
    }

    /// Asks a door that has not looked at anything yet.
    fn ask(listener: &TcpListener, bytes: &[u8], let_in: impl Fn(TcpStream)) -> Client {
        let addr = listener.local_addr().expect("addr");
        let mut client = Client::connect(addr).expect("connect");
        client.write_all(bytes).expect("write");
        let (stream, _) = listener.accept().expect("accept");
        stream.set_nonblocking(true).expect("a socket");
        let_in(TcpStream::from_std(stream).expect("a socket"));
        client
    }

    async fn answer(mut client: Client) -> String {
        let reading = tokio::task::spawn_blocking(move || {
            let mut answer = String::new();
            client.read_to_string(&mut answer).map(|_| answer)
        });
        reading.await.expect("no panic").expect("an answer")
    }

    /// All of them come in before the door looks at any.
    #[tokio::test]
    async fn a_check_is_answered_in_a_flood_of_connections_that_bring_nothing_or_half_of_a_request()
    {
        // Nobody takes the other requests, as if all places were taken for good.
        let (others, _handed_on) = mpsc::channel(1);
        let examine: Examine = Arc::new(|probe| {
            let answer = match probe {
                Probe::Live => Ok(()),
                Probe::Ready => Err("a reason".to_owned()),
            };
            Box::pin(std::future::ready(answer))
        });
        let undecided = Arc::new(Undecided::default());
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let come = |bytes: &[u8]| {
            ask(&listener, bytes, |stream| let_in(stream, &undecided, &examine, &others))
        };
        let floods =
            [&b""[..], b"GET /livez HTTP/1.1\r\nhost:", b"GET /metrics HTTP/1.1\r\n\r\n", b"G"];
        let mut flood = Vec::new();
        let mut checks = Vec::new();
        for n in 0..3 * UNDECIDED_MAX {
            flood.push(come(floods[n % floods.len()]));
            if n % 10 == 0 {
                checks.push(come(LIVEZ));
            }
        }
        for check in checks {
            let answer = answer(check).await;
            assert!(
                answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"),
                "{answer}"
            );
        }
        let unready = answer(come(b"GET /readyz HTTP/1.0\r\n\r\n")).await;
        assert!(
            unready.starts_with("HTTP/1.1 503 ") && unready.ends_with("a reason\n"),
            "{unready}"
        );
        assert!(undecided.held().1.len() <= UNDECIDED_MAX);
    }
}
