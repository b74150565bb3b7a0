//! openraft's network: requests to other nodes over their links.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::{Stream, stream};
use openraft::OptionalSend;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::ballot::{Answered, Ballots, Election};
use super::contacts::Contacts;
use super::messages::{self, BadMessage, Condition, Vouched};
use super::peers::{Lane, Peers, RETRY_PAUSE};
use super::pipeline::Pipeline;
use super::space::{GroupSpace, PeerSpace, Space};
use super::stable::Stable;
use super::state_machine::{Checkpoint, RaftSnapshot};
use super::trust::Trust;
use super::types::{Address, RaftVote, Types, entry_id, stored_vote};
use super::unfit::Unfit;
use crate::member::ReplicaId;
use crate::mutant::Mutant;
use crate::record::LogId;
use crate::wire::{Frame, Link, LinkError, OutFrame};

type BoxFuture<'a, T> = futures_util::future::BoxFuture<'a, T>;
type BoxStream<'a, T> = stream::BoxStream<'a, T>;

/// A follower that is slow and works gets so many times the append timeout for one request in the end.
const APPEND_PATIENCE_MAX: u32 = 8;

/// Makes clients for one log.
pub(crate) struct NetworkFactory {
    pub(crate) peers: Arc<Peers>,
    pub(crate) space: Arc<GroupSpace>,
    pub(crate) unfit: Arc<Unfit>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) ballots: Arc<Ballots>,
    pub(crate) stable: Arc<Stable>,
    pub(crate) log: LogId,
    pub(crate) replica: ReplicaId,
    /// Append requests on their way to one follower.
    pub(crate) window: usize,
    /// How long a follower may take to flush and answer an append. Doubles with each request that takes
    /// longer, until one is answered: sending all again to a follower behind a slow link would go on
    /// for ever.
    pub(crate) append_timeout: Duration,
}

impl RaftNetworkFactory<Types> for NetworkFactory {
    type Network = PeerClient;

    async fn new_client(&mut self, target: ReplicaId, node: &Address) -> PeerClient {
        PeerClient {
            contacts: self.peers.contacts.clone(),
            control: self.peers.link(target, &node.peer, Lane::Control),
            bulk: self.peers.link(target, &node.peer, Lane::Bulk),
            space: self.space.clone(),
            unfit: self.unfit.clone(),
            trust: self.trust.clone(),
            ballots: self.ballots.clone(),
            stable: self.stable.clone(),
            peer_space: self.peers.space(target),
            log: self.log,
            replica: self.replica,
            target,
            window: self.window,
            append_timeout: self.append_timeout,
            patience: self.append_timeout,
        }
    }

    /// A heartbeat is an append without entries; it must not wait behind those with.
    async fn new_heartbeat_client(&mut self, target: ReplicaId, node: &Address) -> PeerClient {
        let client = self.new_client(target, node).await;
        PeerClient { bulk: client.control.clone(), ..client }
    }
}

/// Requests of one log to one node.
pub(crate) struct PeerClient {
    contacts: Arc<Contacts>,
    control: Link,
    pub(super) bulk: Link,
    space: Arc<GroupSpace>,
    unfit: Arc<Unfit>,
    trust: Arc<Trust>,
    ballots: Arc<Ballots>,
    stable: Arc<Stable>,
    peer_space: Arc<PeerSpace>,
    pub(super) log: LogId,
    replica: ReplicaId,
    target: ReplicaId,
    pub(super) window: usize,
    append_timeout: Duration,
    /// The present append timeout.
    pub(super) patience: Duration,
}

impl PeerClient {
    pub(super) fn error(&self, action: RPCTypes, error: &LinkError) -> RPCError<Types> {
        match error {
            LinkError::Timeout { after, .. } => RPCError::Timeout(Timeout {
                action,
                id: self.replica,
                target: self.target,
                timeout: *after,
            }),
            LinkError::Broken { .. } => RPCError::Network(NetworkError::new(error)),
            LinkError::Unreachable { .. }
            | LinkError::Refused { .. }
            | LinkError::OtherVersion { .. }
            | LinkError::Busy { .. }
            | LinkError::TooLarge { .. } => RPCError::Unreachable(Unreachable::new(error)),
        }
    }

    /// An append request, as the space of a majority has it.
    pub(super) fn append_frame(&self, request: AppendEntriesRequest<Types>) -> OutFrame {
        // Who has ample space takes entries anyway.
        let to_reserve = self.space.level() < Space::Ample && self.peer_space.is_short();
        let commit = request.leader_commit.as_ref().map(entry_id);
        let stable = self.stable.to_tell(stored_vote(&request.vote).term, commit);
        messages::encode_append(self.log, request, stable, to_reserve)
    }

    /// The process of the target that the present connections lead to.
    pub(super) fn process(&self) -> Process {
        Process(self.contacts.session(self.target))
    }

    /// The answer to an append request; notes what it says of the peer's disk and copy. That of a process that has ended
    /// is void where records are acknowledged unflushed: what it had written may be gone.
    pub(super) fn append_answer(
        &self,
        answer: &Frame,
        vouched: Vouched,
        process: Process,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let reply = messages::decode_append_reply(answer);
        let unflushed = self.stable.counts() || !matches!(reply, Ok((_, None)));
        if unflushed && process.has_ended(self.contacts.session(self.target)) {
            return Err(nonsense(&BadMessage::new("another process has come in its place")));
        }
        // A refusal for another reason, as for a log that is not open, says nothing of either.
        if answer.kind != messages::REFUSED || !answer.body.is_empty() {
            let told = Condition::told(answer);
            self.peer_space.note(told.space);
            self.unfit.note_peer(self.target.node, told.unfit);
            self.trust.note_peer(self.target.node, told.suspect);
        }
        let (reply, flushed) = reply.map_err(|error| nonsense(&error))?;
        if matches!(reply, AppendEntriesResponse::Success) {
            self.stable.answered(self.target, vouched, flushed);
        }
        Ok(reply)
    }

    pub(super) async fn request(
        &self,
        action: RPCTypes,
        frame: OutFrame,
        timeout: Duration,
    ) -> Result<Frame, RPCError<Types>> {
        let response = self.bulk.request(frame, timeout).await;
        response.map_err(|error| self.error(action, &error))
    }

    /// Asks for something that openraft asks for once and that the node may be told twice. While the link is down the
    /// request is made again: what would follow without it is an election timeout, and the node may be just starting.
    async fn insist(
        &self,
        action: RPCTypes,
        frame: OutFrame,
        limit: Duration,
    ) -> Result<Frame, RPCError<Types>> {
        let asking = async {
            loop {
                match self.control.request(frame.clone(), limit).await {
                    Err(LinkError::Unreachable { .. } | LinkError::Broken { .. }) => {
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    answer => return answer,
                }
            }
        };
        let answer = tokio::time::timeout(limit, asking).await;
        let answer = answer.unwrap_or_else(|_| Err(self.timed_out(limit)));
        answer.map_err(|error| self.error(action, &error))
    }

    /// Asks for a vote or a pre-vote. A grant that does not elect by itself waits for those of others.
    async fn ask_for_vote(
        &self,
        kind: u8,
        request: VoteRequest<Types>,
        limit: Duration,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let is_pre_vote = kind == messages::PRE_VOTE;
        let election = Election { is_pre_vote, vote: stored_vote(&request.vote) };
        self.ballots.ask(election, self.target);
        let frame = messages::encode_vote(kind, self.log, &request);
        let answer = self.insist(RPCTypes::Vote, frame, limit).await?;
        let reply = messages::decode_vote_reply(&answer).map_err(|error| nonsense(&error))?;
        let answered = Answered {
            granted: reply.vote_granted,
            suspect: messages::suspect_voted(&answer),
            holds_more: reply.last_log_id > request.last_log_id,
        };
        self.ballots.count(election, self.target, answered).await;
        Ok(reply)
    }

    /// Notes how patient to be with the next append request.
    pub(super) fn answered_in_time(
        &mut self,
        answer: io::Result<Result<Frame, LinkError>>,
    ) -> Result<Frame, LinkError> {
        let Ok(answer) = answer else {
            let after = self.patience;
            self.patience = (after * 2).min(self.append_timeout * APPEND_PATIENCE_MAX);
            return Err(self.timed_out(after));
        };
        if answer.is_ok() {
            self.patience = self.append_timeout;
        }
        answer
    }

    fn timed_out(&self, after: Duration) -> LinkError {
        LinkError::Timeout { addr: format!("node {}", self.target), after }
    }
}

/// The session of a member's process, whose answers count until another one has its place. None of one that was not met.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Process(Option<u128>);

impl Process {
    /// `now` is the process that counts as the member.
    fn has_ended(self, now: Option<u128>) -> bool {
        self.0.is_some() && self.0 != now && !Mutant::EndedProcessCounts.is_active()
    }
}

/// A node that refuses, or answers nonsense, is as good as unreachable: retry later.
pub(super) fn nonsense(error: &BadMessage) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

impl RaftNetworkV2<Types> for PeerClient {
    type SnapshotData = Checkpoint;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let vouched = Vouched::by(&request);
        let frame = self.append_frame(request);
        let process = self.process();
        let response = self.request(RPCTypes::AppendEntries, frame, option.hard_ttl()).await?;
        self.append_answer(&response, vouched, process)
    }

    /// Up to `window` requests are on their way; responses come in the order of the requests. The input
    /// is dropped with the response stream, as openraft needs it. It connects only once the input has
    /// given a request: openraft's pauses between attempts are in the input.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResponses<'s>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let pipeline = Pipeline::new(self, input);
            let responses: AppendResponses<'s> =
                Box::pin(stream::unfold(Some(pipeline), |pipeline| async move {
                    let mut pipeline = pipeline?;
                    match pipeline.next_response().await? {
                        Ok(Ok(response)) => Some((Ok(Ok(response)), Some(pipeline))),
                        end => {
                            if Mutant::RequestStreamLeaked.is_active() {
                                std::mem::forget(pipeline);
                            }
                            Some((end, None))
                        }
                    }
                }));
            Ok(responses)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_for_vote(messages::VOTE, request, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        if Mutant::PreVoteGranted.is_active() {
            return Ok(VoteResponse::new(request.vote, request.last_log_id, true));
        }
        self.ask_for_vote(messages::PRE_VOTE, request, option.hard_ttl()).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        if Mutant::TransferNotSent.is_active() {
            return Ok(Ok(()));
        }
        let frame = messages::encode_transfer(self.log, &request);
        let response = self.insist(RPCTypes::TransferLeader, frame, option.hard_ttl()).await?;
        messages::accepted::<()>(&response).map_err(|error| nonsense(&error))?;
        Ok(Ok(()))
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let send = std::pin::pin!(self.send_snapshot(vote, snapshot, option.hard_ttl()));
        match select(send, std::pin::pin!(cancel)).await {
            Either::Left((sent, _)) => sent.map(SnapshotResponse::new),
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }
}

type AppendResponses<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::space::DiskSpace;
    use super::super::tests::options;
    use super::*;
    use crate::format::entry::{Batch, Entry, EntryId, EntryKind};
    use crate::log::{Log, WriterPool};
    use crate::member::NodeId;
    use crate::raft::Identity;
    use crate::raft::types::{entry_to_raft, raft_vote};
    use crate::seam::disk::sim::SimDisk;
    use crate::seam::net::memory::MemoryTransport;
    use crate::wire::{Hello, Protocol, WireLimits};

    struct Nobody;

    impl Identity for Nobody {
        fn hello(&self, target: NodeId, _expects: u128) -> Hello {
            let protocol = Protocol::Peer;
            Hello { protocol, cluster: 0, node_id: 1, incarnation: 1, target, intro: None }
        }

        fn check(&self, _hello: &Hello) -> Result<(), String> {
            Ok(())
        }
    }

    fn request() -> AppendEntriesRequest<Types> {
        let id = EntryId { term: 1, index: 0 };
        let entry = Entry::new(id, EntryKind::Blank, false, Batch::SINGLE, bytes::Bytes::new());
        let vote = crate::log::Vote { term: 1, voted_for: ReplicaId::default(), committed: true };
        AppendEntriesRequest {
            vote: raft_vote(vote),
            prev_log_id: None,
            entries: vec![entry_to_raft(entry).expect("sound")],
            leader_commit: None,
        }
    }

    #[test]
    fn answers_of_a_process_count_until_another_one_has_its_place() {
        assert!(!Process(None).has_ended(Some(1)), "nothing was known of it");
        assert!(!Process(Some(1)).has_ended(Some(1)));
        assert!(Process(Some(1)).has_ended(Some(2)));
        assert!(Process(Some(1)).has_ended(None), "and nobody has its place yet");
    }

    #[tokio::test]
    async fn only_followers_that_are_short_of_space_are_asked_for_their_reserves() {
        let transport = Arc::new(MemoryTransport::default());
        let peers = Arc::new(Peers::new(transport, Arc::new(Nobody), WireLimits::OF_TESTS));
        let disk = Arc::new(DiskSpace::new(64 << 20));
        let trust = Arc::new(Trust::new(false));
        let (own, voters) = (ReplicaId::default(), Box::new(Vec::new));
        let ballots = Ballots::new(own, voters, trust.clone(), Duration::from_secs(1));
        let writers = WriterPool::start(1).expect("a thread");
        let log = Log::open(SimDisk::new().shared(), Path::new("/log"), options(), &writers);
        let stable = Stable::new(own, log.expect("a new log"));
        let mut factory = NetworkFactory {
            trust,
            ballots: Arc::new(ballots),
            stable: Arc::new(stable),
            peers: Arc::clone(&peers),
            space: Arc::new(GroupSpace::new(Arc::clone(&disk))),
            unfit: Arc::default(),
            log: LogId(7),
            replica: ReplicaId::default(),
            window: 1,
            append_timeout: Duration::from_secs(1),
        };
        let target = ReplicaId { node: 2, incarnation: 2 };
        let client = factory.new_client(target, &Address::default()).await;
        let kind = || client.append_frame(request()).kind;
        peers.space(target).note(Space::Reserve);
        assert_eq!(kind(), messages::APPEND, "a majority has space");
        disk.note(1 << 20, false);
        assert_eq!(kind(), messages::APPEND_TO_RESERVE);
        peers.space(target).note(Space::Ample);
        assert_eq!(kind(), messages::APPEND, "this one has space");
    }
}
