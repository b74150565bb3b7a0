//! What RocketMQ's tools show of a broker: of the many values that they know, those that mean something here.

use quorumlog::ReadError;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::log::{Rates, Replica, Throughput, messages};
use crate::record::Message;
use crate::remoting::Reply;
use crate::request::Failure;
use crate::state::{message_at, physical};

/// Bytes of records that are looked through for the oldest message.
const OLDEST_BYTES: usize = 256 << 10;

fn spaced(rates: Rates) -> String {
    rates.map(|rate| format!("{rate:.2}")).join(" ")
}

/// A table of names and values, all of them text. `started_ms` is the wall clock's time at which the broker was started.
///
/// # Errors
/// The log cannot be read.
pub(super) async fn runtime_info(
    replica: &Replica,
    throughput: &Throughput,
    started_ms: i64,
) -> Result<Reply, Failure> {
    let opened = replica.opened()?;
    let marks = opened.log.watermarks();
    let total = messages(&opened.shared).await;
    let (put, got) = throughput.rates(Instant::now(), total);
    let mut table = Map::new();
    let mut say = |name: &str, value: String| table.insert(name.to_owned(), Value::String(value));
    say("brokerVersionDesc", format!("quorumlog {}", env!("CARGO_PKG_VERSION")));
    // Only who leads answers.
    say("brokerActive", true.to_string());
    say("bootTimestamp", started_ms.to_string());
    say("commitLogMinOffset", physical(marks.begin, 0).to_string());
    say("commitLogMaxOffset", physical(marks.committed, 0).to_string());
    say("earliestMessageTimeStamp", oldest_ms(replica, marks.begin).await?.to_string());
    say("putTps", spaced(put));
    // As versions 4 and 5 spell it.
    for name in ["getTransferedTps", "getTransferredTps"] {
        say(name, spaced(got));
    }
    // Each request is begun as it comes in: there is no queue that it could wait in.
    for pool in ["send", "pull", "query"] {
        say(&format!("{pool}ThreadPoolQueueSize"), 0.to_string());
        say(&format!("{pool}ThreadPoolQueueHeadWaitTimeMills"), 0.to_string());
    }
    Ok(Reply::done().with_body(json!({ "table": table }).to_string()))
}

/// When the oldest message that the log holds was stored; -1 if it has none near its beginning.
async fn oldest_ms(replica: &Replica, begin: u64) -> Result<i64, Failure> {
    let records = match replica.opened()?.log.read(begin, OLDEST_BYTES).await {
        // Retention was quicker.
        Err(ReadError::Trimmed { .. }) => return Ok(-1),
        records => records?,
    };
    let messages = records.iter().filter_map(|record| message_at(&record.payload, 0).ok());
    let oldest = messages.filter_map(|message| Message::decode(message).ok()).next();
    Ok(oldest.map_or(-1, |message| message.stored_ms))
}
