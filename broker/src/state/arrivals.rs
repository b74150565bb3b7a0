//! Who waits for a message of a queue.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Waiting readers by topic and queue. Empty while nobody waits.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    waiting: Mutex<BTreeMap<String, BTreeMap<u32, Arc<Notify>>>>,
}

/// One reader's place. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    arrivals: &'a Arrivals,
    topic: String,
    queue: u32,
    notify: Arc<Notify>,
}

impl Arrivals {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<u32, Arc<Notify>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among those who are woken when a message comes to the queue.
    pub(crate) fn wait_for(&self, topic: &str, queue: u32) -> Waiting<'_> {
        let mut waiting = self.waiting();
        let notify = waiting.entry(topic.to_owned()).or_default().entry(queue).or_default();
        Waiting { arrivals: self, topic: topic.to_owned(), queue, notify: Arc::clone(notify) }
    }

    /// Wakes those who wait for the queue.
    pub(super) fn wake(&self, topic: &str, queue: u32) {
        let waiting = self.waiting();
        if let Some(notify) = waiting.get(topic).and_then(|queues| queues.get(&queue)) {
            notify.notify_waiters();
        }
    }

    /// Wakes all who wait.
    pub(super) fn wake_all(&self) {
        let waiting = self.waiting();
        waiting.values().flat_map(BTreeMap::values).for_each(|notify| notify.notify_waiters());
    }
}

impl Waiting<'_> {
    /// Resolves when a message comes after this call.
    pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.arrivals.waiting();
        let Some(queues) = waiting.get_mut(&self.topic) else { return };
        // One is the map's, one is ours; nobody else can come by one while the map is locked.
        if Arc::strong_count(&self.notify) <= 2 {
            queues.remove(&self.queue);
        }
        if queues.is_empty() {
            waiting.remove(&self.topic);
        }
    }
}
