//! Logs that go back to what a majority has flushed, since the cluster has lost what came after.

use std::io::{Read, Write};
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::*;
use crate::error::{AppendError, Outcome, ReadError};
use crate::format::entry::EntryId;
use crate::raft::Conflict;
use crate::record::{Record, Start};
use crate::state_machine::{ApplyError, StateMachine};

/// Machines that were made, and those of them that live.
#[derive(Clone, Default)]
struct Made(Arc<(AtomicUsize, AtomicUsize)>);

impl Made {
    fn counts(&self) -> (usize, usize) {
        (self.0.0.load(Ordering::SeqCst), self.0.1.load(Ordering::SeqCst))
    }

    fn machine(&self) -> Box<dyn StateMachine> {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        self.0.1.fetch_add(1, Ordering::SeqCst);
        Box::new(Machine { made: self.clone(), applied: 0 })
    }
}

struct Machine {
    made: Made,
    applied: u64,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.made.0.1.fetch_sub(1, Ordering::SeqCst);
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, _: &Record) -> Result<Bytes, ApplyError> {
        self.applied += 1;
        Ok(Bytes::copy_from_slice(&self.applied.to_le_bytes()))
    }

    fn checkpoint(&self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&self.applied.to_le_bytes())
    }

    fn restore(&mut self, from: &mut dyn Read) -> std::io::Result<()> {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        self.applied = u64::from_le_bytes(bytes);
        Ok(())
    }
}

/// A node that is the only member, with a log that feeds a machine.
struct One {
    running: Running,
    log: CommitLog,
    made: Made,
}

impl One {
    fn with_records(count: u64) -> Self {
        let made = Made::default();
        let machines = made.clone();
        let is_orders = |name: &LogName| name.as_str() == "orders";
        let build = |builder: NodeBuilder| {
            builder.state_machines(move |name| is_orders(name).then(|| machines.machine()))
        };
        let transport = MemoryTransport::default();
        let running = Running::try_build(&transport, &SimDisk::new(), 1, |_| {}, build);
        let running = running.expect("the node opens");
        running.bootstrap(vec![running.node.member()]);
        let log = running.run(running.node.create_log(&name("orders"))).expect("it leads");
        let one = Self { running, log, made };
        (0..count).for_each(|number| one.append(number));
        one
    }

    fn append(&self, number: u64) {
        let record = format!("record {number}").into_bytes();
        self.running.run(self.log.append(record)).expect("it leads");
    }

    fn group(&self) -> Option<Arc<Group>> {
        self.running.node.inner.group_named("orders")
    }

    /// As if a leader had another entry at the last index.
    fn contradict(&self, stable: u64) {
        let group = self.group().expect("it is open");
        let held = group.log.last_id().expect("it holds entries");
        let leaders = EntryId { term: held.term + 1, ..held };
        let conflict = Conflict { held, leaders, committed: held, stable };
        let _on_its_threads = self.running.runtime.enter();
        self.running.node.inner.clone().begin_rewind(group, &conflict);
    }

    fn until_open(&self) {
        self.running.until("the log to be open again", || self.group().map(drop));
    }
}

#[test]
fn handles_of_a_log_that_goes_back_go_on_with_it_when_it_is_open_again() {
    let one = One::with_records(5);
    let begin = one.log.watermarks().begin;
    let mut statuses = one.log.watch_status();
    one.contradict(begin + 2);
    let applied = |one: &One| one.log.status().applied;
    one.running.until("its records to be applied", || {
        (one.group().is_some() && applied(&one) > begin + 5).then_some(())
    });
    let records = one.running.run(one.log.read(begin, 1 << 20)).expect("it is open");
    assert_eq!(records.len(), 5, "nobody led with another history");
    one.running.until("it to lead", || (one.log.status().role == Role::Leader).then_some(()));
    one.append(5);
    let status = one.log.status();
    assert_eq!(status.rewinds, 1);
    assert!(status.lost_records_max >= 3, "{status:?}");
    let current = |statuses: &StatusWatch| statuses.current().rewinds;
    one.running.run(async {
        // What was under way before may come first.
        while current(&statuses) == 0 || statuses.current().role != Role::Leader {
            statuses.changed().await.expect("the log is not closed");
        }
    });
}

#[test]
fn subscriptions_end_with_the_index_from_which_records_may_be_others() {
    let one = One::with_records(5);
    let begin = one.log.watermarks().begin;
    let mut waiting = one.log.subscribe(Start::Begin);
    one.running.run(async {
        for _ in 0..5 {
            waiting.next().await.expect("a record").expect("it is committed");
        }
    });
    one.contradict(begin + 2);
    let end = one.running.run(waiting.next()).expect("it does not just end");
    assert!(matches!(end, Err(ReadError::Rewound { to }) if to == begin + 2), "{end:?}");
    assert!(one.running.run(waiting.next()).is_none(), "it has ended");
    one.until_open();
    let mut again = one.log.subscribe(Start::At(begin + 2));
    let first = one.running.run(again.next()).expect("a record").expect("it is committed");
    assert!(first.index >= begin + 2);
}

#[test]
fn an_append_whose_fate_is_open_is_told_that_it_is_not_known() {
    let one = One::with_records(1);
    let tickets: Vec<Ticket> = one.running.run(async {
        let mut tickets = Vec::new();
        for number in 0..200 {
            tickets.push(one.log.submit(format!("open {number}")).await.expect("it leads"));
        }
        tickets
    });
    one.contradict(one.log.watermarks().committed);
    for ticket in tickets {
        if let Err(error) = one.running.run(ticket) {
            assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        }
    }
    // What comes in between is refused for sure.
    let refused = one.running.run(one.log.submit("later"));
    if let Err(error) = refused {
        assert!(matches!(error, AppendError::NotLeader { .. }), "{error}");
        assert!(error.is_retryable());
    }
}

#[test]
fn who_got_a_record_that_is_lost_is_told_where_to_go_on() {
    let one = One::with_records(5);
    let records = one.running.run(one.log.read(0, 1 << 20)).expect("it is open");
    let last = records.last().expect("five");
    let (term, index) = (last.term, last.index);
    let follow = |term, index| {
        let behind = Some(EntryId { term, index });
        one.log.subscribe(Start::At(index + 1)).behind(behind)
    };
    // As another node gave it, before that one's leader was overruled.
    let mut lost = follow(term - 1, index);
    let told = one.running.run(lost.next()).expect("it does not just end");
    assert!(matches!(told, Err(ReadError::Rewound { to }) if to <= index), "{told:?}");
    // It has not come so far, and yet it will not be there.
    let told = one.running.run(follow(term - 1, index + 100).next());
    assert!(matches!(told, Some(Err(ReadError::Rewound { .. }))), "{told:?}");
    let mut same = follow(term, index);
    one.append(6);
    let next = one.running.run(same.next()).expect("a record").expect("it is committed");
    assert_eq!(next.index, index + 1);
}

#[test]
fn a_read_barrier_does_not_hold_for_a_node_with_other_records_than_the_leader() {
    let one = One::with_records(2);
    let group = one.group().expect("it is open");
    let last = group.log.committed().expect("two records");
    let leaders = EntryId { term: last.term + 1, ..last };
    let waits = one.running.run(async {
        let reached = commit_log::reached(&group, leaders);
        tokio::time::timeout(Duration::from_millis(50), reached).await
    });
    assert!(waits.is_err(), "{waits:?}");
    let reached = one.running.run(commit_log::reached(&group, last));
    assert!(reached, "this one it has");
    // Once the log goes back, those who wait go on with what it is then.
    let waits = commit_log::reached(&group, leaders);
    one.contradict(last.index);
    assert!(!one.running.run(waits), "it has stopped");
}

#[test]
fn nothing_of_a_group_is_left_once_its_log_is_open_again() {
    let one = One::with_records(3);
    let old: Weak<Group> = Arc::downgrade(&one.group().expect("it is open"));
    let log = one.group().expect("it is open").log.clone();
    let crash = Arc::downgrade(&one.group().expect("it is open").apply);
    assert_eq!(one.made.counts(), (1, 1));
    one.contradict(one.log.watermarks().begin + 1);
    one.until_open();
    one.running.until("the old machine to be gone", || (one.made.counts() == (2, 1)).then_some(()));
    one.running.until("the old group to be gone", || old.upgrade().is_none().then_some(()));
    one.running.until("its tasks to have ended", || crash.upgrade().is_none().then_some(()));
    let closed = one.running.run(log.close());
    assert!(closed.is_err(), "it was closed before");
}

#[test]
fn a_log_goes_back_once_however_many_requests_contradict_it() {
    let one = One::with_records(3);
    let group = one.group().expect("it is open");
    let held = group.log.last_id().expect("it holds entries");
    let conflict = Conflict { held, leaders: held, committed: held, stable: 1 };
    let on_its_threads = one.running.runtime.enter();
    for _ in 0..3 {
        one.running.node.inner.clone().begin_rewind(group.clone(), &conflict);
    }
    drop((group, on_its_threads));
    one.until_open();
    assert_eq!(one.log.status().rewinds, 1);
    assert_eq!(one.made.counts().0, 2);
}

#[test]
fn who_read_what_a_boundary_has_replaced_unseen_is_told_so() {
    let one = One::with_records(5);
    let records = one.running.run(one.log.read(0, 1 << 20)).expect("it is open");
    let last = records.last().expect("five");
    let group = one.group().expect("it is open");
    let follow = |start| one.log.subscribe(start);
    let mut all = follow(Start::Begin);
    let few = follow(Start::At(last.index - 3));
    one.running.run(async {
        for _ in 0..5 {
            all.next().await.expect("a record").expect("it is committed");
        }
    });
    group.doubt(last.index - 1..last.index + 1);
    let boundary = EntryId { term: last.term + 1, index: last.index + 10 };
    one.running.run(group.log.install(boundary, None)).expect("a healthy disk");
    let told = |mut following: Subscription| one.running.run(following.next());
    let end = told(all).expect("it does not just end");
    assert!(matches!(end, Err(ReadError::Rewound { to }) if to == last.index - 1), "{end:?}");
    let end = told(few).expect("it does not just end");
    assert!(matches!(end, Err(ReadError::Trimmed { .. })), "it has seen none of them: {end:?}");
}
