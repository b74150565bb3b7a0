//! One replicated log: appending and reading.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::inner::NodeInner;
use super::log_admin::LogAdmin;
use super::log_place::LogPlace;
use super::subscribe::Subscription;
use crate::error::ReadError;
use crate::format::entry::EntryId;
use crate::member::NodeId;
use crate::member::Status;
use crate::mutant::Mutant;
use crate::raft::Space;
use crate::raft::{Group, RoleWatch};
use crate::record::{LogId, LogName, Record, Start};
use crate::watermarks::Watermarks;

/// Pause before an append that was refused for want of a quorum is tried again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// One replicated log. Cheap to clone.
///
/// Appends are taken by the log's leader only; on other nodes they fail with
/// [`AppendError::NotLeader`](crate::AppendError::NotLeader), which names it. Reads work on every node that holds the log.
#[derive(Clone)]
pub struct CommitLog {
    pub(super) node: Arc<NodeInner>,
    pub(super) place: Arc<LogPlace>,
}

impl std::fmt::Debug for CommitLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("CommitLog");
        out.field("name", &self.place.name).field("id", &self.place.id).finish_non_exhaustive()
    }
}

impl CommitLog {
    /// The log's name.
    pub fn name(&self) -> &LogName {
        &self.place.name
    }

    /// The log's number.
    pub fn id(&self) -> LogId {
        self.place.id
    }

    /// The log's group now.
    pub(super) fn group(&self) -> Arc<Group> {
        self.place.group()
    }

    /// Committed records from `from` on, up to about `max_bytes` of payload, but at least one if there is one.
    ///
    /// Serves what this node knows to be committed, which may lie behind the leader; call
    /// [`read_barrier`](Self::read_barrier) first for a linearizable read. Payloads are handles into the
    /// cache or into mapped files: nothing is copied, and holding them keeps a trimmed file's space in use.
    ///
    /// # Errors
    /// [`ReadError::Trimmed`] if retention has removed `from`; storage errors name file and offset.
    pub async fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        let group = self.place.settled().await;
        let mut next = from;
        loop {
            let committed = group.log.watermarks().committed;
            if next >= committed {
                return Ok(Vec::new());
            }
            let (records, after) = read_visible(&group, next, max_bytes)?;
            if !records.is_empty() || after == next {
                return Ok(records);
            }
            next = after;
        }
    }

    /// One past the last index that was committed anywhere before the call; this node has it, and
    /// reads it, when the call returns. Works on every node: followers ask the leader, which asks a majority.
    ///
    /// # Errors
    /// [`ReadError::NotLeader`] if no leader is known, or this node's copy has stopped; [`ReadError::NoQuorum`] if no
    /// majority answered in time.
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        let limit = self.node.config.limits.append_timeout;
        let deadline = Instant::now() + limit;
        let timed_out = || ReadError::NoQuorum { after: limit };
        loop {
            let group = self.place.settled().await;
            if group.stop_reason().is_some() {
                return Err(ReadError::NotLeader { leader: self.node.elsewhere.leader(group.id) });
            }
            match self.barrier(&group, deadline).await {
                // Its records are those that were lost. The next group has what the leader has.
                Err(ReadError::Rewound { .. }) => {}
                Err(ReadError::NoQuorum { .. }) => return Err(timed_out()),
                answer => return answer,
            }
        }
    }

    async fn barrier(&self, group: &Arc<Group>, deadline: Instant) -> Result<u64, ReadError> {
        let last = self.node.read_index_by(group, deadline, RETRY_PAUSE).await?;
        let bound = last.index + 1;
        let reached = reached(group, last);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(true) => Ok(bound),
            Ok(false) => Err(group.stopped()),
            Err(_) => Err(ReadError::NoQuorum { after: Duration::ZERO }),
        }
    }

    /// Follows the log: committed records from `start` on, without end.
    pub fn subscribe(&self, start: Start) -> Subscription {
        Subscription::new(self.group(), start)
    }

    /// Begin, committed and end of the log on this node.
    pub fn watermarks(&self) -> Watermarks {
        self.group().log.watermarks()
    }

    /// Role, term, leader, watermarks and members, as this node knows them.
    /// If its copy of the log has stopped, the leader is the one that other members know.
    pub fn status(&self) -> Status {
        self.node.status_of(&self.group())
    }

    /// The status with the leader of the newest vote, which may be gone.
    fn status_by_vote(&self) -> Status {
        self.node.elsewhere.complete(self.group().status_by_vote())
    }

    /// True on a leader that a majority of voters, itself among them, has answered lately: within the longest election
    /// timeout, after which another one may lead. Such a leader takes appends.
    pub fn hears_majority(&self) -> bool {
        self.group().hears_majority()
    }

    /// Largest record that the log takes.
    pub fn record_bytes_max(&self) -> usize {
        usize::try_from(self.node.config.limits.record_size_max.bytes()).unwrap_or(usize::MAX)
    }

    /// True if a node has said lately that its disk has ample space, this one included.
    pub fn has_ample_space(&self, node: NodeId) -> bool {
        self.group().has_ample_space(node)
    }

    /// True if a node is known to be unfit to lead, this one included: its copy is damaged, or it has declined.
    pub fn is_unfit(&self, node: NodeId) -> bool {
        self.group().is_unfit(node)
    }

    /// True while this node leads though it is unfit, and hands over to a node that is not.
    pub fn hands_over(&self) -> bool {
        self.group().unfit.leaves()
    }

    /// Has this node not lead the log while another can, or lead it again.
    pub fn decline_lead(&self, declines: bool) {
        self.group().decline_lead(declines);
    }

    /// True if this node's copy has stopped, or could not be opened; not if the log was deleted, or the node stops.
    pub fn has_stopped(&self) -> bool {
        self.node.is_not_open(self.id()) || self.group().stop_reason().is_some()
    }

    /// True while appends go into the reserve of disks, if they are taken at all.
    pub fn uses_reserve(&self) -> bool {
        self.group().space.level() < Space::Ample
    }

    /// True on a follower that has heard the leader lately, or of it from others if its own copy has stopped.
    pub fn hears_leader(&self) -> bool {
        self.group().hears_leader() || self.node.elsewhere.leader(self.id()).is_some()
    }

    /// Waits for changes of role, term, leader or membership.
    pub fn watch_status(&self) -> StatusWatch {
        let group = self.group();
        StatusWatch { watch: group.watch_role(), group, log: self.clone() }
    }

    /// Administrative calls for this log alone.
    pub fn admin(&self) -> LogAdmin {
        LogAdmin { node: self.node.clone(), place: self.place.clone() }
    }
}

/// Waits until this node has committed an entry of the leader's. False if its group stops before that.
pub(super) async fn reached(group: &Group, last: EntryId) -> bool {
    let (mut watch, mut role) = (group.log.watch(), group.watch_role());
    loop {
        let committed = watch.borrow_and_update().committed;
        // A node that holds what the cluster has lost may show more than that, and others: it goes back first.
        let agrees = || group.log.holds(last) || Mutant::BarrierByIndex.is_active();
        if committed > last.index && agrees() {
            return true;
        }
        tokio::select! {
            moved = watch.changed() => if moved.is_err() { return false },
            goes_on = role.changed() => if !goes_on { return false },
        }
    }
}

/// Visible records from `from` on, and the index to go on from: past entries that are not records.
/// `from` lies below `committed`.
pub(super) fn read_visible(
    group: &Arc<Group>,
    from: u64,
    max_bytes: usize,
) -> Result<(Vec<Record>, u64), ReadError> {
    let watermarks = group.log.watermarks();
    if from < watermarks.begin {
        return Err(ReadError::Trimmed { requested: from, begin: watermarks.begin });
    }
    let storage = |error| {
        group.reader_failed(&error);
        ReadError::Storage(Arc::new(error))
    };
    let read = group.log.read(from, watermarks.committed, max_bytes, true);
    let entries = match read {
        Ok(entries) => entries,
        // Retention may have passed `from` in between.
        Err(_) if group.rewound_to().is_some() => return Err(group.stopped()),
        Err(error) => {
            let begin = group.log.watermarks().begin;
            let trimmed = from < begin;
            let gone = ReadError::Trimmed { requested: from, begin };
            return Err(if trimmed { gone } else { storage(error) });
        }
    };
    let next = entries.last().map_or(from, |entry| entry.id.index + 1);
    let visible = group.log.visible(entries).map_err(storage)?;
    let record = |entry: crate::format::entry::Entry| {
        Record::new(entry.id.index, entry.id.term, entry.payload)
    };
    Ok((visible.into_iter().map(record).collect(), next))
}

/// Waits for changes of a log's role, term, leader or membership on this node.
pub struct StatusWatch {
    watch: RoleWatch,
    group: Arc<Group>,
    log: CommitLog,
}

impl std::fmt::Debug for StatusWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusWatch").field("log", self.log.name()).finish_non_exhaustive()
    }
}

impl StatusWatch {
    /// The status now, with the leader of the newest vote: no vote tells that a leader is gone. [`CommitLog::status`]
    /// names it only while it is there.
    pub fn current(&self) -> Status {
        self.log.status_by_vote()
    }

    /// Waits for the next change. None when the log is closed.
    ///
    /// # Cancel safety
    /// Safe: a change that came before is reported by the next call.
    pub async fn changed(&mut self) -> Option<Status> {
        while !self.watch.changed().await {
            // The log is closed, unless it goes back.
            self.group = self.log.place.successor(&self.group).await?;
            self.watch = self.group.watch_role();
        }
        Some(self.log.status_by_vote())
    }
}

/// Groups by number.
pub(super) type Groups = BTreeMap<LogId, Arc<Group>>;
