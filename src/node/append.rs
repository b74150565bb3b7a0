//! Appending to a log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::commit_log::{CommitLog, RETRY_PAUSE};
use super::ticket::{AppliedTicket, Ticket};
use crate::error::{AppendError, Outcome, Oversized};
use crate::mutant::Mutant;
use crate::panics;
use crate::progress::Progress;
use crate::raft::{AckTarget, Group, NewRecord};
use crate::record::{AppendOptions, Appended, Flush};

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
        let group = self.group();
        let record = self.admit(&group, payload.into(), options)?;
        let limit = options.timeout.unwrap_or(self.node.config.limits.append_timeout);
        let record = &record;
        self.retrying(limit, group, |group| async move {
            let (sender, outcome) = oneshot::channel();
            let record = NewRecord { payload: record.payload.clone(), ..*record };
            group.propose(record, AckTarget::Commit(sender))?;
            Ticket::new(outcome, group).await
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
        self.submit_with(payload, AppendOptions::default()).await
    }

    /// [`submit`](Self::submit) with other options than the node's. Their timeout has no effect: the ticket waits as long
    /// as you await it.
    ///
    /// # Errors
    /// As `submit`.
    ///
    /// # Cancel safety
    /// As `append`.
    pub async fn submit_with(
        &self,
        payload: impl Into<Bytes>,
        options: AppendOptions,
    ) -> Result<Ticket, AppendError> {
        let group = self.group();
        let record = self.admit(&group, payload.into(), options)?;
        let (sender, outcome) = oneshot::channel();
        group.propose(record, AckTarget::Commit(sender))?;
        Ok(Ticket::new(outcome, group))
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
        let group = self.group();
        let records = self.admit_batch(&group, payloads, options)?;
        let records = &records;
        self.retrying(limit, group, |group| async move {
            let again = records
                .iter()
                .map(|record| NewRecord { payload: record.payload.clone(), ..*record });
            group.propose_batch(again.collect()).await
        })
        .await
    }

    /// `submit` for a batch, which is appended as a whole or not at all: see [`append_batch`](Self::append_batch).
    ///
    /// # Errors
    /// As `submit`.
    ///
    /// # Cancel safety
    /// As `append`.
    pub async fn submit_batch(&self, payloads: Vec<Bytes>) -> Result<Ticket, AppendError> {
        self.submit_batch_with(payloads, AppendOptions::default()).await
    }

    /// [`submit_batch`](Self::submit_batch) with other options than the node's. Their timeout has no effect.
    ///
    /// # Errors
    /// As `submit`.
    ///
    /// # Cancel safety
    /// As `append`.
    pub async fn submit_batch_with(
        &self,
        payloads: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<Ticket, AppendError> {
        let group = self.group();
        let records = self.admit_batch(&group, payloads, options)?;
        let (sender, outcome) = oneshot::channel();
        // Nobody may wait for the ticket any more.
        let acked = |result| drop(sender.send(result));
        match hand_over(&group, records, acked) {
            Some((Err(error), _)) if error.outcome() == Outcome::NotAppended => return Err(error),
            Some((result, acked)) => acked(result),
            None => {}
        }
        Ok(Ticket::new(outcome, group))
    }

    /// Checks what can be checked before a batch is proposed.
    fn admit_batch(
        &self,
        group: &Group,
        payloads: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<Vec<NewRecord>, AppendError> {
        let bytes = payloads.iter().map(|payload| payload.len() as u64).sum();
        self.check_batch_size(payloads.len() as u64, bytes)?;
        payloads.into_iter().map(|payload| self.admit(group, payload, options)).collect()
    }

    fn check_batch_size(&self, records: u64, payload_bytes: u64) -> Result<(), AppendError> {
        let limits = &self.node.config.limits;
        let (bytes_max, records_max) =
            (limits.batch_size_max.bytes(), u64::from(limits.batch_records_max));
        if payload_bytes > bytes_max {
            return Err(AppendError::TooLarge {
                what: Oversized::Batch,
                size: payload_bytes,
                limit: bytes_max,
            });
        }
        if records > records_max {
            let what = Oversized::BatchRecords;
            return Err(AppendError::TooLarge { what, size: records, limit: records_max });
        }
        Ok(())
    }

    /// Whether a batch like this would be taken in now. Costs much less than to try.
    ///
    /// # Errors
    /// Why it would not.
    #[cfg(feature = "server")]
    pub(crate) fn has_room_for_batch(
        &self,
        records: u64,
        payload_bytes: u64,
    ) -> Result<(), AppendError> {
        if Mutant::BatchDecodedFirst.is_active() {
            return Ok(());
        }
        self.check_batch_size(records, payload_bytes)?;
        self.group().has_room(records, payload_bytes)
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
        let group = self.group();
        let record = self.admit(&group, payload.into(), options)?;
        let limit = options.timeout.unwrap_or(self.node.config.limits.append_timeout);
        let record = &record;
        self.retrying(limit, group, |group| async move {
            let record = NewRecord { payload: record.payload.clone(), ..*record };
            submit_for_answer(group, record, None)?.await
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
    pub fn submit_tracked(
        &self,
        payload: Bytes,
        options: AppendOptions,
        progress: &Progress,
    ) -> Result<AppliedTicket, AppendError> {
        let group = self.group();
        let record = self.admit(&group, payload, options)?;
        submit_for_answer(group, record, Some(progress.clone()))
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
        let group = self.group();
        self.check_client_appends(&group)?;
        let record = self.admit_with_crc(&group, payload, payload_crc, options)?;
        group.propose(record, AckTarget::Sink(sink, token))
    }

    #[cfg(feature = "server")]
    fn check_client_appends(&self, group: &Group) -> Result<(), AppendError> {
        if group.takes_client_appends || Mutant::ClientsAppendAnywhere.is_active() {
            return Ok(());
        }
        Err(AppendError::NotForClients { name: self.name().to_string() })
    }

    /// `submit_to` for a batch. A separate task waits for it.
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
        let group = self.group();
        self.check_client_appends(&group)?;
        let records = self.admit_batch(&group, payloads, options)?;
        let acked = move |result| sink.acked(token, result);
        if let Some((result, acked)) = hand_over(&group, records, acked) {
            acked(result);
        }
        Ok(())
    }

    fn admit(
        &self,
        group: &Group,
        payload: Bytes,
        options: AppendOptions,
    ) -> Result<NewRecord, AppendError> {
        self.admit_with_crc(group, payload, None, options)
    }

    /// Checks what can be checked before anything is proposed.
    fn admit_with_crc(
        &self,
        group: &Group,
        payload: Bytes,
        payload_crc: Option<u32>,
        options: AppendOptions,
    ) -> Result<NewRecord, AppendError> {
        // A copy that has stopped takes nothing.
        if let Some(leader) = self.node.elsewhere.leader(self.id()) {
            return Err(AppendError::NotLeader { leader: Some(leader) });
        }
        let limit = self.node.config.limits.record_size_max.bytes();
        let size = payload.len() as u64;
        if size > limit {
            return Err(AppendError::TooLarge { what: Oversized::Record, size, limit });
        }
        if !group.space.admits(options.priority, size) {
            return Err(AppendError::DiskFull { path: self.node.config.data_dir.clone() });
        }
        let payload_crc = payload_crc.unwrap_or_else(|| crc32fast::hash(&payload));
        Ok(NewRecord { payload, payload_crc, sync: options.flush == Some(Flush::Sync) })
    }

    /// A leader refuses appends for a moment after its election, until a majority has answered it.
    /// Such refusals are definite, so they are tried again within the time limit, with the log's group of then.
    async fn retrying<T, F>(
        &self,
        limit: Duration,
        group: Arc<Group>,
        attempt: impl Fn(Arc<Group>) -> F,
    ) -> Result<T, AppendError>
    where
        F: Future<Output = Result<T, AppendError>>,
    {
        let deadline = Instant::now() + limit;
        let mut first = Some(group);
        loop {
            let group = first.take().unwrap_or_else(|| self.group());
            match tokio::time::timeout_at(deadline, attempt(group)).await {
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

/// Hands a batch over to consensus before it returns, so that batches keep the order in which they came. A task waits for
/// the outcome and tells it to `acked`; if the outcome is known at once, both come back.
fn hand_over<F>(
    group: &Arc<Group>,
    records: Vec<NewRecord>,
    acked: F,
) -> Option<(Result<Appended, AppendError>, F)>
where
    F: FnOnce(Result<Appended, AppendError>) + Send + 'static,
{
    let group = Arc::clone(group);
    let mut proposing = Box::pin(async move { group.propose_batch(records).await });
    if let Some(result) = tokio::task::unconstrained(&mut proposing).now_or_never() {
        return Some((result, acked));
    }
    tokio::spawn(async move {
        let lost = |panic| Err(AppendError::Interrupted { detail: panic });
        acked(panics::catching(proposing).await.unwrap_or_else(lost));
    });
    None
}

fn submit_for_answer(
    group: Arc<Group>,
    record: NewRecord,
    progress: Option<Progress>,
) -> Result<AppliedTicket, AppendError> {
    let (sender, outcome) = oneshot::channel();
    group.propose_tracked(record, AckTarget::Applied(sender), progress)?;
    Ok(AppliedTicket::new(outcome, group))
}
