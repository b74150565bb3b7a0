//! What the facts of a run must satisfy.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Facts, FinalQueue, HandedBack, Held, QueueName, Return, Returned, Send, Told};
use super::message::index_of;
use super::{TOPICS, dead_topic, note_begins, retry_topic, suppresses};
use crate::sim::fault::Class;
use crate::sim::shared::Shared;

/// Sends that must be acknowledged, and how many of a hundred, or the run shows too little.
const STORED_MIN: usize = 20;
const STORED_PERCENT: usize = 20;
/// A delayed message may come this part of its delay too early (docs/broker.md, clocks), and by a tick or two.
const EARLY: u64 = 256;
const TICKS_MS: u64 = 3;
/// What the judge counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) operations: u64,
    pub(crate) acknowledged: u64,
    /// Why the run shows too little.
    pub(crate) vacuous: Vec<String>,
}

/// Compares what clients were told with what is there in the end, and reports what does not hold.
pub(crate) fn judge(shared: &Shared) -> Counts {
    let (breaches, counts) = {
        note_begins(shared);
        let facts = shared.broker.facts();
        let mut judge = Judge::new(&facts, shared);
        judge.queues();
        judge.sends();
        judge.returned();
        judge.skipped();
        judge.strangers();
        (judge.breaches, judge.counts)
    };
    for (kind, detail) in breaches {
        shared.breach(kind, detail);
    }
    counts
}

/// True if something is missing that may still come: a message that waits for its time.
pub(super) fn awaits(shared: &Shared) -> bool {
    note_begins(shared);
    let facts = shared.broker.facts();
    let mut judge = Judge::new(&facts, shared);
    judge.sends();
    judge.returned();
    judge.breaches.iter().any(|(kind, _)| ["lost-delayed", "lost-returned"].contains(kind))
}

/// Where a message is: its queue, its offset and its physical offset.
type At<'a> = (&'a QueueName, u64, u64);

struct Judge<'a> {
    facts: &'a Facts,
    begins: BTreeMap<u32, u64>,
    /// Copies are suppressed.
    once: bool,
    /// No clock was ever wrong.
    clocks_are_right: bool,
    /// Where the messages of producers are, by log and number.
    places: BTreeMap<(u32, u64), Vec<At<'a>>>,
    breaches: Vec<(&'static str, String)>,
    counts: Counts,
}

impl<'a> Judge<'a> {
    fn new(facts: &'a Facts, shared: &Shared) -> Self {
        let mut places: BTreeMap<_, Vec<At<'a>>> = BTreeMap::new();
        for (name, queue) in &facts.in_the_end {
            let ours = TOPICS.contains(&name.1.as_str());
            for message in queue.messages.iter().filter(|_| ours) {
                if let Some(id) = message.id {
                    let at = (name, message.offset, message.physical);
                    places.entry((name.0, id)).or_default().push(at);
                }
            }
        }
        Self {
            facts,
            begins: facts.begun.clone(),
            once: suppresses(&shared.profile),
            clocks_are_right: !shared.profile.classes.contains(&Class::Clock),
            places,
            breaches: Vec::new(),
            counts: count(facts),
        }
    }

    fn breach(&mut self, kind: &'static str, detail: String) {
        self.breaches.push((kind, detail));
    }

    fn begin(&self, log: u32) -> u64 {
        self.begins.get(&log).copied().unwrap_or(0)
    }

    /// Offsets are dense, and times of storing do not go back.
    fn queues(&mut self) {
        let facts = self.facts;
        for (name, queue) in &facts.in_the_end {
            let FinalQueue { min, max, messages } = queue;
            let offsets: Vec<_> = messages.iter().map(|message| message.offset).collect();
            if !offsets.iter().copied().eq(*min..*max) {
                self.breach("not-dense", format!("{name:?}: {min}..{max}, and it has {offsets:?}"));
            }
            for pair in messages.windows(2) {
                if pair[0].stored_ms <= pair[1].stored_ms {
                    continue;
                }
                self.breach("stored-time", format!("{name:?}: times go back: {pair:?}"));
            }
        }
    }

    /// What was acknowledged is there where its producer was told, as often as it was sent, or once; what was refused is not.
    fn sends(&mut self) {
        let facts = self.facts;
        let mut attempts: BTreeMap<(u32, u64), Vec<&Send>> = BTreeMap::new();
        for send in &facts.sends {
            for id in &send.ids {
                attempts.entry((send.queue.0, *id)).or_default().push(send);
            }
        }
        for ((log, id), attempts) in &attempts {
            let found = self.places.get(&(*log, *id)).cloned().unwrap_or_default();
            let stored =
                attempts.iter().filter(|send| !matches!(send.told, Told::Refused(_))).count();
            let is_batch = attempts.iter().any(|send| send.ids.len() > 1);
            let most = if self.once && !is_batch { stored.min(1) } else { stored };
            if found.len() > most {
                let kind = if most == 0 { "refused-stored" } else { "stored-twice" };
                self.breach(kind, format!("message {id}: {attempts:?}, and it is at {found:?}"));
            }
            for send in attempts {
                if let Some((name, ..)) = found.iter().find(|(name, ..)| **name != send.queue) {
                    self.breach("other-queue", format!("message {id} of {send:?} is in {name:?}"));
                }
                self.told(send, *id, &found, attempts.len() == 1);
            }
        }
        for send in facts.sends.iter().filter(|send| send.ids.len() > 1) {
            self.whole(send);
        }
    }

    /// What is there of one message agrees with what its producer was told of one attempt.
    fn told(&mut self, send: &Send, id: u64, found: &[At<'_>], is_only: bool) {
        let part = send.ids.iter().position(|of| *of == id).unwrap_or(0);
        let begin = self.begin(send.queue.0);
        match &send.told {
            Told::Nothing | Told::Refused(_) => {}
            _ if send.delay_ms > 0 => self.delayed(send, found, is_only),
            Told::Appended { physicals } => {
                let due = physicals.get(part).copied().unwrap_or_default();
                // If it was sent again, what is there may be of another attempt.
                if is_only && found.iter().any(|(_, _, physical)| *physical != due) {
                    self.breach("other-place", format!("{send:?}: {found:?}"));
                }
            }
            Told::Stored { offset, physicals } => {
                let due = (offset + part as u64, physicals.get(part).copied().unwrap_or_default());
                let is_there = found.iter().any(|(_, offset, place)| (*offset, *place) == due);
                // What the log does not hold any more is gone.
                if is_there || index_of(due.1) < begin {
                    return;
                }
                let kind = if found.is_empty() { "lost-message" } else { "other-place" };
                let detail =
                    format!("{send:?}, message {id}: {found:?}; the log begins at {begin}");
                self.breach(kind, detail);
            }
        }
    }

    /// A delayed message is there after its time, if it was acknowledged and its log still held it then.
    fn delayed(&mut self, send: &Send, found: &[At<'_>], is_only: bool) {
        let log = send.queue.0;
        if let (Told::Stored { physicals, .. }, []) = (&send.told, found) {
            let waits_at = physicals.first().copied().unwrap_or_default();
            if index_of(waits_at) >= self.begin(log) {
                let detail = format!("{send:?}; the log begins at {}", self.begin(log));
                self.breach("lost-delayed", detail);
            }
        }
        // A clock that was wrong makes messages early if their leader did not see them come (docs/broker.md, clocks).
        if !self.clocks_are_right || !is_only {
            return;
        }
        let due_ms = send.at_ms + send.delay_ms - send.delay_ms / EARLY - TICKS_MS;
        for (_, _, physical) in found {
            let at_ms = self.facts.applied_ms(log, index_of(*physical));
            if let Some(at_ms) = at_ms.filter(|at_ms| *at_ms < due_ms) {
                self.breach("delayed-early", format!("{send:?} came at {at_ms} ms: {found:?}"));
            }
        }
    }

    /// A batch is there as a whole or not at all.
    fn whole(&mut self, send: &Send) {
        let at = send.ids.iter().map(|id| self.places.get(&(send.queue.0, *id)));
        let at: Vec<Option<u64>> = at.map(|at| Some(at?.first()?.1)).collect();
        let offsets: Vec<u64> = at.iter().flatten().copied().collect();
        let follow = offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        if !(offsets.is_empty() || offsets.len() == at.len()) || !follow {
            self.breach("batch-in-parts", format!("{send:?}: {at:?}"));
        }
    }

    /// What was handed back comes again once, or is one dead letter.
    fn returned(&mut self) {
        let facts = self.facts;
        for Return { what, told, at_ms, behind } in &facts.returned {
            let HandedBack { log, group, id, times, is_dead } = what;
            let topic = if *is_dead { dead_topic(group) } else { retry_topic(group) };
            let queue = facts.in_the_end.get(&(*log, topic, 0));
            let messages = queue.into_iter().flat_map(|queue| &queue.messages);
            let found =
                messages.filter(|message| message.id == Some(*id) && message.reconsumed == *times);
            let found = found.count();
            let begin = self.begin(*log);
            let detail = || {
                let all = facts.in_the_end.iter().flat_map(|(name, queue)| {
                    queue.messages.iter().map(move |message| (name, message))
                });
                let all = all.filter(|(_, message)| message.id == Some(*id));
                let all: Vec<_> = all.map(|(name, of)| (name, of.offset, of.reconsumed)).collect();
                format!(
                    "{what:?} at {at_ms} ms, {told:?}: {found} times; it is at {all:?}, and the log \
                     begins at {begin}, was applied to {behind}; the topic ends at {:?}",
                    queue.map(|queue| queue.max)
                )
            };
            match (told, found) {
                (Returned::Refused, 1..) => self.breach("refused-stored", detail()),
                (_, 2..) => self.breach("returned-twice", detail()),
                // What was appended since may be gone by now.
                (Returned::Stored, 0) if begin <= *behind => self.breach("lost-returned", detail()),
                _ => {}
            }
        }
    }

    /// Nobody was sent on over a message that all logs hold. Each node trims its own log: what the one that served the pull had
    /// let go, another may still hold.
    fn skipped(&mut self) {
        let facts = self.facts;
        for (name, range, begin) in &facts.skipped {
            let Some(queue) = facts.in_the_end.get(name) else { continue };
            let begin = self.begin(name.0).max(*begin);
            let over = queue.messages.iter().filter(|message| range.contains(&message.offset));
            if let Some(message) = over.into_iter().find(|of| index_of(of.physical) >= begin) {
                let detail = format!("{name:?}: {range:?} over {message:?}; begins at {begin}");
                self.breach("pull-skips", detail);
            }
        }
    }

    /// Nothing is there that nobody sent.
    fn strangers(&mut self) {
        let facts = self.facts;
        let sent: BTreeSet<u64> = facts.sends.iter().flat_map(|send| &send.ids).copied().collect();
        let is_stranger = |held: &Held| held.id.is_none_or(|id| !sent.contains(&id));
        for (place, held) in facts.seen.iter().filter(|(_, held)| is_stranger(held)) {
            self.breach("nobody-sent", format!("{place:?}: {held:?}"));
        }
    }
}

fn count(facts: &Facts) -> Counts {
    let sends = &facts.sends;
    let stored = sends.iter().filter(|send| matches!(send.told, Told::Stored { .. })).count();
    let mut vacuous = Vec::new();
    if stored < STORED_MIN || stored * 100 < sends.len() * STORED_PERCENT {
        vacuous.push(format!("{stored} of {} sends were acknowledged", sends.len()));
    }
    if facts.states_compared == 0 {
        vacuous.push("no two states were compared".to_owned());
    }
    let operations = sends.len() + facts.seen.len() + facts.returned.len();
    Counts { operations: operations as u64, acknowledged: stored as u64, vacuous }
}
