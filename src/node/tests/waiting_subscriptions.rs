//! Subscriptions whose client takes nothing now: they hold nothing of the log.

use super::*;
use crate::record::Start;

#[test]
fn a_subscription_that_waits_for_its_client_holds_no_record_and_loses_none() {
    const RECORDS: usize = 100;
    let running = alone(&SimDisk::new());
    running.run(running.node.create_log(&name("orders"))).expect("one node");
    let log = running.until("the log", || running.node.log(&name("orders")));
    running.until("its leader", || log.status().leader);
    for n in 0..RECORDS {
        running.run(log.append(format!("{n:0>10000}"))).expect("one node");
    }
    let mut subscription = log.subscribe(Start::Begin);
    running.run(subscription.readable());
    assert_eq!(subscription.held(), 0, "nothing is read before it is wanted");
    let mut read = Vec::new();
    while read.len() < RECORDS {
        let record = running.run(subscription.next()).expect("more").expect("a record");
        read.push(record.payload);
        subscription.put_back();
        assert_eq!(subscription.held(), 0);
        if read.len() < RECORDS {
            running.run(subscription.readable());
        }
    }
    assert!((0..).zip(&read).all(|(n, payload)| payload == format!("{n:0>10000}").as_bytes()));
}
