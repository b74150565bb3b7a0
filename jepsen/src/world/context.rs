//! What time it is in the simulation on this thread, and which host runs right now.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static HOST: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// The host whose code runs on this thread; none in the test's own code.
pub fn current_host() -> Option<Arc<str>> {
    HOST.with_borrow(Clone::clone)
}

/// Simulated time since the world of this thread began, at the start of the present tick.
pub(super) fn now() -> Duration {
    NOW.get()
}

pub(super) fn set_now(now: Duration) {
    NOW.set(now);
}

/// Until it is dropped, `host` runs.
pub(super) struct Running(());

pub(super) fn run(host: &Arc<str>) -> Running {
    HOST.set(Some(Arc::clone(host)));
    Running(())
}

impl Drop for Running {
    fn drop(&mut self) {
        HOST.set(None);
    }
}
