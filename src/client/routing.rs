//! Which node to ask, and whom next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::cluster::{Cluster, NodeLink};
use super::failure::{Failure, Verdict};
use crate::error::ReadError;
use crate::mutant::Mutant;
use crate::record::{LogId, LogName};
use crate::wire::LinkError;
use crate::wire::client_protocol::{Request, Response};

/// Pause after the first round over the nodes; doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_LONGEST: Duration = Duration::from_millis(500);
/// How long to wait for one node's connection before another node is tried.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait for the answer to a question that another node could answer as well.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(3);

/// Which node to ask.
#[derive(Clone)]
pub(super) enum Target {
    /// The log's leader if it is known, else any node.
    Any,
    /// The log's leader.
    Leader,
    /// This node, once.
    Node(NodeLink),
}

/// Pauses between rounds.
pub(super) struct Pause {
    next: Duration,
}

impl Pause {
    pub(super) fn new() -> Self {
        Self { next: PAUSE_FIRST }
    }

    /// False at once if the deadline would pass.
    pub(super) async fn wait(&mut self, deadline: Instant) -> bool {
        let in_time = Instant::now() + self.next < deadline;
        if in_time {
            self.sleep().await;
        }
        in_time
    }

    pub(super) async fn sleep(&mut self) {
        let pause = self.next;
        self.next = (self.next * 2).min(PAUSE_LONGEST);
        sleep(pause).await;
    }
}

/// The nodes to ask in one round, the likeliest first, each of them once.
struct Round {
    hinted: Option<NodeLink>,
    /// The other nodes, listed when they are needed; none if they are not to be asked.
    others: Option<VecDeque<NodeLink>>,
    any: bool,
    tried: Vec<Arc<str>>,
}

impl Round {
    fn new(target: &Target, first: Option<NodeLink>) -> Self {
        let any = matches!(target, Target::Any);
        Self { hinted: first, others: None, any, tried: Vec::new() }
    }

    fn next(&mut self, cluster: &Cluster) -> Option<NodeLink> {
        loop {
            let next = match self.hinted.take() {
                Some(hinted) => hinted,
                None if !self.any => return None,
                None => {
                    let others = self.others.get_or_insert_with(|| cluster.nodes().into());
                    others.pop_front()?
                }
            };
            if !self.tried.contains(&next.addr) {
                self.tried.push(Arc::clone(&next.addr));
                return Some(next);
            }
        }
    }

    fn follow(&mut self, node: NodeLink) {
        if self.any {
            self.hinted = Some(node);
        }
    }
}

/// How a round ended in which nobody did it.
struct Exhausted<E> {
    error: E,
    /// Nothing happened, and another round may do better.
    again: bool,
    /// A node that answered, if only with a failure.
    answered: Option<NodeLink>,
}

impl Cluster {
    /// Sends a request to the right node, and to the next one while it is certain that nothing
    /// happened and time is left. `read` takes what the call returns from the response.
    pub(super) async fn route<T, E: Failure>(
        &self,
        target: Target,
        log: LogId,
        request: &Request,
        deadline: Instant,
        read: impl Fn(Response) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut pause = Pause::new();
        loop {
            let round = self.round(&target, log, request, deadline, &read);
            let Exhausted { error, again, answered } = match round.await {
                Ok(value) => return Ok(value),
                Err(exhausted) => exhausted,
            };
            let once = matches!(target, Target::Node(_));
            if once || !again || !pause.wait(deadline).await {
                return Err(error);
            }
            if let Some(node) = answered {
                self.refresh(&node, deadline).await;
            }
            if !request.changes_nothing() {
                self.await_leader(log, deadline).await;
            }
        }
    }

    async fn round<T, E: Failure>(
        &self,
        target: &Target,
        log: LogId,
        request: &Request,
        deadline: Instant,
        read: impl Fn(Response) -> Result<T, E>,
    ) -> Result<T, Exhausted<E>> {
        let first = match target {
            Target::Any => self.leader(log),
            Target::Leader => self.find_leader(log, deadline).await,
            Target::Node(node) => Some(node.clone()),
        };
        let hurry = request.changes_nothing() && !matches!(target, Target::Node(_));
        let mut round = Round::new(target, first);
        let (mut absent, mut known, mut answered) = (None, false, None);
        let mut last = E::no_leader();
        while let Some(node) = round.next(self) {
            let patience = Instant::now() + ANSWER_PATIENCE;
            let until = if hurry { deadline.min(patience) } else { deadline };
            let exchange = self.exchange(&node, log, request.clone(), until).await;
            let link_verdict = exchange.as_ref().err().map(|error| verdict(error, request));
            let is_answer = link_verdict.is_none();
            let (error, verdict) = match exchange.map_err(E::from_link).and_then(&read) {
                Ok(value) => {
                    if request.is_append() {
                        self.learn_leader(log, &node);
                    }
                    return Ok(value);
                }
                Err(error) => {
                    if is_answer {
                        answered = Some(node.clone());
                    } else {
                        self.forget_place(&node);
                    }
                    let verdict = link_verdict.unwrap_or_else(|| error.verdict());
                    (error, verdict)
                }
            };
            match verdict {
                Verdict::Final => {
                    if !is_answer {
                        self.doubt_leader(log, &node);
                    }
                    return Err(Exhausted { error, again: false, answered });
                }
                Verdict::Leader(member) => {
                    if let Some(leader) = self.place_of(&member) {
                        self.learn_leader(log, &leader);
                        round.follow(leader);
                    }
                }
                Verdict::Elsewhere => self.doubt_leader(log, &node),
                Verdict::Absent => {
                    self.doubt_leader(log, &node);
                    absent.get_or_insert(error);
                    continue;
                }
            }
            // An answer says more than that a node cannot be reached.
            if is_answer || !known {
                last = error;
            }
            known |= is_answer;
        }
        match absent {
            Some(error) if !known => Err(Exhausted { error, again: false, answered }),
            _ => Err(Exhausted { error: last, again: true, answered }),
        }
    }

    /// One request to one node, and its response.
    pub(super) async fn exchange(
        &self,
        node: &NodeLink,
        log: LogId,
        request: Request,
        until: Instant,
    ) -> Result<Response, LinkError> {
        self.connect(node, until).await?;
        let begun = Instant::now();
        let pending = node.link.start(request.into_frame(log))?;
        let addr = || node.addr.as_ref().to_owned();
        let Ok(frame) = timeout_at(until, pending).await else {
            return Err(LinkError::Timeout { addr: addr(), after: begun.elapsed() });
        };
        Response::from_frame(&frame?)
            .map_err(|error| LinkError::Broken { addr: addr(), detail: error.to_string() })
    }

    /// Waits for the node's connection, but not so long that no other node could be tried.
    pub(super) async fn connect(&self, node: &NodeLink, until: Instant) -> Result<(), LinkError> {
        let until = until.min(Instant::now() + CONNECT_PATIENCE);
        timeout_at(until, node.link.connect()).await.unwrap_or_else(|_| {
            let detail = "it is still being connected to".to_owned();
            Err(LinkError::Unreachable { addr: node.addr.as_ref().to_owned(), detail })
        })
    }

    /// The log's number: as remembered, or as the first node that knows it says.
    pub(super) async fn resolve(
        &self,
        name: &LogName,
        deadline: Instant,
    ) -> Result<LogId, ReadError> {
        if let Some(id) = self.log_id(name) {
            return Ok(id);
        }
        let mut pause = Pause::new();
        loop {
            let mut answered = false;
            let mut error = ReadError::Unreachable { detail: "no nodes are known".to_owned() };
            for node in self.nodes() {
                let until = deadline.min(Instant::now() + ANSWER_PATIENCE);
                match self.exchange(&node, LogId::SYSTEM, Request::Logs, until).await {
                    Ok(Response::Logs(logs)) => {
                        answered = true;
                        self.learn_logs(&logs);
                        if let Some((_, id)) = logs.iter().find(|(known, _)| known == name) {
                            return Ok(*id);
                        }
                    }
                    Ok(other) => error = ReadError::from_response(other),
                    Err(failure) => error = ReadError::from_link(failure),
                }
            }
            if answered {
                return Err(ReadError::UnknownLog { name: name.as_str().to_owned() });
            }
            if !pause.wait(deadline).await {
                return Err(error);
            }
        }
    }

    /// The nodes may have changed since they were asked for.
    async fn refresh(&self, node: &NodeLink, deadline: Instant) {
        let until = deadline.min(Instant::now() + ANSWER_PATIENCE);
        let exchange = self.exchange(node, LogId::SYSTEM, Request::Members, until);
        if let Ok(Response::Members(members)) = exchange.await {
            self.learn_members(&members);
        }
    }
}

/// What a link's failure means for the next attempt at this request.
fn verdict(error: &LinkError, request: &Request) -> Verdict {
    let nothing_happened = match error {
        LinkError::Unreachable { .. }
        | LinkError::Refused { .. }
        | LinkError::OtherVersion { .. }
        | LinkError::Busy { .. } => true,
        LinkError::TooLarge { .. } => false,
        LinkError::Broken { .. } | LinkError::Timeout { .. } => {
            request.changes_nothing() || Mutant::UnknownOutcomeRetried.is_active()
        }
    };
    if nothing_happened { Verdict::Elsewhere } else { Verdict::Final }
}
