//! The dialing end: one connection to one address, made when needed and made again when it breaks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::backoff;
use super::calls::{Calls, Pending, StreamReceiver};
use super::connection::{Connection, Side};
use super::hello::{self, HandshakeError};
use super::{Frame, Hello, OutFrame, WireLimits};
use crate::mutant::Mutant;
use crate::panics;
use crate::seam::{Duplex, Transport};

/// Why a request got no response.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LinkError {
    /// Not connected; nothing was sent.
    #[error("{addr} cannot be reached: {detail}")]
    Unreachable { addr: String, detail: String },
    /// The other end refused the handshake; nothing was sent.
    #[error("{addr} refused the connection: {reason}")]
    Refused { addr: String, reason: String },
    /// The other end speaks another version of the protocol; nothing was sent.
    #[error(
        "{addr} speaks version {theirs} of the protocol, and this build speaks version {ours}: run the same build on both"
    )]
    OtherVersion { addr: String, theirs: u8, ours: u8 },
    /// The queue to the peer is full, or too many requests wait for their responses; nothing was sent.
    #[error("{addr} is too slow: {queued} bytes or requests wait")]
    Busy { addr: String, queued: usize },
    /// The other end would not take a frame of this size; nothing was sent.
    #[error("{addr} takes {limit} bytes at once, and the request has {size}")]
    TooLarge { addr: String, size: usize, limit: usize },
    /// The connection broke after the frame was queued.
    #[error("the connection to {addr} broke: {detail}")]
    Broken { addr: String, detail: String },
    #[error("{addr} did not answer within {after:?}")]
    Timeout { addr: String, after: Duration },
}

/// Decides about the hello that came from the address when dialing: Err refuses.
pub(crate) type HelloCheck = Arc<dyn Fn(&Hello, &str) -> Result<(), String> + Send + Sync>;

/// Pause before a node of another version is dialed again. Once it has been upgraded it dials by itself.
const OTHER_VERSION_PAUSE: Duration = Duration::from_secs(30);
/// How long a dial may take before news of the other end has it begun again. What it sent may have been lost, and then
/// TCP waits for a second before it sends that again, then for two, and so on (RFC 6298).
const DIAL_PATIENCE: Duration = Duration::from_millis(100);

/// Where the other end of a link is. Asked at each dial, since it may move.
pub(crate) trait Place: Send + Sync + 'static {
    /// `host:port` to dial now.
    fn addr(&self) -> String;
    /// Tells how a dial of `addr` ended.
    fn dialed(&self, addr: &str, ended: Result<(), &LinkError>);
}

/// An address that stays.
impl Place for String {
    fn addr(&self) -> String {
        self.clone()
    }

    fn dialed(&self, _addr: &str, _ended: Result<(), &LinkError>) {}
}

/// One connection to one address: dialed on demand, with backoff, shared by all that send there.
/// Requests and responses are matched by correlation. The last clone's drop closes it.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    phase: watch::Sender<Phase>,
    failures: AtomicU32,
    /// Told when there is news of the other end.
    news: Notify,
}

struct Dialer {
    transport: Arc<dyn Transport>,
    place: Arc<dyn Place>,
    hello: Arc<dyn Fn() -> Hello + Send + Sync>,
    check: HelloCheck,
    limits: WireLimits,
}

#[derive(Clone)]
enum Phase {
    Idle,
    /// Once it is through it is done again if `again`: what it found out may be out of date.
    Dialing {
        again: bool,
    },
    Open(Arc<Calls>),
    Waiting {
        until: Instant,
        error: LinkError,
    },
    Closed,
}

impl Link {
    /// Sends nothing yet. `hello` is asked for at each dial, since the cluster id may become known later.
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        place: Arc<dyn Place>,
        hello: Arc<dyn Fn() -> Hello + Send + Sync>,
        check: HelloCheck,
        limits: WireLimits,
    ) -> Self {
        let dialer = Dialer { transport, place, hello, check, limits };
        let phase = watch::Sender::new(Phase::Idle);
        let (failures, news) = (AtomicU32::new(0), Notify::new());
        Self { shared: Arc::new(Shared { dialer, phase, failures, news }) }
    }

    /// Connects if need be, and fails fast while backing off. Dropping the future does not stop the
    /// dial, which ends by itself within the handshake timeout.
    pub(crate) async fn connect(&self) -> Result<(), LinkError> {
        let shared = &self.shared;
        if self.calls().is_ok() {
            return Ok(());
        }
        shared.dial_if_due();
        let mut phase = shared.phase.subscribe();
        let phase = phase.wait_for(|phase| !matches!(phase, Phase::Dialing { .. })).await;
        match phase.as_deref() {
            Ok(Phase::Open(_)) => Ok(()),
            Ok(Phase::Waiting { error, .. }) => Err(error.clone()),
            _ => Err(shared.unreachable("the link is closed")),
        }
    }

    /// Queues the request on the open connection, in order (correlation is chosen here), and gives
    /// the response later. Fails at once if not connected.
    pub(crate) fn start(&self, frame: OutFrame) -> Result<Pending, LinkError> {
        self.calls()?.start(frame, None)
    }

    /// `start` for a request that takes up room until its response is there.
    #[cfg_attr(not(feature = "client"), allow(dead_code, reason = "nodes bound appends otherwise"))]
    pub(crate) fn start_in(
        &self,
        frame: OutFrame,
        room: Arc<OwnedSemaphorePermit>,
    ) -> Result<Pending, LinkError> {
        self.calls()?.start(frame, Some(room))
    }

    /// Queues a request that is answered by a stream of frames with the same correlation. The sender
    /// may be `capacity` frames ahead of the receiver. Fails at once if not connected.
    #[cfg_attr(not(feature = "client"), allow(dead_code, reason = "streams are for clients"))]
    pub(crate) fn open_stream(
        &self,
        frame: OutFrame,
        capacity: u32,
    ) -> Result<StreamReceiver, LinkError> {
        self.calls()?.open_stream(frame, capacity)
    }

    /// `connect`, `start`, and wait with a time limit.
    pub(crate) async fn request(
        &self,
        frame: OutFrame,
        limit: Duration,
    ) -> Result<Frame, LinkError> {
        let exchange = async {
            self.connect().await?;
            self.start(frame)?.await
        };
        timeout(limit, exchange).await.unwrap_or_else(|_| {
            Err(LinkError::Timeout { addr: self.shared.dialer.place.addr(), after: limit })
        })
    }

    /// True while it is connected.
    pub(crate) fn is_open(&self) -> bool {
        self.calls().is_ok()
    }

    /// Begins to connect, unless it is connected or backs off.
    pub(crate) fn poke(&self) {
        if !self.is_open() {
            self.shared.dial_if_due();
        }
    }

    /// Begins to connect now, even if it backs off or a dial hangs: there is news of the other end.
    pub(crate) fn retry_now(&self) {
        if !Mutant::HungDialKept.is_active() {
            self.shared.news.notify_waiters();
        }
        self.shared.phase.send_if_modified(|phase| {
            let waits = matches!(phase, Phase::Waiting { .. });
            if waits {
                *phase = Phase::Idle;
            }
            waits
        });
        self.poke();
    }

    /// Ends the connection, if there is one or it is just being made, and begins to make another: the process at the other end
    /// is another now.
    pub(crate) fn renew(&self) {
        self.shared.phase.send_if_modified(|phase| {
            match phase {
                Phase::Open(calls) => {
                    calls.close("another process has come in the place of the other end's");
                }
                Phase::Dialing { again } => *again = !Mutant::DialOutlivesRenewal.is_active(),
                _ => {}
            }
            // Whoever waits for the dial waits on.
            false
        });
        self.poke();
    }

    /// Closes the connection and makes no other. What waits for a response fails.
    pub(crate) fn close(&self) {
        if let Phase::Open(calls) = self.shared.phase.send_replace(Phase::Closed) {
            calls.close("the link was closed");
        }
    }

    fn calls(&self) -> Result<Arc<Calls>, LinkError> {
        match &*self.shared.phase.borrow() {
            Phase::Open(calls) if calls.is_open() => Ok(Arc::clone(calls)),
            Phase::Waiting { error, .. } => Err(error.clone()),
            Phase::Closed => Err(self.shared.unreachable("the link is closed")),
            _ => Err(self.shared.unreachable("it is not connected")),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Phase::Open(calls) = &*self.phase.borrow() {
            calls.close("the link was dropped");
        }
    }
}

impl Shared {
    fn unreachable(&self, detail: &str) -> LinkError {
        LinkError::Unreachable { addr: self.dialer.place.addr(), detail: detail.to_owned() }
    }

    fn dial_if_due(self: &Arc<Self>) {
        let due = self.phase.send_if_modified(|phase| {
            let due = match phase {
                Phase::Idle => true,
                Phase::Open(calls) => !calls.is_open(),
                Phase::Waiting { until, .. } => Instant::now() >= *until,
                Phase::Dialing { .. } | Phase::Closed => false,
            };
            if due {
                *phase = Phase::Dialing { again: false };
            }
            due
        });
        if due {
            let (link, failed) = (Arc::clone(self), Arc::clone(self));
            tokio::spawn(panics::or_else(link.dial(), move |panic| {
                // Otherwise it would dial for ever.
                let error = failed.unreachable(&format!("dialing panicked: {panic}"));
                failed.end_dialing(failed.after_failure(error));
            }));
        }
    }

    async fn dial(self: Arc<Self>) {
        let mut patience = DIAL_PATIENCE;
        let (addr, dialed) = loop {
            let addr = self.dialer.place.addr();
            let dialed = self.dialer.dial(&addr, self.has_news_after(patience)).await;
            let Some(dialed) = dialed else {
                // However slow the network is, a dial is let through in the end.
                patience *= 2;
                continue;
            };
            if !self.takes_up_again() {
                break (addr, dialed);
            }
        };
        self.dialer.place.dialed(&addr, dialed.as_ref().map(drop));
        let opened = match dialed {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "no connection");
                let waiting = self.after_failure(error);
                self.end_dialing(waiting);
                return;
            }
        };
        let calls = Arc::new(Calls::new(addr, opened.out.clone()));
        if self.end_dialing(Phase::Open(Arc::clone(&calls))) {
            tokio::spawn(run(Arc::downgrade(&self), opened, calls));
        }
    }

    /// Resolves once there has been news of the other end since the call, at the earliest after `patience`.
    fn has_news_after(&self, patience: Duration) -> impl Future<Output = ()> {
        let (news, due) = (self.news.notified(), Instant::now() + patience);
        async move {
            news.await;
            sleep_until(due).await;
        }
    }

    /// True if the link must dial again.
    fn takes_up_again(&self) -> bool {
        let mut due = false;
        self.phase.send_if_modified(|phase| {
            if let Phase::Dialing { again } = phase {
                due = std::mem::take(again);
            }
            false
        });
        due
    }

    /// False if the link was closed meanwhile.
    fn end_dialing(&self, next: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let dialing = matches!(phase, Phase::Dialing { .. });
            if dialing {
                *phase = next;
            }
            dialing
        })
    }

    fn after_failure(&self, error: LinkError) -> Phase {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let seed = u64::from(crc32fast::hash(self.dialer.place.addr().as_bytes())) << 32;
        let seed = seed ^ (self.dialer.hello)().node_id;
        let pause = match error {
            LinkError::OtherVersion { .. } => OTHER_VERSION_PAUSE,
            _ => backoff::delay(failures, seed),
        };
        Phase::Waiting { until: Instant::now() + pause, error }
    }

    /// A connection that broke soon counts as a failure, so that one that is refused late is not
    /// made again at once.
    fn after_break(&self, calls: &Arc<Calls>, lasted: Duration, detail: String) {
        let next = if lasted < backoff::LONGEST {
            let addr = self.dialer.place.addr();
            self.after_failure(LinkError::Unreachable { addr, detail })
        } else {
            self.failures.store(0, Ordering::Relaxed);
            Phase::Idle
        };
        self.phase.send_if_modified(|phase| {
            let current = matches!(phase, Phase::Open(open) if Arc::ptr_eq(open, calls));
            if current {
                *phase = next;
            }
            current
        });
    }
}

async fn run(link: std::sync::Weak<Shared>, connection: Connection, calls: Arc<Calls>) {
    // However this task ends, nobody waits for it for ever.
    let _guard = FailOnDrop(Arc::clone(&calls));
    let begun = Instant::now();
    let never = std::future::pending();
    let end = connection.run(Side::Dialer, never, |frame| calls.deliver(frame)).await;
    let detail = end.to_string();
    if let Some(link) = link.upgrade() {
        tracing::debug!(addr = link.dialer.place.addr(), reason = detail, "connection ended");
        link.after_break(&calls, begun.elapsed(), detail.clone());
    }
    calls.fail_all(&detail);
}

/// Fails all requests that wait when it is dropped.
struct FailOnDrop(Arc<Calls>);

impl Drop for FailOnDrop {
    fn drop(&mut self) {
        self.0.fail_all("its task has ended");
    }
}

impl Dialer {
    /// Dials until `has_news` resolves. A handshake that has begun goes on to its end. None if nothing had come back when
    /// there was news that something would by now.
    async fn dial(
        &self,
        addr: &str,
        has_news: impl Future<Output = ()>,
    ) -> Option<Result<Connection, LinkError>> {
        let dialed = async {
            tokio::select! {
                biased;
                io = self.transport.dial(addr) => Some(io),
                () = has_news => None,
            }
        };
        let handshake = async {
            let io = dialed.await?;
            Some(self.shake_hands(addr, io).await)
        };
        let limit = self.limits.handshake_timeout;
        timeout(limit, handshake).await.unwrap_or_else(|_| {
            let detail = format!("no hello came back within {limit:?}");
            Some(Err(LinkError::Unreachable { addr: addr.to_owned(), detail }))
        })
    }

    async fn shake_hands(
        &self,
        addr: &str,
        io: io::Result<Box<dyn Duplex>>,
    ) -> Result<Connection, LinkError> {
        let unreachable = |detail: String| LinkError::Unreachable { addr: addr.to_owned(), detail };
        let io = io.map_err(|error| unreachable(error.to_string()))?;
        let hello = (self.hello)();
        let check = |hello: &Hello| (self.check)(hello, addr);
        let dialed = hello::dial(io, &hello, check, &self.limits).await;
        dialed.map_err(|error| match error {
            HandshakeError::Refused(reason) => LinkError::Refused { addr: addr.to_owned(), reason },
            HandshakeError::OtherVersion { theirs, ours } => {
                LinkError::OtherVersion { addr: addr.to_owned(), theirs, ours }
            }
            HandshakeError::Broken(detail) => unreachable(detail),
        })
    }
}

#[cfg(test)]
impl Link {
    /// Dials that failed in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn waiting_count(&self) -> usize {
        self.calls().map_or(0, |calls| calls.waiting_count())
    }
}
