//! A data directory in use: runs a script against it, and tells the model what was acknowledged.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use quorumlog::simulation::{
    Image, SimDisk, StoredChange, StoredDir, StoredEntry, StoredId, StoredKind, StoredLog,
    Submitted,
};
use quorumlog::{LogId, StorageError};

use super::model::{Holding, Life, LogModel, Model};
use super::script::{LONG, Script, Step, append, record, state, vote};

/// The data directory.
pub(crate) const DATA: &str = "/data";
pub(crate) const NODE: u64 = 3;
/// A full disk is tried again by then.
const RETRIED: Duration = Duration::from_millis(250);
/// How often a log that waits for space is given time.
const PATIENCE: usize = 3;

/// Why a script stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A call failed, as calls may.
    Failed,
    /// Something happened that must not.
    Wrong(String),
}

impl From<StorageError> for Stop {
    fn from(_: StorageError) -> Self {
        Self::Failed
    }
}

struct Open {
    log: StoredLog,
    /// Submitted and not answered, oldest first.
    pending: Vec<Submitted>,
}

/// See the module.
pub(crate) struct Host<'a> {
    script: &'a Script,
    disk: SimDisk,
    dir: Option<StoredDir>,
    logs: BTreeMap<u64, Open>,
    pub(crate) model: Model,
}

impl<'a> Host<'a> {
    pub(crate) fn new(disk: &SimDisk, script: &'a Script) -> Self {
        Self {
            script,
            disk: disk.clone(),
            dir: None,
            logs: BTreeMap::new(),
            model: Model::default(),
        }
    }

    /// Runs the script, up to the first call that fails.
    pub(crate) fn run(&mut self) -> Result<(), Stop> {
        self.open_dir()?;
        for step in &self.script.steps {
            self.step(step)?;
        }
        self.close()
    }

    /// True if a log failed, and takes nothing any more.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.logs.values().any(|open| open.log.failure().is_some())
    }

    /// After a failure: nothing more is acknowledged or written by a log that failed.
    pub(crate) fn check_poisoned(&mut self) -> Result<(), String> {
        for open in self.logs.values_mut() {
            let Some(failure) = open.log.failure() else { continue };
            let before = self.disk.changes();
            let next = open.log.last_id().map_or(0, |last| last.index + 1);
            for change in [append(vec![record(u64::MAX, next, 9)]), vote(u64::MAX, false)] {
                if !matches!(open.log.apply(change.clone()), Some(Err(_))) {
                    return Err(format!("I10: {change:?} was acknowledged after: {failure}"));
                }
            }
            if self.disk.changes() != before {
                return Err(format!("I10: something was written after: {failure}"));
            }
        }
        Ok(())
    }

    fn open_dir(&mut self) -> Result<(), Stop> {
        let dir = StoredDir::open(self.disk.shared(), &self.disk, Path::new(DATA), NODE)?;
        let incarnation = *self.model.dir.incarnation.get_or_insert(dir.incarnation());
        self.dir = Some(dir);
        for log in self.model.logs.keys().copied().collect::<Vec<_>>() {
            self.open_log(log)?;
        }
        match self.dir.as_ref().map(StoredDir::incarnation) {
            Some(now) if now != incarnation => Err(Stop::Wrong("another incarnation".to_owned())),
            _ => Ok(()),
        }
    }

    fn open_log(&mut self, number: u64) -> Result<(), Stop> {
        let dir = self.dir()?.log_dir(LogId(number));
        let options = self.script.options(number);
        let log = StoredLog::open(self.disk.shared(), self.disk.clock(), &dir, &options)?;
        self.logs.insert(number, Open { log, pending: Vec::new() });
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Make(number) => {
                let model = LogModel::new(self.script.flush);
                self.model.logs.insert(*number, model);
                self.open_log(*number)?;
                self.dir()?.add_log(LogId(*number))?;
                self.model(*number)?.life = Life::Listed;
            }
            Step::Apply(number, change) => {
                self.submit(*number, change)?;
                self.settle()?;
            }
            Step::Submit(number, change) => self.submit(*number, change)?,
            Step::Settle => self.settle()?,
            Step::Commit(number, id) => {
                self.log(*number)?.log.set_committed(*id);
                let told = &mut self.model(*number)?.told;
                *told = (*told).max(Some(*id));
            }
            Step::Checkpoint(number, id, len) => self.checkpoint(*number, *id, *len, None)?,
            Step::Received(number, id, len, piece) => {
                self.checkpoint(*number, *id, *len, Some(*piece))?;
            }
            Step::Idle(time) => self.pass(*time)?,
            Step::Restart => {
                self.close()?;
                self.open_dir()?;
            }
            Step::Destroy(number) => self.destroy(*number)?,
            Step::Cluster(cluster) => {
                self.model.dir.cluster.1 = *cluster;
                self.dir()?.set_cluster(*cluster)?;
                self.model.dir.cluster.0 = *cluster;
            }
        }
        Ok(())
    }

    fn submit(&mut self, number: u64, change: &StoredChange) -> Result<(), Stop> {
        self.model(number)?.submit(change);
        let open = self.log(number)?;
        let submitted = open.log.submit(change.clone());
        open.pending.push(submitted);
        Ok(())
    }

    /// Lets all writers run, and takes the answers.
    fn settle(&mut self) -> Result<(), Stop> {
        let mut patience = 0;
        loop {
            for open in self.logs.values_mut() {
                open.log.settle();
            }
            self.answers()?;
            if self.logs.values().all(|open| open.pending.is_empty()) {
                return self.check_live(|_| true);
            }
            let stalled = self.logs.values().any(|open| open.log.is_stalled());
            if self.disk.is_dead() || !stalled || patience > PATIENCE {
                let why = "a change was neither done nor refused";
                return Err(if self.disk.is_dead() { Stop::Failed } else { wrong(why) });
            }
            // The disk is full; at some point it is not any more.
            patience += 1;
            if patience == PATIENCE {
                self.disk.clear_rules();
            }
            for open in self.logs.values_mut() {
                open.log.pass(RETRIED);
            }
        }
    }

    /// What is read is what was written, whatever lies in memory and whatever on the disk.
    fn check_live(&self, of: impl Fn(&Open) -> bool) -> Result<(), Stop> {
        for (number, open) in self.logs.iter().filter(|(_, open)| of(open)) {
            // A closed log is not read any more, and a read may fail.
            let Ok(found) = holding(&open.log) else { continue };
            let must = self.model.logs.get(number).map(LogModel::newest);
            if must.is_some_and(|must| *must != found) {
                return Err(Stop::Wrong(format!("in use it holds {found:?}\nnot {must:?}")));
            }
        }
        Ok(())
    }

    fn answers(&mut self) -> Result<(), Stop> {
        let mut failed = false;
        for (number, open) in &mut self.logs {
            let model = self.model.logs.get_mut(number).ok_or_else(|| wrong("no such log"))?;
            let mut open_ended = false;
            let mut late = false;
            open.pending.retain_mut(|submitted| match submitted.result() {
                Some(result) => {
                    late |= open_ended;
                    // Behind a failure nothing is acknowledged.
                    late |= result.is_ok() && failed;
                    failed |= result.is_err();
                    if result.is_ok() {
                        model.acknowledge();
                    }
                    false
                }
                None => {
                    open_ended = true;
                    true
                }
            });
            if late {
                return Err(wrong("I6: answers came out of order"));
            }
            if failed {
                return Err(Stop::Failed);
            }
        }
        Ok(())
    }

    fn checkpoint(
        &mut self,
        number: u64,
        id: StoredId,
        len: usize,
        piece: Option<usize>,
    ) -> Result<(), Stop> {
        let bytes = state(id, len);
        let held = self.model(number)?.checkpoints.entry(id);
        held.or_insert((bytes.clone().into(), false));
        let log = &mut self.log(number)?.log;
        match piece {
            Some(piece) => log.receive_checkpoint(id, &bytes, piece)?,
            None => log.save_checkpoint(id, &bytes)?,
        }
        if let Some((_, acknowledged)) = self.model(number)?.checkpoints.get_mut(&id) {
            *acknowledged = true;
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> Result<(), Stop> {
        for (number, open) in &mut self.logs {
            open.log.pass(time);
            if open.log.failure().is_some() {
                return Err(Stop::Failed);
            }
            let quiet = open.pending.is_empty() && !self.disk.is_dead();
            let long = time >= self.script.options(*number).flush_interval;
            if let Some(model) = self.model.logs.get_mut(number).filter(|_| quiet && long) {
                model.flushed();
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Stop> {
        for number in self.logs.keys().copied().collect::<Vec<_>>() {
            self.submit(number, &StoredChange::Close)?;
        }
        self.settle()?;
        self.logs.clear();
        self.dir = None;
        Ok(())
    }

    fn destroy(&mut self, number: u64) -> Result<(), Stop> {
        self.model(number)?.life = Life::Maybe;
        self.dir()?.remove_log(LogId(number))?;
        self.model(number)?.life = Life::Forgotten;
        self.submit(number, &StoredChange::Destroy)?;
        self.settle()?;
        self.logs.remove(&number);
        self.model.logs.remove(&number);
        Ok(())
    }

    fn dir(&self) -> Result<&StoredDir, Stop> {
        self.dir.as_ref().ok_or_else(|| wrong("the directory is not open"))
    }

    fn log(&mut self, number: u64) -> Result<&mut Open, Stop> {
        self.logs.get_mut(&number).ok_or_else(|| wrong("the script names no such log"))
    }

    fn model(&mut self, number: u64) -> Result<&mut LogModel, Stop> {
        self.model.logs.get_mut(&number).ok_or_else(|| wrong("the script names no such log"))
    }
}

fn wrong(why: &str) -> Stop {
    Stop::Wrong(why.to_owned())
}

/// What is found when a data directory is opened.
pub(crate) struct Recovered {
    pub(crate) dir: StoredDir,
    pub(crate) logs: BTreeMap<u64, StoredLog>,
}

impl Recovered {
    /// Opens everything, as a node does at its start.
    pub(crate) fn open(
        disk: &SimDisk,
        script: &Script,
        model: &Model,
    ) -> Result<Self, StorageError> {
        let dir = StoredDir::open(disk.shared(), disk, Path::new(DATA), NODE)?;
        let mut logs = BTreeMap::new();
        for log in dir.logs_on_disk()? {
            let unlisted = !dir.logs().contains(&log);
            let life = model.logs.get(&log.0).map(|log| log.life);
            if unlisted && matches!(life, None | Some(Life::Forgotten)) {
                dir.remove_files(log)?;
                continue;
            }
            let options = script.options(log.0);
            let opened = StoredLog::open(disk.shared(), disk.clock(), &dir.log_dir(log), &options)?;
            logs.insert(log.0, opened);
        }
        Ok(Self { dir, logs })
    }

    /// What the logs hold.
    pub(crate) fn holdings(&self) -> Result<BTreeMap<u64, Holding>, StorageError> {
        self.logs.iter().map(|(number, log)| Ok((*number, holding(log)?))).collect()
    }

    /// Uses the logs: more entries, a higher vote, time. Where appends were lost, others of the same shape
    /// come first, so that what a torn tail leaves behind them would fit. Gives what the logs hold then.
    pub(crate) fn go_on(&mut self, model: &Model) -> Result<BTreeMap<u64, Holding>, String> {
        for (number, log) in &mut self.logs {
            let end = log.watermarks().end;
            let lost = model.logs.get(number).map(|model| model.appends_from(end));
            let last = log.last_id().unwrap_or_default();
            let term = last.term.max(log.vote().map_or(0, |vote| vote.term)) + 1;
            let mut changes = vec![vote(term, false)];
            // One of them suffices to meet what lies behind.
            for lost in lost.unwrap_or_default().into_iter().take(1) {
                let other = |entry: &StoredEntry| StoredEntry {
                    id: StoredId { term: last.term, ..entry.id },
                    kind: StoredKind::Record,
                    sync: true,
                    payload: vec![b'#'; entry.payload.len()].into(),
                    ..entry.clone()
                };
                changes.push(append(lost.iter().map(other).collect()));
            }
            for change in changes {
                apply(log, change)?;
            }
        }
        self.holdings().map_err(|error| format!("it cannot be read: {error}"))
    }

    /// Uses the logs some more, and lets time pass.
    pub(crate) fn go_further(&mut self) -> Result<BTreeMap<u64, Holding>, String> {
        for log in self.logs.values_mut() {
            let term = log.vote().map_or(0, |vote| vote.term);
            let first = log.watermarks().end;
            apply(log, append((first..first + 3).map(|at| record(term, at, 500)).collect()))?;
            log.pass(LONG);
        }
        self.holdings().map_err(|error| format!("it cannot be read: {error}"))
    }
}

fn apply(log: &mut StoredLog, change: StoredChange) -> Result<(), String> {
    match log.apply(change) {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(format!("it cannot go on: {error}")),
        None => Err("it does not go on".to_owned()),
    }
}

/// What a log holds behind its boundary.
pub(crate) fn holding(log: &StoredLog) -> Result<Holding, StorageError> {
    let boundary = log.boundary();
    let begin = boundary.map_or(0, |boundary| boundary.index + 1);
    Ok(Holding {
        entries: log.read(begin, u64::MAX, usize::MAX)?,
        boundary,
        members: log.members_at(u64::MAX),
        vote: log.vote(),
    })
}

/// An error and its causes.
pub(crate) fn text(error: &StorageError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// The bytes of a file; none if it is not there.
pub(crate) fn bytes_of(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let contents = disk.contents();
    contents.get(path).and_then(Option::as_ref).map_or_else(Vec::new, Image::to_vec)
}
