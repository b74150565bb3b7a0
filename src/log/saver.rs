//! Saves the checkpoints of logs beside whoever takes them: three flushes, for which nothing else of a node waits.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use crate::error::{StorageError, with_sources};
use crate::format::entry::EntryId;
use crate::panics;
use crate::state_machine::FlushFiles;

use super::drive::{SavingQueue, WriterPool};
use super::{Draft, Log};

/// A checkpoint that waits to be saved.
struct Save {
    log: Log,
    draft: Draft,
    files: FlushFiles,
    turn: Turn,
    done: oneshot::Sender<Result<(), StorageError>>,
}

impl Save {
    fn run(self) {
        let Self { log, draft, files, turn, done } = self;
        let index = draft.id().index;
        let saving = || log.save_checkpoint(draft, files);
        let saved = panics::catch(saving).unwrap_or_else(|panic| {
            let error = io::Error::other(format!("it panicked: {panic}"));
            Err(StorageError::io("save a checkpoint in", log.dir(), error))
        });
        if let Err(error) = &saved {
            // Not fatal: the log still holds everything, and the next one is tried in its time.
            tracing::warn!(error = %with_sources(error), index, "checkpoint given up");
        }
        drop(turn);
        // Nobody need wait for it.
        let _ = done.send(saved);
    }
}

/// The right to save a log's next checkpoint: one is saved at a time.
pub(crate) struct Turn(#[expect(dead_code, reason = "held, and let go of")] OwnedMutexGuard<()>);

/// Saves one log's checkpoints. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Saver {
    log: Log,
    queue: SavingQueue,
    alone: Arc<Mutex<()>>,
}

impl Saver {
    pub(crate) fn new(log: Log, writers: &WriterPool) -> Self {
        Self { log, queue: writers.saver(), alone: Arc::default() }
    }

    /// The log whose checkpoints it saves.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Why nothing is saved any more.
    pub(crate) fn closed(&self) -> StorageError {
        closed(self.log.dir())
    }

    /// None while a checkpoint is being saved.
    pub(crate) fn try_turn(&self) -> Option<Turn> {
        Arc::clone(&self.alone).try_lock_owned().ok().map(Turn)
    }

    /// Waits until no checkpoint is being saved.
    pub(crate) async fn turn(&self) -> Turn {
        Turn(Arc::clone(&self.alone).lock_owned().await)
    }

    /// Saves a checkpoint, and before it makes durable what it names and the entries that it is made of: a log that lost
    /// them would have no use for it.
    pub(crate) fn save(&self, turn: Turn, draft: Draft, files: FlushFiles) -> Saving {
        let (done, saved) = oneshot::channel();
        let (log, id) = (self.log.clone(), draft.id());
        let queue = self.queue.clone();
        let save = Save { log, draft, files, turn, done };
        let flushed = move |flushed: Result<(), Arc<StorageError>>| match flushed {
            // If the thread has ended, `done` is dropped, which says so.
            Ok(()) => queue.push(save.log.dir().to_owned(), move || save.run()),
            Err(error) => drop(save.done.send(Err(error.poisoned_by()))),
        };
        self.log.flush_below(id.index + 1, Box::new(flushed));
        Saving { id, dir: self.log.dir().to_owned(), saved }
    }

    /// Does something else with the log's checkpoints where they are saved, since it blocks on the disk. None if the
    /// node is stopping.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Log) -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        // An error means that nobody waits any more.
        let log = self.log.clone();
        let work = move || drop(done.send(work(&log)));
        // If the thread has ended, `done` is dropped, which says so.
        self.queue.push(self.log.dir().to_owned(), work);
        result.await.ok()
    }
}

/// A checkpoint that is being saved, whether or not anybody waits for it.
pub(crate) struct Saving {
    /// What it is as of.
    pub(crate) id: EntryId,
    dir: PathBuf,
    saved: oneshot::Receiver<Result<(), StorageError>>,
}

impl Saving {
    /// Resolves once it is durable.
    pub(crate) async fn saved(self) -> Result<(), StorageError> {
        match self.saved.await {
            Ok(saved) => saved,
            Err(_) => Err(closed(&self.dir)),
        }
    }
}

fn closed(dir: &Path) -> StorageError {
    StorageError::io("save a checkpoint in", dir, io::Error::other("the node is stopping"))
}
