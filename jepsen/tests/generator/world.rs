//! A log, the clients around it, and what is recorded of them.

use std::collections::BTreeMap;

use jepsen::{
    Action, Entry, EntryKind, Fault, History, Leader, Liveness, Observation, Operation, Outcome,
    Replica, Requirements, Trim, Vote,
};

use super::Random;

struct Subscription {
    number: u64,
    start: u64,
    next: u64,
}

pub(super) struct World {
    random: Random,
    history: History,
    /// Three nodes with faults; else a log and its clients alone.
    cluster: bool,
    healed: bool,
    /// How far at most a call lies before the moment at which it takes effect, and a return behind it.
    spread: u64,
    now: u64,
    term: u64,
    leader: u64,
    value: u64,
    entries: Vec<Entry>,
    /// Index and value of the records that readers see.
    visible: Vec<(u64, u64)>,
    /// First index that is not trimmed, now and before.
    begins: Vec<u64>,
    nodes: BTreeMap<u64, Observation>,
    subscriptions: Vec<Subscription>,
    subscribed: u64,
}

impl World {
    pub(super) fn new(seed: u64, spread: u64) -> Self {
        Self {
            random: Random(seed),
            history: History::default(),
            cluster: false,
            healed: false,
            spread,
            now: 1_000,
            term: 1,
            leader: 1,
            value: 1,
            entries: Vec::new(),
            visible: Vec::new(),
            begins: vec![0],
            nodes: BTreeMap::new(),
            subscriptions: Vec::new(),
            subscribed: 0,
        }
    }

    /// Makes it three nodes with a leader.
    pub(super) fn found(&mut self) {
        self.cluster = true;
        self.entries.push(Entry { index: 0, term: 0, kind: EntryKind::Membership, value: 7 });
        let blank = |node| Observation { node, ..Observation::default() };
        self.nodes = (1..=3).map(|node| (node, blank(node))).collect();
        self.history.required = Requirements {
            faults: ["kill", "partition"].map(str::to_owned).into(),
            leader_changes: 1,
            liveness: Some(Liveness {
                converge_within: 1_000,
                respond_within: Some(2 * self.spread),
            }),
            ..Requirements::default()
        };
        for kind in ["kill", "partition"] {
            self.fault(kind);
        }
        self.elect(1);
        self.elect(2);
        // Something that retention may take.
        for _ in 0..3 {
            self.append(1);
        }
    }

    fn tick(&mut self) {
        self.now += 1 + self.random.below(20);
    }

    /// One past the last index.
    fn end_index(&self) -> u64 {
        self.entries.len() as u64
    }

    fn begin(&self) -> u64 {
        self.begins.last().copied().unwrap_or(0)
    }

    fn push(&mut self, kind: EntryKind, value: u64) -> u64 {
        let index = self.end_index();
        self.entries.push(Entry { index, term: self.term, kind, value });
        index
    }

    fn elect(&mut self, leader: u64) {
        self.tick();
        self.term += 1 + self.random.below(2);
        self.leader = leader;
        self.push(EntryKind::Blank, 0);
        if self.cluster {
            let (time, node, term) = (self.now, leader, self.term);
            self.history.leaders.push(Leader { time, node, term });
        }
    }

    fn fault(&mut self, kind: &str) {
        self.tick();
        let (time, kind) = (self.now, kind.to_owned());
        let bites = 1 + self.random.below(3);
        self.history.faults.push(Fault { time, kind, injected: 1, bites });
    }

    /// Something that happens to the cluster, perhaps.
    pub(super) fn disturb(&mut self) {
        match self.random.below(30) {
            0 | 1 if !self.healed => self.fault("kill"),
            2 if !self.healed => self.fault("partition"),
            3 => {
                let leader = 1 + self.random.below(3);
                self.elect(leader);
            }
            4 => {
                self.push(EntryKind::Membership, 9);
            }
            5 | 6 => self.trim(),
            _ => {}
        }
    }

    fn trim(&mut self) {
        let (begin, end) = (self.begin(), self.end_index());
        let before = begin + self.random.below(end.saturating_sub(begin + 4).max(1));
        if before > begin {
            self.history.trims.push(Trim { time: self.now, before });
            self.begins.push(before);
            // Those that were behind would be told so, and start over.
            self.subscriptions.retain(|subscription| subscription.next >= before);
        }
    }

    pub(super) fn heal(&mut self) {
        self.now += 2 * self.spread;
        self.history.healed = Some(self.now);
        self.now += 100;
        self.history.converged = Some(self.now);
        self.now += 2 * self.spread;
        self.healed = true;
    }

    fn record(&mut self, outcome: Outcome, action: Action) {
        let call = self.now - self.random.below(self.spread);
        let ret = self.now + self.random.below(self.spread);
        let told = outcome != Outcome::Info || self.random.chance(50);
        let process = self.history.operations.len() as u64 % 8;
        let ret = told.then_some(ret);
        self.history.operations.push(Operation { process, call, ret, outcome, action });
    }

    /// One operation of a client.
    pub(super) fn operate(&mut self) {
        self.tick();
        match self.random.below(100) {
            0..=44 => self.append(1),
            45..=57 => {
                let count = 2 + self.random.below(3);
                self.append(count);
            }
            58..=74 => self.read(),
            75..=79 => {
                let bound = Some(self.end_index());
                self.record(Outcome::Ok, Action::Tail { bound });
            }
            80..=89 if self.cluster => self.deliver(),
            _ => self.read(),
        }
        // Blanks and memberships take indexes that readers never see.
        if !self.cluster && self.random.chance(8) {
            self.push(EntryKind::Blank, 0);
        }
    }

    fn append(&mut self, count: u64) {
        let values: Vec<u64> = (self.value..self.value + count).collect();
        self.value += count;
        let action = |index: Option<u64>, term| match values[..] {
            [value] => Action::Append { value, index, term },
            _ => Action::AppendBatch { values: values.clone(), index, term },
        };
        let asked = action(None, None);
        match self.random.below(20) {
            0 | 1 if !self.healed => self.record(Outcome::Fail, asked),
            2 | 3 if !self.healed => self.record(Outcome::Info, asked),
            4 if !self.healed && count > 1 => {
                // Its leader died, and the next one committed the first part of it.
                for &value in &values[..1 + self.random.below(count - 1) as usize] {
                    self.push(EntryKind::Record, value);
                }
                self.elect(self.leader % 3 + 1);
                self.record(Outcome::Info, asked);
            }
            unsure => {
                let first = self.end_index();
                for &value in &values {
                    let index = self.push(EntryKind::Record, value);
                    self.visible.push((index, value));
                }
                if unsure == 5 && !self.healed {
                    self.record(Outcome::Info, asked);
                } else {
                    self.record(Outcome::Ok, action(Some(first), Some(self.term)));
                }
            }
        }
    }

    fn records(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let inside = |record: &&(u64, u64)| (from..to).contains(&record.0);
        self.visible.iter().filter(inside).copied().collect()
    }

    fn read(&mut self) {
        let (begin, end) = (self.begin(), self.end_index());
        let linearizable = self.random.chance(50);
        let stale = if linearizable { 0 } else { self.random.below(6) };
        let to = end.saturating_sub(stale).max(begin);
        let from = begin + self.random.below(to - begin + 1);
        let records = self.records(from, to);
        let bound = linearizable.then_some(to);
        self.record(Outcome::Ok, Action::Read { from, to, records, bound });
    }

    fn deliver(&mut self) {
        if self.subscriptions.is_empty() || self.random.chance(10) {
            let start = self.begin() + self.random.below(self.end_index() - self.begin() + 1);
            self.subscribed += 1;
            let number = self.subscribed;
            self.subscriptions.push(Subscription { number, start, next: start });
        }
        let at = self.random.below(self.subscriptions.len() as u64) as usize;
        let subscription = &self.subscriptions[at];
        let mut records = self.records(subscription.next, self.end_index());
        records.truncate(1 + self.random.below(3) as usize);
        let Some(last) = records.last() else { return };
        let subscription = &mut self.subscriptions[at];
        subscription.next = last.0 + 1;
        let (subscription, start) = (subscription.number, subscription.start);
        // One subscriber does one thing after the other.
        let (call, ret, outcome) = (self.now, Some(self.now), Outcome::Ok);
        let (process, action) = (50, Action::Deliver { subscription, start, records });
        self.history.operations.push(Operation { process, call, ret, outcome, action });
    }

    /// What a node says about itself, perhaps.
    pub(super) fn observe(&mut self) {
        let id = 1 + self.random.below(3);
        let (now, term, leader, begin) = (self.now, self.term, self.leader, self.begin());
        let end = self.end_index();
        let random = &mut self.random;
        let Some(node) = self.nodes.get_mut(&id).filter(|_| random.chance(50)) else { return };
        if random.chance(10) {
            // It knows again only what is on disk.
            node.restarts += 1;
            node.committed = node.begin;
            node.applied = Some(node.begin);
        }
        node.time = now;
        if random.chance(70) {
            let vote = Vote { term, node: leader, committed: random.chance(50) };
            let old = node.vote.filter(|old| old.term == term && old.committed);
            (node.term, node.vote) = (term, Some(old.unwrap_or(vote)));
        }
        node.committed = node.committed.max(begin);
        node.committed += random.below(end - node.committed + 1);
        node.begin = if random.chance(50) { begin } else { node.begin };
        let applied = node.applied.unwrap_or(0).max(node.begin);
        node.applied = Some(applied + random.below(node.committed - applied + 1));
        node.end = end;
        self.history.observations.push(node.clone());
    }

    pub(super) fn end(mut self) -> History {
        if self.cluster {
            self.append(1);
        }
        self.now += 1_000;
        let (from, to) = (self.begin(), self.end_index());
        let action = Action::FinalRead { from, to, records: self.records(from, to) };
        let (call, ret, outcome) = (self.now, Some(self.now + 1), Outcome::Ok);
        self.history.operations.push(Operation { process: 99, call, ret, outcome, action });
        self.history.operations.sort_by_key(|op| op.call);
        for &node in self.nodes.keys() {
            // Nodes trim at different times.
            let begin = self.random.pick(&self.begins).copied().unwrap_or(0);
            let entries = self.entries[begin as usize..].to_vec();
            let last = begin.checked_sub(1).map(|last| self.entries[last as usize]);
            let boundary = last.map(|last| (last.index, last.term));
            let time = self.now + 1 + node;
            let replica = Replica { time, node, boundary, begin, committed: to, entries };
            self.history.replicas.push(replica);
        }
        self.history
    }
}
