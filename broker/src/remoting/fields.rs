//! A request's fields: text by name, read leniently.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::mutant::Mutant;

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

/// More fields than any request has.
pub(super) const FIELDS_MAX: usize = 1024;

/// About as many as a send has, and their bytes.
const FIELDS: usize = 16;
const FIELDS_BYTES: usize = 256;

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
    /// None yet, with room for those of a send, and for so many bytes.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), spans: Vec::with_capacity(FIELDS) }
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

    /// `push` of the text that `put` puts behind what it is given. None is passed on, and nothing is added.
    pub(super) fn push_with(
        &mut self,
        name: &str,
        put: impl FnOnce(&mut String) -> Option<()>,
    ) -> Option<()> {
        let name = self.put(name);
        let begin = self.text.len();
        put(&mut self.text)?;
        self.spans.push(Span { name, value: (begin, self.text.len()) });
        Some(())
    }

    /// `push` of a value as it is shown.
    pub(crate) fn push_shown(&mut self, name: &str, value: impl fmt::Display) {
        // Text takes all that is written.
        let _ = self.push_with(name, |text| write!(text, "{value}").ok());
    }

    /// Makes room for so many bytes, and as many fields as a send has.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.text.reserve(bytes);
        self.spans.reserve(FIELDS);
    }

    /// Drops all but these, and the memory that the others took.
    pub(crate) fn keep(&mut self, names: &[&str]) {
        let mut kept = Self { text: String::new(), spans: Vec::new() };
        for name in names {
            if let Some(value) = self.get(name) {
                kept.push(name, value);
            }
        }
        kept.text.shrink_to_fit();
        kept.spans.shrink_to_fit();
        *self = kept;
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

    /// Bytes of their names and values.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
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

    /// A field, there or not.
    pub(crate) fn field<'a>(&'a self, name: &'a str) -> Field<'a> {
        Field { name, text: self.get(name) }
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn text<'a>(&'a self, name: &'a str) -> Result<&'a str, FieldError> {
        self.field(name).text()
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// It is not there, or no number.
    pub(crate) fn number(&self, name: &str) -> Result<i64, FieldError> {
        self.field(name).number()
    }

    /// A number that may be missing.
    ///
    /// # Errors
    /// It is there, and no number.
    pub(crate) fn number_or(&self, name: &str, default: i64) -> Result<i64, FieldError> {
        self.field(name).number_or(default)
    }

    /// A number of a queue, or another that fits 32 bits.
    ///
    /// # Errors
    /// As `number`, or it does not fit.
    pub(crate) fn int(&self, name: &str) -> Result<i32, FieldError> {
        self.field(name).int()
    }

    /// A number of 32 bits that may be missing.
    ///
    /// # Errors
    /// As `int`.
    pub(crate) fn int_or(&self, name: &str, default: i32) -> Result<i32, FieldError> {
        self.field(name).int_or(default)
    }

    /// True for `true` and for the `1` that other clients than Java's write (L3).
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.field(name).flag()
    }
}

/// One field, there or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    name: &'a str,
    text: Option<&'a str>,
}

impl<'a> Field<'a> {
    /// What was found under a name.
    pub(crate) fn new(name: &'a str, text: Option<&'a str>) -> Self {
        Self { name, text }
    }

    fn error(self, problem: &'static str) -> FieldError {
        FieldError { name: self.name.to_owned(), problem }
    }

    /// As `Fields::get`.
    pub(crate) fn get(self) -> Option<&'a str> {
        self.text
    }

    /// As `Fields::text`.
    pub(crate) fn text(self) -> Result<&'a str, FieldError> {
        self.text.ok_or_else(|| self.error("is missing"))
    }

    /// Decimal digits, with a sign or without one, as Java's `Long.parseLong` takes them.
    fn number(self) -> Result<i64, FieldError> {
        let text = self.text()?;
        let number = match Mutant::NumbersReadLoosely.is_active() {
            true => text.parse::<f64>().ok().map(|number| number as i64),
            false => text.parse().ok(),
        };
        number.ok_or_else(|| self.error("is no number"))
    }

    /// As `Fields::number_or`.
    pub(crate) fn number_or(self, default: i64) -> Result<i64, FieldError> {
        if self.is_empty() { Ok(default) } else { self.number() }
    }

    /// As `Fields::int`.
    pub(crate) fn int(self) -> Result<i32, FieldError> {
        i32::try_from(self.number()?).map_err(|_| self.error("is out of range"))
    }

    /// As `Fields::int_or`.
    pub(crate) fn int_or(self, default: i32) -> Result<i32, FieldError> {
        if self.is_empty() { Ok(default) } else { self.int() }
    }

    fn is_empty(self) -> bool {
        self.text.is_none_or(str::is_empty)
    }

    /// As `Fields::flag`.
    pub(crate) fn flag(self) -> bool {
        self.text.is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1")
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(all: I) -> Self {
        let mut fields = Self::with_room(FIELDS_BYTES);
        all.into_iter().for_each(|(name, value)| fields.push(name.as_ref(), value.as_ref()));
        fields
    }
}
