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
pub(super) const RIVAL_HOLDS: Duration = Duration::from_secs(4);
/// Sessions of one member that are remembered beside the held one.
const RIVALS_MAX: usize = 4;

/// A process with a member's data.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) session: u128,
    /// Where it listens, as it says or as it was reached.
    pub(super) places: Vec<String>,
    /// Where it may listen, too: its port on the host that it dialed from. A copy may tell the address of the original.
    pub(super) source: Option<String>,
    /// It has said hello a moment ago, and was refused.
    pub(super) is_near: bool,
    /// A connection on which it has dialed is open.
    pub(super) is_connected: bool,
}

impl Process {
    /// True if it must have ended, since another process answers at `addr`: it can be nowhere else.
    pub(super) fn is_replaced_at(&self, addr: &str) -> bool {
        let nowhere_else = self.all_places().all(|place| place == addr);
        !self.is_near && !self.places.is_empty() && nowhere_else
    }

    /// Everywhere where it may be.
    pub(super) fn all_places(&self) -> impl Iterator<Item = &str> {
        let source = self.source.iter().filter(|source| !self.places.contains(source));
        let source = source.filter(|_| !Mutant::SourceForgotten.is_active());
        self.places.iter().chain(source).map(String::as_str)
    }

    /// True if it does not matter that nobody answers at `place`. All connections of the process have ended, and either the
    /// place is only a guess, such as the port on the host of an address translation; or the process that comes now tells
    /// this place from the same host: it has bound the port, and may not answer yet.
    pub(super) fn may_be_silent_at(&self, place: &str, told: &str, source: &str) -> bool {
        let is_guess = !self.places.iter().any(|other| other == place);
        let is_taken = place == told && self.source.as_deref() == Some(source);
        !self.is_connected && !Mutant::SourceMustAnswer.is_active() && (is_guess || is_taken)
    }
}

/// What comes of a look for a process that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Its connections bring something.
    Runs,
    Unknown,
    /// It has been silent for so long that it counts as ended.
    Ended,
}

/// What the connections of one held process share.
#[derive(Debug, Default)]
pub(super) struct Validity {
    counts: AtomicBool,
    /// Something has come in since the process was last looked for.
    heard: AtomicBool,
}

impl Validity {
    /// Something has come in. True if it counts.
    pub(super) fn hear(&self) -> bool {
        self.heard.store(true, Ordering::Relaxed);
        self.counts.load(Ordering::Acquire)
    }
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

/// A process that is looked for in vain.
#[derive(Debug)]
struct Silence {
    session: u128,
    /// When it was first looked for.
    first: Instant,
    /// When it was looked for last.
    last: Instant,
    since: Instant,
}

/// The processes that have one member's data.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// The session that counts.
    held: Option<u128>,
    valid: Arc<Validity>,
    rivals: Vec<Rival>,
    silent: Vec<Silence>,
}

impl Processes {
    pub(super) fn held(&self) -> Option<u128> {
        self.held
    }

    /// True if a connection of the held process is open.
    pub(super) fn is_connected(&self) -> bool {
        // Each has a share of it.
        Arc::strong_count(&self.valid) > 1
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

    /// Lets `session` count from now on, and gives what its connections share. None, and nothing changes, if another process
    /// may still run: it may have come in since the last look.
    pub(super) fn hold(&mut self, session: u128) -> Option<Arc<Validity>> {
        let held = self.held.filter(|held| *held != session);
        let rival = |rival: &Rival| rival.counts && rival.process.session != session;
        let taken = held.is_some() || self.rivals.iter().any(rival);
        if taken && !Mutant::HeldReplacedUnseen.is_active() {
            return None;
        }
        self.held = Some(session);
        self.rivals.retain(|rival| rival.process.session != session);
        if held.is_some() || !self.valid.counts.load(Ordering::Acquire) {
            self.invalidate();
        }
        Some(Arc::clone(&self.valid))
    }

    /// Ends what came in so far.
    fn invalidate(&mut self) {
        self.valid.counts.store(false, Ordering::Release);
        self.valid = Arc::new(Validity { counts: AtomicBool::new(true), ..Validity::default() });
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

    /// A process was looked for and did not answer. What it sends on its connections ends a silence. So does a pause
    /// between two looks: it may have answered meanwhile.
    pub(super) fn was_silent(&mut self, session: u128) -> Look {
        let now = Instant::now();
        let heard = self.held == Some(session) && self.valid.heard.swap(false, Ordering::Relaxed);
        if !Mutant::SilenceKept.is_active() {
            self.silent.retain(|silence| now.duration_since(silence.last) <= SILENCE_MAX);
        }
        if !self.silent.iter().any(|silence| silence.session == session) {
            if self.silent.len() > RIVALS_MAX {
                self.silent.remove(0);
            }
            self.silent.push(Silence { session, first: now, last: now, since: now });
            return Look::Unknown;
        }
        let silence = self.silent.iter_mut().find(|silence| silence.session == session);
        let silence = silence.expect("it was put there");
        silence.last = now;
        if heard && !Mutant::SilenceKept.is_active() {
            silence.since = now;
            // What it sent before its end may be read late.
            let again = now.duration_since(silence.first) >= AGAIN_AFTER;
            return if again { Look::Runs } else { Look::Unknown };
        }
        if now.duration_since(silence.since) < SILENCE_MAX { Look::Unknown } else { Look::Ended }
    }

    /// A process was heard of.
    pub(super) fn was_heard(&mut self, session: u128) {
        self.silent.retain(|silence| silence.session != session);
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
        let (source, is_near, is_connected) = (None, false, false);
        Process { session, places: vec![format!("node:{session}")], source, is_near, is_connected }
    }

    fn sessions(processes: &Processes) -> Vec<u128> {
        processes.rivals().iter().map(|process| process.session).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_rival_that_took_part_and_comes_again_ends_what_the_held_one_sends() {
        let mut processes = Processes::default();
        let valid = processes.hold(1).expect("the first");
        assert!(!processes.refuse(process(2), true), "it may have ended since");
        tokio::time::advance(AGAIN_AFTER).await;
        assert!(valid.hear());
        assert!(processes.refuse(process(2), true));
        assert!(!valid.hear());
        assert_eq!(sessions(&processes), [2]);
        assert!(!processes.refuse(process(2), true), "said once");
        processes.ended(2);
        assert_eq!(sessions(&processes), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_that_never_took_part_changes_nothing_however_often_it_comes() {
        let mut processes = Processes::default();
        let valid = processes.hold(1).expect("the first");
        for session in 2..100 {
            for _ in 0..3 {
                assert!(!processes.refuse(process(session), false));
                tokio::time::advance(AGAIN_AFTER).await;
            }
        }
        assert!(valid.hear() && processes.rivals.len() <= RIVALS_MAX);
        assert_eq!(sessions(&processes), []);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_as_an_end_only_after_a_while_without_a_word() {
        let mut processes = Processes::default();
        let valid = processes.hold(1).expect("the first");
        assert_eq!(processes.was_silent(1), Look::Unknown);
        tokio::time::advance(SILENCE_MAX / 2).await;
        processes.was_heard(1);
        assert_eq!(processes.was_silent(1), Look::Unknown);
        tokio::time::advance(SILENCE_MAX).await;
        assert_eq!(processes.was_silent(1), Look::Ended);
        processes.ended(1);
        assert!(!valid.hear() && processes.held().is_none());
        processes.hold(2).expect("the first has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_long_ago_or_before_the_last_frame_counts_for_nothing() {
        let mut processes = Processes::default();
        let valid = processes.hold(1).expect("the first");
        assert_eq!(processes.was_silent(1), Look::Unknown);
        tokio::time::advance(SILENCE_MAX * 100).await;
        assert!(valid.hear());
        assert_eq!(processes.was_silent(1), Look::Unknown, "it may have answered in between");
        assert!(valid.hear());
        assert_eq!(processes.was_silent(1), Look::Unknown, "that may have been read late");
        for _ in 0..10 {
            tokio::time::advance(SILENCE_MAX / 2).await;
            assert!(valid.hear());
            assert_eq!(processes.was_silent(1), Look::Runs, "its connections live");
        }
        tokio::time::advance(SILENCE_MAX / 2).await;
        assert_eq!(processes.was_silent(1), Look::Unknown);
        tokio::time::advance(SILENCE_MAX / 2).await;
        assert_eq!(processes.was_silent(1), Look::Ended);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_come_once_the_held_one_has_ended_only_the_first_gets_in_unseen() {
        let mut processes = Processes::default();
        processes.hold(1);
        processes.ended(1);
        let valid = processes.hold(2).expect("nobody else is there");
        // It was let in by the same end of the first.
        processes.ended(1);
        assert!(processes.hold(3).is_none());
        assert!(valid.hear() && processes.held() == Some(2));

        processes.refuse(process(3), true);
        tokio::time::advance(AGAIN_AFTER).await;
        assert!(processes.refuse(process(3), true));
        assert!(processes.hold(2).is_none(), "the rival may run");
        processes.ended(3);
        processes.hold(2).expect("the rival has ended");
    }

    #[test]
    fn a_process_is_replaced_only_where_it_can_be_nowhere_else() {
        let at = |places: &[&str], is_near| {
            let places = places.iter().map(ToString::to_string).collect();
            Process { places, is_near, ..process(1) }
        };
        assert!(at(&["a:1"], false).is_replaced_at("a:1"));
        assert!(!at(&["a:1", "b:1"], false).is_replaced_at("a:1"));
        assert!(!at(&["a:1"], true).is_replaced_at("a:1"));
        assert!(!at(&[], false).is_replaced_at("a:1"));
    }

    #[test]
    fn silence_matters_only_where_the_process_may_be() {
        let source = Some("nat:1".to_owned());
        let places = vec!["a:1".to_owned(), "c:1".to_owned()];
        let gone = Process { places, source, ..process(1) };
        assert_eq!(gone.all_places().collect::<Vec<_>>(), ["a:1", "c:1", "nat:1"]);
        assert!(gone.may_be_silent_at("nat:1", "a:1", "b:1"), "a guess");
        assert!(gone.may_be_silent_at("a:1", "a:1", "nat:1"), "its port is taken");
        assert!(!gone.may_be_silent_at("a:1", "a:1", "b:1"), "the newcomer is on another host");
        assert!(!gone.may_be_silent_at("c:1", "a:1", "nat:1"), "it was found there");
        let source = Some("a:1".to_owned());
        let at_home = Process { source, ..gone.clone() };
        assert!(!at_home.may_be_silent_at("a:1", "a:1", "b:1"), "it was told, too");
        let connected = Process { is_connected: true, ..gone };
        assert!(!connected.may_be_silent_at("nat:1", "a:1", "nat:1"));
        assert!(!connected.may_be_silent_at("a:1", "a:1", "nat:1"));
    }
}
