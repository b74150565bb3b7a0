//! What is made once for all who ask within a moment.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Something that may be told for a while after it was made. Whoever asks meanwhile gets the same.
pub(super) struct Shared<T> {
    age_max: Duration,
    made: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Shared<T> {
    pub(super) fn new(age_max: Duration) -> Self {
        Self { age_max, made: Mutex::const_new(None) }
    }

    /// The last one, or a new one if that is too old. Only one is made at a time. Cancel safe.
    pub(super) async fn get(&self, make: impl FnOnce() -> T) -> T {
        let mut made = self.made.lock().await;
        if let Some((_, last)) = made.as_ref().filter(|(at, _)| at.elapsed() < self.age_max) {
            return last.clone();
        }
        let new = make();
        *made = Some((Instant::now(), new.clone()));
        new
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn however_many_ask_it_is_made_once_in_a_while() {
        let (shared, made) = (Shared::new(Duration::from_millis(250)), AtomicU32::new(0));
        for _ in 0..1000 {
            shared.get(|| made.fetch_add(1, Ordering::Relaxed)).await;
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(made.load(Ordering::Relaxed), 4);
    }
}
