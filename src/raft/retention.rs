//! Moves the boundary: which sealed segments may go, and the steps to let them go.
//!
//! Each node does this for itself. The boundary moves in whole segments, so a follower that is a
//! little behind is not overtaken at every step.

use std::sync::Arc;
use std::time::Duration;

use super::group::Group;
use crate::config::Retention;
use crate::error::AdminError;
use crate::format::entry::EntryId;
use crate::log::SegmentInfo;
use crate::mutant::Mutant;

/// The last entry of the newest sealed segment that `retention` lets go; none if none.
fn expired(segments: &[SegmentInfo], retention: &Retention, now_ms: u64) -> Option<EntryId> {
    let age_max = retention.age_max.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut last = None;
    for segment in segments.iter().take_while(|segment| segment.sealed) {
        let too_large = retention.size_max.is_some_and(|size| bytes > size.bytes());
        let too_old = age_max.is_some_and(|age| now_ms.saturating_sub(segment.newest_ms) > age);
        if !too_large && !too_old {
            break;
        }
        bytes -= segment.bytes;
        last = segment.last.or(last);
    }
    last
}

/// What of the segments up to `last` may go though the state machine needs the records from `needed` on: those before,
/// and the oldest of the others while these have more than `needed_max` bytes. Also says whether any of these goes.
fn released(
    segments: &[SegmentInfo],
    last: EntryId,
    needed: Option<u64>,
    needed_max: u64,
) -> (Option<EntryId>, bool) {
    let Some(needed) = needed.filter(|_| !Mutant::NeededNotKept.is_active()) else {
        return (Some(last), false);
    };
    let expired =
        || segments.iter().take_while(|segment| segment.last.is_some_and(|of| of <= last));
    let is_needed = |segment: &SegmentInfo| segment.last.is_some_and(|of| of.index >= needed);
    let held = expired().filter(|segment| is_needed(segment)).map(|segment| segment.bytes);
    let mut held: u64 = held.sum();
    let (mut released, mut drops_needed) = (None, false);
    for segment in expired() {
        if is_needed(segment) {
            if held <= needed_max {
                break;
            }
            held -= segment.bytes;
            drops_needed = true;
        }
        released = segment.last;
    }
    (released, drops_needed)
}

impl Group {
    /// Applies `retention` once. Gives the new begin if it moved.
    pub(crate) async fn retain(
        &self,
        retention: &Retention,
        now_ms: u64,
        timeout: Duration,
    ) -> Result<Option<u64>, AdminError> {
        let segments = self.log.segments();
        let Some(last) = expired(&segments, retention, now_ms) else { return Ok(None) };
        let needed = self.needs_from().await?;
        let needed_max = retention.needed_max.bytes();
        let (released, drops_needed) = released(&segments, last, needed, needed_max);
        let Some(last) = released else { return Ok(None) };
        let moved = self.move_boundary(last, timeout).await?;
        if drops_needed && moved.is_some() {
            tracing::warn!(
                log = %self.name,
                needed,
                begin = moved,
                "retention drops records that the program on this log still needs: they are more than retention.needed_max"
            );
        }
        Ok(moved)
    }

    /// The first record that the state machine still has to read, if there is one.
    async fn needs_from(&self) -> Result<Option<u64>, AdminError> {
        if !self.has_machine {
            return Ok(None);
        }
        let asking = self.raft.with_state_machine(|machine| {
            let needed = machine.needs_from();
            Box::pin(async move { needed })
        });
        // A machine that panics at the question has stopped, and its log keeps all that it has.
        asking.await.ok().and_then(Result::ok).ok_or(AdminError::Closed)
    }

    /// Drops what lies below `before`, in whole segments. Gives the new begin if it moved.
    pub(crate) async fn trim(
        &self,
        before: u64,
        timeout: Duration,
    ) -> Result<Option<u64>, AdminError> {
        let segments = self.log.segments();
        let below = |segment: &&SegmentInfo| {
            segment.sealed && segment.last.is_some_and(|last| last.index < before)
        };
        match segments.iter().take_while(below).last().and_then(|segment| segment.last) {
            Some(last) => self.move_boundary(last, timeout).await,
            None => Ok(None),
        }
    }

    /// Moves the boundary to `last`, or to the newest checkpoint before it: the state as of the
    /// boundary must be at hand for nodes that need it (I8). It stays below what a majority has flushed: what lies
    /// below a boundary cannot be replaced.
    async fn move_boundary(
        &self,
        last: EntryId,
        timeout: Duration,
    ) -> Result<Option<u64>, AdminError> {
        let applied = match Mutant::BoundaryPassesApplied.is_active() {
            true => u64::MAX,
            false => self.apply.applied_end(),
        };
        let end = match Mutant::BoundaryPassesStable.is_active() {
            true => applied,
            false => applied.min(self.stable_end()),
        };
        let target = if self.has_machine {
            self.log.pin_checkpoint(|id| id.index <= last.index && id.index < end)
        } else {
            let ends = self.log.segments().into_iter().filter_map(|segment| segment.last);
            ends.rev().find(|id| id.index <= last.index && id.index < end)
        };
        let Some(target) = target.filter(|target| Some(*target) > self.log.purged()) else {
            return Ok(None);
        };
        let trigger = self.raft.trigger();
        let closed = |_| AdminError::Closed;
        self.apply.set_target(target);
        trigger.snapshot().await.map_err(closed)?;
        let wait = self.raft.wait(Some(timeout));
        let reached = wait.metrics(
            |now| now.snapshot.as_ref().is_some_and(|id| id.index >= target.index),
            "the boundary snapshot",
        );
        reached.await.map_err(|_| AdminError::Timeout { after: timeout })?;
        trigger.purge_log(target.index).await.map_err(closed)?;
        let wait = self.raft.wait(Some(timeout));
        let purged = wait.metrics(
            |now| now.purged.as_ref().is_some_and(|id| id.index >= target.index),
            "the purge",
        );
        purged.await.map_err(|_| AdminError::Timeout { after: timeout })?;
        Ok(Some(self.log.watermarks().begin))
    }

    /// Saves the state machine's state as of the last applied entry; durable on return. Gives one
    /// past that entry.
    pub(crate) async fn checkpoint(&self) -> Result<u64, AdminError> {
        let turn = self.saver.turn().await;
        let taking = self.raft.with_state_machine(|machine| {
            let saving = machine.checkpoint(turn);
            Box::pin(async move { saving })
        });
        let saving = taking.await.map_err(|_| AdminError::Closed)?;
        let storage = |error| AdminError::Storage(Arc::new(error));
        let Some(saving) = saving.map_err(storage)? else {
            let reason = format!("{} has no state to save", self.name);
            return Err(AdminError::Invalid { reason });
        };
        let id = saving.id;
        saving.saved().await.map_err(storage)?;
        Ok(id.index + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteCount;

    fn segment(base: u64, bytes: u64, newest_ms: u64, sealed: bool) -> SegmentInfo {
        let last = Some(EntryId { term: 1, index: base + 9 });
        SegmentInfo { base_index: base, last, bytes, sealed, newest_ms }
    }

    #[test]
    fn size_drops_the_oldest_until_the_rest_fits() {
        let segments =
            [segment(0, 100, 0, true), segment(10, 100, 0, true), segment(20, 50, 0, false)];
        let limit =
            |bytes| Retention { size_max: Some(ByteCount::new(bytes)), ..Retention::default() };
        assert_eq!(expired(&segments, &limit(250), 0), None);
        assert_eq!(expired(&segments, &limit(249), 0).map(|id| id.index), Some(9));
        assert_eq!(expired(&segments, &limit(60), 0).map(|id| id.index), Some(19));
        assert_eq!(
            expired(&segments, &limit(1), 0).map(|id| id.index),
            Some(19),
            "never the active"
        );
    }

    #[test]
    fn age_drops_what_is_older_and_stops_at_the_first_that_is_not() {
        let segments = [
            segment(0, 1, 1_000, true),
            segment(10, 1, 9_000, true),
            segment(20, 1, 2_000, true),
            segment(30, 1, 0, false),
        ];
        let age = Retention { age_max: Some(Duration::from_secs(5)), ..Retention::default() };
        assert_eq!(expired(&segments, &age, 7_000).map(|id| id.index), Some(9));
        assert_eq!(expired(&segments, &age, 20_000).map(|id| id.index), Some(29));
        assert_eq!(expired(&segments, &Retention::default(), u64::MAX), None);
    }

    #[test]
    fn what_the_state_machine_needs_stays_up_to_its_limit() {
        let segments = [
            segment(0, 100, 0, true),
            segment(10, 100, 0, true),
            segment(20, 100, 0, true),
            segment(30, 100, 0, false),
        ];
        let last = EntryId { term: 1, index: 29 };
        let released = |needed, most| {
            let (last, drops_needed) = released(&segments, last, needed, most);
            (last.map(|id| id.index), drops_needed)
        };
        assert_eq!(released(None, 0), (Some(29), false));
        assert_eq!(released(Some(40), 0), (Some(29), false), "none of it is needed");
        assert_eq!(released(Some(15), 1000), (Some(9), false), "the segment that it is in");
        assert_eq!(released(Some(9), 1000), (None, false));
        assert_eq!(released(Some(5), 300), (None, false), "just as much as there may be");
        assert_eq!(released(Some(5), 299), (Some(9), true));
        assert_eq!(released(Some(5), 100), (Some(19), true));
        assert_eq!(released(Some(15), 0), (Some(29), true));
    }
}
