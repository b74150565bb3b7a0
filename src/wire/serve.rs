//! The accepting end: a listener, and a service for what comes in.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::connection::{End, Side};
use super::hello::{self, HandshakeError, other_version};
use super::refusals::Refusals;
use super::turns::Turns;
use super::{Frame, Hello, Outbound, WireLimits};
use crate::seam::{Acceptor, Duplex, Listener};

/// Connections over the limit that are being told so; any more are closed without a word.
const REFUSALS_MAX: usize = 64;

/// What a listener does with connections and frames.
pub(crate) trait Service: Send + Sync + 'static {
    /// State of one connection.
    type Session: Send + 'static;
    /// Our hello, or the reason to refuse.
    fn open(
        &self,
        hello: Hello,
        remote: &str,
    ) -> impl Future<Output = Result<(Hello, Self::Session), String>> + Send;
    /// Takes the next frame. Must not block; answers through `out`, now or later.
    /// Err closes the connection with a reason.
    fn handle(
        &self,
        session: &mut Self::Session,
        frame: Frame,
        out: &Outbound,
    ) -> Result<(), String>;
}

/// Accepts and serves connections until `shutdown` resolves, then closes them: what is queued to
/// them is written first, for at most a second.
pub(crate) async fn serve<S: Service>(
    acceptor: Box<dyn Acceptor>,
    service: Arc<S>,
    limits: WireLimits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (stop, stopped) = watch::channel(false);
    let places = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Refusals::default());
    let turns = Arc::new(Turns::default());
    let mut listener = Listener::new(acceptor);
    let mut shutdown = pin!(shutdown);
    while let Some((io, remote)) = listener.accept(shutdown.as_mut(), || {}).await {
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let told = remote.clone();
            let refused = Arc::clone(&refusals);
            let connection = connection(
                (io, remote),
                Arc::clone(&service),
                limits.clone(),
                (refused, Arc::clone(&turns)),
                stopped.clone(),
            );
            listener.serve(told, async move {
                connection.await;
                drop(place);
            });
        } else {
            let reason = format!("{} connections are open already", limits.connections_max);
            refusals.log(&remote, &reason);
            if listener.served() < limits.connections_max.saturating_add(REFUSALS_MAX) {
                listener.serve(remote, async move { hello::turn_away(io, &reason).await });
            }
        }
    }
    let mut connections = listener.close();
    // Fails only if no connection is left to be told.
    let _ = stop.send(true);
    while connections.join_next().await.is_some() {}
}

async fn connection<S: Service>(
    (io, remote): (Box<dyn Duplex>, String),
    service: Arc<S>,
    limits: WireLimits,
    (refusals, turns): (Arc<Refusals>, Arc<Turns>),
    mut stopped: watch::Receiver<bool>,
) {
    let open = |hello: Hello| service.open(hello, &remote);
    let handshake = timeout(limits.handshake_timeout, hello::accept(io, open, &limits));
    let opened = tokio::select! {
        opened = handshake => opened,
        _ = stopped.wait_for(|stopped| *stopped) => return,
    };
    let (connection, mut session) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(HandshakeError::Refused(reason))) => {
            refusals.log(&remote, &reason);
            return;
        }
        Ok(Err(HandshakeError::OtherVersion { theirs, ours })) => {
            refusals.log(&remote, &other_version(theirs, ours));
            return;
        }
        Ok(Err(HandshakeError::Broken(reason))) => {
            tracing::debug!(remote, reason, "connection ended before it was open");
            return;
        }
        Err(_) => {
            refusals.log(&remote, "no hello in time");
            return;
        }
    };
    let out = connection.out.clone();
    let log_closed = |reason: &str| refusals.log_closed(&remote, reason);
    let stopping = stopped.clone();
    let stop = async move {
        // An error means that the listener is gone, which is the same.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let on_frame = |frame| service.handle(&mut session, frame, &out);
    match connection.run(Side::Acceptor(&turns), stop, on_frame).await {
        End::Closed => tracing::debug!(remote, "connection closed by the other end"),
        End::Told(reason) => tracing::info!(remote, reason, "connection closed by the other end"),
        End::Ours(reason) if *stopping.borrow() => {
            tracing::debug!(remote, reason, "connection closed");
        }
        End::Ours(reason) | End::Broken(reason) => {
            log_closed(&reason);
        }
    }
}
