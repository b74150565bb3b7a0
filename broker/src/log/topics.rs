//! Topics. The home log decides which there are, for all logs (`home`). A log makes by itself only those that are made
//! on demand.

use std::sync::{Arc, Weak};
use std::time::Duration;

use quorumlog::seam::Transport;
use tokio::time::Instant;

use super::brokers::Brokers;
use super::consume_offsets::ConsumeOffsets;
use super::home::Home;
use super::replica::Replica;
use crate::mutant::Mutant;
use crate::remoting::codes::response;
use crate::request::{Failure, check_topic};
use crate::state::{Change, Decision, State, TopicConfig, is_made_on_demand};

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

/// The topics of a log: those that it has, and those that the home log decides on for all logs.
pub(crate) struct Topics {
    pub(super) replica: Arc<Replica>,
    pub(super) brokers: Weak<Brokers>,
    /// What is on its way of topics that are deleted is forgotten.
    pub(super) consumed: Arc<ConsumeOffsets>,
    /// The way to those who decide on topics; used of the home log's broker only.
    pub(super) decisions: Home,
}

impl Topics {
    pub(super) fn new(
        replica: &Arc<Replica>,
        brokers: &Arc<Brokers>,
        consumed: &Arc<ConsumeOffsets>,
        transport: &Arc<dyn Transport>,
    ) -> Self {
        Self {
            replica: Arc::clone(replica),
            brokers: Arc::downgrade(brokers),
            consumed: Arc::clone(consumed),
            decisions: Home::new(Arc::clone(transport)),
        }
    }

    /// Gives up the lead while the copy of another broker's log has stopped on this node: what clients ask of one log's
    /// leader can concern them all, and topics are decided in the home log. True while another node is about to lead.
    pub(crate) fn leaves(&self) -> bool {
        let (Some(opened), Some(brokers)) = (self.replica.opened.get(), self.brokers.upgrade())
        else {
            return false;
        };
        opened.log.decline_lead(brokers.logs().iter().any(|log| log.replica.has_stopped()));
        opened.log.hands_over()
    }

    /// Has `read` look at the state of each log that this node has: a group of one log is one of all.
    pub(crate) fn in_all_logs(&self, mut read: impl FnMut(&State)) {
        let Some(brokers) = self.brokers.upgrade() else { return };
        for shared in brokers.logs().iter().filter_map(|broker| broker.replica.shared().ok()) {
            read(&shared.state());
        }
    }

    /// The settings that a topic has in this log by the registry as this node knows it, and the registry's version; none
    /// if this log has followed decisions that this node has not heard of.
    fn registered(&self, topic: &str) -> Option<(TopicConfig, u64)> {
        let home = self.home().ok()?;
        let followed = self.replica.shared().map_or(0, |shared| shared.state().followed());
        let state = home.replica.shared().ok()?.state();
        let registry = state.registry();
        let topic = registry.get(topic).filter(|_| registry.version() >= followed)?;
        Some((topic.config(self.replica.number), registry.version()))
    }

    /// The settings of a topic in this log alone.
    fn own_topic(&self, topic: &str) -> Option<TopicConfig> {
        self.replica.shared().ok()?.state().topic(topic).map(|topic| topic.config)
    }

    /// The topic's settings in this log: as it has them, or as it would have them. A topic of all logs has those of the
    /// registry; one on which no registry decides has those that it has in another log.
    pub(crate) fn topic_config(&self, topic: &str) -> Option<TopicConfig> {
        let of_another = || {
            let brokers = self.brokers.upgrade()?;
            brokers.logs().iter().find_map(|broker| {
                let state = broker.replica.shared().ok()?.state();
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
        if let Some(config) = self.replica.shared()?.state().topic(topic).map(|topic| topic.config)
        {
            return Ok(config);
        }
        if is_made_on_demand(topic) {
            let config = self.topic_config(topic).or(make);
            let config = config.unwrap_or_else(|| TopicConfig::with_queues(1));
            let ensure = Change::EnsureTopic { name: topic.to_owned(), config };
            self.replica.change(&ensure).await.map_err(|failure| not_made(topic, failure))?;
        } else {
            self.stays()?;
            self.follow_topic(topic, make).await?;
        }
        let made = self.replica.shared()?.state().topic(topic).map(|topic| topic.config);
        made.ok_or_else(|| Failure::no_topic(topic))
    }

    /// Checks that this node leads on: else the next leader sees what the logs make of a topic.
    ///
    /// # Errors
    /// Another node is about to lead.
    pub(crate) fn stays(&self) -> Result<(), Failure> {
        if self.leaves() { Err(Failure::Moved) } else { Ok(()) }
    }

    /// Waits until this log has a topic of all logs, which is made if there is none.
    async fn follow_topic(&self, topic: &str, make: Option<TopicConfig>) -> Result<(), Failure> {
        // What this log has followed counts: this node's own copy of the registry may lie behind.
        let known = self.home()?.replica.shared()?.state().registry().version();
        let seen = known.max(self.replica.shared()?.state().followed());
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
            self.replica.followed(version, deadline).await
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
        if let Ok(shared) = self.replica.shared()
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
}
