//! Topics: a topic of one log of the cluster is one of all, and is made in the others as they need it.

use serde_json::json;

use super::failure::Failure;
use super::log_broker::LogBroker;
use super::names::{check_topic, is_made_on_demand, is_reserved};
use crate::broker::limits::QUEUES_MAX;
use crate::broker::remoting::codes::response;
use crate::broker::remoting::{Command, Reply, object_keys};
use crate::broker::state::{Change, TopicConfig};

fn illegal(remark: impl Into<String>) -> Failure {
    Failure::refused(response::INVALID_PARAMETER, remark)
}

impl LogBroker {
    /// The topic's settings: in this log, or else in another one of the cluster.
    pub(super) fn topic_config(&self, topic: &str) -> Option<TopicConfig> {
        let own = |broker: &Self| {
            let shared = broker.shared().ok()?;
            let state = shared.state();
            state.topic(topic).map(|topic| topic.config)
        };
        own(self).or_else(|| self.brokers.upgrade()?.logs().iter().find_map(|broker| own(broker)))
    }

    /// The topic's settings; it is made in this log if another one has it, if it is one that is made on demand, or
    /// with the settings that are given.
    ///
    /// # Errors
    /// There is no such topic, or it cannot be made.
    pub(super) async fn ensure_topic(
        &self,
        topic: &str,
        make: Option<TopicConfig>,
    ) -> Result<TopicConfig, Failure> {
        let own = self.shared()?.state().topic(topic).map(|topic| topic.config);
        if let Some(config) = own {
            return Ok(config);
        }
        let on_demand = is_made_on_demand(topic).then(|| TopicConfig::with_queues(1));
        let config = self.topic_config(topic).or(on_demand).or(make);
        let config = config.ok_or_else(|| Failure::no_topic(topic))?;
        let made = self.change(&Change::EnsureTopic { name: topic.to_owned(), config }).await;
        // Making it twice makes it once, and nothing else is done yet.
        made.map_err(|failure| match failure {
            Failure::Unknown(detail) => Failure::refused(
                response::SERVICE_NOT_AVAILABLE,
                format!("topic[{topic}]: {detail}"),
            ),
            failure => failure,
        })?;
        let made = self.shared()?.state().topic(topic).map(|topic| topic.config);
        made.ok_or_else(|| Failure::no_topic(topic))
    }

    /// Checks that a queue can be pulled from.
    ///
    /// # Errors
    /// RocketMQ's code, and the reason.
    pub(super) fn check_readable(&self, topic: &str, queue: u32) -> Result<(), Failure> {
        let config = match self.topic_config(topic) {
            Some(config) => config,
            None if is_made_on_demand(topic) => TopicConfig::with_queues(1),
            None => return Err(Failure::no_topic(topic)),
        };
        if config.perm & 4 == 0 {
            let remark = format!("the topic[{topic}] pulling message is forbidden");
            return Err(Failure::refused(response::NO_PERMISSION, remark));
        }
        if queue >= config.queues() {
            let remark = format!(
                "queueId[{queue}] is illegal, topic:[{topic}] readQueueNums:[{}]",
                config.read_queues
            );
            return Err(illegal(remark));
        }
        Ok(())
    }

    pub(super) async fn put_topic(&self, command: &Command) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let topic = fields.text("topic")?;
        check_topic(topic)?;
        if is_reserved(topic) {
            return Err(illegal(format!("The topic[{topic}] is conflict with system topic.")));
        }
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
        self.change(&Change::PutTopic { name: topic.to_owned(), config }).await?;
        Ok(Reply::done())
    }

    pub(super) async fn delete_topic(&self, command: &Command) -> Result<Reply, Failure> {
        let topic = command.head.fields.text("topic")?;
        check_topic(topic)?;
        if is_reserved(topic) {
            return Err(illegal(format!("The topic[{topic}] is conflict with system topic.")));
        }
        self.change(&Change::DeleteTopic { name: topic.to_owned() }).await?;
        Ok(Reply::done())
    }

    /// A topic's settings, as tools of RocketMQ 5 ask for them.
    ///
    /// # Errors
    /// There is no such topic.
    pub(super) fn topic_settings(&self, command: &Command) -> Result<Reply, Failure> {
        let topic = command.head.fields.text("topic")?;
        let config = self.topic_config(topic).ok_or_else(|| Failure::no_topic(topic))?;
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

    /// For each queue of a topic: where it begins and ends, and when its last message was stored.
    ///
    /// # Errors
    /// There is no such topic.
    pub(super) async fn topic_stats(&self, command: &Command) -> Result<Reply, Failure> {
        let topic = command.head.fields.text("topic")?;
        let config = self.topic_config(topic).ok_or_else(|| Failure::no_topic(topic))?;
        let mut table = Vec::new();
        for queue in 0..config.queues() {
            let (min, max) = (self.begin_of(topic, queue)?, self.end_of(topic, queue)?);
            let stored_ms = self.stored_before(topic, queue, max).await?;
            let stats =
                json!({ "lastUpdateTimestamp": stored_ms, "maxOffset": max, "minOffset": min });
            table.push((self.queue_name(topic, queue), stats));
        }
        let table = object_keys::write(table);
        Ok(Reply::done().with_body(format!(r#"{{"offsetTable":{table},"topicPutTps":0.0}}"#)))
    }
}
