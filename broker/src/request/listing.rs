//! Answers that list names or queues, no longer than clients take. What others have stored makes them long, so they are
//! made in pieces: between two of them everybody else has a turn, and no lock is held.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use serde_json::Value;

use super::failure::Failure;
use crate::limits::{LIST_BYTES_MAX, LISTED_QUEUES_MAX};
use crate::mutant::Mutant;
use crate::remoting::codes::names::{AFTER, NEXT};
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply, object_keys};

/// Names of one source that are looked at in one turn.
pub(crate) const LOOKED_AT_MAX: usize = 256;
/// Steps of other work in one turn, each of which may read a message.
const STEPS_MAX: usize = 32;
/// About the bytes of one chunk of an answer.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes that most entries have at most.
const CHUNK_ROOM: usize = 1 << 10;
/// Bytes of one page, for those that ask for pages.
const PAGE_BYTES: usize = 1 << 20;

fn too_long(what: &str) -> Failure {
    let remark = format!("{what} would take more than one answer can hold");
    Failure::refused(response::SYSTEM_ERROR, remark)
}

/// What comes behind a name; all, if there is none.
pub(crate) fn behind(after: Option<&str>) -> (Bound<&str>, Bound<&str>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

/// Counts the steps of long work, and lets others have their turn after a few.
#[derive(Debug, Default)]
pub(crate) struct Pace(usize);

impl Pace {
    /// Call this once for each step. Cancel safe.
    pub(crate) async fn step(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(STEPS_MAX) && !Mutant::LongAnswersInOneTurn.is_active() {
            tokio::task::yield_now().await;
        }
    }
}

/// One turn's look at sources of names.
#[derive(Debug, Default)]
pub(crate) struct Look {
    names: BTreeSet<String>,
    /// Sources may have names above this one that were not looked at.
    up_to: Option<String>,
}

impl Look {
    /// Looks at a source, which gives its names in their order, each with whether it is wanted.
    pub(crate) fn at<'a>(&mut self, source: impl IntoIterator<Item = (&'a str, bool)>) {
        for (looked_at, (name, wanted)) in (1..).zip(source) {
            if self.up_to.as_deref().is_some_and(|up_to| name > up_to) {
                return;
            }
            if wanted {
                self.names.insert(name.to_owned());
            }
            if looked_at == LOOKED_AT_MAX && !Mutant::LongAnswersInOneTurn.is_active() {
                self.up_to = Some(name.to_owned());
                return;
            }
        }
    }

    /// The names up to which all sources were looked at.
    fn into_names(mut self) -> (BTreeSet<String>, Option<String>) {
        if let Some(up_to) = &self.up_to {
            self.names.retain(|name| name <= up_to);
        }
        (self.names, self.up_to)
    }
}

/// Names out of several sources, in their order and each once, a few in each turn. One that comes or goes meanwhile may be
/// among them or not.
pub(crate) struct Names<F> {
    look: F,
    after: Option<String>,
    begun: bool,
    ended: bool,
}

impl<F: FnMut(Option<&str>, &mut Look)> Names<F> {
    /// Names behind `after`. `look` looks at each source, from behind a name on.
    pub(crate) fn behind(after: Option<&str>, look: F) -> Self {
        let after = after.filter(|after| !after.is_empty()).map(str::to_owned);
        Self { look, after, begun: false, ended: false }
    }

    /// More of them; none at the end.
    pub(crate) async fn more(&mut self) -> Option<BTreeSet<String>> {
        if self.ended {
            return None;
        }
        if std::mem::replace(&mut self.begun, true) {
            tokio::task::yield_now().await;
        }
        let mut look = Look::default();
        (self.look)(self.after.as_deref(), &mut look);
        let (names, up_to) = look.into_names();
        self.ended = up_to.is_none();
        self.after = up_to.or(self.after.take());
        Some(names)
    }

    /// The name behind which there may be more.
    fn left_behind(self) -> Option<String> {
        self.after.filter(|_| !self.ended)
    }

    /// All of them.
    ///
    /// # Errors
    /// They are too many for one answer.
    pub(crate) async fn all(mut self) -> Result<BTreeSet<String>, Failure> {
        let (mut all, mut bytes) = (BTreeSet::new(), 0);
        while let Some(names) = self.more().await {
            bytes += names.iter().map(String::len).sum::<usize>();
            if bytes > LIST_BYTES_MAX {
                return Err(too_long("the names"));
            }
            all.extend(names);
        }
        Ok(all)
    }
}

/// The body of a long answer, in chunks.
#[derive(Debug)]
pub(crate) struct Body {
    chunks: Vec<Bytes>,
    last: String,
    bytes: usize,
}

impl Body {
    pub(crate) fn beginning(begin: &str) -> Self {
        Self { chunks: Vec::new(), last: begin.to_owned(), bytes: 0 }
    }

    /// Adds what `write` writes behind the text that it is given.
    ///
    /// # Errors
    /// It is too much for one answer.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut String)) -> Result<(), Failure> {
        write(&mut self.last);
        if self.bytes() > LIST_BYTES_MAX && !Mutant::LongListsAnswered.is_active() {
            return Err(too_long("the list"));
        }
        if self.last.len() >= CHUNK_BYTES {
            self.bytes += self.last.len();
            // Room for an entry that begins before the chunk is full: text that grows takes up to twice its bytes.
            let next = String::with_capacity(CHUNK_BYTES + CHUNK_ROOM);
            self.chunks.push(std::mem::replace(&mut self.last, next).into());
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.bytes + self.last.len()
    }

    /// The chunks, with `end` behind them.
    pub(crate) fn ending(mut self, end: &str) -> Vec<Bytes> {
        self.last.push_str(end);
        self.chunks.push(self.last.into());
        self.chunks
    }
}

/// Text as JSON has it.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// The name behind which a page begins, if pages are asked for.
pub(crate) fn after(command: &Command) -> Option<&str> {
    command.head.fields.get(AFTER)
}

/// An answer that lists names: `begin`, what `entry` makes of each, with commas between, and `end`. Whoever asks for pages
/// gets one that begins behind the name `after`, and the name to go on behind.
///
/// # Errors
/// They are too many for one answer.
pub(crate) async fn list(
    after: Option<&str>,
    (begin, end): (&str, &str),
    look: impl FnMut(Option<&str>, &mut Look),
    entry: impl Fn(&str) -> String,
) -> Result<Reply, Failure> {
    let mut names = Names::behind(after, look);
    let mut body = Body::beginning(begin);
    let (mut comma, mut next) = ("", None);
    while let Some(more) = names.more().await {
        for name in more {
            body.push(|text| {
                text.push_str(comma);
                text.push_str(&entry(&name));
            })?;
            comma = ",";
        }
        if after.is_some() && body.bytes() > PAGE_BYTES {
            next = names.left_behind();
            break;
        }
    }
    let mut reply = Reply::done();
    reply.body = body.ending(end);
    Ok(match next {
        Some(next) => reply.with(NEXT, next),
        None => reply,
    })
}

/// What is known of queues: an object with objects for keys, the member of another.
#[derive(Debug)]
pub(crate) struct QueueTable {
    body: Body,
    queues: usize,
    pace: Pace,
}

impl QueueTable {
    /// An empty one that follows on `begin`.
    pub(crate) fn after(begin: &str) -> Self {
        let body = Body::beginning(&format!("{begin}{{"));
        Self { body, queues: 0, pace: Pace::default() }
    }

    /// Adds what is known of a queue.
    ///
    /// # Errors
    /// There are too many for one answer.
    pub(crate) async fn push(&mut self, queue: &Value, stats: &Value) -> Result<(), Failure> {
        self.queues += 1;
        if self.queues > LISTED_QUEUES_MAX {
            return Err(too_long("the state of the queues"));
        }
        self.body.push(|text| object_keys::push(text, queue, stats))?;
        self.pace.step().await;
        Ok(())
    }

    /// The answer whose body ends with `end`.
    pub(crate) fn into_reply(self, end: &str) -> Reply {
        let mut reply = Reply::done();
        reply.body = self.body.ending(&format!("}}{end}"));
        reply
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::remoting::Fields;

    fn source(names: &BTreeSet<String>, step: usize) -> Vec<&str> {
        names.iter().step_by(step).map(String::as_str).collect()
    }

    fn some(count: usize) -> BTreeSet<String> {
        (0..count).map(|n| format!("{n:06}")).collect()
    }

    fn asked(after: Option<&str>) -> Command {
        let fields: Fields = after.map(|after| (AFTER, after)).into_iter().collect();
        Command::request(201, 1, fields)
    }

    fn body(reply: &Reply) -> Vec<String> {
        serde_json::from_slice(&reply.body.concat()).expect("names")
    }

    /// Steps of the answer, each with how many names were looked at and bytes made in it.
    fn turns(command: &Command, sources: &[(Vec<&str>, usize)]) -> (Reply, Vec<usize>) {
        let looked_at = Cell::new(0);
        let look = |after: Option<&str>, look: &mut Look| {
            for (names, wanted) in sources {
                let from = after.map_or(0, |after| names.partition_point(|name| *name <= after));
                look.at(names.iter().enumerate().skip(from).map(|(at, name)| {
                    looked_at.set(looked_at.get() + 1);
                    (*name, at % wanted == 0)
                }));
            }
        };
        let mut answer = Box::pin(list(after(command), ("[", "]"), look, quoted));
        let mut turns = Vec::new();
        loop {
            let answered = (&mut answer).now_or_never();
            turns.push(looked_at.replace(0));
            if let Some(reply) = answered {
                return (reply.expect("it fits"), turns);
            }
        }
    }

    #[test]
    fn a_long_list_is_made_in_many_turns_and_holds_each_name_once() {
        let names = some(30_000);
        let sources = [(source(&names, 1), 1), (source(&names, 3), 1), (source(&names, 7), 2)];
        let (reply, turns) = turns(&asked(None), &sources);
        assert_eq!(body(&reply), Vec::from_iter(names.clone()));
        let most = turns.iter().max().copied().unwrap_or_default();
        assert!(most <= sources.len() * (LOOKED_AT_MAX + 1), "{most} names in one turn");
        assert!(reply.body.iter().all(|chunk| chunk.len() <= 2 * CHUNK_BYTES));
    }

    #[test]
    fn names_that_nobody_wants_are_passed_over_in_turns_too() {
        let names = some(10_000);
        let (reply, turns) = turns(&asked(None), &[(source(&names, 1), 5_000)]);
        assert_eq!(body(&reply), ["000000", "005000"]);
        assert!(turns.iter().all(|looked_at| *looked_at <= LOOKED_AT_MAX), "{turns:?}");
    }

    #[test]
    fn who_asks_for_pages_gets_all_names_in_pages() {
        let names: BTreeSet<_> = (0..20_000).map(|n| format!("{n:0>255}")).collect();
        let (mut after, mut all, mut pages) = (String::new(), Vec::new(), 0);
        loop {
            let (reply, _) = turns(&asked(Some(&after)), &[(source(&names, 1), 1)]);
            assert!(reply.body.iter().map(Bytes::len).sum::<usize>() < 2 * PAGE_BYTES);
            all.extend(body(&reply));
            pages += 1;
            let Some(next) = reply.fields.get(NEXT) else { break };
            after = next.to_owned();
        }
        assert_eq!(all, Vec::from_iter(names));
        assert_eq!(pages, 5);
    }

    #[test]
    fn a_list_that_clients_do_not_take_is_refused() {
        let names: BTreeSet<_> = (0..70_000).map(|n| format!("{n:0>255}")).collect();
        let look = |after: Option<&str>, look: &mut Look| {
            look.at(names.range::<str, _>(behind(after)).map(|name| (name.as_str(), true)));
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let command = asked(None);
        let listed = runtime.block_on(list(after(&command), ("[", "]"), look, quoted));
        assert!(matches!(listed, Err(Failure::Refused { .. })));
    }

    #[test]
    fn long_work_lets_others_have_their_turn() {
        let mut pace = Pace::default();
        let mut work = Box::pin(async move {
            for _ in 0..10 * STEPS_MAX {
                pace.step().await;
            }
        });
        let turns = (0..).take_while(|_| (&mut work).now_or_never().is_none()).count();
        assert_eq!(turns, 10);
    }
}
