//! Append requests to one follower, several on their way at once.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use openraft::errors::RPCError;
use openraft::network::RPCTypes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};

use super::messages::{BadMessage, Vouched};
use super::network::{PeerClient, Process, nonsense};
use super::types::{RaftLogId, Types, entry_id, raft_log_id, stored_vote};
use crate::format::entry::EntryId;
use crate::mutant::Mutant;
use crate::wire::{Frame, LinkError, Patience, Pending};

/// A follower hears of a commit with the next entries, or so much later. Telling each at once would cost a request
/// an append and follower when appends come one by one: more than the entries' own.
const COMMIT_PAUSE: Duration = Duration::from_millis(1);

/// Append requests on their way to one follower, oldest first.
pub(super) struct Pipeline<'s, S> {
    client: &'s mut PeerClient,
    /// None once it has ended.
    input: Option<S>,
    /// A connection that breaks later ends the pipeline: requests must not overtake one another.
    connected: bool,
    /// The process at the other end.
    process: Process,
    sent: VecDeque<Sent>,
    /// Tells of a commit, and waits to be sent: the next request with entries tells of it, too.
    held: Option<AppendEntriesRequest<Types>>,
    /// Up to here the follower has taken what this pipeline sent.
    taken: Option<u64>,
    /// For the answer to the oldest request: one timer, not one a wait.
    answer_limit: Patience,
    /// How long `held` waits.
    pause: Patience,
}

/// What a pipeline does next.
enum Step {
    Send(Option<AppendEntriesRequest<Types>>),
    /// Sends the request that was held back.
    Tell,
    Finish(io::Result<Result<Frame, LinkError>>),
}

struct Sent {
    prev: Option<RaftLogId>,
    last: Option<RaftLogId>,
    vouched: Vouched,
    response: Pending,
}

impl<'s, S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Pipeline<'s, S> {
    pub(super) fn new(client: &'s mut PeerClient, input: S) -> Self {
        Self {
            answer_limit: Patience::new(client.patience),
            pause: Patience::new(COMMIT_PAUSE),
            client,
            input: Some(input),
            connected: false,
            process: Process::default(),
            sent: VecDeque::new(),
            held: None,
            taken: None,
        }
    }

    /// Sends what the window allows until the oldest request is answered. None when all is done.
    pub(super) async fn next_response(
        &mut self,
    ) -> Option<Result<StreamAppendResult<Types>, RPCError<Types>>> {
        loop {
            if self.is_done() {
                return None;
            }
            let sending = match self.next_step().await {
                Step::Finish(answer) => return Some(self.finish(answer)),
                Step::Send(None) => {
                    self.input = None;
                    self.held.take()
                }
                Step::Send(Some(request)) if self.may_wait(&request) => {
                    if self.held.replace(request).is_none() {
                        self.pause.reset();
                    }
                    None
                }
                Step::Send(Some(request)) => {
                    self.held = None;
                    Some(request)
                }
                Step::Tell => self.held.take(),
            };
            if let Some(request) = sending
                && let Err(error) = self.send(request).await
            {
                return Some(Err(error));
            }
        }
    }

    fn is_done(&self) -> bool {
        self.input.is_none() && self.sent.is_empty()
    }

    async fn next_step(&mut self) -> Step {
        let Self { client, input, sent, held, answer_limit, pause, .. } = self;
        let room = sent.len() < client.window;
        let next = async {
            match input {
                Some(input) if room => input.next().await,
                _ => pending().await,
            }
        };
        let answer = async {
            match sent.front_mut() {
                Some(oldest) => answer_limit.limit((&mut oldest.response).map(Ok)).await,
                None => pending().await,
            }
        };
        let tell = async {
            match held {
                Some(_) if room => drop(pause.limit(pending::<io::Result<()>>()).await),
                _ => pending().await,
            }
        };
        tokio::select! {
            biased;
            request = next => Step::Send(request),
            answer = answer => Step::Finish(answer),
            () = tell => Step::Tell,
        }
    }

    /// Whether a request only tells of a commit, to a follower of which it is known, or will be once this
    /// request's turn comes, that it holds what comes before. One that was overtaken is not answered: openraft
    /// takes the answer to a later one for an answer to it.
    fn may_wait(&self, request: &AppendEntriesRequest<Types>) -> bool {
        let index = |id: &RaftLogId| entry_id(id).index;
        let prev = request.prev_log_id.as_ref().map(index);
        let sent = self.sent.back().and_then(|newest| newest.last.as_ref().map(index));
        request.entries.is_empty() && prev <= self.taken.max(sent)
    }

    async fn send(&mut self, request: AppendEntriesRequest<Types>) -> Result<(), RPCError<Types>> {
        if !self.connected {
            let connected = self.client.bulk.connect().await;
            connected.map_err(|error| self.client.error(RPCTypes::AppendEntries, &error))?;
            self.connected = true;
            self.process = self.client.process();
        }
        let prev = request.prev_log_id;
        let mut last = request.entries.last().map(|entry| entry.log_id).or(prev);
        if Mutant::PriorTermCounted.is_active() {
            let term = stored_vote(&request.vote).term;
            last = last.map(|id| raft_log_id(EntryId { term, index: id.index }));
        }
        let vouched = Vouched::by(&request);
        let frame = self.client.append_frame(request);
        let response = self.client.bulk.start(frame);
        let response =
            response.map_err(|error| self.client.error(RPCTypes::AppendEntries, &error))?;
        self.sent.push_back(Sent { prev, last, vouched, response });
        Ok(())
    }

    fn finish(
        &mut self,
        answer: io::Result<Result<Frame, LinkError>>,
    ) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
        let sent = self.sent.pop_front();
        self.answer_limit.reset();
        let answer = self.client.answered_in_time(answer);
        let frame = answer.map_err(|error| self.client.error(RPCTypes::AppendEntries, &error))?;
        let vouched = sent.as_ref().map_or(Vouched::NOTHING, |sent| sent.vouched);
        let mut reply = self.client.append_answer(&frame, vouched, self.process)?;
        if Mutant::ConflictTakenForSuccess.is_active()
            && matches!(reply, AppendEntriesResponse::Conflict)
        {
            reply = AppendEntriesResponse::Success;
        }
        let (prev, mut last) = sent.map_or((None, None), |sent| (sent.prev, sent.last));
        if Mutant::AckCoversAllSent.is_active() {
            last = self.sent.back().map_or(last, |newest| newest.last);
        }
        if matches!(reply, AppendEntriesResponse::Conflict) && prev.is_none() {
            // Nothing precedes the first entry, so nothing can conflict with it.
            return Err(nonsense(&BadMessage::new("conflict at the begin of the log")));
        }
        let index = |id: RaftLogId| entry_id(&id).index;
        match &reply {
            AppendEntriesResponse::Success => self.taken = self.taken.max(last.map(index)),
            // This request has overtaken one that was taken since: what it asked for is there by now. openraft
            // would take the answer for a log that went back, and panic.
            AppendEntriesResponse::Conflict if prev.map(index) <= self.taken => {
                return Err(nonsense(&BadMessage::new("a request overtook another one")));
            }
            _ => {}
        }
        Ok(reply.into_stream_result(prev, last))
    }
}
