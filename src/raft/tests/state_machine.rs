//! The state machine over a log: checkpoints, batches that were never finished, damage.

use std::io::{self, Read, Write};
use std::sync::Mutex;

use futures_util::stream;
use openraft::entry::RaftEntry as _;
use openraft::storage::RaftStateMachine as _;

use super::super::state_machine::Checkpoint;
use super::super::types::{RaftMembership, RaftSnapshotMeta, entry_from_raft};
use super::*;
use crate::record::Record;
use crate::segment::sim_disk::FaultKind;
use crate::state_machine::StateMachine;

/// Keeps the payloads that it was given.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn seen(&self) -> Vec<u8> {
        self.0.lock().expect("no panic").clone()
    }
}

impl StateMachine for Kept {
    fn apply(&mut self, record: &Record) -> Bytes {
        self.0.lock().expect("no panic").extend_from_slice(&record.payload);
        Bytes::new()
    }

    fn checkpoint(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.seen())
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut state = self.0.lock().expect("no panic");
        state.clear();
        from.read_to_end(&mut state).map(drop)
    }
}

fn machine(log: &Log, kept: &Kept) -> Result<LogStateMachine, crate::StorageError> {
    let metrics = Arc::new(GroupMetrics::new(&LogName::system()));
    let shared = Arc::new(ApplyShared::default());
    LogStateMachine::open(log.clone(), Some(Box::new(kept.clone())), shared, metrics)
}

async fn append(log: &Log, entries: Vec<LogEntry>) {
    let (sender, done) = tokio::sync::oneshot::channel();
    let entries = entries.into_iter().map(entry_from_raft).collect();
    log.append(entries, Box::new(move |result| drop(sender.send(result))));
    done.await.expect("called").expect("a healthy disk");
}

fn record(at: EntryId, batch: Batch) -> LogEntry {
    LogEntry::new(raft_log_id(at), EntryPayload::Normal(proposal(batch)))
}

#[tokio::test]
async fn a_batch_that_was_never_finished_does_not_keep_checkpoints_from_being_taken() {
    let disk = SimDisk::new();
    let writers = WriterPool::start(1).expect("a thread");
    let log = Log::open(Arc::new(disk), Path::new("/log"), options(), &writers).expect("new");
    let kept = Kept::default();
    let mut machine = machine(&log, &kept).expect("new");
    let entries = vec![
        record(id(1, 0), Batch::SINGLE),
        record(id(1, 1), Batch { position: 0, count: 2 }),
        LogEntry::new(raft_log_id(id(2, 2)), EntryPayload::Blank),
    ];
    append(&log, entries.clone()).await;
    log.set_committed(id(2, 2)).expect("readable");
    let (half, rest) = entries.split_at(2);
    let stream = |entries: &[LogEntry]| {
        let items: Vec<_> = entries.iter().map(|entry| Ok((entry.clone(), None))).collect();
        stream::iter(items)
    };
    machine.apply(stream(half)).await.expect("applied");
    assert!(machine.checkpoint().expect("a healthy disk").is_none(), "in the middle of a batch");
    machine.apply(stream(rest)).await.expect("applied");
    assert_eq!(machine.checkpoint().expect("a healthy disk"), Some(id(2, 2)));
    assert_eq!(kept.seen(), b"X", "the half batch is not applied");
}

#[tokio::test]
async fn a_damaged_checkpoint_is_passed_over_if_an_older_one_will_do() {
    let disk = SimDisk::new();
    let writers = WriterPool::start(1).expect("a thread");
    let log =
        Log::open(Arc::new(disk.clone()), Path::new("/log"), options(), &writers).expect("new");
    append(&log, (0..9).map(|index| record(id(1, index), Batch::SINGLE)).collect()).await;
    log.set_committed(id(1, 8)).expect("readable");
    log.save_checkpoint(id(1, 3), b"older").expect("a healthy disk");
    log.save_checkpoint(id(1, 6), b"newer").expect("a healthy disk");
    let opened = |log: &Log| {
        let kept = Kept::default();
        machine(log, &kept).map(|_| String::from_utf8(kept.seen()).expect("text"))
    };
    assert_eq!(opened(&log).expect("sound"), "newer");
    let damage = |index: u64| {
        let path = format!("/log/{index:020}.ckpt");
        disk.tamper(Path::new(&path), |bytes| *bytes.last_mut().expect("state") ^= 1);
    };
    damage(6);
    assert_eq!(opened(&log).expect("the older one is sound"), "older");
    damage(3);
    assert_eq!(opened(&log).expect("the log holds everything"), "");
    // The log does not reach back behind its boundary.
    log.save_checkpoint(id(1, 3), b"older").expect("a healthy disk");
    log.save_checkpoint(id(1, 6), b"newer").expect("a healthy disk");
    log.purge(id(1, 6)).await.expect("a healthy disk");
    damage(6);
    let error = opened(&log).expect_err("nothing stands for what is gone");
    assert!(matches!(error, crate::StorageError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_checkpoint_that_finds_no_space_is_installed_once_there_is_some() {
    let disk = SimDisk::new();
    let writers = WriterPool::start(1).expect("a thread");
    let log = Log::open(disk.shared(), Path::new("/log"), options(), &writers).expect("a new log");
    let kept = Kept::default();
    let mut machine = machine(&log, &kept).expect("it opens");
    let voters = Membership::new_with_defaults(vec![BTreeSet::from([replica(1)])], []);
    let members = RaftMembership::new(Some(raft_log_id(id(1, 0))), voters);
    let last = Some(raft_log_id(id(1, 7)));
    let meta = RaftSnapshotMeta { last_log_id: last, last_membership: members };
    disk.set_space(Some(0));
    let installing = machine.install_snapshot(&meta, Checkpoint { state: Some("sent".into()) });
    let freeing = async {
        while disk.counts().faults(FaultKind::NoSpace) == 0 {
            tokio::task::yield_now().await;
        }
        disk.set_space(None);
    };
    let (installed, ()) = tokio::join!(installing, freeing);
    installed.expect("there is space");
    assert_eq!(kept.seen(), b"sent");
    assert_eq!(log.watermarks().begin, 8);
}
