//! The broker that a request names. Clients from 4.9 on name it in each request that is about a queue. A request that
//! reached the wrong broker is refused, so that it stores and reads nothing in another log.

use super::failure::Failure;
use crate::mutant::Mutant;
use crate::remoting::Command;
use crate::remoting::codes::{request, response};

/// The names that `RpcRequestHeader` gives it, and `SendMessageRequestHeaderV2`.
const FIELDS: [&str; 2] = ["bname", "brokerName"];
const FIELD_OF_SENDS: &str = "n";

/// Checks the broker that a request's header names, if it names one: `own` is the name of the one that it reached.
///
/// # Errors
/// It is another one. Producers try the next broker then.
pub(crate) fn check_named(own: &str, command: &Command) -> Result<(), Failure> {
    let short = matches!(command.head.code, request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE);
    for (name, value) in command.head.fields.iter() {
        if FIELDS.contains(&name) || short && name == FIELD_OF_SENDS {
            check_name(own, value)?;
        }
    }
    Ok(())
}

/// Checks the name of a broker that a client gives; none means this one, `own`.
///
/// # Errors
/// It is another one.
pub(crate) fn check_name(own: &str, name: &str) -> Result<(), Failure> {
    if name.is_empty() || name == own || Mutant::OtherBrokersServed.is_active() {
        return Ok(());
    }
    // Names of any length come from outside.
    let named: String = name.chars().take(64).collect();
    let remark = format!("this is broker {own}, and the request is for {named}");
    Err(Failure::refused(response::SYSTEM_ERROR, remark))
}
