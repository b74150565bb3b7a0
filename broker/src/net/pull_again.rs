//! What a pull keeps while it waits: enough to tell its client where to pull again.

use crate::remoting::Command;
use crate::remoting::codes::request;

/// Fields that a pull keeps when another node serves it.
pub(crate) const PULL_AGAIN: [&str; 3] = ["topic", "queueId", "queueOffset"];

/// True for requests that wait until there is something.
pub(crate) fn is_pull(code: i32) -> bool {
    matches!(code, request::PULL_MESSAGE | request::LITE_PULL_MESSAGE)
}

/// Bytes of what a pull keeps, whatever a client put there.
pub(crate) fn bytes_to_pull_again(command: &Command) -> usize {
    let kept = PULL_AGAIN.iter().filter_map(|name| command.head.fields.get(name));
    kept.map(str::len).sum()
}
