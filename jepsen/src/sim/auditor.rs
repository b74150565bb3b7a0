//! The ack auditor: whoever is told that an append is committed must find it durable on a quorum.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorumlog::simulation::{DurableLog, DurableVote, SimDisk, may_lack_records_of};
use quorumlog::{LogId, Node, StorageError};

use super::node::data_dir;
use super::recovery::{Has, Id};

/// Looks at the durable images of all nodes, and remembers what it has read.
#[derive(Default)]
pub(crate) struct Auditor {
    disks: BTreeMap<u64, SimDisk>,
    logs: BTreeMap<(u64, LogId), DurableLog>,
    /// What nodes durably held when they lost it as members: that was promised, and is not broken by a loss that
    /// comes between the commit and its acknowledgement.
    lost: BTreeMap<(u64, LogId), DurableLog>,
    /// The voters of each log, as each node said last.
    voters: BTreeMap<(LogId, u64), BTreeSet<u64>>,
    /// Nodes whose disks were damaged: what they hold cannot be told.
    damaged: BTreeSet<u64>,
    audited: u64,
}

impl Auditor {
    /// A node has this disk from now on. `fresh` if nothing of the old one is on it.
    pub(crate) fn set_disk(&mut self, node: u64, disk: SimDisk, fresh: bool) {
        if fresh {
            self.damaged.remove(&node);
            let ids: Vec<LogId> =
                self.logs.keys().filter(|(owner, _)| *owner == node).map(|(_, log)| *log).collect();
            for log in ids {
                // What cannot be read is not counted.
                let _ = self.durable(node, log);
                let held = self.logs.remove(&(node, log));
                self.lost.extend(held.map(|held| ((node, log), held)));
            }
        }
        self.disks.insert(node, disk);
    }

    /// A node's disk was damaged.
    pub(crate) fn note_damage(&mut self, node: u64) {
        self.damaged.insert(node);
    }

    /// Acknowledgements that were looked at.
    pub(crate) fn audited(&self) -> u64 {
        self.audited
    }

    /// Takes note of who votes, as the nodes have it.
    pub(crate) fn note_voters(&mut self, nodes: &[(u64, Node)]) {
        for (id, node) in nodes {
            for status in node.statuses() {
                let members = status.members.into_iter().filter(|member| member.voter);
                let voters: BTreeSet<u64> = members.map(|member| member.member.id).collect();
                if !voters.is_empty() {
                    self.voters.insert((LogId(status.log_id), *id), voters);
                }
            }
        }
    }

    /// What a node durably holds of a log, read anew.
    pub(crate) fn durable(&mut self, node: u64, log: LogId) -> Result<&DurableLog, StorageError> {
        let durable = self.logs.entry((node, log));
        let durable = durable.or_insert_with(|| DurableLog::new(data_dir(), log));
        if let Some(disk) = self.disks.get(&node) {
            durable.refresh(disk)?;
        }
        Ok(durable)
    }

    /// The voter sets of a log, as the nodes have it.
    pub(crate) fn configs(&self, log: LogId) -> BTreeSet<BTreeSet<u64>> {
        let configs = self.voters.iter().filter(|((of, _), _)| *of == log);
        configs.map(|(_, voters)| voters.clone()).collect()
    }

    /// One past the last entry that a majority of voters durably holds.
    pub(crate) fn flushed_by_majority(&mut self, log: LogId) -> u64 {
        let configs = self.configs(log);
        let flushed = configs.iter().map(|voters| {
            let mut ends: Vec<u64> = voters.iter().map(|id| self.durable_end(*id, log)).collect();
            ends.sort_unstable();
            let highest = ends.get(ends.len() - (ends.len() / 2 + 1)).copied().unwrap_or(0);
            let agreed = |end: &u64| self.is_held_by_majority(log, voters, end - 1);
            (1..=highest).rev().find(agreed).unwrap_or(0)
        });
        flushed.min().unwrap_or(0)
    }

    /// True if a node may lack what it had acknowledged of a log.
    pub(crate) fn lacks(&self, node: u64, log: LogId) -> bool {
        self.disks.get(&node).is_some_and(|disk| may_lack_records_of(disk, data_dir(), log))
    }

    /// The term of the entry at `index` that a majority of voters durably holds, or held when it left; none if there is no
    /// such. 0 if so many have trimmed it that nobody can tell.
    pub(crate) fn flushed_term(&mut self, log: LogId, index: u64) -> Option<u64> {
        let configs = self.configs(log);
        for id in configs.iter().flatten() {
            // What cannot be read is not counted.
            let _ = self.durable(*id, log);
        }
        let term = |voters: &BTreeSet<u64>| self.term_of_majority(log, voters, index);
        configs.iter().find_map(term)
    }

    fn durable_end(&mut self, node: u64, log: LogId) -> u64 {
        // What cannot be read is not counted.
        self.durable(node, log).map_or(0, |durable| durable.end())
    }

    /// True if a majority durably holds the same entry, or has trimmed it.
    fn is_held_by_majority(&self, log: LogId, voters: &BTreeSet<u64>, index: u64) -> bool {
        self.term_of_majority(log, voters, index).is_some()
    }

    /// The term of that entry; 0 if a majority has trimmed it.
    fn term_of_majority(&self, log: LogId, voters: &BTreeSet<u64>, index: u64) -> Option<u64> {
        let held = voters.iter().filter_map(|id| self.logs.get(&(*id, log)));
        let mut trimmed = 0;
        let mut terms: BTreeMap<u64, usize> = BTreeMap::new();
        for durable in held {
            if durable.boundary().is_some_and(|(boundary, _)| boundary >= index) {
                trimmed += 1;
            } else if let Some(entry) = durable.entry(index) {
                *terms.entry(entry.term).or_default() += 1;
            }
        }
        if trimmed * 2 > voters.len() {
            // What another one still has there may be of a history that was given up.
            return Some(0);
        }
        let most = terms.into_iter().max_by_key(|(_, count)| *count);
        let (term, count) = most.unwrap_or((0, 0));
        ((trimmed + count) * 2 > voters.len()).then_some(term)
    }

    /// What a node durably has of an entry, by its index and term. An error if that cannot be read: a disk may be damaged, or
    /// be new.
    fn has_id(&mut self, node: u64, log: LogId, (index, term): Id) -> Result<Has, StorageError> {
        let durable = self.durable(node, log)?;
        Ok(match durable.boundary() {
            Some((boundary, _)) if boundary >= index => Has::Boundary,
            _ if durable.entry(index).is_some_and(|entry| entry.term == term) => Has::Entry,
            _ => Has::Neither,
        })
    }

    /// The same; nothing if it cannot be read.
    pub(super) fn has(&mut self, node: u64, log: LogId, id: Id) -> Has {
        self.has_id(node, log, id).unwrap_or(Has::Neither)
    }

    /// Whether a disk durably holds an entry, or has trimmed it. None if that cannot be read.
    pub(super) fn holds_id(&mut self, node: u64, log: LogId, id: Id) -> Option<bool> {
        self.has_id(node, log, id).ok().map(|has| has != Has::Neither)
    }

    /// A node's durable vote in a log.
    pub(crate) fn vote(&mut self, node: u64, log: LogId) -> Option<DurableVote> {
        let durable = self.logs.entry((node, log));
        let durable = durable.or_insert_with(|| DurableLog::new(data_dir(), log));
        durable.vote(self.disks.get(&node)?)
    }

    /// `payloads` were acknowledged from `index` on: some quorum must durably hold them. `nodes` gives those
    /// that run, in case that the voters have just changed.
    pub(crate) fn audit(
        &mut self,
        log: LogId,
        index: u64,
        payloads: &[Bytes],
        nodes: impl FnOnce() -> Vec<(u64, Node)>,
    ) -> Result<(), String> {
        self.audited += 1;
        let ids: Vec<u64> = self.disks.keys().copied().collect();
        let holders: BTreeSet<u64> =
            ids.into_iter().filter(|id| self.holds(*id, log, index, payloads)).collect();
        if self.is_quorum(log, &holders) {
            return Ok(());
        }
        self.note_voters(&nodes());
        if self.is_quorum(log, &holders) {
            return Ok(());
        }
        let voters: BTreeSet<_> = self
            .voters
            .iter()
            .filter(|((of, _), _)| *of == log)
            .map(|(_, voters)| voters)
            .collect();
        Err(format!(
            "index {index} ({} records) was acknowledged and is durable on nodes {holders:?} only; \
             voters are {voters:?}",
            payloads.len()
        ))
    }

    fn is_quorum(&self, log: LogId, holders: &BTreeSet<u64>) -> bool {
        let configs = self.voters.iter().filter(|((of, _), _)| *of == log);
        configs
            .into_iter()
            .any(|(_, voters)| voters.intersection(holders).count() * 2 > voters.len())
    }

    fn holds(&mut self, node: u64, log: LogId, index: u64, payloads: &[Bytes]) -> bool {
        let held = |durable: &DurableLog| {
            let last = index + payloads.len() as u64 - 1;
            let gone = durable.boundary().is_some_and(|(boundary, _)| boundary >= last);
            let same = |(index, payload): (u64, &Bytes)| {
                let gone = durable.boundary().is_some_and(|(boundary, _)| boundary >= index);
                gone || durable.entry(index).is_some_and(|entry| entry.payload == *payload)
            };
            gone || (index..).zip(payloads).all(same)
        };
        let known = [self.logs.get(&(node, log)), self.lost.get(&(node, log))];
        if known.into_iter().flatten().any(held) {
            return true;
        }
        let damaged = self.damaged.contains(&node);
        self.durable(node, log).map_or(damaged, held)
    }
}
