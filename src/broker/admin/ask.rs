//! One question, one answer.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::broker::remoting::codes::{request, response};
use crate::broker::remoting::{Command, Fields, read_frame};

/// For connecting and for each answer.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn invalid(detail: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail.into())
}

/// Where to ask.
#[derive(Debug, Clone)]
pub(super) struct NameServers(Vec<String>);

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
    let remark = answer.head.remark.unwrap_or_default();
    match answer.head.code {
        response::SUCCESS => Ok(answer.body),
        response::TOPIC_NOT_EXIST | response::SUBSCRIPTION_GROUP_NOT_EXIST => {
            Err(io::Error::new(io::ErrorKind::NotFound, remark.trim()))
        }
        code => Err(io::Error::other(format!("the answer is {code}: {}", remark.trim()))),
    }
}

/// Has a broker do something; returns the body of its answer.
pub(super) async fn ask_broker(addr: &str, code: i32, fields: &Fields) -> io::Result<Bytes> {
    let answer = done(call(addr, code, fields.clone()).await?);
    answer.map_err(|error| io::Error::new(error.kind(), format!("{addr}: {error}")))
}

/// Asks a broker for a number, which is a field of its answer.
pub(super) async fn ask_for_number(
    addr: &str,
    code: i32,
    fields: &Fields,
    name: &str,
) -> io::Result<u64> {
    let answer = call(addr, code, fields.clone()).await?;
    let number = answer.head.fields.number(name).ok().and_then(|it| u64::try_from(it).ok());
    done(answer)?;
    number.ok_or_else(|| invalid(format!("{addr}: no {name}")))
}

impl NameServers {
    /// Uses the first of these that answers.
    pub(super) fn new(addrs: impl IntoIterator<Item = String>) -> Self {
        Self(addrs.into_iter().collect())
    }

    /// Asks a name server.
    ///
    /// # Errors
    /// None answers, or one answers what it should not.
    pub(super) async fn ask(&self, code: i32, fields: &Fields) -> io::Result<Value> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no name server is given");
        for addr in &self.0 {
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

    /// The brokers and their addresses, by name.
    ///
    /// # Errors
    /// As `ask`.
    pub(super) async fn brokers(&self) -> io::Result<BTreeMap<String, String>> {
        let info = self.ask(request::GET_BROKER_CLUSTER_INFO, &Fields::default()).await?;
        let table = info["brokerAddrTable"].as_object().ok_or_else(|| invalid("no brokers"))?;
        let addr = |broker: &Value| broker["brokerAddrs"]["0"].as_str().map(str::to_owned);
        Ok(table.iter().filter_map(|(name, it)| Some((name.clone(), addr(it)?))).collect())
    }
}
