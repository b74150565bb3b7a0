//! What recovery from lost pages must keep, whoever lost them: what is stable, who may be elected, and checkpoints.
//!
//! The nodes' own words are compared with what their disks durably hold. What is *stable*, as any node says, must be flushed
//! on a majority, and no node may ever cut it, save to make place for a leader's boundary. A leader needs the votes of a majority that lacks nothing, or of so many
//! that may lack something that no such majority is left.

use std::collections::{BTreeMap, BTreeSet};

use quorumlog::simulation::{DurableVote, checkpoints};
use quorumlog::{Flush, LogId, Role, Status};

use super::cluster::Cluster;
use super::node::data_dir;
use super::shared::LogState;
use crate::cluster::Replica;

/// Looks at a vote and at what a node lacks that are kept, for each node and log.
const LOOKS_MAX: usize = 400;

/// An entry's index and term.
pub(super) type Id = (u64, u64);

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// The terms of entries that were the last stable one, by their index.
    stable: BTreeMap<LogId, BTreeMap<u64, u64>>,
    /// The last of them that a node's disk was seen to hold, and which data directory that was.
    holds: BTreeMap<(u64, LogId), (u64, Id)>,
    looks: BTreeMap<(u64, LogId), Vec<Look>>,
    elected: BTreeSet<(LogId, u64)>,
    /// Checkpoints that were seen, with their nodes and data directories.
    saved: BTreeSet<(u64, u64, LogId, Id)>,
}

/// A node's durable vote, and whether it may have lacked something.
#[derive(Debug, Clone, Copy)]
struct Look {
    vote: Option<DurableVote>,
    lacks: bool,
}

/// How a voter may have voted in an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Voted {
    /// It may have voted for the leader.
    granted: bool,
    /// It may have lacked nothing then.
    whole: bool,
    /// It may have lacked something then.
    lacking: bool,
}

/// What a voter durably has of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Has {
    Entry,
    /// It has trimmed it.
    Boundary,
    Neither,
}

/// True if a node may cut an entry that is stable, as the other ones of so many voters are. Where it holds another entry at
/// the index of a leader's boundary, openraft first drops all that the node does not know to be committed. What is below
/// that boundary is flushed on a majority without it.
fn may_cut(others: &[Has], voters: usize) -> bool {
    let kept = others.iter().filter(|has| **has != Has::Neither).count();
    others.contains(&Has::Boundary) && kept * 2 > voters
}

impl Look {
    fn term(&self) -> u64 {
        self.vote.map_or(0, |vote| vote.term)
    }
}

impl Voted {
    /// Of what was seen since before the voter's term was `term`, oldest first.
    fn of(looks: &[Look], term: u64, leader: u64) -> Self {
        let before = looks.iter().rposition(|look| look.term() < term).unwrap_or(0);
        let since = &looks[before..];
        let granted = since.last().is_some_and(|last| {
            last.term() > term || last.vote.is_some_and(|v| v.term == term && v.voted_for == leader)
        });
        let whole = since.iter().any(|look| !look.lacks);
        Self { granted, whole, lacking: since.iter().any(|look| look.lacks) }
    }
}

/// True if these votes of all voters may elect.
fn may_elect(votes: &[Voted]) -> bool {
    let majority = votes.len() / 2 + 1;
    let count = |fits: fn(&Voted) -> bool| {
        votes.iter().filter(|voted| voted.granted && fits(voted)).count()
    };
    let too_many = votes.len() - majority + 1;
    count(|voted| voted.whole) >= majority
        || count(|_| true) >= majority && count(|voted| voted.lacking) >= too_many
}

impl Cluster {
    /// Looks at what nodes say, and at what their disks hold.
    pub(super) fn observe_recovery(&mut self) {
        if self.shared.profile.flush != Flush::Async {
            return;
        }
        for id in self.machines.keys().copied().collect::<Vec<_>>() {
            self.look_at_votes(id);
        }
        let logs = self.shared.logs();
        for (id, node) in self.shared.nodes() {
            for status in node.statuses().into_iter().filter(|s| s.role != Role::Stopped) {
                let Some(log) = logs.iter().find(|log| log.id.0 == status.log_id) else { continue };
                self.check_stable(log, id, &status);
                if status.role == Role::Leader {
                    self.check_election(log, id, status.term);
                }
            }
        }
        for log in &logs {
            self.check_cut(log);
            self.check_saved(log);
        }
    }

    /// To be called before a node goes down, too: it may lack nothing for a short time only.
    pub(super) fn look_at_votes(&mut self, node: u64) {
        if self.shared.profile.flush != Flush::Async {
            return;
        }
        let mut auditor = self.shared.auditor();
        for log in self.shared.logs() {
            let look =
                Look { vote: auditor.vote(node, log.id), lacks: auditor.lacks(node, log.id) };
            let looks = self.recovery.looks.entry((node, log.id)).or_default();
            if looks.len() == LOOKS_MAX {
                looks.drain(..LOOKS_MAX / 2);
            }
            looks.push(look);
        }
    }

    fn check_election(&mut self, log: &LogState, leader: u64, term: u64) {
        if !self.recovery.elected.insert((log.id, term)) {
            return;
        }
        let configs = self.shared.auditor().configs(log.id);
        let looks = &self.recovery.looks;
        let voted = |voter: &u64| {
            Voted::of(looks.get(&(*voter, log.id)).map_or(&[][..], Vec::as_slice), term, leader)
        };
        let votes: Vec<(&BTreeSet<u64>, Vec<Voted>)> =
            configs.iter().map(|voters| (voters, voters.iter().map(voted).collect())).collect();
        if !votes.is_empty() && !votes.iter().any(|(_, votes)| may_elect(votes)) {
            let detail = format!("{}: node {leader} in term {term}: {votes:?}", log.name);
            self.shared.breach("elected-by-suspects", detail);
        }
    }

    /// What a node says is stable must be flushed on a majority.
    fn check_stable(&mut self, log: &LogState, node: u64, status: &Status) {
        let Some(index) = status.stable.checked_sub(1).filter(|index| *index > 0) else { return };
        let known = self.recovery.stable.entry(log.id).or_default();
        if known.contains_key(&index) {
            return;
        }
        let name = &log.name;
        let Some(term) = self.shared.auditor().flushed_term(log.id, index) else {
            let detail =
                format!("node {node}: {name} up to {index}, which no majority has flushed");
            return self.shared.breach("stable-before-flushed", detail);
        };
        if term == 0 {
            return;
        }
        let before = known.range(..index).next_back();
        let after = known.range(index..).next();
        let fits =
            before.is_none_or(|(_, old)| *old <= term) && after.is_none_or(|(_, new)| term <= *new);
        if !fits {
            let detail =
                format!("{name}: {index} of term {term}, after {before:?} and before {after:?}");
            self.shared.breach("stable-contradicted", detail);
        }
        known.insert(index, term);
    }

    /// No disk that held what is stable may hold something else there, save where a boundary is about to replace it:
    /// whether that came is checked in the end.
    fn check_cut(&mut self, log: &LogState) {
        let Recovery { stable, holds, .. } = &mut self.recovery;
        let Some(stable) = stable.get(&log.id) else { return };
        let mut auditor = self.shared.auditor();
        let mut cut = Vec::new();
        for (id, machine) in &self.machines {
            let held = holds.get(&(*id, log.id)).filter(|held| held.0 == machine.incarnation);
            let held = held.map(|held| held.1);
            let mut lacks = |held: &Id| auditor.holds_id(*id, log.id, *held) == Some(false);
            if let Some(lost) = held.filter(|held| lacks(held)) {
                let replaced = auditor.configs(log.id).iter().any(|voters| {
                    let others = voters.iter().filter(|voter| *voter != id);
                    let others: Vec<Has> =
                        others.map(|voter| auditor.has(*voter, log.id, lost)).collect();
                    may_cut(&others, voters.len())
                });
                if !replaced {
                    cut.push(format!("node {id}: {} of {lost:?}", log.name));
                }
            }
            let later = stable.range(held.map_or(0, |held| held.0 + 1)..).rev();
            let mut later = later.map(|(index, term)| (*index, *term));
            let holds_it = |of: &Id| auditor.holds_id(*id, log.id, *of) == Some(true);
            if let Some(newest) = later.find(holds_it) {
                holds.insert((*id, log.id), (machine.incarnation, newest));
            }
        }
        drop(auditor);
        for detail in cut {
            self.shared.breach("stable-cut", detail);
        }
    }

    /// A checkpoint must not come before the entries that it is made of: a power cut would leave it ahead of its log.
    fn check_saved(&mut self, log: &LogState) {
        let mut auditor = self.shared.auditor();
        let stable = self.recovery.stable.get(&log.id).and_then(|stable| stable.last_key_value());
        let stable = stable.map_or(0, |(index, _)| *index);
        let mut ahead = Vec::new();
        for (id, machine) in &self.machines {
            for saved in checkpoints(&machine.disk, data_dir(), log.id) {
                let is_new = self.recovery.saved.insert((*id, machine.incarnation, log.id, saved));
                // One that a leader sent comes before the boundary, and is stable.
                let may_come = is_new && saved.0 > stable;
                if may_come && auditor.holds_id(*id, log.id, saved) == Some(false) {
                    ahead.push(format!("node {id}: {} as of {saved:?}", log.name));
                }
            }
        }
        drop(auditor);
        for detail in ahead {
            self.shared.breach("checkpoint-before-log", detail);
        }
    }

    /// What was ever stable is there in the end, on every member.
    pub(super) fn check_kept(&self, log: &LogState, replica: &Replica) {
        let stable = self.recovery.stable.get(&log.id).into_iter().flatten();
        let stable = stable.map(|(index, term)| (*index, *term));
        for lost in stable.filter(|id| !is_kept(replica, *id)) {
            let detail = format!("node {}: {lost:?} of {}", replica.node, log.name);
            self.shared.breach("stable-lost", detail);
        }
    }

    /// In the end no checkpoint is of a history that the cluster has not agreed on.
    pub(super) fn check_checkpoints(&self, log: &LogState, replica: &Replica) {
        let Some(machine) = self.machines.get(&replica.node) else { return };
        for saved in checkpoints(&machine.disk, data_dir(), log.id) {
            if saved.0 >= replica.committed || !is_kept(replica, saved) {
                let detail = format!("node {}: {} as of {saved:?}", replica.node, log.name);
                self.shared.breach("checkpoint-ahead", detail);
            }
        }
    }
}

/// Whether a replica holds an entry, or has trimmed it.
fn is_kept(replica: &Replica, (index, term): Id) -> bool {
    let at = replica.entries.partition_point(|entry| entry.index < index);
    match replica.entries.get(at).filter(|entry| entry.index == index) {
        Some(held) => held.term == term,
        None => replica.boundary.is_some_and(|(boundary, _)| boundary >= index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(term: u64, voted_for: u64, lacks: bool) -> Look {
        Look { vote: Some(DurableVote { term, voted_for, committed: false }), lacks }
    }

    #[test]
    fn a_voter_voted_some_time_since_its_term_was_an_earlier_one() {
        let looks = [look(1, 1, false), look(1, 1, true), look(2, 3, true)];
        let voted = |looks: &[Look], leader| Voted::of(looks, 2, leader);
        let lacked = Voted { granted: true, whole: false, lacking: true };
        assert_eq!(voted(&looks, 3), lacked);
        assert!(!voted(&looks, 1).granted, "it voted for another");
        let later = [look(1, 1, true), look(2, 3, false), look(4, 1, false)];
        assert_eq!(voted(&later, 1), Voted { granted: true, whole: true, lacking: true });
        assert!(!voted(&[], 1).granted);
    }

    #[test]
    fn a_majority_that_lacks_nothing_elects_or_so_many_that_do_that_there_is_none() {
        let whole = Voted { granted: true, whole: true, lacking: false };
        let lacking = Voted { granted: true, whole: false, lacking: true };
        let none = Voted { granted: false, whole: true, lacking: false };
        assert!(may_elect(&[whole, whole, none]));
        assert!(!may_elect(&[whole, lacking, none]));
        assert!(may_elect(&[none, lacking, lacking]));
        assert!(!may_elect(&[none, none, lacking]));
        assert!(!may_elect(&[whole, lacking, lacking, none, none]));
    }

    #[test]
    fn a_stable_entry_is_cut_only_where_a_boundary_replaces_it_and_a_majority_keeps_it() {
        use Has::{Boundary, Entry, Neither};

        assert!(may_cut(&[Boundary, Entry], 3));
        assert!(!may_cut(&[Entry, Entry], 3), "nothing replaces it");
        assert!(!may_cut(&[Boundary, Neither], 3), "no majority keeps it");
        assert!(!may_cut(&[Boundary, Entry], 4));
        assert!(may_cut(&[Boundary, Entry, Neither, Entry], 5));
    }
}
