//! Locks of queues, for consumers that take a queue's messages in order. They are in the log: a new leader knows
//! who holds what, and how much was left of each lease.

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::log_broker::LogBroker;
use crate::clients::check_client;
use crate::limits::QUEUES_MAX;
use crate::mutant::Mutant;
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply};
use crate::request::{Failure, check_group, check_name};
use crate::state::{Answer, Change, LockRequest};

/// The time that leases go by: milliseconds that leaders have led since the log's first lock, one after another. It is
/// in each request for locks, so that applying one reads no clock. It has nothing to do with wall clocks, except that
/// in a log of an older build it begins where theirs was.
#[derive(Debug, Default)]
pub(crate) struct LeaseClock {
    /// What it showed when this node last became leader.
    began: Mutex<Option<(i64, Instant)>>,
}

impl LeaseClock {
    /// This node leads now, and has applied all locks: the newest was taken at `newest_ms`.
    pub(crate) fn begin(&self, newest_ms: i64) {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        *began = Some((newest_ms, Instant::now()));
    }

    /// What it shows, on the leader.
    pub(crate) fn now_ms(&self) -> i64 {
        let began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((newest_ms, at)) = *began else { return 0 };
        newest_ms.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    consumer_group: String,
    client_id: String,
    #[serde(default)]
    mq_set: Option<Vec<QueueName>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueueName {
    topic: String,
    broker_name: Option<String>,
    queue_id: u32,
}

fn read(broker: &LogBroker, command: &Command) -> Result<LockRequest, Failure> {
    let body: Body = command.json_body()?;
    for name in body.mq_set.iter().flatten().filter_map(|queue| queue.broker_name.as_deref()) {
        check_name(&broker.name, name)?;
    }
    check_group(&body.consumer_group)?;
    check_client(&body.client_id)?;
    let queues: Vec<_> =
        body.mq_set.into_iter().flatten().map(|queue| (queue.topic, queue.queue_id)).collect();
    if queues.iter().any(|(_, queue)| *queue >= QUEUES_MAX) {
        let remark = format!("a queueId above {QUEUES_MAX}");
        return Err(Failure::refused(response::INVALID_PARAMETER, remark));
    }
    let request = LockRequest { group: body.consumer_group, client: body.client_id, queues };
    request.check()?;
    Ok(request)
}

impl LogBroker {
    pub(crate) async fn lock_queues(&self, command: &Command) -> Result<Reply, Failure> {
        let request = read(self, command)?;
        let now_ms = match Mutant::LeasesByWallClock.is_active() {
            true => self.clock.now_ms(),
            false => self.leases.now_ms(),
        };
        let answer = self.change(&Change::Lock { request, now_ms }).await?;
        let Answer::Locked(locked) = answer else { return Err(Failure::Moved) };
        let queue = |(topic, queue): &(String, u32)| json!({ "brokerName": self.name, "queueId": queue, "topic": topic });
        let locked: Vec<_> = locked.iter().map(queue).collect();
        Ok(Reply::done().with_body(json!({ "lockOKMQSet": locked }).to_string()))
    }

    pub(crate) async fn unlock_queues(&self, command: &Command) -> Result<Reply, Failure> {
        let request = read(self, command)?;
        self.change(&Change::Unlock(request)).await?;
        Ok(Reply::done())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leases_go_by_elapsed_time_and_a_new_leader_goes_on_where_the_last_lock_was_taken() {
        let clock = LeaseClock::default();
        clock.begin(7_000);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now_ms(), 12_000);
        let next = LeaseClock::default();
        next.begin(clock.now_ms());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(next.now_ms(), 13_000);
        next.begin(i64::MAX);
        assert_eq!(next.now_ms(), i64::MAX, "whatever an older build left");
    }
}
