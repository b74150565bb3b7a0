//! Panics of simulated software: a runtime swallows those of its tasks, and none may go unseen.

use std::any::Any;
use std::cell::RefCell;
use std::sync::{Arc, Once};
use std::time::Duration;

use super::context::{self, current_host};

/// Panics that are kept; a host that panics on and on needs no more.
const KEPT_MAX: usize = 64;

/// A panic of a host's software.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Panic {
    /// When: the start of the tick.
    pub at: Duration,
    /// The host that it happened on.
    pub host: Arc<str>,
    /// What it said.
    pub message: String,
    /// File and line.
    pub place: String,
}

thread_local! {
    static PANICS: RefCell<Vec<Panic>> = const { RefCell::new(Vec::new()) };
}

/// From now on, panics of hosts are kept and not printed. All others go where they went before.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let Some(host) = current_host() else { return before(info) };
            let message = text(info.payload());
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            PANICS.with_borrow_mut(|panics| {
                if panics.len() < KEPT_MAX {
                    panics.push(Panic { at: context::now(), host, message, place });
                }
            });
        }));
    });
}

/// What a panic said.
pub(super) fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no text").to_owned()
}

/// Panics on this thread since the last call.
pub(super) fn take() -> Vec<Panic> {
    PANICS.take()
}
