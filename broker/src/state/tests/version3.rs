//! A checkpoint that a build with version 3 wrote.

use super::super::topics::registry::Decision;
use super::*;

/// What that build made of: topics `T`, `U` and `old`, one that was deleted; 600 messages with keys, one of them delayed;
/// offsets and a lock.
const BYTES: &[u8] = include_bytes!("../../../tests/golden/state/state-version-3");

#[test]
fn a_checkpoint_of_version_3_is_taken_over() {
    let mut log = Log::new();
    log.machine.restore(&mut &*BYTES).expect("an older checkpoint");
    log.index = 614;
    assert_eq!(log.shared.state().rules(), Rules::Version3);
    // Under those rules, deleting a topic that is not known left no note.
    let delete = |name: &str| Change::Decide(Decision::Delete { name: name.to_owned() });
    let version = log.shared.state().registry().version();
    assert_eq!(log.change(delete("unknown")), Answer::Decided { version });
    log.change(Change::Rules { version: Rules::NEWEST.version() });
    assert_eq!(log.change(delete("unknown")), Answer::Decided { version: log.index - 1 });
    {
        let state = log.shared.state();
        assert_eq!((state.leader(), state.address(2)), (2, Some("127.0.0.1:10911")));
        let topics: Vec<_> = state.topics().map(|(name, _)| name).collect();
        assert_eq!(topics, ["%RETRY%g", DELAY_TOPIC, "T", "U", "old"]);
        assert_eq!(state.queue("T", 0).map(|queue| queue.max()), Some(151));
        assert_eq!(state.registry().get("U").map(|topic| topic.config(1).queues()), Some(3));
        assert_eq!((state.offset("g", "T", 0), state.delivered(3)), (Some(7), 1));
        let since = |topic| state.topic_since(topic);
        assert_eq!(
            (since("T"), since("%RETRY%g")),
            (Some(0), Some(0)),
            "as from an older checkpoint"
        );
        assert_eq!(state.unadopted().len(), 1, "of `old` no registry knows");
    }
    let properties = "UNIQ_KEY\u{1}key-599\u{2}".to_owned();
    let again = record(&[Message { properties, ..message("T", 1) }], true);
    assert_eq!(log.offsets(again), [149], "its key is remembered");
    let request = LockRequest {
        group: "g".to_owned(),
        client: "another".to_owned(),
        queues: vec![("T".to_owned(), 0), ("T".to_owned(), 1)],
    };
    let held = Answer::Locked(vec![("T".to_owned(), 0)]);
    assert_eq!(log.change(Change::Lock { request, now_ms: 1_001 }), held);
    let bytes = log.checkpoint();
    let mut other = Log::on(log.disk.clone());
    other.machine.restore(&mut &bytes[..]).expect("our own bytes");
    assert_eq!(*other.shared.state(), *log.shared.state());
}
