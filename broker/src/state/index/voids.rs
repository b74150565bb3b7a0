//! Records with messages that were not stored. They look like those that were, and must be told apart
//! when places are made again from the log.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Records that are remembered. They are rare: the leader asks before it appends, and they go as the log is trimmed.
const RECORDS_MAX: usize = 65_536;

/// Indexes of the records that stored none of their messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct Voids(VecDeque<u64>);

impl Voids {
    /// Notes the newest record.
    pub(in crate::state) fn push(&mut self, index: u64) {
        if self.0.len() >= RECORDS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(index);
    }

    pub(in crate::state) fn contains(&self, index: u64) -> bool {
        self.0.binary_search(&index).is_ok()
    }

    /// Forgets records that the log does not hold any more.
    pub(in crate::state) fn prune(&mut self, begin: u64) {
        let below = self.0.partition_point(|index| *index < begin);
        self.0.drain(..below);
    }
}
