//! Topics of a running cluster.

use std::collections::BTreeSet;
use std::future::ready;
use std::io;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use super::ask::{Conversation, NameServers, ask_broker, invalid, is_outcome_unknown, json};
use super::groups::QUESTIONS_AT_ONCE;
use crate::remoting::Fields;
use crate::remoting::codes::request;
use crate::state::is_made_on_demand;

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
        let name_server = self.0.conversation().await?;
        let mut names = BTreeSet::new();
        for page in name_server.pages(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER).await? {
            let list = json(&page)?;
            let listed = list["topicList"].as_array().ok_or_else(|| invalid("no topics"))?;
            names.extend(listed.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        let routes = names.into_iter().map(|name| Self::route(&name_server, name));
        let routes = stream::iter(routes).buffered(QUESTIONS_AT_ONCE);
        routes.try_filter_map(|topic| ready(Ok(topic))).try_collect().await
    }

    /// A topic with its queues; none if it is gone by now.
    async fn route(name_server: &Conversation, name: String) -> io::Result<Option<TopicInfo>> {
        let fields: Fields = [("topic", name.as_str())].into_iter().collect();
        let route = match name_server.ask(request::GET_ROUTEINFO_BY_TOPIC, fields).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            route => json(&route?)?,
        };
        let queues = route["queueDatas"].as_array().into_iter().flatten();
        let of_broker = |data: &Value| {
            let number = |name: &str| data[name].as_u64().unwrap_or_default();
            let broker = data["brokerName"].as_str().unwrap_or_default().to_owned();
            (broker, number("readQueueNums"), number("writeQueueNums"))
        };
        Ok(Some(TopicInfo { brokers: queues.map(of_broker).collect(), name }))
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
        let mut unknown = None;
        for addr in self.0.brokers().await?.values() {
            match ask_broker(addr, request::DELETE_TOPIC_IN_BROKER, &fields).await {
                // It may be down while others are not.
                Err(error) if is_unreachable(error.kind()) => {
                    if is_outcome_unknown(&error) {
                        unknown = Some(error);
                    } else {
                        last = error;
                    }
                }
                // If it was there, the attempt before has deleted it.
                done => return done.map(drop),
            }
        }
        Err(unknown.unwrap_or(last))
    }

    async fn on_all(&self, code: i32, fields: &Fields) -> io::Result<()> {
        for (_, addr) in self.0.brokers().await? {
            ask_broker(&addr, code, fields).await?;
        }
        Ok(())
    }
}
