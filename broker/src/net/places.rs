//! The places of a listener's connections. When all are taken, an idle connection ends for a new one: stock clients
//! open another one when they need it. So idle connections lock nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use crate::mutant::Mutant;

/// One that has nothing to wait for may pause for so long.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// For one that waits for an answer: longer than stock clients wait for messages, 20 s at most.
const WAITING_MIN: Duration = Duration::from_secs(30);

/// The connections of a listener.
pub(crate) struct Places {
    max: usize,
    held: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

/// A connection's place, until it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
}

/// The lower, the sooner a connection has to go: one that never asked for anything, then one that waits for nothing; among
/// equals the one that was idle the longest. None if it may stay.
fn precedence(connection: &Connection, now: Instant) -> Option<(bool, bool, Instant)> {
    let (asked, waits, last) =
        (connection.has_asked(), connection.waits(), connection.last_active());
    // In a flood of new connections the oldest goes first, and the others have time until their turn.
    let least = match (asked, waits) {
        (false, _) => Duration::ZERO,
        (true, false) => IDLE_MIN,
        (true, true) => WAITING_MIN,
    };
    (now.duration_since(last) >= least && !Mutant::IdleKeepPlaces.is_active())
        .then_some((asked, waits, last))
}

/// Ends the first connection that has to go. False if all may stay.
fn end_idle(held: &mut BTreeMap<u64, Arc<Connection>>) -> bool {
    let now = Instant::now();
    let ranked = held.values().filter_map(|one| Some((precedence(one, now)?, one.number)));
    let Some(idle) = ranked.min().and_then(|(_, number)| held.remove(&number)) else {
        return false;
    };
    tracing::debug!(remote = %idle.client(), "an idle connection makes room for another");
    idle.end();
    true
}

impl Places {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, which an idle connection may have to leave for it. None if there is no such connection.
    pub(crate) fn take(self: &Arc<Self>, newcomer: &Arc<Connection>) -> Option<Place> {
        let mut held = self.held();
        if held.len() >= self.max && !end_idle(&mut held) {
            return None;
        }
        held.insert(newcomer.number, Arc::clone(newcomer));
        Some(Place { places: Arc::clone(self), number: newcomer.number })
    }

    /// Ends an idle connection, if there is one: the system has no room for another.
    pub(crate) fn make_room(&self) {
        end_idle(&mut self.held());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Budgets;
    use super::*;
    use crate::settings::BrokerConfig;

    /// The numbers of those that have a place, after newcomers came to a listener with three.
    struct Three {
        places: Arc<Places>,
        budgets: Budgets,
        held: Vec<Place>,
    }

    impl Three {
        fn new() -> Self {
            let budgets = Budgets::new(&BrokerConfig::default());
            Self { places: Places::new(3), budgets, held: Vec::new() }
        }

        fn come(&mut self, number: u64) -> Option<Arc<Connection>> {
            let remote = ([127, 0, 0, 1], 1).into();
            let (connection, _) = Connection::new(number, remote, &self.budgets);
            self.held.push(self.places.take(&connection)?);
            Some(connection)
        }

        fn numbers(&self) -> Vec<u64> {
            self.places.held().keys().copied().collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_asked_goes_first_then_who_waits_for_nothing_and_the_longest_idle_of_those() {
        let mut three = Three::new();
        let waiting = three.come(1).expect("a free place");
        waiting.set_state(true, 1);
        tokio::time::advance(Duration::from_millis(10)).await;
        let resting = three.come(2).expect("a free place");
        resting.set_state(true, 0);
        three.come(3).expect("a free place");
        three.come(4).expect("3 has asked for nothing").set_state(true, 0);
        assert_eq!(three.numbers(), [1, 2, 4]);
        assert!(three.come(5).is_none(), "all are in use");
        tokio::time::advance(IDLE_MIN).await;
        three.come(6).expect("2 rests longer than 4").set_state(true, 1);
        assert_eq!(three.numbers(), [1, 4, 6]);
        three.come(7).expect("4 rests").set_state(true, 1);
        tokio::time::advance(WAITING_MIN / 2).await;
        assert!(three.come(8).is_none(), "all wait for answers, as consumers do");
        tokio::time::advance(WAITING_MIN / 2).await;
        three.come(9).expect("no consumer waits for so long").set_state(true, 1);
        assert_eq!(three.numbers(), [6, 7, 9]);
        three.held.clear();
        assert!(three.numbers().is_empty(), "they ended");
    }
}
