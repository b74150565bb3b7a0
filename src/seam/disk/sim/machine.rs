//! The state of a disk and its machine, behind one lock.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::crash::{self, CrashPolicy};
use super::fault::{ActiveRule, Fault, FaultKind, OpKind, dead, eio, no_space};
use super::file::FileState;
use super::latency::Latency;
use super::random::Random;
use super::trace::{Counts, Tracer};
use super::tree::{Inode, Tree};
use super::{Contents, LockMode};

#[derive(Clone)]
pub(super) struct Machine {
    pub(super) tree: Tree,
    /// By file: number of the lock, and how it is held.
    pub(super) locks: BTreeMap<Inode, Vec<(u64, LockMode)>>,
    pub(super) rules: Vec<ActiveRule>,
    /// It crashed, or it halted.
    pub(super) dead: bool,
    /// How often it was switched on.
    pub(super) boots: u64,
    /// Flushes wait.
    pub(super) held: bool,
    /// Flushes do nothing.
    pub(super) lying: bool,
    /// Bytes that may yet be allocated.
    pub(super) space: Option<u64>,
    /// Bytes of removed files that are free once somebody has missed space.
    pub(super) space_owed: u64,
    pub(super) clock: Option<Arc<dyn Fn() -> u64 + Send + Sync>>,
    pub(super) clock_offset: i64,
    pub(super) latency: Latency,
    pub(super) latency_random: Random,
    pub(super) random: Random,
    pub(super) counts: Counts,
    pub(super) tracer: Option<Tracer>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            tree: Tree::default(),
            locks: BTreeMap::new(),
            rules: Vec::new(),
            dead: false,
            boots: 1,
            held: false,
            lying: false,
            space: None,
            space_owed: 0,
            clock: None,
            clock_offset: 0,
            latency: Latency::default(),
            latency_random: Random(0x1a7e),
            random: Random(0),
            counts: Counts::default(),
            tracer: None,
        }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("dead", &self.dead).finish_non_exhaustive()
    }
}

/// An operation that goes on.
pub(super) struct Begun {
    pub(super) operation: u64,
    /// What is to go wrong with it, if it does not fail at once.
    pub(super) fault: Option<Fault>,
}

impl Machine {
    /// Counts an operation, and lets it fail if it is to.
    pub(super) fn begin(&mut self, kind: OpKind, paths: [&Path; 2]) -> io::Result<Begun> {
        let operation = self.counts.total();
        self.counts.note_operation(kind);
        // All rules count it, whichever of them has it.
        let met = self.rules.iter_mut().map(|rule| rule.meet(kind, paths));
        let fault = met.fold(None, Option::or);
        self.rules.retain(|rule| !rule.is_over());
        let Some(fault) = fault else { return Ok(Begun { operation, fault: None }) };
        self.counts.note_fault(fault.kind());
        match fault {
            Fault::Halt => {
                self.dead = true;
                Err(dead())
            }
            Fault::Eio if kind != OpKind::Flush => Err(eio()),
            Fault::NoSpace if kind != OpKind::Flush => Err(no_space()),
            _ => Ok(Begun { operation, fault: Some(fault) }),
        }
    }

    /// Takes space for `more` bytes, or for as many of the last `wanted` of them as there is space for. Gives
    /// how many of `wanted`.
    pub(super) fn take_space(&mut self, more: u64, wanted: u64) -> io::Result<u64> {
        let Some(space) = &mut self.space else { return Ok(wanted) };
        let missing = more.saturating_sub(*space);
        if missing == 0 {
            *space -= more;
            return Ok(wanted);
        }
        if missing >= wanted {
            return Err(self.no_space());
        }
        *space = 0;
        self.counts.note_fault(FaultKind::NoSpace);
        self.counts.note_fault(FaultKind::Short);
        Ok(wanted - missing)
    }

    /// Says that there is no space. Whoever tries again finds what removed files had.
    pub(super) fn no_space(&mut self) -> io::Error {
        self.counts.note_fault(FaultKind::NoSpace);
        let owed = std::mem::take(&mut self.space_owed);
        self.space = self.space.map(|space| space.saturating_add(owed));
        no_space()
    }

    /// Gives the space of a file back that lost its name.
    pub(super) fn release(&mut self, inode: Option<Inode>) {
        let len = self.len(inode);
        self.space = self.space.map(|space| space.saturating_add(len));
    }

    /// The same, as late as may be.
    pub(super) fn release_later(&mut self, inode: Option<Inode>) {
        self.space_owed += self.len(inode);
    }

    fn len(&self, inode: Option<Inode>) -> u64 {
        inode.and_then(|inode| self.tree.file(inode).ok()).map_or(0, |file| file.live.len())
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.as_ref().map_or(0, |clock| clock()).saturating_add_signed(self.clock_offset)
    }

    pub(super) fn contents(&self, durable: bool) -> Contents {
        let bytes = |inode| {
            let file: Option<&FileState> = self.tree.file(inode).ok();
            file.map(|file| if durable { file.durable.clone() } else { file.live.clone() })
        };
        self.tree.paths(durable).into_iter().map(|(path, inode)| (path, bytes(inode))).collect()
    }

    /// What the next start finds after a crash.
    pub(super) fn crashed(&self, policy: &CrashPolicy) -> Self {
        let mut next = Self {
            locks: BTreeMap::new(),
            rules: Vec::new(),
            dead: false,
            held: false,
            lying: false,
            space: None,
            space_owed: 0,
            ..self.clone()
        };
        for file in next.tree.files_mut() {
            (file.open, file.mapped) = (Arc::default(), false);
        }
        let bit = match policy {
            CrashPolicy::KeepAll => vec![FaultKind::ProcessCrash],
            cut => {
                next.boots += 1;
                crash::cut_power(&mut next.tree, cut)
            }
        };
        bit.into_iter().for_each(|kind| next.counts.note_fault(kind));
        next
    }
}
