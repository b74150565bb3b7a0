//! What tools ask about a broker itself.

use std::collections::BTreeMap;

use crate::cluster::eventually;
use crate::nodes::Brokers;

const RUNTIME_INFO: i32 = 28;

#[tokio::test]
async fn a_broker_tells_tools_how_it_is_and_nothing_that_it_does_not_know() {
    let brokers = Brokers::start().await;
    // Followers pass the question on, as any other.
    let mut client = brokers.client(brokers.follower().await).await;
    let ask = async |client: &mut crate::client::Client| -> BTreeMap<String, String> {
        let info = client.call(RUNTIME_INFO, &[], b"").await.done().json();
        serde_json::from_value(info["table"].clone()).expect("names and texts")
    };
    let number = |table: &BTreeMap<String, String>, name: &str| -> i64 {
        let text = table.get(name).unwrap_or_else(|| panic!("no {name} in {table:?}"));
        text.parse().unwrap_or_else(|error| panic!("{name} {text}: {error}"))
    };
    let empty = ask(&mut client).await;
    assert_eq!(empty["brokerVersionDesc"], concat!("quorumlog ", env!("CARGO_PKG_VERSION")));
    assert_eq!(empty["brokerActive"], "true");
    assert_eq!(number(&empty, "earliestMessageTimeStamp"), -1, "there is no message");
    let started = number(&empty, "bootTimestamp");
    assert!(started > 1_700_000_000_000, "{started}");

    let mut rates = Vec::new();
    eventually("messages to be counted as they come and go", async || {
        client.send("T", 0, "x").await.done();
        client.pull("T", 0, 0).await.done();
        let table = ask(&mut client).await;
        rates = ["putTps", "getTransferredTps", "getTransferedTps"]
            .map(|name| table[name].clone())
            .to_vec();
        rates.iter().all(|rate| !rate.starts_with("0.00")).then_some(())
    })
    .await;
    assert!(rates.iter().all(|rate| rate.split(' ').count() == 3), "over three times: {rates:?}");
    let used = ask(&mut client).await;
    assert!(number(&used, "earliestMessageTimeStamp") >= started, "{used:?}");
    assert_eq!(number(&used, "commitLogMinOffset"), 0);
    assert!(number(&used, "commitLogMaxOffset") > number(&empty, "commitLogMaxOffset"));
}
