//! Tests of the log as a whole: what it does, and what it does after a crash or with damaged files.

mod at_once;
mod basics;
mod concurrency;
mod crash;
mod damage;
mod driven;
mod faults;
mod lost_flush;
mod lost_pages;
mod model;
mod offline;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::*;
use crate::error::StorageError;
use crate::format::entry::{Batch, Entry, EntryId, EntryKind};
use crate::member::ReplicaId;
use crate::record::{Flush, LogId};
use crate::seam::disk::RealDisk;
use crate::seam::{Disk, SystemClock};

/// A node with the first data that it had.
fn replica(node: u64) -> ReplicaId {
    ReplicaId { node, incarnation: u128::from(node) << 64 }
}

/// A directory of the machine and threads to write with.
pub(super) struct Place {
    _temp: tempfile::TempDir,
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) pool: WriterPool,
    pub(super) options: LogOptions,
}

impl Place {
    pub(super) fn new() -> Self {
        let temp = tempfile::tempdir().expect("tempdir");
        let dir = temp.path().join("logs").join("0000000000000007");
        let pool = WriterPool::start(1).expect("threads");
        Self { _temp: temp, dir, disk: RealDisk::shared(), pool, options: options() }
    }

    pub(super) fn try_open(&self) -> Result<Log, StorageError> {
        Log::open(Arc::clone(&self.disk), &self.dir, self.options.clone(), &self.pool)
    }

    pub(super) fn open(&self) -> Log {
        self.try_open().expect("open")
    }
}

pub(super) fn options() -> LogOptions {
    LogOptions {
        log_id: LogId(7),
        flush: Flush::Sync,
        flush_interval: Duration::from_millis(50),
        segment_size: 1 << 20,
        tail_cache_max: 1 << 20,
        at_stable: false,
        disk_reserve: 0,
        clock: Arc::new(SystemClock),
        observer: None,
    }
}

pub(super) fn id(term: u64, index: u64) -> EntryId {
    EntryId { term, index }
}

/// A record whose payload tells its id.
pub(super) fn record(term: u64, index: u64, len: usize) -> Entry {
    record_in(term, index, len, Batch::SINGLE)
}

pub(super) fn record_in(term: u64, index: u64, len: usize, batch: Batch) -> Entry {
    let text = format!("{term}.{index};");
    let payload: Vec<u8> = text.bytes().cycle().take(len).collect();
    Entry::new(id(term, index), EntryKind::Record, false, batch, payload.into())
}

pub(super) fn membership(term: u64, index: u64) -> Entry {
    let payload = Bytes::from(format!("members as of {index}"));
    Entry::new(id(term, index), EntryKind::Membership, false, Batch::SINGLE, payload)
}

pub(super) fn records(term: u64, indexes: std::ops::Range<u64>, len: usize) -> Vec<Entry> {
    indexes.map(|index| record(term, index, len)).collect()
}

/// Submits an append; the result comes later.
pub(super) fn submit(log: &Log, entries: Vec<Entry>) -> oneshot::Receiver<Done> {
    let (sender, receiver) = oneshot::channel();
    log.append(entries, Box::new(move |result| drop(sender.send(result))));
    receiver
}

pub(super) async fn append(log: &Log, entries: Vec<Entry>) {
    submit(log, entries).await.expect("called").expect("appended");
}

/// Polls a future that needs nobody else.
pub(super) fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    futures_util::FutureExt::now_or_never(future)
}

pub(super) fn read_all(log: &Log) -> Vec<Entry> {
    log.read(0, u64::MAX, usize::MAX, true).expect("read")
}

/// Every file below `dir`, with its bytes.
pub(super) fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("list") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.push((path.clone(), std::fs::read(&path).expect("read")));
        }
    }
    files.sort();
    files
}
