//! Topics of a running cluster.

use std::io;

use serde_json::Value;

use super::ask::{NameServers, ask_broker, invalid};
use crate::broker::remoting::Fields;
use crate::broker::remoting::codes::request;
use crate::broker::state::is_made_on_demand;

/// A topic, as the name server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// For each broker: its name, and its queues to read from and to write to.
    pub brokers: Vec<(String, u64, u64)>,
}

/// True for errors of a connection, and not of a broker.
fn is_unreachable(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, TimedOut, UnexpectedEof,
    };
    let kinds = [
        BrokenPipe,
        ConnectionAborted,
        ConnectionRefused,
        ConnectionReset,
        TimedOut,
        UnexpectedEof,
    ];
    kinds.contains(&kind)
}

/// Lists, makes and deletes the topics of a running cluster.
#[derive(Debug, Clone)]
pub struct TopicAdmin(NameServers);

impl TopicAdmin {
    /// Uses the first of these name servers that answers.
    pub fn new(name_servers: impl IntoIterator<Item = String>) -> Self {
        Self(NameServers::new(name_servers))
    }

    /// The topics and their queues.
    ///
    /// # Errors
    /// No name server answers, or one answers what it should not.
    pub async fn topics(&self) -> io::Result<Vec<TopicInfo>> {
        let list =
            self.0.ask(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &Fields::default()).await?;
        let names = list["topicList"].as_array().ok_or_else(|| invalid("no list of topics"))?;
        let mut topics = Vec::new();
        for name in names.iter().filter_map(Value::as_str) {
            let fields: Fields = [("topic", name)].into_iter().collect();
            let route = self.0.ask(request::GET_ROUTEINFO_BY_TOPIC, &fields).await?;
            let queues = route["queueDatas"].as_array().into_iter().flatten();
            let of_broker = |data: &Value| {
                let number = |name: &str| data[name].as_u64().unwrap_or_default();
                let broker = data["brokerName"].as_str().unwrap_or_default().to_owned();
                (broker, number("readQueueNums"), number("writeQueueNums"))
            };
            topics.push(TopicInfo {
                name: name.to_owned(),
                brokers: queues.map(of_broker).collect(),
            });
        }
        Ok(topics)
    }

    /// Makes a topic with so many queues in each log, or changes their number.
    ///
    /// # Errors
    /// As `topics`, and what a broker says against it. Brokers before it have done it then.
    pub async fn put(&self, name: &str, queues: u32) -> io::Result<()> {
        let queues = queues.to_string();
        let fields = [
            ("topic", name),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", queues.as_str()),
            ("writeQueueNums", queues.as_str()),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ];
        self.on_all(request::UPDATE_AND_CREATE_TOPIC, &fields.into_iter().collect()).await
    }

    /// Deletes a topic, its messages and what was consumed of it, in all logs at once. On return every broker refuses
    /// messages for it, or makes another topic of that name. A topic that is made on demand is each log's own: it is
    /// deleted in one after another.
    ///
    /// # Errors
    /// As `topics`, and what a broker says against it: for example that the topic is deleted, but a log has not followed yet.
    pub async fn delete(&self, name: &str) -> io::Result<()> {
        let fields: Fields = [("topic", name)].into_iter().collect();
        if is_made_on_demand(name) {
            return self.on_all(request::DELETE_TOPIC_IN_BROKER, &fields).await;
        }
        let mut last = invalid("there are no brokers");
        for addr in self.0.brokers().await?.values() {
            match ask_broker(addr, request::DELETE_TOPIC_IN_BROKER, &fields).await {
                // It may be down while others are not.
                Err(error) if is_unreachable(error.kind()) => last = error,
                done => return done.map(drop),
            }
        }
        Err(last)
    }

    async fn on_all(&self, code: i32, fields: &Fields) -> io::Result<()> {
        for (_, addr) in self.0.brokers().await? {
            ask_broker(&addr, code, fields).await?;
        }
        Ok(())
    }
}
