//! States that differ only in the numbers of their nodes are one state.

use super::state::{Answer, State};

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The least of the states that differ from this one only in the numbers of its nodes, for
/// clusters of three.
pub(crate) fn representative(state: &State) -> State {
    let renamed = ORDERS.iter().map(|order| state.renamed(order));
    renamed.min().unwrap_or_else(|| state.clone())
}

impl State {
    /// The same with node `i` called `to[i]`.
    fn renamed(&self, to: &[usize]) -> Self {
        let name = |node: u8| to[usize::from(node)] as u8;
        let mut renamed = self.clone();
        for (number, node) in self.nodes[..to.len()].iter().enumerate() {
            let new = &mut renamed.nodes[to[number]];
            *new = *node;
            new.voted_for = node.voted_for.map(name);
            new.trusted_grants = node.trusted_grants.renamed(to);
            new.suspect_grants = node.suspect_grants.renamed(to);
            for (other, other_name) in to.iter().enumerate() {
                new.matched[*other_name] = node.matched[other];
                new.matched_flushed[*other_name] = node.matched_flushed[other];
            }
        }
        for answer in &mut renamed.answers {
            match answer {
                Answer::Grant { from, to, .. }
                | Answer::Ack { from, to, .. }
                | Answer::Position { from, to, .. } => (*from, *to) = (name(*from), name(*to)),
            }
        }
        renamed.answers.sort_unstable();
        renamed
    }
}
