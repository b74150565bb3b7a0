//! A request's fields: text by name, read leniently.

use std::collections::BTreeMap;

/// A field that is missing or is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field {name} {problem}")]
pub(crate) struct FieldError {
    name: String,
    problem: &'static str,
}

/// Fields by name. Unknown ones are kept and ignored (L6, L7).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Sets a field.
    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A field's text, if it is there.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
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

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
