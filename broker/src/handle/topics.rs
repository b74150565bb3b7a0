//! Topics: tools make, change and delete them, and look at them; other nodes have them decided.

use quorumlog::codec;
use serde_json::json;
use tokio::time::Instant;

use crate::limits::{DECISION_BYTES_MAX, QUEUES_MAX};
use crate::log::{DECIDE_TIMEOUT, FOLLOW_TIMEOUT, Replica, Topics};
use crate::mutant::Mutant;
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply};
use crate::request::{Failure, QueueTable, check_topic, is_reserved};
use crate::state::{Change, Decision, HOME_LOG, TopicConfig, is_made_on_demand};

fn illegal(remark: impl Into<String>) -> Failure {
    Failure::refused(response::INVALID_PARAMETER, remark)
}

/// The name of a topic that a tool may make or delete.
fn changeable(command: &Command) -> Result<String, Failure> {
    let topic = command.head.fields.text("topic")?;
    check_topic(topic)?;
    if is_reserved(topic) {
        return Err(illegal(format!("The topic[{topic}] is conflict with system topic.")));
    }
    Ok(topic.to_owned())
}

/// Makes a topic, or changes its settings.
pub(super) struct PutTopic {
    name: String,
    config: TopicConfig,
}

impl PutTopic {
    pub(super) fn read(command: &Command) -> Result<Self, Failure> {
        let name = changeable(command)?;
        let fields = &command.head.fields;
        let queues = |name: &str| -> Result<u32, Failure> {
            let number = fields.int_or(name, 8)?;
            let queues = u32::try_from(number).ok().filter(|n| (1..=QUEUES_MAX).contains(n));
            queues.ok_or_else(|| illegal(format!("{name}[{number}] is not in 1 to {QUEUES_MAX}")))
        };
        let perm = fields.int_or("perm", 6)?;
        let config = TopicConfig {
            read_queues: queues("readQueueNums")?,
            write_queues: queues("writeQueueNums")?,
            perm: u32::try_from(perm)
                .ok()
                .filter(|perm| *perm < 8)
                .ok_or_else(|| illegal(format!("perm[{perm}] is illegal")))?,
            ordered: fields.flag("order"),
        };
        Ok(Self { name, config })
    }

    pub(super) async fn run(self, replica: &Replica, topics: &Topics) -> Result<Reply, Failure> {
        let Self { name, config } = self;
        if is_made_on_demand(&name) {
            replica.change(&Change::PutTopic { name, config }).await?;
            return Ok(Reply::done());
        }
        topics.stays()?;
        let deadline = Instant::now() + DECIDE_TIMEOUT;
        topics.all_adopted(deadline).await?;
        let put = Decision::Put { name, log: replica.number, config };
        let version = topics.decide(put, deadline).await?;
        // It is decided. A log that takes longer follows before it stores the topic's first message.
        let _ = topics.all_followed(version, deadline + FOLLOW_TIMEOUT).await;
        Ok(Reply::done())
    }
}

/// Deletes a topic.
pub(super) struct DeleteTopic {
    name: String,
}

impl DeleteTopic {
    pub(super) fn read(command: &Command) -> Result<Self, Failure> {
        Ok(Self { name: changeable(command)? })
    }

    pub(super) async fn run(self, replica: &Replica, topics: &Topics) -> Result<Reply, Failure> {
        let name = self.name;
        if is_made_on_demand(&name) {
            replica.change(&Change::DeleteTopic { name }).await?;
            topics.forget_offsets_of_other_topics()?;
            return Ok(Reply::done());
        }
        topics.stays()?;
        let deadline = Instant::now() + DECIDE_TIMEOUT;
        topics.all_adopted(deadline).await?;
        let version = topics.decide(Decision::Delete { name: name.clone() }, deadline).await?;
        if Mutant::DeleteAnsweredEarly.is_active() {
            return Ok(Reply::done());
        }
        let followed = topics.all_followed(version, deadline + FOLLOW_TIMEOUT).await;
        followed.map(|()| Reply::done()).map_err(|failure| {
            let why = match failure {
                Failure::Refused { remark, .. } => remark,
                _ => "this node is stopping".to_owned(),
            };
            let remark = format!("topic[{name}] is deleted, but {why}; it will");
            Failure::refused(response::SYSTEM_ERROR, remark)
        })
    }
}

/// A topic's settings, as tools of RocketMQ 5 ask for them.
pub(super) struct TopicSettings<'a> {
    topic: &'a str,
}

impl<'a> TopicSettings<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        Ok(Self { topic: command.head.fields.text("topic")? })
    }

    pub(super) fn run(self, topics: &Topics) -> Result<Reply, Failure> {
        let topic = self.topic;
        let config = topics.topic_config(topic).ok_or_else(|| Failure::no_topic(topic))?;
        let body = json!({
            "attributes": {},
            "order": false,
            "perm": config.perm,
            "readQueueNums": config.read_queues,
            "topicFilterType": "SINGLE_TAG",
            "topicName": topic,
            "topicSysFlag": 0,
            "writeQueueNums": config.write_queues,
        });
        Ok(Reply::done().with_body(body.to_string()))
    }
}

/// For each queue of a topic: where it begins and ends, and when its last message was stored.
pub(super) struct TopicStats<'a> {
    topic: &'a str,
}

impl<'a> TopicStats<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        Ok(Self { topic: command.head.fields.text("topic")? })
    }

    pub(super) async fn run(self, replica: &Replica, topics: &Topics) -> Result<Reply, Failure> {
        let topic = self.topic;
        let config = topics.topic_config(topic).ok_or_else(|| Failure::no_topic(topic))?;
        let mut table = QueueTable::after(r#"{"offsetTable":"#);
        for queue in 0..config.queues() {
            let (min, max) = (replica.begin_of(topic, queue)?, replica.end_of(topic, queue)?);
            let stored_ms = replica.stored_before(topic, queue, max).await?;
            let stats =
                json!({ "lastUpdateTimestamp": stored_ms, "maxOffset": max, "minOffset": min });
            table.push(&replica.queue_name(topic, queue), &stats).await?;
        }
        Ok(table.into_reply(r#","topicPutTps":0.0}"#))
    }
}

/// A decision that another node asks for.
pub(super) struct DecideTopic(Decision);

impl DecideTopic {
    /// `log` is the number of the log that the request reached.
    pub(super) fn read(command: &Command, log: u32) -> Result<Self, Failure> {
        if log != HOME_LOG || command.body.len() > DECISION_BYTES_MAX {
            return Err(illegal("this log does not decide on topics"));
        }
        let decision = codec::decode(&command.body).map_err(|error| illegal(error.to_string()))?;
        Ok(Self(decision))
    }

    pub(super) async fn run(self, topics: &Topics) -> Result<Reply, Failure> {
        Ok(Reply::done().with("version", topics.decide_for_another(self.0).await?))
    }
}
