//! Topics. The home log decides which there are, for all logs (`home`). A log makes by itself only those that are made
//! on demand.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::home::{DECIDE_TIMEOUT, FOLLOW_TIMEOUT};
use super::log_broker::LogBroker;
use crate::limits::QUEUES_MAX;
use crate::mutant::Mutant;
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply};
use crate::request::{Failure, QueueTable, check_topic, is_reserved};
use crate::state::{Change, Decision, TopicConfig, is_made_on_demand};

/// How long a send waits for its topic.
const SEND_TIMEOUT: Duration = Duration::from_millis(1000);

fn illegal(remark: impl Into<String>) -> Failure {
    Failure::refused(response::INVALID_PARAMETER, remark)
}

/// A topic was not made, or is not known to be. Nothing else was done, and to make it twice makes it once.
fn not_made(topic: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Unknown(detail) => {
            Failure::refused(response::SERVICE_NOT_AVAILABLE, format!("topic[{topic}]: {detail}"))
        }
        failure => failure,
    }
}

impl LogBroker {
    /// The settings that a topic has in this log by the registry as this node knows it, and the registry's version; none
    /// if this log has followed decisions that this node has not heard of.
    fn registered(&self, topic: &str) -> Option<(TopicConfig, u64)> {
        let home = self.home().ok()?;
        let followed = self.shared().map_or(0, |shared| shared.state().followed());
        let state = home.shared().ok()?.state();
        let registry = state.registry();
        let topic = registry.get(topic).filter(|_| registry.version() >= followed)?;
        Some((topic.config(self.number), registry.version()))
    }

    /// The settings of a topic in this log alone.
    fn own_topic(&self, topic: &str) -> Option<TopicConfig> {
        self.shared().ok()?.state().topic(topic).map(|topic| topic.config)
    }

    /// The topic's settings in this log: as it has them, or as it would have them. A topic of all logs has those of the
    /// registry; one on which no registry decides has those that it has in another log.
    pub(crate) fn topic_config(&self, topic: &str) -> Option<TopicConfig> {
        let of_another = || {
            let brokers = self.brokers.upgrade()?;
            brokers.logs().iter().find_map(|broker| {
                let state = broker.shared().ok()?.state();
                state.topic(topic).filter(|topic| topic.is_local()).map(|topic| topic.config)
            })
        };
        let registered = || self.registered(topic).map(|(config, _)| config);
        self.own_topic(topic).or_else(registered).or_else(of_another)
    }

    /// The topic's settings in this log, once it has the topic. One that is made on demand is made in this log. One of
    /// all logs is made with the settings that are given, if there is none: the home log decides, and this log follows.
    ///
    /// # Errors
    /// There is no such topic, or it cannot be made.
    pub(crate) async fn ensure_topic(
        &self,
        topic: &str,
        make: Option<TopicConfig>,
    ) -> Result<TopicConfig, Failure> {
        if let Some(config) = self.shared()?.state().topic(topic).map(|topic| topic.config) {
            return Ok(config);
        }
        if is_made_on_demand(topic) {
            let config = self.topic_config(topic).or(make);
            let config = config.unwrap_or_else(|| TopicConfig::with_queues(1));
            let ensure = Change::EnsureTopic { name: topic.to_owned(), config };
            self.change(&ensure).await.map_err(|failure| not_made(topic, failure))?;
        } else {
            self.stays()?;
            self.follow_topic(topic, make).await?;
        }
        let made = self.shared()?.state().topic(topic).map(|topic| topic.config);
        made.ok_or_else(|| Failure::no_topic(topic))
    }

    /// Checks that this node leads on: else the next leader sees what the logs make of a topic.
    ///
    /// # Errors
    /// Another node is about to lead.
    fn stays(&self) -> Result<(), Failure> {
        if self.leaves() { Err(Failure::Moved) } else { Ok(()) }
    }

    /// Waits until this log has a topic of all logs, which is made if there is none.
    async fn follow_topic(&self, topic: &str, make: Option<TopicConfig>) -> Result<(), Failure> {
        // What this log has followed counts: this node's own copy of the registry may lie behind.
        let known = self.home()?.shared()?.state().registry().version();
        let seen = known.max(self.shared()?.state().followed());
        let deadline = Instant::now() + SEND_TIMEOUT;
        let following = async {
            let version = match (self.registered(topic), self.topic_config(topic).or(make)) {
                (Some((_, version)), _) => version,
                (None, Some(config)) => {
                    let ensure = Decision::Ensure { name: topic.to_owned(), config, seen };
                    let decided = self.decide(ensure, deadline).await;
                    decided.map_err(|failure| not_made(topic, failure))?
                }
                (None, None) => return Err(Failure::no_topic(topic)),
            };
            self.followed(version, deadline).await
        };
        // Many may wait for a new topic. One decision is enough for all of them.
        tokio::select! {
            biased;
            () = self.appeared(topic) => Ok(()),
            followed = following => followed,
        }
    }

    /// Waits until this log has a topic, whoever asked for it. Cancel safe.
    async fn appeared(&self, topic: &str) {
        if let Ok(shared) = self.shared()
            && !Mutant::TopicMadeByEach.is_active()
        {
            let mut followed = shared.followed.subscribe();
            while shared.state().topic(topic).is_none() {
                // Its sender goes only with the broker.
                let _ = followed.changed().await;
            }
            return;
        }
        std::future::pending().await
    }

    /// Checks that a queue can be pulled from.
    ///
    /// # Errors
    /// RocketMQ's code, and the reason.
    pub(crate) fn check_readable(&self, topic: &str, queue: u32) -> Result<(), Failure> {
        let config = match self.topic_config(topic) {
            Some(config) => config,
            None if is_made_on_demand(topic) => {
                check_topic(topic)?;
                TopicConfig::with_queues(1)
            }
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

    pub(crate) async fn put_topic(&self, command: &Command) -> Result<Reply, Failure> {
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
        let name = topic.to_owned();
        if is_made_on_demand(topic) {
            self.change(&Change::PutTopic { name, config }).await?;
            return Ok(Reply::done());
        }
        self.stays()?;
        let deadline = Instant::now() + DECIDE_TIMEOUT;
        self.all_adopted(deadline).await?;
        let put = Decision::Put { name, log: self.number, config };
        let version = self.decide(put, deadline).await?;
        // It is decided. A log that takes longer follows before it stores the topic's first message.
        let _ = self.all_followed(version, deadline + FOLLOW_TIMEOUT).await;
        Ok(Reply::done())
    }

    pub(crate) async fn delete_topic(&self, command: &Command) -> Result<Reply, Failure> {
        let topic = command.head.fields.text("topic")?;
        check_topic(topic)?;
        if is_reserved(topic) {
            return Err(illegal(format!("The topic[{topic}] is conflict with system topic.")));
        }
        let name = topic.to_owned();
        if is_made_on_demand(topic) {
            self.change(&Change::DeleteTopic { name }).await?;
            self.forget_offsets_of_other_topics()?;
            return Ok(Reply::done());
        }
        self.stays()?;
        let deadline = Instant::now() + DECIDE_TIMEOUT;
        self.all_adopted(deadline).await?;
        let version = self.decide(Decision::Delete { name }, deadline).await?;
        if Mutant::DeleteAnsweredEarly.is_active() {
            return Ok(Reply::done());
        }
        let followed = self.all_followed(version, deadline + FOLLOW_TIMEOUT).await;
        followed.map(|()| Reply::done()).map_err(|failure| {
            let why = match failure {
                Failure::Refused { remark, .. } => remark,
                _ => "this node is stopping".to_owned(),
            };
            let remark = format!("topic[{topic}] is deleted, but {why}; it will");
            Failure::refused(response::SYSTEM_ERROR, remark)
        })
    }

    /// A topic's settings, as tools of RocketMQ 5 ask for them.
    ///
    /// # Errors
    /// There is no such topic.
    pub(crate) fn topic_settings(&self, command: &Command) -> Result<Reply, Failure> {
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
    pub(crate) async fn topic_stats(&self, command: &Command) -> Result<Reply, Failure> {
        let topic = command.head.fields.text("topic")?;
        let config = self.topic_config(topic).ok_or_else(|| Failure::no_topic(topic))?;
        let mut table = QueueTable::after(r#"{"offsetTable":"#);
        for queue in 0..config.queues() {
            let (min, max) = (self.begin_of(topic, queue)?, self.end_of(topic, queue)?);
            let stored_ms = self.stored_before(topic, queue, max).await?;
            let stats =
                json!({ "lastUpdateTimestamp": stored_ms, "maxOffset": max, "minOffset": min });
            table.push(&self.queue_name(topic, queue), &stats).await?;
        }
        Ok(table.into_reply(r#","topicPutTps":0.0}"#))
    }
}
