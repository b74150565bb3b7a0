//! The name server: which brokers have a topic, and where they are. A node on which a log has stopped knows that log's
//! topics and queues of before, so it has another node's name server answer.

use std::future::ready;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quorumlog::LedElsewhere;
use quorumlog::seam::Transport;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::Connection;
use super::failure::Failure;
use super::listener::Service;
use super::listing::{Look, behind, list, quoted};
use super::log_broker::{LogBroker, Part};
use super::long_answers::LongAnswers;
use super::names::{AUTO_CREATE_TOPIC, check_topic};
use super::pending_request::PendingRequest;
use super::request_limits::check_size;
use super::settings::BrokerConfig;
use super::way::Way;
use crate::mutant::Mutant;
use crate::remoting::codes::{request, response};
use crate::remoting::{Command, Reply};
use crate::state::{HOME_LOG, TopicConfig, is_made_on_demand, is_registered};

/// How long a route waits for leaders. A producer asks twice for a topic that is not there, and a send has three seconds.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(1200);
/// How long a route names a log's last leader after this node has heard of none: longer than an election takes. A node that
/// is cut off, or alone, does not know whether that leader is there.
const LEADERLESS_MAX: Duration = Duration::from_secs(10);
/// How long another node's name server may take to answer. Then this node says what it knows.
const PASS_ON_TIMEOUT: Duration = Duration::from_millis(1500);
/// Field of a request that another node passed on: it is answered here.
const PASSED_ON: &str = "passedOn";

impl std::fmt::Debug for Brokers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Brokers").finish_non_exhaustive()
    }
}

/// All logs' brokers on this node.
pub(super) struct Brokers {
    config: Arc<BrokerConfig>,
    logs: OnceLock<Vec<Arc<LogBroker>>>,
    /// What other nodes say of the logs that have stopped here.
    elsewhere: watch::Receiver<LedElsewhere>,
    /// The way to another node's name server.
    other: Way,
    /// Of the name server and all logs: they share the node's memory and its processors.
    long_answers: Arc<LongAnswers>,
}

impl Service for Brokers {
    fn answer(
        self: Arc<Self>,
        connection: Arc<Connection>,
        PendingRequest { command, .. }: PendingRequest,
    ) -> BoxFuture<'static, Option<Vec<Bytes>>> {
        if let Err(failure) = check_size(&command) {
            let answer = (!command.is_oneway()).then(|| failure.into_reply().encode(&command));
            return Box::pin(ready(answer));
        }
        Box::pin(async move {
            let reply = match self.pass_on(&command).await {
                Some(reply) => reply,
                None if self.is_removed() => Failure::refused(
                    response::SYSTEM_ERROR,
                    "this node is no member of the cluster any more: ask another name server"
                        .to_owned(),
                )
                .into_reply(),
                None => {
                    if command.head.code == request::GET_ROUTEINFO_BY_TOPIC {
                        self.settled().await;
                    }
                    let reply = self.reply(&connection, &command).await;
                    reply.unwrap_or_else(Failure::into_reply)
                }
            };
            (!command.is_oneway()).then(|| reply.encode(&command))
        })
    }

    fn closed(&self, _connection: &Connection) {}
}

impl Brokers {
    pub(super) fn new(
        config: Arc<BrokerConfig>,
        elsewhere: watch::Receiver<LedElsewhere>,
        transport: Arc<dyn Transport>,
    ) -> Self {
        let (other, long_answers) = (Way::new(transport), Arc::default());
        Self { config, logs: OnceLock::new(), elsewhere, other, long_answers }
    }

    /// Says which logs there are; once.
    pub(super) fn set_logs(&self, logs: Vec<Arc<LogBroker>>) {
        // They are set where they are made, before anybody asks.
        let _ = self.logs.set(logs);
    }

    pub(super) fn logs(&self) -> &[Arc<LogBroker>] {
        self.logs.get().map_or(&[], Vec::as_slice)
    }

    pub(super) fn long_answers(&self) -> &Arc<LongAnswers> {
        &self.long_answers
    }

    /// Waits until the logs' leaders are where they are to be, when this node has only just started. A client keeps to
    /// its first route for 30 s, and one that named a single node would lose all brokers with that node.
    async fn settled(&self) {
        let all = async {
            for broker in self.logs() {
                // It goes only with this.
                let _ = broker.settled.subscribe().wait_for(|settled| *settled).await;
            }
        };
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, all).await;
    }

    /// True if this node was removed from the cluster: what it knows of topics and leaders is out of date.
    fn is_removed(&self) -> bool {
        self.elsewhere.borrow().removed().is_some()
    }

    /// What another node's name server answers, if a log has stopped here and one answers in time.
    async fn pass_on(&self, command: &Command) -> Option<Reply> {
        let others = self.elsewhere.borrow().name_servers().to_vec();
        let tells = matches!(
            command.head.code,
            request::GET_ROUTEINFO_BY_TOPIC
                | request::GET_BROKER_CLUSTER_INFO
                | request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER
        );
        if others.is_empty() || !tells || command.head.fields.get(PASSED_ON).is_some() {
            return None;
        }
        let asking = async {
            for other in others {
                let Some(link) = self.other.to(other).await else { continue };
                let mut fields = command.head.fields.clone();
                fields.push_shown(PASSED_ON, true);
                let body = command.body.clone();
                let asked = link.call(command.head.code, fields, body, PASS_ON_TIMEOUT).await;
                let Ok(Command { head, body, .. }) = asked else { continue };
                return Some(Reply {
                    code: head.code,
                    remark: head.remark,
                    fields: head.fields,
                    body: vec![body],
                });
            }
            None
        };
        tokio::time::timeout(PASS_ON_TIMEOUT, asking).await.ok().flatten()
    }

    async fn reply(&self, connection: &Connection, command: &Command) -> Result<Reply, Failure> {
        let _turn = self.long_answers.turn(connection, command.head.code).await?;
        match command.head.code {
            request::GET_ROUTEINFO_BY_TOPIC => Ok(self.route(command.head.fields.text("topic")?)),
            request::GET_BROKER_CLUSTER_INFO => Ok(self.cluster_info()),
            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => self.topic_list(command).await,
            // Deleted from the brokers, it is gone from here.
            request::DELETE_TOPIC_IN_NAMESRV => Ok(Reply::done()),
            code => {
                let remark = format!(" request type {code} not supported");
                Ok(Reply::refused(response::REQUEST_CODE_NOT_SUPPORTED, remark))
            }
        }
    }

    fn route(&self, topic: &str) -> Reply {
        let home = self.logs().first().filter(|home| home.opened().is_ok());
        let known = match home {
            Some(home) => home.topic_config(topic),
            // What other logs have followed is the best that is known.
            None => self.logs().iter().find_map(|broker| broker.topic_config(topic)),
        };
        let config = match known {
            Some(config) => Some(config),
            None if topic == AUTO_CREATE_TOPIC && self.config.auto_create_topics => {
                Some(TopicConfig::with_queues(self.config.default_queues))
            }
            // The retry topic of a group is there before its first message, so that its consumers need not ask again.
            None if is_made_on_demand(topic) && check_topic(topic).is_ok() => {
                Some(TopicConfig::with_queues(1))
            }
            None => None,
        };
        let Some(config) = config else {
            let remark = format!("No topic route info in name server for the topic: {topic}");
            return Reply::refused(response::TOPIC_NOT_EXIST, remark);
        };
        let led: Vec<_> = self.logs().iter().filter(|broker| broker.is_led()).collect();
        if led.is_empty() {
            // A client that has a route keeps it.
            let remark = format!("No leader is known of any log, for the topic: {topic}");
            return Reply::refused(response::TOPIC_NOT_EXIST, remark);
        }
        let queues = led.iter().map(|broker| {
            let config = broker.topic_config(topic).unwrap_or(config);
            json!({
                "brokerName": broker.name,
                "perm": config.perm,
                "readQueueNums": config.read_queues,
                "topicSysFlag": 0,
                "writeQueueNums": config.write_queues,
            })
        });
        let brokers: Vec<Value> = led.iter().map(|broker| self.broker_data(broker)).collect();
        let body = json!({
            "brokerDatas": brokers,
            "filterServerTable": {},
            "queueDatas": queues.collect::<Vec<Value>>(),
        });
        Reply::done().with_body(body.to_string())
    }

    fn broker_data(&self, broker: &LogBroker) -> Value {
        json!({
            "brokerAddrs": { "0": broker.leader_addr() },
            "brokerName": broker.name,
            "cluster": self.config.cluster,
        })
    }

    fn cluster_info(&self) -> Reply {
        let table = self.logs().iter().map(|b| (b.name.clone(), self.broker_data(b)));
        let names: Vec<_> = self.logs().iter().map(|broker| broker.name.as_str()).collect();
        let body = json!({
            "brokerAddrTable": table.collect::<serde_json::Map<_, _>>(),
            "clusterAddrTable": { self.config.cluster.as_str(): names },
        });
        Reply::done().with_body(body.to_string())
    }

    async fn topic_list(&self, command: &Command) -> Result<Reply, Failure> {
        let look = |after: Option<&str>, look: &mut Look| {
            for (number, broker) in (0_u32..).zip(self.logs()) {
                let Ok(shared) = broker.shared() else { continue };
                let state = shared.state();
                let topics = state.topics_from(behind(after));
                look.at(topics.map(|(name, _)| (name, !is_registered(name))));
                if number == HOME_LOG {
                    let registered = state.registry().names_from(behind(after));
                    look.at(registered.map(|name| (name, true)));
                }
            }
        };
        list(command, (r#"{"topicList":["#, "]}"), look, quoted).await
    }
}

impl LogBroker {
    /// Where clients do best to go: to the leader; to this node, which passes requests on, while none is known.
    fn leader_addr(&self) -> String {
        match &*self.part.borrow() {
            Part::Follows(addr) if self.is_led() => addr.clone(),
            Part::Follows(_) | Part::Leads | Part::Unknown => self.addr.to_string(),
        }
    }

    /// True if this node has heard of a leader lately.
    fn is_led(&self) -> bool {
        let led_at = *self.led_at.lock().unwrap_or_else(PoisonError::into_inner);
        led_at.elapsed() < LEADERLESS_MAX || Mutant::LostLeadersNamed.is_active()
    }

    /// Notes whether a leader is there, as far as this node knows. A leader that has lost its followers still serves what was
    /// committed.
    pub(super) fn note_led(&self) {
        let leads = *self.part.borrow() == Part::Leads;
        let is_led = leads
            || match self.opened.get() {
                Some(opened) => opened.log.status().leader.is_some(),
                // As others say, who hear it.
                None => *self.part.borrow() != Part::Unknown,
            };
        if is_led {
            *self.led_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }
}
