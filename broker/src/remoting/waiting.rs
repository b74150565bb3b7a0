//! Who waits for which answer of a connection. Once it has ended nobody does, and nobody begins to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

type Answers<T> = Option<BTreeMap<i32, oneshot::Sender<T>>>;

/// Those who wait, by the number of what they asked.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    /// None once the connection has ended.
    answers: Mutex<Answers<T>>,
    max: usize,
}

/// One who waits; no longer once dropped.
#[derive(Debug)]
pub(crate) struct Waiter<T> {
    waiting: Arc<Waiting<T>>,
    number: i32,
    answer: oneshot::Receiver<T>,
}

impl<T> Waiting<T> {
    /// For a connection with at most `max` requests under way.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(Some(BTreeMap::new())), max })
    }

    fn lock(&self) -> MutexGuard<'_, Answers<T>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait, before the request is sent; none if the connection has ended or too many wait.
    pub(crate) fn begin(self: &Arc<Self>, number: i32) -> Option<Waiter<T>> {
        let (sender, answer) = oneshot::channel();
        let mut answers = self.lock();
        let answers = answers.as_mut().filter(|all| all.len() < self.max)?;
        answers.insert(number, sender);
        Some(Waiter { waiting: Arc::clone(self), number, answer })
    }

    /// Hands over an answer, if somebody waits for it.
    pub(crate) fn answered(&self, number: i32, answer: T) {
        let waiter = self.lock().as_mut().and_then(|all| all.remove(&number));
        if let Some(waiter) = waiter {
            // Who asked may have given up this moment.
            let _ = waiter.send(answer);
        }
    }

    /// The connection has ended: tells all who wait.
    pub(crate) fn end(&self) {
        self.lock().take();
    }

    /// Ends the connection for all who wait once it is dropped, as by a panic of the task that holds it.
    pub(crate) fn ends_with(self: &Arc<Self>) -> EndOnDrop<T> {
        EndOnDrop(Arc::clone(self))
    }
}

/// See [`Waiting::ends_with`].
pub(crate) struct EndOnDrop<T>(Arc<Waiting<T>>);

impl<T> Drop for EndOnDrop<T> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<T> Waiter<T> {
    /// The answer; none if the connection ends before it comes. Cancel safe.
    pub(crate) async fn answer(&mut self) -> Option<T> {
        (&mut self.answer).await.ok()
    }
}

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        self.answer.close();
        if let Some(answers) = self.waiting.lock().as_mut()
            // Another may wait by now under the same number.
            && answers.get(&self.number).is_some_and(oneshot::Sender::is_closed)
        {
            answers.remove(&self.number);
        }
    }
}
