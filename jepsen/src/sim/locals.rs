//! Callers within a node's own process, over its handles: they are told of commits the moment they happen.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quorumlog::{
    AppendError, AppendOptions, Appended, CommitLog, Flush, Node, Priority, ReadError, Record,
    Role, Start,
};
use tokio::sync::Semaphore;

use super::random::Random;
use super::shared::{LogState, Shared};
use crate::{Action, value_of};

/// Payload bytes asked for at once.
const READ_BYTES: usize = 16 << 10;
/// Records behind the end that a read begins at, at most.
const READ_BACK: u64 = 60;

/// Read barriers that one node's callers wait for at once.
const BARRIERS_MAX: usize = 64;

/// Starts the callers on the present runtime.
pub(crate) fn start(shared: &Arc<Shared>, node: &Node, id: u64, life: u64) {
    let random = |what: &str| Random::of(shared.profile.seed, &format!("{what} {id} {life}"));
    let (writes, reads) = (random("local writer"), random("local reader"));
    tokio::spawn(write(Arc::clone(shared), node.clone(), writes));
    tokio::spawn(read(Arc::clone(shared), node.clone(), reads));
    if shared.profile.barriers_overlap {
        tokio::spawn(ask(Arc::clone(shared), node.clone(), random("asker")));
    }
    tokio::spawn(follow(Arc::clone(shared), node.clone(), random("follower")));
}

/// One of the logs that clients use, and this node's handle of it.
fn pick(shared: &Shared, node: &Node, random: &mut Random) -> Option<(Arc<LogState>, CommitLog)> {
    let logs = shared.logs();
    if logs.is_empty() {
        return None;
    }
    let at = random.below(logs.len() as u64) as usize;
    let handle = node.log(&logs[at].name)?;
    Some((Arc::clone(&logs[at]), handle))
}

async fn write(shared: Arc<Shared>, node: Node, mut random: Random) {
    let process = shared.process();
    while !shared.is_stopping() {
        random.pause_ms(shared.profile.local_append_think_ms.clone()).await;
        shared.spared().await;
        if shared.is_stopping() {
            return;
        }
        let Some((log, handle)) = pick(&shared, &node, &mut random) else { continue };
        // Elsewhere it would be refused, which is to be seen now and then.
        if handle.status().role != Role::Leader && !random.percent(2) {
            continue;
        }
        let _busy = shared.begin_work();
        let padding = random.within(shared.profile.padding.clone());
        match random.below(10) {
            0..2 => {
                let count = random.within(2..6);
                let payloads: Vec<Bytes> = (0..count).map(|_| shared.payload(padding)).collect();
                let call = shared.calls_append(&log, process, &payloads);
                let result = handle.append_batch(payloads.clone()).await;
                check_shown(&shared, &log, &handle, &result);
                shared.appended(&log, call, None, &payloads, result);
            }
            2..5 => submit(&shared, &log, &handle, &mut random).await,
            kind => {
                let payloads = [shared.payload(padding)];
                // Among others that are not flushed. Else all are.
                let flush = kind == 7 && shared.profile.flush == Flush::Async;
                let call = match flush {
                    true => shared.calls_flushed_append(&log, process, &payloads),
                    false => shared.calls_append(&log, process, &payloads),
                };
                let priority = match kind {
                    5 => Priority::Reserved,
                    6 => Priority::Essential,
                    _ => Priority::Normal,
                };
                let options = match flush {
                    true => AppendOptions::sync(),
                    false => AppendOptions::default(),
                };
                let options = options.with_priority(priority);
                let result = handle.append_with(payloads[0].clone(), options).await;
                check_shown(&shared, &log, &handle, &result);
                shared.appended(&log, call, None, &payloads, result);
            }
        }
    }
}

/// Who was told of a commit can read it where he was told.
fn check_shown(
    shared: &Shared,
    log: &LogState,
    handle: &CommitLog,
    result: &Result<Appended, AppendError>,
) {
    let Ok(Appended { index, count, .. }) = result else { return };
    let committed = handle.watermarks().committed;
    // It may have gone back since.
    let rewound = handle.status().rewinds > 0;
    if committed < index + u64::from(*count) && !log.is_doomed() && !rewound {
        let detail = format!(
            "log {}: {count} at {index} were acknowledged, and readers see what is below {committed}",
            log.name
        );
        shared.breach("ack-before-shown", detail);
    }
}

/// Several appends under way at once, in their order.
async fn submit(
    shared: &Arc<Shared>,
    log: &Arc<LogState>,
    handle: &CommitLog,
    random: &mut Random,
) {
    let mut waiting = Vec::new();
    for _ in 0..random.within(1..shared.profile.pipeline + 1) {
        let payloads = [shared.payload(random.within(shared.profile.padding.clone()))];
        let call = shared.calls_append(log, shared.process(), &payloads);
        match handle.submit(payloads[0].clone()).await {
            Err(error) => drop(shared.appended(log, call, None, &payloads, Err(error))),
            Ok(ticket) => {
                let (shared, log, handle) = (Arc::clone(shared), Arc::clone(log), handle.clone());
                waiting.push(tokio::spawn(async move {
                    let result = ticket.await;
                    check_shown(&shared, &log, &handle, &result);
                    shared.appended(&log, call, None, &payloads, result);
                }));
            }
        }
    }
    let limit = Duration::from_millis(shared.profile.timeout_ms);
    for task in waiting {
        // Who takes too long is not waited for; its outcome stays open.
        let _ = tokio::time::timeout(limit, task).await;
    }
}

async fn read(shared: Arc<Shared>, node: Node, mut random: Random) {
    let process = shared.process();
    while !shared.is_stopping() {
        random.pause_ms(shared.profile.think_ms.clone()).await;
        if shared.is_stopping() {
            return;
        }
        let Some((log, handle)) = pick(&shared, &node, &mut random) else { continue };
        let _busy = shared.begin_work();
        let asked = Action::read(0);
        let call = log.recorder.invoke(process, asked);
        let bound = if random.percent(40) {
            match handle.read_barrier().await {
                Ok(bound) => Some(bound),
                Err(_) => {
                    log.recorder.info(call);
                    continue;
                }
            }
        } else {
            None
        };
        let watermarks = handle.watermarks();
        let to = bound.unwrap_or(watermarks.committed);
        let from = to.saturating_sub(1 + random.below(READ_BACK)).max(watermarks.begin);
        match read_range(&handle, from, to).await {
            Ok(records) => {
                let records = numbered(&records);
                log.recorder.ok(call, Action::Read { from: from.min(to), to, records, bound });
            }
            Err(error) => {
                shared.trace.line("reader", format_args!("{}: {error}", log.name));
                log.recorder.info(call);
            }
        }
    }
}

/// Asks for read barriers, each while those before may still wait.
async fn ask(shared: Arc<Shared>, node: Node, mut random: Random) {
    let waiting = Arc::new(Semaphore::new(BARRIERS_MAX));
    while !shared.is_stopping() {
        random.pause_ms(shared.profile.think_ms.clone()).await;
        let Ok(turn) = Arc::clone(&waiting).acquire_owned().await else { return };
        if shared.is_stopping() {
            return;
        }
        let Some((log, handle)) = pick(&shared, &node, &mut random) else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _busy = shared.begin_work();
            let call = log.recorder.invoke(shared.process(), Action::Tail { bound: None });
            match handle.read_barrier().await {
                Ok(bound) => log.recorder.ok(call, Action::Tail { bound: Some(bound) }),
                Err(_) => log.recorder.info(call),
            }
            drop(turn);
        });
    }
}

/// The records in `from..to`, which this node knows to be committed.
pub(crate) async fn read_range(
    log: &CommitLog,
    from: u64,
    to: u64,
) -> Result<Vec<Record>, ReadError> {
    let mut records: Vec<Record> = Vec::new();
    let mut next = from;
    let rewinds = log.status().rewinds;
    while next < to {
        let more = log.read(next, READ_BYTES).await?;
        // What was read before may be of another history.
        if log.status().rewinds != rewinds {
            return Err(ReadError::Rewound { to: 0 });
        }
        let Some(last) = more.last() else { break };
        next = last.index + 1;
        records.extend(more.into_iter().filter(|record| record.index < to));
    }
    Ok(records)
}

/// Index and value of each.
pub(crate) fn numbered(records: &[Record]) -> Vec<(u64, u64)> {
    records.iter().map(|record| (record.index, value_of(&record.payload))).collect()
}

/// Follows a log with a subscription, anew now and then.
async fn follow(shared: Arc<Shared>, node: Node, mut random: Random) {
    let process = shared.process();
    while !shared.is_stopping() {
        random.pause_ms(shared.profile.think_ms.clone()).await;
        if shared.is_stopping() {
            return;
        }
        let Some((log, handle)) = pick(&shared, &node, &mut random) else { continue };
        let watermarks = handle.watermarks();
        let start = random.within(watermarks.begin..watermarks.committed + 1);
        let mut stream = handle.subscribe(Start::At(start));
        let subscription = shared.process();
        let end = tokio::time::Instant::now() + Duration::from_millis(random.within(20..1_500));
        while let Ok(Some(next)) = tokio::time::timeout_at(end, stream.next()).await {
            let record = match next {
                Ok(record) => record,
                Err(error) => {
                    if let ReadError::Rewound { .. } = error {
                        log.recorder.bit("rewind-told", 1);
                    }
                    break;
                }
            };
            let mut records = vec![record];
            while let Ok(Some(Ok(more))) = tokio::time::timeout(Duration::ZERO, stream.next()).await
            {
                records.push(more);
                if records.len() == 64 {
                    break;
                }
            }
            if shared.is_stopping() || log.doomed.load(Ordering::Relaxed) {
                break;
            }
            let records = numbered(&records);
            log.recorder.instant(process, Action::Deliver { subscription, start, records });
        }
    }
}
