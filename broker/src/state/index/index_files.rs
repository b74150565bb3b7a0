//! Files of blocks that the state is indexed by: derived from the log, beside it, and never believed unread.
//!
//! A file is written by one process, at its end only, and by none once a process has ended. Head, then blocks:
//!
//! ```text
//! head   4 bytes "QLIX" | u32 version = 1 | u64 number | u64 salt | u32 zero | u32 CRC of bytes 0..28
//! block  4 bytes "QLIB" | u32 kind | u64 salt | u64 first | u32 length of the body | u32 length of the tail
//!        | u32 CRC of bytes 0..32 and the body | body | tail
//! ```
//!
//! Little-endian. The salt is random, and `first` is the physical offset of a block's first message, so that no block
//! is read for another one, nor one of an older use of the name. The body says how its tail is checked.
//! A checkpoint names the files with their salts; what it does not name is removed when it is restored.
//!
//! Writing never fails: a block that could not be written lies [`Place::NOWHERE`], and in memory for a while; what cannot
//! be read is made again from the log. So nothing here stops a log.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorumlog::StateDir;
use quorumlog::seam::{Access, DiskFile};
use serde::{Deserialize, Serialize};

/// Length at which a file is finished and the next one begun; short in tests, which are about what is between files.
const FILE_BYTES: u64 = if cfg!(test) { 256 << 10 } else { 32 << 20 };
/// Bytes of blocks that are kept in memory because they could not be written.
const UNWRITTEN_BYTES: usize = 8 << 20;
const FILE_HEAD: usize = 32;
const FILE_MAGIC: &[u8; 4] = b"QLIX";
const VERSION: u32 = 1;
const BLOCK_HEAD: usize = 36;
const BLOCK_MAGIC: &[u8; 4] = b"QLIB";
const SUFFIX: &str = ".idx";

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::state) enum Kind {
    Places = 1,
    Keys = 2,
}

/// Where a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct Place {
    file: u32,
    at: u32,
}

impl Place {
    /// The block was not written, or has been found damaged.
    pub(in crate::state) const NOWHERE: Self = Self { file: 0, at: 0 };
}

/// A block: what it holds, and the physical offset of its first message.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct Block {
    pub(in crate::state) kind: Kind,
    pub(in crate::state) first: u64,
    pub(in crate::state) place: Place,
}

/// A file, as a checkpoint names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct FileName {
    number: u32,
    salt: u64,
    /// The newest message that one of its blocks is about.
    last: u64,
}

#[derive(Debug)]
struct Held {
    name: FileName,
    file: Arc<dyn DiskFile>,
    end: u64,
    /// Durable up to here.
    flushed: u64,
}

#[derive(Debug, Default)]
struct Files {
    held: BTreeMap<u32, Held>,
    /// The one that is written.
    active: Option<u32>,
    /// The number of the next one.
    next: u32,
    /// What an earlier process has left was looked at, and the directory exists.
    prepared: bool,
    /// Names were made that are not durable.
    names_dirty: bool,
    /// Blocks that could not be written, by kind and first message: body and tail.
    unwritten: BTreeMap<(u32, u64), Vec<u8>>,
}

impl Files {
    /// Keeps a block that could not be written; the oldest go when there are too many.
    fn keep(&mut self, kind: Kind, first: u64, bytes: Vec<u8>) {
        self.unwritten.insert((kind as u32, first), bytes);
        while self.unwritten.values().map(Vec::len).sum::<usize>() > UNWRITTEN_BYTES {
            let oldest = self.unwritten.keys().min_by_key(|(_, first)| *first).copied();
            oldest.and_then(|oldest| self.unwritten.remove(&oldest));
        }
    }
}

/// The index files of one log.
#[derive(Debug)]
pub(in crate::state) struct IndexFiles {
    dir: StateDir,
    files: Mutex<Files>,
    /// Some block may be missing: somebody should look.
    lost: AtomicBool,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn file_head(number: u32, salt: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(FILE_HEAD);
    head.extend(FILE_MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend(u64::from(number).to_le_bytes());
    head.extend(salt.to_le_bytes());
    head.extend([0; 4]);
    head.extend(crc32fast::hash(&head).to_le_bytes());
    head
}

/// A block's head up to its CRC.
fn block_head(kind: Kind, salt: u64, first: u64, body: usize, tail: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(BLOCK_HEAD + body);
    head.extend(BLOCK_MAGIC);
    head.extend((kind as u32).to_le_bytes());
    head.extend(salt.to_le_bytes());
    head.extend(first.to_le_bytes());
    // Bodies and tails are far below 4 GiB: a block is one chunk, or one run of keys.
    head.extend((body as u32).to_le_bytes());
    head.extend((tail as u32).to_le_bytes());
    head
}

fn crc_of(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(body);
    crc.finalize()
}

/// The number that a file name gives.
fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() == 8 { u32::from_str_radix(digits, 16).ok() } else { None }
}

impl IndexFiles {
    pub(in crate::state) fn new(dir: StateDir) -> Self {
        Self { dir, files: Mutex::default(), lost: AtomicBool::new(false) }
    }

    /// True if these are the files that lie there.
    pub(in crate::state) fn is_in(&self, dir: &StateDir) -> bool {
        self.dir.is(dir)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.path().join(format!("{number:08x}{SUFFIX}"))
    }

    /// Writes a block; `last` is its last message. Never waits for the disk to have it.
    pub(in crate::state) fn append(
        &self,
        kind: Kind,
        (first, last): (u64, u64),
        body: &[u8],
        tail: &[u8],
    ) -> Place {
        let mut files = self.files();
        match self.try_append(&mut files, kind, (first, last), body, tail) {
            Ok(place) => {
                files.unwritten.remove(&(kind as u32, first));
                place
            }
            Err(error) => {
                tracing::warn!(dir = %self.dir.path().display(), %error, "an index block was not written");
                // Its end is not known any more.
                files.active = None;
                files.keep(kind, first, [body, tail].concat());
                self.note_lost();
                Place::NOWHERE
            }
        }
    }

    fn try_append(
        &self,
        files: &mut Files,
        kind: Kind,
        (first, last): (u64, u64),
        body: &[u8],
        tail: &[u8],
    ) -> io::Result<Place> {
        let number = self.active(files)?;
        let Some(held) = files.held.get_mut(&number) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut block = block_head(kind, held.name.salt, first, body.len(), tail.len());
        block.extend(crc_of(&block, body).to_le_bytes());
        block.extend(body);
        let at = held.end;
        held.file.write_all_at(&block, at)?;
        held.file.write_all_at(tail, at + block.len() as u64)?;
        held.end = at + (block.len() + tail.len()) as u64;
        held.name.last = held.name.last.max(last);
        if held.end >= FILE_BYTES {
            files.active = None;
        }
        let at = u32::try_from(at).map_err(io::Error::other)?;
        Ok(Place { file: number, at })
    }

    /// The file that is written; a new one if there is none.
    fn active(&self, files: &mut Files) -> io::Result<u32> {
        if let Some(number) = files.active {
            return Ok(number);
        }
        if !files.prepared {
            self.prepare(files)?;
        }
        // 0 is nowhere.
        let number = files.next.max(1);
        let salt = self.dir.clock().random()? as u64;
        let path = self.path(number);
        let file = self.dir.disk().open(&path, Access::Create)?;
        if let Err(error) = file.write_all_at(&file_head(number, salt), 0) {
            let _ = self.dir.disk().unlink(&path);
            return Err(error);
        }
        let name = FileName { number, salt, last: 0 };
        files.held.insert(number, Held { name, file, end: FILE_HEAD as u64, flushed: 0 });
        files.next = number + 1;
        files.names_dirty = true;
        files.active = Some(number);
        Ok(number)
    }

    /// Makes the directory, and removes the files in it that are not held.
    fn prepare(&self, files: &mut Files) -> io::Result<()> {
        let disk = self.dir.disk();
        match disk.mkdir(self.dir.path()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        files.names_dirty = true;
        for entry in disk.list(self.dir.path())? {
            let Some(number) = number_of(&entry.name) else { continue };
            files.next = files.next.max(number + 1);
            if !files.held.contains_key(&number) {
                disk.unlink(&self.path(number))?;
            }
        }
        files.prepared = true;
        Ok(())
    }

    /// Takes up the files that a checkpoint names, as far as they are here, and removes the others.
    pub(in crate::state) fn adopt(&self, named: &[FileName]) {
        let mut files = self.files();
        files.held.clear();
        files.unwritten.clear();
        (files.active, files.prepared) = (None, false);
        for name in named {
            // A number that is named is not given again, or it would be taken for the one that is meant.
            files.next = files.next.max(name.number.saturating_add(1));
            match self.open(*name) {
                Ok(held) => {
                    files.held.insert(name.number, held);
                }
                Err(error) => {
                    let path = self.path(name.number);
                    tracing::info!(path = %path.display(), %error, "an index file is not here");
                    self.note_lost();
                }
            }
        }
        if let Err(error) = self.prepare(&mut files) {
            // It is tried again before anything is written.
            tracing::warn!(dir = %self.dir.path().display(), %error, "the index files cannot be listed");
        }
    }

    fn open(&self, name: FileName) -> io::Result<Held> {
        let path = self.path(name.number);
        let file = self.dir.disk().open(&path, Access::Read)?;
        let mut head = [0; FILE_HEAD];
        file.read_exact_at(&mut head, 0)?;
        if head[..] != file_head(name.number, name.salt) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another file has this name"));
        }
        let end = file.size()?;
        Ok(Held { name, file, end, flushed: end })
    }

    /// The files that there are, for a checkpoint.
    pub(in crate::state) fn names(&self) -> Vec<FileName> {
        self.files().held.values().map(|held| held.name).collect()
    }

    /// Makes everything durable that was written before the call. What a failed flush leaves is not believed: those
    /// blocks are made again.
    ///
    /// # Errors
    /// What the disk says: a checkpoint must not name these files.
    pub(in crate::state) fn flush(&self) -> io::Result<()> {
        let (dirty, names_dirty) = {
            let mut files = self.files();
            let dirty = files.held.values().filter(|held| held.flushed < held.end);
            let dirty: Vec<_> =
                dirty.map(|held| (held.name.number, Arc::clone(&held.file), held.end)).collect();
            (dirty, std::mem::take(&mut files.names_dirty))
        };
        for (number, file, end) in dirty {
            let flushed = file.sync_data();
            let mut files = self.files();
            if let Err(error) = flushed {
                files.held.remove(&number);
                files.active = files.active.filter(|active| *active != number);
                files.names_dirty |= names_dirty;
                self.note_lost();
                return Err(error);
            }
            if let Some(held) = files.held.get_mut(&number) {
                held.flushed = held.flushed.max(end);
            }
        }
        if names_dirty && let Err(error) = self.flush_names() {
            self.files().names_dirty = true;
            return Err(error);
        }
        Ok(())
    }

    fn flush_names(&self) -> io::Result<()> {
        let (disk, path) = (self.dir.disk(), self.dir.path());
        disk.sync_dir(path)?;
        path.parent().map_or(Ok(()), |parent| disk.sync_dir(parent))
    }

    /// The body of a block, of which the length is known; none if it is not there or damaged.
    pub(in crate::state) fn read(&self, block: Block, body: usize) -> Option<Vec<u8>> {
        if let Some(mut kept) = self.kept(block) {
            kept.truncate(body);
            return Some(kept);
        }
        let (file, salt) = self.file_of(block.place)?;
        let mut bytes = vec![0; BLOCK_HEAD + body];
        let read = file.read_exact_at(&mut bytes, block.place.at.into());
        let (head, found) = bytes.split_at(BLOCK_HEAD);
        let tail = u32_at(head, 28) as usize;
        let sound = read.is_ok()
            && head[..32] == block_head(block.kind, salt, block.first, body, tail)
            && u32_at(head, 32) == crc_of(&head[..32], found);
        if !sound {
            let path = self.path(block.place.file);
            tracing::warn!(path = %path.display(), at = block.place.at, "an index block is damaged");
            return None;
        }
        bytes.drain(..BLOCK_HEAD);
        Some(bytes)
    }

    /// Bytes of a block's tail, unchecked.
    pub(in crate::state) fn read_tail(
        &self,
        block: Block,
        body: usize,
        at: usize,
        length: usize,
    ) -> Option<Vec<u8>> {
        if let Some(kept) = self.kept(block) {
            return kept.get(body + at..body + at + length).map(<[u8]>::to_vec);
        }
        let (file, _) = self.file_of(block.place)?;
        let mut bytes = vec![0; length];
        let from = u64::from(block.place.at) + (BLOCK_HEAD + body + at) as u64;
        file.read_exact_at(&mut bytes, from).ok().map(|()| bytes)
    }

    /// A block that could not be written: body and tail.
    fn kept(&self, block: Block) -> Option<Vec<u8>> {
        if block.place != Place::NOWHERE {
            return None;
        }
        self.files().unwritten.get(&(block.kind as u32, block.first)).cloned()
    }

    fn file_of(&self, place: Place) -> Option<(Arc<dyn DiskFile>, u64)> {
        let files = self.files();
        files.held.get(&place.file).map(|held| (Arc::clone(&held.file), held.name.salt))
    }

    /// True if the file of a block is here.
    pub(in crate::state) fn holds(&self, place: Place) -> bool {
        self.files().held.contains_key(&place.file)
    }

    /// Removes files that are all about messages before `physical`.
    pub(in crate::state) fn retain(&self, physical: u64) {
        let mut files = self.files();
        files.unwritten.retain(|(_, first), _| *first >= physical);
        let gone: Vec<u32> = files
            .held
            .values()
            .filter(|held| held.name.last < physical)
            .map(|h| h.name.number)
            .collect();
        for number in gone {
            files.held.remove(&number);
            files.active = files.active.filter(|active| *active != number);
            if let Err(error) = self.dir.disk().unlink(&self.path(number)) {
                tracing::warn!(path = %self.path(number).display(), %error, "cannot remove an index file");
            }
        }
    }

    /// Notes that blocks are missing.
    pub(in crate::state) fn note_lost(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// True once after blocks were noted as missing.
    pub(in crate::state) fn take_lost(&self) -> bool {
        self.lost.swap(false, Ordering::AcqRel)
    }

    /// Files, and their bytes.
    #[cfg(test)]
    pub(in crate::state) fn size(&self) -> (usize, u64) {
        let files = self.files();
        (files.held.len(), files.held.values().map(|held| held.end).sum())
    }
}
