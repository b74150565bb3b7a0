//! A request's fields: text by name, read leniently.

use std::collections::BTreeMap;

/// A field that is missing or is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field {name} {problem}")]
pub(crate) struct FieldError {
    name: String,
    problem: &'static str,
}

/// Fields by name. Unknown ones are kept and ignored (L6, L7). All their text lies in one string: a request has a dozen
/// of them, and to allocate each by itself took as long as all else that is done for a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    text: String,
    /// In the order in which they came; of two with one name the later one counts.
    spans: Vec<Span>,
}

/// About as many as a send has, and their bytes.
const FIELDS: usize = 16;
const FIELDS_BYTES: usize = 384;

/// Where a field's name and its value lie in the text.
#[derive(Debug, Clone, Copy)]
struct Span {
    name: (usize, usize),
    value: (usize, usize),
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        let by_name = |fields: &Self| -> BTreeMap<String, String> {
            fields.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        by_name(self) == by_name(other)
    }
}

impl Eq for Fields {}

impl Fields {
    /// None yet, with room for those of a send.
    pub(super) fn with_room() -> Self {
        Self { text: String::with_capacity(FIELDS_BYTES), spans: Vec::with_capacity(FIELDS) }
    }

    /// Sets a field.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.find(name) {
            Some(at) => {
                let value = self.put(value);
                self.spans[at].value = value;
            }
            None => self.push(name, value),
        }
    }

    /// Adds a field, which hides an earlier one of its name. Its cost does not depend on how many there are.
    pub(super) fn push(&mut self, name: &str, value: &str) {
        let (name, value) = (self.put(name), self.put(value));
        self.spans.push(Span { name, value });
    }

    fn put(&mut self, text: &str) -> (usize, usize) {
        let begin = self.text.len();
        self.text.push_str(text);
        (begin, self.text.len())
    }

    fn find(&self, name: &str) -> Option<usize> {
        let length = name.len();
        self.spans.iter().rposition(|Span { name: (begin, end), .. }| {
            end - begin == length && self.text.as_bytes()[*begin..*end] == *name.as_bytes()
        })
    }

    fn slice(&self, (begin, end): (usize, usize)) -> &str {
        // What `put` gave.
        &self.text[begin..end]
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// True if there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// All, in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans.iter().map(|span| (self.slice(span.name), self.slice(span.value)))
    }

    /// A field's text, if it is there.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.find(name).map(|at| self.slice(self.spans[at].value))
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn text(&self, name: &str) -> Result<&str, FieldError> {
        self.get(name).ok_or_else(|| FieldError { name: name.to_owned(), problem: "is missing" })
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// It is not there, or no number.
    pub(crate) fn number(&self, name: &str) -> Result<i64, FieldError> {
        let text = self.text(name)?;
        let problem = "is no number";
        text.trim().parse().map_err(|_| FieldError { name: name.to_owned(), problem })
    }

    /// A number that may be missing.
    ///
    /// # Errors
    /// It is there, and no number.
    pub(crate) fn number_or(&self, name: &str, default: i64) -> Result<i64, FieldError> {
        match self.get(name) {
            None | Some("") => Ok(default),
            Some(_) => self.number(name),
        }
    }

    /// A number of a queue, or another that fits 32 bits.
    ///
    /// # Errors
    /// As `number`, or it does not fit.
    pub(crate) fn int(&self, name: &str) -> Result<i32, FieldError> {
        let problem = "is out of range";
        let number = self.number(name)?;
        i32::try_from(number).map_err(|_| FieldError { name: name.to_owned(), problem })
    }

    /// A number of 32 bits that may be missing.
    ///
    /// # Errors
    /// As `int`.
    pub(crate) fn int_or(&self, name: &str, default: i32) -> Result<i32, FieldError> {
        match self.get(name) {
            None | Some("") => Ok(default),
            Some(_) => self.int(name),
        }
    }

    /// True for `true` and for the `1` that other clients than Java's write (L3).
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1")
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(all: I) -> Self {
        let mut fields = Self::default();
        all.into_iter().for_each(|(name, value)| fields.push(name.as_ref(), value.as_ref()));
        fields
    }
}
