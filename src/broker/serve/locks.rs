//! Locks of queues, for consumers that take a queue's messages in order. They are in the log: a new leader knows
//! who holds what.

use serde::Deserialize;
use serde_json::json;

use super::failure::Failure;
use super::log_broker::{LogBroker, now_ms};
use super::names::check_group;
use crate::broker::limits::QUEUES_MAX;
use crate::broker::remoting::codes::response;
use crate::broker::remoting::{Command, Reply};
use crate::broker::state::{Answer, Change, LockRequest};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    consumer_group: String,
    client_id: String,
    #[serde(default)]
    mq_set: Vec<QueueName>,
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
    for name in body.mq_set.iter().filter_map(|queue| queue.broker_name.as_deref()) {
        broker.check_name(name)?;
    }
    check_group(&body.consumer_group)?;
    let queues: Vec<_> =
        body.mq_set.into_iter().map(|queue| (queue.topic, queue.queue_id)).collect();
    if queues.iter().any(|(_, queue)| *queue >= QUEUES_MAX) {
        let remark = format!("a queueId above {QUEUES_MAX}");
        return Err(Failure::refused(response::INVALID_PARAMETER, remark));
    }
    Ok(LockRequest { group: body.consumer_group, client: body.client_id, queues })
}

impl LogBroker {
    pub(super) async fn lock_queues(&self, command: &Command) -> Result<Reply, Failure> {
        let request = read(self, command)?;
        let answer = self.change(&Change::Lock { request, now_ms: now_ms() }).await?;
        let Answer::Locked(locked) = answer else { return Err(Failure::Moved) };
        let queue = |(topic, queue): &(String, u32)| json!({ "brokerName": self.name, "queueId": queue, "topic": topic });
        let locked: Vec<_> = locked.iter().map(queue).collect();
        Ok(Reply::done().with_body(json!({ "lockOKMQSet": locked }).to_string()))
    }

    pub(super) async fn unlock_queues(&self, command: &Command) -> Result<Reply, Failure> {
        let request = read(self, command)?;
        self.change(&Change::Unlock(request)).await?;
        Ok(Reply::done())
    }
}
