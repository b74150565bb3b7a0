//! A data directory with one of everything, closed properly, to be damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorumlog::simulation::{
    CrashPolicy, SimDisk, StoredChange, StoredDir, StoredEntry, StoredId, StoredLog,
    StoredLogOptions, StoredVote, inspect,
};
use quorumlog::{Flush, LogId};

use super::host::{DATA, NODE, bytes_of};
use super::layout::Layout;
use super::model::Holding;
use super::script::{append, cut, id, members, purge, record, records, state, vote};

/// The log with one of everything, and another one.
pub(crate) const LOG: u64 = 7;
pub(crate) const OTHER: u64 = 8;
/// Size of the sealed segments.
const SMALL: u64 = 12 << 10;
/// Size of the active segment: room for 65,536 places to cut at.
const LARGE: u64 = 72 << 10;
/// Bytes of groups in the active segment.
const FILLED: usize = 66_000;

/// A segment of the sample.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    /// Index of its first entry.
    pub(crate) base: u64,
    /// One past its last entry.
    pub(crate) end: u64,
    pub(crate) bytes: Vec<u8>,
    /// What lay in a dropped segment with the same entries of an earlier term, each in the same place.
    pub(crate) stale: Vec<u8>,
}

/// The sample. What lies in it is never changed; each point takes a copy.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) disk: SimDisk,
    pub(crate) logs: BTreeMap<u64, Holding>,
    /// Entries of the log that lie in segments, those at and below the boundary included.
    pub(crate) entries: Vec<StoredEntry>,
    /// Of the log; the last one is active.
    pub(crate) segments: Vec<Segment>,
    /// Of its active segment.
    pub(crate) layout: Layout,
    /// The only segment of the other log.
    pub(crate) other: (Segment, Layout),
    pub(crate) checkpoints: Vec<(StoredId, Vec<u8>)>,
    pub(crate) incarnation: u128,
    /// Earlier states of files that are replaced whole.
    pub(crate) earlier: Vec<(PathBuf, Vec<u8>)>,
    /// Votes and entries that once were acknowledged.
    pub(crate) votes: Vec<StoredVote>,
    pub(crate) ever: Vec<StoredEntry>,
    /// Entries of the active segment that were acknowledged as flushed.
    pub(crate) flushed: usize,
}

pub(crate) fn options(log: u64, flush: Flush, segment_size: u64) -> StoredLogOptions {
    StoredLogOptions {
        log: LogId(log),
        flush,
        flush_interval: Duration::from_secs(3600),
        segment_size,
        tail_cache_max: 0,
    }
}

/// Makes a sample; each step must succeed.
struct Builder {
    disk: SimDisk,
    dir: StoredDir,
    log: StoredLog,
    ever: Vec<StoredEntry>,
    votes: Vec<StoredVote>,
    earlier: Vec<(PathBuf, Vec<u8>)>,
}

impl Sample {
    /// The sample.
    ///
    /// # Panics
    /// If a call fails on a disk without faults.
    pub(crate) fn new() -> Self {
        let mut builder = Builder::new(Flush::Sync, SMALL);
        builder.apply(append(vec![members(1, 0)]));
        // Two full segments, and the beginning of a third.
        let first = builder.fill_segment(1, 1);
        let second = builder.fill_segment(1, first);
        let base = builder.segments()[1].base;
        let mut twins = vec![builder.bytes(1)];
        // The second one again, in another term.
        builder.apply(cut(1, base - 1));
        let next = builder.fill_segment(2, base);
        assert_eq!(next, second, "the same shapes");
        // The third is cut short.
        builder.apply(append(shaped(2, next..next + 9)));
        builder.apply(cut(2, next + 4));
        builder.reopen(LARGE);
        let base = next + 5;
        let end = builder.fill_bytes(3, base);
        twins.push(builder.bytes(3));
        builder.apply(cut(2, base - 1));
        assert_eq!(builder.fill_bytes(4, base), end, "the same shapes");
        let checkpoints = builder.finish(end);
        builder.into_sample(&twins, checkpoints)
    }

    /// A log with much in its active segment that was not flushed, as a crash of its process leaves it.
    pub(crate) fn unflushed() -> Self {
        let mut builder = Builder::new(Flush::Async, LARGE);
        builder.apply(append(vec![members(1, 0)]));
        builder.apply(append(shaped(1, 1..10)));
        builder.apply(StoredChange::Append(vec![StoredEntry { sync: true, ..record(1, 10, 9) }]));
        for index in 11..50 {
            builder.apply(append(records(1, index..index + 1, 130)));
        }
        let mut sample = builder.into_sample(&[], Vec::new());
        sample.flushed = 11;
        sample
    }

    /// A copy of the disk, to be damaged.
    pub(crate) fn copy(&self) -> SimDisk {
        self.disk.after_crash(&CrashPolicy::KeepAll)
    }

    pub(crate) fn active(&self) -> &Segment {
        &self.segments[self.segments.len() - 1]
    }

    /// All files, but the lock.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let contents = self.disk.contents();
        let files = contents.iter().filter(|(_, image)| image.is_some());
        files.map(|(path, _)| path.clone()).filter(|path| !path.ends_with("LOCK")).collect()
    }
}

impl Builder {
    fn new(flush: Flush, segment_size: u64) -> Self {
        let disk = SimDisk::with_seed(5);
        let dir = StoredDir::open(disk.shared(), &disk, Path::new(DATA), NODE).expect("made");
        dir.set_cluster(77).expect("noted");
        let open = |log: u64| {
            let at = dir.log_dir(LogId(log));
            let opened = StoredLog::open(
                disk.shared(),
                disk.clock(),
                &at,
                &options(log, flush, segment_size),
            );
            dir.add_log(LogId(log)).expect("listed");
            opened.expect("made")
        };
        let log = open(LOG);
        let mut other = open(OTHER);
        for change in [vote(2, true), append(records(1, 0..7, 90))] {
            other.apply(change).expect("done").expect("acknowledged");
        }
        other.save_checkpoint(id(1, 5), &state(id(1, 5), 700)).expect("saved");
        other.apply(StoredChange::Close).expect("done").expect("closed");
        let (ever, votes, earlier) = (Vec::new(), Vec::new(), Vec::new());
        let mut builder = Self { disk, dir, log, ever, votes, earlier };
        builder.apply(vote(1, true));
        builder
    }

    fn apply(&mut self, change: StoredChange) {
        match &change {
            StoredChange::Append(entries) => self.ever.extend(entries.iter().cloned()),
            StoredChange::SaveVote(vote) => self.votes.push(*vote),
            _ => {}
        }
        self.log.apply(change).expect("done").expect("acknowledged");
        self.note_files();
    }

    /// Remembers the files that are replaced whole.
    fn note_files(&mut self) {
        let dir = self.dir.log_dir(LogId(LOG));
        let paths = ["MANIFEST", "VOTE"].map(|name| dir.join(name));
        for path in paths.into_iter().chain([Path::new(DATA).join("NODE")]) {
            let bytes = bytes_of(&self.disk, &path);
            if !self.earlier.iter().any(|(of, before)| *of == path && *before == bytes) {
                self.earlier.push((path, bytes));
            }
        }
    }

    fn reopen(&mut self, segment_size: u64) {
        self.apply(StoredChange::Close);
        let at = self.dir.log_dir(LogId(LOG));
        let options = options(LOG, Flush::Sync, segment_size);
        self.log =
            StoredLog::open(self.disk.shared(), self.disk.clock(), &at, &options).expect("opened");
    }

    /// Appends from `first` on until a segment is full. Gives the next index.
    fn fill_segment(&mut self, term: u64, first: u64) -> u64 {
        let (count, mut next) = (self.segments().len(), first);
        while self.segments().len() == count {
            let end = next + [1, 3, 2, 5, 1, 4][(next % 6) as usize];
            self.apply(append(shaped(term, next..end)));
            next = end;
        }
        next
    }

    /// Appends from `first` on until the active segment holds enough. Gives the next index.
    fn fill_bytes(&mut self, term: u64, first: u64) -> u64 {
        let mut next = first;
        loop {
            let end = next + [1, 3, 2, 5, 1, 4][(next % 6) as usize];
            self.apply(append(shaped(term, next..end)));
            next = end;
            let active = self.segments().len() - 1;
            if Layout::of(&self.bytes(active)).end() >= FILLED {
                return next;
            }
        }
    }

    /// What comes when all entries, up to `end`, are there.
    fn finish(&mut self, end: u64) -> Vec<(StoredId, Vec<u8>)> {
        self.apply(vote(4, true));
        self.log.set_committed(id(4, end - 1));
        let mut checkpoints = Vec::new();
        // Each at an entry that the log holds: the second segment is of term 2.
        let middle = self.segments()[1].base + 9;
        for (at, len) in [(id(1, 5), 700), (id(2, middle), 1300), (id(4, end - 20), 2000)] {
            let bytes = state(at, len);
            self.log.save_checkpoint(at, &bytes).expect("saved");
            checkpoints.push((at, bytes));
        }
        self.apply(purge(1, 5));
        self.apply(StoredChange::Close);
        checkpoints
    }

    fn segments(&self) -> Vec<Segment> {
        self.segments_of(LOG)
    }

    fn segments_of(&self, number: u64) -> Vec<Segment> {
        let found = inspect(&self.disk, Path::new(DATA)).expect("sound");
        let log = found.logs.into_iter().find(|log| log.id == LogId(number)).expect("it is there");
        let segment = |found: quorumlog::offline::SegmentSummary| Segment {
            base: found.base_index,
            end: found.last.map_or(found.base_index, |last| last.index + 1),
            path: found.path,
            bytes: Vec::new(),
            stale: Vec::new(),
        };
        log.segments.into_iter().map(segment).collect()
    }

    fn bytes(&self, segment: usize) -> Vec<u8> {
        bytes_of(&self.disk, &self.segments()[segment].path)
    }

    fn into_sample(self, twins: &[Vec<u8>], checkpoints: Vec<(StoredId, Vec<u8>)>) -> Sample {
        let mut segments = self.segments();
        for (number, segment) in segments.iter_mut().enumerate() {
            segment.bytes = self.bytes(number);
        }
        // The dropped segments lay where the second one and the active one do now.
        let active = segments.len() - 1;
        for (twin, number) in twins.iter().zip([1, active]) {
            segments[number].stale.clone_from(twin);
        }
        let mut other = self.segments_of(OTHER).remove(0);
        other.bytes = bytes_of(&self.disk, &other.path);
        let other = (other.clone(), Layout::of(&other.bytes));
        let incarnation = self.dir.incarnation();
        drop((self.log, self.dir));
        let disk = self.disk.crash(&CrashPolicy::KeepAll);
        disk.flush_all();
        let layout = Layout::of(&segments[active].bytes);
        let mut sample = Sample {
            disk,
            logs: BTreeMap::new(),
            entries: Vec::new(),
            segments,
            layout,
            other,
            checkpoints,
            incarnation,
            earlier: self.earlier,
            votes: self.votes,
            ever: self.ever,
            flushed: 0,
        };
        let copy = sample.copy();
        for number in [LOG, OTHER] {
            let dir = Path::new(DATA).join(format!("logs/{number:016x}"));
            let options = options(number, Flush::Sync, LARGE);
            let log = StoredLog::open(copy.shared(), copy.clock(), &dir, &options).expect("sound");
            let holding = super::host::holding(&log).expect("sound");
            if number == LOG {
                sample.entries = log.read(0, u64::MAX, usize::MAX).expect("sound");
            }
            sample.logs.insert(number, holding);
        }
        sample
    }
}

/// Records of many lengths, which depend on the index alone.
fn shaped(term: u64, indexes: std::ops::Range<u64>) -> Vec<StoredEntry> {
    let len =
        |index: u64| if index.is_multiple_of(17) { 1500 } else { 20 + (index * 37 % 180) as usize };
    indexes.map(|index| record(term, index, len(index))).collect()
}
