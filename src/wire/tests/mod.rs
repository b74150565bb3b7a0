//! Behaviour of connections, in memory and over loopback TCP.

mod batching;
mod faults;
mod links;
mod streams;
mod turns;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::calls::credit_of;
use super::*;
use crate::seam::net::memory::MemoryTransport;
use crate::seam::{TcpTransport, Transport};

const ECHO: u8 = 1;
/// Answered when `release` is called.
const HOLD: u8 = 2;
/// Closes the connection with a reason.
const BAD: u8 = 3;
/// A stream of numbers, within its credit.
const NUMBERS: u8 = 4;
/// Answered by so many (head: u32) frames of 1 KiB at once, credit or not.
const FLOOD: u8 = 5;

const LIMITS: WireLimits = WireLimits::OF_TESTS;

/// Does what the kinds say, for cluster 7.
#[derive(Default)]
struct TestService {
    held: Mutex<Vec<(Outbound, OutFrame)>>,
    handled: watch::Sender<Vec<Frame>>,
    flooded: watch::Sender<Option<u32>>,
}

#[derive(Default)]
struct Session {
    credit: u64,
    next: u64,
}

fn hello(protocol: Protocol, cluster: u128) -> Hello {
    Hello { protocol, cluster, node_id: 1, incarnation: 5, target: 2, intro: None }
}

impl Service for TestService {
    type Session = Session;

    async fn open(&self, theirs: Hello, _remote: &str) -> Result<(Hello, Session), String> {
        if theirs.cluster != 7 {
            return Err(format!("this is cluster 7, not {}", theirs.cluster));
        }
        Ok((Hello { node_id: 2, target: 0, ..theirs }, Session::default()))
    }

    fn handle(&self, session: &mut Session, frame: Frame, out: &Outbound) -> Result<(), String> {
        self.handled.send_modify(|handled| handled.push(frame.clone()));
        let Frame { kind, log, correlation, head, body } = frame.clone();
        let response = OutFrame { kind, log, correlation, head, body: vec![body] };
        match kind {
            ECHO => drop(out.send(response)),
            HOLD => self.held.lock().expect("lock").push((out.clone(), response)),
            BAD => return Err("this kind is bad".to_owned()),
            NUMBERS => {}
            kind::CREDIT => {
                session.credit += u64::from(credit_of(&frame)?);
                while session.credit > 0 {
                    out.send_head(NUMBERS, log, correlation, &session.next.to_le_bytes());
                    session.next += 1;
                    session.credit -= 1;
                }
            }
            FLOOD => {
                let count = credit_of(&frame)?;
                let body = vec![Bytes::from(vec![0; 1 << 10])];
                let frame = OutFrame { body, ..response };
                let sent = (0..count).take_while(|_| out.send(frame.clone())).count();
                self.flooded.send_replace(Some(u32::try_from(sent).expect("below count")));
            }
            _ => {}
        }
        Ok(())
    }
}

impl TestService {
    /// Answers what is held, the newest first.
    fn release(&self) {
        for (out, response) in self.held.lock().expect("lock").drain(..).rev() {
            out.send(response);
        }
    }

    /// Waits until this many frames came in.
    async fn handled(&self, count: usize) {
        let mut handled = self.handled.subscribe();
        handled.wait_for(|handled| handled.len() >= count).await.expect("the service lives");
    }
}

/// A served listener.
struct Server {
    addr: String,
    service: Arc<TestService>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(transport: &dyn Transport, addr: &str, limits: WireLimits) -> Self {
        let acceptor = transport.bind(addr).await.expect("bind");
        let addr = acceptor.local_addr();
        let service = Arc::new(TestService::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let task = tokio::spawn(serve(acceptor, Arc::clone(&service), limits, shutdown));
        Self { addr, service, stop: Some(stop), task }
    }

    /// Shuts down and waits until it has.
    async fn stop(mut self) {
        self.stop.take();
        self.task.await.expect("serve does not panic");
    }

    /// Dies without a word.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.expect_err("aborted").is_cancelled());
    }
}

fn link_as(transport: Arc<dyn Transport>, addr: &str, hello: Hello, limits: WireLimits) -> Link {
    Link::new(
        transport,
        Arc::new(addr.to_owned()),
        Arc::new(move || hello.clone()),
        Arc::new(
            |theirs, _| {
                if theirs.node_id == 2 { Ok(()) } else { Err("not node 2".to_owned()) }
            },
        ),
        limits,
    )
}

fn link(transport: &MemoryTransport, addr: &str) -> Link {
    link_as(Arc::new(transport.clone()), addr, hello(Protocol::Peer, 7), LIMITS)
}

fn request(kind: u8, head: &[u8]) -> OutFrame {
    OutFrame { kind, head: Bytes::copy_from_slice(head), ..OutFrame::default() }
}

const SOON: Duration = Duration::from_secs(5);

async fn echo(link: &Link, text: &str) -> Result<(), LinkError> {
    let frame = link.request(request(ECHO, text.as_bytes()), SOON).await?;
    assert_eq!(frame.head, text);
    Ok(())
}
