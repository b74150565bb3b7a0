//! Everything but appends: votes, truncation, purge, install, close.

use crate::error::StorageError;
use crate::format::entry::EntryId;
use crate::format::vote::Vote;
use crate::mutant::Mutant;
use crate::record::Flush;

use super::{Fault, LogWriter, end_of};
use crate::log::files::data_dir;
use crate::log::memory::job::{Control, Job};
use crate::log::memory::memberships::{Memberships, StoredMembership};
use crate::log::memory::shared::Shared;

impl Job {
    /// True if the log is closed by it.
    pub(super) fn ends_log(&self) -> bool {
        matches!(self, Self::Control { control: Control::Close | Control::Destroy, .. })
    }
}

impl LogWriter {
    /// Does one job; everything submitted before is done. May be tried again after a stall. True if
    /// the log is closed now.
    pub(super) fn control(&mut self, shared: &Shared, control: &Control) -> Result<bool, Fault> {
        match control {
            Control::SaveVote(vote) => self.save_vote(shared, *vote)?,
            Control::Truncate { last, epoch } => {
                self.epoch = *epoch;
                self.truncate(shared, *last)?;
                let end = self.end();
                shared.set_stored(self.epoch, end, &mut self.evicted);
                // What is left was flushed first.
                shared.set_flushed(self.epoch, end);
            }
            Control::Purge { upto, beyond, epoch } => {
                self.epoch = *epoch;
                self.purge(shared, *upto, *beyond)?;
            }
            Control::Install { upto, membership, held, epoch } => {
                self.epoch = *epoch;
                self.install(shared, *upto, membership.as_ref(), *held)?;
            }
            Control::Flush => {
                if self.active.is_dirty() {
                    self.flush(shared).map_err(Fault::Fatal)?;
                }
            }
            Control::Close => self.close(shared)?,
            Control::Destroy => {
                // What the disk says about the entries does not matter any more.
                let _ = self.close(shared);
                self.remove(shared).map_err(Fault::Fatal)?;
            }
        }
        Ok(matches!(control, Control::Close | Control::Destroy))
    }

    /// Does the next job but appends and flushes ahead of them, if it is a purge of what is stored: it touches
    /// nothing of theirs. True if it was done.
    pub(super) fn purge_ahead(&mut self, shared: &Shared) -> Result<bool, Fault> {
        let may_wait = |job: &Job| match job {
            Job::Append { .. } | Job::Control { control: Control::Flush, .. } => true,
            Job::Control { .. } => false,
        };
        let at = self.jobs.iter().position(|job| !may_wait(job));
        let stored = |job: &Job| match job {
            Job::Control { control: Control::Purge { upto, beyond: false, .. }, .. } => {
                upto.index < self.end()
            }
            _ => false,
        };
        let Some(at) = at.filter(|&at| stored(&self.jobs[at])) else { return Ok(false) };
        let Some(Job::Control { control, done }) = self.jobs.remove(at) else { return Ok(false) };
        self.needs_space = true;
        let purged = self.control(shared, &control);
        self.needs_space = false;
        match purged {
            Ok(_) => {
                done(Ok(()));
                Ok(true)
            }
            Err(fault) => {
                self.jobs.insert(at, Job::Control { control, done });
                Err(fault)
            }
        }
    }

    /// Removes the log's directory; also after a failure.
    pub(super) fn remove(&self, shared: &Shared) -> Result<(), StorageError> {
        shared.let_go();
        data_dir::remove_log_dir(&*self.disk, &self.dir)
    }

    /// One past the last entry.
    pub(super) fn end(&self) -> u64 {
        let base = self.active.segment().meta().base;
        self.active.last().map_or(base, |last| last.index + 1)
    }

    /// Every append before it is made durable first: a saved vote must not vouch for what may be lost.
    fn save_vote(&mut self, shared: &Shared, vote: Vote) -> Result<(), Fault> {
        if !Mutant::VoteOvertakesAppends.is_active() {
            self.mark_flushed(shared)?;
        }
        let committed = self.committed_stored(shared).into();
        let stable = self.stable_stored(shared);
        self.vote.save(vote, committed, stable).map_err(Fault::Fatal)
    }

    fn mark_flushed(&mut self, shared: &Shared) -> Result<(), Fault> {
        if self.active.is_dirty() {
            self.flush(shared).map_err(Fault::Fatal)?;
        }
        self.marker_at = None;
        self.mark(shared)
    }

    fn purge(&mut self, shared: &Shared, upto: EntryId, beyond: bool) -> Result<(), Fault> {
        if self.active.is_dirty() {
            // Else the boundary could lie beyond a tail that is lost in a crash.
            self.flush(shared).map_err(Fault::Fatal)?;
        }
        self.boundary = Some(upto);
        self.memberships.purge(upto.index);
        if beyond {
            self.restart_behind(shared, upto)?;
        } else {
            self.drop_below(shared, upto)?;
        }
        shared.boundary_stored(upto);
        Ok(())
    }

    fn install(
        &mut self,
        shared: &Shared,
        upto: EntryId,
        membership: Option<&StoredMembership>,
        held: bool,
    ) -> Result<(), Fault> {
        if held {
            if let Some(membership) = membership {
                self.memberships.insert(membership.clone());
            }
            return self.relayout(shared, self.sealed.clone(), None);
        }
        self.boundary = Some(upto);
        self.memberships = Memberships::new(membership.cloned(), Vec::new());
        self.dirty_since = None;
        self.unflushed = (0, 0);
        if Mutant::InstallWithoutFence.is_active() {
            return self.relayout(shared, self.sealed.clone(), None);
        }
        self.restart_behind(shared, upto)?;
        shared.boundary_stored(upto);
        Ok(())
    }

    /// Everything durable, with a witness, and the files let go.
    fn close(&mut self, shared: &Shared) -> Result<(), Fault> {
        self.mark_flushed(shared)?;
        if end_of(self.committed(shared)) > end_of(self.committed_written) {
            self.write_marker(shared)?;
        }
        if self.active.is_dirty() {
            self.flush(shared).map_err(Fault::Fatal)?;
        }
        let stable = self.stable_stored(shared);
        // Whoever opens the log as of what is stable is not to begin earlier than it must.
        if shared.options().flush == Flush::Async && stable > self.vote.newest().stable {
            let committed = self.committed_stored(shared).into();
            self.vote.restate(committed, stable).map_err(Fault::Fatal)?;
        }
        shared.let_go();
        Ok(())
    }
}
