//! Searches a model: every state within small bounds, or random walks through wide ones.

use std::time::{Duration, Instant};

use stateright::{Checker as _, HasDiscoveries, Model, Property};

use super::async_recovery::{
    Cluster, Kind, PROMISES, Promise, SIGHTS, State, Step, representative,
};
use crate::sim::random::Random;

/// How a walk chooses among kinds of steps. Faults and losses are rare, so that something happens
/// in between.
const WEIGHTS: [(Kind, u64); 10] = [
    (Kind::StandOrFlush, 1),
    (Kind::AskVote, 3),
    (Kind::Append, 1),
    (Kind::Heartbeat, 1),
    (Kind::Replicate, 3),
    (Kind::TellPosition, 2),
    (Kind::CutPower, 1),
    (Kind::Crash, 1),
    (Kind::Arrive, 4),
    (Kind::Lose, 1),
];
/// Choices of one walk.
const WALK_STEPS: u64 = 100;
/// A walk checks what costs much after each so many steps.
const COSTLY_EACH: u64 = 8;
/// Memory bounds an exhaustive search: a state takes about 30 bytes.
const STATES_MAX: usize = 400_000_000;

/// What a search came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// Different states of an exhaustive search; steps of walks.
    pub(crate) states: u64,
    /// False if time or memory ended the search before it had seen every state.
    pub(crate) complete: bool,
    /// What does not hold, and the steps that lead there.
    pub(crate) broken: Option<(&'static str, Vec<Step>)>,
    /// What the search came across.
    pub(crate) seen: Vec<&'static str>,
}

impl Model for Cluster {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.steps(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        self.after(state, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let promises = PROMISES.iter().map(|it| Property::always(it.name, it.holds));
        let sights = SIGHTS.iter().map(|it| Property::sometimes(it.name, it.is_seen));
        promises.chain(sights).collect()
    }
}

/// Looks at every state of a cluster of three, or as many as `limit` allows. Ends at the first
/// promise that is broken.
pub(crate) fn exhaustive(cluster: Cluster, threads: usize, limit: Duration) -> Found {
    let begun = Instant::now();
    let checker = cluster
        .checker()
        .threads(threads)
        .timeout(limit)
        .target_state_count(STATES_MAX)
        .finish_when(HasDiscoveries::AnyFailures)
        .symmetry_fn(representative)
        .spawn_dfs()
        .join();
    let broken = PROMISES.iter().find_map(|it| {
        let path = checker.discovery(it.name)?;
        Some((it.name, path.into_actions()))
    });
    let sights = SIGHTS.iter().map(|it| it.name);
    Found {
        states: checker.unique_state_count() as u64,
        complete: broken.is_none() && begun.elapsed() < limit && checker.state_count() < STATES_MAX,
        broken,
        seen: sights.filter(|name| checker.discovery(name).is_some()).collect(),
    }
}

/// Walks until `steps` were taken, or a promise is broken.
pub(crate) fn walk(cluster: &Cluster, seed: u64, steps: u64) -> Found {
    let mut random = Random::new(seed);
    let mut found = Found::default();
    while found.states < steps && found.broken.is_none() {
        walk_once(cluster, &mut random, &mut found);
    }
    found
}

fn walk_once(cluster: &Cluster, random: &mut Random, found: &mut Found) {
    let mut state = cluster.first();
    let mut taken = Vec::new();
    let mut possible = Vec::new();
    for _ in 0..WALK_STEPS {
        possible.clear();
        cluster.steps(&state, &mut possible);
        let kind = random.weighted(&WEIGHTS);
        possible.retain(|step| step.kind() == kind);
        if possible.is_empty() {
            continue;
        }
        let step = random.pick(&possible);
        let Some(next) = cluster.after(&state, step) else { continue };
        state = next;
        taken.push(step);
        found.states += 1;
        let looks = |it: &&Promise| !it.is_costly || found.states.is_multiple_of(COSTLY_EACH);
        let broken = PROMISES.iter().filter(looks).find(|it| !(it.holds)(cluster, &state));
        if let Some(it) = broken {
            found.broken = Some((it.name, taken));
            return;
        }
        for it in &SIGHTS {
            if !found.seen.contains(&it.name) && (it.is_seen)(cluster, &state) {
                found.seen.push(it.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::async_recovery::{Bounds, Knockout, Rules};

    fn cluster(rules: Rules) -> Cluster {
        Cluster { bounds: Bounds::WIDE, rules }
    }

    #[test]
    fn plain_raft_on_logs_that_are_flushed_later_loses_what_was_acknowledged() {
        let found = walk(&cluster(Rules::NONE), 1, 100_000);
        let (broken, steps) = found.broken.expect("a promise is broken");
        assert_eq!(broken, "what was acknowledged survives");
        assert!(steps.iter().any(|step| step.kind() == Kind::CutPower), "{steps:?}");
    }

    /// Those that a short walk finds. The command leaves out every rule.
    #[test]
    fn without_a_rule_a_promise_is_broken() {
        for knockout in [
            Knockout::SuspectGrantsCount,
            Knockout::NoElectionBySuspects,
            Knockout::MarkVolatile,
            Knockout::CommittedByIndex,
            Knockout::NothingComparedBelowCommitted,
            Knockout::SyncFlushedByLeaderOnly,
        ] {
            let found = walk(&cluster(Rules::without(knockout)), 1, 100_000);
            assert!(found.broken.is_some(), "{knockout:?} was not found");
        }
    }

    #[test]
    fn with_all_rules_the_promises_hold_and_the_walk_sees_what_it_should() {
        let found = walk(&cluster(Rules::ALL), 1, 100_000);
        assert!(found.broken.is_none(), "{:?}", found.broken);
        assert_eq!(found.seen.len(), SIGHTS.len(), "{:?}", found.seen);
    }

    #[test]
    fn a_seed_repeats_its_walk() {
        let rules = Rules::without(Knockout::MarkVolatile);
        let broken = |seed| walk(&cluster(rules), seed, 100_000).broken;
        assert_eq!(broken(1), broken(1));
    }

    #[test]
    fn every_state_of_a_tiny_cluster_keeps_the_promises() {
        let bounds = Bounds { power_cuts: 1, appends: 1, terms: 2, sync: false, ..Bounds::SMALL };
        let tiny = Cluster { bounds, rules: Rules::ALL };
        let found = exhaustive(tiny, 1, Duration::from_secs(600));
        assert!(found.broken.is_none() && found.complete, "{found:?}");
    }
}
