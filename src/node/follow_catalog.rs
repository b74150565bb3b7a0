//! Keeps the node's logs as the list of logs says.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::catalog::{CatalogState, LogEntry};
use super::inner::NodeInner;
use super::problems::NotOpen;
use crate::error::{OpenError, StorageError, with_sources};
use crate::member::Replica;
use crate::mutant::Mutant;
use crate::raft::Founding;
use crate::record::{Flush, LogId, LogName};

/// When to try again what could not be done.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Opens, founds and removes logs until the node stops.
pub(super) async fn follow_catalog(node: Arc<NodeInner>) {
    let mut changed = node.catalog.watch();
    let mut stopping = node.stopping.subscribe();
    loop {
        changed.mark_unchanged();
        let done = node.reconcile(&node.catalog.state()).await;
        tokio::select! {
            result = changed.changed() => if result.is_err() { return },
            () = tokio::time::sleep(RETRY_PAUSE), if !done => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

impl NodeInner {
    /// Opens what is listed and not open; removes what is open, or on disk, and was deleted. False if
    /// something could not be done, and is to be tried again.
    pub(super) async fn reconcile(self: &Arc<Self>, list: &CatalogState) -> bool {
        let _alone = self.opening.lock().await;
        let mut done = true;
        for (name, entry) in &list.logs {
            if self.is_stopping() || self.group(entry.id).is_some() {
                continue;
            }
            done &= self.try_open_listed(name, entry).await;
        }
        self.not_open().retain(|id, _| list.logs.values().any(|entry| entry.id == *id));
        let mut here: BTreeSet<LogId> = self.groups().iter().map(|group| group.id).collect();
        match self.dir.logs_on_disk() {
            Ok(found) => here.extend(found),
            Err(error) => {
                tracing::error!(error = %with_sources(&error), "cannot list the logs on disk");
                done = false;
            }
        }
        for id in list.deleted.intersection(&here) {
            if let Err(error) = self.remove_log(*id).await {
                tracing::error!(log = %id, error = %with_sources(&*error), "cannot remove a deleted log");
                done = false;
            }
        }
        done
    }

    /// Forgets the log before its files go, so that a crash in between leaves files that nobody misses.
    async fn remove_log(&self, id: LogId) -> Result<(), Arc<StorageError>> {
        let group = self.take_group(id);
        if let Some(group) = &group {
            group.halt().await;
        }
        self.dir.remove_log(id).map_err(Arc::new)?;
        match group {
            Some(group) => group.log.destroy().await?,
            None => self.dir.remove_files(id).map_err(Arc::new)?,
        }
        tracing::info!(log = %id, "deleted the log");
        self.note_flushes().map_err(Arc::new)
    }

    /// Notes that this node acknowledges nothing that is not flushed, if so, once all its logs are open: to open them has
    /// made durable what an earlier run had left in the page cache. Call it after the last one was opened, or is gone.
    pub(super) fn note_flushes(&self) -> Result<(), StorageError> {
        match self.config.storage.flush {
            Flush::Sync if !Mutant::LateLogNotFlushed.is_active() => self.dir.flushes_always(),
            _ => Ok(()),
        }
    }

    /// Opens a log of the list, unless it failed a short while ago. False if it is not open: the other logs go on, and
    /// the node's status says why.
    pub(super) async fn try_open_listed(
        self: &Arc<Self>,
        name: &LogName,
        entry: &LogEntry,
    ) -> bool {
        let waits = |not_open: &NotOpen| Instant::now() < not_open.next;
        if self.not_open().get(&entry.id).is_some_and(waits) {
            return false;
        }
        let Err(error) = self.open_listed(name, entry).await else {
            self.not_open().remove(&entry.id);
            // It may be the last one, however late the node heard of it, or could open it.
            if let Err(error) = self.note_flushes() {
                // At the next start others have to vouch for what was durable.
                tracing::warn!(error = %with_sources(&error), "cannot note that all logs are flushed");
            }
            return true;
        };
        self.note_not_open(name, entry.id, error);
        false
    }

    /// Notes why a log could not be opened.
    pub(super) fn note_not_open(&self, name: &LogName, id: LogId, error: OpenError) {
        tracing::error!(log = %name, error = %with_sources(&error), "cannot open the log; the others go on");
        match self.not_open().entry(id) {
            Entry::Occupied(held) => held.into_mut().failed_again(error),
            Entry::Vacant(new) => drop(new.insert(NotOpen::new(name.clone(), error))),
        }
    }

    /// Opens a log of the list. On its first voters it begins with the entry that names them, if it is empty. The
    /// leader of the system log stands for election at once, the others only if it did not, so that they do not compete.
    pub(super) async fn open_listed(
        self: &Arc<Self>,
        name: &LogName,
        entry: &LogEntry,
    ) -> Result<(), OpenError> {
        let machine = self.machine(name, entry.id);
        let founders = self.founders(entry);
        let own = self.identity.replica();
        let rank = founders.iter().position(|founder| founder.id == own);
        let stands = self.system().is_some_and(|system| system.is_leader());
        let founding = rank.is_some().then_some(Founding { founders, stands });
        let group = self.open_group(name.clone(), entry.id, machine, founding, false).await?;
        tracing::debug!(log = %name, id = %entry.id, ?rank, stands, "opened a log of the list");
        if let Some(rank) = rank.filter(|_| !stands) {
            let patience = self.config.raft.election_timeout_max;
            let wait = patience * (2 + u32::try_from(rank).unwrap_or(8));
            let mut stopping = self.stopping.subscribe();
            self.spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(wait) => group.may_stand(),
                    // The first election is over. Should this leader fail soon, there must be others.
                    true = group.led() => group.may_stand(),
                    _ = stopping.wait_for(|stopping| *stopping) => {}
                }
            });
        }
        Ok(())
    }

    /// The first voters of a log: those of the list that were voters of the system log, too, when the log was made.
    /// The list may name members from before a change that was committed in between, and whoever removes a member
    /// does not look for it in a log that was made later. Nobody if this node's system log does not reach back
    /// that far: then others have founded the log.
    fn founders(&self, entry: &LogEntry) -> Vec<Replica> {
        let voters = self.system().and_then(|system| system.voters_at(entry.id.0));
        let voters = voters.unwrap_or_default();
        entry.founders.iter().filter(|founder| voters.contains(&founder.id)).cloned().collect()
    }
}
