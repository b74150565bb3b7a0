//! Which copies on this node lag, though they hear their leader: as on a disk that is short of space, or slow, or after
//! a long absence. What such a copy has applied does not say where the leader serves clients, or what it said last.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::inner::NodeInner;
use crate::member::Role;
use crate::mutant::Mutant;
use crate::record::LogId;

/// A copy that needs longer to apply what its leader has told to be committed lags.
const LATE: Duration = Duration::from_secs(1);

/// One past the last index that a copy should have applied, and since when.
#[derive(Debug, Clone, Copy)]
struct Due {
    end: u64,
    since: Instant,
}

/// What the copies should have applied.
#[derive(Debug, Default)]
pub(super) struct Lags {
    due: BTreeMap<LogId, Due>,
}

impl Lags {
    /// True if a copy has not applied for a while what its leader had committed by then.
    fn is_late(&mut self, log: LogId, applied: u64, told: u64, now: Instant) -> bool {
        let new = Due { end: told, since: now };
        let due = self.due.entry(log).or_insert(new);
        if applied >= due.end {
            *due = new;
        }
        now.saturating_duration_since(due.since) >= LATE
    }
}

impl NodeInner {
    /// The logs that this node's program serves, and of whose leader it does not know where that does, or that lag.
    pub(super) fn lagging_logs(&self, lags: &mut Lags) -> Vec<LogId> {
        let served = self.elsewhere.served();
        let now = Instant::now();
        lags.due.retain(|log, _| served.contains_key(log));
        if Mutant::LaggingLogLeadsNowhere.is_active() {
            return Vec::new();
        }
        let mut logs = Vec::new();
        for (log, named) in served {
            let Some(group) = self.group(log) else { continue };
            let status = group.status();
            let late = lags.is_late(log, status.applied, group.apply.told_end(), now);
            let Some(leader) = status.leader else { continue };
            let follows = !matches!(status.role, Role::Leader | Role::Stopped);
            if follows && leader.id != status.node_id && (late || named != Some(leader.id)) {
                logs.push(log);
            }
        }
        logs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(7);

    #[test]
    fn a_copy_lags_that_needs_a_second_for_what_was_committed() {
        let (mut lags, start) = (Lags::default(), Instant::now());
        let mut late =
            |applied, told, ms| lags.is_late(LOG, applied, told, start + Duration::from_millis(ms));
        assert!(!late(0, 10, 0));
        assert!(!late(9, 20, 900));
        assert!(late(9, 20, 1000));
        // It has what it needed a second for, and has not had a second for the rest.
        assert!(!late(10, 20, 1100));
        assert!(!late(19, 30, 2000));
        assert!(late(19, 30, 2100));
        assert!(!late(30, 30, 2200));
        assert!(!late(30, 30, 9000), "nothing more was committed");
    }
}
