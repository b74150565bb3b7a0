//! What properties and flags of a message ask for. The broker refuses what it does not serve, as a RocketMQ broker does:
//! SEND_OK would promise it.
//!
//! All of RocketMQ's `MessageConst` and `MessageSysFlag` that are not named here are about something that is served, or
//! say something to other clients, and are stored as they are. The tests below list them.

use super::failure::Failure;
use crate::mutant::Mutant;
use crate::record::{Properties, names};
use crate::remoting::codes::response;

/// Bits of the system flag that say prepared, committed or rolled back.
pub(crate) const TRANSACTION_BITS: i32 = 0xC;
/// Only prepared and rolled back hide a message.
const COMMITTED: i32 = 0x8;
/// The body holds messages, and the queue counts them as one: only in topics of batches.
const INNER_BATCH: i32 = 0x80;
/// The body is compressed; the next three bits of interest say how.
const COMPRESSED: i32 = 0x1;
const COMPRESSION_SHIFT: u32 = 8;
const COMPRESSION_BITS: i32 = 0x7;
/// The last way of compressing that clients know. They fail on messages with a later one, and so stop consuming.
const COMPRESSION_MAX: i32 = 3;

/// What a property asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// Nothing, or something that is served.
    Nothing,
    /// To be delivered at any time, or that such a message is recalled.
    Timer,
    /// To be delivered after a level's delay.
    Delay,
    /// To be prepared until its transaction ends.
    Transaction,
    /// To be one entry of a queue for several messages.
    InnerBatch,
    /// To be in other queues, too.
    MultiDispatch,
    /// To bring the reply back to the producer.
    Reply,
}

fn asks(name: &str) -> Asks {
    match name {
        "TIMER_DELAY_SEC" | "TIMER_DELAY_MS" | "TIMER_DELIVER_MS" | "TIMER_DEL_UNIQKEY" => {
            Asks::Timer
        }
        names::DELAY => Asks::Delay,
        names::TRANSACTION => Asks::Transaction,
        "INNER_NUM" => Asks::InnerBatch,
        "INNER_MULTI_DISPATCH" => Asks::MultiDispatch,
        "REPLY_TO_CLIENT" => Asks::Reply,
        _ => Asks::Nothing,
    }
}

/// Properties that a delivered message does not have any more, as in RocketMQ: with a level they mean nothing.
pub(crate) const TIMER_PROPERTIES: [&str; 3] =
    ["TIMER_DELAY_SEC", "TIMER_DELAY_MS", "TIMER_DELIVER_MS"];

/// Set by a timer that has run down: the message is due, and its other timer properties mean nothing.
const TIMER_OUT: &str = "TIMER_OUT_MS";

/// The delay level that is asked for; 0 or less is none.
///
/// # Errors
/// It is no number, which RocketMQ answers in the same way.
fn delay_level(text: &str) -> Result<i32, Failure> {
    text.trim().parse().map_err(|_| {
        Failure::refused(response::SYSTEM_ERROR, format!("{}[{text}] is no number", names::DELAY))
    })
}

fn illegal(remark: &str) -> Failure {
    Failure::refused(response::MESSAGE_ILLEGAL, remark)
}

/// Checks that the message asks only for what is served.
///
/// # Errors
/// RocketMQ's code, and what is not served.
pub(crate) fn check(properties: &str, system_flag: i32, reconsumed: i32) -> Result<(), Failure> {
    let (mut level, mut timer, mut prepared) = (0, false, false);
    for (name, value) in Properties::pairs(properties) {
        match asks(name) {
            Asks::Nothing => {}
            Asks::Timer => timer = true,
            Asks::Delay => level = delay_level(value)?,
            Asks::Transaction => prepared = value.eq_ignore_ascii_case("true"),
            Asks::InnerBatch => return Err(illegal("messages in one entry are not served")),
            Asks::MultiDispatch => {
                let remark = "dispatch to several queues is not served";
                return Err(Failure::refused(response::SYSTEM_ERROR, remark));
            }
            Asks::Reply => {
                let remark = "replies to requests are not served";
                return Err(Failure::refused(response::REQUEST_CODE_NOT_SUPPORTED, remark));
            }
        }
    }
    if timer
        && level <= 0
        && Properties::find(properties, TIMER_OUT).is_none()
        && !Mutant::TimerIgnored.is_active()
    {
        let remark = "accurate timer message is not enabled, timerWheelEnable is false";
        return Err(Failure::refused(response::SYSTEM_ERROR, remark));
    }
    let hidden = !matches!(system_flag & TRANSACTION_BITS, 0 | COMMITTED);
    // A message that a consumer before 4.6.1 hands back still says that it was prepared once.
    let handed_back = reconsumed > 0 && level > 0;
    if (prepared || hidden) && !handed_back {
        let remark = "the broker does not serve transaction messages yet";
        return Err(Failure::refused(response::NO_PERMISSION, remark));
    }
    if system_flag & INNER_BATCH != 0 {
        return Err(illegal("messages in one entry are not served"));
    }
    let compression = system_flag >> COMPRESSION_SHIFT & COMPRESSION_BITS;
    if system_flag & COMPRESSED != 0 && compression > COMPRESSION_MAX {
        return Err(illegal("the body is compressed in a way that clients do not know"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RocketMQ 5.3.3's `MessageConst`, and the code with which a message is refused that has the property; 0: it is
    /// stored. Then how the property is treated, here or by clients that read the message.
    const PROPERTIES: &[(&str, &str, i32, &str)] = &[
        ("KEYS", "k", 0, "served: found by them"),
        ("TAGS", "t", 0, "served: filtered by it"),
        (
            "WAIT",
            "false",
            0,
            "every message waits for its majority, which is more than is asked for",
        ),
        ("DELAY", "3", 0, "served"),
        (
            "RETRY_TOPIC",
            "T",
            0,
            "served: where a retried message came from; clients restore their topic by it",
        ),
        ("REAL_TOPIC", "T", 0, "set again when a message is delayed, and not read otherwise"),
        ("REAL_QID", "0", 0, "as REAL_TOPIC"),
        ("TRAN_MSG", "true", 16, "transactions"),
        ("TRAN_MSG", "false", 0, "asks for nothing"),
        ("PGROUP", "g", 0, "only with TRAN_MSG"),
        ("MIN_OFFSET", "0", 0, "set by consumers when they read it"),
        ("MAX_OFFSET", "0", 0, "set by consumers when they read it"),
        ("BUYER_ID", "b", 0, "for programs"),
        ("ORIGIN_MESSAGE_ID", "0", 0, "served: kept through retries"),
        ("TRANSFER_FLAG", "x", 0, "for programs"),
        ("CORRECTION_FLAG", "x", 0, "for programs"),
        ("MQ2_FLAG", "x", 0, "for programs"),
        ("RECONSUME_TIME", "1", 0, "producers move it into the header"),
        ("MSG_REGION", "r", 0, "for traces"),
        ("TRACE_ON", "true", 0, "for traces"),
        ("UNIQ_KEY", "u", 0, "served: found by it"),
        ("EXTEND_UNIQ_INFO", "x", 0, "for programs"),
        ("MAX_RECONSUME_TIMES", "1", 0, "producers move it into the header"),
        ("CONSUME_START_TIME", "1", 0, "set by consumers when they read it"),
        ("INNER_NUM", "2", 13, "a queue's entry for several messages"),
        ("INNER_BASE", "0", 0, "only with INNER_NUM"),
        ("DUP_INFO", "x", 0, "for programs"),
        ("CHECK_IMMUNITY_TIME_IN_SECONDS", "9", 0, "only with TRAN_MSG"),
        ("TRAN_PREPARED_QUEUE_OFFSET", "0", 0, "only with TRAN_MSG"),
        ("__transactionId__", "x", 0, "only with TRAN_MSG"),
        ("TRANSACTION_CHECK_TIMES", "1", 0, "only with TRAN_MSG"),
        ("INSTANCE_ID", "x", 0, "a part of names, which clients put in and take off"),
        ("CORRELATION_ID", "x", 0, "only with REPLY_TO_CLIENT"),
        ("REPLY_TO_CLIENT", "c", 3, "the broker would bring the reply to this client"),
        ("TTL", "3000", 0, "only with REPLY_TO_CLIENT"),
        ("ARRIVE_TIME", "1", 0, "set by brokers in replies"),
        ("PUSH_REPLY_TIME", "1", 0, "set by brokers in replies"),
        ("CLUSTER", "c", 0, "set by brokers: where a reply is sent"),
        ("MSG_TYPE", "reply", 0, "a reply is a request with another code, which is not served"),
        (
            "POP_CK",
            "x",
            0,
            "stored without it: a consumer would acknowledge the message as one that it popped",
        ),
        ("POP_CK_OFFSET", "x", 0, "only with POP_CK"),
        ("1ST_POP_TIME", "x", 0, "only with POP_CK"),
        ("__SHARDINGKEY", "k", 0, "the producer chooses the queue by it"),
        ("PROPERTY_FORWARD_QUEUE_ID", "0", 0, "for proxies"),
        ("REDIRECT", "x", 0, "for proxies"),
        ("INNER_MULTI_DISPATCH", "%LMQ%a", 1, "queues inside a topic's queue"),
        ("INNER_MULTI_QUEUE_OFFSET", "0", 0, "only with INNER_MULTI_DISPATCH"),
        ("TRACE_CONTEXT", "x", 0, "for traces"),
        ("TIMER_DELAY_SEC", "10", 1, "a timer"),
        ("TIMER_DELIVER_MS", "9999999999999", 1, "a timer"),
        ("TIMER_DELAY_MS", "10000", 1, "a timer"),
        ("TIMER_DEL_UNIQKEY", "u", 1, "recalls a message with a timer"),
        ("TIMER_ENQUEUE_MS", "1", 0, "set by brokers"),
        ("TIMER_DEQUEUE_MS", "1", 0, "set by brokers"),
        ("TIMER_ROLL_TIMES", "1", 0, "set by brokers"),
        ("TIMER_OUT_MS", "1", 0, "set by brokers: its timer has run down"),
        ("TIMER_DELAY_LEVEL", "1", 0, "set by brokers"),
        ("__BORNHOST", "h", 0, "for proxies"),
        ("BORN_TIMESTAMP", "1", 0, "for proxies"),
        ("__RMQ.TRANSIENT.TOPIC_SYS_FLAG", "0", 0, "set by consumers when they read it"),
        ("__RMQ.TRANSIENT.GROUP_SYS_FLAG", "0", 0, "set by consumers when they read it"),
        ("__CRC32#", "0", 0, "of the stored message, for RocketMQ's recovery"),
        ("DLQ_ORIGIN_TOPIC", "T", 0, "served: set in dead letters"),
        ("DLQ_ORIGIN_MESSAGE_ID", "0", 0, "served: set in dead letters"),
    ];

    /// `MessageSysFlag`, and the bits that it leaves open.
    const FLAGS: &[(i32, i32, &str)] = &[
        (0x1, 0, "compressed; consumers decompress"),
        (0x2, 0, "several tags; consumers compare them"),
        (0x4, 16, "prepared"),
        (0x8, 0, "committed, as any message; the bit is not stored"),
        (0xC, 16, "rolled back"),
        (0x10, 0, "the producer's address is IPv6; set by what it is"),
        (0x20, 0, "the broker's address is IPv6; set by what it is"),
        (0x40, 0, "only with the next one"),
        (0x80, 13, "a queue's entry for several messages"),
        (0x101, 0, "LZ4"),
        (0x201, 0, "Zstandard"),
        (0x301, 0, "zlib"),
        (0x401, 13, "a way of compressing that consumers fail on"),
        (0x700, 0, "not compressed"),
        (0x800, 0, "nobody reads it"),
    ];

    /// The code with which a message is refused; 0: it is stored.
    fn code(properties: &str, system_flag: i32, reconsumed: i32) -> i32 {
        match check(properties, system_flag, reconsumed) {
            Ok(()) => 0,
            Err(Failure::Refused { code, .. }) => code,
            Err(other) => panic!("{other:?}"),
        }
    }

    fn text(properties: &[(&str, &str)]) -> String {
        properties.iter().map(|(name, value)| format!("{name}\u{1}{value}\u{2}")).collect()
    }

    #[test]
    fn each_property_and_flag_of_rocketmq_is_served_or_means_nothing_here_or_is_refused() {
        let properties = PROPERTIES.iter().map(|(name, value, code, why)| {
            (text(&[("A", "a"), (name, value), ("B", "b")]), 0, code, why)
        });
        let flags = FLAGS.iter().map(|(flag, code, why)| (String::new(), *flag, code, why));
        for (properties, flag, expected, why) in properties.chain(flags) {
            assert_eq!(code(&properties, flag, 0), *expected, "{properties:?} {flag:#x}: {why}");
        }
    }

    #[test]
    fn a_level_is_preferred_to_a_timer_and_a_timer_that_has_run_down_is_none() {
        let with = |name| text(&[("TIMER_DELAY_SEC", "10"), (name, "3")]);
        assert_eq!(code(&with("DELAY"), 0, 0), 0);
        assert_eq!(code(&with("TIMER_OUT_MS"), 0, 0), 0);
        let level = |level| text(&[("TIMER_DELAY_SEC", "10"), ("DELAY", level)]);
        assert_eq!(code(&level("0"), 0, 0), 1);
        assert_eq!(code(&level("-1"), 0, 0), 1);
    }

    #[test]
    fn a_level_that_is_no_number_is_refused() {
        for level in ["", "three", "99999999999", "1.5"] {
            assert_eq!(code(&text(&[("DELAY", level)]), 0, 0), 1, "{level:?}");
        }
        for level in ["-1", "0", "18", "99"] {
            assert_eq!(code(&text(&[("DELAY", level)]), 0, 0), 0, "{level:?}");
        }
    }

    #[test]
    fn what_an_old_consumer_hands_back_may_say_that_it_was_prepared_once() {
        let handed_back = text(&[("TRAN_MSG", "true"), ("DELAY", "4")]);
        assert_eq!(code(&handed_back, 0x4, 1), 0);
        assert_eq!(code(&handed_back, 0x4, 0), 16);
        assert_eq!(code(&text(&[("TRAN_MSG", "true")]), 0x4, 1), 16);
    }
}
