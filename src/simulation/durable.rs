//! What a log's directory durably holds, read off a simulated disk: what is left if the power fails now
//! and everything is lost that can be.
//!
//! Read by the formats alone, and by none of the code that a node reads with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::StorageError;
use crate::format::checkpoint::CheckpointHeader;
use crate::format::entry::{ENTRY_HEADER, EntryHeader, EntryKind, entry_salt};
use crate::format::group::{Digest, GROUP_HEADER, GroupHeader};
use crate::format::manifest::{Manifest, SegmentMeta};
use crate::format::segment_header::{HEADER_BLOCK, SegmentHeader};
use crate::format::superblock::Superblock;
use crate::format::vote::{VOTE_SLOT, VOTE_SLOTS_AT, VoteSlot};
use crate::record::{Index, LogId, Term};
use crate::seam::Disk as _;
use crate::seam::disk::sim::{Image, SimDisk};
use crate::segment::segment_path;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurableKind {
    /// Appended by a caller.
    Record,
    /// A new leader's first entry.
    Blank,
    /// A Raft membership.
    Membership,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableEntry {
    /// Its position.
    pub index: Index,
    /// Term of the leader that made it.
    pub term: Term,
    /// What it is.
    pub kind: DurableKind,
    /// Its bytes, which match their CRC.
    pub payload: Bytes,
}

/// Whom the node has voted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableVote {
    /// Term of the vote.
    pub term: Term,
    /// The candidate.
    pub voted_for: u64,
    /// Whether a majority is known to have voted for it.
    pub committed: bool,
}

/// True if a node whose data directory lies here may lack what it had acknowledged, in some log: it says so itself, or will
/// find out when it starts.
pub fn may_lack_records(disk: &SimDisk, data_dir: &Path) -> bool {
    let Some(image) = disk.durable_file(&data_dir.join("NODE")) else { return false };
    let Ok(superblock) = Superblock::decode(&image.to_vec()) else { return true };
    !superblock.doubtful(disk.boot_id(data_dir)).is_empty()
}

/// The same of one log.
pub fn may_lack_records_of(disk: &SimDisk, data_dir: &Path, log: LogId) -> bool {
    let Some(image) = disk.durable_file(&data_dir.join("NODE")) else { return false };
    let Ok(superblock) = Superblock::decode(&image.to_vec()) else { return true };
    superblock.doubtful(disk.boot_id(data_dir)).contains(&log.0)
}

/// Index and term of the entries as of which checkpoints of a log were saved, of those that are not deleted.
pub fn checkpoints(disk: &SimDisk, data_dir: &Path, log: LogId) -> Vec<(Index, Term)> {
    let dir = log_dir(data_dir, log);
    let names = disk.list(&dir).unwrap_or_default();
    let saved = names.into_iter().filter(|entry| entry.name.ends_with(".ckpt"));
    let header = |path: PathBuf| {
        let bytes = disk.durable_file(&path)?.to_vec();
        CheckpointHeader::decode(&bytes, bytes.len() as u64).ok()
    };
    let headers = saved.filter_map(|entry| header(dir.join(entry.name)));
    headers.map(|header| (header.id.index, header.id.term)).collect()
}

fn log_dir(data_dir: &Path, log: LogId) -> PathBuf {
    data_dir.join("logs").join(format!("{:016x}", log.0))
}

/// What one log's directory durably holds. Keeps what it has read, so that [`refresh`](Self::refresh) costs as
/// much as was added since.
#[derive(Debug)]
pub struct DurableLog {
    dir: PathBuf,
    log: LogId,
    /// The manifest's bytes, as they were read last.
    manifest: Vec<u8>,
    begin: Index,
    boundary: Option<(Index, Term)>,
    /// Committed as of the manifest.
    segments: BTreeMap<u64, Segment>,
    /// Ids of the segments in force, in their order; the last is the active one.
    listed: Vec<u64>,
    active: Option<SegmentMeta>,
}

#[derive(Debug)]
struct Segment {
    meta: SegmentMeta,
    entries: Vec<DurableEntry>,
    /// Everything before is read.
    read_to: u64,
}

impl DurableLog {
    /// A log in this data directory; nothing is read yet.
    pub fn new(data_dir: &Path, log: LogId) -> Self {
        Self {
            dir: log_dir(data_dir, log),
            log,
            manifest: Vec::new(),
            begin: 0,
            boundary: None,
            segments: BTreeMap::new(),
            listed: Vec::new(),
            active: None,
        }
    }

    /// Reads what became durable since the last time.
    ///
    /// # Errors
    /// A file is missing or damaged. What is given after that is what was read before.
    pub fn refresh(&mut self, disk: &SimDisk) -> Result<(), StorageError> {
        let path = self.dir.join("MANIFEST");
        let Some(image) = disk.durable_file(&path) else {
            return Err(missing(path, "the log is not there"));
        };
        let bytes = image.to_vec();
        if bytes != self.manifest {
            let manifest = Manifest::decode(&bytes).map_err(|error| error.at(&path, 0))?;
            self.take(disk, &manifest)?;
            self.manifest = bytes;
        }
        let Some(meta) = self.active else { return Ok(()) };
        let (image, path) = self.open(disk, &meta)?;
        if let Some(segment) = self.segments.get_mut(&meta.id) {
            segment.read_groups(&image, &path);
        }
        Ok(())
    }

    /// Forgets what was read: the files were damaged, or are others now.
    pub fn forget(&mut self) {
        *self = Self { dir: std::mem::take(&mut self.dir), ..Self::new(Path::new(""), self.log) };
    }

    /// The last id that is gone, if any is.
    pub fn boundary(&self) -> Option<(Index, Term)> {
        self.boundary
    }

    /// First index that it holds, or would hold next.
    pub fn begin(&self) -> Index {
        self.begin
    }

    /// One past the last index.
    pub fn end(&self) -> Index {
        let last = self.active.and_then(|meta| self.segments.get(&meta.id));
        last.map_or(self.begin, |segment| segment.meta.base + segment.entries.len() as u64)
    }

    /// The entries, in their order.
    pub fn entries(&self) -> impl Iterator<Item = &DurableEntry> {
        let segments = self.listed.iter().filter_map(|id| self.segments.get(id));
        segments.flat_map(|segment| &segment.entries).filter(|entry| entry.index >= self.begin)
    }

    /// One entry.
    pub fn entry(&self, index: Index) -> Option<&DurableEntry> {
        let segments = self.listed.iter().rev().filter_map(|id| self.segments.get(id));
        let segment = segments.into_iter().find(|segment| segment.meta.base <= index)?;
        segment.entries.get(usize::try_from(index - segment.meta.base).ok()?)
    }

    /// The newest whole vote.
    pub fn vote(&self, disk: &SimDisk) -> Option<DurableVote> {
        let image = disk.durable_file(&self.dir.join("VOTE"))?;
        let slots = VOTE_SLOTS_AT
            .into_iter()
            .filter_map(|at| VoteSlot::decode(&read(&image, at, VOTE_SLOT)?).ok());
        let newest = slots.max_by_key(|slot| slot.sequence)?.vote?;
        let (term, voted_for, committed) = (newest.term, newest.voted_for, newest.committed);
        Some(DurableVote { term, voted_for: voted_for.node, committed })
    }

    /// A changed manifest.
    fn take(&mut self, disk: &SimDisk, manifest: &Manifest) -> Result<(), StorageError> {
        let mut listed = Vec::new();
        let mut segments = BTreeMap::new();
        for sealed in &manifest.sealed {
            let meta = sealed.segment;
            let count = usize::try_from(sealed.last.index + 1 - meta.base).unwrap_or(usize::MAX);
            let segment = match self.segments.remove(&meta.id) {
                Some(mut known) if known.meta == meta && known.entries.len() >= count => {
                    known.entries.truncate(count);
                    known
                }
                _ => {
                    let (image, path) = self.open(disk, &meta)?;
                    Segment::sealed(meta, count, sealed.end, &image, &path)?
                }
            };
            listed.push(meta.id);
            segments.insert(meta.id, segment);
        }
        let meta = manifest.active;
        let known = self.segments.remove(&meta.id).filter(|known| known.meta == meta);
        self.open(disk, &meta)?;
        listed.push(meta.id);
        segments.insert(meta.id, known.unwrap_or_else(|| Segment::new(meta)));
        self.boundary = manifest.boundary.as_ref().map(|b| (b.id.index, b.id.term));
        let first = manifest.sealed.first().map_or(meta.base, |sealed| sealed.segment.base);
        self.begin = self.boundary.map_or(first, |(index, _)| first.max(index + 1));
        (self.listed, self.segments, self.active) = (listed, segments, Some(meta));
        Ok(())
    }

    /// A segment's durable bytes, once its header is found to be right.
    fn open(&self, disk: &SimDisk, meta: &SegmentMeta) -> Result<(Image, PathBuf), StorageError> {
        let path = segment_path(&self.dir, meta.id);
        let Some(image) = disk.durable_file(&path) else {
            return Err(missing(path, "the durable manifest lists it"));
        };
        let head = read(&image, 0, HEADER_BLOCK).unwrap_or_default();
        let header = SegmentHeader::decode(&head).map_err(|error| error.at(&path, 0))?;
        let SegmentMeta { id: segment_id, base, salt, .. } = *meta;
        if header != (SegmentHeader { log_id: self.log.0, segment_id, base, salt }) {
            return Err(StorageError::corrupt(path, 0, "the manifest lists another segment here"));
        }
        Ok((image, path))
    }
}

impl Segment {
    fn new(meta: SegmentMeta) -> Self {
        Self { meta, entries: Vec::new(), read_to: HEADER_BLOCK as u64 }
    }

    /// A sealed one: groups and entries up to `end` tell themselves apart.
    fn sealed(
        meta: SegmentMeta,
        count: usize,
        end: u64,
        image: &Image,
        path: &Path,
    ) -> Result<Self, StorageError> {
        let mut segment = Self::new(meta);
        while segment.entries.len() < count && segment.read_to < end {
            let at = segment.read_to;
            let head = read(image, at, GROUP_HEADER);
            if head.is_some_and(|head| GroupHeader::decode(&head, meta.salt).is_ok()) {
                segment.read_to += GROUP_HEADER as u64;
                continue;
            }
            let (entry, len, _) = segment
                .read_entry(image, at, segment.entries.len())
                .map_err(|detail| StorageError::corrupt(path, at, detail))?;
            segment.entries.push(entry);
            segment.read_to += len;
        }
        if segment.entries.len() < count {
            return Err(StorageError::corrupt(path, end, "entries are missing"));
        }
        Ok(segment)
    }

    /// The active one: groups, as far as they are whole.
    fn read_groups(&mut self, image: &Image, _path: &Path) {
        while let Some(header) = read(image, self.read_to, GROUP_HEADER) {
            let Ok(header) = GroupHeader::decode(&header, self.meta.salt) else { return };
            let mut at = self.read_to + GROUP_HEADER as u64;
            let mut digest = Digest::default();
            let mut entries = Vec::new();
            for _ in 0..header.entries {
                let next = self.entries.len() + entries.len();
                let Ok((entry, len, crc)) = self.read_entry(image, at, next) else { return };
                digest.push(crc);
                entries.push(entry);
                at += len;
            }
            let end = self.read_to + GROUP_HEADER as u64 + u64::from(header.bytes);
            if at != end || digest.finish() != header.digest || header.durable_end > self.read_to {
                return;
            }
            self.entries.append(&mut entries);
            self.read_to = end;
        }
    }

    /// The entry at byte `at`, which is the `number`th; its length, and the CRC of its header.
    fn read_entry(
        &self,
        image: &Image,
        at: u64,
        number: usize,
    ) -> Result<(DurableEntry, u64, u32), String> {
        let head = read(image, at, ENTRY_HEADER).ok_or("the file ends here")?;
        let salt = entry_salt(self.meta.salt);
        let header = EntryHeader::decode(&head, salt).map_err(|error| error.to_string())?;
        let expected = self.meta.base + number as u64;
        if header.id.index != expected {
            return Err(format!("entry {} where {expected} must be", header.id.index));
        }
        let payload = read(image, at + ENTRY_HEADER as u64, header.payload_len as usize);
        let payload = Bytes::from(payload.ok_or("the file ends in a payload")?);
        let entry = header.with_payload(payload).map_err(|error| error.to_string())?;
        let kind = match entry.kind {
            EntryKind::Record => DurableKind::Record,
            EntryKind::Blank => DurableKind::Blank,
            EntryKind::Membership => DurableKind::Membership,
        };
        let (index, term) = (entry.id.index, entry.id.term);
        let entry = DurableEntry { index, term, kind, payload: entry.payload };
        Ok((entry, header.encoded_len(), header.crc))
    }
}

fn missing(path: PathBuf, detail: &str) -> StorageError {
    StorageError::Missing { path, detail: detail.to_owned() }
}

/// Exactly `len` bytes; none if the file is shorter.
fn read(image: &Image, at: u64, len: usize) -> Option<Vec<u8>> {
    // Checked before it is allocated: a length may be garbage.
    if image.len() < at.checked_add(len as u64)? {
        return None;
    }
    let mut bytes = vec![0; len];
    (image.read_at(&mut bytes, at) == len).then_some(bytes)
}
