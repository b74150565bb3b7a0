//! All logs' brokers on this node: they find each other here.

use std::sync::{Arc, OnceLock};

use super::log_broker::LogBroker;
use crate::net::LongAnswers;

impl std::fmt::Debug for Brokers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Brokers").finish_non_exhaustive()
    }
}

/// All logs' brokers on this node.
#[derive(Default)]
pub(crate) struct Brokers {
    logs: OnceLock<Vec<Arc<LogBroker>>>,
    /// Of the name server and all logs: they share the node's memory and its processors.
    long_answers: Arc<LongAnswers>,
}

impl Brokers {
    /// Says which logs there are; once.
    pub(crate) fn set_logs(&self, logs: Vec<Arc<LogBroker>>) {
        // They are set where they are made, before anybody asks.
        let _ = self.logs.set(logs);
    }

    pub(crate) fn logs(&self) -> &[Arc<LogBroker>] {
        self.logs.get().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn long_answers(&self) -> &Arc<LongAnswers> {
        &self.long_answers
    }
}
