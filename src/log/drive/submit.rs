//! Takes what a handle asks for: changes memory at once, and queues the rest for the writer.

use std::sync::Arc;

use crate::error::StorageError;
use crate::format::entry::{Entry, EntryId};
use crate::format::vote::Vote;
use crate::mutant::Mutant;

use super::core::{Core, Waiter};
use crate::log::memory::job::{Completion, Control, Job, waiter};
use crate::log::memory::memberships::StoredMembership;

impl Core {
    /// See [`Log::append`](crate::log::Log::append).
    pub(in crate::log) fn append(self: &Arc<Self>, entries: Vec<Entry>, done: Completion) {
        let shared = &self.shared;
        let mut state = shared.state();
        let mut ahead = false;
        if state.failure.is_none() && !state.closed {
            state.append(&entries);
            shared.note_tail(&state);
            shared.publish(&state);
            ahead = state.to_show().is_some();
        }
        let job = Job::Append { entries, done };
        if self.may_write_at_once(&state, &job) {
            state.inbox.push(job);
            drop(state);
            self.write_at_once();
        } else {
            self.submit(state, job);
        }
        if ahead {
            // `set_committed` was ahead of the tail. Nobody was told of the commit here, so that readers may as well
            // see it with the next one.
            if let Err(error) = shared.show(shared.state()) {
                tracing::warn!(%error, "cannot read a committed entry");
            }
        }
    }

    /// See [`Log::save_vote`](crate::log::Log::save_vote).
    pub(in crate::log) fn save_vote(self: &Arc<Self>, vote: Vote) -> Waiter {
        let mut state = self.shared.state();
        if let Some(old) = state.vote {
            let rises = (vote.term, vote.committed) > (old.term, old.committed);
            assert!(rises || vote == old, "I5: the vote {vote:?} follows {old:?}");
        }
        state.vote = Some(vote);
        let (done, waiter) = waiter();
        self.submit(state, Job::Control { control: Control::SaveVote(vote), done });
        waiter
    }

    /// See [`Log::truncate_after`](crate::log::Log::truncate_after).
    pub(in crate::log) fn truncate_after(
        self: &Arc<Self>,
        last: Option<EntryId>,
    ) -> Result<Waiter, Arc<StorageError>> {
        if let Some(last) = last {
            let held = self.shared.id_at(last.index).map_err(Arc::new)?;
            let fits = held.is_none_or(|held| held == last);
            assert!(fits, "I2: cut behind {last:?}, and the log holds {held:?}");
        }
        let mut state = self.shared.state();
        let last = match (last, state.boundary) {
            (Some(last), Some(boundary)) if last.index < boundary.index => Some(boundary),
            (None, boundary) => boundary,
            (last, _) => last,
        };
        state.truncate(last);
        self.shared.publish(&state);
        let (done, waiter) = waiter();
        let control = Control::Truncate { last, epoch: state.epoch() };
        self.submit(state, Job::Control { control, done });
        Ok(waiter)
    }

    /// See [`Log::purge`](crate::log::Log::purge). None if there is nothing to do.
    pub(in crate::log) fn purge(self: &Arc<Self>, upto: EntryId) -> Option<Waiter> {
        let mut state = self.shared.state();
        if state.boundary.is_some_and(|boundary| upto.index <= boundary.index) {
            return None;
        }
        let beyond = state.purge(upto);
        self.shared.publish(&state);
        let (done, waiter) = waiter();
        let control = Control::Purge { upto, beyond, epoch: state.epoch() };
        self.submit(state, Job::Control { control, done });
        Some(waiter)
    }

    /// See [`Log::install`](crate::log::Log::install). None if there is nothing to do.
    pub(in crate::log) fn install(
        self: &Arc<Self>,
        upto: EntryId,
        membership: Option<StoredMembership>,
    ) -> Result<Option<Waiter>, Arc<StorageError>> {
        let shared = &self.shared;
        let held = shared.id_at(upto.index).map_err(Arc::new)? == Some(upto)
            && !Mutant::InstalledOverHeld.is_active();
        let mut state = shared.state();
        if state.boundary.is_some_and(|boundary| upto.index < boundary.index) {
            return Ok(None);
        }
        if held {
            if let Some(membership) = &membership {
                state.memberships.insert(membership.clone());
            }
            state.commit(upto);
        } else {
            let committed = state.committed_index().is_some_and(|held| held >= upto.index);
            assert!(
                !committed || Mutant::InstalledOverHeld.is_active(),
                "I4: {upto:?} is installed over another committed entry"
            );
            state.install(upto, membership.clone());
        }
        let (done, waiter) = waiter();
        let control = Control::Install { upto, membership, held, epoch: state.epoch() };
        self.submit(state, Job::Control { control, done });
        shared.show(shared.state()).map_err(Arc::new)?;
        Ok(Some(waiter))
    }

    /// See [`Log::flush_below`](crate::log::Log::flush_below).
    pub(in crate::log) fn flush_below(self: &Arc<Self>, end: u64, done: Completion) {
        let state = self.shared.state();
        if state.flushed() >= end || Mutant::CheckpointAheadOfLog.is_active() {
            drop(state);
            done(Ok(()));
        } else {
            self.submit(state, Job::Control { control: Control::Flush, done });
        }
    }

    /// Queues what changes nothing in memory.
    pub(in crate::log) fn submit_control(self: &Arc<Self>, control: Control) -> Waiter {
        let (done, waiter) = waiter();
        self.submit(self.shared.state(), Job::Control { control, done });
        waiter
    }
}
