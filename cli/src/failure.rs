//! Why a command failed: one line, a hint on what to do, and the exit code.

use std::fmt;
use std::io;

use quorumlog::client::ConnectError;
use quorumlog::{
    AdminError, AppendError, ConfigError, NameError, OpenError, Outcome, ReadError, StorageError,
    with_sources,
};
use quorumlog_broker::is_outcome_unknown;

/// What the process tells its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done. As a failure: whoever read our output has gone, which is no error.
    Done = 0,
    /// It did not work.
    Failed = 1,
    /// It was asked in a wrong way: arguments, environment or configuration.
    Usage = 2,
    /// It is not known whether it took effect.
    Unknown = 3,
}

/// What ends a command early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// What a command returns.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// It did not work.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), hint: None }
    }

    /// It was asked in a wrong way.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), hint: None }
    }

    /// It may or may not have taken effect.
    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unknown, message: message.into(), hint: None }
    }

    /// The reader of standard output has gone.
    pub(crate) fn output_closed() -> Self {
        Self { exit: Exit::Done, message: String::new(), hint: None }
    }

    /// The system refused `what`.
    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::failed(format!("{what}: {error}"))
    }

    /// A name server or a broker was asked for `what`, and this is what came of it.
    pub(crate) fn broker(what: impl fmt::Display, error: &io::Error) -> Self {
        let exit = if is_outcome_unknown(error) { Exit::Unknown } else { Exit::Failed };
        Self { exit, ..Self::io(what, error) }
    }

    /// The same with advice.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, saying first what was being done.
    #[must_use]
    pub(crate) fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    fn maybe_hint(mut self, hint: Option<&str>) -> Self {
        self.hint = hint.map(str::to_owned);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

const UNREACHABLE: &str =
    "is a node running there? name its client address with --node HOST:PORT or QUORUMLOG_NODES";
const NO_LEADER: &str = "`quorumlog status` shows which nodes run and who leads";
const NO_LOG: &str = "make it with `quorumlog log create NAME`; `quorumlog log list` shows all";
const DISK: &str = "`quorumlog verify DIR` looks through a data directory of a stopped node";

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        let failure = match error.outcome() {
            Outcome::NotAppended => Self::failed(with_sources(&error)),
            Outcome::Unknown => Self::unknown(with_sources(&error)),
        };
        failure.maybe_hint(match &error {
            AppendError::NotLeader { .. } | AppendError::NoQuorum => Some(NO_LEADER),
            AppendError::UnknownLog { .. } => Some(NO_LOG),
            AppendError::Unreachable { .. } => Some(UNREACHABLE),
            AppendError::TooLarge { .. } => {
                Some("the limits are limits.record_size_max and limits.batch_size_max of the nodes")
            }
            AppendError::Timeout { .. }
            | AppendError::LeadershipLost { .. }
            | AppendError::Interrupted { .. } => {
                Some("read the log's tail to see whether the record is there before you retry")
            }
            AppendError::Storage(_) => Some(DISK),
            _ => None,
        })
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::failed(with_sources(&error)).maybe_hint(match &error {
            ReadError::Trimmed { .. } => {
                Some("read from the begin of the log, or leave out --from")
            }
            ReadError::NotLeader { .. } | ReadError::NoQuorum { .. } => Some(NO_LEADER),
            ReadError::UnknownLog { .. } => Some(NO_LOG),
            ReadError::Unreachable { .. } => Some(UNREACHABLE),
            ReadError::Storage(_) => Some(DISK),
            _ => None,
        })
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::failed(with_sources(&error)).with_hint(UNREACHABLE)
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        if let AdminError::Append(append) = error {
            return append.into();
        }
        let failure = match &error {
            AdminError::Timeout { .. }
            | AdminError::Blocked { .. }
            | AdminError::Interrupted { .. } => Self::unknown(with_sources(&error)),
            _ => Self::failed(with_sources(&error)),
        };
        failure.maybe_hint(match &error {
            AdminError::NotLeader { .. } => Some(NO_LEADER),
            AdminError::NotBootstrapped => {
                Some("found the cluster on one node: `quorumlog start --bootstrap --peer ...`")
            }
            AdminError::UnknownLog { .. } => Some(NO_LOG),
            AdminError::Timeout { .. } | AdminError::Interrupted { .. } => {
                Some("`quorumlog status` shows whether it was done")
            }
            AdminError::Unreachable { .. } => Some(UNREACHABLE),
            AdminError::Storage(_) => Some(DISK),
            _ => None,
        })
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Config(error) => error.into(),
            OpenError::Storage(error) => error.into(),
            OpenError::Listen { .. } => Self::failed(with_sources(&error))
                .with_hint("another process may use the port; choose one with --listen"),
            error => Self::failed(with_sources(&error)),
        }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::from(&error)
    }
}

impl From<&StorageError> for Failure {
    fn from(error: &StorageError) -> Self {
        Self::failed(with_sources(error)).maybe_hint(match error {
            StorageError::Locked { .. } => Some("stop the process that runs on this directory"),
            StorageError::Corrupt { .. } | StorageError::Missing { .. } => Some(
                "nothing was changed; restore the file, or remove the member, wipe the directory \
                 and add the node again",
            ),
            StorageError::Foreign { .. } => Some("check node_id and data_dir"),
            StorageError::Full { .. } => Some("free space on that file system"),
            _ => None,
        })
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_unknown_outcome_has_its_own_exit_code() {
        let timeout = AppendError::Timeout { after: Duration::from_secs(1) };
        assert_eq!(Failure::from(timeout).exit, Exit::Unknown);
        assert_eq!(Failure::from(AppendError::NoQuorum).exit, Exit::Failed);
        let admin = AdminError::Timeout { after: Duration::from_secs(1) };
        assert_eq!(Failure::from(admin).exit, Exit::Unknown);
        let broken = AdminError::Interrupted { detail: "reset".to_owned() };
        assert_eq!(Failure::from(broken).exit, Exit::Unknown);
        let missing = "a majority".to_owned();
        let blocked = AdminError::Blocked { after: Duration::from_secs(1), reason: missing };
        assert_eq!(Failure::from(blocked).exit, Exit::Unknown);
        let inner = AdminError::Append(AppendError::LeadershipLost { leader: None });
        assert_eq!(Failure::from(inner).exit, Exit::Unknown);
    }

    #[test]
    fn an_error_is_one_line_with_its_causes_and_a_hint() {
        let error = OpenError::Listen {
            addr: "127.0.0.1:1".to_owned(),
            source: io::Error::from(io::ErrorKind::PermissionDenied),
        };
        let failure = Failure::from(error);
        assert_eq!(failure.message, "cannot listen on 127.0.0.1:1: permission denied");
        assert!(failure.to_string().contains("\nhint: "), "{failure}");
    }
}
