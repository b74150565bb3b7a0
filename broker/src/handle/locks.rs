//! Locks of queues, for consumers that take a queue's messages in order. They are in the log: a new leader knows
//! who holds what, and how much was left of each lease.

use serde::Deserialize;
use serde_json::json;

use crate::clients::check_client;
use crate::limits::QUEUES_MAX;
use crate::log::{LeaseClock, Replica};
use crate::mutant::Mutant;
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply};
use crate::request::{Failure, check_group, check_name};
use crate::state::{Answer, Change, LockRequest};

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

fn read(command: &Command, own: &str) -> Result<LockRequest, Failure> {
    let body: Body = command.json_body()?;
    for name in body.mq_set.iter().flatten().filter_map(|queue| queue.broker_name.as_deref()) {
        check_name(own, name)?;
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

/// A consumer locks queues, or renews its locks.
pub(super) struct LockQueues(LockRequest);

impl LockQueues {
    /// `own` is the name of the broker that the request reached.
    pub(super) fn read(command: &Command, own: &str) -> Result<Self, Failure> {
        read(command, own).map(Self)
    }

    pub(super) async fn run(
        self,
        replica: &Replica,
        leases: &LeaseClock,
    ) -> Result<Reply, Failure> {
        let now_ms = match Mutant::LeasesByWallClock.is_active() {
            true => replica.clock.now_ms(),
            false => leases.now_ms(),
        };
        let answer = replica.change(&Change::Lock { request: self.0, now_ms }).await?;
        let Answer::Locked(locked) = answer else { return Err(Failure::Moved) };
        let locked = locked.iter().map(|(topic, queue)| replica.queue_name(topic, *queue));
        let locked: Vec<_> = locked.collect();
        Ok(Reply::done().with_body(json!({ "lockOKMQSet": locked }).to_string()))
    }
}

/// A consumer gives locks back.
pub(super) struct UnlockQueues(LockRequest);

impl UnlockQueues {
    /// `own` is the name of the broker that the request reached.
    pub(super) fn read(command: &Command, own: &str) -> Result<Self, Failure> {
        read(command, own).map(Self)
    }

    pub(super) async fn run(self, replica: &Replica) -> Result<Reply, Failure> {
        replica.change(&Change::Unlock(self.0)).await?;
        Ok(Reply::done())
    }
}
