//! Takes connections, and keeps the tasks that serve them.

use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Acceptor, Duplex};
use crate::panics;

/// Pause after a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket, and a task for each connection that is served. Dropping it ends them.
pub struct Listener {
    acceptor: Box<dyn Acceptor>,
    connections: JoinSet<()>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("connections", &self.connections.len()).finish()
    }
}

impl Listener {
    /// Serves nobody yet.
    pub fn new(acceptor: Box<dyn Acceptor>) -> Self {
        Self { acceptor, connections: JoinSet::new() }
    }

    /// The next connection and the other end's address; none once `shutdown` resolves. After a failure, as with too many
    /// open files, it calls `make_room` and tries again 100 ms later. Dropping the future loses no connection.
    pub async fn accept(
        &mut self,
        mut shutdown: impl Future<Output = ()> + Unpin,
        mut make_room: impl FnMut(),
    ) -> Option<(Box<dyn Duplex>, String)> {
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => return None,
                Some(_) = self.connections.join_next() => continue,
                accepted = self.acceptor.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                // The other end has gone again.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, listener = self.acceptor.local_addr(), "cannot accept");
                    make_room();
                    tokio::select! {
                        () = &mut shutdown => return None,
                        () = sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }

    /// Serves a connection in a task. A panic is logged, and ends this connection and no other.
    pub fn serve(&mut self, remote: String, connection: impl Future<Output = ()> + Send + 'static) {
        self.connections.spawn(panics::or_else(connection, move |panic| {
            tracing::error!(remote, panic, "a connection's task panicked; it ends");
        }));
    }

    /// Connections that are served.
    pub fn served(&self) -> usize {
        self.connections.len()
    }

    /// Listens no more. Returns the tasks of the connections.
    pub fn close(self) -> JoinSet<()> {
        self.connections
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::pin::{Pin, pin};

    use tokio::time::Instant;

    use super::*;

    type Accepted = io::Result<(Box<dyn Duplex>, String)>;

    /// Gives what it was told to, and then nothing.
    struct Planned(VecDeque<Accepted>);

    impl Acceptor for Planned {
        fn local_addr(&self) -> String {
            "here".to_owned()
        }

        fn accept(&mut self) -> Pin<Box<dyn Future<Output = Accepted> + Send + '_>> {
            match self.0.pop_front() {
                Some(accepted) => Box::pin(async { accepted }),
                None => Box::pin(std::future::pending()),
            }
        }
    }

    fn listener(planned: impl IntoIterator<Item = Accepted>) -> Listener {
        Listener::new(Box::new(Planned(planned.into_iter().collect())))
    }

    fn connection(remote: &str) -> Accepted {
        Ok((Box::new(tokio::io::duplex(1).0), remote.to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_cannot_take_a_connection_makes_room_and_goes_on_after_a_pause() {
        let full = || Err(io::Error::other("too many open files"));
        let gone = || Err(ErrorKind::ConnectionAborted.into());
        let mut listener = listener([gone(), full(), full(), connection("a")]);
        let (begun, mut made) = (Instant::now(), 0);
        let taken = listener.accept(pin!(std::future::pending()), || made += 1).await;
        assert_eq!(taken.map(|(_, remote)| remote).as_deref(), Some("a"));
        assert_eq!((made, begun.elapsed()), (2, 2 * ACCEPT_PAUSE), "who has gone again needs none");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_does_not_hold_up_a_shutdown() {
        let mut listener = listener([Err(io::Error::other("too many open files"))]);
        // paced: the shutdown comes in simulated time.
        let stop = pin!(sleep(ACCEPT_PAUSE / 2));
        let begun = Instant::now();
        assert!(listener.accept(stop, || {}).await.is_none());
        assert_eq!(begun.elapsed(), ACCEPT_PAUSE / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_panics_ends_no_other_and_leaves_its_place() {
        let mut listener = listener([]);
        listener.serve("a".to_owned(), async { panic!("planted") });
        listener.serve("b".to_owned(), std::future::pending());
        assert_eq!(listener.served(), 2);
        // paced: the shutdown comes in simulated time.
        let stop = pin!(sleep(ACCEPT_PAUSE));
        assert!(listener.accept(stop, || {}).await.is_none());
        assert_eq!(listener.served(), 1);
    }
}
