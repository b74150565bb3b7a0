//! Answers that list names or queues, no longer than clients take.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::failure::Failure;
use crate::broker::limits::{LIST_BYTES_MAX, LISTED_QUEUES_MAX};
use crate::broker::remoting::codes::response;
use crate::broker::remoting::object_keys;
use crate::mutant::Mutant;

/// Bytes of a name in a list, beside the name.
const NAME_COST: usize = 3;

fn too_long(what: &str) -> Failure {
    let remark = format!("{what} would take more than one answer can hold");
    Failure::refused(response::SYSTEM_ERROR, remark)
}

/// Names, each once.
#[derive(Debug)]
pub(super) struct Names {
    names: BTreeSet<String>,
    bytes: usize,
    /// Bytes of each in the answer beside its name, and how often that is there.
    each: usize,
    times: usize,
}

impl Default for Names {
    fn default() -> Self {
        Self::with_each(NAME_COST, 1)
    }
}

impl Names {
    /// Names that take so many bytes more each, and are in the answer so many times.
    pub(super) fn with_each(each: usize, times: usize) -> Self {
        Self { names: BTreeSet::new(), bytes: 0, each, times }
    }

    /// Bytes that they take in the answer.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more names.
    ///
    /// # Errors
    /// They are too many for one answer.
    pub(super) fn extend<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Failure> {
        for name in names {
            if self.names.contains(name) {
                continue;
            }
            self.bytes += self.times * name.len() + self.each;
            if self.bytes > LIST_BYTES_MAX && !Mutant::LongListsAnswered.is_active() {
                return Err(too_long("the names"));
            }
            self.names.insert(name.to_owned());
        }
        Ok(())
    }

    pub(super) fn into_set(self) -> BTreeSet<String> {
        self.names
    }

    /// As the only member of an object, written once with room for all.
    pub(super) fn into_body(self, member: &str) -> String {
        let mut body = String::with_capacity(self.bytes + member.len() + 8);
        // Text takes all that is written.
        let _ = write!(body, "{{{}:[", Value::from(member));
        for (at, name) in self.names.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(body, "{comma}{}", Value::from(name.as_str()));
        }
        body.push_str("]}");
        body
    }
}

/// What is known of queues, written as it comes: an object with objects for keys, the member of another.
#[derive(Debug)]
pub(super) struct QueueTable {
    body: String,
    queues: usize,
}

impl QueueTable {
    /// An empty one that follows on `begin`.
    pub(super) fn after(begin: &str) -> Self {
        Self { body: format!("{begin}{{"), queues: 0 }
    }

    /// Adds what is known of a queue.
    ///
    /// # Errors
    /// There are too many for one answer.
    pub(super) fn push(&mut self, queue: &Value, stats: &Value) -> Result<(), Failure> {
        self.queues += 1;
        if self.queues > LISTED_QUEUES_MAX || self.body.len() > LIST_BYTES_MAX {
            return Err(too_long("the state of the queues"));
        }
        object_keys::push(&mut self.body, queue, stats);
        Ok(())
    }

    /// The body that ends with `end`.
    pub(super) fn into_body(mut self, end: &str) -> String {
        self.body.push('}');
        self.body.push_str(end);
        self.body
    }
}
