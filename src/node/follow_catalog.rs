//! Keeps the node's logs as the list of logs says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::catalog::{CatalogState, LogEntry};
use super::inner::NodeInner;
use crate::error::{StorageError, with_sources};
use crate::member::Member;
use crate::raft::Group;
use crate::record::{LogId, LogName};

/// When to try again what could not be done.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Opens, founds and removes logs until the node stops.
pub(super) async fn follow_catalog(node: Arc<NodeInner>) {
    let mut changed = node.catalog.watch();
    let mut stopping = node.stopping.subscribe();
    // Logs that were opened with the node: a crash may have come before they were founded.
    for (name, entry) in node.catalog.state().logs {
        if let Some(group) = node.group(entry.id) {
            node.found(group, name, entry);
        }
    }
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
        let mut done = true;
        for (name, entry) in &list.logs {
            if self.is_stopping() || self.group(entry.id).is_some() {
                continue;
            }
            let machine = self.machines.as_ref().and_then(|machines| machines(name));
            match self.open_group(name.clone(), entry.id, machine).await {
                Ok(group) => self.found(group, name.clone(), entry.clone()),
                // The other logs go on; the operator sees the log missing in the status.
                Err(error) => {
                    tracing::error!(log = %name, error = %with_sources(&error), "cannot open the log");
                    done = false;
                }
            }
        }
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
        Ok(())
    }

    /// Founds the group of a log that is empty here. Every founder may: they write the same first entry. The
    /// leader of the system log does at once, the others only if it did not, so that they do not compete.
    fn found(self: &Arc<Self>, group: Arc<Group>, name: LogName, entry: LogEntry) {
        let rank = entry.founders.iter().position(|member| member.id == self.config.node_id);
        tracing::debug!(log = %name, id = %group.id, ?rank, founders = ?entry.founders, "a log of the list");
        let Some(rank) = rank else { return };
        if group.log.last_id().is_some() {
            return;
        }
        let leads = self.system().is_some_and(|system| system.is_leader());
        let patience = self.config.raft.election_timeout_max;
        let mut wait =
            if leads { Duration::ZERO } else { patience * (2 + u32::try_from(rank).unwrap_or(8)) };
        let node = self.clone();
        let mut stopping = self.stopping.subscribe();
        self.spawn(async move {
            while group.log.last_id().is_none() && !group.is_closed() {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = stopping.wait_for(|stopping| *stopping) => return,
                }
                wait = patience;
                let founders = match node.founders(&entry).await {
                    Some(founders) if founders.is_empty() => {
                        tracing::info!(log = %name, id = %group.id, "the log is not this node's to found");
                        return;
                    }
                    Some(founders) => founders,
                    None => {
                        tracing::debug!(log = %name, id = %group.id, "cannot tell who founds the log");
                        continue;
                    }
                };
                match group.initialize(&founders).await {
                    Ok(true) => tracing::info!(log = %name, id = %group.id, "founded the log"),
                    Ok(false) => tracing::debug!(log = %name, id = %group.id, "another founder was faster"),
                    Err(error) => tracing::warn!(log = %name, error, "cannot found the log"),
                }
            }
        });
    }

    /// The first voters of a log, if this node may found it: if what is empty here was always empty here. A node
    /// that was removed since the log was made may have lost what it held of it when it was added anew: were it
    /// to found the log again, and alone or with others like it be a majority of the founders, there would be
    /// two logs of one name. So it must have been a member ever since, as of now. None if nobody can tell at the
    /// moment.
    ///
    /// The members that the list names may be from before a change of them that was committed before the log was
    /// made. Who was no voter of the system log any more then is none of the first voters here: whoever removes
    /// it does not look for it in this log, and it may have lost its data since.
    async fn founders(&self, entry: &LogEntry) -> Option<Vec<Member>> {
        let system = self.system()?;
        let limit = self.config.raft.election_timeout_max * 2;
        let now = self.read_index(&system, limit).await.ok()?;
        tokio::time::timeout(limit, system.apply.applied_below(now)).await.ok()?;
        let since = system.memberships_since(entry.id.0).unwrap_or_default();
        let was_in_all = since.iter().all(|members| members.all.contains(&self.config.node_id));
        let Some(first) = since.first().filter(|_| was_in_all && self.catalog.lists(entry.id))
        else {
            return Some(Vec::new());
        };
        let founders = entry.founders.iter().filter(|member| first.voters.contains(&member.id));
        Some(founders.cloned().collect())
    }
}
