//! One file: what is seen of it, what is durable of it, and the changes between the two.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::image::{Image, SECTOR};

/// A change of a file that is not durable.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// The file is at least so long.
    Extend(u64),
    /// The file is exactly so long.
    Cut(u64),
    Write {
        at: u64,
        bytes: Bytes,
    },
}

/// A change and the number of the operation that made it, over the whole disk.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) operation: u64,
    pub(super) change: Change,
}

type Sector = Arc<[u8; SECTOR as usize]>;

#[derive(Debug, Clone, Default)]
pub(super) struct FileState {
    /// The page cache over the disk.
    pub(super) live: Image,
    pub(super) durable: Image,
    /// Oldest first.
    pub(super) pending: Vec<Pending>,
    /// What a sector held before the last flush that changed it, and that flush. An absent one held zeros.
    earlier: Arc<BTreeMap<u64, (u64, Sector)>>,
    flushes: u64,
    pub(super) mapped: bool,
    /// Shared with the handles.
    pub(super) open: Arc<()>,
}

impl FileState {
    pub(super) fn extend(&mut self, operation: u64, to: u64) {
        if to > self.live.len() {
            self.live.extend(to);
            self.pending.push(Pending { operation, change: Change::Extend(to) });
        }
    }

    pub(super) fn cut(&mut self, operation: u64, len: u64) {
        if len != self.live.len() {
            self.live.resize(len);
            self.pending.push(Pending { operation, change: Change::Cut(len) });
        }
    }

    /// Writes; what will be written back, and where to, is `landing`.
    pub(super) fn write(
        &mut self,
        operation: u64,
        at: u64,
        bytes: &[u8],
        landing: Option<(u64, Bytes)>,
    ) {
        self.extend(operation, at + bytes.len() as u64);
        self.live.write(at, bytes);
        if let Some((at, bytes)) = landing {
            self.pending.push(Pending { operation, change: Change::Write { at, bytes } });
        }
    }

    /// How many bytes were written and not flushed.
    pub(super) fn pending_bytes(&self) -> u64 {
        let bytes = |pending: &Pending| match &pending.change {
            Change::Write { bytes, .. } => bytes.len() as u64,
            Change::Extend(_) | Change::Cut(_) => 0,
        };
        self.pending.iter().map(bytes).sum()
    }

    /// Makes everything durable. Costs as much as was changed since the last time.
    pub(super) fn flush(&mut self) {
        self.flushes += 1;
        for Pending { change, .. } in std::mem::take(&mut self.pending) {
            self.apply(&change);
        }
    }

    /// Makes one change durable.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Extend(to) => self.durable.extend(*to),
            Change::Cut(len) => self.durable.resize(*len),
            Change::Write { at, bytes } => self.write_durable(*at, bytes),
        }
    }

    pub(super) fn write_durable(&mut self, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let earlier = Arc::make_mut(&mut self.earlier);
        for sector in at / SECTOR..(at + bytes.len() as u64).div_ceil(SECTOR) {
            if earlier.get(&sector).is_some_and(|(flush, _)| *flush == self.flushes) {
                continue;
            }
            if self.durable.may_hold(sector) {
                earlier.insert(sector, (self.flushes, Arc::new(self.durable.sector(sector))));
            } else {
                earlier.remove(&sector);
            }
        }
        self.durable.write(at, bytes);
    }

    /// What the system does when a flush fails: pages that were not written count as clean, and are read
    /// from the disk again. Only the length is kept.
    pub(super) fn fail_flush(&mut self) {
        self.pending.retain(|pending| !matches!(pending.change, Change::Write { .. }));
        self.live = self.durable.clone();
        for pending in &self.pending {
            match pending.change {
                Change::Extend(to) => self.live.extend(to),
                Change::Cut(len) => self.live.resize(len),
                Change::Write { .. } => {}
            }
        }
    }

    /// Begins what counts as one flush, for [`Self::earlier_sector`].
    pub(super) fn begin_flush(&mut self) {
        self.flushes += 1;
    }

    /// After a power cut: what is durable is all there is.
    pub(super) fn lose_cache(&mut self) {
        self.pending.clear();
        self.live = self.durable.clone();
    }

    /// What a sector held before the last flush that changed it.
    pub(super) fn earlier_sector(&self, sector: u64) -> [u8; SECTOR as usize] {
        self.earlier.get(&sector).map_or([0; SECTOR as usize], |(_, bytes)| **bytes)
    }

    /// Changes a sector behind everyone's back, on the disk and in the page cache. True if it is another now.
    pub(super) fn replace_sector(&mut self, sector: u64, bytes: &[u8; SECTOR as usize]) -> bool {
        let before = (self.durable.sector(sector), self.live.sector(sector));
        self.durable.set_sector(sector, bytes);
        self.live.set_sector(sector, bytes);
        before != (self.durable.sector(sector), self.live.sector(sector))
    }
}
