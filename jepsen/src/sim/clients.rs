//! Clients on hosts of their own, over the network.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quorumlog::client::{Client, ClientConfig, ClientLog};
use quorumlog::seam::Transport;
use quorumlog::{ReadError, Start};

use super::locals::numbered;
use super::node::client_addr;
use super::random::Random;
use super::shared::{LogState, Shared};
use crate::Action;

/// Pause after what failed.
const PAUSE: Duration = Duration::from_millis(10);
/// Payload bytes asked for at once.
const READ_BYTES: usize = 8 << 10;

/// A client's host.
pub(crate) fn host_of(client: u64) -> String {
    format!("c{client}")
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What one client's tasks share.
#[derive(Clone)]
struct Caller {
    number: u64,
    client: Client,
    shared: Arc<Shared>,
}

/// Connects to the cluster; tries until it is time to stop.
pub(crate) async fn connect(shared: &Shared, transport: &Arc<dyn Transport>) -> Option<Client> {
    while !shared.is_stopping() {
        let mut config = ClientConfig::new(shared.profile.nodes().map(client_addr));
        config.timeout = Duration::from_millis(shared.profile.timeout_ms);
        config.inflight_max = 1 << 20;
        match Client::connect_over(Arc::clone(transport), config).await {
            Ok(client) => return Some(client),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    None
}

/// A client for changes of members: they may take longer than an append.
pub(crate) async fn connect_operator(
    shared: &Shared,
    transport: &Arc<dyn Transport>,
    members: Vec<u64>,
) -> Option<Client> {
    let mut config = ClientConfig::new(members.into_iter().map(client_addr));
    config.timeout = Duration::from_millis(2 * shared.profile.timeout_ms);
    Client::connect_over(Arc::clone(transport), config).await.ok()
}

/// Runs a client until it is told to stop.
pub(crate) async fn run(
    number: u64,
    transport: Arc<dyn Transport>,
    shared: Arc<Shared>,
) -> Result<(), Failure> {
    let Some(client) = connect(&shared, &transport).await else { return Ok(()) };
    let seed = shared.profile.seed;
    let random = |what: &str| Random::of(seed, &format!("{what} {number}"));
    let caller = Caller { number, client, shared };
    let tasks = [
        tokio::spawn(write(caller.clone(), random("writer"))),
        tokio::spawn(read(caller.clone(), random("reader"))),
        tokio::spawn(follow(caller, random("subscriber"))),
    ];
    for task in tasks {
        task.await?;
    }
    Ok(())
}

impl Caller {
    fn pick(&self, random: &mut Random) -> Option<(Arc<LogState>, ClientLog)> {
        let logs = self.shared.logs();
        let log = logs.get(random.below(logs.len() as u64) as usize)?;
        Some((Arc::clone(log), self.client.log(&log.name)))
    }
}

async fn write(caller: Caller, mut random: Random) {
    let shared = Arc::clone(&caller.shared);
    let process = shared.process();
    let _busy = shared.begin_work();
    while !shared.is_stopping() {
        random.pause_ms(shared.profile.append_think_ms.clone()).await;
        shared.spared().await;
        let Some((log, handle)) = caller.pick(&mut random) else { continue };
        let padding = random.within(shared.profile.padding.clone());
        let client = Some(caller.number);
        let done = match random.below(10) {
            0..2 => {
                let count = random.within(2..6);
                let payloads: Vec<Bytes> = (0..count).map(|_| shared.payload(padding)).collect();
                let call = shared.calls_append(&log, process, &payloads);
                let result = handle.append_batch(payloads.clone()).await;
                shared.appended(&log, call, client, &payloads, result)
            }
            2..6 => submit(&caller, &log, &handle, &mut random).await,
            _ => {
                let payloads = [shared.payload(padding)];
                let call = shared.calls_append(&log, process, &payloads);
                let result = handle.append(payloads[0].clone()).await;
                shared.appended(&log, call, client, &payloads, result)
            }
        };
        if !done {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Several appends under way at once, in their order. True if all were acknowledged.
async fn submit(
    caller: &Caller,
    log: &Arc<LogState>,
    handle: &ClientLog,
    random: &mut Random,
) -> bool {
    let shared = &caller.shared;
    let client = Some(caller.number);
    let mut waiting = Vec::new();
    for _ in 0..random.within(1..shared.profile.pipeline + 1) {
        let payloads = [shared.payload(random.within(shared.profile.padding.clone()))];
        let call = shared.calls_append(log, shared.process(), &payloads);
        match handle.submit(payloads[0].clone()).await {
            Err(error) => {
                shared.appended(log, call, client, &payloads, Err(error));
                break;
            }
            Ok(ticket) => {
                let (shared, log) = (Arc::clone(shared), Arc::clone(log));
                waiting.push(tokio::spawn(async move {
                    let result = ticket.await;
                    shared.appended(&log, call, client, &payloads, result)
                }));
            }
        }
    }
    let mut all = !waiting.is_empty();
    for task in waiting {
        all &= task.await.unwrap_or(false);
    }
    all
}

async fn read(caller: Caller, mut random: Random) {
    let shared = Arc::clone(&caller.shared);
    let process = shared.process();
    let _busy = shared.begin_work();
    while !shared.is_stopping() {
        random.pause_ms(shared.profile.think_ms.clone()).await;
        let Some((log, handle)) = caller.pick(&mut random) else { continue };
        if random.percent(40) {
            let call = log.recorder.invoke(process, Action::Tail { bound: None });
            match handle.read_barrier().await {
                Ok(bound) => log.recorder.ok(call, Action::Tail { bound: Some(bound) }),
                Err(_) => {
                    log.recorder.info(call);
                    tokio::time::sleep(PAUSE).await;
                }
            }
            continue;
        }
        let last = log.last_acked.load(Ordering::Relaxed);
        let from = last.saturating_sub(random.below(40));
        let node = random.percent(50).then(|| 1 + random.below(shared.profile.voters));
        let call = log.recorder.invoke(process, Action::read(from));
        let read = match node {
            Some(node) => handle.read_from(node, from, READ_BYTES).await,
            None => handle.read(from, READ_BYTES).await,
        };
        match read {
            Ok(records) => {
                let records = numbered(&records);
                let to = records.last().map_or(from, |(index, _)| index + 1);
                log.recorder.ok(call, Action::Read { from, to, records, bound: None });
            }
            Err(_) => {
                log.recorder.info(call);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Follows a log with a subscription, anew now and then.
async fn follow(caller: Caller, mut random: Random) {
    let shared = Arc::clone(&caller.shared);
    let process = shared.process();
    let _busy = shared.begin_work();
    while !shared.is_stopping() {
        random.pause_ms(shared.profile.think_ms.clone()).await;
        let Some((log, handle)) = caller.pick(&mut random) else { continue };
        let start = random.below(log.last_acked.load(Ordering::Relaxed) + 1);
        let end = tokio::time::Instant::now() + Duration::from_millis(random.within(50..2_000));
        follow_from(&shared, process, &log, handle, start, end).await;
    }
}

async fn follow_from(
    shared: &Arc<Shared>,
    process: u64,
    log: &LogState,
    handle: ClientLog,
    start: u64,
    end: tokio::time::Instant,
) {
    let mut stream = handle.subscribe(Start::At(start));
    let subscription = shared.process();
    loop {
        let records = match tokio::time::timeout_at(end, stream.next()).await {
            Ok(Some(Ok(record))) => vec![record],
            Ok(Some(Err(ReadError::Unreachable { .. } | ReadError::NotLeader { .. }))) => continue,
            Ok(Some(Err(_)) | None) | Err(_) => return,
        };
        if shared.is_stopping() || log.is_doomed() {
            return;
        }
        let mut records = records;
        while records.len() < 64 {
            match tokio::time::timeout(Duration::ZERO, stream.next()).await {
                Ok(Some(Ok(more))) => records.push(more),
                _ => break,
            }
        }
        let records = numbered(&records);
        log.recorder.instant(process, Action::Deliver { subscription, start, records });
    }
}
