//! One replicated log: appending and reading.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "server")]
use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::inner::NodeInner;
use super::log_admin::LogAdmin;
use super::subscribe::Subscription;
use super::ticket::{AppliedTicket, Ticket};
use crate::error::{AppendError, Outcome, ReadError};
#[cfg(feature = "broker")]
use crate::member::NodeId;
use crate::member::Status;
use crate::mutant::Mutant;
#[cfg(feature = "server")]
use crate::panics;
use crate::progress::Progress;
#[cfg(feature = "broker")]
use crate::raft::Space;
use crate::raft::{AckTarget, Group, NewRecord, RoleWatch};
use crate::record::{AppendOptions, Appended, Flush, LogId, LogName, Record, Start};
use crate::watermarks::Watermarks;

/// Pause before an append that was refused for want of a quorum is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// One replicated log. Cheap to clone.
///
/// Appends are taken by the log's leader only; on other nodes they fail with
/// [`AppendError::NotLeader`], which names it. Reads work on every node that holds the log.
#[derive(Clone)]
pub struct CommitLog {
    pub(super) node: Arc<NodeInner>,
    pub(super) group: Arc<Group>,
}

impl std::fmt::Debug for CommitLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("CommitLog");
        out.field("name", &self.group.name).field("id", &self.group.id).finish_non_exhaustive()
    }
}

/// What a state machine answered to a proposed record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// The acknowledgement.
    pub appended: Appended,
    /// What [`StateMachine::apply`](crate::StateMachine::apply) returned; empty without one.
    pub response: Bytes,
}

impl CommitLog {
    /// The log's name.
    pub fn name(&self) -> &LogName {
        &self.group.name
    }

    /// The log's number.
    pub fn id(&self) -> LogId {
        self.group.id
    }

    /// Appends a record and waits for its commit. An empty payload is allowed.
    ///
    /// On return a majority of voters holds the record, flushed as the node's `storage.flush` says,
    /// and `read` here gives it.
    ///
    /// # Errors
    /// [`AppendError::outcome`] says whether the append may still happen.
    ///
    /// # Cancel safety
    /// If the future is dropped the outcome is unknown: the append may happen.
    pub async fn append(&self, payload: impl Into<Bytes>) -> Result<Appended, AppendError> {
        self.append_with(payload, AppendOptions::default()).await
    }

    /// [`append`](Self::append) with other options than the node's.
    ///
    /// # Errors
    /// As `append`.
    pub async fn append_with(
        &self,
        payload: impl Into<Bytes>,
        options: AppendOptions,
    ) -> Result<Appended, AppendError> {
        let record = self.admit(payload.into(), options)?;
        let limit = options.timeout.unwrap_or(self.node.config.limits.append_timeout);
        self.retrying(limit, || async {
            let (sender, outcome) = oneshot::channel();
            let record = NewRecord { payload: record.payload.clone(), ..record };
            self.group.propose(record, AckTarget::Commit(sender))?;
            Ticket::new(outcome, self.group.clone()).await
        })
        .await
    }

    /// Takes an append in and returns a ticket for its commit, so that one caller can have many
    /// under way. Records submitted one after another get indexes in that order.
    ///
    /// # Errors
    /// Only such with the outcome `NotAppended`: too large, overloaded, disk full, closed. Whether this
    /// node leads is known when the ticket resolves.
    ///
    /// # Cancel safety
    /// As `append`.
    pub async fn submit(&self, payload: impl Into<Bytes>) -> Result<Ticket, AppendError> {
        let record = self.admit(payload.into(), AppendOptions::default())?;
        let (sender, outcome) = oneshot::channel();
        self.group.propose(record, AckTarget::Commit(sender))?;
        Ok(Ticket::new(outcome, self.group.clone()))
    }

    /// Appends records at consecutive indexes: readers and state machines see all of them or none,
    /// also when the leader fails half-way.
    ///
    /// # Errors
    /// As `append`. An empty batch appends nothing and is acknowledged with a count of 0.
    ///
    /// # Cancel safety
    /// As `append`.
    pub async fn append_batch(&self, payloads: Vec<Bytes>) -> Result<Appended, AppendError> {
        self.append_batch_with(payloads, AppendOptions::default()).await
    }

    /// [`append_batch`](Self::append_batch) with other options than the node's.
    ///
    /// # Errors
    /// As `append_batch`.
    pub async fn append_batch_with(
        &self,
        payloads: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<Appended, AppendError> {
        let limit = options.timeout.unwrap_or(self.node.config.limits.append_timeout);
        let records = self.admit_batch(payloads, options)?;
        self.retrying(limit, || {
            let again = records
                .iter()
                .map(|record| NewRecord { payload: record.payload.clone(), ..*record });
            self.group.propose_batch(again.collect())
        })
        .await
    }

    /// Checks what can be checked before a batch is proposed.
    fn admit_batch(
        &self,
        payloads: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<Vec<NewRecord>, AppendError> {
        let limits = &self.node.config.limits;
        let too_large =
            |size: u64, limit: u64| AppendError::TooLarge { what: "batch", size, limit };
        let bytes = payloads.iter().map(|payload| payload.len() as u64).sum();
        if bytes > limits.batch_size_max.bytes() {
            return Err(too_large(bytes, limits.batch_size_max.bytes()));
        }
        if payloads.len() as u64 > u64::from(limits.batch_records_max) {
            return Err(AppendError::TooLarge {
                what: "records of a batch",
                size: payloads.len() as u64,
                limit: limits.batch_records_max.into(),
            });
        }
        payloads.into_iter().map(|payload| self.admit(payload, options)).collect()
    }

    /// Appends a record, waits until this node's state machine has applied it, and returns its answer.
    ///
    /// # Errors
    /// As `append`.
    ///
    /// # Cancel safety
    /// As `append`.
    pub async fn propose(&self, payload: impl Into<Bytes>) -> Result<Applied, AppendError> {
        self.propose_with(payload, AppendOptions::default()).await
    }

    /// [`propose`](Self::propose) with other options than the node's.
    ///
    /// # Errors
    /// As `append`.
    ///
    /// # Cancel safety
    /// As `append`.
    pub async fn propose_with(
        &self,
        payload: impl Into<Bytes>,
        options: AppendOptions,
    ) -> Result<Applied, AppendError> {
        let record = self.admit(payload.into(), options)?;
        let limit = options.timeout.unwrap_or(self.node.config.limits.append_timeout);
        self.retrying(limit, || async {
            let record = NewRecord { payload: record.payload.clone(), ..record };
            self.submit_for_answer(record, None)?.await
        })
        .await
    }

    /// [`propose`](Self::propose) with other options than the node's, which tells `progress` how far the append has
    /// come. A leader without a majority refuses at once, with [`AppendError::NoQuorum`].
    ///
    /// If the outcome is unknown, `progress` and [`hears_majority`](Self::hears_majority) say what is known: whether the
    /// leader has put the record into its log, whether its own disk holds it, and whether there is anybody to replicate it to.
    ///
    /// # Errors
    /// As `append`.
    ///
    /// # Cancel safety
    /// As `append`; `progress` goes on.
    pub async fn propose_tracked(
        &self,
        payload: impl Into<Bytes>,
        options: AppendOptions,
        progress: &Progress,
    ) -> Result<Applied, AppendError> {
        let limit = options.timeout.unwrap_or(self.node.config.limits.append_timeout);
        let proposing = self.submit_tracked(payload.into(), options, progress)?;
        let timed_out = |_| Err(AppendError::Timeout { after: limit });
        tokio::time::timeout(limit, proposing).await.unwrap_or_else(timed_out)
    }

    /// The first half of [`propose_tracked`](Self::propose_tracked): records taken in one after another get indexes in
    /// that order. The ticket waits without a limit.
    ///
    /// # Errors
    /// As `submit`.
    pub(crate) fn submit_tracked(
        &self,
        payload: Bytes,
        options: AppendOptions,
        progress: &Progress,
    ) -> Result<AppliedTicket, AppendError> {
        let record = self.admit(payload, options)?;
        self.submit_for_answer(record, Some(progress.clone()))
    }

    fn submit_for_answer(
        &self,
        record: NewRecord,
        progress: Option<Progress>,
    ) -> Result<AppliedTicket, AppendError> {
        let (sender, outcome) = oneshot::channel();
        self.group.propose_tracked(record, AckTarget::Applied(sender), progress)?;
        Ok(AppliedTicket::new(outcome, self.group.clone()))
    }

    /// Takes an append in and tells `sink` its outcome, in commit order, from any thread.
    ///
    /// # Errors
    /// Only such with the outcome `NotAppended`; the sink is not told then.
    #[cfg(feature = "server")]
    pub(crate) fn submit_to(
        &self,
        payload: Bytes,
        payload_crc: Option<u32>,
        options: AppendOptions,
        sink: Arc<dyn super::AckSink>,
        token: u64,
    ) -> Result<(), AppendError> {
        let record = self.admit_with_crc(payload, payload_crc, options)?;
        self.group.propose(record, AckTarget::Sink(sink, token))
    }

    /// `submit_to` for a batch, which is waited for by a task of its own.
    ///
    /// # Errors
    /// As `submit_to`.
    #[cfg(feature = "server")]
    pub(crate) fn submit_batch_to(
        &self,
        payloads: Vec<Bytes>,
        options: AppendOptions,
        sink: Arc<dyn super::AckSink>,
        token: u64,
    ) -> Result<(), AppendError> {
        let records = self.admit_batch(payloads, options)?;
        let group = self.group.clone();
        let mut proposing = Box::pin(async move { group.propose_batch(records).await });
        // The first poll hands it over, so that batches keep the order in which they came.
        match tokio::task::unconstrained(&mut proposing).now_or_never() {
            Some(result) => sink.acked(token, result),
            None => drop(tokio::spawn(async move {
                let lost = |panic| Err(AppendError::Interrupted { detail: panic });
                sink.acked(token, panics::catching(proposing).await.unwrap_or_else(lost));
            })),
        }
        Ok(())
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
        let mut next = from;
        loop {
            let committed = self.group.log.watermarks().committed;
            if next >= committed {
                return Ok(Vec::new());
            }
            let (records, after) = read_visible(&self.group, next, max_bytes)?;
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
    /// [`ReadError::NotLeader`] if no leader is known, [`ReadError::NoQuorum`] if no majority answered in time.
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        let limit = self.node.config.limits.append_timeout;
        let deadline = Instant::now() + limit;
        let timed_out = || ReadError::NoQuorum { after: limit };
        let bound = self.node.read_index_by(&self.group, deadline, RETRY_PAUSE).await?;
        let mut watch = self.group.log.watch();
        let reached = watch.wait_for(|watermarks| watermarks.committed >= bound);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(bound),
            Ok(Err(_)) => Err(self.group.stopped()),
            Err(_) => Err(timed_out()),
        }
    }

    /// Follows the log: committed records from `start` on, without end.
    pub fn subscribe(&self, start: Start) -> Subscription {
        Subscription::new(self.group.clone(), start)
    }

    /// Begin, committed and end of the log on this node.
    pub fn watermarks(&self) -> Watermarks {
        self.group.log.watermarks()
    }

    /// Role, term, leader, watermarks and members, as this node knows them.
    pub fn status(&self) -> Status {
        self.group.status()
    }

    /// True on a leader that a majority of voters, itself among them, has answered lately: within the longest election
    /// timeout, after which another one may lead. Such a leader takes appends.
    pub fn hears_majority(&self) -> bool {
        self.group.hears_majority()
    }

    /// Largest record that the log takes.
    #[cfg(feature = "broker")]
    pub(crate) fn record_bytes_max(&self) -> usize {
        usize::try_from(self.node.config.limits.record_size_max.bytes()).unwrap_or(usize::MAX)
    }

    /// True if a node has said lately that its disk has ample space, this one included.
    #[cfg(feature = "broker")]
    pub(crate) fn has_ample_space(&self, node: NodeId) -> bool {
        self.group.has_ample_space(node)
    }

    /// True if a node's copy is known to be damaged, this one's included.
    #[cfg(feature = "broker")]
    pub(crate) fn is_damaged(&self, node: NodeId) -> bool {
        self.group.is_damaged(node)
    }

    /// True while this node leads with a damaged copy, and hands over to a node that holds the same records whole.
    #[cfg(feature = "broker")]
    pub(crate) fn leaves_for_damage(&self) -> bool {
        self.group.damage.leaves()
    }

    /// True while appends go into the reserve of disks, if they are taken at all.
    #[cfg(feature = "broker")]
    pub(crate) fn uses_reserve(&self) -> bool {
        self.group.space.level() < Space::Ample
    }

    /// True on a follower that has heard the leader lately.
    #[cfg(feature = "broker")]
    pub(crate) fn hears_leader(&self) -> bool {
        self.group.hears_leader()
    }

    /// Waits for changes of role, term, leader or membership.
    pub fn watch_status(&self) -> StatusWatch {
        StatusWatch { watch: self.group.watch_role(), group: self.group.clone() }
    }

    /// Administrative calls for this log alone.
    pub fn admin(&self) -> LogAdmin {
        LogAdmin { node: self.node.clone(), group: self.group.clone() }
    }

    fn admit(&self, payload: Bytes, options: AppendOptions) -> Result<NewRecord, AppendError> {
        self.admit_with_crc(payload, None, options)
    }

    /// Checks what can be checked before anything is proposed.
    fn admit_with_crc(
        &self,
        payload: Bytes,
        payload_crc: Option<u32>,
        options: AppendOptions,
    ) -> Result<NewRecord, AppendError> {
        let limit = self.node.config.limits.record_size_max.bytes();
        let size = payload.len() as u64;
        if size > limit {
            return Err(AppendError::TooLarge { what: "record", size, limit });
        }
        if !self.group.space.admits(options.priority, size) {
            return Err(AppendError::DiskFull { path: self.node.config.data_dir.clone() });
        }
        let payload_crc = payload_crc.unwrap_or_else(|| crc32fast::hash(&payload));
        Ok(NewRecord { payload, payload_crc, sync: options.flush == Some(Flush::Sync) })
    }

    /// A leader refuses appends for a moment after its election, until a majority has answered it.
    /// Such refusals are definite, so they are tried again within the time limit.
    async fn retrying<T, F>(
        &self,
        limit: Duration,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, AppendError>
    where
        F: Future<Output = Result<T, AppendError>>,
    {
        let deadline = Instant::now() + limit;
        loop {
            match tokio::time::timeout_at(deadline, attempt()).await {
                Ok(Err(AppendError::NoQuorum)) if Instant::now() + RETRY_PAUSE < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Ok(Err(error))
                    if Mutant::UnknownOutcomeRetried.is_active()
                        && error.outcome() == Outcome::Unknown
                        && Instant::now() + RETRY_PAUSE < deadline =>
                {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Ok(result) => return result,
                Err(_) => return Err(AppendError::Timeout { after: limit }),
            }
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
}

impl std::fmt::Debug for StatusWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusWatch").field("log", &self.group.name).finish_non_exhaustive()
    }
}

impl StatusWatch {
    /// The status now.
    pub fn current(&self) -> Status {
        self.group.status()
    }

    /// Waits for the next change. None when the log is closed.
    ///
    /// # Cancel safety
    /// Safe: a change that came before is reported by the next call.
    pub async fn changed(&mut self) -> Option<Status> {
        self.watch.changed().await.then(|| self.group.status())
    }
}

/// Groups by number.
pub(super) type Groups = BTreeMap<LogId, Arc<Group>>;
