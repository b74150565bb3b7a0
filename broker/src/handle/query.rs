//! Messages by id and by key.

use bytes::Bytes;

use crate::log::Replica;
use crate::net::{ANSWER_BYTES_MAX, Connection, PendingRequest, room};
use crate::record::{Message, Properties, names};
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply};
use crate::request::{Failure, Pace};
use crate::state::{Entry, Sought};

/// Messages that one query reads: as many as it wants, those of other keys with the same hash, and those of the first and
/// the last second of its range that are not in it.
const READ_MAX: usize = 20_000;
/// Messages in one answer.
const MESSAGES_MAX: i64 = 64;
/// Bytes in one answer, for which there is room before its turn comes.
const BYTES_MAX: usize = ANSWER_BYTES_MAX;

/// Messages that have a key.
pub(super) struct Query<'a> {
    topic: &'a str,
    key: &'a str,
    unique: bool,
    count: usize,
    begin_ms: i64,
    end_ms: i64,
}

impl<'a> Query<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        let fields = &command.head.fields;
        Ok(Self {
            topic: fields.text("topic")?,
            key: fields.text("key")?,
            unique: fields.flag("_UNIQUE_KEY_QUERY"),
            count: usize::try_from(fields.number("maxNum")?.clamp(1, MESSAGES_MAX)).unwrap_or(1),
            begin_ms: fields.number_or("beginTimestamp", 0)?,
            end_ms: fields.number_or("endTimestamp", i64::MAX)?,
        })
    }

    pub(super) async fn run(self, replica: &Replica) -> Result<Reply, Failure> {
        let (found, read_all) = search(replica, &self).await?;
        if found.is_empty() && !read_all {
            let remark = format!(
                "{READ_MAX} messages may be meant and none was: ask for a smaller range of time"
            );
            return Err(Failure::refused(response::SYSTEM_ERROR, remark));
        }
        let (chunks, _): (Vec<Bytes>, usize) = replica.chunks(&found, BYTES_MAX).await?;
        if chunks.is_empty() {
            let remark = "can not find message, maybe time range not correct";
            return Err(Failure::refused(response::QUERY_NOT_FOUND, remark));
        }
        let mut reply = Reply::done()
            .with("indexLastUpdateTimestamp", replica.shared()?.state().stored_ms())
            .with("indexLastUpdatePhyoffset", found.last().map_or(0, |entry| entry.physical));
        reply.body = chunks;
        Ok(reply)
    }

    fn matches(&self, message: &Message) -> bool {
        if message.stored_ms < self.begin_ms || message.stored_ms > self.end_ms {
            return false;
        }
        if self.unique {
            return Properties::find(&message.properties, names::UNIQUE_KEY) == Some(self.key);
        }
        let keys = Properties::find(&message.properties, names::KEYS).unwrap_or_default();
        keys.split(' ').any(|key| key == self.key)
    }
}

/// A message by its id. `bytes_max` is the largest that there is.
pub(super) async fn view_by_id(
    replica: &Replica,
    bytes_max: usize,
    connection: &Connection,
    request: &mut PendingRequest,
) -> Result<Reply, Failure> {
    let offset = request.command.head.fields.number("offset")?;
    let _room = match connection.out().share().try_reserve(bytes_max) {
        Some(room) => room,
        None => {
            request.park(connection, 0)?;
            room(connection, bytes_max).await?
        }
    };
    let not_found = || {
        let remark = format!("can not find message by the offset, {offset}");
        Failure::refused(response::SYSTEM_ERROR, remark)
    };
    let entry = Entry::at(u64::try_from(offset).map_err(|_| not_found())?);
    let message = match replica.message(entry).await {
        Ok(message) => message.ok_or_else(not_found)?,
        Err(Failure::Moved) => return Err(Failure::Moved),
        Err(_) => return Err(not_found()),
    };
    let queue = u32::try_from(message.queue).map_err(|_| not_found())?;
    let (topic, physical) = (&message.topic, entry.physical);
    let found = replica.indexed(|shared| shared.find(topic, queue, physical)).await?;
    let (chunks, _) = replica.chunks(&[found.ok_or_else(not_found)?], usize::MAX).await?;
    let mut reply = Reply::done();
    reply.body = chunks;
    Ok(reply)
}

/// The newest messages that match, newest first, and whether all that may be meant were looked at, if these are
/// fewer than wanted.
async fn search(replica: &Replica, query: &Query<'_>) -> Result<(Vec<Entry>, bool), Failure> {
    let sought = Sought::new(query.topic, query.key, query.begin_ms, query.end_ms);
    let (newest, runs) = replica.shared()?.newest_with_key(&sought);
    let pace = Pace::default();
    let mut search = Search { query, found: Vec::new(), read: 0, before: u64::MAX, pace };
    search_among(replica, &mut search, newest).await?;
    for run in runs {
        if search.is_done() {
            break;
        }
        let among = replica.indexed(|shared| shared.with_key(&sought, run)).await?;
        search_among(replica, &mut search, among).await?;
        search.pace.step().await;
    }
    Ok((search.found, search.read < READ_MAX))
}

/// Looks at messages that may be meant, newest first.
async fn search_among(
    replica: &Replica,
    search: &mut Search<'_>,
    among: Vec<u64>,
) -> Result<(), Failure> {
    for physical in among {
        if search.is_done() {
            break;
        }
        // A message is there once for each of its keys, which may be the same, and in two runs at their seam.
        if physical >= search.before {
            continue;
        }
        search.before = physical;
        search.read += 1;
        search.pace.step().await;
        let Some(message) = replica.message(Entry::at(physical)).await? else { continue };
        let Ok(queue) = u32::try_from(message.queue) else { continue };
        if message.topic != search.query.topic || !search.query.matches(&message) {
            continue;
        }
        // A topic of the same name that was deleted had others.
        let topic = search.query.topic;
        let found = replica.indexed(|shared| shared.find(topic, queue, physical)).await?;
        search.found.extend(found);
    }
    Ok(())
}

/// How far a query has come.
struct Search<'a> {
    query: &'a Query<'a>,
    found: Vec<Entry>,
    read: usize,
    /// Everything from here on was looked at.
    before: u64,
    pace: Pace,
}

impl Search<'_> {
    fn is_done(&self) -> bool {
        self.found.len() >= self.query.count || self.read >= READ_MAX
    }
}
