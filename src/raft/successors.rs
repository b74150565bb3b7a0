//! Whom a leader hands over to when it has to leave.

use std::cmp::Reverse;

use super::group::Group;
use super::space::Space;
use crate::member::NodeId;
use crate::mutant::Mutant;

/// Who misses no more entries than this has them within moments.
const BEHIND_MAX: u64 = 1024;

/// What a leader knows of another voter.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    node: NodeId,
    /// Its copy may lack what it had acknowledged: it refuses to lead.
    suspect: bool,
    /// It has said that it must not lead.
    unfit: bool,
    /// What its disk has, if it has answered lately.
    space: Option<Space>,
    /// How far it holds the log.
    matched: u64,
}

/// Those that can lead, the best first: who answers, then who holds about everything, then who has space for messages, and
/// among equals who holds the most. Who answers not may only be slow, so it is not left out.
fn ranked(mut candidates: Vec<Candidate>, end: u64) -> Vec<NodeId> {
    if !Mutant::SuspectSucceeds.is_active() {
        candidates.retain(|one| !one.suspect);
    }
    candidates.retain(|one| !one.unfit);
    candidates.sort_by_key(|one| {
        let caught_up = one.matched + BEHIND_MAX >= end;
        let ample = one.space == Some(Space::Ample) || Mutant::FullDiskSucceeds.is_active();
        Reverse((one.space.is_some(), caught_up, ample, one.matched))
    });
    candidates.into_iter().map(|one| one.node).collect()
}

impl Group {
    /// The voters that this node can hand the lead to, the best first. Nobody if it does not lead.
    pub(crate) fn successors(&self) -> Vec<NodeId> {
        if !self.is_leader() {
            return Vec::new();
        }
        let (status, voters) = (self.status(), self.voters());
        let others = voters.into_iter().filter(|voter| *voter != self.replica);
        let candidates = others.map(|voter| {
            let member = status.members.iter().find(|member| member.member.id == voter.node);
            Candidate {
                node: voter.node,
                suspect: self.trust.is_of(voter.node),
                unfit: self.is_unfit(voter.node),
                space: self.space_of(voter),
                matched: member.and_then(|member| member.matched).unwrap_or(0),
            }
        });
        ranked(candidates.collect(), status.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u64 = 10_000;

    /// A voter that nothing speaks against, though others hold a little more.
    fn sound(node: NodeId) -> Candidate {
        let space = Some(Space::Ample);
        Candidate { node, suspect: false, unfit: false, space, matched: END - 1 }
    }

    /// One that holds everything.
    fn newest(node: NodeId) -> Candidate {
        Candidate { matched: END, ..sound(node) }
    }

    #[test]
    fn who_holds_the_most_comes_first() {
        assert_eq!(ranked(vec![sound(2), newest(3), sound(4)], END), [3, 2, 4]);
    }

    #[test]
    fn a_suspect_is_no_successor() {
        let suspect = Candidate { suspect: true, ..newest(2) };
        assert_eq!(ranked(vec![suspect, sound(3)], END), [3]);
        assert!(ranked(vec![suspect], END).is_empty(), "not even where nobody else is left");
    }

    #[test]
    fn a_voter_that_must_not_lead_is_no_successor() {
        let unfit = Candidate { unfit: true, ..newest(2) };
        assert_eq!(ranked(vec![unfit, sound(3)], END), [3]);
    }

    #[test]
    fn who_has_not_answered_lately_comes_last() {
        let silent = Candidate { space: None, ..newest(2) };
        let behind = Candidate { matched: 0, space: Some(Space::Reserve), ..sound(3) };
        assert_eq!(ranked(vec![silent, behind], END), [3, 2]);
    }

    #[test]
    fn who_is_far_behind_comes_after_who_has_only_a_full_disk() {
        let behind = Candidate { matched: END - BEHIND_MAX - 1, ..sound(2) };
        let full = Candidate { space: Some(Space::Reserve), ..sound(3) };
        assert_eq!(ranked(vec![behind, full], END), [3, 2]);
    }

    #[test]
    fn a_voter_whose_disk_is_full_comes_after_one_with_space() {
        let full = Candidate { space: Some(Space::Reserve), ..newest(2) };
        assert_eq!(ranked(vec![full, sound(3)], END), [3, 2]);
    }
}
