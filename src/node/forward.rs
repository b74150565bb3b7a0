//! Administrative requests, served by the leader of the log that they are about, from any node.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::catalog::{CatalogCommand, CatalogReply, LOGS_MAX};
use super::elsewhere::Leaders;
use super::inner::{ADMIN_TIMEOUT, NodeInner};
use crate::error::{AdminError, AppendError, Outcome, with_sources};
use crate::format::codec;
use crate::member::{Member, MemberForm, NodeId, Replica};
use crate::mutant::Mutant;
use crate::raft::{AckTarget, Group, Lane, NewRecord, messages};
use crate::record::{LogId, LogName};
use crate::wire::{Frame, LinkError, OutFrame};

/// Pause before a request is tried again on another leader.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long a leader is looked for while it is known what is missing.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request about one log, for its leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum AdminRequest {
    CreateLog(LogName),
    DeleteLog(LogName),
    AddLearner(Replica),
    Promote(NodeId),
    Remove(NodeId),
    TransferLeadership(NodeId),
    Demote(NodeId),
    /// Who leads these logs, as the node that is asked knows.
    Leaders(Vec<LogId>),
}

/// Answer to a request that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum AdminReply {
    Done,
    Log(LogId),
    Leaders(Leaders),
}

/// An [`AdminError`] between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum WireError {
    /// Definitely not done: go to the leader.
    NotLeader(Option<MemberForm>),
    NotBootstrapped,
    Invalid(String),
    LogExists(String),
    UnknownLog(String),
    /// It may still take effect.
    Unknown(String),
    /// As above, for a reason that is known.
    Blocked(Duration, String),
}

impl WireError {
    fn new(error: AdminError) -> Self {
        match error {
            AdminError::NotLeader { leader } => Self::NotLeader(leader.map(From::from)),
            AdminError::NotBootstrapped => Self::NotBootstrapped,
            AdminError::Invalid { reason } => Self::Invalid(reason),
            AdminError::LogExists { name } => Self::LogExists(name),
            AdminError::UnknownLog { name } => Self::UnknownLog(name),
            AdminError::Blocked { after, reason } => Self::Blocked(after, reason),
            other => Self::Unknown(with_sources(&other)),
        }
    }

    fn into_error(self) -> AdminError {
        match self {
            Self::NotLeader(leader) => AdminError::NotLeader { leader: leader.map(From::from) },
            Self::NotBootstrapped => AdminError::NotBootstrapped,
            Self::Invalid(reason) => AdminError::Invalid { reason },
            Self::LogExists(name) => AdminError::LogExists { name },
            Self::UnknownLog(name) => AdminError::UnknownLog { name },
            Self::Unknown(detail) => AdminError::Interrupted { detail },
            Self::Blocked(after, reason) => AdminError::Blocked { after, reason },
        }
    }
}

/// Serves a request that another node sent here, taking this node for the leader.
pub(super) async fn serve(node: Arc<NodeInner>, frame: Frame) -> OutFrame {
    let request: AdminRequest = match messages::decode(&frame.head) {
        Ok(request) => request,
        Err(error) => return messages::refused(&frame, error.to_string()),
    };
    if let AdminRequest::Leaders(logs) = &request {
        // Not only leaders know.
        let leaders: Result<_, WireError> = Ok(AdminReply::Leaders(node.leaders(logs)));
        return messages::response(&frame, &leaders);
    }
    let result = match node.group(frame.log) {
        Some(group) => node.perform(&group, request).await,
        None => Err(AdminError::NotLeader { leader: None }),
    };
    messages::response(&frame, &result.map_err(WireError::new))
}

impl NodeInner {
    /// Has the log's leader do it, wherever that is. Tries again only while it is certain that nothing was done.
    pub(super) async fn on_leader(
        &self,
        log: LogId,
        request: &AdminRequest,
    ) -> Result<AdminReply, AdminError> {
        let begun = Instant::now();
        let deadline = begun + ADMIN_TIMEOUT;
        loop {
            if self.is_stopping() {
                return Err(AdminError::Closed);
            }
            if self.takes_no_part() && !Mutant::LeftOutSearches.is_active() {
                // The members do not answer this node. They answer whoever asks them.
                return Err(AdminError::NotLeader { leader: None });
            }
            // In a box, or each future of an embedder that changes members would have room for the whole change.
            let result = Box::pin(self.attempt(log, request, deadline)).await;
            let retry = matches!(result, Err(AdminError::NotLeader { .. }));
            // A node that lost its data, and is refused for it, never hears of the members.
            let knows_nobody = self.system().is_none_or(|system| system.replicas().is_empty());
            if retry && knows_nobody && begun.elapsed() > self.config.raft.election_timeout_max * 2
            {
                return Err(AdminError::NotBootstrapped);
            }
            if retry
                && begun.elapsed() > PATIENCE
                && let Some(why) = self.why_no_leader(log)
            {
                let detail = format!("nothing was changed: {why}");
                return Err(AdminError::Unreachable { detail });
            }
            if !retry || Instant::now() + RETRY_PAUSE >= deadline {
                return result;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        log: LogId,
        request: &AdminRequest,
        deadline: Instant,
    ) -> Result<AdminReply, AdminError> {
        let Some(group) = self.group(log) else {
            // Not open yet, or damaged: the other members have it.
            return match self.catalog.lists(log) {
                true => self.search(log, request, deadline).await,
                false => Err(AdminError::NotBootstrapped),
            };
        };
        let Some(leader) = group.leading() else {
            if self.identity.cluster() == 0 && group.voters().is_empty() {
                return Err(AdminError::NotBootstrapped);
            }
            return self.search(log, request, deadline).await;
        };
        if leader.id == group.replica {
            return self.perform(&group, request.clone()).await;
        }
        self.ask(&leader, log, request, deadline).await
    }

    /// Asks the other members for the leader that this node does not know: it may be no member of the log.
    async fn search(
        &self,
        log: LogId,
        request: &AdminRequest,
        deadline: Instant,
    ) -> Result<AdminReply, AdminError> {
        let members = self.system().map(|system| system.replicas()).unwrap_or_default();
        for member in members.into_iter().filter(|member| member.id.node != self.config.node_id) {
            match self.ask(&member, log, request, deadline).await {
                Err(AdminError::NotLeader { .. }) => {}
                result => return result,
            }
        }
        Err(AdminError::NotLeader { leader: None })
    }

    pub(super) async fn ask(
        &self,
        leader: &Replica,
        log: LogId,
        request: &AdminRequest,
        deadline: Instant,
    ) -> Result<AdminReply, AdminError> {
        let frame = messages::frame(messages::ADMIN, log, request);
        let left = deadline.saturating_duration_since(Instant::now());
        let link = self.peers.link(leader.id, &leader.member.peer_addr, Lane::Control);
        let answer = link.request(frame, left).await.map_err(|error| match error {
            LinkError::Timeout { after, .. } => AdminError::Timeout { after },
            LinkError::Broken { .. } => AdminError::Interrupted { detail: error.to_string() },
            LinkError::TooLarge { .. } => AdminError::Unreachable { detail: error.to_string() },
            // Nothing was sent.
            LinkError::Unreachable { .. }
            | LinkError::Refused { .. }
            | LinkError::OtherVersion { .. }
            | LinkError::Busy { .. } => AdminError::NotLeader { leader: None },
        })?;
        let result: Result<AdminReply, WireError> = messages::accepted(&answer)
            .map_err(|error| AdminError::Unreachable { detail: error.to_string() })?;
        result.map_err(WireError::into_error)
    }

    /// Does it here, on the leader.
    async fn perform(
        &self,
        group: &Arc<Group>,
        request: AdminRequest,
    ) -> Result<AdminReply, AdminError> {
        if !group.is_leader() {
            return Err(AdminError::NotLeader { leader: group.leader() });
        }
        match request {
            AdminRequest::CreateLog(name) => {
                let voters = group.voters();
                let members = group.replicas().into_iter();
                let members = members.filter(|member| voters.contains(&member.id)).collect();
                self.change_catalog(group, CatalogCommand::Create { name, members }).await
            }
            AdminRequest::DeleteLog(name) => {
                self.change_catalog(group, CatalogCommand::Delete { name }).await
            }
            AdminRequest::AddLearner(replica) => {
                group.add_learner(&replica, ADMIN_TIMEOUT).await.map(|()| AdminReply::Done)
            }
            AdminRequest::Promote(node) => {
                group.promote(node, ADMIN_TIMEOUT).await.map(|()| AdminReply::Done)
            }
            AdminRequest::Remove(node) => {
                group.remove(node, ADMIN_TIMEOUT).await.map(|()| AdminReply::Done)
            }
            AdminRequest::Demote(node) => {
                group.demote(node, ADMIN_TIMEOUT).await.map(|()| AdminReply::Done)
            }
            AdminRequest::Leaders(logs) => Ok(AdminReply::Leaders(self.leaders(&logs))),
            AdminRequest::TransferLeadership(to) => {
                group.transfer_leadership(to, ADMIN_TIMEOUT).await.map(|()| AdminReply::Done)
            }
        }
    }

    /// The member with the data that it has, as it says itself. While it cannot be reached it is asked again.
    pub(super) async fn identify(
        &self,
        member: Member,
        deadline: Instant,
    ) -> Result<Replica, AdminError> {
        if member.id == self.config.node_id {
            return Ok(Replica { id: self.identity.replica(), member });
        }
        loop {
            match self.peers.identify(member.id, &member.peer_addr).await {
                Ok(id) => return Ok(Replica { id, member }),
                Err(LinkError::Unreachable { .. } | LinkError::Broken { .. })
                    if Instant::now() + RETRY_PAUSE < deadline && !self.is_stopping() =>
                {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => {
                    let detail = format!("{error}; nothing was changed");
                    return Err(AdminError::Unreachable { detail });
                }
            }
        }
    }

    pub(super) async fn change_catalog(
        &self,
        group: &Arc<Group>,
        command: CatalogCommand,
    ) -> Result<AdminReply, AdminError> {
        let payload = bytes::Bytes::from(codec::encode(&command));
        let payload_crc = crc32fast::hash(&payload);
        // The list of logs is worth a flush even where records are not.
        let record = NewRecord { payload, payload_crc, sync: true };
        let (sender, applied) = oneshot::channel();
        group.propose(record, AckTarget::Applied(sender))?;
        let applied = tokio::time::timeout(ADMIN_TIMEOUT, applied).await;
        let applied = applied.map_err(|_| AdminError::Timeout { after: ADMIN_TIMEOUT })?;
        let (_, reply) = match applied {
            Ok(Ok(applied)) => applied,
            Ok(Err(AppendError::NotLeader { leader })) => {
                return Err(AdminError::NotLeader { leader });
            }
            Ok(Err(error)) if error.outcome() == Outcome::NotAppended && error.is_retryable() => {
                return Err(AdminError::NotLeader { leader: None });
            }
            Ok(Err(error)) => return Err(AdminError::Append(error)),
            Err(_) => return Err(AdminError::Closed),
        };
        let reply = codec::decode(&reply)
            .map_err(|error| AdminError::Invalid { reason: error.to_string() })?;
        let (CatalogCommand::Create { name, .. } | CatalogCommand::Delete { name }) = command;
        match reply {
            CatalogReply::Done(id) => Ok(AdminReply::Log(id)),
            CatalogReply::Exists => Err(AdminError::LogExists { name: name.to_string() }),
            CatalogReply::Unknown => Err(AdminError::UnknownLog { name: name.to_string() }),
            CatalogReply::TooMany => {
                let reason = format!("the cluster has {LOGS_MAX} logs, which is the most");
                Err(AdminError::Invalid { reason })
            }
            CatalogReply::NotUnderstood => {
                let reason = "the system log's leader runs another version".to_owned();
                Err(AdminError::Invalid { reason })
            }
        }
    }
}
