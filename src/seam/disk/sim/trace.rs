//! What a disk was asked for: counted by kind, and told to whoever listens.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::fault::{FaultKind, OpKind};

/// Listens to operations.
pub type Tracer = Arc<dyn Fn(&Operation<'_>) + Send + Sync>;

/// An operation that was done or failed.
#[derive(Debug)]
pub struct Operation<'a> {
    /// How many came before it, on this disk and those that it comes from by crashes.
    pub number: u64,
    /// What was asked for.
    pub kind: OpKind,
    /// Of which file or directory, by the name that it was opened with; of a rename, the old one.
    pub path: &'a Path,
    /// Where in the file it begins; 0 where that makes no sense.
    pub offset: u64,
    /// How many bytes it is about, after it was done.
    pub len: u64,
    /// CRC-32 of the bytes that were written or read; 0 for other operations.
    pub crc: u32,
    /// What became of it.
    pub result: Result<(), &'a io::Error>,
}

/// Operations and faults by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    operations: [u64; OpKind::ALL.len()],
    faults: [u64; FaultKind::ALL.len()],
}

impl Counts {
    /// Operations of a kind, failed ones included.
    pub fn operations(&self, kind: OpKind) -> u64 {
        self.operations[kind as usize]
    }

    /// How often a fault bit.
    pub fn faults(&self, kind: FaultKind) -> u64 {
        self.faults[kind as usize]
    }

    /// Operations that change something.
    pub fn changes(&self) -> u64 {
        OpKind::ALL.into_iter().filter(|kind| kind.is_change()).map(|k| self.operations(k)).sum()
    }

    pub(super) fn total(&self) -> u64 {
        self.operations.iter().sum()
    }

    pub(super) fn note_operation(&mut self, kind: OpKind) {
        self.operations[kind as usize] += 1;
    }

    pub(super) fn note_fault(&mut self, kind: FaultKind) {
        self.faults[kind as usize] += 1;
    }
}
