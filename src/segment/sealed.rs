//! Sealed segments: read from a mapping once their last entry is committed (I7), from the file before.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::StorageError;
use crate::format::entry::EntryId;
use crate::format::manifest::SealedMeta;

use super::cursor::{Cursor, ReadRequest, Source};
use super::offset_index::{Footer, SparseIndex};
use super::segment_path;
use crate::seam::disk::mmap;
use crate::seam::{Access, Disk};

/// Bytes that are read at once to rebuild an index.
const REBUILT_AT_ONCE: u64 = 1 << 20;

/// One sealed segment.
#[derive(Debug)]
pub(crate) struct SealedSegment {
    meta: SealedMeta,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    loaded: Mutex<Loaded>,
}

/// What was read of a segment so far.
#[derive(Debug, Default)]
struct Loaded {
    mapping: Option<Bytes>,
    index: Option<Index>,
}

#[derive(Debug, Clone)]
enum Index {
    Footer(Arc<Footer>),
    Rebuilt(Arc<SparseIndex>),
}

impl Index {
    fn offset_before(&self, entry: u64) -> u64 {
        match self {
            Self::Footer(footer) => footer.offset_before(entry),
            Self::Rebuilt(index) => index.offset_before(entry),
        }
    }

    /// False if it lies in a file that cannot be read any more.
    fn is_readable(&self) -> bool {
        match self {
            Self::Footer(footer) => mmap::read_in(footer.bytes()).is_ok(),
            Self::Rebuilt(_) => true,
        }
    }
}

impl SealedSegment {
    /// Touches nothing yet. `index` if it is known already.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        meta: SealedMeta,
        index: Option<SparseIndex>,
    ) -> Self {
        let index = index.map(|index| Index::Rebuilt(Arc::new(index)));
        let loaded = Loaded { mapping: None, index };
        let path = segment_path(dir, meta.segment.id);
        Self { meta, path, disk, loaded: Mutex::new(loaded) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn meta(&self) -> &SealedMeta {
        &self.meta
    }

    /// Adds the entries that `request` asks for; the first of them lies in this segment. `committed`
    /// is the last committed index: it decides whether the file may be mapped.
    pub(crate) fn read(
        &self,
        request: &mut ReadRequest,
        committed: Option<u64>,
    ) -> Result<(), StorageError> {
        self.read_entries(request, committed).map_err(|error| self.explain(error))
    }

    fn read_entries(
        &self,
        request: &mut ReadRequest,
        committed: Option<u64>,
    ) -> Result<(), StorageError> {
        let source = self.source(request.bytes_left() as u64, committed)?;
        let index = self.index(&source)?;
        let begin = index.offset_before(request.next - self.meta.segment.base);
        let salt = self.meta.segment.salt;
        let mut cursor = Cursor::new(&self.path, salt, source, begin, self.meta.end);
        let before = request.next;
        cursor.read(request)?;
        if request.next == before && request.wants_more() {
            let why = format!("entry {before} is not in its segment");
            return Err(StorageError::corrupt(&self.path, self.meta.end, why));
        }
        Ok(())
    }

    /// What this segment becomes when everything behind its entry `last` is cut.
    pub(crate) fn cut_behind(&self, last: EntryId) -> Result<SealedMeta, StorageError> {
        let source = self.source(0, None)?;
        let index = self.index(&source)?;
        let begin = index.offset_before(last.index - self.meta.segment.base);
        let salt = self.meta.segment.salt;
        let mut cursor = Cursor::new(&self.path, salt, source, begin, self.meta.end);
        while let Some((header, at)) = cursor.next()? {
            if header.id.index >= last.index {
                if header.id == last {
                    let end = at + header.encoded_len();
                    return Ok(SealedMeta { end, footer_len: 0, last, ..self.meta });
                }
                let why = format!("I2: entry {:?} where {last:?} must be", header.id);
                return Err(StorageError::corrupt(&self.path, at, why));
            }
        }
        let why = format!("entry {} is not in its segment", last.index);
        Err(StorageError::corrupt(&self.path, self.meta.end, why))
    }

    fn source(&self, window: u64, committed: Option<u64>) -> Result<Source, StorageError> {
        let failed = |op| move |error| StorageError::io(op, &self.path, error);
        if let Some(mapping) = &self.loaded().mapping {
            return Ok(Source::mapped(mapping.clone(), window));
        }
        let file = self.disk.open(&self.path, Access::Read).map_err(failed("open"))?;
        let whole = self.meta.end + self.meta.footer_len;
        // An uncommitted entry may yet be truncated.
        let settled = committed.is_some_and(|committed| committed >= self.meta.last.index);
        if !settled {
            return Ok(Source::file(file, window));
        }
        let size = file.size().map_err(failed("read"))?;
        // A footer that was cut off is rebuilt; the entries are needed.
        assert!(committed >= Some(self.meta.last.index), "I7: an uncommitted entry is not mapped");
        let mapping = file.map(if size >= whole { whole } else { self.meta.end });
        let mapping = mapping.map_err(failed("map"))?;
        Ok(Source::mapped(self.loaded().mapping.insert(mapping).clone(), window))
    }

    /// A file that was cut fails in several ways, some of which a failing disk has too.
    fn explain(&self, error: StorageError) -> StorageError {
        let file = self.disk.open(&self.path, Access::Read);
        match (&error, file.and_then(|file| file.size())) {
            (StorageError::Io { .. }, Ok(size)) if size < self.meta.end => {
                let why = format!("the file ends here, and the manifest says at {}", self.meta.end);
                StorageError::corrupt(&self.path, size, why)
            }
            _ => error,
        }
    }

    fn index(&self, source: &Source) -> Result<Index, StorageError> {
        let known = self.loaded().index.clone();
        if let Some(index) = known.filter(Index::is_readable) {
            return Ok(index);
        }
        let footer = self.footer(source).and_then(|bytes| Footer::check(bytes, &self.meta));
        let index = match (footer, source) {
            (Some(footer), Source::Mapped { .. }) => Index::Footer(Arc::new(footer)),
            // Soon it will be found in the mapping, and need no other memory.
            (Some(footer), Source::File { .. }) => return Ok(Index::Footer(Arc::new(footer))),
            (None, _) => {
                if self.meta.footer_len > 0 {
                    tracing::warn!(path = %self.path.display(), "rebuilding a damaged index");
                }
                let source = match source {
                    Source::Mapped { bytes, .. } => Source::mapped(bytes.clone(), REBUILT_AT_ONCE),
                    Source::File { file, .. } => Source::file(Arc::clone(file), REBUILT_AT_ONCE),
                };
                let rebuilt = SparseIndex::rebuild(&self.path, &self.meta, source)?;
                Index::Rebuilt(Arc::new(rebuilt))
            }
        };
        Ok(self.loaded().index.insert(index).clone())
    }

    /// The footer's bytes, if they are there.
    fn footer(&self, source: &Source) -> Option<Bytes> {
        let SealedMeta { end, footer_len, .. } = self.meta;
        if footer_len == 0 {
            return None;
        }
        match source {
            Source::Mapped { bytes, .. } => {
                let range = usize::try_from(end).ok()?..usize::try_from(end + footer_len).ok()?;
                mmap::read_in(bytes.get(range.clone())?).ok()?;
                Some(bytes.slice(range))
            }
            Source::File { file, .. } => {
                let have = file.size().ok()?.checked_sub(end)?;
                let len = usize::try_from(footer_len).ok().filter(|_| footer_len <= have)?;
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, end).ok()?;
                Some(bytes.into())
            }
        }
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
