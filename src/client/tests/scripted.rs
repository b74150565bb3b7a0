//! Three nodes in memory that serve one log without any Raft: the test says who leads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::{Client, ClientConfig, ClientLog};
use crate::error::{AdminError, AppendError, ReadError};
use crate::member::{Member, MemberStatus, Role, Status};
use crate::record::{Appended, LogId, LogName, Record, Start};
use crate::seam::Transport;
use crate::seam::net::memory::MemoryTransport;
use crate::wire::client_protocol::{Request, Response};
use crate::wire::{Frame, Hello, Outbound, Protocol, Service, WireLimits, credit_of, kind, serve};

pub(super) fn name(name: &str) -> LogName {
    LogName::new(name).expect("a good name")
}

/// What the nodes agree on, by magic.
pub(super) struct State {
    pub(super) leader: Option<u64>,
    pub(super) logs: BTreeMap<LogName, LogId>,
    pub(super) records: Vec<Record>,
    pub(super) begin: u64,
    /// Appends that reached a leader.
    pub(super) taken: u32,
    /// What becomes of appends.
    pub(super) appends: Appends,
    /// Records sent by one subscription before its node closes the connection.
    pub(super) cut_after: Option<u64>,
}

/// What becomes of appends.
#[derive(Clone)]
pub(super) enum Appends {
    Commit,
    /// Taken, and never answered.
    Ignore,
    /// The connection breaks before the answer.
    Break,
    Fail(AppendError),
}

pub(super) struct ScriptedCluster {
    pub(super) transport: MemoryTransport,
    pub(super) state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
    nodes: BTreeMap<u64, JoinHandle<()>>,
}

struct ScriptedNode {
    id: u64,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

fn member(id: u64) -> Member {
    Member::new(id, format!("peer:{id}")).with_client_addr(format!("node:{id}"))
}

impl ScriptedCluster {
    /// Three nodes with the log `orders`, led by node 1.
    pub(super) async fn start() -> Self {
        let state = State {
            leader: Some(1),
            logs: BTreeMap::from([(name("orders"), LogId(5))]),
            records: Vec::new(),
            begin: 0,
            taken: 0,
            appends: Appends::Commit,
            cut_after: None,
        };
        let mut cluster = Self {
            transport: MemoryTransport::default(),
            state: Arc::new(Mutex::new(state)),
            changed: watch::Sender::new(()),
            nodes: BTreeMap::new(),
        };
        for id in 1..=3 {
            cluster.start_node(id).await;
        }
        cluster
    }

    pub(super) async fn start_node(&mut self, id: u64) {
        let acceptor = self.transport.bind(&format!("node:{id}")).await.expect("bind");
        let node =
            ScriptedNode { id, state: Arc::clone(&self.state), changed: self.changed.clone() };
        let limits = WireLimits {
            frame_bytes_max: 1 << 20,
            queue_bytes_max: 8 << 20,
            queued: None,
            incoming: None,
            connections_max: 10,
            handshake_timeout: Duration::from_secs(1),
        };
        let served = serve(acceptor, Arc::new(node), limits, std::future::pending());
        self.nodes.insert(id, tokio::spawn(served));
    }

    pub(super) async fn kill(&mut self, id: u64) {
        let node = self.nodes.remove(&id).expect("it runs");
        node.abort();
        assert!(node.await.expect_err("aborted").is_cancelled());
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }

    pub(super) fn commit(&self, payload: &str) {
        self.state().commit(Bytes::copy_from_slice(payload.as_bytes()));
        self.changed.send_replace(());
    }

    pub(super) async fn client(&self) -> Client {
        self.client_with(|_| {}).await
    }

    pub(super) async fn client_with(&self, set: impl FnOnce(&mut ClientConfig)) -> Client {
        // The others are found through node 2.
        let mut config = ClientConfig::new(["node:2"]);
        set(&mut config);
        Client::connect_over(Arc::new(self.transport.clone()), config).await.expect("connect")
    }

    pub(super) async fn log(&self) -> ClientLog {
        self.client().await.log(&name("orders"))
    }
}

impl State {
    fn commit(&mut self, payload: Bytes) -> u64 {
        // Every third index is taken by something that readers never see.
        let index = self.records.last().map_or(1, |last| last.index + 1);
        let index = if index.is_multiple_of(3) { index + 1 } else { index };
        self.records.push(Record::new(index, 1, payload));
        index
    }

    pub(super) fn payloads(&self) -> Vec<Bytes> {
        self.records.iter().map(|record| record.payload.clone()).collect()
    }
}

#[derive(Default)]
pub(super) struct Session {
    streams: BTreeMap<u64, watch::Sender<u64>>,
}

impl Service for ScriptedNode {
    type Session = Session;

    async fn open(&self, hello: Hello, _remote: &str) -> Result<(Hello, Session), String> {
        assert_eq!(hello.protocol, Protocol::Client);
        Ok((Hello { node_id: self.id, ..hello }, Session::default()))
    }

    fn handle(&self, session: &mut Session, frame: Frame, out: &Outbound) -> Result<(), String> {
        let (log, correlation) = (frame.log, frame.correlation);
        match frame.kind {
            kind::CREDIT => {
                let granted = u64::from(credit_of(&frame)?);
                if let Some(stream) = session.streams.get(&correlation) {
                    stream.send_modify(|credit| *credit += granted);
                }
                return Ok(());
            }
            kind::CANCEL => {
                session.streams.remove(&correlation);
                return Ok(());
            }
            _ => {}
        }
        let request = Request::from_frame(&frame).map_err(|error| error.to_string())?;
        let mut state = self.state.lock().expect("no panic holds it");
        let known = state.logs.values().any(|id| *id == log);
        let response = match request {
            Request::Append { payload, .. } => match self.append(&mut state, log, &[payload])? {
                Some(response) => response,
                None => return Ok(()),
            },
            Request::AppendBatch { payloads, .. } => {
                match self.append(&mut state, log, &payloads)? {
                    Some(response) => response,
                    None => return Ok(()),
                }
            }
            Request::Subscribe { .. } | Request::Read { .. } if !known => {
                Response::ReadFailed(ReadError::UnknownLog { name: "?".to_owned() })
            }
            Request::Subscribe { start, .. } => {
                let (credit, granted) = watch::channel(0);
                session.streams.insert(correlation, credit);
                let (state, changed) = (Arc::clone(&self.state), self.changed.subscribe());
                let stream = Stream { state, changed, granted, out: out.clone(), correlation };
                tokio::spawn(stream.run(start));
                return Ok(());
            }
            Request::Read { from, .. } => {
                let records = state.records.iter().filter(|record| record.index >= from);
                let mut records: Vec<_> = records.cloned().collect();
                // Tells the test which node answered.
                records.push(Record::new(u64::MAX, self.id, Bytes::new()));
                Response::Records { next: 0, records }
            }
            Request::Members => Response::Members(
                (1..=3)
                    .map(|id| MemberStatus { member: member(id), voter: true, matched: None })
                    .collect(),
            ),
            Request::Logs => {
                Response::Logs(state.logs.iter().map(|(name, id)| (name.clone(), *id)).collect())
            }
            Request::Statuses => Response::Statuses(self.statuses(&state)),
            Request::CreateLog { .. } => {
                Response::AdminFailed(AdminError::LogExists { name: "orders".to_owned() })
            }
            other => Response::AdminFailed(AdminError::Invalid { reason: format!("{other:?}") }),
        };
        out.send(response.into_frame(log, correlation));
        Ok(())
    }
}

impl ScriptedNode {
    fn append(
        &self,
        state: &mut State,
        log: LogId,
        payloads: &[Bytes],
    ) -> Result<Option<Response>, String> {
        if !state.logs.values().any(|id| *id == log) {
            let name = "?".to_owned();
            return Ok(Some(Response::AppendFailed(AppendError::UnknownLog { name })));
        }
        if state.leader != Some(self.id) {
            let leader = state.leader.map(member);
            return Ok(Some(Response::AppendFailed(AppendError::NotLeader { leader })));
        }
        state.taken += 1;
        match state.appends.clone() {
            Appends::Commit => {
                let indexes: Vec<_> =
                    payloads.iter().map(|payload| state.commit(payload.clone())).collect();
                self.changed.send_replace(());
                let count = u32::try_from(indexes.len()).expect("few");
                Ok(Some(Response::Appended(Appended::new(indexes[0], 1, count))))
            }
            Appends::Ignore => Ok(None),
            Appends::Break => Err("the script says so".to_owned()),
            Appends::Fail(error) => Ok(Some(Response::AppendFailed(error))),
        }
    }

    fn statuses(&self, state: &State) -> Vec<Status> {
        let logs = [("_system".to_owned(), LogId::SYSTEM)].into_iter();
        let logs = logs.chain(state.logs.iter().map(|(name, id)| (name.to_string(), *id)));
        let leads = state.leader == Some(self.id);
        let role = if leads { Role::Leader } else { Role::Follower };
        logs.map(|(log, id)| Status {
            term: 1,
            leader: state.leader.map(member),
            ..Status::new(log, id.0, self.id, role)
        })
        .collect()
    }
}

/// One subscription.
struct Stream {
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<()>,
    granted: watch::Receiver<u64>,
    out: Outbound,
    correlation: u64,
}

impl Stream {
    async fn run(mut self, start: Start) {
        let mut sent = 0;
        let mut next = {
            let state = self.state.lock().expect("no panic holds it");
            match start {
                Start::Begin => state.begin,
                Start::At(index) => index,
                Start::Committed => state.records.last().map_or(1, |last| last.index + 1),
            }
        };
        self.send(&mut sent, Response::Records { next, records: Vec::new() }).await;
        loop {
            let (response, cut) = {
                let state = self.state.lock().expect("no panic holds it");
                let record = state.records.iter().find(|record| record.index >= next).cloned();
                let response = if next < state.begin {
                    let begin = state.begin;
                    Some(Response::ReadFailed(ReadError::Trimmed { requested: next, begin }))
                } else {
                    record.map(|record| {
                        next = record.index + 1;
                        Response::Records { next, records: vec![record] }
                    })
                };
                (response, state.cut_after.is_some_and(|limit| sent > limit))
            };
            if cut {
                return self.out.finish(kind::REFUSE, "the script says so");
            }
            let goes_on = match response {
                Some(response) => self.send(&mut sent, response).await,
                None => self.changed.changed().await.is_ok(),
            };
            if !goes_on {
                return;
            }
        }
    }

    async fn send(&mut self, sent: &mut u64, response: Response) -> bool {
        if self.granted.wait_for(|granted| granted > sent).await.is_err() {
            return false;
        }
        *sent += 1;
        self.out.send(response.into_frame(LogId(5), self.correlation))
    }
}
