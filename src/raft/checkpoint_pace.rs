//! When the next checkpoint of a state machine is due: once a segment is full, since the log begins behind a checkpoint
//! when it is trimmed, and after so many entries, since a start applies what came after the last one again.

use crate::mutant::Mutant;

/// Entries after which a checkpoint is due, even though the segment is not full.
pub(super) const CHECKPOINT_ENTRIES: u64 = 32_768;

/// A larger state is saved less often, so that it never costs more than so many bytes for each entry: about what an entry
/// itself takes on the disk.
const STATE_BYTES_PER_ENTRY: u64 = 128;

/// The last checkpoint that was taken, restored or tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CheckpointPace {
    index: u64,
    /// Base index of the segment that it lies in.
    segment: u64,
    state_len: u64,
}

impl CheckpointPace {
    /// A checkpoint was restored.
    pub(super) fn restored(index: u64, state_len: u64) -> Self {
        Self { index, segment: index, state_len }
    }

    /// True if a checkpoint as of `index` is due. `base` is where the log's last segment begins.
    pub(super) fn is_due(&self, index: u64, base: u64) -> bool {
        let new_segment = base > self.segment && index + 1 >= base;
        let entries = CHECKPOINT_ENTRIES.max(self.state_len / STATE_BYTES_PER_ENTRY);
        new_segment
            || index.saturating_sub(self.index) >= entries && !Mutant::FullSegmentsOnly.is_active()
    }

    /// One is tried that was due. If it fails, the next one is.
    pub(super) fn tried(&mut self, index: u64, base: u64) {
        self.index = index;
        if index + 1 >= base {
            self.segment = base;
        }
    }

    /// One was taken, whether it was due or somebody asked for it.
    pub(super) fn taken(&mut self, index: u64, state_len: u64) {
        self.index = index;
        self.state_len = state_len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_with_each_segment_and_after_many_entries() {
        let mut pace = CheckpointPace::restored(100, 0);
        assert!(!pace.is_due(101, 90), "the restored one lies in this segment");
        assert!(!pace.is_due(101, 200), "what is applied has not reached the segment");
        assert!(pace.is_due(199, 200));
        pace.tried(199, 200);
        assert!(!pace.is_due(250, 200), "it is tried once");
        assert!(!pace.is_due(198 + CHECKPOINT_ENTRIES, 200));
        assert!(pace.is_due(199 + CHECKPOINT_ENTRIES, 200));
        pace.tried(199 + CHECKPOINT_ENTRIES, 90_000);
        assert!(pace.is_due(90_000, 90_000), "the last segment is still another one");
    }

    #[test]
    fn a_large_state_is_saved_less_often() {
        let mut pace = CheckpointPace::default();
        let entries = 2 * CHECKPOINT_ENTRIES;
        pace.taken(10, entries * STATE_BYTES_PER_ENTRY);
        assert!(!pace.is_due(9 + entries, 0) && pace.is_due(10 + entries, 0));
        pace.taken(20, 1000);
        assert!(pace.is_due(20 + CHECKPOINT_ENTRIES, 0), "it has become small");
    }
}
