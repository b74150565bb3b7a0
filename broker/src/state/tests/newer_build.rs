//! Records and checkpoints of a newer build: nobody passes over them.

use super::*;

/// What a newer build may write: another kind, other flags, more behind what is known, another change, other rules.
fn unknown() -> Vec<Bytes> {
    let known = messages(&[message("T", 0)]);
    let mut flagged = known.to_vec();
    flagged[1] |= 0x80;
    let mut longer = known.to_vec();
    longer.push(0);
    let mut laid_out = known.to_vec();
    laid_out[8..12].copy_from_slice(&[0xDA, 0xA3, 0x20, 0xFF]);
    let mut all: Vec<Bytes> = [flagged, longer, laid_out].into_iter().map(Bytes::from).collect();
    all.extend(
        [
            &b""[..],
            b"\x09",
            b"\x01",
            b"\x01\0\0\x01junk",
            b"\x02junk",
            b"\x02\xff\0\0\0",
            b"\x03\x01",
            b"\x04",
            b"\x04\x01",
        ]
        .map(Bytes::from_static),
    );
    all.push(change(&Change::Rules { version: Rules::NEWEST.version() + 1 }));
    all
}

/// Before, each was passed over, and its node had another state than the others from then on.
#[test]
fn a_record_of_a_newer_build_is_an_error_that_says_what_to_do_and_changes_nothing() {
    for payload in unknown() {
        let mut log = Log::new();
        log.topic("T", 1);
        let before = log.shared.state().clone();
        let error = log.try_apply(payload.clone()).expect_err("nobody knows what it means");
        let text = error.to_string();
        let expected = "written by a newer build; upgrade this node: record 2: ";
        assert!(text.starts_with(expected), "{payload:?}: {text}");
        assert_eq!(*log.shared.state(), before, "{payload:?}");
    }
}

#[test]
fn what_old_builds_passed_over_is_passed_over_for_as_long_as_their_rules_hold() {
    for payload in unknown() {
        let mut log = Log::old();
        if payload == change(&Change::Rules { version: Rules::NEWEST.version() + 1 }) {
            assert!(log.try_apply(payload).is_err(), "newer builds raise the rules first");
            continue;
        }
        let answer = log.apply(payload.clone());
        assert!(matches!(answer, Answer::Refused(_)), "{payload:?}: {answer:?}");
        assert_eq!(log.shared.state().topics().count(), 0);
    }
}

#[test]
fn a_checkpoint_of_a_newer_build_says_what_to_do() {
    let mut log = Log::new();
    let error = log.machine.restore(&mut &b"QLBS\x05"[..]).expect_err("a newer version");
    assert_eq!(
        error.to_string(),
        "written by a newer build; upgrade this node: the broker's state is of version 5, and this program reads 2 to 4"
    );
}

#[test]
fn clients_append_nothing_to_a_brokers_log() {
    assert!(!Log::new().machine.takes_client_appends());
}
