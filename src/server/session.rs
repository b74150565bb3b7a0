//! One client's connection: appends go straight to the log, everything else to a task of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::ServerConfig;
use super::requests::{Requests, unknown_log};
use super::subscriptions::{Places, Subscriptions};
use crate::error::{AdminError, AppendError, ReadError};
use crate::node::{AckSink, CommitLog, Node};
use crate::panics;
use crate::record::{Appended, LogId};
use crate::wire::client_protocol::{Request, Response, acknowledgement};
use crate::wire::{Frame, Hello, Outbound, Protocol, Service, kind};

/// Requests of one client that may be under way at once, beside its appends and subscriptions.
const TASKS_MAX: usize = 64;
/// Logs that a session remembers by their number.
const LOGS_MAX: usize = 1024;

/// Serves the clients of one node.
pub(super) struct ClientService {
    node: Node,
    config: ServerConfig,
    places: Places,
}

impl ClientService {
    pub(super) fn new(node: Node, config: ServerConfig) -> Self {
        let places = Places::new(&config);
        Self { node, config, places }
    }
}

/// State of one connection. Dropping it ends its tasks.
#[derive(Default)]
pub(super) struct Session {
    logs: BTreeMap<LogId, CommitLog>,
    acks: Option<Arc<Acks>>,
    tasks: JoinSet<()>,
    subscriptions: Subscriptions,
}

impl Service for ClientService {
    type Session = Session;

    async fn open(&self, hello: Hello, _remote: &str) -> Result<(Hello, Session), String> {
        if hello.protocol != Protocol::Client {
            return Err("this address is for clients; nodes have another one".to_owned());
        }
        let node_id = self.node.member().id;
        if hello.target != 0 && hello.target != node_id {
            return Err(format!("this is node {node_id}, not {}", hello.target));
        }
        let ours = Hello {
            protocol: Protocol::Client,
            cluster: 0,
            node_id,
            incarnation: 0,
            target: hello.target,
            intro: None,
        };
        Ok((ours, Session::default()))
    }

    fn handle(&self, session: &mut Session, frame: Frame, out: &Outbound) -> Result<(), String> {
        match frame.kind {
            kind::CREDIT => return session.subscriptions.credit(&frame),
            kind::CANCEL => {
                session.subscriptions.cancel(frame.correlation);
                return Ok(());
            }
            _ => {}
        }
        // A batch that is refused need not be decoded: thousands of records fit into a small frame.
        let batch = Request::batch_of(&frame).map_err(|error| error.to_string())?;
        if let Some((records, bytes)) = batch
            && let Some(log) = session.log(&self.node, frame.log)
            && let Err(error) = log.has_room_for_batch(records, bytes)
        {
            let refusal = Response::AppendFailed(error);
            out.send(refusal.into_frame(frame.log, frame.correlation));
            return Ok(());
        }
        let request = Request::from_frame(&frame).map_err(|error| error.to_string())?;
        let (log, correlation) = (frame.log, frame.correlation);
        match request {
            Request::Append { options, crc, payload } => {
                self.append(session, log, correlation, out, |log, acks| {
                    log.submit_to(payload.clone(), Some(crc), options, acks, correlation)
                });
            }
            Request::AppendBatch { options, payloads } => {
                self.append(session, log, correlation, out, |log, acks| {
                    log.submit_batch_to(payloads.clone(), options, acks, correlation)
                });
            }
            Request::Subscribe { start, last } => {
                let from = (start, last);
                let started = match session.log(&self.node, log) {
                    Some(commit_log) => session.subscriptions.start(
                        &self.places,
                        commit_log,
                        from,
                        out,
                        log,
                        correlation,
                    ),
                    None => Err(ReadError::UnknownLog { name: unknown_log(log) }),
                };
                if let Err(error) = started {
                    out.send(Response::ReadFailed(error).into_frame(log, correlation));
                }
            }
            request => self.spawn(session, request, log, correlation, out),
        }
        Ok(())
    }
}

impl ClientService {
    /// Admits an append. Its acknowledgement goes from the log to the connection's queue, without a
    /// task or a timer in between.
    fn append(
        &self,
        session: &mut Session,
        id: LogId,
        correlation: u64,
        out: &Outbound,
        submit: impl Fn(&CommitLog, Arc<dyn AckSink>) -> Result<(), AppendError>,
    ) {
        let acks = session.acks.get_or_insert_with(|| Arc::new(Acks { out: out.clone() }));
        let acks = Arc::clone(acks);
        let mut submitted = session.submit(&self.node, id, &acks, &submit);
        if matches!(submitted, Err(AppendError::Closed)) {
            // It may have been deleted, and this session did not hear of it.
            session.logs.remove(&id);
            submitted = session.submit(&self.node, id, &acks, &submit);
        }
        if let Err(error) = submitted {
            out.send(Response::AppendFailed(error).into_frame(id, correlation));
        }
    }

    fn spawn(
        &self,
        session: &mut Session,
        request: Request,
        id: LogId,
        correlation: u64,
        out: &Outbound,
    ) {
        while session.tasks.try_join_next().is_some() {}
        if session.tasks.len() >= TASKS_MAX {
            let detail = format!("{TASKS_MAX} requests of this connection are under way");
            let response = refusal(&request, detail);
            out.send(response.into_frame(id, correlation));
            return;
        }
        let requests = Requests {
            node: self.node.clone(),
            log: session.log(&self.node, id),
            id,
            correlation,
            out: out.clone(),
            read_bytes_max: self.config.read_bytes_max,
        };
        let closed = out.clone();
        session.tasks.spawn(panics::or_else(requests.answer(request), move |panic| {
            // The client waits for an answer that does not come.
            closed.close(&format!("answering a request panicked: {panic}"));
        }));
    }
}

fn refusal(request: &Request, detail: String) -> Response {
    match request {
        Request::Read { .. } | Request::ReadBarrier | Request::Statuses => {
            Response::ReadFailed(ReadError::Unreachable { detail })
        }
        _ => Response::AdminFailed(AdminError::Unreachable { detail }),
    }
}

impl Session {
    /// The log of this number; the system log is not for clients.
    fn log(&mut self, node: &Node, id: LogId) -> Option<CommitLog> {
        if let Some(log) = self.logs.get(&id) {
            return Some(log.clone());
        }
        let log = node.log_by_id(id)?;
        if self.logs.len() >= LOGS_MAX {
            self.logs.clear();
        }
        self.logs.insert(id, log.clone());
        Some(log)
    }

    fn submit(
        &mut self,
        node: &Node,
        id: LogId,
        acks: &Arc<Acks>,
        submit: impl Fn(&CommitLog, Arc<dyn AckSink>) -> Result<(), AppendError>,
    ) -> Result<(), AppendError> {
        if !self.logs.contains_key(&id) {
            self.log(node, id);
        }
        match self.logs.get(&id) {
            Some(log) => submit(log, Arc::<Acks>::clone(acks)),
            None => Err(AppendError::UnknownLog { name: unknown_log(id) }),
        }
    }
}

/// Sends acknowledgements to one client; the token is the request's correlation.
struct Acks {
    out: Outbound,
}

impl AckSink for Acks {
    fn acked(&self, token: u64, result: Result<Appended, AppendError>) {
        // If the connection is gone, its client already knows that the outcome is unknown.
        match result {
            Ok(appended) => {
                let (kind, head) = acknowledgement(&appended);
                self.out.send_head(kind, LogId::default(), token, &head);
            }
            Err(error) => {
                let response = Response::AppendFailed(error);
                self.out.send(response.into_frame(LogId::default(), token));
            }
        }
    }
}
