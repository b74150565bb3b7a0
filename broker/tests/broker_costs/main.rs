//! What each request may cost. For every code that a broker or a name server serves: the largest and the most expensive
//! input that passes its checks, the memory that it takes at most, and the largest record that it leads to. A request over
//! the limits is refused, with an answer.
//!
//! One test in a separate program: it counts the memory of the whole process.

mod client;
mod clients;
mod costs;
mod messages;
mod requests;
mod served;
mod topics;
mod waiting;

use costs::{Costs, KIB, MIB, SMALL};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_costs_no_more_than_its_bound() {
    let mut costs = Costs::start().await;
    messages::messages(&mut costs).await;
    messages::reading(&mut costs).await;
    waiting::waiting(&mut costs).await;
    topics::topics(&mut costs).await;
    clients::clients(&mut costs).await;
    topics::offsets(&mut costs).await;
    costs
        .measure("from a client", 0x514C_0001, (&[("client", "127.0.0.1:1")], b""), 0, (SMALL, 0))
        .await;
    let served = served::served();
    for (code, name) in &served {
        assert!(costs.measured.contains(code), "{name} ({code}) has no row");
        if matches!(code, 10 | 310 | 320) {
            continue;
        }
        let large = [("x", "x".repeat(64 * KIB))];
        let fields: Vec<_> = large.iter().map(|(name, value)| (*name, value.as_str())).collect();
        costs.refused("fields over the limit", *code, &fields, b"").await;
        costs.refused("a body of 2 MiB", *code, &[], &vec![b' '; 2 * MIB]).await;
    }
    assert!(served.len() >= 33, "{served:?}");
}
