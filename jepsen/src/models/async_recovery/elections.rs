//! Votes (AR4) and who is elected by them (AR5).

use super::Cluster;
use super::rules::Election;
use super::state::{Answer, Role, State};

impl State {
    /// A node stands for election.
    pub(super) fn stand(&mut self, cluster: &Cluster, candidate: usize) {
        self.save_vote(candidate, self.nodes[candidate].term + 1, candidate);
        let node = &mut self.nodes[candidate];
        node.role = Role::Candidate;
        let own = if node.suspect { &mut node.suspect_grants } else { &mut node.trusted_grants };
        own.insert(candidate);
        self.lead_if_elected(cluster, candidate);
    }

    /// A candidate asks a node for its vote. The grant says whether that node is suspect.
    pub(super) fn ask_vote(&mut self, cluster: &Cluster, candidate: usize, voter: usize) {
        let (term, last) = (self.nodes[candidate].term, self.nodes[candidate].log.last());
        let asked = &self.nodes[voter];
        let again = term == asked.term && asked.voted_for == Some(candidate as u8);
        if !(term > asked.term || again) || last < asked.log.last() {
            return;
        }
        if !again {
            self.save_vote(voter, term, candidate);
        }
        let suspect = self.nodes[voter].suspect;
        let (from, to) = (voter as u8, candidate as u8);
        self.send(cluster, Answer::Grant { from, to, term, suspect });
    }

    pub(super) fn granted(
        &mut self,
        cluster: &Cluster,
        (from, to): (u8, u8),
        term: u8,
        suspect: bool,
    ) {
        let node = &mut self.nodes[usize::from(to)];
        if node.role != Role::Candidate || node.term != term {
            return;
        }
        let grants = if suspect { &mut node.suspect_grants } else { &mut node.trusted_grants };
        grants.insert(usize::from(from));
        self.lead_if_elected(cluster, usize::from(to));
    }

    fn is_elected(&self, cluster: &Cluster, candidate: usize) -> bool {
        let node = &self.nodes[candidate];
        let (trusted, suspect) = (node.trusted_grants.len(), node.suspect_grants.len());
        let any = trusted + suspect >= cluster.majority();
        trusted >= cluster.majority()
            || match cluster.rules.election {
                Election::ProvenBySuspects => any && suspect >= cluster.too_many(),
                Election::TrustedOnly => false,
                Election::AnyMajority => any,
            }
    }

    fn lead_if_elected(&mut self, cluster: &Cluster, candidate: usize) {
        if self.nodes[candidate].role != Role::Candidate || !self.is_elected(cluster, candidate) {
            return;
        }
        let node = &mut self.nodes[candidate];
        node.follow();
        node.role = Role::Leader;
        // Its log is the history now.
        node.suspect = false;
        node.position = None;
        node.matched[candidate] = node.log.len();
    }
}
