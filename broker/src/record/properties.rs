//! A message's properties: `name \x01 value \x02`, again and again.

/// Properties that the broker reads or sets.
pub(crate) mod names {
    pub(crate) const TAGS: &str = "TAGS";
    pub(crate) const KEYS: &str = "KEYS";
    pub(crate) const DELAY: &str = "DELAY";
    /// Ours, while a message waits for its delay: the wall clock at which it came to the leader.
    pub(crate) const ARRIVED_MS: &str = "__ARRIVED_MS";
    pub(crate) const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub(crate) const REAL_TOPIC: &str = "REAL_TOPIC";
    pub(crate) const REAL_QUEUE: &str = "REAL_QID";
    pub(crate) const TRANSACTION: &str = "TRAN_MSG";
    /// What a consumer acknowledges that popped the message.
    pub(crate) const POP_CHECKPOINT: &str = "POP_CK";
    pub(crate) const UNIQUE_KEY: &str = "UNIQ_KEY";
    pub(crate) const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub(crate) const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    pub(crate) const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
}

const NAME_END: char = '\x01';
const VALUE_END: char = '\x02';

/// Properties in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Properties(Vec<(String, String)>);

impl Properties {
    /// Reads them; what has no name is passed over.
    pub(crate) fn parse(text: &str) -> Self {
        Self(Self::pairs(text).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Names and values in the order in which they come; what has no name is passed over.
    pub(crate) fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
        text.split(VALUE_END).filter_map(|pair| pair.split_once(NAME_END))
    }

    /// One value out of the text, without reading it into memory. The last one of a name counts, as in Java's map.
    pub(crate) fn find<'a>(text: &'a str, name: &str) -> Option<&'a str> {
        // Every message is looked through several times: by bytes, which takes a fraction of what `pairs` does.
        let (bytes, name) = (text.as_bytes(), name.as_bytes());
        let (mut found, mut begin) = (None, 0);
        while begin < bytes.len() {
            let rest = &bytes[begin..];
            let end = begin + memchr::memchr(VALUE_END as u8, rest).unwrap_or(rest.len());
            let value = begin + name.len() + 1;
            if value <= end && rest.starts_with(name) && bytes[value - 1] == NAME_END as u8 {
                found = text.get(value..end);
            }
            begin = end + 1;
        }
        found
    }

    /// A value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Sets a value.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.0.push((name.to_owned(), value.into()));
    }

    /// Removes a value.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(found, _)| found != name);
    }

    /// As they are stored and sent.
    pub(crate) fn to_text(&self) -> String {
        let bytes = self.0.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        let mut text = String::with_capacity(bytes);
        for (name, value) in &self.0 {
            text.push_str(name);
            text.push(NAME_END);
            text.push_str(value);
            text.push(VALUE_END);
        }
        text
    }
}
