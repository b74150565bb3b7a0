//! Progress on standard error: a bar on a terminal, plain lines for phases elsewhere.

use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// A bar that is drawn only where standard error is a terminal. Cheap to clone; dropping the last
/// clone clears it.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Counts up to `total`, or without an end, in records.
    pub(crate) fn records(total: Option<u64>) -> Self {
        Self::new(total, "records", false)
    }

    /// Counts up to `total` in bytes.
    pub(crate) fn bytes(total: Option<u64>) -> Self {
        Self::new(total, "bytes", true)
    }

    /// Counts the seconds of a wait.
    pub(crate) fn seconds(total: Duration) -> Self {
        Self::new(Some(total.as_secs()), "s", false)
    }

    /// Shows nothing.
    pub(crate) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    fn new(total: Option<u64>, unit: &str, binary: bool) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bar = ProgressBar::with_draw_target(total, target);
        let counts = match (binary, total.is_some()) {
            (true, true) => "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}".to_owned(),
            (true, false) => "{binary_bytes} {binary_bytes_per_sec}".to_owned(),
            (false, true) => format!("{{human_pos}}/{{human_len}} {unit} {{per_sec}}"),
            (false, false) => format!("{{human_pos}} {unit} {{per_sec}}"),
        };
        let template = if total.is_some() {
            format!("{{bar:30}} {{percent:>3}}% {counts} {{msg}}")
        } else {
            format!("{{spinner}} {counts} {{msg}}")
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Moves to a position.
    pub(crate) fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Moves to a position of a total that may have become known only now.
    pub(crate) fn set_of(&self, position: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(position);
    }

    /// Moves on by that much.
    pub(crate) fn add(&self, delta: u64) {
        self.bar.inc(delta);
    }

    /// Says what goes on, beside the bar.
    pub(crate) fn message(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// Writes a line that stays, above the bar.
    pub(crate) fn note(&self, text: impl fmt::Display) {
        self.bar.suspend(|| output::note(text));
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
