//! Which process counts as a member. Two processes with the same data, of which one is a copy, would vote twice.
//!
//! Each start of a node draws a number, its session. A node holds one session of each member. Another session gets in
//! only once the held one has ended: nothing listens any more where its process was, or another process does, or it has
//! been silent for a while. As long as the held process answers, the other one is refused, and told why. If it has taken
//! part in the cluster all the same, which it says in its hello, then each of the two may hold what the other one lacks:
//! neither counts until one of them has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::mutant::Mutant;

/// A process that does not answer, though its host does not say either that nothing listens there, counts as ended after
/// this time.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);
/// A process that was refused and comes again after this time is alive: what it sent before its end, and was read late,
/// comes at once.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A rival counts as alive for this long after it has said hello, wherever it is. It dials every two seconds.
const RIVAL_HOLDS: Duration = Duration::from_secs(4);
/// Sessions of one member that are remembered beside the held one.
const RIVALS_MAX: usize = 4;

/// A process with a member's data.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) session: u128,
    /// Where it may listen.
    pub(super) places: Vec<String>,
    /// It has said hello a moment ago, and was refused.
    pub(super) is_near: bool,
}

#[derive(Debug)]
struct Rival {
    process: Process,
    /// When it was refused first.
    refused: Instant,
    seen: Instant,
    /// It has taken part, and has come again.
    counts: bool,
}

/// The processes that have one member's data.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// The session that counts.
    held: Option<u128>,
    /// False once what came in under this session no longer counts.
    valid: Arc<AtomicBool>,
    rivals: Vec<Rival>,
    /// Since when a process was looked for in vain.
    silent: Vec<(u128, Instant)>,
}

impl Processes {
    pub(super) fn held(&self) -> Option<u128> {
        self.held
    }

    /// Whether connections of the held session still count; shared by them.
    pub(super) fn validity(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.valid)
    }

    /// The rivals that have taken part and are not known to have ended.
    pub(super) fn rivals(&self) -> Vec<Process> {
        let counting = self.rivals.iter().filter(|rival| rival.counts);
        let process = |rival: &Rival| {
            let is_near = rival.seen.elapsed() < RIVAL_HOLDS;
            Process { is_near, ..rival.process.clone() }
        };
        counting.map(process).collect()
    }

    /// Lets `session` count from now on. True if another one did before: what came in under that one counts no more.
    pub(super) fn hold(&mut self, session: u128) -> bool {
        let replaced = self.held.replace(session).is_some_and(|held| held != session);
        self.rivals.retain(|rival| rival.process.session != session);
        if replaced || !self.valid.load(Ordering::Acquire) {
            self.invalidate();
        }
        replaced
    }

    /// Ends what came in so far.
    fn invalidate(&mut self) {
        self.valid.store(false, Ordering::Release);
        self.valid = Arc::new(AtomicBool::new(true));
    }

    /// The held process answers, and `process` says hello with the same data. True if neither may count from now on.
    pub(super) fn refuse(&mut self, process: Process, took_part: bool) -> bool {
        let now = Instant::now();
        let session = process.session;
        let at = self.rivals.iter().position(|rival| rival.process.session == session);
        let at = at.unwrap_or_else(|| {
            if self.rivals.len() == RIVALS_MAX {
                self.rivals.remove(0);
            }
            let process = process.clone();
            self.rivals.push(Rival { process, refused: now, seen: now, counts: false });
            self.rivals.len() - 1
        });
        let rival = &mut self.rivals[at];
        (rival.process, rival.seen) = (process, now);
        let again = now.duration_since(rival.refused) >= AGAIN_AFTER;
        let both = took_part && again && !rival.counts && !Mutant::RivalForgotten.is_active();
        rival.counts |= both;
        if both {
            self.invalidate();
        }
        both
    }

    /// A process was looked for and did not answer. True once it has been silent for so long that it counts as ended.
    pub(super) fn was_silent(&mut self, session: u128) -> bool {
        let now = Instant::now();
        if let Some((_, since)) = self.silent.iter().find(|(silent, _)| *silent == session) {
            return now.duration_since(*since) >= SILENCE_MAX;
        }
        if self.silent.len() > RIVALS_MAX {
            self.silent.remove(0);
        }
        self.silent.push((session, now));
        false
    }

    /// A process was heard of.
    pub(super) fn was_heard(&mut self, session: u128) {
        self.silent.retain(|(silent, _)| *silent != session);
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, session: u128) {
        self.was_heard(session);
        self.rivals.retain(|rival| rival.process.session != session);
        if self.held == Some(session) {
            self.held = None;
            self.invalidate();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(session: u128) -> Process {
        Process { session, places: vec![format!("node:{session}")], is_near: false }
    }

    fn sessions(processes: &Processes) -> Vec<u128> {
        processes.rivals().iter().map(|process| process.session).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_rival_that_took_part_and_comes_again_ends_what_the_held_one_sends() {
        let mut processes = Processes::default();
        assert!(!processes.hold(1), "the first");
        let valid = processes.validity();
        assert!(!processes.refuse(process(2), true), "it may have ended since");
        tokio::time::advance(AGAIN_AFTER).await;
        assert!(valid.load(Ordering::Acquire));
        assert!(processes.refuse(process(2), true));
        assert!(!valid.load(Ordering::Acquire));
        assert_eq!(sessions(&processes), [2]);
        assert!(!processes.refuse(process(2), true), "said once");
        processes.ended(2);
        assert_eq!(sessions(&processes), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_that_never_took_part_changes_nothing_however_often_it_comes() {
        let mut processes = Processes::default();
        processes.hold(1);
        let valid = processes.validity();
        for session in 2..100 {
            for _ in 0..3 {
                assert!(!processes.refuse(process(session), false));
                tokio::time::advance(AGAIN_AFTER).await;
            }
        }
        assert!(valid.load(Ordering::Acquire) && processes.rivals.len() <= RIVALS_MAX);
        assert_eq!(sessions(&processes), []);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_as_an_end_only_after_a_while_without_a_word() {
        let mut processes = Processes::default();
        processes.hold(1);
        assert!(!processes.was_silent(1));
        tokio::time::advance(SILENCE_MAX / 2).await;
        processes.was_heard(1);
        assert!(!processes.was_silent(1));
        tokio::time::advance(SILENCE_MAX).await;
        assert!(processes.was_silent(1));
        let valid = processes.validity();
        processes.ended(1);
        assert!(!valid.load(Ordering::Acquire) && processes.held().is_none());
        assert!(!processes.hold(2), "nothing was replaced: the first had ended");
    }
}
