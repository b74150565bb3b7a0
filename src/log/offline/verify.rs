//! Reads everything in a data directory and checks it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{StorageError, with_sources};
use crate::format::entry::EntryKind;
use crate::format::footer::check_footer;
use crate::format::manifest::{Manifest, SealedMeta};
use crate::format::segment_header::HEADER_BLOCK;
use crate::record::LogId;
use crate::seam::disk::{RealDisk, atomic_file};
use crate::seam::{Access, Disk};
use crate::segment::cursor::{Cursor, Source};
use crate::segment::{recovery, segment_id};

use super::{list_logs, look_at_lock};
use crate::log::files::checkpoints;
use crate::log::files::damage::{self, DAMAGE_NAME};
use crate::log::files::data_dir::{SUPERBLOCK_NAME, log_dir, read_superblock};
use crate::log::files::manifest::{check_sealed, open_segment, read_manifest};
use crate::log::files::vote_file::VoteFile;

/// Bytes read at once.
const WINDOW: u64 = 1 << 20;

/// What reading everything has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verification {
    /// A process uses the directory now, so that the newest entries may seem torn.
    pub in_use: bool,
    /// The logs, by number.
    pub logs: Vec<LogVerification>,
    /// What is not as a clean shutdown leaves it, in the order of reading.
    pub findings: Vec<Finding>,
}

impl Verification {
    /// True if no file is damaged or missing.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Harmless)
    }
}

/// What was read of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogVerification {
    /// Its number.
    pub id: LogId,
    /// Segments that the manifest lists.
    pub segments: u64,
    /// Sound entries of all kinds.
    pub entries: u64,
    /// Sound records among them.
    pub records: u64,
    /// Bytes of sound payloads.
    pub payload_bytes: u64,
    /// Sound checkpoints.
    pub checkpoints: u64,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// A trace of a crash, such as a torn tail. The next start of the node clears it up, and nothing
    /// that was acknowledged is lost.
    Harmless,
    /// Something that was durable is damaged or missing.
    Damage,
}

/// Something that is not as a clean shutdown leaves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file or directory.
    pub path: PathBuf,
    /// Where in the file, if there is one place.
    pub offset: Option<u64>,
    /// What is wrong.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{} at byte {offset}: {}", self.path.display(), self.detail),
            None => write!(f, "{}: {}", self.path.display(), self.detail),
        }
    }
}

/// Reads everything in a data directory, checks every CRC, the order of entries, and that all files
/// that should be there are. `progress` is told how many bytes are read, and of how many. Changes
/// nothing.
///
/// # Errors
/// The directory cannot be listed. What is wrong inside it is a finding.
pub fn verify(
    data_dir: impl AsRef<Path>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verification, StorageError> {
    verify_on(&RealDisk, data_dir.as_ref(), progress)
}

pub(crate) fn verify_on(
    disk: &dyn Disk,
    data_dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verification, StorageError> {
    let (in_use, _lock) = look_at_lock(disk, data_dir)?;
    let here = list_logs(disk, data_dir)?;
    let mut total = 0;
    for log in &here {
        total += bytes_of(disk, &log_dir(data_dir, *log))?;
    }
    let mut verifier = Verifier { disk, findings: Vec::new(), done: 0, total, progress };
    verifier.superblock(data_dir, &here);
    let mut logs = Vec::new();
    for log in here {
        logs.push(verifier.log(&log_dir(data_dir, log), log));
    }
    (verifier.progress)(total, total);
    Ok(Verification { in_use, logs, findings: verifier.findings })
}

/// Bytes that there are to read for one log.
fn bytes_of(disk: &dyn Disk, dir: &Path) -> Result<u64, StorageError> {
    let names = disk.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
    let read = |name: &str| segment_id(name).or(checkpoints::index_of(name)).is_some();
    let sizes = names.iter().filter(|entry| read(&entry.name)).map(|entry| {
        let path = dir.join(&entry.name);
        let size = disk.open(&path, Access::Read).and_then(|file| file.size());
        size.map_err(|error| StorageError::io("read", &path, error))
    });
    sizes.sum()
}

struct Verifier<'a> {
    disk: &'a dyn Disk,
    findings: Vec<Finding>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Verifier<'_> {
    fn find(&mut self, severity: Severity, path: PathBuf, offset: Option<u64>, detail: String) {
        self.findings.push(Finding { severity, path, offset, detail });
    }

    fn damage(&mut self, error: StorageError, path: &Path) {
        match error {
            StorageError::Corrupt { path, offset, detail } => {
                self.find(Severity::Damage, path, Some(offset), detail);
            }
            StorageError::Missing { path, detail } => {
                self.find(Severity::Damage, path, None, format!("missing; {detail}"));
            }
            other => self.find(Severity::Damage, path.to_owned(), None, with_sources(&other)),
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.done = (self.done + bytes).min(self.total);
        (self.progress)(self.done, self.total);
    }

    fn superblock(&mut self, data_dir: &Path, here: &[LogId]) {
        let path = data_dir.join(SUPERBLOCK_NAME);
        match read_superblock(self.disk, data_dir) {
            Ok(Some(superblock)) => {
                for log in superblock.logs.into_iter().map(LogId).filter(|log| !here.contains(log))
                {
                    let detail = "missing; the superblock lists this log".to_owned();
                    self.find(Severity::Damage, log_dir(data_dir, log), None, detail);
                }
            }
            Ok(None) => self.find(Severity::Damage, path, None, "missing".to_owned()),
            Err(error) => self.damage(error, &path),
        }
    }

    fn log(&mut self, dir: &Path, id: LogId) -> LogVerification {
        let (segments, entries, records, payload_bytes, checkpoints) = (0, 0, 0, 0, 0);
        let mut counts =
            LogVerification { id, segments, entries, records, payload_bytes, checkpoints };
        match VoteFile::open(self.disk, dir, id.0, Access::Read) {
            Ok(vote) if vote.is_uneven() => {
                let detail = "one of two copies of the vote is damaged or old".to_owned();
                self.find(Severity::Harmless, dir.join("VOTE"), None, detail);
            }
            Ok(_) => {}
            Err(error) => self.damage(error, dir),
        }
        match read_manifest(self.disk, dir, id.0) {
            Ok(manifest) => {
                for meta in &manifest.sealed {
                    counts.segments += 1;
                    if let Err(error) = self.sealed(dir, id, meta, &mut counts) {
                        self.damage(error, dir);
                    }
                }
                counts.segments += 1;
                if let Err(error) = self.active(dir, id, &manifest, &mut counts) {
                    self.damage(error, dir);
                }
                self.names(dir, id, &manifest, &mut counts);
            }
            Err(error) => self.damage(error, dir),
        }
        counts
    }

    fn sealed(
        &mut self,
        dir: &Path,
        id: LogId,
        meta: &SealedMeta,
        counts: &mut LogVerification,
    ) -> Result<(), StorageError> {
        check_sealed(self.disk, dir, id.0, meta)?;
        let (file, path) = open_segment(self.disk, dir, &meta.segment, Access::Read)?;
        let mut index = meta.segment.base;
        let mut term = meta.segment.prev_term;
        let source = Source::file(file.clone(), WINDOW);
        let begin = HEADER_BLOCK as u64;
        let mut reported = begin;
        let mut cursor = Cursor::new(&path, meta.segment.salt, source, begin, meta.end);
        while let Some((header, at)) = cursor.next()? {
            if header.id.index != index || header.id.term < term {
                let why = format!("I2, I3: {:?} where {index} of term {term} must be", header.id);
                return Err(StorageError::corrupt(path, at, why));
            }
            cursor.entry(header, at)?;
            counts.entries += 1;
            counts.records += u64::from(header.kind == EntryKind::Record);
            counts.payload_bytes += u64::from(header.payload_len);
            (index, term) = (index + 1, header.id.term);
            if at - reported >= WINDOW {
                self.advance(at - reported);
                reported = at;
            }
        }
        if (term, index) != (meta.last.term, meta.last.index + 1) {
            let why = format!("the last entry is not {:?}, as the manifest says", meta.last);
            return Err(StorageError::corrupt(path, meta.end, why));
        }
        let size = file.size().map_err(|error| StorageError::io("read", &path, error))?;
        self.advance(size - reported);
        let mut footer = vec![0; usize::try_from(meta.footer_len).unwrap_or_default()];
        let read = file.read_exact_at(&mut footer, meta.end);
        if meta.footer_len > 0 && (read.is_err() || check_footer(&footer).is_err()) {
            let detail = "the index is damaged; it is rebuilt when needed".to_owned();
            self.find(Severity::Harmless, path, Some(meta.end), detail);
        }
        Ok(())
    }

    fn active(
        &mut self,
        dir: &Path,
        id: LogId,
        manifest: &Manifest,
        counts: &mut LogVerification,
    ) -> Result<(), StorageError> {
        let meta = &manifest.active;
        let (file, path) = open_segment(self.disk, dir, meta, Access::Read)?;
        recovery::check_header(&*file, &path, id.0, meta)?;
        let scan = recovery::scan(&*file, &path, meta)?;
        let source = Source::file(file, WINDOW);
        let mut cursor = Cursor::new(&path, meta.salt, source, HEADER_BLOCK as u64, scan.end);
        while let Some((header, _)) = cursor.next()? {
            counts.entries += 1;
            counts.records += u64::from(header.kind == EntryKind::Record);
            counts.payload_bytes += u64::from(header.payload_len);
        }
        self.advance(scan.file_len);
        if scan.torn {
            let detail = "a torn tail: the last write was not finished".to_owned();
            self.find(Severity::Harmless, path, Some(scan.end), detail);
        }
        Ok(())
    }

    /// Checkpoints, and files that nobody lists.
    fn names(&mut self, dir: &Path, id: LogId, manifest: &Manifest, counts: &mut LogVerification) {
        let names = match self.disk.list(dir) {
            Ok(names) => names,
            Err(error) => return self.damage(StorageError::io("list", dir, error), dir),
        };
        let sealed = manifest.sealed.iter().map(|sealed| sealed.segment.id);
        let listed: Vec<u64> = sealed.chain([manifest.active.id]).collect();
        let required = manifest.boundary.as_ref().filter(|boundary| boundary.has_checkpoint);
        let mut required = required.map(|boundary| boundary.id.index);
        for name in names.into_iter().map(|entry| entry.name) {
            let path = dir.join(&name);
            if let Some(index) = checkpoints::index_of(&name) {
                required = required.filter(|required| *required != index);
                let opened = checkpoints::open_at(self.disk, dir, id.0, index);
                let verified = opened.and_then(|file| file.verify().map(|()| file.len()));
                match verified {
                    Ok(len) => {
                        counts.checkpoints += 1;
                        self.advance(len);
                    }
                    Err(error) => self.damage(error, &path),
                }
            } else if segment_id(&name).is_some_and(|id| !listed.contains(&id)) {
                let detail = "no manifest lists it; the next start removes it".to_owned();
                self.find(Severity::Harmless, path, None, detail);
            } else if name == DAMAGE_NAME {
                if let Err(error) = damage::check(self.disk, dir) {
                    self.damage(error, &path);
                }
            } else if name.ends_with(atomic_file::TMP_SUFFIX) {
                let detail = "never finished; the next start removes it".to_owned();
                self.find(Severity::Harmless, path, None, detail);
            }
        }
        if let Some(index) = required {
            let detail = "missing; the manifest says that the log begins behind it".to_owned();
            self.find(Severity::Damage, checkpoints::path_of(dir, index), None, detail);
        }
    }
}
