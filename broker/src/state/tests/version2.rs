//! A checkpoint that a build with version 2 wrote, with names beyond every limit among the rest.

use super::*;
use crate::limits::{ADDR_BYTES_MAX, CLIENT_BYTES_MAX, GROUP_BYTES_MAX, STORED_TOPIC_BYTES_MAX};

/// What that build made of: topics `T` and one of 300 bytes; 600 messages with keys, 2 delayed ones of which one was
/// delivered; offsets and locks of groups and clients with short names and with names of 300 bytes.
const BYTES: &[u8] = include_bytes!("../../../tests/golden/state/state-version-2");

fn restored() -> Log {
    let mut log = Log::new();
    log.machine.restore(&mut &*BYTES).expect("an older checkpoint");
    log.index = 700;
    assert_eq!(log.shared.state().rules(), Rules::Version2);
    log.change(Change::Rules { version: Rules::NEWEST.version() });
    log
}

#[test]
fn a_checkpoint_of_version_2_is_taken_over() {
    let mut log = restored();
    {
        let state = log.shared.state();
        assert_eq!((state.leader(), state.address(2)), (3, Some("127.0.0.1:10911")));
        assert_eq!(state.queue("T", 1).map(|queue| queue.max()), Some(600));
        assert_eq!((state.delivered(1), state.stored_ms()), (1, 5));
        let offset = |group: &str, topic: &str, queue| state.offset(group, topic, queue);
        assert_eq!(
            [
                offset("g", "T", 0),
                offset("g", "T", 1),
                offset("h", "T", 0),
                offset("g", "%RETRY%g", 0)
            ],
            [Some(7), Some(8), Some(9), Some(3)]
        );
        assert!(state.groups_of_topic("T", ALL).eq(["g", "h"]));
    }
    let request = |client: &str| LockRequest {
        group: "g".to_owned(),
        client: client.to_owned(),
        queues: (0..4).map(|queue| ("T".to_owned(), queue)).collect(),
    };
    let lock = Change::Lock { request: request("c2"), now_ms: 1_000 + LOCK_LEASE_MS - 1 };
    let held = vec![("T".to_owned(), 2), ("T".to_owned(), 3)];
    assert_eq!(log.change(lock), Answer::Locked(held), "the others are another client's");
    let properties = "UNIQ_KEY\u{1}key-599\u{2}".to_owned();
    let again = record(&[Message { properties, ..message("T", 1) }], true);
    let Answer::Stored(placed) = log.apply(again) else { panic!("it was stored before") };
    assert_eq!(placed[0].offset, 599, "its key is remembered");
}

#[test]
fn what_is_over_the_limits_in_a_checkpoint_of_version_2_is_left_out() {
    let log = restored();
    let state = log.shared.state();
    assert_eq!(state.topics().map(|(name, _)| name).collect::<Vec<_>>(), [DELAY_TOPIC, "T"]);
    assert_eq!(state.groups(ALL).collect::<Vec<_>>(), ["g", "h"]);
    assert_eq!(state.address(3), None, "an address of 300 bytes");
    let longest = [GROUP_BYTES_MAX, CLIENT_BYTES_MAX, STORED_TOPIC_BYTES_MAX, ADDR_BYTES_MAX];
    assert!(longest.iter().all(|bytes| *bytes < 300), "the names are over these limits");
    drop(state);
    let again = log.checkpoint();
    assert!(
        !again.windows(270).any(|bytes| bytes.iter().all(|byte| *byte == bytes[0] && *byte != 0))
    );
    let mut other = Log::on(log.disk.clone());
    other.machine.restore(&mut &again[..]).expect("our own bytes");
    assert_eq!(*other.shared.state(), *log.shared.state());
}
