//! Serves requests of other nodes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesResponse, VoteRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::admission::Visit;
use super::agreement::NotTaken;
use super::conflict::Conflict;
use super::contacts::HINTS_MAX;
use super::generations::NO_PART;
use super::group::Group;
use super::messages::{self, BadMessage, Condition, Reached};
use super::peers::{Identity, Peers};
use super::snapshot;
use super::space::DiskSpace;
use super::stable::StableClaim;
use super::standing;
use super::types::{Types, entry_id};
use crate::member::ReplicaId;
use crate::mutant::Mutant;
use crate::panics;
use crate::record::LogId;
use crate::seam::BoxFuture;
use crate::wire::{Frame, Hello, OutFrame, Outbound, Protocol, Service};

/// Requests of one connection that wait for their answer. A leader's window is far smaller.
const REQUESTS_MAX: usize = 4096;

type Answer = BoxFuture<OutFrame>;

/// What the node behind the service provides.
pub(crate) trait Host: Identity {
    fn peers(&self) -> &Peers;
    /// Tells the contacts who the members are.
    fn list_members(&self);
    fn group(&self, log: LogId) -> Option<Arc<Group>>;
    /// The group of a log that is not open, once it is; none if that does not happen soon.
    fn opened(self: Arc<Self>, log: LogId) -> BoxFuture<Option<Arc<Group>>>;
    /// Begins to open a log again as of what is stable ([`GroupSetup::at_stable`](super::GroupSetup::at_stable)), since
    /// a leader's history contradicts what `group` shows as committed. Returns at once. No effect if the log has
    /// another group by now, or is being opened again already.
    fn rewind(self: Arc<Self>, group: Arc<Group>, conflict: Conflict);
    /// The disk's space: entries are refused without; votes go on.
    fn space(&self) -> &DiskSpace;
    /// Serves an administrative request that another node forwards. The head is opaque here.
    fn admin(self: Arc<Self>, frame: Frame) -> BoxFuture<OutFrame>;
}

/// Serves the peer listener.
pub(crate) struct PeerService<H> {
    host: Arc<H>,
}

impl<H: Host> PeerService<H> {
    pub(crate) fn new(host: Arc<H>) -> Self {
        Self { host }
    }
}

/// State of one connection.
#[derive(Default)]
pub(crate) struct PeerSession {
    /// The member at the other end, if it names itself.
    visit: Option<Visit>,
    /// It has sent something: it has let this process in.
    has_admitted: bool,
    /// What a node said that is a member of nothing here as yet, and where it dialed from.
    unlisted: Option<(Hello, String)>,
    answers: Option<mpsc::Sender<Answer>>,
}

impl<H: Host> Service for PeerService<H> {
    type Session = PeerSession;

    async fn open(&self, hello: Hello, remote: &str) -> Result<(Hello, PeerSession), String> {
        if hello.protocol != Protocol::Peer {
            return Err("this address is for nodes; clients have another one".to_owned());
        }
        self.takes_part()?;
        self.host.check(&hello)?;
        self.host.list_members();
        let visit = self.host.peers().admit(&hello, remote).await?;
        let ours = self.host.peers().own_hello(hello.node_id, 0);
        let unlisted = visit.is_none().then(|| (hello, remote.to_owned()));
        Ok((ours, PeerSession { visit, unlisted, ..PeerSession::default() }))
    }

    fn handle(
        &self,
        session: &mut PeerSession,
        frame: Frame,
        out: &Outbound,
    ) -> Result<(), String> {
        if let Some((hello, remote)) = &session.unlisted
            && let Some(visit) = self.host.peers().admit_listed(hello, remote)?
        {
            (session.visit, session.unlisted) = (Some(visit), None);
        }
        self.takes_part()?;
        if let Some(visit) = &session.visit {
            visit.counts()?;
            // Whoever only looks who is here asks for nothing.
            self.host.peers().standing.accepted();
            if !session.has_admitted {
                session.has_admitted = true;
                self.host.peers().contacts.generations.note_admitted_by(visit.replica);
            }
        }
        let mut answer = match self.answer(session, frame) {
            Ok(Served::Later(answer)) => answer,
            Ok(Served::Now(response)) => {
                out.send(response);
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        // The first poll hands the request to Raft, so requests reach it in the order of the frames.
        // Unconstrained: a used-up budget of the task must not keep the request back.
        if let Some(response) = tokio::task::unconstrained(answer.as_mut()).now_or_never() {
            out.send(response);
            return Ok(());
        }
        let answers = session.answers.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
            let closed = out.clone();
            tokio::spawn(panics::or_else(send_answers(receiver, out.clone()), move |panic| {
                // Those who wait for other answers of this connection hear of it.
                closed.close(&format!("answering a request panicked: {panic}"));
            }));
            sender
        });
        answers.try_send(answer).map_err(|_| format!("more than {REQUESTS_MAX} requests wait"))
    }
}

/// Sends answers as they become ready; the requester tells them apart by correlation.
async fn send_answers(mut new: mpsc::Receiver<Answer>, out: Outbound) {
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            answer = new.recv() => match answer {
                Some(answer) => waiting.push(answer),
                None => break,
            },
            Some(response) = waiting.next(), if !waiting.is_empty() => {
                if !out.send(response) {
                    break;
                }
            }
        }
    }
}

enum Served {
    Now(OutFrame),
    Later(Answer),
}

impl<H: Host> PeerService<H> {
    /// # Errors
    /// This node has older data than it had. Not in the words in which others say so, which make the other end stop.
    fn takes_part(&self) -> Result<(), String> {
        match self.host.peers().standing.is_outdated() {
            Some(reason) => Err(format!("{NO_PART}: {reason}")),
            None => Ok(()),
        }
    }

    fn answer(&self, session: &PeerSession, frame: Frame) -> Result<Served, BadMessage> {
        if frame.kind == messages::ADMIN {
            return Ok(Served::Later(self.host.clone().admin(frame)));
        }
        if frame.kind == messages::REACHED {
            return Ok(Served::Now(self.reached(session, &frame)?));
        }
        let Some(group) = self.host.group(frame.log) else {
            return match frame.kind {
                messages::VOTE | messages::PRE_VOTE => self.vote_when_open(frame),
                _ => Ok(Served::Now(no_log(&frame))),
            };
        };
        Ok(match frame.kind {
            messages::APPEND | messages::APPEND_TO_RESERVE => self.append(group, frame)?,
            messages::VOTE | messages::PRE_VOTE => {
                let request = messages::decode_vote(&frame)?;
                Served::Later(Box::pin(async move { vote(&group, request, &frame).await }))
            }
            messages::TRANSFER_LEADER => transfer(group, frame)?,
            messages::SNAPSHOT => {
                let taking = snapshot::serve(group.clone(), frame.clone())?;
                let host = self.host.clone();
                Served::Later(Box::pin(async move {
                    let taken = taking.await;
                    taken.unwrap_or_else(|error| not_taken(host, group, &frame, error))
                }))
            }
            messages::READ_INDEX => Served::Later(Box::pin(async move {
                match group.read_index(group_timeout(&group)).await {
                    Ok(committed) => messages::response(&frame, &committed),
                    Err(error) => messages::refused(&frame, error.to_string()),
                }
            })),
            messages::POSITION => Served::Now(match group.position() {
                Some(position) => messages::response(&frame, &position),
                None => messages::refused(&frame, "this node does not lead"),
            }),
            kind => return Err(BadMessage::new(format!("unknown kind of request {kind}"))),
        })
    }

    /// Tells a member where this node has reached it last, or why it does not.
    fn reached(&self, session: &PeerSession, frame: &Frame) -> Result<OutFrame, BadMessage> {
        let contacts = &self.host.peers().contacts;
        let generation: u64 = messages::asked(frame)?;
        if let Some(visit) = &session.visit {
            visit.raised(contacts, generation);
        }
        let replica = session.visit.as_ref().map(|visit| visit.replica);
        let failing = replica.and_then(|replica| contacts.failing(replica));
        let failing = failing.map(|failing| failing.reason);
        let reached = Reached {
            at: replica.and_then(|replica| contacts.reached(replica)),
            failing: self.removal(session).or(failing),
            others: contacts.whereabouts(),
            newest: contacts.generations.all().into_iter().take(HINTS_MAX).collect(),
        };
        Ok(messages::response(frame, &reached))
    }

    /// What the other end is told if it is no member any more. Only the system log's leader knows that for sure: others
    /// may not have heard yet that it was added.
    fn removal(&self, session: &PeerSession) -> Option<String> {
        let unlisted = session
            .unlisted
            .as_ref()
            .map(|(hello, _)| ReplicaId { node: hello.node_id, incarnation: hello.incarnation });
        let asks = session.visit.as_ref().map(|visit| visit.replica).or(unlisted)?;
        let system = self.host.group(LogId::SYSTEM)?;
        (system.is_without(asks) && !Mutant::RemovalNotTold.is_active()).then(standing::removed)
    }

    /// A new log's first vote may come before this node has opened the log. To refuse it is to have the other waited
    /// for, or an election timeout to pass.
    fn vote_when_open(&self, frame: Frame) -> Result<Served, BadMessage> {
        let request = messages::decode_vote(&frame)?;
        let opened = self.host.clone().opened(frame.log);
        // The buffer that it came in is not kept for the wait.
        let frame = Frame { head: Bytes::new(), body: Bytes::new(), ..frame };
        Ok(Served::Later(Box::pin(async move {
            match opened.await {
                Some(group) => vote(&group, request, &frame).await,
                None => no_log(&frame),
            }
        })))
    }

    fn append(&self, group: Arc<Group>, mut frame: Frame) -> Result<Served, BadMessage> {
        let body = std::mem::take(&mut frame.body);
        let bytes = body.len() as u64;
        let (request, stable) = messages::decode_append(Frame { body, ..frame.clone() })?;
        let condition = Condition {
            space: self.host.space().level(),
            unfit: group.unfit.is_here(),
            suspect: group.trust.is_suspect(),
        };
        let has_records =
            request.entries.iter().any(|entry| matches!(entry.payload, EntryPayload::Normal(_)));
        let needed = frame.kind == messages::APPEND_TO_RESERVE;
        if has_records && !group.space.takes_entries(needed, bytes) {
            let refused = messages::refused(&frame, "the disk is full");
            return Ok(Served::Now(condition.tell(refused)));
        }
        let host = self.host.clone();
        Ok(Served::Later(Box::pin(async move {
            let received = Instant::now();
            group.heard.asked(request.vote.leader_id.term, received);
            // Before anything is committed that it tells of.
            let told = StableClaim::of(&group.log, &request, stable);
            let committed = request.leader_commit.as_ref().map(entry_id);
            match group.take_append(request).await {
                Ok(reply) => {
                    group.ticks.answered(received, &reply);
                    if !matches!(reply, AppendEntriesResponse::HigherVote(_)) {
                        group.apply.note_told(committed);
                    }
                    let flushed = match reply {
                        AppendEntriesResponse::Success => told.flushed(&group.log),
                        _ => Some(0),
                    };
                    condition.tell(messages::append_reply(&frame, reply, flushed))
                }
                Err(error) => not_taken(host, group, &frame, error),
            }
        })))
    }
}

/// Refuses a request of a leader. If that one's history is another than what is committed here, the log follows suit.
fn not_taken<H: Host>(host: Arc<H>, group: Arc<Group>, frame: &Frame, error: NotTaken) -> OutFrame {
    let refused = messages::refused(frame, error.to_string());
    if let NotTaken::Conflict(conflict) = error {
        if group.is_damaged_by(&conflict) {
            tokio::spawn(group.stop_contradicted(conflict));
        } else {
            host.rewind(group, conflict);
        }
    }
    refused
}

fn group_timeout(group: &Group) -> std::time::Duration {
    group.timing.election_timeout_max * 2
}

fn no_log(frame: &Frame) -> OutFrame {
    messages::refused(frame, format!("this node has no log {} (yet)", frame.log))
}

async fn vote(group: &Group, request: VoteRequest<Types>, frame: &Frame) -> OutFrame {
    if let Err(reason) = group.may_be_led_by(request.vote.leader_id.voted_for) {
        return messages::refused(frame, reason);
    }
    let suspect = group.trust.is_suspect();
    let reply = match frame.kind {
        messages::PRE_VOTE => group.raft.pre_vote(request).await,
        _ => group.raft.vote(request).await,
    };
    // openraft compared logs somewhere in between: then neither mark is known to be right.
    if suspect != group.trust.is_suspect() {
        return messages::refused(frame, "this node's log has just become whole again");
    }
    match reply {
        Ok(reply) => messages::vote_reply(frame, &reply, suspect),
        Err(error) => messages::refused(frame, error.to_string()),
    }
}

fn transfer(group: Arc<Group>, frame: Frame) -> Result<Served, BadMessage> {
    let request = messages::decode_transfer(&frame)?;
    if group.unfit.is_here() {
        // A leader that has heard of it does not ask.
        return Ok(Served::Now(messages::refused(&frame, "this node must not lead this log")));
    }
    if group.trust.is_suspect() {
        return Ok(Served::Now(messages::refused(&frame, "this node's copy may lack records")));
    }
    Ok(Served::Later(Box::pin(async move {
        match group.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => messages::response(&frame, &()),
            Ok(Err(error)) => messages::refused(&frame, error.to_string()),
            Err(error) => messages::refused(&frame, error.to_string()),
        }
    })))
}
