//! One question, one answer; and many on one connection.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorumlog::seam::{TcpTransport, Transport};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::net::Link;
use crate::remoting::codes::{names, request, response};
use crate::remoting::{Command, Fields, object_keys, read_frame};

/// For connecting and for each answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// It is not known whether what was asked for was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}; it may have been done, or may yet be")]
struct OutcomeUnknown(String);

/// True if what the tools were to change may have been changed, or may yet be: for example because the connection broke
/// before the answer came.
pub fn is_outcome_unknown(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<OutcomeUnknown>())
}

pub(super) fn invalid(detail: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail.into())
}

/// A body, in which keys may be objects.
pub(super) fn json(body: &[u8]) -> io::Result<Value> {
    let text = std::str::from_utf8(body).ok();
    text.and_then(object_keys::read).ok_or_else(|| invalid("the answer is no JSON"))
}

/// What comes of asking, within the time for it.
async fn in_time<T>(asking: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let asked = tokio::time::timeout(TIMEOUT, asking).await;
    asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The same error, with where it happened.
fn at(addr: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{addr}: {error}"))
}

/// True for requests that change something.
fn changes(code: i32) -> bool {
    matches!(
        code,
        request::UPDATE_AND_CREATE_TOPIC
            | request::DELETE_TOPIC_IN_BROKER
            | request::INVOKE_BROKER_TO_RESET_OFFSET
    )
}

/// Where to ask.
#[derive(Debug, Clone)]
pub(super) struct NameServers(Vec<String>);

/// One request to one address.
async fn call(addr: &str, code: i32, fields: Fields) -> io::Result<Command> {
    let connected = in_time(TcpTransport.dial(addr)).await;
    let mut stream = connected.map_err(|error| at(addr, error))?;
    let asking = async {
        let frame = Command::request(code, 1, fields).encode().concat();
        stream.write_all(&frame).await?;
        let answer = read_frame(&mut stream, &mut BytesMut::new()).await?;
        let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Command::decode(answer)?)
    };
    in_time(asking).await.map_err(|error| match changes(code) {
        true => io::Error::new(error.kind(), OutcomeUnknown(format!("{addr}: {error}"))),
        false => at(addr, error),
    })
}

/// The body of an answer that says that it is done.
fn done(addr: &str, answer: Command) -> io::Result<Bytes> {
    let remark = answer.remark();
    match answer.head.code {
        response::SUCCESS => Ok(answer.body),
        response::TOPIC_NOT_EXIST
        | response::SUBSCRIPTION_GROUP_NOT_EXIST
        | response::CONSUMER_NOT_ONLINE => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("{addr}: {remark}")))
        }
        code => {
            let detail = format!("{addr}: the answer is {code}: {remark}");
            if answer.tells_unknown_outcome() {
                return Err(io::Error::other(OutcomeUnknown(detail)));
            }
            Err(io::Error::other(detail))
        }
    }
}

/// Has a broker do something; returns the body of its answer.
pub(super) async fn ask_broker(addr: &str, code: i32, fields: &Fields) -> io::Result<Bytes> {
    done(addr, call(addr, code, fields.clone()).await?)
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
    done(addr, answer)?;
    number.ok_or_else(|| invalid(format!("{addr}: no {name}")))
}

/// A connection for many questions.
#[derive(Debug)]
pub(super) struct Conversation {
    addr: String,
    link: Link,
}

impl Conversation {
    pub(super) async fn begin(addr: &str) -> io::Result<Self> {
        let connected = in_time(Link::connect(&TcpTransport, addr)).await;
        let link = connected.map_err(|error| at(addr, error))?;
        Ok(Self { addr: addr.to_owned(), link })
    }

    async fn answer(&self, code: i32, fields: Fields) -> io::Result<Command> {
        let answer = self.link.call(code, fields, Bytes::new(), TIMEOUT).await;
        answer.map_err(|error| at(&self.addr, error))
    }

    /// The body of the answer to a question that changes nothing.
    ///
    /// # Errors
    /// There is none, or it was refused; `NotFound` if what was asked about is not there.
    pub(super) async fn ask(&self, code: i32, fields: Fields) -> io::Result<Bytes> {
        done(&self.addr, self.answer(code, fields).await?)
    }

    /// The bodies of all pages of a list.
    ///
    /// # Errors
    /// As `ask`.
    pub(super) async fn pages(&self, code: i32) -> io::Result<Vec<Bytes>> {
        let (mut pages, mut after) = (Vec::new(), String::new());
        loop {
            let fields: Fields = [(names::AFTER, after.as_str())].into_iter().collect();
            let answer = self.answer(code, fields).await?;
            let next = answer.head.fields.get(names::NEXT).map(str::to_owned);
            pages.push(done(&self.addr, answer)?);
            match next {
                Some(next) if next > after => after = next,
                _ => return Ok(pages),
            }
        }
    }
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
        let mut last = no_name_server();
        for addr in &self.0 {
            match call(addr, code, fields.clone()).await {
                Ok(answer) => {
                    let body = done(addr, answer)?;
                    return json(&body);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A connection to the first name server that takes one.
    ///
    /// # Errors
    /// None does.
    pub(super) async fn conversation(&self) -> io::Result<Conversation> {
        let mut last = no_name_server();
        for addr in &self.0 {
            match Conversation::begin(addr).await {
                Ok(begun) => return Ok(begun),
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

fn no_name_server() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "no name server is given")
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::remoting::Reply;

    /// Asks a broker that reads the request, and answers it or closes the connection.
    async fn asked(code: i32, answer: Option<Reply>) -> io::Error {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address").to_string();
        let serving = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut begin = [0; 8];
            stream.read_exact(&mut begin).await.expect("a request");
            if let Some(answer) = answer {
                let frame = answer.encode(&Command::request(code, 1, Fields::default())).concat();
                stream.write_all(&frame).await.expect("it is read");
            }
        };
        let fields = Fields::default();
        let (asked, ()) = tokio::join!(ask_broker(&addr, code, &fields), serving);
        asked.expect_err("it is not said that it is done")
    }

    #[tokio::test]
    async fn a_change_whose_answer_is_lost_may_have_been_made_and_a_question_changes_nothing() {
        for code in [
            request::DELETE_TOPIC_IN_BROKER,
            request::UPDATE_AND_CREATE_TOPIC,
            request::INVOKE_BROKER_TO_RESET_OFFSET,
        ] {
            let error = asked(code, None).await;
            assert!(is_outcome_unknown(&error), "{code}: {error}");
            let refused = Reply::refused(response::SYSTEM_ERROR, "no");
            let error = asked(code, Some(refused.clone())).await;
            assert!(!is_outcome_unknown(&error), "{code}: {error}");
            let error = asked(code, Some(refused.with(names::OUTCOME, names::UNKNOWN))).await;
            assert!(is_outcome_unknown(&error), "{code}: {error}");
        }
        let error = asked(request::GET_CONSUME_STATS, None).await;
        assert!(!is_outcome_unknown(&error), "{error}");
        let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = nobody.local_addr().expect("an address").to_string();
        drop(nobody);
        let code = request::DELETE_TOPIC_IN_BROKER;
        let error = ask_broker(&addr, code, &Fields::default()).await.expect_err("nobody listens");
        assert!(!is_outcome_unknown(&error), "nothing was sent: {error}");
    }
}
