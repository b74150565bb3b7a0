//! What a program that serves clients on its own needs of its node: tasks that are looked after, the clock, and where other
//! nodes serve the same logs.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::Node;
use super::elsewhere::LedElsewhere;
use crate::member::NodeId;
use crate::record::LogId;
use crate::seam::Clock;

impl Node {
    /// The clock that the node runs by, which a simulation controls.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.clock)
    }

    /// Runs a task until it ends, or the node stops. One that panics begins again after a second: `task` makes it, and
    /// nothing that it holds may be left half done. The panic is a problem in [`Node::problems`] for a minute.
    ///
    /// # Cancel safety
    /// Dropping it ends the task.
    pub fn supervise<T, F>(
        &self,
        name: &'static str,
        task: T,
    ) -> impl Future<Output = ()> + use<T, F>
    where
        T: Fn() -> F,
        F: Future<Output = ()>,
    {
        Arc::clone(&self.inner).keep(name, task)
    }

    /// Runs a task that cannot begin again. If it panics, [`Node::problems`] says so until the node is restarted.
    ///
    /// # Cancel safety
    /// Dropping it ends the task.
    pub fn supervise_once<F: Future<Output = ()>>(
        &self,
        name: &'static str,
        task: F,
    ) -> impl Future<Output = ()> + use<F> {
        Arc::clone(&self.inner).run_once(name, task)
    }

    /// True if a log of the list could not be opened on this node; [`Node::problems`] says why.
    pub fn is_not_open(&self, log: LogId) -> bool {
        self.inner.is_not_open(log)
    }

    /// Who leads the logs whose copy has stopped on this node, or lags, as other members say, and each change of that.
    pub fn watch_elsewhere(&self) -> watch::Receiver<LedElsewhere> {
        self.inner.elsewhere.subscribe()
    }

    /// Notes which node leads a log and where that node's program serves it to clients; none if that is not known. Nodes
    /// whose copy of the log has stopped, or lags, are told when they ask ([`LedElsewhere::service`]). From the first call
    /// on this node asks as well while its own copy lags. Kept in memory only.
    pub fn note_service(&self, log: LogId, served: Option<(NodeId, SocketAddr)>) {
        self.inner.elsewhere.note_service(log, served);
    }

    /// Notes where this node's program tells clients who serves each log ([`LedElsewhere::name_servers`]). Once: later calls
    /// change nothing. Kept in memory only.
    pub fn note_name_server(&self, addr: SocketAddr) {
        self.inner.elsewhere.note_name_server(addr);
    }
}
