//! What can happen next.

use super::Cluster;
use super::state::{Answer, Role, State};

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Stand { node: u8 },
    AskVote { candidate: u8, voter: u8 },
    Append { leader: u8, sync: bool },
    Replicate { leader: u8, to: u8, prev: u8, end: u8 },
    TellPosition { leader: u8, to: u8 },
    Flush { node: u8 },
    CutPower { node: u8, kept: u8 },
    Crash { node: u8 },
    Arrive(Answer),
    Lose(Answer),
}

/// A kind of steps, for walks that weigh them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    StandOrFlush,
    AskVote,
    Append,
    Heartbeat,
    Replicate,
    TellPosition,
    CutPower,
    Crash,
    Arrive,
    Lose,
}

impl Step {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Stand { .. } | Self::Flush { .. } => Kind::StandOrFlush,
            Self::AskVote { .. } => Kind::AskVote,
            Self::Append { .. } => Kind::Append,
            Self::Replicate { prev, end, .. } if prev == end => Kind::Heartbeat,
            Self::Replicate { .. } => Kind::Replicate,
            Self::TellPosition { .. } => Kind::TellPosition,
            Self::CutPower { .. } => Kind::CutPower,
            Self::Crash { .. } => Kind::Crash,
            Self::Arrive(_) => Kind::Arrive,
            Self::Lose(_) => Kind::Lose,
        }
    }
}

impl Cluster {
    /// All that can happen in a state.
    pub(crate) fn steps(&self, state: &State, out: &mut Vec<Step>) {
        if state.violation.is_some() {
            return;
        }
        for node in self.nodes() {
            match state.nodes[node].role {
                Role::Leader => self.steps_of_leader(state, node, out),
                Role::Candidate => self.steps_of_candidate(state, node, out),
                Role::Follower => {}
            }
            self.steps_of_any(state, node, out);
        }
        for answer in &state.answers {
            out.push(Step::Arrive(*answer));
            // Elsewhere an answer that never arrives is one that waits.
            if state.answers.len() >= self.bounds.answers {
                out.push(Step::Lose(*answer));
            }
        }
    }

    /// Nodes that are not of a later term, but for `node` itself.
    fn others(&self, state: &State, node: usize) -> impl Iterator<Item = usize> {
        let term = state.nodes[node].term;
        let terms = state.nodes.map(|other| other.term);
        self.nodes().filter(move |other| *other != node && terms[*other] <= term)
    }

    fn steps_of_leader(&self, state: &State, node: usize, out: &mut Vec<Step>) {
        let (leader, len) = (node as u8, state.nodes[node].log.len());
        for other in self.others(state, node) {
            let to = other as u8;
            for prev in 0..=len {
                // A heartbeat at an older end adds nothing to one at the end.
                let ends = (prev..=len).filter(|end| *end > prev || *end == len);
                out.extend(ends.map(|end| Step::Replicate { leader, to, prev, end }));
            }
            if state.nodes[other].suspect {
                out.push(Step::TellPosition { leader, to });
            }
        }
        if state.appends < self.bounds.appends && len < self.bounds.entries {
            out.push(Step::Append { leader, sync: false });
            if self.bounds.sync {
                out.push(Step::Append { leader, sync: true });
            }
        }
    }

    fn steps_of_candidate(&self, state: &State, node: usize, out: &mut Vec<Step>) {
        let candidate = node as u8;
        let ask = |voter| Step::AskVote { candidate, voter: voter as u8 };
        out.extend(self.others(state, node).map(ask));
    }

    fn steps_of_any(&self, state: &State, node: usize, out: &mut Vec<Step>) {
        let number = node as u8;
        let of = &state.nodes[node];
        if of.role != Role::Leader && of.term < self.bounds.terms {
            out.push(Step::Stand { node: number });
        }
        if of.flushed < of.log.len() {
            out.push(Step::Flush { node: number });
        }
        if state.power_cuts < self.bounds.power_cuts {
            let kept = of.flushed..=of.log.len();
            out.extend(kept.map(|kept| Step::CutPower { node: number, kept }));
        }
        if state.crashes < self.bounds.crashes {
            out.push(Step::Crash { node: number });
        }
    }

    /// The state after a step; none if the step changes nothing.
    pub(crate) fn after(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        state.take(self, step);
        (state != *before).then_some(state)
    }
}

impl State {
    fn take(&mut self, cluster: &Cluster, step: Step) {
        match step {
            Step::Stand { node } => self.stand(cluster, node.into()),
            Step::AskVote { candidate, voter } => {
                self.ask_vote(cluster, candidate.into(), voter.into());
            }
            Step::Append { leader, sync } => self.append(cluster, leader.into(), sync),
            Step::Replicate { leader, to, prev, end } => {
                self.replicate(cluster, leader.into(), to.into(), (prev, end));
            }
            Step::TellPosition { leader, to } => {
                self.tell_position(cluster, leader.into(), to.into());
            }
            Step::Flush { node } => {
                let of = &mut self.nodes[usize::from(node)];
                of.flushed = of.log.len();
                if of.role == Role::Leader {
                    self.advance(cluster, node.into());
                }
            }
            Step::CutPower { node, kept } => {
                self.power_cuts += 1;
                self.cut_power(cluster, node.into(), kept);
            }
            Step::Crash { node } => {
                self.crashes += 1;
                self.crash(cluster, node.into());
            }
            Step::Arrive(answer) => self.arrive(cluster, answer),
            Step::Lose(answer) => self.answers.retain(|sent| *sent != answer),
        }
    }

    pub(super) fn arrive(&mut self, cluster: &Cluster, answer: Answer) {
        self.answers.retain(|sent| *sent != answer);
        match answer {
            Answer::Grant { from, to, term, suspect } => {
                self.granted(cluster, (from, to), term, suspect);
            }
            Answer::Ack { from, to, term, matched, flushed } => {
                self.acked(cluster, (from, to), term, (matched, flushed));
            }
            Answer::Position { to, position, .. } => self.told_position(cluster, to, position),
        }
    }
}
