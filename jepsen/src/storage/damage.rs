//! Opens a damaged sample, and judges what is found.

use std::path::{Path, PathBuf};

use quorumlog::offline::Severity;
use quorumlog::simulation::{
    Contents, CrashPolicy, SimDisk, StoredDir, StoredEntry, StoredLog, verify,
};
use quorumlog::{Flush, LogId, StorageError};

use super::host::{DATA, NODE, holding, text};
use super::layout::{Expect, HEADER_BLOCK, Layout};
use super::model::Holding;
use super::sample::{LOG, OTHER, Sample, Segment, options};
use super::script::{append, record};
use super::tally::Outcome;

/// How closely a point is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Reads each entry alone, too.
    pub(crate) each_entry: bool,
    /// Verifies without a node, too.
    pub(crate) offline: bool,
    /// Uses the log, and opens it once more.
    pub(crate) go_on: bool,
    /// The damage is what a power cut may do: where nothing that was flushed is hit, the log opens.
    pub(crate) is_torn: bool,
    /// A log that is shorter or older is no fault, if nothing is left that says so.
    pub(crate) unwitnessed: bool,
    /// As above, and it was a file as a whole that became older: all that was acknowledged once will do.
    pub(crate) rolled_back: bool,
}

impl Look {
    pub(crate) const PLAIN: Self = Self {
        each_entry: false,
        offline: false,
        go_on: false,
        is_torn: false,
        unwitnessed: false,
        rolled_back: false,
    };
}

/// What was found of a damaged sample.
struct Judge<'a> {
    sample: &'a Sample,
    disk: &'a SimDisk,
    look: Look,
    detected: bool,
    shorter: bool,
}

/// Opens what `disk` holds: the sample, with something else in `damaged`.
pub(crate) fn outcome(sample: &Sample, disk: &SimDisk, damaged: &[PathBuf], look: Look) -> Outcome {
    let mut judge = Judge { sample, disk, look, detected: false, shorter: false };
    match judge.all() {
        Err(why) => Outcome::Wrong(why),
        Ok(()) if judge.detected => Outcome::Detected,
        Ok(()) if judge.shorter && look.unwitnessed => Outcome::Unwitnessed,
        Ok(()) if judge.shorter => Outcome::Wrong("something is gone without a word".to_owned()),
        Ok(()) => {
            let now = disk.contents();
            let was = sample.disk.contents();
            let same = |path: &PathBuf| now.get(path) == was.get(path);
            if damaged.iter().all(same) { Outcome::Repaired } else { Outcome::Harmless }
        }
    }
}

impl Judge<'_> {
    fn all(&mut self) -> Result<(), String> {
        let (other, layout) = &self.sample.other;
        let expect =
            [self.expect(self.sample.active(), &self.sample.layout), self.expect(other, layout)];
        let unsound = if self.look.offline { Some(self.verify_offline()?) } else { None };
        self.open_all(expect)?;
        if self.detected && unsound == Some(false) {
            return Err("a start finds damage, and verify does not".to_owned());
        }
        Ok(())
    }

    /// What the second implementation makes of an active segment.
    fn expect(&self, active: &Segment, layout: &Layout) -> Option<Expect> {
        let image = self.disk.durable_file(&active.path)?;
        let now = image.to_vec();
        let was = &active.bytes;
        let differs = |range: std::ops::Range<usize>| now.get(range.clone()) != was.get(range);
        Some(layout.expect(now.len(), differs))
    }

    fn verify_offline(&self) -> Result<bool, String> {
        let before = self.disk.contents();
        let found = verify(self.disk, Path::new(DATA));
        if self.disk.contents() != before {
            return Err("verify has changed something".to_owned());
        }
        Ok(found.map_or(true, |found| {
            found.findings.iter().any(|finding| finding.severity == Severity::Damage)
        }))
    }

    fn open_all(&mut self, expect: [Option<Expect>; 2]) -> Result<(), String> {
        let before = self.disk.contents();
        let dir = match StoredDir::open(self.disk.shared(), self.disk, Path::new(DATA), NODE) {
            Ok(dir) => dir,
            Err(error) => return self.detect(&error, Path::new(DATA), &before),
        };
        let facts = (dir.incarnation(), dir.cluster());
        if facts != (self.sample.incarnation, 77) {
            self.shorter = self.look.rolled_back;
            if !self.shorter {
                return Err(format!("the superblock says {facts:?}"));
            }
        }
        for (number, expect) in [LOG, OTHER].into_iter().zip(expect) {
            let at = dir.log_dir(LogId(number));
            let options = options(number, Flush::Sync, 1 << 20);
            match StoredLog::open(self.disk.shared(), self.disk.clock(), &at, &options) {
                Ok(log) => self.log(number, log, &at, expect)?,
                // A torn tail is no reason to refuse a start.
                Err(error) if self.look.is_torn && self.is_torn(number, expect) => {
                    return Err(format!("taken for damage of what was flushed: {}", text(&error)));
                }
                Err(error) => self.detect(&error, &at, &before)?,
            }
        }
        Ok(())
    }

    /// True if nothing is damaged but an active segment, where no group that was flushed is known to be.
    fn is_torn(&self, number: u64, expect: Option<Expect>) -> bool {
        let (other, _) = &self.sample.other;
        let active = if number == LOG { self.sample.active() } else { other };
        let block = |bytes: &[u8]| bytes.get(..HEADER_BLOCK).map(<[u8]>::to_vec);
        let now = self.disk.durable_file(&active.path).map(|image| image.to_vec());
        matches!(expect, Some(Expect::Entries(_)))
            && now.is_some_and(|now| block(&now) == block(&active.bytes))
    }

    /// An open that fails says why, and has changed nothing below `dir`.
    fn detect(
        &mut self,
        error: &StorageError,
        dir: &Path,
        before: &Contents,
    ) -> Result<(), String> {
        self.named(error)?;
        let after = self.disk.contents();
        let inside =
            |(path, _): &(&PathBuf, &Option<_>)| path.starts_with(dir) && !path.ends_with("LOCK");
        if !before.iter().filter(inside).eq(after.iter().filter(inside)) {
            return Err(format!("changed by an open that failed: {}", text(error)));
        }
        Ok(())
    }

    fn named(&mut self, error: &StorageError) -> Result<(), String> {
        self.detected = true;
        match error {
            StorageError::Corrupt { .. }
            | StorageError::Missing { .. }
            | StorageError::Version { .. }
            | StorageError::Foreign { .. } => Ok(()),
            other => Err(format!("damage is taken for something else: {}", text(other))),
        }
    }

    fn log(
        &mut self,
        number: u64,
        mut log: StoredLog,
        dir: &Path,
        expect: Option<Expect>,
    ) -> Result<(), String> {
        let was = &self.sample.logs[&number];
        self.facts(&log, was)?;
        if number == LOG {
            self.checkpoints(&log)?;
            for segment in 0..self.sample.segments.len() {
                self.segment(&log, segment, expect)?;
            }
        } else {
            let all = &was.entries;
            let must = self.must(all, expect)?;
            match log.read(0, u64::MAX, usize::MAX) {
                Ok(found) if found == must => self.shorter |= must.len() < all.len(),
                Ok(found) => self.older(&found)?,
                Err(error) => self.named(&error)?,
            }
        }
        if self.look.go_on {
            self.use_it(&mut log, dir)?;
        }
        Ok(())
    }

    fn facts(&mut self, log: &StoredLog, was: &Holding) -> Result<(), String> {
        if (log.vote(), log.boundary()) != (was.vote, was.boundary) {
            let once = log.vote().is_none_or(|vote| self.sample.votes.contains(&vote));
            if !self.look.rolled_back || !once {
                return Err(format!("vote {:?}, boundary {:?}", log.vote(), log.boundary()));
            }
            self.shorter = true;
        }
        let marks = log.watermarks();
        let end = log.committed().map_or(0, |id| id.index + 1);
        if end > marks.end { Err(format!("committed up to {end} of {marks:?}")) } else { Ok(()) }
    }

    /// Each is as it was, passed over at the start, or refused when it is loaded.
    fn checkpoints(&mut self, log: &StoredLog) -> Result<(), String> {
        let held = log.checkpoints();
        for (id, state) in &self.sample.checkpoints {
            if !held.contains(id) {
                // Without its file nothing tells of one that the boundary does not need, and a log that lost its
                // entry gives it up.
                let name = format!("logs/{LOG:016x}/{:020}.ckpt", id.index);
                let is_there = self.disk.durable_file(&Path::new(DATA).join(name)).is_some();
                let is_found = is_there && id.index < log.watermarks().end;
                self.detected |= is_found;
                self.shorter |= !is_found;
                continue;
            }
            match log.load_checkpoint(*id) {
                Ok(found) if found == *state => {}
                Ok(_) => return Err(format!("checkpoint {id:?} holds another state")),
                Err(error) => self.named(&error)?,
            }
        }
        match held.iter().find(|id| !self.sample.checkpoints.iter().any(|(of, _)| of == *id)) {
            Some(id) => Err(format!("checkpoint {id:?} was never taken")),
            None => Ok(()),
        }
    }

    /// What a reader must get from a segment that could be opened.
    fn must<'e>(
        &self,
        all: &'e [StoredEntry],
        expect: Option<Expect>,
    ) -> Result<&'e [StoredEntry], String> {
        match expect.filter(|_| !self.look.rolled_back) {
            Some(Expect::Error) => Err("it opens, and flushed bytes are damaged".to_owned()),
            Some(Expect::Entries(count)) => Ok(&all[..count]),
            None => Ok(all),
        }
    }

    /// Damage of one segment does not take another.
    fn segment(
        &mut self,
        log: &StoredLog,
        number: usize,
        expect: Option<Expect>,
    ) -> Result<(), String> {
        let segment = &self.sample.segments[number];
        let is_active = number + 1 == self.sample.segments.len();
        let first = self.sample.entries[0].id.index;
        let all =
            &self.sample.entries[(segment.base - first) as usize..(segment.end - first) as usize];
        let must = self.must(all, expect.filter(|_| is_active))?;
        if is_active && must.len() < self.sample.flushed {
            return Err("the damage was to be where nothing was flushed".to_owned());
        }
        match log.read(segment.base, segment.end, usize::MAX) {
            Ok(found) if found == must => self.shorter |= must.len() < all.len(),
            Ok(found) => self.older(&found)?,
            Err(error) => self.named(&error)?,
        }
        if !self.look.each_entry {
            return Ok(());
        }
        for entry in must {
            match log.read(entry.id.index, entry.id.index + 1, usize::MAX) {
                Ok(found) if found == std::slice::from_ref(entry) => {}
                Ok(found) => self.older(&found)?,
                Err(error) => self.named(&error)?,
            }
        }
        Ok(())
    }

    /// Other entries than there were: fine only for a file that became older as a whole, if they are of that time.
    fn older(&mut self, found: &[StoredEntry]) -> Result<(), String> {
        let known = |entry: &StoredEntry| self.sample.ever.contains(entry);
        if self.look.rolled_back && found.iter().all(known) {
            self.shorter = true;
            return Ok(());
        }
        let ids: Vec<_> = found.iter().map(|e| format!("{}.{}", e.id.term, e.id.index)).collect();
        Err(format!("wrong entries: {}", ids.join(" ")))
    }

    fn use_it(&self, log: &mut StoredLog, dir: &Path) -> Result<(), String> {
        let Ok(before) = holding(log) else { return Ok(()) };
        let first = log.watermarks().end;
        let entries: Vec<_> = (first..first + 3).map(|index| record(99, index, 300)).collect();
        let done = log.apply(append(entries.clone()));
        if !matches!(done, Some(Ok(()))) {
            return Err(format!("it cannot go on: {done:?}"));
        }
        let number = if dir.ends_with(format!("{LOG:016x}")) { LOG } else { OTHER };
        let disk = self.disk.after_crash(&CrashPolicy::LoseAll);
        let options = options(number, Flush::Sync, 1 << 20);
        let again = StoredLog::open(disk.shared(), disk.clock(), dir, &options)
            .map_err(|error| format!("no second start: {}", text(&error)))?;
        let found = holding(&again).map_err(|error| text(&error))?;
        if found.entries != [before.entries, entries].concat() {
            return Err(format!("after more appends and a crash: {found:?}"));
        }
        Ok(())
    }
}
