//! The program that wrote a header: some bodies are written for its language.

use serde_json::Value;

/// RocketMQ's names of languages, in the order of their numbers.
const LANGUAGES: [&str; 13] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP",
    "OMS", "RUST",
];
const JAVA: u8 = 0;
const CPP: u8 = 1;
const OTHER: u8 = 7;
/// What we say we are: above RocketMQ 4.1.0, or clients keep features to themselves.
const VERSION: i32 = 401;

/// Language and version that a header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Speaker {
    language: u8,
    pub(crate) version: i32,
}

/// Who we say we are.
impl Default for Speaker {
    fn default() -> Self {
        Self { language: JAVA, version: VERSION }
    }
}

impl Speaker {
    pub(super) fn new(language: u8, version: i32) -> Self {
        let known = usize::from(language) < LANGUAGES.len();
        Self { language: if known { language } else { OTHER }, version }
    }

    /// Out of a JSON header that names the language as RocketMQ does.
    pub(super) fn named(language: &str, version: i32) -> Option<Self> {
        let at = LANGUAGES.iter().position(|it| *it == language)?;
        Some(Self::new(u8::try_from(at).ok()?, version))
    }

    /// Out of a JSON header, where the language is a name; some write its number.
    pub(super) fn read(language: &Value, version: &Value) -> Self {
        let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let named = language.as_str().and_then(|name| LANGUAGES.iter().position(|it| *it == name));
        let known = named.and_then(|at| u8::try_from(at).ok());
        let language = known.or_else(|| u8::try_from(number(language)?).ok());
        let version = number(version).and_then(|version| i32::try_from(version).ok());
        Self::new(language.unwrap_or(OTHER), version.unwrap_or_default())
    }

    pub(super) fn number(self) -> u8 {
        self.language
    }

    /// RocketMQ's name of the language.
    pub(crate) fn language(self) -> &'static str {
        LANGUAGES.get(usize::from(self.language)).copied().unwrap_or("OTHER")
    }

    /// True for the C++ client, which reads no objects as keys.
    pub(crate) fn is_cpp(self) -> bool {
        self.language == CPP
    }
}
