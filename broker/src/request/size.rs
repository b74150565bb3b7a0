//! How large a request may be. Only messages may carry megabytes. The code that reads a request checks the rest.

use super::failure::Failure;
use crate::limits::{BODY_BYTES_MAX, FIELDS_BYTES_MAX, LARGE_BODY_BYTES_MAX};
use crate::mutant::Mutant;
use crate::remoting::Command;
use crate::remoting::codes::{request, response};

/// Most bytes of fields and of the body. Requests with messages have their own limits, and RocketMQ's remarks for them.
fn limits(code: i32) -> (usize, usize) {
    match code {
        request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
            (usize::MAX, usize::MAX)
        }
        request::HEART_BEAT
        | request::LOCK_BATCH_MQ
        | request::UNLOCK_BATCH_MQ
        | request::DECIDE_TOPIC => (FIELDS_BYTES_MAX, LARGE_BODY_BYTES_MAX),
        _ => (FIELDS_BYTES_MAX, BODY_BYTES_MAX),
    }
}

/// Checks a request's size, before anything is done for it.
///
/// # Errors
/// It is too large.
pub(crate) fn check_size(command: &Command) -> Result<(), Failure> {
    let (fields_max, body_max) = limits(command.head.code);
    let (fields, body) = (command.head.fields.bytes(), command.body.len());
    let too_large = |what: &str, size: usize, limit: usize| {
        let code = command.head.code;
        let remark =
            format!("{what} of {size} bytes of a request {code}, and the limit is {limit}");
        Err(Failure::refused(response::INVALID_PARAMETER, remark))
    };
    if fields > fields_max {
        return too_large("fields", fields, fields_max);
    }
    if body > body_max && !Mutant::BodyLimitIgnored.is_active() {
        return too_large("a body", body, body_max);
    }
    Ok(())
}
