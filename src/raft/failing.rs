//! Why a member is not reached.

use std::time::Duration;

use tokio::time::Instant;

use super::contacts::WARNING_PAUSE;
use super::generations::{NO_PART, OUTDATED};
use super::standing::TWIN;
use crate::member::{NodeId, ReplicaId};
use crate::mutant::Mutant;
use crate::wire::LinkError;

/// A member that cannot be reached is warned of after that time.
const WARNED_AFTER: Duration = Duration::from_secs(2);

/// What keeps a member from being reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nobody answers.
    Unreachable,
    /// The node there speaks another version of the protocol between nodes.
    OtherVersion,
    /// The node there has other data than the member was added with.
    LostData,
    /// It answers, and refuses this process: see [`Standing`](super::standing::Standing).
    RefusesThis,
}

/// Why a member is not reached.
#[derive(Debug, Clone)]
pub(crate) struct Failing {
    pub(crate) since: Instant,
    pub(crate) reason: String,
    pub(crate) cause: Cause,
    /// Where that was found.
    addr: String,
    pub(super) warned: Option<Instant>,
}

impl Failing {
    pub(super) fn new(addr: &str) -> Self {
        let (since, addr) = (Instant::now(), addr.to_owned());
        Self { since, reason: String::new(), cause: Cause::Unreachable, addr, warned: None }
    }

    /// Notes how a dial of `addr` failed. Who answers elsewhere says more than that nobody answers here, and that nobody
    /// answers at the member's `newest` address says more than that nobody does where it was before.
    pub(super) fn note(&mut self, addr: &str, error: &LinkError, newest: &str) {
        let cause = match error {
            LinkError::OtherVersion { .. } => Cause::OtherVersion,
            LinkError::Refused { reason, .. } if reason.starts_with(NO_PART) => Cause::LostData,
            LinkError::Refused { reason, .. }
                if reason.starts_with(TWIN) || reason.starts_with(OUTDATED) =>
            {
                Cause::RefusesThis
            }
            _ => Cause::Unreachable,
        };
        let known = match self.cause {
            Cause::Unreachable => {
                let outdated = self.addr == newest && addr != newest && !self.reason.is_empty();
                cause == Cause::Unreachable && outdated && !Mutant::AnyPlaceNamed.is_active()
            }
            Cause::OtherVersion => cause == Cause::Unreachable && self.addr != addr,
            Cause::LostData => true,
            Cause::RefusesThis => false,
        };
        if !known {
            (self.cause, self.reason, self.addr) = (cause, error.to_string(), addr.to_owned());
        }
    }

    /// True if it has lasted long enough to be told.
    pub(super) fn is_told(&self) -> bool {
        self.cause != Cause::Unreachable || self.since.elapsed() >= WARNED_AFTER
    }

    /// Logs a warning, now and then.
    pub(super) fn warn(&mut self, member: ReplicaId, what: &str) {
        let due = match self.warned {
            Some(at) => at.elapsed() >= WARNING_PAUSE,
            None => self.since.elapsed() >= WARNED_AFTER,
        };
        if due {
            self.warned = Some(Instant::now());
            let (reason, lasts) = (&self.reason, self.since.elapsed());
            tracing::warn!(%member, ?lasts, reason, "{what}");
        }
    }

    /// What is wrong with the member of this number, in a sentence's part.
    pub(crate) fn describe(&self, node: NodeId) -> String {
        format!(
            "node {node}, not reached for {} s: {}",
            self.since.elapsed().as_secs(),
            self.reason
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_answers_and_refuses_this_process_is_not_unreachable() {
        let mut failing = Failing::new("a:1");
        let gone = LinkError::Unreachable { addr: "a:1".to_owned(), detail: "refused".to_owned() };
        failing.note("a:1", &gone, "a:1");
        assert_eq!(failing.cause, Cause::Unreachable);
        for said in [TWIN, OUTDATED] {
            let reason = format!("{said}: because");
            failing.note("a:1", &LinkError::Refused { addr: "a:1".to_owned(), reason }, "a:1");
            assert_eq!(failing.cause, Cause::RefusesThis);
            failing.note("a:1", &gone, "a:1");
            assert_eq!(failing.cause, Cause::Unreachable, "it answers no more");
        }
    }
}
