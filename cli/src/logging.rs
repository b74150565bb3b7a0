//! Structured logs on standard error. The library only emits; the binary decides what is shown.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, Result};
use crate::settings::LogFormat;

/// Shows what `level` lets through: a level, or directives such as `info,quorumlog::raft=debug`.
///
/// # Errors
/// The directives make no sense, or logs were set up before.
pub(crate) fn init(level: &str, format: LogFormat) -> Result {
    let filter = filter(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let set = match format {
        LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|error| Failure::failed(format!("cannot set up logging: {error}")))
}

/// Parses the directives. A single level gives openraft a lower one: openraft logs every message and every
/// attempt, and the library itself logs what matters to an operator.
///
/// # Errors
/// They make no sense.
pub(crate) fn filter(level: &str) -> Result<EnvFilter> {
    let directives = match level.trim() {
        "warn" => "warn,openraft=error",
        "info" => "info,openraft=error",
        "debug" => "debug,openraft=info",
        other => other,
    };
    EnvFilter::try_new(directives).map_err(|error| {
        Failure::usage(format!("log.level: {level:?} cannot be read: {error}"))
            .with_hint("write error, warn, info, debug, trace, or info,quorumlog=debug")
    })
}

/// The level of commands that use a cluster, by the number of `--verbose`.
pub(crate) fn level_of_verbosity(count: u8) -> &'static str {
    match count {
        0 => "error",
        1 => "info",
        2 => "debug",
        _ => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_directives_are_usage_errors() {
        filter("info,quorumlog::raft=debug").expect("directives");
        assert!(filter("info").expect("a level").to_string().contains("openraft=error"));
        let failure = filter("quorumlog=loud").expect_err("no such level");
        assert_eq!(failure.exit, crate::failure::Exit::Usage);
        assert!(failure.message.contains("log.level"), "{failure}");
    }
}
