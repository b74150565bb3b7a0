//! Panics: where they happened, and where they are reported.
//!
//! A panic is a bug. It ends the task that it happened in. The code that runs the task decides what else ends with it:
//! one connection, one log on this node, or nothing, if the task can begin again.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt as _;

thread_local! {
    /// Text and place of this thread's latest panic. Only the hook knows the place.
    static LATEST: Cell<Option<String>> = const { Cell::new(None) };
}

/// Logs each panic of the process through `tracing`, with its place and thread, and counts it in
/// `quorumlog_panics_total`. It replaces the process's panic hook, so it is for programs and not for libraries. Reasons
/// that nodes give for a log that has stopped then name the place too.
///
/// With `RUST_BACKTRACE=1` the log has the backtrace as well.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = text(info.payload());
        let place =
            info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or_default();
        #[cfg(feature = "metrics")]
        metrics::counter!("quorumlog_panics_total").increment(1);
        let trace = Backtrace::capture();
        match trace.status() {
            BacktraceStatus::Captured => {
                tracing::error!(place, thread, backtrace = %trace, "panicked: {text}");
            }
            _ => tracing::error!(place, thread, "panicked: {text}"),
        }
        LATEST.set(Some(format!("{text} ({place})")));
    }));
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// What a panic said, and its place if [`log_panics`] was called. For the thread that it was caught on.
pub(crate) fn caught(payload: &(dyn Any + Send)) -> String {
    LATEST.take().unwrap_or_else(|| text(payload).to_owned())
}

/// Runs `work`.
///
/// # Errors
/// It panicked: what the panic said.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| caught(&*payload))
}

/// Runs `task` to its end.
///
/// # Errors
/// It panicked: what the panic said.
pub async fn catching<F: Future>(task: F) -> Result<F::Output, String> {
    AssertUnwindSafe(task).catch_unwind().await.map_err(|payload| caught(&*payload))
}

/// Runs `task` to its end. If it panics, `instead` is told what the panic said.
pub(crate) async fn or_else<F: Future<Output = ()>>(task: F, instead: impl FnOnce(String)) {
    if let Err(panic) = catching(task).await {
        instead(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_panic_said_is_told_and_what_did_not_panic_is_given_back() {
        assert_eq!(catch(|| 7), Ok(7));
        assert!(catch(|| panic!("a {}", "bug")).is_err_and(|said: String| said.contains("a bug")));
        assert_eq!(catching(async { 8 }).await, Ok(8));
        let mut told = None;
        or_else(async { panic!("another") }, |said| told = Some(said)).await;
        assert!(told.is_some_and(|said| said.contains("another")));
    }
}
