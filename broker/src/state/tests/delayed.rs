//! Delayed messages: each is delivered once, and none is marked as delivered that is nowhere.

use super::*;
use crate::limits::QUEUES_MAX;
use crate::state::topics::LEVELS;

/// A log with a topic of two queues, and messages that wait at level 3.
fn waiting(count: usize) -> Log {
    let mut log = Log::new();
    log.topic("T", 2);
    log.offsets(messages(&vec![message(DELAY_TOPIC, 2); count]));
    log
}

fn delivered(log: &Log) -> u64 {
    log.shared.state().delivered(3)
}

#[test]
fn delayed_messages_are_delivered_once_whoever_says_so() {
    let mut log = waiting(4);
    let batch = [message("T", 0), message("T", 1), message("T", 0)];
    assert_eq!(log.offsets(deliveries(3, 0, &batch)), [0, 0, 1]);
    // The last leader's record comes late, or the new one repeats some of it.
    for late in [deliveries(3, 0, &batch), deliveries(3, 2, &batch[..2]), deliveries(3, 1, &[])] {
        assert_eq!(log.apply(late), Answer::Refused(Refusal::Delivered));
    }
    assert_eq!(log.offsets(deliveries(3, 3, &batch[..1])), [2]);
    assert_eq!((delivered(&log), log.shared.state().delivered(2)), (4, 0));
}

#[test]
fn deliveries_are_all_stored_or_none_and_what_is_not_stored_is_not_delivered() {
    let mut log = waiting(3);
    let gone = [message("T", 0), message("gone", 0)];
    assert_eq!(
        log.apply(deliveries(3, 0, &gone)),
        Answer::Refused(Refusal::NoTopic("gone".to_owned()))
    );
    let beyond = message("T", QUEUES_MAX as i32);
    assert!(matches!(log.apply(deliveries(3, 0, &[beyond])), Answer::Refused(_)));
    assert!(matches!(log.apply(deliveries(3, 0, &[message("T", -1)])), Answer::Refused(_)));
    assert_eq!((delivered(&log), log.shared.state().queue("T", 0)), (0, None));
    assert_eq!(log.offsets(deliveries(3, 0, &[message("T", 0)])), [0]);
}

#[test]
fn a_queue_that_its_topic_has_no_more_takes_its_delayed_messages() {
    let mut log = waiting(1);
    log.topic("T", 1);
    assert_eq!(log.offsets(deliveries(3, 0, &[message("T", 1)])), [0]);
    assert!(matches!(log.apply(messages(&[message("T", 1)])), Answer::Refused(_)), "new ones");
    log.topic("T", 2);
    let slice = log.shared.slice("T", 1, 0, 9).expect("nothing is lost");
    assert_eq!(slice.entries.len(), 1);
}

#[test]
fn the_dead_letters_of_delayed_messages_need_no_topic() {
    let mut log = waiting(2);
    let dead = message(DEAD_DELAYED_TOPIC, 0);
    assert!(matches!(log.apply(messages(std::slice::from_ref(&dead))), Answer::Refused(_)));
    assert_eq!(log.offsets(deliveries(3, 0, &[dead.clone(), dead])), [0, 1]);
    let state = log.shared.state();
    assert_eq!(state.topic(DEAD_DELAYED_TOPIC).map(|topic| topic.config.queues()), Some(1));
}

#[test]
fn deliveries_of_an_older_build_do_what_they_did_then() {
    let mut log = waiting(4);
    assert_eq!(log.offsets(delivery(3, 0, &message("T", 0))), [0]);
    let again = log.apply(delivery(3, 0, &message("T", 0)));
    assert_eq!(again, Answer::Refused(Refusal::Delivered));
    // They dropped what could not be stored: every node has to come to the same.
    let answer = log.apply(delivery(3, 1, &message("gone", 0)));
    assert_eq!(answer, Answer::Refused(Refusal::NoTopic("gone".to_owned())));
    assert!(matches!(log.apply(delivery(3, 2, &message("T", 5))), Answer::Refused(_)));
    assert_eq!(log.offsets(delivery(3, 3, &message("T", 0))), [1]);
    assert_eq!(delivered(&log), 4);
}

#[test]
fn deliveries_without_a_count_that_fits_are_not_understood() {
    let mut log = waiting(1);
    let payload = deliveries(LEVELS, 0, &[message("T", 0)]);
    for end in 1..payload.len() {
        let answer = log.try_apply(payload.slice(..end));
        assert!(matches!(answer, Err(ApplyError::NewerBuild { .. })), "{end}: {answer:?}");
    }
    let mut many = payload.to_vec();
    many[10..12].copy_from_slice(&[0xff, 0xff]);
    let answer = log.try_apply(many.into());
    assert!(matches!(answer, Err(ApplyError::NewerBuild { .. })), "{answer:?}");
}
