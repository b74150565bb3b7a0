//! Names that the state holds in several places: one allocation for all of them. And what stands for a name that is longer
//! than any may be today.

use std::borrow::{Borrow, Cow};
use std::fmt::{self, Write as _};
use std::ops::Deref;
use std::sync::Arc;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::limits::STORED_TOPIC_BYTES_MAX;

/// First character of what stands for a name. Names of clients do not have it.
const STAND_IN: char = '\0';

/// The name, or what stands for it if it is too long to be kept: the same for the same name, and short.
pub(super) fn bounded(name: &str) -> Cow<'_, str> {
    if name.len() <= STORED_TOPIC_BYTES_MAX && !is_stand_in(name) {
        return Cow::Borrowed(name);
    }
    let mut stand_in = String::from(STAND_IN);
    for byte in Sha256::digest(name) {
        let _ = write!(stand_in, "{byte:02x}");
    }
    Cow::Owned(stand_in)
}

/// True for what stands for a name that is too long.
pub(super) fn is_stand_in(name: &str) -> bool {
    name.starts_with(STAND_IN)
}

/// The name of a group or a topic. Written as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(Arc<str>);

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
                Ok(name.into())
            }
        }

        deserializer.deserialize_str(Text)
    }
}
