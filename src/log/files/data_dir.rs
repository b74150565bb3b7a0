//! The data directory of a node: whose it is, its lock, and where its logs lie.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::StorageError;
use crate::format::superblock::{Newest, Run, Superblock};
use crate::member::ReplicaId;
use crate::mutant::Mutant;
use crate::record::{Flush, LogId};
use crate::seam::disk::{atomic_file, remove_all};
use crate::seam::{Clock, Disk, DiskLock, LockMode};

use super::manifest::read_manifest;

pub(in crate::log) const LOCK_NAME: &str = "LOCK";
pub(in crate::log) const SUPERBLOCK_NAME: &str = "NODE";
pub(in crate::log) const LOGS_NAME: &str = "logs";
/// How directories of logs that are being made are named.
pub(in crate::log) const NEW_SUFFIX: &str = ".new";
/// How directories of logs that are being removed are named.
const GONE_SUFFIX: &str = ".gone";
const SUPERBLOCK_LEN_MAX: u64 = 16 << 20;

/// An opened and locked data directory.
#[derive(Debug)]
pub(crate) struct DataDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    superblock: Mutex<Superblock>,
    /// Held while the superblock is written: the superblock itself stays free for those who only ask.
    updating: Mutex<()>,
    lock: Mutex<Option<Box<dyn DiskLock>>>,
    /// Logs that this run has opened, which made durable what was found.
    opened: Mutex<BTreeSet<u64>>,
    /// How often each log came under suspicion in this run. Changed while the superblock is held.
    suspicions: Mutex<BTreeMap<u64, u64>>,
}

/// How often a log had come under suspicion when that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suspicion(u64);

impl DataDir {
    /// Locks the directory, makes it if it is absent or empty, and checks that it belongs to this
    /// node and that every log it lists is there. Removes what an interrupted creation or removal
    /// of a log has left.
    ///
    /// # Errors
    /// `Locked`, `Foreign`, `Missing`, or what the disk says. Nothing was changed then, but the
    /// lock file may have been made.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        clock: &dyn Clock,
        path: &Path,
        node_id: u64,
    ) -> Result<Self, StorageError> {
        make_dirs(&*disk, path)?;
        let lock_path = path.join(LOCK_NAME);
        let lock = disk.lock(&lock_path, LockMode::Exclusive);
        let lock = lock.map_err(|error| StorageError::io("lock", &lock_path, error))?;
        let lock = lock.ok_or(StorageError::Locked { path: lock_path })?;
        let superblock = match read_superblock(&*disk, path)? {
            Some(superblock) => superblock,
            None => found(&*disk, clock, path, node_id)?,
        };
        if superblock.node_id != node_id {
            return Err(StorageError::Foreign {
                path: path.to_owned(),
                found: format!("node {}", superblock.node_id),
                expected: format!("node {node_id}"),
            });
        }
        check_logs(&*disk, path, &superblock)?;
        // A process that crashed may have left its last change in the page cache only.
        disk.sync_dir(path).map_err(|error| StorageError::io("sync", path, error))?;
        remove_leftovers(&*disk, &path.join(LOGS_NAME))?;
        let superblock = Mutex::new(superblock);
        let (path, lock) = (path.to_owned(), Mutex::new(Some(lock)));
        let (opened, suspicions, updating) = Default::default();
        Ok(Self { disk, path, superblock, updating, lock, opened, suspicions })
    }

    /// Lets another process have the directory. Nothing may be written to it after.
    pub(crate) fn unlock(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Where a log lies.
    pub(crate) fn log_dir(&self, log: LogId) -> PathBuf {
        log_dir(&self.path, log)
    }

    /// Random number made with the directory.
    pub(crate) fn incarnation(&self) -> u128 {
        self.superblock().incarnation
    }

    /// Id of the cluster; 0 before the node belongs to one.
    pub(crate) fn cluster(&self) -> u128 {
        self.superblock().cluster
    }

    /// Notes the cluster that the node has founded or joined. Durable on return.
    ///
    /// # Errors
    /// `Foreign` if it belongs to another one already.
    pub(crate) fn set_cluster(&self, cluster: u128) -> Result<(), StorageError> {
        self.update(|superblock| {
            if superblock.cluster != 0 && superblock.cluster != cluster {
                return Err(StorageError::Foreign {
                    path: self.path.clone(),
                    found: format!("cluster {:032x}", superblock.cluster),
                    expected: format!("cluster {cluster:032x}"),
                });
            }
            superblock.cluster = cluster;
            Ok(())
        })
    }

    /// The logs whose directories must be there.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn logs(&self) -> Vec<LogId> {
        self.superblock().logs.iter().copied().map(LogId).collect()
    }

    /// Notes that a log exists and was opened, once it was: from then on a missing directory is an error and not
    /// a new log. Durable on return.
    pub(crate) fn add_log(&self, log: LogId) -> Result<(), StorageError> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(log.0);
        self.update(|superblock| {
            superblock.logs.insert(log.0);
            Ok(())
        })
    }

    /// Forgets a log, before it is destroyed. Durable on return.
    pub(crate) fn remove_log(&self, log: LogId) -> Result<(), StorageError> {
        self.update(|superblock| {
            superblock.logs.remove(&log.0);
            superblock.suspects.remove(&log.0);
            Ok(())
        })
    }

    /// Begins a run, before any log is opened. If the last one acknowledged what it had not flushed, did
    /// not end well, and the page cache is gone since, all logs are suspect from now on. Durable on return.
    pub(crate) fn begin_run(&self, flush: Flush) -> Result<(), StorageError> {
        let boot = self.disk.boot_id(&self.path);
        let here = self.logs_on_disk()?;
        self.update(|superblock| {
            let asynchronous = flush == Flush::Async;
            let last = superblock.run;
            if last.is_none() && asynchronous {
                // An older build says nothing of how it ran: it is taken to have run as this one does.
                superblock.run = Some(Run { asynchronous, ..Run::default() });
                superblock.suspects.insert(LogId::SYSTEM.0);
            }
            // A log that was made and not listed yet, too.
            let listed = superblock.logs.clone();
            superblock.logs.extend(here.iter().map(|log| log.0));
            let doubtful = superblock.doubtful(boot);
            superblock.logs = listed;
            if !Mutant::LostPagesUnnoticed.is_active() {
                superblock.suspects = doubtful;
            }
            if !superblock.suspects.is_empty() {
                tracing::warn!(
                    logs = superblock.suspects.len(),
                    "logs may have lost unflushed records: they are not trusted until a leader has restored them"
                );
            }
            // What the last run left in the page cache stays there until its log is opened.
            let unflushed = last.is_some_and(|run| run.asynchronous && !run.clean);
            let asynchronous = asynchronous || unflushed;
            let boot = boot.filter(|_| asynchronous);
            superblock.run = Some(Run { boot, clean: false, asynchronous });
            // The generation stays: else starts that no member lets in would make an older copy the newest.
            if Mutant::EveryStartRaises.is_active() {
                superblock.generation = superblock.generation.saturating_add(1);
            }
            Ok(())
        })
    }

    /// How new this data is.
    pub(crate) fn generation(&self) -> u64 {
        self.superblock().generation
    }

    /// Begins a new generation if it `is_raised`, and notes the newest data of others. Durable on return.
    pub(crate) fn note_generations(
        &self,
        is_raised: bool,
        newest: BTreeMap<ReplicaId, Newest>,
    ) -> Result<(), StorageError> {
        self.update(|superblock| {
            let is_raised = is_raised && !Mutant::GenerationNotRaised.is_active();
            superblock.generation = superblock.generation.saturating_add(u64::from(is_raised));
            if !Mutant::NewestForgotten.is_active() {
                superblock.newest = newest;
            }
            Ok(())
        })
    }

    /// The newest data of others that this node has noted.
    pub(crate) fn newest(&self) -> BTreeMap<ReplicaId, Newest> {
        self.superblock().newest.clone()
    }

    /// True if another member has heard of newer data of this node.
    pub(crate) fn is_outdated(&self) -> bool {
        self.superblock().outdated && !Mutant::OutdatedForgotten.is_active()
    }

    /// Notes that another member has heard of newer data of this node: its restarts must not make up for that. Durable on
    /// return.
    pub(crate) fn set_outdated(&self) -> Result<(), StorageError> {
        self.update(|superblock| {
            superblock.outdated = true;
            Ok(())
        })
    }

    /// Nothing is acknowledged without a flush from now on: once all logs are open, which made them durable, a power cut
    /// loses nothing. Durable on return.
    pub(crate) fn flushes_always(&self) -> Result<(), StorageError> {
        if !self.has_opened_all() {
            return Ok(());
        }
        self.update(|superblock| {
            if superblock.run.is_none_or(|run| run.asynchronous) {
                superblock.run = Some(Run::default());
            }
            Ok(())
        })
    }

    /// Ends a run, after all logs were closed without an error. Durable on return.
    pub(crate) fn end_run(&self) -> Result<(), StorageError> {
        // One that was not opened may have something in the page cache that an earlier run left there.
        if !self.has_opened_all() {
            return Ok(());
        }
        self.update(|superblock| {
            if let Some(run) = superblock.run.as_mut().filter(|run| run.asynchronous) {
                run.clean = true;
            }
            Ok(())
        })
    }

    fn has_opened_all(&self) -> bool {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        self.superblock().logs.is_subset(&opened)
    }

    /// True if this run may acknowledge what a log has not flushed, or the last one may have and the log was not opened since.
    pub(crate) fn acknowledges_unflushed(&self, log: LogId) -> bool {
        // The system log always flushes.
        log != LogId::SYSTEM && self.superblock().run.is_none_or(|run| run.asynchronous)
    }

    /// True if a log may have lost what it had acknowledged.
    pub(crate) fn is_suspect(&self, log: LogId) -> bool {
        self.superblock().suspects.contains(&log.0)
    }

    /// Notes that a log may have lost what it had acknowledged. Durable on return.
    pub(crate) fn suspect(&self, log: LogId) -> Result<(), StorageError> {
        self.update(|superblock| {
            *self.suspicions().entry(log.0).or_default() += 1;
            superblock.suspects.insert(log.0);
            Ok(())
        })
    }

    /// What `trust` needs. Ask before it is found out that the log is whole.
    pub(crate) fn suspicion(&self, log: LogId) -> Suspicion {
        Suspicion(self.suspicions().get(&log.0).copied().unwrap_or(0))
    }

    /// Notes that a log is whole again, unless it came under suspicion since `as_of`. False if it has. Durable on return.
    pub(crate) fn trust(&self, log: LogId, as_of: Suspicion) -> Result<bool, StorageError> {
        if Mutant::TrustNotStored.is_active() {
            return Ok(true);
        }
        let mut trusted = true;
        self.update(|superblock| {
            trusted = self.suspicion(log) == as_of || Mutant::NewerSuspicionForgotten.is_active();
            if trusted {
                superblock.suspects.remove(&log.0);
            }
            Ok(())
        })?;
        Ok(trusted)
    }

    fn suspicions(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.suspicions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The logs whose directories are there, listed or not.
    pub(crate) fn logs_on_disk(&self) -> Result<Vec<LogId>, StorageError> {
        let logs = self.path.join(LOGS_NAME);
        let names =
            self.disk.list(&logs).map_err(|error| StorageError::io("list", &logs, error))?;
        Ok(names.iter().filter_map(|entry| log_of(&entry.name)).collect())
    }

    /// The newest time that a sealed segment of any log is stamped with; none if there is none. Blocks on the disk.
    pub(crate) fn newest_stamp_ms(&self) -> Option<u64> {
        let logs = self.superblock().logs.clone();
        let stamps = logs.into_iter().filter_map(|log| {
            // What cannot be read fails the open of its log, which tells why.
            let manifest = read_manifest(&*self.disk, &self.log_dir(LogId(log)), log).ok()?;
            manifest.sealed.iter().map(|sealed| sealed.newest_ms).max()
        });
        stamps.max()
    }

    /// Removes the files of a log that is not open and was forgotten. Blocks on the disk.
    pub(crate) fn remove_files(&self, log: LogId) -> Result<(), StorageError> {
        remove_log_dir(&*self.disk, &self.log_dir(log))
    }

    fn update(
        &self,
        change: impl FnOnce(&mut Superblock) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let _alone = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.superblock().clone();
        let mut changed = held.clone();
        change(&mut changed)?;
        if held != changed {
            write_superblock(&*self.disk, &self.path, &changed)?;
            *self.superblock() = changed;
        }
        Ok(())
    }

    fn superblock(&self) -> MutexGuard<'_, Superblock> {
        self.superblock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a log lies in a data directory.
pub(in crate::log) fn log_dir(data_dir: &Path, log: LogId) -> PathBuf {
    data_dir.join(LOGS_NAME).join(format!("{:016x}", log.0))
}

/// The log that a directory name gives.
pub(in crate::log) fn log_of(name: &str) -> Option<LogId> {
    if name.len() != 16 { None } else { u64::from_str_radix(name, 16).ok().map(LogId) }
}

/// The superblock; none if the file is not there.
pub(in crate::log) fn read_superblock(
    disk: &dyn Disk,
    data_dir: &Path,
) -> Result<Option<Superblock>, StorageError> {
    let path = data_dir.join(SUPERBLOCK_NAME);
    let bytes = atomic_file::read(disk, &path, SUPERBLOCK_LEN_MAX)?;
    bytes.map(|bytes| Superblock::decode(&bytes).map_err(|error| error.at(&path, 0))).transpose()
}

pub(in crate::log) fn write_superblock(
    disk: &dyn Disk,
    data_dir: &Path,
    superblock: &Superblock,
) -> Result<(), StorageError> {
    let path = data_dir.join(SUPERBLOCK_NAME);
    let bytes = superblock.encode().map_err(|error| error.at(&path, 0))?;
    Ok(atomic_file::replace(disk, &path, &[&bytes])?)
}

/// Makes the superblock of a new data directory.
fn found(
    disk: &dyn Disk,
    clock: &dyn Clock,
    path: &Path,
    node_id: u64,
) -> Result<Superblock, StorageError> {
    let failed = |op| move |error| StorageError::io(op, path, error);
    let logs = path.join(LOGS_NAME);
    let names = disk.list(path).map_err(failed("list"))?;
    if names.iter().any(|entry| entry.name == LOGS_NAME)
        && !disk.list(&logs).map_err(failed("list"))?.is_empty()
    {
        let detail = "there are logs, so it was not new".to_owned();
        return Err(StorageError::Missing { path: path.join(SUPERBLOCK_NAME), detail });
    }
    make_dirs(disk, &logs)?;
    let superblock = Superblock {
        node_id,
        incarnation: clock.random().map_err(failed("draw a number for"))?.max(1),
        cluster: 0,
        logs: Default::default(),
        run: Some(Run::default()),
        suspects: Default::default(),
        generation: 0,
        outdated: false,
        newest: Default::default(),
    };
    write_superblock(disk, path, &superblock)?;
    Ok(superblock)
}

fn check_logs(disk: &dyn Disk, path: &Path, superblock: &Superblock) -> Result<(), StorageError> {
    let logs = path.join(LOGS_NAME);
    let names = match disk.list(&logs) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound && superblock.logs.is_empty() => {
            return make_dirs(disk, &logs);
        }
        Err(error) => return Err(StorageError::io("list", &logs, error)),
    };
    let here: Vec<LogId> = names.iter().filter_map(|entry| log_of(&entry.name)).collect();
    match superblock.logs.iter().find(|&&log| !here.contains(&LogId(log))) {
        Some(&log) => {
            let detail = "the superblock lists this log".to_owned();
            Err(StorageError::Missing { path: log_dir(path, LogId(log)), detail })
        }
        None => Ok(()),
    }
}

/// Makes a directory and those above it, if they are absent. All of them are durable on return, whoever made
/// them: it may have died before it had synced them.
pub(in crate::log) fn make_dirs(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    let failed = |error| StorageError::io("make", dir, error);
    match disk.mkdir(dir) {
        Ok(()) => sync_above(disk, dir, true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => sync_above(disk, dir, false),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let Some(parent) = dir.parent() else { return Err(failed(error)) };
            make_dirs(disk, parent)?;
            disk.mkdir(dir).map_err(failed)?;
            atomic_file::sync_parent(disk, dir)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Makes the names durable that lead to a directory, `made` by this process or found.
fn sync_above(disk: &dyn Disk, dir: &Path, made: bool) -> Result<(), StorageError> {
    for (above, below) in dir.ancestors().skip(1).zip(dir.ancestors()) {
        match atomic_file::sync_parent(disk, below) {
            // Where a process may not look it has made nothing either, as far as it can tell.
            Err(StorageError::Io { source, .. })
                if source.kind() == ErrorKind::PermissionDenied && !(made && below == dir) =>
            {
                tracing::debug!(dir = %above.display(), "not synced: it may not be opened");
            }
            result => result?,
        }
    }
    Ok(())
}

/// Removes the directory of a log. After a crash it is there as it was, or is no log any more.
pub(in crate::log) fn remove_log_dir(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    let mut gone = dir.as_os_str().to_owned();
    gone.push(GONE_SUFFIX);
    let gone = PathBuf::from(gone);
    disk.rename(dir, &gone).map_err(|error| StorageError::io("remove", dir, error))?;
    atomic_file::sync_parent(disk, dir)?;
    remove_all(disk, &gone)
}

fn remove_leftovers(disk: &dyn Disk, logs: &Path) -> Result<(), StorageError> {
    let names = disk.list(logs).map_err(|error| StorageError::io("list", logs, error))?;
    for entry in names {
        if entry.is_dir && [NEW_SUFFIX, GONE_SUFFIX].iter().any(|end| entry.name.ends_with(end)) {
            remove_all(disk, &logs.join(entry.name))?;
        }
    }
    Ok(())
}
