//! Topics of a running cluster, for tools: a client of the name server and the brokers.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::remoting::codes::request;
use super::remoting::{Command, Fields, read_frame};

/// For connecting and for each answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A topic, as the name server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// For each broker: its name, and its queues to read from and to write to.
    pub brokers: Vec<(String, u64, u64)>,
}

/// Lists, makes and deletes the topics of a running cluster.
#[derive(Debug, Clone)]
pub struct TopicAdmin {
    name_servers: Vec<String>,
}

fn invalid(detail: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail.into())
}

/// One request to one address.
async fn call(addr: &str, code: i32, fields: Fields) -> io::Result<Command> {
    let asking = async {
        let mut stream = TcpStream::connect(addr).await?;
        let frame = Command::request(code, 1, fields).encode().concat();
        stream.write_all(&frame).await?;
        let answer = read_frame(&mut stream, &mut BytesMut::new()).await?;
        let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Command::decode(answer)?)
    };
    let answer: io::Result<Command> = tokio::time::timeout(TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    answer.map_err(|error| io::Error::new(error.kind(), format!("{addr}: {error}")))
}

/// The body of an answer that says that it is done.
fn done(answer: Command) -> io::Result<Bytes> {
    match answer.head.code {
        0 => Ok(answer.body),
        code => {
            let remark = answer.head.remark.unwrap_or_default();
            Err(io::Error::other(format!("the answer is {code}: {}", remark.trim())))
        }
    }
}

impl TopicAdmin {
    /// Uses the first of these name servers that answers.
    pub fn new(name_servers: impl IntoIterator<Item = String>) -> Self {
        Self { name_servers: name_servers.into_iter().collect() }
    }

    async fn ask(&self, code: i32, fields: &Fields) -> io::Result<Value> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no name server is given");
        for addr in &self.name_servers {
            match call(addr, code, fields.clone()).await {
                Ok(answer) => {
                    let body = done(answer)?;
                    return serde_json::from_slice(&body)
                        .map_err(|error| invalid(format!("{addr}: {error}")));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The topics and their queues.
    ///
    /// # Errors
    /// No name server answers, or one answers what it should not.
    pub async fn topics(&self) -> io::Result<Vec<TopicInfo>> {
        let list =
            self.ask(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &Fields::default()).await?;
        let names = list["topicList"].as_array().ok_or_else(|| invalid("no list of topics"))?;
        let mut topics = Vec::new();
        for name in names.iter().filter_map(Value::as_str) {
            let fields: Fields = [("topic", name)].into_iter().collect();
            let route = self.ask(request::GET_ROUTEINFO_BY_TOPIC, &fields).await?;
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

    /// Deletes a topic, its messages and what was consumed of it.
    ///
    /// # Errors
    /// As `put`.
    pub async fn delete(&self, name: &str) -> io::Result<()> {
        let fields: Fields = [("topic", name)].into_iter().collect();
        self.on_all(request::DELETE_TOPIC_IN_BROKER, &fields).await
    }

    async fn on_all(&self, code: i32, fields: &Fields) -> io::Result<()> {
        let info = self.ask(request::GET_BROKER_CLUSTER_INFO, &Fields::default()).await?;
        let table = info["brokerAddrTable"].as_object().ok_or_else(|| invalid("no brokers"))?;
        let addrs = table.values().filter_map(|broker| broker["brokerAddrs"]["0"].as_str());
        for addr in addrs.collect::<BTreeSet<_>>() {
            done(call(addr, code, fields.clone()).await?)
                .map_err(|error| io::Error::other(format!("{addr}: {error}")))?;
        }
        Ok(())
    }
}
