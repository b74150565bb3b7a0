//! The registry of topics, and logs that follow it.

use super::super::topics::follow::{Follow, TOPICS_OF_RECORD};
use super::super::topics::registry::{DECISIONS_MAX, Decision, HOME_LOG};
use super::*;
use crate::limits::DELETED_NAMES_MAX;

fn config(queues: u32) -> TopicConfig {
    TopicConfig::with_queues(queues)
}

fn ensure(name: &str, seen: u64) -> Change {
    Change::Decide(Decision::Ensure { name: name.to_owned(), config: config(1), seen })
}

fn put(name: &str, log: u32, queues: u32) -> Change {
    Change::Decide(Decision::Put { name: name.to_owned(), log, config: config(queues) })
}

fn delete(name: &str) -> Change {
    Change::Decide(Decision::Delete { name: name.to_owned() })
}

/// The home log and log 1.
struct Logs {
    home: Log,
    other: Log,
}

impl Logs {
    fn new() -> Self {
        Self { home: Log::new(), other: Log::new() }
    }

    #[track_caller]
    fn decide(&mut self, change: Change) -> u64 {
        match self.home.change(change) {
            Answer::Decided { version } => version,
            other => panic!("{other:?}"),
        }
    }

    fn next(&self) -> Option<Follow> {
        self.other.shared.next_follow(&self.home.shared, 1)
    }

    /// Log 1 follows to the end; returns the number of records that took.
    fn follow(&mut self) -> usize {
        let mut records = 0;
        while let Some(follow) = self.next() {
            assert_eq!(self.other.change(Change::Follow(follow)), Answer::Done);
            records += 1;
            assert!(records < 1000, "it follows without end");
        }
        records
    }

    /// Has log 1's own topics taken over.
    fn adopt(&mut self, log: u32) {
        let of = if log == HOME_LOG { &self.home } else { &self.other };
        let topics = of.shared.state().unadopted();
        self.decide(Change::Decide(Decision::Adopt { log, topics }));
    }
}

impl Log {
    fn has(&self, topic: &str) -> bool {
        self.shared.state().topic(topic).is_some()
    }

    fn send(&mut self, topic: &str) -> Answer {
        self.apply(messages(&[message(topic, 0)]))
    }

    fn note(&mut self, topic: &str, offset: u64) {
        let (group, topic) = ("g".to_owned(), topic.to_owned());
        let since = self.shared.state().topic_since(&topic).unwrap_or(0);
        let reported = ReportedOffset { group, topic, queue: 0, offset, since };
        self.change(Change::ReportedOffsets(vec![reported]));
    }

    fn lock(&mut self, topic: &str, client: &str) -> usize {
        let queues = vec![(topic.to_owned(), 0)];
        let request = LockRequest { group: "g".to_owned(), client: client.to_owned(), queues };
        match self.change(Change::Lock { request, now_ms: 0 }) {
            Answer::Locked(queues) => queues.len(),
            other => panic!("{other:?}"),
        }
    }
}

fn no_topic(name: &str) -> Answer {
    Answer::Refused(Refusal::NoTopic(name.to_owned()))
}

fn keyed(topic: &str, key: &str) -> Bytes {
    let properties = format!("UNIQ_KEY\u{1}{key}\u{2}");
    record(&[Message { properties, ..message(topic, 0) }], true)
}

#[test]
fn a_topic_begins_and_ends_in_a_log_as_the_home_log_decides() {
    let mut logs = Logs::new();
    let made = logs.decide(ensure("T", 0));
    assert!(logs.home.has("T") && !logs.other.has("T"));
    assert_eq!(logs.other.send("T"), no_topic("T"), "it has not followed yet");
    assert_eq!(logs.follow(), 1);
    assert_eq!(logs.other.shared.state().followed(), made);
    assert!(matches!(logs.other.send("T"), Answer::Stored(_)));
    assert_eq!(logs.decide(ensure("T", made)), made, "it is there");
    assert_eq!(logs.next(), None, "there is nothing to follow");
    let deleted = logs.decide(delete("T"));
    assert!(!logs.home.has("T") && logs.other.has("T"));
    assert_eq!(logs.follow(), 1);
    assert_eq!(logs.other.send("T"), no_topic("T"));
    assert_eq!(*logs.other.shared.followed.borrow(), deleted);
    assert!(logs.decide(delete("T")) > deleted, "there may be one that is not known yet");
    assert_eq!(logs.follow(), 1);
}

/// Before, other nodes passed requests on to where it had been.
#[test]
fn a_leader_that_leads_again_at_another_address_is_told_to_those_who_watch() {
    let mut log = Log::new();
    let lead = |addr: &str| Change::Lead { node: 1, addr: addr.to_owned() };
    log.change(lead("127.0.0.1:1"));
    let mut changed = log.shared.changed.subscribe();
    log.change(lead("127.0.0.1:1"));
    assert!(!changed.has_changed().expect("the state lives"));
    log.change(lead("127.0.0.1:2"));
    assert!(changed.has_changed().expect("the state lives"));
    changed.mark_unchanged();
}

#[test]
fn settings_that_were_given_to_one_log_are_that_logs() {
    let mut logs = Logs::new();
    logs.decide(put("T", 0, 2));
    logs.decide(put("T", 1, 5));
    logs.follow();
    let queues = |log: &Log| log.shared.state().topic("T").map(|topic| topic.config.queues());
    assert_eq!((queues(&logs.home), queues(&logs.other)), (Some(2), Some(5)));
    logs.decide(put("T", 1, 2));
    logs.follow();
    assert_eq!((queues(&logs.home), queues(&logs.other)), (Some(2), Some(2)));
}

#[test]
fn a_late_record_of_an_earlier_leader_brings_no_topic_back() {
    let mut logs = Logs::new();
    logs.decide(ensure("T", 0));
    let late = logs.next().expect("a topic to make");
    logs.follow();
    logs.decide(delete("T"));
    logs.follow();
    let state = logs.other.shared.state().clone();
    assert_eq!(logs.other.change(Change::Follow(late)), Answer::Done);
    assert_eq!(*logs.other.shared.state(), state);
    assert!(!logs.other.has("T"));
}

#[test]
fn a_leader_whose_registry_lies_behind_proposes_nothing() {
    let mut logs = Logs::new();
    logs.decide(ensure("T", 0));
    let behind = logs.home.shared.state().clone();
    logs.decide(delete("T"));
    logs.follow();
    logs.home.shared.change(|state| *state = behind);
    assert_eq!(logs.next(), None);
}

#[test]
fn a_send_that_was_made_before_a_topic_was_deleted_does_not_make_it_again() {
    let mut logs = Logs::new();
    let made = logs.decide(ensure("T", 0));
    let deleted = logs.decide(delete("T"));
    assert_eq!(logs.home.change(ensure("T", made)), no_topic("T"));
    assert!(!logs.home.has("T"));
    let again = logs.decide(ensure("T", deleted));
    assert!(again > deleted && logs.home.has("T"));
    // What is not remembered may have been a deletion of this topic.
    for n in 0..DECISIONS_MAX {
        logs.decide(put(&format!("other {n}"), 0, 1));
    }
    assert_eq!(logs.home.change(ensure("U", deleted)), no_topic("U"));
    logs.decide(ensure("U", again));
}

#[test]
fn a_topic_that_is_made_again_has_nothing_of_the_one_that_was_deleted() {
    for follows_between in [true, false] {
        let mut logs = Logs::new();
        let made = logs.decide(ensure("T", 0));
        logs.decide(ensure("U", 0));
        logs.follow();
        for of in [&mut logs.home, &mut logs.other] {
            for topic in ["T", "U"] {
                for key in ["k", "l"] {
                    assert!(matches!(of.apply(keyed(topic, key)), Answer::Stored(_)));
                }
                of.note(topic, 2);
                assert_eq!(of.lock(topic, "a"), 1);
            }
        }
        let deleted = logs.decide(delete("T"));
        if follows_between {
            logs.follow();
        }
        assert!(logs.decide(ensure("T", deleted)) > made);
        logs.follow();
        for of in [&mut logs.home, &mut logs.other] {
            {
                let state = of.shared.state();
                let left = |topic| state.queue(topic, 0).map(|queue| (queue.min(), queue.max()));
                assert_eq!((left("T"), left("U")), (None, Some((0, 2))));
                assert_eq!((state.offset("g", "T", 0), state.offset("g", "U", 0)), (None, Some(2)));
            }
            let offsets = |answer| match answer {
                Answer::Stored(placed) => placed[0].offset,
                other => panic!("{other:?}"),
            };
            assert_eq!(offsets(of.apply(keyed("T", "l"))), 0, "its key is not remembered");
            assert_eq!(offsets(of.apply(keyed("U", "l"))), 1, "the other topic's key is");
            assert_eq!((of.lock("T", "b"), of.lock("U", "b")), (1, 0), "only its locks are gone");
        }
    }
}

#[test]
fn keys_of_delayed_messages_are_forgotten_with_the_topic_that_they_were_sent_to() {
    let mut logs = Logs::new();
    logs.decide(ensure("T", 0));
    logs.decide(ensure("U", 0));
    let delayed = |topic: &str| {
        let properties =
            format!("UNIQ_KEY\u{1}k\u{2}REAL_TOPIC\u{1}{topic}\u{2}REAL_QID\u{1}0\u{2}");
        record(&[Message { properties, ..message(DELAY_TOPIC, 2) }], true)
    };
    let home = &mut logs.home;
    assert_eq!(home.offsets(delayed("T")), [0]);
    assert_eq!(home.offsets(delayed("U")), [1], "it is another topic's");
    assert_eq!(home.offsets(delayed("T")), [0], "it is there");
    logs.decide(delete("T"));
    assert_eq!(logs.home.offsets(delayed("T")), [2]);
    assert_eq!(logs.home.offsets(delayed("U")), [1]);
}

#[test]
fn what_consumers_report_of_a_topic_that_is_gone_is_not_stored() {
    let mut logs = Logs::new();
    logs.decide(ensure("T", 0));
    logs.follow();
    logs.other.note("T", 7);
    assert_eq!(logs.other.shared.state().offset("g", "T", 0), Some(7));
    let deleted = logs.decide(delete("T"));
    logs.follow();
    logs.other.note("T", 7);
    logs.decide(ensure("T", deleted));
    logs.follow();
    assert_eq!(logs.other.shared.state().offset("g", "T", 0), None);
    // A group may report of its retry topic before the first message is there.
    logs.other.note("%RETRY%g", 1);
    assert_eq!(logs.other.shared.state().offset("g", "%RETRY%g", 0), Some(1));
}

#[test]
fn a_log_that_has_missed_more_than_is_remembered_compares_everything_record_by_record() {
    let mut logs = Logs::new();
    logs.decide(ensure("gone", 0));
    logs.decide(ensure("again", 0));
    logs.decide(ensure("same", 0));
    logs.follow();
    for topic in ["gone", "again", "same"] {
        logs.other.send(topic);
    }
    logs.other.change(Change::EnsureTopic { name: "%RETRY%g".to_owned(), config: config(1) });
    logs.decide(delete("gone"));
    let deleted = logs.decide(delete("again"));
    logs.decide(ensure("again", deleted));
    let before = logs.other.shared.state().followed();
    let many = TOPICS_OF_RECORD * 2 + 5;
    assert!(many > DECISIONS_MAX);
    for n in 0..many {
        logs.decide(put(&format!("T{n}"), 0, 1));
    }
    let first = logs.next().expect("much to follow");
    logs.other.change(Change::Follow(first));
    assert_eq!(logs.other.shared.state().followed(), before, "nobody takes it for done");
    assert_eq!(logs.follow(), 2);
    let state = logs.other.shared.state();
    assert_eq!(state.followed(), logs.home.shared.state().registry().version());
    assert!(state.topic("gone").is_none() && state.topic("%RETRY%g").is_some());
    assert!((0..many).all(|n| state.topic(&format!("T{n}")).is_some()));
    let messages = |topic| state.queue(topic, 0).map_or(0, |queue| queue.max());
    assert_eq!((messages("again"), messages("same")), (0, 1));
}

#[test]
fn topics_from_before_there_was_a_registry_are_taken_over_with_their_messages() {
    let mut logs = Logs::new();
    logs.home.topic("T", 2);
    logs.other.topic("T", 3);
    logs.other.topic("U", 1);
    logs.other.topic("gone", 1);
    logs.other.topic("%RETRY%g", 1);
    for topic in ["T", "U", "gone"] {
        logs.other.send(topic);
    }
    // The home log has it, and need not be told; of `gone` another log told, and it was deleted.
    logs.decide(ensure("T", 0));
    logs.decide(put("gone", 2, 1));
    logs.decide(delete("gone"));
    logs.adopt(1);
    logs.follow();
    assert!(logs.other.shared.state().unadopted().is_empty());
    let state = logs.other.shared.state();
    let messages = |topic| state.queue(topic, 0).map_or(0, |queue| queue.max());
    assert_eq!((messages("T"), messages("U")), (1, 1));
    assert_eq!(state.topic("T").map(|topic| topic.config), Some(config(3)));
    assert!(state.topic("gone").is_none() && state.topic("%RETRY%g").is_some());
    let home = logs.home.shared.state();
    assert_eq!(home.topic("T").map(|topic| topic.config), Some(config(2)));
    assert!(home.topic("U").is_some() && home.topic("%RETRY%g").is_none());
    assert!(home.unadopted().is_empty());
}

/// Before, it was noted: the group then began in the new topic where it had been in the old one.
#[test]
fn what_was_reported_of_a_topic_is_not_noted_for_the_next_one_of_its_name() {
    let mut logs = Logs::new();
    logs.decide(ensure("T", 0));
    logs.follow();
    let since = logs.other.shared.state().topic_since("T").expect("it was made");
    let report = |since| {
        let (group, topic) = ("g".to_owned(), "T".to_owned());
        Change::ReportedOffsets(vec![ReportedOffset { group, topic, queue: 0, offset: 7, since }])
    };
    // Deleted and made again, and followed in one record: nobody sees it gone.
    let deleted = logs.decide(delete("T"));
    logs.decide(ensure("T", deleted));
    assert_eq!(logs.follow(), 1);
    let refused = Answer::OffsetsRefused(vec![(0, Refusal::NoTopic("T".to_owned()))]);
    assert_eq!(logs.other.change(report(since)), refused);
    assert_eq!(logs.other.shared.state().offset("g", "T", 0), None);
    let since = logs.other.shared.state().topic_since("T").expect("it was made");
    assert_eq!(logs.other.change(report(since)), Answer::Done);
    assert_eq!(logs.other.shared.state().offset("g", "T", 0), Some(7));
}

/// Before, such a deletion left no trace, and the topic came back with the log that reported it.
#[test]
fn a_topic_that_was_deleted_before_any_log_reported_it_does_not_come_back() {
    let mut logs = Logs::new();
    logs.other.topic("T", 1);
    logs.other.send("T");
    logs.decide(delete("T"));
    // It is remembered for longer than decisions are.
    for n in 0..DECISIONS_MAX * 2 {
        logs.decide(put(&format!("other{n}"), 0, 1));
    }
    logs.adopt(1);
    logs.follow();
    assert!(!logs.home.has("T") && !logs.other.has("T"));
}

#[test]
fn deletions_are_remembered_until_all_logs_have_reported_and_refused_once_there_are_too_many() {
    let mut logs = Logs::new();
    let reported = |log| Change::Decide(Decision::Adopted { log, logs: 2 });
    for n in 0..DELETED_NAMES_MAX {
        logs.decide(delete(&format!("T{n}")));
    }
    let full = logs.home.change(delete("one more"));
    assert!(matches!(full, Answer::Refused(Refusal::Full(_))), "{full:?}");
    logs.decide(delete("T1"));
    logs.other.topic("T0", 1);
    logs.adopt(1);
    logs.follow();
    assert!(!logs.home.has("T0") && !logs.other.has("T0"), "the oldest is remembered");
    for (log, all) in [(0, false), (0, false), (7, false), (1, true)] {
        logs.decide(reported(log));
        assert_eq!(logs.home.shared.state().registry().has_adopted_all(), all);
    }
    logs.decide(delete("one more"));
    logs.decide(reported(0));
    assert!(logs.home.shared.state().registry().has_adopted_all());
}

#[test]
fn the_settings_of_single_logs_and_what_one_record_may_hold_are_bounded() {
    let mut logs = Logs::new();
    let many = (0..1025).map(|n| (format!("T{n}"), None)).collect::<Vec<_>>();
    let before = logs.other.shared.state().clone();
    logs.other.change(Change::Follow(Follow { from: 0, to: 9, topics: many }));
    assert_eq!(*logs.other.shared.state(), before);
    let many = (0..1025).map(|n| (format!("T{n}"), config(1))).collect();
    let answer = logs.home.change(Change::Decide(Decision::Adopt { log: 1, topics: many }));
    assert!(matches!(answer, Answer::Refused(Refusal::TooLarge(_))), "{answer:?}");
    let long = delete(&"n".repeat(300));
    assert!(matches!(logs.home.change(long), Answer::Refused(Refusal::TooLarge(_))));
}

#[test]
fn the_registry_is_part_of_the_checkpoint() {
    let mut logs = Logs::new();
    logs.decide(put("T", 0, 2));
    logs.decide(put("T", 1, 3));
    logs.decide(delete("T"));
    logs.decide(ensure("U", u64::MAX));
    logs.follow();
    for log in [&logs.home, &logs.other] {
        let bytes = log.checkpoint();
        let mut restored = Log::on(log.disk.clone());
        restored.machine.restore(&mut &bytes[..]).expect("our own bytes");
        assert_eq!(*restored.shared.state(), *log.shared.state());
        assert_eq!(*restored.shared.followed.borrow(), log.shared.state().followed());
    }
}
