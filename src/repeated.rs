//! Messages that others can cause again and again: to log one a minute says enough.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Pause between two messages about the same.
const PAUSE: Duration = Duration::from_secs(60);
/// What messages were about that is remembered. Beyond that nothing is due until some of it is old.
const REMEMBERED_MAX: usize = 256;

/// What was logged lately. Takes little memory, whatever it is asked.
#[derive(Debug, Default)]
pub struct Repeated(Mutex<BTreeMap<String, Instant>>);

impl Repeated {
    /// True at most once a minute for the same text, and for at most 256 texts a minute.
    pub fn is_due(&self, about: &str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = logged.get(about)
            && at.elapsed() < PAUSE
        {
            return false;
        }
        if logged.len() >= REMEMBERED_MAX {
            logged.retain(|_, at| at.elapsed() < PAUSE);
        }
        if logged.len() >= REMEMBERED_MAX {
            return false;
        }
        logged.insert(about.to_owned(), Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_text_is_due_once_a_minute_and_so_are_few_texts() {
        let repeated = Repeated::default();
        assert!(repeated.is_due("other version"));
        assert!(!repeated.is_due("other version"));
        assert!(repeated.is_due("no hello in time"));
        tokio::time::advance(PAUSE).await;
        assert!(repeated.is_due("other version"));
        let due = (0..2 * REMEMBERED_MAX).filter(|number| repeated.is_due(&number.to_string()));
        assert!(due.count() < REMEMBERED_MAX);
        tokio::time::advance(PAUSE).await;
        assert!(repeated.is_due("no hello in time"));
    }
}
