//! What connections say of clients, and what that takes.

use serde_json::json;

use super::*;
use crate::net::Budgets;
use crate::settings::BrokerConfig;

fn connection(number: u64) -> Arc<Connection> {
    let budgets = Budgets::new(&BrokerConfig::default());
    Connection::new(number, ([127, 0, 0, 1], 1).into(), &budgets).0
}

/// A client in `groups` groups with a subscription of `bytes` each, of which this is the `version`-th.
fn beat(client: &str, groups: usize, bytes: usize, version: usize) -> Heartbeat {
    let group = |n: usize| {
        let wanted = json!({ "topic": "T", "subString": "t".repeat(bytes), "subVersion": version });
        json!({ "groupName": format!("{client}-{n}"), "subscriptionDataSet": [wanted] })
    };
    let groups: Vec<_> = (0..groups).map(group).collect();
    let beat = json!({ "clientID": client, "consumerDataSet": groups });
    serde_json::from_value(beat).expect("a heartbeat")
}

fn hear(known: &mut Known, from: &Arc<Connection>, beat: Heartbeat) -> Result<(), Failure> {
    known.hear(from, Speaker::default(), beat, &mut BTreeSet::new())
}

#[test]
fn one_connection_takes_neither_the_places_nor_the_memory_of_the_others() {
    let mut known = Known::default();
    let (greedy, honest) = (connection(1), connection(2));
    let ids = (0..1000).map(|n| hear(&mut known, &greedy, beat(&format!("{n}"), 0, 0, 1)));
    assert_eq!(ids.filter(Result::is_ok).count(), CLIENTS_OF_CONNECTION_MAX);
    hear(&mut known, &greedy, beat("0", 1, 0, 1)).expect("it is known");
    for n in 0..CLIENTS_OF_CONNECTION_MAX {
        let _ = hear(&mut known, &greedy, beat(&format!("{n}"), 1000, 30_000, 2));
    }
    let taken = CLIENTS_BYTES_MAX - known.memory.left;
    assert!(taken <= CONNECTION_CLIENTS_BYTES_MAX, "{taken} bytes for one connection");
    assert!(taken > CONNECTION_CLIENTS_BYTES_MAX / 2, "{taken} bytes: nothing was refused");
    hear(&mut known, &honest, beat("mine", 1000, 100, 1)).expect("there is room for others");
    known.forget_connection(1);
    hear(&mut known, &honest, beat("mine", 1, 0, 1)).expect("it is known");
    assert_eq!(known.groups.len(), 1000);
}

#[test]
fn connections_that_bring_a_lot_leave_memory_for_those_that_bring_little() {
    let mut known = Known::default();
    let large = |known: &mut Known, n: u64| {
        hear(known, &connection(n), beat(&format!("large {n}"), 1000, 1_000, 1))
    };
    let refused = (0..1000).find(|n| large(&mut known, *n).is_err()).expect("memory has an end");
    assert!(refused > 10, "{refused} connections took all");
    hear(&mut known, &connection(2000), beat("small", 10, 100, 1))
        .expect("there is room for little");
    known.forget_connection(0);
    // What was refused has brought a part.
    known.forget_connection(refused);
    large(&mut known, 3000).expect("there is room again");
}

#[test]
fn what_connections_bring_is_given_back_whichever_of_them_ends_first() {
    for order in [[1, 2, 3], [3, 2, 1], [2, 1, 3], [2, 3, 1]] {
        let mut known = Known::default();
        for number in 1..=3 {
            let connection = connection(number);
            // Each brings another subscription to the same groups, and has other clients.
            hear(&mut known, &connection, beat("c", 5, 100 * number as usize, number as usize))
                .expect("there is room");
            let own = format!("own {number}");
            hear(&mut known, &connection, beat(&own, 3, 10, 1)).expect("there is room");
        }
        assert_eq!(known.clients.len(), 4);
        known.unregister("c", 2, "c-0");
        for (left, number) in [2, 1, 0].into_iter().zip(order) {
            let told = known.forget_connection(number);
            assert!(told.contains(&format!("own {number}-0")), "{told:?}");
            assert_eq!(told.contains("c-1"), left == 0, "{order:?}: {told:?}");
            assert_eq!(known.spoken_for.len(), left);
        }
        assert!(known.clients.is_empty() && known.groups.is_empty());
        assert_eq!((known.heard, known.memory.left), (0, CLIENTS_BYTES_MAX), "{order:?}");
        assert!(known.memory.brought.is_empty(), "{order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_heard_again_is_forgotten_and_gives_its_place_to_another() {
    let mut known = Known::default();
    let connection = connection(1);
    for n in 0..CLIENTS_OF_CONNECTION_MAX {
        hear(&mut known, &connection, beat(&format!("{n}"), 1, 10, 1)).expect("there is room");
    }
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    hear(&mut known, &connection, beat("0", 1, 10, 1)).expect("it is known");
    let told = known.forget_unheard(Instant::now());
    assert_eq!(told.len(), CLIENTS_OF_CONNECTION_MAX - 1);
    assert!(!told.contains("0-0"), "it was heard again");
    hear(&mut known, &connection, beat("another", 1, 10, 1)).expect("places are free again");
}
