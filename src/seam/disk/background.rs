//! Threads of the process that do for the disk what no log is to wait for.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::panics;

/// Items that wait for one thread.
const QUEUE_MAX: usize = 64;

/// A thread, started when it is first needed, and what it does with each item. It lives as long as the process.
pub(super) struct Background<T: 'static> {
    name: &'static str,
    work: fn(T),
    /// None inside if the thread cannot be started.
    queue: OnceLock<Option<SyncSender<T>>>,
}

impl<T: Send> Background<T> {
    pub(super) const fn new(name: &'static str, work: fn(T)) -> Self {
        Self { name, work, queue: OnceLock::new() }
    }

    /// Queues an item. False, and the item is dropped, if the queue is full or there is no thread.
    pub(super) fn offer(&self, item: T) -> bool {
        let queue = self.queue.get_or_init(|| self.start());
        queue.as_ref().is_some_and(|queue| queue.try_send(item).is_ok())
    }

    fn start(&self) -> Option<SyncSender<T>> {
        let (sender, items): (_, Receiver<T>) = sync_channel(QUEUE_MAX);
        let work = self.work;
        // An item whose work panics is dropped; the next ones are not.
        let drain = move || items.into_iter().for_each(|item| drop(panics::catch(|| work(item))));
        thread::Builder::new().name(self.name.to_owned()).spawn(drain).ok()?;
        Some(sender)
    }
}
