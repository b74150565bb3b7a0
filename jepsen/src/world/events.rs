//! What the library itself has to say, in the trace.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use super::Trace;
use super::context::current_host;

/// A `tracing` subscriber that writes events to a trace, with simulated time and the host that says
/// them. Use it with `tracing::subscriber::with_default`. Spans are left out.
#[derive(Debug)]
pub struct EventTrace {
    trace: Trace,
    level: Level,
    targets: Vec<String>,
}

impl EventTrace {
    /// Events of `level` and above whose target begins with one of `targets`.
    pub fn new(
        trace: Trace,
        level: Level,
        targets: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self { trace, level, targets: targets.into_iter().map(Into::into).collect() }
    }
}

impl Subscriber for EventTrace {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        metadata.is_event()
            && *metadata.level() <= self.level
            && self.targets.iter().any(|begin| target.starts_with(begin.as_str()))
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { text: String::new() };
        let metadata = event.metadata();
        // Writing to a string cannot fail.
        let _ = write!(line.text, "{} {}:", metadata.level(), metadata.target());
        event.record(&mut line);
        let host = current_host();
        let text = line.text.replace('\n', " ");
        self.trace.line(host.as_deref().unwrap_or("-"), format_args!("{text}"));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line {
    text: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.text, " {value:?}"),
            name => write!(self.text, " {name}={value:?}"),
        };
    }
}
