//! Passes a client's requests on to the node that leads: a connection there for each connection here, so that the
//! leader knows the client, and what it says unasked reaches it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use quorumlog::seam::Transport;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::connection::{Connection, Out};
use super::link::serve_ends;
use super::pending_request::PendingRequest;
use super::pull_again::{PULL_AGAIN, bytes_to_pull_again, is_pull};
use crate::mutant::Mutant;
use crate::remoting::codes::{request, response};
use crate::remoting::{Command, FrameReader, Queued, Waiting};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const QUEUE_MAX: usize = 256;
/// Requests that wait for the leader's answer.
const PENDING_MAX: usize = 4096;

/// The way to the leader, if it was needed.
#[derive(Default)]
pub(crate) struct Relay {
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
}

/// The leader, as this node knows it.
#[derive(Clone, Copy)]
pub(crate) struct Leader<'a> {
    pub(crate) transport: &'a dyn Transport,
    pub(crate) addr: &'a str,
    /// The name of the broker that it leads.
    pub(crate) broker: &'a str,
}

/// Why the leader did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayError {
    /// It was not reached in time, or does not lead: nothing was done.
    NotDone,
    /// The connection broke before the answer came, or it did not come in time.
    Lost,
}

/// How long a request may take that is passed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// Until it is on its way to the leader. Later it is taken back.
    pub(crate) begun: Instant,
    /// Until its answer is here.
    pub(crate) answered: Instant,
}

/// What the leader answered, framed; an error if it does not lead.
type Answer = Result<Vec<Bytes>, RelayError>;

struct Link {
    addr: String,
    out: mpsc::Sender<Passed>,
    waiting: Arc<Waiting<Answer>>,
    /// Reader and writer; they end with the link.
    _tasks: JoinSet<()>,
}

/// A request in the queue to the leader.
struct Passed {
    chunks: Vec<Bytes>,
    turn: Arc<Turn>,
}

/// Whether a request in the queue is still wanted. Either its sender takes it back, or it is written.
#[derive(Default)]
struct Turn {
    decided: AtomicU8,
    written: Notify,
}

impl Turn {
    const WRITTEN: u8 = 1;
    const TAKEN_BACK: u8 = 2;

    /// True if nothing was decided before.
    fn decide(&self, what: u8) -> bool {
        self.decided.compare_exchange(0, what, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Queued for Passed {
    fn begin(self) -> Option<Vec<Bytes>> {
        let wanted = self.turn.decide(Turn::WRITTEN);
        self.turn.written.notify_one();
        wanted.then_some(self.chunks)
    }
}

/// A frame with its length word in front again.
fn framed(frame: Bytes) -> Vec<Bytes> {
    let mut length = BytesMut::with_capacity(4);
    length.put_u32(frame.len() as u32);
    vec![length.freeze(), frame]
}

impl Relay {
    /// Has a request answered by the leader. None for one that needs no answer.
    ///
    /// # Errors
    /// It did not answer.
    pub(crate) async fn pass(
        &self,
        client: &Connection,
        leader: Leader<'_>,
        request: &mut PendingRequest,
        deadlines: Deadlines,
    ) -> Result<Option<Vec<Bytes>>, RelayError> {
        let link = timeout_at(deadlines.begun, self.link(client, leader)).await;
        link.map_err(|_| RelayError::NotDone)??.pass(client, request, deadlines).await
    }

    /// Ends the connection to the leader.
    pub(crate) async fn close(&self) {
        self.link.lock().await.take();
    }

    async fn link(&self, client: &Connection, leader: Leader<'_>) -> Result<Arc<Link>, RelayError> {
        let mut held = self.link.lock().await;
        let is_open = |link: &&Arc<Link>| link.addr == leader.addr && !link.out.is_closed();
        if let Some(link) = held.as_ref().filter(is_open) {
            return Ok(Arc::clone(link));
        }
        let connecting = async {
            let stream = leader.transport.dial(leader.addr).await.ok()?;
            let ends = tokio::io::split(stream);
            let link = Link::start(ends, leader.addr, client.out().clone());
            link.is_let_in(client.client(), leader.broker).await.then_some(link)
        };
        let link = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.ok().flatten();
        let link = Arc::new(link.ok_or(RelayError::NotDone)?);
        *held = Some(Arc::clone(&link));
        Ok(link)
    }
}

impl Link {
    /// Says whom it speaks for, and to which broker. False if another one answers, or none: an address may be out of date,
    /// and a request without a broker's name must not be taken by the broker of another log.
    async fn is_let_in(&self, client: SocketAddr, broker: &str) -> bool {
        let fields = [("client", client.to_string()), ("bname", broker.to_owned())];
        let hello = Command::request(request::RELAY, 0, fields.into_iter().collect());
        // Nothing else was asked as yet, so this number is free.
        let Some(mut waiter) = self.waiting.begin(hello.head.opaque) else { return false };
        let passed = Passed { chunks: hello.encode(), turn: Arc::default() };
        if self.out.send(passed).await.is_err() {
            return false;
        }
        let Some(Ok(answer)) = waiter.answer().await else { return false };
        let answer = answer.last().cloned().and_then(|frame| Command::decode(frame).ok());
        let is_right = answer.is_some_and(|answer| answer.head.code == response::SUCCESS);
        is_right || Mutant::RelayedToAnybody.is_active()
    }

    /// As `Relay::pass`. A request with room among the parked is shed once it is written; each other one, if there is
    /// room, once it is too late to ask anybody else.
    async fn pass(
        &self,
        client: &Connection,
        request: &mut PendingRequest,
        deadlines: Deadlines,
    ) -> Result<Option<Vec<Bytes>>, RelayError> {
        let turn = Arc::<Turn>::default();
        let passed = Passed { chunks: framed(request.frame().clone()), turn: Arc::clone(&turn) };
        let queue = async {
            let place = timeout_at(deadlines.begun, self.out.reserve()).await;
            place.ok().and_then(Result::ok).ok_or(RelayError::NotDone)?.send(passed);
            Ok(())
        };
        if request.command.is_oneway() {
            return queue.await.map(|()| None);
        }
        let opaque = request.command.head.opaque;
        // Whenever a pull is shed, its client has to be told where to pull again.
        let again: &[&str] = if is_pull(request.command.head.code) { &PULL_AGAIN } else { &[] };
        let mut waiter = self.waiting.begin(opaque).ok_or(RelayError::NotDone)?;
        queue.await?;
        let mut answer = if request.has_room() {
            tokio::select! {
                biased;
                answer = waiter.answer() => Some(answer),
                () = turn.written.notified() => {
                    request.shed(again);
                    timeout_at(deadlines.begun, waiter.answer()).await.ok()
                }
                () = tokio::time::sleep_until(deadlines.begun) => None,
            }
        } else {
            timeout_at(deadlines.begun, waiter.answer()).await.ok()
        };
        if answer.is_none() {
            if turn.decide(Turn::TAKEN_BACK) && !Mutant::RelayedWithoutLimit.is_active() {
                return Err(RelayError::NotDone);
            }
            let kept = bytes_to_pull_again(&request.command);
            if !request.is_shed() && request.claim(client, kept).is_ok() {
                // It may have been written in the moment in which the time was up.
                request.shed(if Mutant::ShedPullForgets.is_active() { &[] } else { again });
            }
            answer = timeout_at(deadlines.answered, waiter.answer()).await.ok();
        }
        answer.flatten().unwrap_or(Err(RelayError::Lost)).map(Some)
    }

    fn start(
        (reader, writer): (
            impl AsyncRead + Unpin + Send + 'static,
            impl AsyncWrite + Unpin + Send + 'static,
        ),
        addr: &str,
        to_client: Out,
    ) -> Self {
        let (out, queue) = mpsc::channel(QUEUE_MAX);
        let waiting = Waiting::new(PENDING_MAX);
        let shared = Arc::clone(&waiting);
        let reading = async move { read(reader, &shared, to_client).await };
        let tasks = serve_ends(&waiting, reading, writer, queue);
        Self { addr: addr.to_owned(), out, waiting, _tasks: tasks }
    }
}

/// Hands answers to the tasks that wait for them, and all else to the client, until the connection ends. It reads no more
/// than the client may have waiting.
async fn read(from: impl AsyncRead + Unpin, waiting: &Waiting<Answer>, to_client: Out) {
    let share = to_client.share();
    let mut reader = FrameReader::new(from, Arc::clone(share), Arc::default());
    loop {
        if !reader.has_frame() && !reader.is_within_frame() {
            share.ready().await;
        }
        let Ok(Some(frame)) = reader.next().await else { break };
        let Ok(command) = Command::decode(frame.clone()) else { break };
        if command.is_answer() {
            let not_leading = command.head.code == response::NOT_LEADING;
            let answer = if not_leading { Err(RelayError::NotDone) } else { Ok(framed(frame)) };
            waiting.answered(command.head.opaque, answer);
        } else if !to_client.send(framed(frame)).await {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Budgets;
    use super::*;
    use crate::open::single::Single;
    use crate::remoting::{Budget, Fields, Reply, Share};
    use crate::settings::BrokerConfig;

    /// A link that nobody reads from at the other end, and its request budget.
    fn link(
        ends: (impl AsyncRead + Unpin + Send + 'static, impl AsyncWrite + Unpin + Send + 'static),
    ) -> Link {
        let share = Share::new(&Budget::new(usize::MAX), usize::MAX);
        Link::start(ends, "a node", Out::new(mpsc::channel(1).0, share))
    }

    fn request(code: i32) -> PendingRequest {
        let fields = [("queueOffset", "7"), ("padding", &"x".repeat(10_000))].into_iter().collect();
        let command = Command::request(code, 1, fields);
        let frame = Bytes::from(command.clone().encode().concat()).slice(4..);
        PendingRequest::new(frame, command)
    }

    fn client() -> Arc<Connection> {
        let budgets = Budgets::new(&BrokerConfig::default());
        Connection::new(1, ([127, 0, 0, 1], 1).into(), &budgets).0
    }

    fn within(begun: u64, answered: u64) -> Deadlines {
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);
        Deadlines { begun: after(begun), answered: after(answered) }
    }

    async fn asked(link: &Link) -> RelayError {
        let (client, mut request) = (client(), request(request::GET_MAX_OFFSET));
        let passed = link.pass(&client, &mut request, within(20, 20));
        let answered = tokio::time::timeout(Duration::from_secs(10), passed).await;
        answered.expect("it is told that no answer comes").expect_err("there is no answer")
    }

    /// Either half may be the first that sees it.
    #[tokio::test]
    async fn nobody_waits_for_an_answer_when_the_connection_cannot_be_written() {
        let (reader, _open) = tokio::io::duplex(64);
        let (writer, _) = tokio::io::duplex(64);
        let link = link((reader, writer));
        assert_eq!(asked(&link).await, RelayError::Lost);
        assert_eq!(asked(&link).await, RelayError::NotDone);
    }

    #[tokio::test]
    async fn nobody_waits_for_an_answer_when_the_connection_has_ended() {
        let (reader, _) = tokio::io::duplex(64);
        let (writer, _open) = tokio::io::duplex(64);
        let link = link((reader, writer));
        assert_eq!(asked(&link).await, RelayError::Lost);
        assert_eq!(asked(&link).await, RelayError::NotDone);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_came_together_wait_for_no_room() {
        const ANSWERS: i32 = 20;
        let (reader, mut leader) = tokio::io::duplex(16 << 10);
        let (writer, _open) = tokio::io::duplex(16 << 10);
        let share = Share::new(&Budget::new(100), usize::MAX);
        let link = Link::start((reader, writer), "a node", Out::new(mpsc::channel(1).0, share));
        let begin = |opaque| link.waiting.begin(opaque).expect("it is open");
        let mut waiters: Vec<_> = (0..ANSWERS).map(begin).collect();
        let answer = |opaque| {
            let request = Command::request(request::GET_MAX_OFFSET, opaque, Fields::default());
            Reply::done().encode(&request).concat()
        };
        let all: Vec<u8> = (0..ANSWERS).flat_map(answer).collect();
        tokio::io::AsyncWriteExt::write_all(&mut leader, &all).await.expect("all fits");
        for waiter in &mut waiters {
            let answered = tokio::time::timeout(Duration::from_secs(5), waiter.answer()).await;
            answered.expect("in time").expect("it came").expect("an answer");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_hangs_costs_a_request_no_more_than_its_time_and_what_was_not_written_is_taken_back()
     {
        let (reader, _silent) = tokio::io::duplex(64);
        // It takes a part of the first request and then nothing more.
        let (writer, _full) = tokio::io::duplex(16);
        let link = link((reader, writer));
        let client = client();
        let new = || request(request::GET_MAX_OFFSET);
        let since = Instant::now();
        let first = link.pass(&client, &mut new(), within(1, 6)).await;
        assert_eq!((first, since.elapsed().as_secs()), (Err(RelayError::Lost), 6));
        let mut second = new();
        let answer = link.pass(&client, &mut second, within(1, 6)).await;
        assert_eq!((answer, since.elapsed().as_secs()), (Err(RelayError::NotDone), 7));
        assert!(!second.is_shed(), "another node can be asked");
        let mut oneway = new();
        oneway.command = oneway.command.oneway();
        assert_eq!(link.pass(&client, &mut oneway, within(1, 6)).await, Ok(None), "it is queued");
    }

    /// The writer has decided, and has not said so yet: the moment between the two lines of `Passed::begin`.
    #[tokio::test(start_paused = true)]
    async fn a_pull_that_is_written_in_the_moment_its_time_is_up_still_knows_where_to_pull_again() {
        for waits in [true, false] {
            let (out, mut queue) = mpsc::channel::<Passed>(1);
            let waiting = Waiting::new(PENDING_MAX);
            let link = Link { addr: "a node".to_owned(), out, waiting, _tasks: JoinSet::new() };
            let (client, mut request) = (client(), request(request::PULL_MESSAGE));
            if waits {
                request.claim(&client, 0).expect("there is room");
            }
            let writing = async {
                let passed = queue.recv().await.expect("a request");
                assert!(passed.turn.decide(Turn::WRITTEN), "it is wanted");
                passed
            };
            let passing = link.pass(&client, &mut request, within(1, 6));
            let (answer, _passed) = tokio::join!(passing, writing);
            assert_eq!(answer, Err(RelayError::Lost));
            assert!(request.is_shed());
            let left = request.command.head.fields.get("queueOffset");
            assert_eq!(left, Some("7"), "waits: {waits}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_the_leader_keeps_its_frame_only_while_another_node_can_be_asked() {
        let (reader, _silent) = tokio::io::duplex(64);
        let (writer, _taken) = tokio::io::duplex(1 << 20);
        let link = link((reader, writer));
        let client = client();
        for (code, waits, shed_after) in
            [(request::PULL_MESSAGE, true, 0..1), (request::GET_MAX_OFFSET, false, 9..12)]
        {
            let mut request = request(code);
            if waits {
                request.claim(&client, 0).expect("there is room");
            }
            let frame = request.frame().clone();
            let mut passed = Box::pin(link.pass(&client, &mut request, within(1, 6)));
            let mut seen = None;
            for tenth in 0..60 {
                let step = Duration::from_millis(100);
                if tokio::time::timeout(step, &mut passed).await.is_ok() {
                    break;
                }
                // The test has one; the request, what was decoded of it and the link had the others.
                if seen.is_none() && frame.is_unique() {
                    seen = Some(tenth);
                }
            }
            drop(passed);
            assert!(seen.is_some_and(|tenth| shed_after.contains(&tenth)), "{code}: {seen:?}");
            assert!(request.is_shed());
            let left = request.command.head.fields.get("queueOffset");
            assert_eq!(left, waits.then_some("7"), "{code}: what it is told to pull from again");
        }
    }

    /// A follower may know an address that a log's broker had before its node started again.
    #[tokio::test]
    async fn a_request_is_not_passed_to_whatever_else_listens_where_the_leader_was() {
        let single = Single::start(|_, settings| {
            settings.listen.push("127.0.0.1:0".to_owned());
        })
        .await;
        let transport = single.node.transport();
        let [own, others] = *single.broker.addrs() else { panic!("two logs") };
        let name_server = single.broker.name_server().expect("it has one");
        let ask = async |addr: SocketAddr| {
            let (addr, relay) = (addr.to_string(), Relay::default());
            let leader = Leader { transport: &*transport, addr: &addr, broker: "broker-0" };
            let (client, mut request) = (client(), request(request::CHECK_CLIENT_CONFIG));
            relay.pass(&client, leader, &mut request, within(20, 20)).await
        };
        while ask(own).await.is_err() {
            // It does not lead yet.
        }
        for addr in [others, name_server] {
            assert_eq!(ask(addr).await, Err(RelayError::NotDone));
        }
    }
}
