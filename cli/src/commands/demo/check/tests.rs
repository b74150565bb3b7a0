//! The demo's verdict: each kind of damage that is planted must be found.

use super::*;

fn payload(id: u64) -> Vec<u8> {
    format!("{id:010}\tline {id}").into_bytes()
}

/// Ten records at indexes 2 to 11, acknowledged in order in term 1, and three nodes that hold them.
fn clean() -> (Ledger, Vec<Held>) {
    let mut ledger = Ledger::new(10);
    for id in 0..10 {
        let floor = ledger.begin(id, crc32fast::hash(&payload(id)));
        ledger.acknowledge(id, id + 2, 1, floor);
    }
    let node = |node| {
        let mut held = Held::new(node);
        (0..10).for_each(|id| held.push(id + 2, 1, &payload(id)));
        held
    };
    (ledger, (1..=3).map(node).collect())
}

fn problems(ledger: &Ledger, nodes: &[Held]) -> Vec<Problem> {
    let findings = check(ledger, nodes);
    assert_eq!(findings.problems, findings.told.len() as u64);
    findings.told
}

#[test]
fn three_equal_nodes_with_all_records_are_clean() {
    let (ledger, nodes) = clean();
    let findings = check(&ledger, &nodes);
    assert_eq!(findings, Findings { verified: 30, ..Findings::default() });
}

#[test]
fn a_record_lost_on_one_node_is_found() {
    let (ledger, mut nodes) = clean();
    nodes[1].records.remove(4);
    let found = problems(&ledger, &nodes);
    assert!(found.contains(&Problem::Missing { node: 2, id: 4, index: 6 }), "{found:?}");
    assert!(found.contains(&Problem::Differs { node: 2, from: 1, at: 4 }), "{found:?}");
    assert_eq!(check(&ledger, &nodes).verified, 29);
}

#[test]
fn a_record_lost_on_all_nodes_is_found() {
    let (ledger, mut nodes) = clean();
    for held in &mut nodes {
        held.records.pop();
    }
    let lost = |node| Problem::Missing { node, id: 9, index: 11 };
    assert_eq!(problems(&ledger, &nodes), [lost(1), lost(2), lost(3)]);
}

#[test]
fn two_records_that_changed_places_are_found() {
    let (ledger, mut nodes) = clean();
    for held in &mut nodes {
        held.records.swap(3, 4);
        (held.records[3].index, held.records[4].index) = (5, 6);
    }
    let found = problems(&ledger, &nodes);
    assert_eq!(found.len(), 6, "{found:?}");
    assert!(found.contains(&Problem::Changed { node: 3, id: 3, index: 5 }), "{found:?}");
}

#[test]
fn records_given_out_of_order_are_found() {
    let (ledger, mut nodes) = clean();
    nodes[0].records.swap(3, 4);
    let found = problems(&ledger, &nodes);
    assert!(found.contains(&Problem::Unordered { node: 1, index: 5, before: 6 }), "{found:?}");
    assert!(found.contains(&Problem::Differs { node: 2, from: 1, at: 3 }), "{found:?}");
}

#[test]
fn a_changed_payload_is_found_by_its_checksum() {
    let (ledger, mut nodes) = clean();
    let mut damaged = payload(5);
    damaged[12] ^= 1;
    nodes[2].records[5].crc = crc32fast::hash(&damaged);
    let found = problems(&ledger, &nodes);
    assert!(found.contains(&Problem::Changed { node: 3, id: 5, index: 7 }), "{found:?}");
}

#[test]
fn a_second_copy_is_found_unless_an_outcome_was_unknown() {
    let (mut ledger, mut nodes) = clean();
    for held in &mut nodes {
        held.push(12, 2, &payload(5));
    }
    let twice = |node| Problem::Duplicated { node, id: 5, copies: 2, allowed: 1 };
    assert_eq!(problems(&ledger, &nodes), [twice(1), twice(2), twice(3)]);
    ledger.unknown(5);
    let findings = check(&ledger, &nodes);
    assert_eq!((findings.problems, findings.duplicates), (0, 1));
}

#[test]
fn a_copy_on_one_node_only_is_found_even_if_an_outcome_was_unknown() {
    let (mut ledger, mut nodes) = clean();
    ledger.unknown(5);
    nodes[2].push(12, 2, &payload(5));
    let differs = Problem::Differs { node: 3, from: 1, at: 10 };
    assert_eq!(problems(&ledger, &nodes), [differs]);
}

#[test]
fn a_record_that_nobody_sent_is_found() {
    let (ledger, mut nodes) = clean();
    for held in &mut nodes {
        held.push(12, 2, b"ghost");
        held.push(13, 2, &payload(10));
    }
    let found = problems(&ledger, &nodes);
    assert_eq!(found.len(), 6, "{found:?}");
    assert!(found.contains(&Problem::Foreign { node: 1, index: 12 }), "{found:?}");
    assert!(found.contains(&Problem::Foreign { node: 1, index: 13 }), "{found:?}");
}

#[test]
fn a_record_before_one_that_was_acknowledged_earlier_is_found() {
    let (mut ledger, nodes) = clean();
    ledger.acknowledge(5, 7, 1, 9);
    assert_eq!(problems(&ledger, &nodes), [Problem::Reordered { id: 5, index: 7, floor: 8 }]);
}

#[test]
fn one_index_acknowledged_twice_is_found() {
    let (mut ledger, nodes) = clean();
    ledger.acknowledge(6, 7, 1, 0);
    let found = problems(&ledger, &nodes);
    assert!(found.contains(&Problem::Changed { node: 1, id: 6, index: 7 }), "{found:?}");
}

#[test]
fn a_term_that_differs_from_the_acknowledged_one_is_found() {
    let (ledger, mut nodes) = clean();
    for held in &mut nodes {
        held.records[9].term = 2;
    }
    let found = problems(&ledger, &nodes);
    assert!(found.contains(&Problem::Changed { node: 1, id: 9, index: 11 }), "{found:?}");
}

#[test]
fn a_flood_of_problems_is_counted_and_not_told_in_full() {
    let (ledger, _) = clean();
    let nodes: Vec<Held> = (1..=3).map(Held::new).collect();
    let findings = check(&ledger, &nodes);
    assert_eq!((findings.problems, findings.told.len()), (30, TOLD_MAX));
}
