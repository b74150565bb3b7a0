//! One checkpoint's file: written as the state comes and read piece by piece, so that its size costs no memory.
//!
//! It is written under a temporary name, its head last, flushed, and only then renamed. A crash before that leaves a `.tmp`,
//! which the next open removes.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::error::StorageError;
use crate::format::FormatError;
use crate::format::checkpoint::{CHECKPOINT_HEADER, CheckpointHeader};
use crate::format::entry::EntryId;
use crate::mutant::Mutant;
use crate::seam::disk::atomic_file;
use crate::seam::{Access, Disk, DiskFile};

/// Bytes that are read at a time.
const READ_BYTES: usize = 256 << 10;
/// A state of up to this many bytes may use half of the disk's reserve: a log cannot do without it, and it is no larger
/// than what one log's entries may take.
const SMALL_BYTES: u64 = 64 << 10;

/// A checkpoint's file, open. It can be read to its end whatever becomes of its name.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    header: CheckpointHeader,
    /// While it has a temporary name.
    temporary: Option<Arc<Temporary>>,
}

impl CheckpointFile {
    pub(in crate::log) fn new(
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        header: CheckpointHeader,
    ) -> Self {
        Self { file, path, header, temporary: None }
    }

    /// What it is as of.
    pub(crate) fn id(&self) -> EntryId {
        self.header.id
    }

    /// Bytes of the file.
    pub(in crate::log) fn len(&self) -> u64 {
        CHECKPOINT_HEADER as u64 + self.header.state_len
    }

    pub(crate) fn state_len(&self) -> u64 {
        self.header.state_len
    }

    pub(crate) fn state_crc(&self) -> u32 {
        self.header.state_crc
    }

    /// Gives it its name, durably; nothing if it has it.
    pub(in crate::log) fn keep(&self, path: &Path) -> Result<(), StorageError> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        if !temporary.kept.load(Ordering::Relaxed) {
            let renamed = temporary.disk.rename(&self.path, path);
            renamed.map_err(|error| StorageError::io("replace", path, error))?;
            temporary.kept.store(true, Ordering::Relaxed);
        }
        match Mutant::CheckpointNotFlushed.is_active() {
            true => Ok(()),
            false => atomic_file::sync_parent(&*temporary.disk, path),
        }
    }

    /// Bytes of the state from `offset` on: `len_max` of them, or what there is. Not verified. Blocks on the disk.
    pub(crate) fn piece(&self, offset: u64, len_max: usize) -> Result<Bytes, StorageError> {
        let left = self.header.state_len.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).map_or(len_max, |left| left.min(len_max))];
        let read = self.file.read_exact_at(&mut bytes, CHECKPOINT_HEADER as u64 + offset);
        read.map_err(|error| StorageError::io("read", &self.path, error))?;
        Ok(bytes.into())
    }

    /// Reads all of the state, and fails unless it is the one that was saved. Blocks on the disk.
    pub(crate) fn verify(&self) -> Result<(), StorageError> {
        match io::copy(&mut self.reader(), &mut io::sink()) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let damaged = FormatError::Crc { what: "checkpointed state" };
                Err(damaged.at(&self.path, CHECKPOINT_HEADER as u64))
            }
            Err(error) => Err(StorageError::io("read", &self.path, error)),
        }
    }

    /// Reads the state. Its end is an error if the state is not the one that was saved.
    pub(crate) fn reader(&self) -> impl Read + use<> {
        let crc = crc32fast::Hasher::new();
        let (file, header) = (Arc::clone(&self.file), self.header);
        BufReader::with_capacity(READ_BYTES, Verified { file, header, read: 0, crc })
    }
}

/// Reads a state, and checks its CRC at the end.
struct Verified {
    file: Arc<dyn DiskFile>,
    header: CheckpointHeader,
    read: u64,
    crc: crc32fast::Hasher,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.header.state_len - self.read;
        if left == 0 {
            let sound = self.crc.clone().finalize() == self.header.state_crc;
            return match sound || Mutant::CheckpointCrcIgnored.is_active() {
                true => Ok(0),
                false => Err(io::Error::new(ErrorKind::InvalidData, "the checkpoint is damaged")),
            };
        }
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let offset = CHECKPOINT_HEADER as u64 + self.read;
        let read = self.file.read_at(&mut buffer[..wanted], offset)?;
        if read == 0 && wanted > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.crc.update(&buffer[..read]);
        self.read += read as u64;
        Ok(read)
    }
}

/// A temporary name. The file goes with it, unless it was renamed.
#[derive(Debug)]
struct Temporary {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    kept: AtomicBool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            // What is left of it is removed at the next open, if not now.
            let _ = self.disk.unlink_later(&self.path);
        }
    }
}

/// A checkpoint that is being written. Its file goes with it, until it is finished and kept.
#[derive(Debug)]
pub(crate) struct Draft {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    log_id: u64,
    id: EntryId,
    /// Made with the first bytes that are written out.
    made: Option<(Arc<dyn DiskFile>, Arc<Temporary>)>,
    buffer: Vec<u8>,
    /// With more than this in the buffer it is written out.
    buffer_max: usize,
    /// Bytes of the disk that are not for it.
    reserve: u64,
    written: u64,
    crc: crc32fast::Hasher,
    /// A flush failed: nothing is known of what was written, and another flush may succeed without it.
    lost: bool,
}

impl Draft {
    /// Of a log's checkpoint as of `id`. `path` is the temporary name, which nothing else uses.
    pub(in crate::log) fn new(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        (log_id, id): (u64, EntryId),
        (buffer_max, reserve): (usize, u64),
    ) -> Self {
        Self {
            disk,
            path,
            log_id,
            id,
            made: None,
            buffer: Vec::new(),
            buffer_max,
            reserve,
            written: 0,
            crc: crc32fast::Hasher::new(),
            lost: false,
        }
    }

    /// What it is as of.
    pub(crate) fn id(&self) -> EntryId {
        self.id
    }

    /// Bytes of the state so far.
    pub(crate) fn state_len(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// True if a flush failed. What was written must be written to another draft.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost && !Mutant::LostDraftKept.is_active()
    }

    fn file(&mut self) -> io::Result<Arc<dyn DiskFile>> {
        let (file, _) = match &mut self.made {
            Some(made) => made,
            none => {
                let file = self.disk.open(&self.path, Access::Create)?;
                let (disk, path) = (Arc::clone(&self.disk), self.path.clone());
                let kept = AtomicBool::new(false);
                none.insert((file, Arc::new(Temporary { disk, path, kept })))
            }
        };
        Ok(Arc::clone(file))
    }

    /// Fails with `StorageFull` unless the disk has space for so many bytes more of the state than were written out, and
    /// its reserve besides.
    pub(crate) fn check_space(&self, more: u64) -> io::Result<()> {
        if more == 0 {
            // What was received while there was space is installed without any.
            return Ok(());
        }
        let dir = self.path.parent().unwrap_or(&self.path);
        let small = self.written + more <= SMALL_BYTES;
        let kept = if small { self.reserve / 2 } else { self.reserve };
        let enough = self.disk.free_space(dir)? >= more.saturating_add(kept);
        match enough || Mutant::CheckpointTakesReserve.is_active() {
            true => Ok(()),
            false => Err(ErrorKind::StorageFull.into()),
        }
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.check_space(self.buffer.len() as u64)?;
        let offset = CHECKPOINT_HEADER as u64 + self.written;
        self.file()?.write_all_at(&self.buffer, offset)?;
        self.crc.update(&self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Adds the head. Durable on return, under its temporary name. Nothing may be written to it any more then. If it fails,
    /// it may be done again unless the draft [is lost](Self::is_lost).
    pub(crate) fn finish(&mut self) -> Result<CheckpointFile, StorageError> {
        let finished = self.write_rest();
        let (file, header) =
            finished.map_err(|error| StorageError::io("write", &self.path, error))?;
        let temporary = self.made.as_ref().map(|(_, temporary)| Arc::clone(temporary));
        Ok(CheckpointFile { file, path: self.path.clone(), header, temporary })
    }

    fn write_rest(&mut self) -> io::Result<(Arc<dyn DiskFile>, CheckpointHeader)> {
        if self.is_lost() {
            return Err(io::Error::other("an earlier flush of it failed"));
        }
        self.write_out()?;
        let file = self.file()?;
        let header = CheckpointHeader {
            log_id: self.log_id,
            id: self.id,
            state_len: self.written,
            state_crc: self.crc.clone().finalize(),
        };
        file.write_all_at(&header.encode(), 0)?;
        if !Mutant::CheckpointNotFlushed.is_active() {
            // The system may drop the pages and report that once only.
            self.lost = true;
            file.sync_data()?;
            self.lost = false;
        }
        Ok((file, header))
    }
}

impl Write for Draft {
    /// All of it, or nothing if it fails.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() > self.buffer_max
            && let Err(error) = self.write_out()
        {
            self.buffer.truncate(before);
            return Err(error);
        }
        Ok(bytes.len())
    }

    /// Nothing is durable before it is finished.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
