//! Appends, their answers, and how a suspect is trusted again.

use super::Cluster;
use super::log::Entry;
use super::rules::TrustedAt;
use super::state::{Acknowledged, Answer, Position, Role, State, Violation};

impl State {
    /// A leader appends an entry.
    pub(super) fn append(&mut self, cluster: &Cluster, leader: usize, sync: bool) {
        let node = &mut self.nodes[leader];
        node.log.push(Entry { term: node.term, sync });
        node.matched[leader] = node.log.len();
        if sync {
            node.flushed = node.log.len();
        }
        self.appends += 1;
        self.advance(cluster, leader);
    }

    /// A leader sends entries `prev + 1` to `end`, and a follower answers.
    pub(super) fn replicate(
        &mut self,
        cluster: &Cluster,
        leader: usize,
        to: usize,
        (prev, end): (u8, u8),
    ) {
        let term = self.nodes[leader].term;
        if term < self.nodes[to].term {
            return;
        }
        if term > self.nodes[to].term {
            self.save_vote(to, term, leader);
        }
        self.nodes[to].role = Role::Follower;
        if cluster.rules.compares_below_committed && self.rewinds(leader, to, (prev, end)) {
            return;
        }
        if !self.holds(cluster, leader, to, prev) {
            // A conflict: openraft asks for an earlier entry next.
            if prev <= self.nodes[to].log.len() {
                self.truncate(cluster, to, prev - 1);
            }
            return;
        }
        self.take_entries(cluster, leader, to, (prev, end));
        let (from, node) = (self.nodes[leader], &mut self.nodes[to]);
        node.committed = node.committed.max(from.committed.min(end));
        node.stable = node.stable.max(from.stable.min(end));
        if !cluster.rules.restarts_at_stable {
            node.committed_on_disk = node.committed_on_disk.max(node.committed);
        }
        self.trust_if_reached(cluster, to);
        let flushed = self.nodes[to].flushed.min(end);
        let (from, to) = (to as u8, leader as u8);
        self.send(cluster, Answer::Ack { from, to, term, matched: end, flushed });
    }

    /// AR8: a leader that contradicts what is committed here makes the node open its log again at
    /// what is stable (AR9). It stays as trusted as it was.
    fn rewinds(&mut self, leader: usize, to: usize, (prev, end): (u8, u8)) -> bool {
        let (from, node) = (&self.nodes[leader], &self.nodes[to]);
        let contradicts = |index: &u8| !node.log.agrees(&from.log, *index);
        let Some(index) = (prev.max(1)..=end.min(node.committed)).find(contradicts) else {
            return false;
        };
        if index <= node.stable {
            self.violation = Some(Violation::StableContradicted);
        } else if !self.too_many_suspects {
            self.violation = Some(Violation::CommittedContradicted);
        }
        self.restart(to, false);
        self.nodes[to].committed = self.nodes[to].stable;
        true
    }

    /// True if the follower takes an entry for the leader's. Without a comparison whatever lies
    /// below committed counts as the leader's, which openraft takes for granted.
    fn holds(&self, cluster: &Cluster, leader: usize, to: usize, index: u8) -> bool {
        let (from, node) = (&self.nodes[leader], &self.nodes[to]);
        let unseen = !cluster.rules.compares_below_committed && index <= node.committed;
        unseen || node.log.agrees(&from.log, index)
    }

    /// Stores what of the entries is missing. Later entries that the leader lacks go.
    fn take_entries(&mut self, cluster: &Cluster, leader: usize, to: usize, (prev, end): (u8, u8)) {
        let missing = (prev + 1..=end).find(|index| !self.holds(cluster, leader, to, *index));
        let Some(first) = missing else { return };
        if first <= self.nodes[to].log.len() {
            self.truncate(cluster, to, first - 1);
        }
        let from = self.nodes[leader].log;
        let node = &mut self.nodes[to];
        let stored = node.log.len() + 1..=end;
        stored.clone().for_each(|index| node.log.push(from.at(index)));
        let sync = stored.into_iter().any(|index| from.at(index).sync);
        if sync && cluster.rules.sync_is_flushed_everywhere {
            node.flushed = node.log.len();
        }
    }

    /// A truncation is durable, and flushes what it leaves.
    fn truncate(&mut self, cluster: &Cluster, node: usize, len: u8) {
        let node = &mut self.nodes[node];
        let settled = if cluster.rules.restarts_at_stable { node.stable } else { node.committed };
        if len < settled {
            self.violation = Some(Violation::TruncatedSettled);
        }
        node.log.truncate(len);
        node.flushed = node.log.len();
    }

    pub(super) fn acked(
        &mut self,
        cluster: &Cluster,
        (from, to): (u8, u8),
        term: u8,
        (matched, flushed): (u8, u8),
    ) {
        let (from, leader) = (usize::from(from), usize::from(to));
        let node = &mut self.nodes[leader];
        if node.role == Role::Leader && node.term == term {
            node.matched[from] = node.matched[from].max(matched);
            node.matched_flushed[from] = node.matched_flushed[from].max(flushed);
            self.advance(cluster, leader);
        }
    }

    /// A leader moves committed and stable to what majorities have written and flushed.
    pub(super) fn advance(&mut self, cluster: &Cluster, leader: usize) {
        let node = self.nodes[leader];
        let majority = |holds: &dyn Fn(usize) -> bool| {
            cluster.nodes().filter(|other| holds(*other)).count() as u32 >= cluster.majority()
        };
        let own = |index: &u8| node.log.term(*index) == node.term;
        let mut above = (node.committed + 1..=node.log.len()).rev().filter(own);
        if let Some(index) = above.find(|index| majority(&|other| node.matched[other] >= *index)) {
            (1..=index).for_each(|index| self.acknowledge(cluster, leader, index));
            let node = &mut self.nodes[leader];
            node.committed = index;
            if !cluster.rules.restarts_at_stable {
                node.committed_on_disk = node.committed_on_disk.max(index);
            }
        }
        let flushed = |other: usize| match other == leader {
            true => node.flushed,
            false => node.matched[other].min(node.matched_flushed[other]),
        };
        // Its `committed` may be from before too many lost pages, and an older entry that a
        // majority has flushed can still be overruled (AR2).
        let counts = |index: &u8| own(index) || !cluster.rules.stable_of_own_term;
        let mut above = (node.stable + 1..=self.nodes[leader].committed).rev().filter(counts);
        if let Some(index) = above.find(|index| majority(&|other| flushed(other) >= *index)) {
            self.nodes[leader].stable = index;
        }
    }

    /// A caller is told. After too many nodes lost pages, this can rest on answers from before:
    /// then it promises something only if a majority holds the entry.
    fn acknowledge(&mut self, cluster: &Cluster, leader: usize, index: u8) {
        let by = self.nodes[leader].term;
        let Entry { term, sync } = self.nodes[leader].log.at(index);
        let holders = cluster.nodes().filter(|node| self.nodes[*node].log.term(index) == term);
        let held = holders.count() as u32 >= cluster.majority();
        let promised = sync || held || !self.too_many_suspects;
        let known = self.acknowledged.iter_mut().find(|a| (a.index, a.term) == (index, term));
        match known {
            Some(known) if promised && !known.promised => (known.promised, known.by) = (true, by),
            Some(known) => known.by = known.by.min(by),
            None => self.acknowledged.push(Acknowledged { index, term, by, sync, promised }),
        }
        self.acknowledged.sort_unstable();
    }

    /// A leader tells a suspect how far it has to come (AR6).
    pub(super) fn tell_position(&mut self, cluster: &Cluster, leader: usize, to: usize) {
        let node = &self.nodes[leader];
        let index = match cluster.rules.trusted_at {
            TrustedAt::CommittedOfLeader => node.committed,
            TrustedAt::EndOfLeader | TrustedAt::FirstAppend => node.log.len(),
        };
        let position = Position { term: node.term, index, entry_term: node.log.term(index) };
        let (from, to) = (leader as u8, to as u8);
        self.send(cluster, Answer::Position { from, to, position });
    }

    pub(super) fn told_position(&mut self, cluster: &Cluster, to: u8, position: Position) {
        let suspect = usize::from(to);
        let node = &mut self.nodes[suspect];
        let current = position.term >= node.term || !cluster.rules.position_is_current;
        if node.suspect && current {
            node.position = Some(position);
            if cluster.rules.trusted_at != TrustedAt::FirstAppend {
                self.trust_if_reached(cluster, suspect);
            }
        }
    }

    fn trust_if_reached(&mut self, cluster: &Cluster, suspect: usize) {
        let node = &mut self.nodes[suspect];
        let Some(position) = node.position.filter(|_| node.suspect) else { return };
        let held = position.index == 0
            || (node.log.len() >= position.index
                && node.log.term(position.index) == position.entry_term);
        if held || cluster.rules.trusted_at == TrustedAt::FirstAppend {
            node.suspect = false;
            node.position = None;
        }
    }
}
