//! The state machine over a log: checkpoints, batches that were never finished, damage.

use std::io::{self, Read, Write};
use std::sync::Mutex;

use futures_util::stream;
use openraft::RaftSnapshotBuilder as _;
use openraft::entry::RaftEntry as _;
use openraft::storage::RaftStateMachine as _;

use super::super::apply_shared::ApplyShared;
use super::super::checkpoint_pace::CHECKPOINT_ENTRIES;
use super::super::state_machine::Checkpoint;
use super::super::types::{RaftMembership, RaftSnapshotMeta, entry_from_raft, entry_id};
use super::*;
use crate::record::Record;
use crate::seam::disk::sim::{Fault, FaultKind, OpKind, Ops, Rule, When};
use crate::state_machine::{ApplyError, StateMachine};

/// Keeps the payloads that it was given.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn seen(&self) -> Vec<u8> {
        self.0.lock().expect("no panic").clone()
    }
}

impl StateMachine for Kept {
    fn apply(&mut self, record: &Record) -> Result<Bytes, ApplyError> {
        if record.payload == "newer" {
            return Err(ApplyError::NewerBuild { detail: "a record".to_owned() });
        }
        self.0.lock().expect("no panic").extend_from_slice(&record.payload);
        Ok(Bytes::new())
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

async fn machine(
    log: &Log,
    writers: &WriterPool,
    kept: &Kept,
) -> Result<LogStateMachine, crate::StorageError> {
    machine_saved_by(Saver::new(log.clone(), writers), kept).await
}

async fn machine_saved_by(
    saver: Saver,
    kept: &Kept,
) -> Result<LogStateMachine, crate::StorageError> {
    let metrics = Arc::new(GroupMetrics::new(&LogName::system()));
    let shared = Arc::new(ApplyShared::default());
    let machine = Box::new(kept.clone());
    LogStateMachine::open(saver, Some(machine), shared, Arc::default(), metrics).await
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
    let mut machine = machine(&log, &writers, &kept).await.expect("new");
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
    let saver = Saver::new(log.clone(), &writers);
    let saving = machine.checkpoint(saver.turn().await).expect("memory takes it");
    assert!(saving.is_none(), "in the middle of a batch");
    machine.apply(stream(rest)).await.expect("applied");
    let saving = machine.checkpoint(saver.turn().await).expect("memory takes it");
    let saving = saving.expect("the batch is not waited for any more");
    assert_eq!(saving.id, id(2, 2));
    saving.saved().await.expect("a healthy disk");
    assert_eq!(log.checkpoints(), [id(2, 2)]);
    assert_eq!(kept.seen(), b"X", "the half batch is not applied");
}

/// Before, it applied all of a segment again: hundreds of thousands.
#[tokio::test]
async fn a_start_applies_a_bounded_number_of_small_records_again() {
    let disk = SimDisk::new();
    let writers = WriterPool::start(1).expect("a thread");
    let large = LogOptions { segment_size: 64 << 20, ..options() };
    let log = Log::open(disk.shared(), Path::new("/log"), large, &writers).expect("a new log");
    let saver = Saver::new(log.clone(), &writers);
    let mut before = machine_saved_by(saver.clone(), &Kept::default()).await.expect("new");
    let mut end = 0;
    while end < 2 * CHECKPOINT_ENTRIES + 3000 {
        let entries: Vec<_> = (end..end + 1024).map(|n| record(id(1, n), Batch::SINGLE)).collect();
        end += 1024;
        append(&log, entries.clone()).await;
        log.set_committed(id(1, end - 1)).expect("readable");
        let items = entries.into_iter().map(|entry| Ok((entry, None)));
        before.apply(stream::iter(items)).await.expect("applied");
        // One is saved at a time, beside what is applied.
        drop(saver.turn().await);
    }
    let saved = log.checkpoints();
    assert_eq!(log.active_base(), 0, "no segment is full");
    assert_eq!(saved.len(), 2, "{saved:?}");
    drop(before);
    let kept = Kept::default();
    let mut after = machine(&log, &writers, &kept).await.expect("it opens");
    let (applied, _) = after.applied_state().await.expect("it has some");
    assert_eq!(applied.map(|id| entry_id(&id)), saved.last().copied());
    let again = end - kept.seen().len() as u64;
    assert!(again <= CHECKPOINT_ENTRIES, "{again} records are applied again");
}

/// Before, what came behind the record was missing in the checkpoint, and so on the upgraded node.
#[tokio::test]
async fn a_machine_that_has_stopped_at_a_record_takes_no_checkpoint() {
    let disk = SimDisk::new();
    let writers = WriterPool::start(1).expect("a thread");
    let log = Log::open(Arc::new(disk), Path::new("/log"), options(), &writers).expect("new");
    let kept = Kept::default();
    let mut machine = machine(&log, &writers, &kept).await.expect("new");
    let payload = Bytes::from_static(b"newer");
    let payload_crc = crc32fast::hash(&payload);
    let newer = Proposal { payload, payload_crc, ..proposal(Batch::SINGLE) };
    let newer = LogEntry::new(raft_log_id(id(1, 1)), EntryPayload::Normal(newer));
    let entries = vec![record(id(1, 0), Batch::SINGLE), newer, record(id(1, 2), Batch::SINGLE)];
    append(&log, entries.clone()).await;
    log.set_committed(id(1, 2)).expect("readable");
    let items = entries.into_iter().map(|entry| Ok((entry, None)));
    let error = machine.apply(stream::iter(items)).await.expect_err("nobody knows what it means");
    assert_eq!(error.to_string(), "written by a newer build; upgrade this node: a record");
    assert_eq!(kept.seen(), b"X", "what comes behind it is not applied");
    let saver = Saver::new(log.clone(), &writers);
    let saving = machine.checkpoint(saver.turn().await).expect("memory takes it");
    assert!(saving.is_none(), "the next start has to come upon the record");
}

#[tokio::test]
async fn a_damaged_checkpoint_is_passed_over_if_an_older_one_will_do() {
    let disk = SimDisk::new();
    let writers = WriterPool::start(1).expect("a thread");
    let log =
        Log::open(Arc::new(disk.clone()), Path::new("/log"), options(), &writers).expect("new");
    append(&log, (0..9).map(|index| record(id(1, index), Batch::SINGLE)).collect()).await;
    log.set_committed(id(1, 8)).expect("readable");
    log.save_state(id(1, 3), b"older").expect("a healthy disk");
    log.save_state(id(1, 6), b"newer").expect("a healthy disk");
    let opened = async |log: &Log| {
        let kept = Kept::default();
        machine(log, &writers, &kept).await.map(|_| String::from_utf8(kept.seen()).expect("text"))
    };
    assert_eq!(opened(&log).await.expect("sound"), "newer");
    let damage = |index: u64| {
        let path = format!("/log/{index:020}.ckpt");
        disk.tamper(Path::new(&path), |bytes| *bytes.last_mut().expect("state") ^= 1);
    };
    damage(6);
    assert_eq!(opened(&log).await.expect("the older one is sound"), "older");
    damage(3);
    assert_eq!(opened(&log).await.expect("the log holds everything"), "");
    // The log does not reach back behind its boundary.
    log.save_state(id(1, 3), b"older").expect("a healthy disk");
    log.save_state(id(1, 6), b"newer").expect("a healthy disk");
    log.purge(id(1, 6)).await.expect("a healthy disk");
    damage(6);
    let error = opened(&log).await.expect_err("nothing stands for what is gone");
    assert!(matches!(error, crate::StorageError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_checkpoint_that_finds_no_space_is_installed_once_there_is_some() {
    let disk = SimDisk::new();
    let writers = WriterPool::start(1).expect("a thread");
    let log = Log::open(disk.shared(), Path::new("/log"), options(), &writers).expect("a new log");
    let kept = Kept::default();
    let mut machine = machine(&log, &writers, &kept).await.expect("it opens");
    let voters = Membership::new_with_defaults(vec![BTreeSet::from([replica(1)])], []);
    let members = RaftMembership::new(Some(raft_log_id(id(1, 0))), voters);
    let last = Some(raft_log_id(id(1, 7)));
    let meta = RaftSnapshotMeta { last_log_id: last, last_membership: members };
    let state = log.received(id(1, 7), b"sent", 3).expect("there is space");
    let (ops, path) = (Ops::Kind(OpKind::Rename), String::new());
    disk.inject(Rule { ops, path, when: When::Nth(0), fault: Fault::NoSpace });
    let sent = Checkpoint { state: Some(state) };
    machine.install_snapshot(&meta, sent).await.expect("there is space the second time");
    assert_eq!(disk.counts().faults(FaultKind::NoSpace), 1);
    assert_eq!(kept.seen(), b"sent");
    assert_eq!(log.watermarks().begin, 8);
}

/// Reads the first byte of its state.
struct ReadsLittle;

impl StateMachine for ReadsLittle {
    fn apply(&mut self, _record: &Record) -> Result<Bytes, ApplyError> {
        Ok(Bytes::new())
    }

    fn checkpoint(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"little")
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        from.read_exact(&mut [0])
    }
}

#[tokio::test]
async fn a_damaged_checkpoint_is_not_installed_however_little_of_it_is_read() {
    let disk = SimDisk::new();
    let writers = WriterPool::start(1).expect("a thread");
    let log = Log::open(disk.shared(), Path::new("/log"), options(), &writers).expect("a new log");
    let saver = Saver::new(log.clone(), &writers);
    let metrics = Arc::new(GroupMetrics::new(&LogName::system()));
    let user = Some(Box::new(ReadsLittle) as Box<dyn StateMachine>);
    let opened = LogStateMachine::open(saver, user, Arc::default(), Arc::default(), metrics).await;
    let mut machine = opened.expect("it opens");
    let voters = Membership::new_with_defaults(vec![BTreeSet::from([replica(1)])], []);
    let last_membership = RaftMembership::new(Some(raft_log_id(id(1, 0))), voters);
    let last_log_id = Some(raft_log_id(id(1, 7)));
    let meta = RaftSnapshotMeta { last_log_id, last_membership };
    let state = log.received(id(1, 7), b"sent", 3).expect("there is space");
    let mut paths = disk.contents().into_keys();
    let sent = paths.find(|path| path.extension().is_some_and(|end| end == "tmp"));
    disk.tamper(&sent.expect("not installed yet"), |bytes| *bytes.last_mut().expect("state") ^= 1);
    let sent = Checkpoint { state: Some(state) };
    let error = machine.install_snapshot(&meta, sent).await.expect_err("it is damaged");
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(log.purged(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_applied_while_a_checkpoint_waits_for_the_disk() {
    let disk = SimDisk::new();
    let writers = WriterPool::start(1).expect("a thread");
    let small = LogOptions { segment_size: 8 << 10, ..options() };
    let log = Log::open(disk.shared(), Path::new("/log"), small, &writers).expect("a new log");
    let kept = Kept::default();
    let mut machine = machine(&log, &writers, &kept).await.expect("it opens");
    let mut end = 0;
    let mut entries = Vec::new();
    while log.active_base() == 0 {
        entries.push(record(id(1, end), Batch::SINGLE));
        append(&log, entries[entries.len() - 1..].to_vec()).await;
        end += 1;
    }
    let last = id(1, end - 1);
    log.set_committed(last).expect("readable");
    disk.hold_flushes(true);
    let (sender, mut applied) = tokio::sync::oneshot::channel();
    let applying = tokio::spawn(async move {
        let items = entries.into_iter().map(|entry| Ok((entry, None)));
        machine.apply(stream::iter(items)).await.expect("applied");
        // A second one is not begun before the first is done.
        machine.apply(stream::empty()).await.expect("applied");
        let _ = sender.send(());
        machine
    });
    while disk.counts().faults(FaultKind::HeldFlush) == 0 {
        std::thread::yield_now();
    }
    let in_time = tokio::time::timeout(Duration::from_secs(5), &mut applied).await;
    assert_eq!(log.checkpoints(), [], "it counts once it is durable");
    disk.hold_flushes(false);
    in_time.expect("nothing applied waits for the disk").expect("it was applied");
    while log.checkpoints().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.checkpoints(), [last]);
    assert_eq!(log.load_state(last).expect("it is sound").len() as u64, end);
    drop(applying.await.expect("no panic"));
}

/// Notes which thread restores it.
struct Placed(Arc<Mutex<Vec<String>>>);

impl StateMachine for Placed {
    fn apply(&mut self, _record: &Record) -> Result<Bytes, ApplyError> {
        Ok(Bytes::new())
    }

    fn checkpoint(&self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        io::copy(from, &mut io::sink())?;
        let here = std::thread::current().name().unwrap_or_default().to_owned();
        self.0.lock().expect("no panic").push(here);
        Ok(())
    }
}

#[tokio::test]
async fn whole_checkpoints_are_read_once_and_on_the_thread_that_saves_them() {
    let disk = SimDisk::new();
    let writers = WriterPool::start(1).expect("a thread");
    let log = Log::open(disk.shared(), Path::new("/log"), options(), &writers).expect("a new log");
    append(&log, (0..9).map(|index| record(id(1, index), Batch::SINGLE)).collect()).await;
    log.set_committed(id(1, 8)).expect("readable");
    log.save_state(id(1, 6), &[7; 1 << 20]).expect("a healthy disk");
    log.purge(id(1, 6)).await.expect("a healthy disk");
    let places = Arc::new(Mutex::new(Vec::new()));
    let metrics = Arc::new(GroupMetrics::new(&LogName::system()));
    let saver = Saver::new(log.clone(), &writers);
    let machine = Some(Box::new(Placed(places.clone())) as Box<dyn StateMachine>);
    let opened =
        LogStateMachine::open(saver, machine, Arc::default(), Arc::default(), metrics).await;
    let mut machine = opened.expect("it is sound");
    let reads = || disk.counts().operations(OpKind::Read);
    let before = reads();
    for _ in 0..3 {
        let current = machine.get_current_snapshot().await.expect("it is sound").expect("one");
        assert!(current.snapshot.state.is_some());
        let built = machine.get_snapshot_builder().await.build_snapshot().await;
        assert!(built.expect("it is sound").snapshot.state.is_some());
    }
    assert!(reads() - before <= 6, "more than its head: {}", reads() - before);
    let state = log.received(id(2, 20), b"sent", 3).expect("there is space");
    let voters = Membership::new_with_defaults(vec![BTreeSet::from([replica(1)])], []);
    let members = RaftMembership::new(Some(raft_log_id(id(1, 0))), voters);
    let last = Some(raft_log_id(id(2, 20)));
    let meta = RaftSnapshotMeta { last_log_id: last, last_membership: members };
    let sent = Checkpoint { state: Some(state) };
    machine.install_snapshot(&meta, sent).await.expect("there is space");
    let places = places.lock().expect("no panic");
    assert_eq!(*places, ["quorumlog-checkpoints", "quorumlog-checkpoints"]);
}

#[tokio::test]
async fn a_checkpoint_is_saved_only_with_the_entries_that_it_is_made_of() {
    let disk = SimDisk::new();
    let writers = WriterPool::start(1).expect("a thread");
    let flush_interval = Duration::from_secs(1000);
    let options = LogOptions { flush: Flush::Async, flush_interval, ..options() };
    let open =
        |disk: &SimDisk| Log::open(disk.shared(), Path::new("/log"), options.clone(), &writers);
    let log = open(&disk).expect("new");
    let kept = Kept::default();
    let mut machine = machine(&log, &writers, &kept).await.expect("new");
    let first = record(id(1, 0), Batch::SINGLE);
    append(&log, vec![first.clone()]).await;
    let applied = stream::iter([Ok((first, None))]);
    machine.apply(applied).await.expect("a healthy disk");
    let saver = Saver::new(log.clone(), &writers);
    let turn = saver.turn().await;
    let saving = machine.checkpoint(turn).expect("a healthy disk").expect("there is a state");
    saving.saved().await.expect("a healthy disk");
    let log = open(&disk.crash(&CrashPolicy::LoseAll)).expect("it opens");
    assert_eq!(log.last_id(), Some(id(1, 0)), "it is in the checkpoint");
    assert_eq!(log.checkpoints(), [id(1, 0)]);
}
