//! The name server: which brokers have a topic, and where they are. A node on which a log has stopped, or lags, knows that
//! log's topics and queues of before, so it has another node's name server answer.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quorumlog::LedElsewhere;
use quorumlog::seam::Transport;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::log::{Brokers, LogBroker, Part};
use crate::net::{Connection, PendingRequest, Service, Way};
use crate::remoting::codes::{request, response};
use crate::remoting::{Command, Reply};
use crate::request::{
    AUTO_CREATE_TOPIC, Failure, Look, after, behind, check_size, check_topic, list, quoted,
};
use crate::settings::BrokerConfig;
use crate::state::{HOME_LOG, TopicConfig, is_made_on_demand, is_registered};

/// How long a route waits for leaders. A producer asks twice for a topic that is not there, and a send has three seconds.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(1200);
/// How long another node's name server may take to answer. Then this node says what it knows.
const PASS_ON_TIMEOUT: Duration = Duration::from_millis(1500);
/// Field of a request that another node passed on: it is answered here.
const PASSED_ON: &str = "passedOn";

/// A node's name server.
pub(crate) struct NameServer {
    config: Arc<BrokerConfig>,
    brokers: Arc<Brokers>,
    /// What other nodes say of the logs that have stopped here, or lag.
    elsewhere: watch::Receiver<LedElsewhere>,
    /// The way to another node's name server.
    other: Way,
}

impl Service for NameServer {
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

impl NameServer {
    pub(crate) fn new(
        config: Arc<BrokerConfig>,
        brokers: Arc<Brokers>,
        elsewhere: watch::Receiver<LedElsewhere>,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self { config, brokers, elsewhere, other: Way::new(transport) }
    }

    fn logs(&self) -> &[Arc<LogBroker>] {
        self.brokers.logs()
    }

    /// Waits until the logs' leaders are where they are to be, when this node has only just started. A client keeps to
    /// its first route for 30 s, and one that named a single node would lose all brokers with that node. Also until it
    /// is known where each leader serves clients: a log is not in the route before that.
    async fn settled(&self) {
        let all = async {
            for broker in self.logs() {
                // It goes only with this.
                let _ = broker.replica.settled.subscribe().wait_for(|settled| *settled).await;
                let mut parts = broker.replica.part.subscribe();
                while broker.replica.is_led_nowhere() && parts.changed().await.is_ok() {}
            }
        };
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, all).await;
    }

    /// True if this node was removed from the cluster: what it knows of topics and leaders is out of date.
    fn is_removed(&self) -> bool {
        self.elsewhere.borrow().removed().is_some()
    }

    /// What another node's name server answers, if a log has stopped or lags here and one answers in time.
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
        let _turn = self.brokers.long_answers().turn(connection, command.head.code).await?;
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
        let home = self.logs().first().filter(|home| home.replica.opened().is_ok());
        let known = match home {
            Some(home) => home.topics.topic_config(topic),
            // What other logs have followed is the best that is known.
            None => self.logs().iter().find_map(|broker| broker.topics.topic_config(topic)),
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
        let is_led =
            |broker: &LogBroker| broker.replica.is_led() && !broker.replica.is_led_nowhere();
        let led: Vec<_> = self.logs().iter().filter(|broker| is_led(broker)).collect();
        if led.is_empty() {
            // A client that has a route keeps it.
            let remark = format!("No leader is known of any log, for the topic: {topic}");
            return Reply::refused(response::TOPIC_NOT_EXIST, remark);
        }
        let queues = led.iter().map(|broker| {
            let config = broker.topics.topic_config(topic).unwrap_or(config);
            json!({
                "brokerName": broker.replica.name,
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
            "brokerName": broker.replica.name,
            "cluster": self.config.cluster,
        })
    }

    fn cluster_info(&self) -> Reply {
        let table = self.logs().iter().map(|b| (b.replica.name.clone(), self.broker_data(b)));
        let names: Vec<_> = self.logs().iter().map(|broker| broker.replica.name.as_str()).collect();
        let body = json!({
            "brokerAddrTable": table.collect::<serde_json::Map<_, _>>(),
            "clusterAddrTable": { self.config.cluster.as_str(): names },
        });
        Reply::done().with_body(body.to_string())
    }

    async fn topic_list(&self, command: &Command) -> Result<Reply, Failure> {
        let look = |after: Option<&str>, look: &mut Look| {
            for (number, broker) in (0_u32..).zip(self.logs()) {
                let Ok(shared) = broker.replica.shared() else { continue };
                let state = shared.state();
                let topics = state.topics_from(behind(after));
                look.at(topics.map(|(name, _)| (name, !is_registered(name))));
                if number == HOME_LOG {
                    let registered = state.registry().names_from(behind(after));
                    look.at(registered.map(|name| (name, true)));
                }
            }
        };
        list(after(command), (r#"{"topicList":["#, "]}"), look, quoted).await
    }
}

impl LogBroker {
    /// Where clients do best to go: to the leader; to this node, which passes requests on, while none is known.
    fn leader_addr(&self) -> String {
        match &*self.replica.part.borrow() {
            Part::Follows(addr) if self.replica.is_led() => addr.clone(),
            Part::Follows(_) | Part::Leads | Part::Unknown => self.replica.addr.to_string(),
        }
    }
}
