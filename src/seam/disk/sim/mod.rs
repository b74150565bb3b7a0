//! A disk in memory that knows what was flushed, and can do all that a disk and a machine do to files.
//!
//! A file has a durable image and a list of the changes that were made since; `sync_data` makes those of
//! that file durable and nothing else. A directory has durable names and a list of changes;
//! `sync_dir` makes those of that directory durable. Nothing else orders one change before another: a crash
//! may leave any of them and lose the others, in sectors of 512 bytes. What holds nevertheless:
//!
//! - a change of names is there whole or not at all, and not without earlier ones of the same name;
//! - a sector that was durable keeps the bytes that were not written again, however the write is torn
//!   ([`Kept::Garbled`] breaks this, and only if it is asked to).
//!
//! The same calls in the same order give the same disk, so a run that depends on nothing else can be
//! replayed.

mod crash;
mod damage;
mod fault;
mod file;
mod handle;
mod image;
mod latency;
mod machine;
mod random;
#[cfg(test)]
mod tests;
mod trace;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::fault::ActiveRule;
use self::machine::Machine;
use super::{Access, DirEntry, Disk, DiskFile, DiskLock, LockMode};
use crate::seam::Clock;

pub use self::crash::{ChangePart, CrashPolicy, Kept, PendingChange, TornRest};
pub use self::damage::Damage;
pub use self::fault::{Fault, FaultKind, OpKind, Ops, Rule, When};
pub use self::image::{Image, SECTOR};
pub use self::latency::Latency;
pub(crate) use self::random::Random;
pub use self::trace::{Counts, Operation, Tracer};

/// What a disk holds: directories, and files with their bytes.
pub type Contents = BTreeMap<PathBuf, Option<Image>>;

/// The simulated disk, and the machine that it is in. Clones are the same disk.
///
/// It is a [`Disk`] itself. After [`SimDisk::crash`] it fails every call, and so do the handles and locks that
/// it gave; the disk that the next start finds is a new one.
#[derive(Clone, Default)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    machine: Mutex<Machine>,
    /// Flushes are not held any more, or the machine is dead.
    released: Condvar,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.machine();
        f.debug_struct("SimDisk").field("dead", &machine.dead).finish_non_exhaustive()
    }
}

/// The machine: the disk's state, and what is to happen to it.
impl SimDisk {
    /// An empty disk with the directory `/`.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk whose random numbers are of this seed.
    pub fn with_seed(seed: u64) -> Self {
        let disk = Self::default();
        disk.set_seed(seed);
        disk
    }

    /// Begins its random numbers at `seed`: a copy draws others than the disk that it was made of.
    pub fn set_seed(&self, seed: u64) {
        self.machine().random = Random(seed);
    }

    /// As the trait object that a node takes.
    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// The clock of its machine, as a node takes it.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clone())
    }

    /// Crashes the machine: every later call of this disk, its handles and its locks fails. Gives the disk
    /// as the next start finds it. Faults that were set are over: rules, held flushes, limits of space,
    /// lies. Clock, random numbers, latency, counts and tracer go on.
    ///
    /// Of a disk that has crashed it gives what another policy would have left.
    pub fn crash(&self, policy: &CrashPolicy) -> Self {
        let mut machine = self.machine();
        machine.dead = true;
        let crashed = machine.crashed(policy);
        drop(machine);
        self.shared.released.notify_all();
        Self::of(crashed)
    }

    /// What [`Self::crash`] would give now; this disk goes on.
    pub fn after_crash(&self, policy: &CrashPolicy) -> Self {
        let crashed = self.machine().crashed(policy);
        Self::of(crashed)
    }

    /// The changes that are not durable, oldest first: what [`CrashPolicy::Exactly`] is about.
    pub fn pending(&self) -> Vec<PendingChange> {
        crash::describe(&self.machine().tree)
    }

    /// Makes everything durable.
    pub fn flush_all(&self) {
        self.machine().tree.flush_all();
    }

    /// Sets a fault. Every rule counts the operations that it is about; if several come to one operation,
    /// the one that was set first has it.
    pub fn inject(&self, rule: Rule) {
        self.machine().rules.push(ActiveRule::new(rule));
    }

    /// Sets a fault for the `nth` change from now on, counted from 0.
    pub fn fail_nth_change(&self, nth: u64, fault: Fault) {
        let (ops, when) = (Ops::Changes, When::Nth(nth));
        self.inject(Rule { ops, path: String::new(), when, fault });
    }

    /// Takes all faults back that were set with [`Self::inject`].
    pub fn clear_rules(&self) {
        self.machine().rules.clear();
    }

    /// Limits what may yet be allocated or written behind the end of files; none lifts the limit.
    pub fn set_space(&self, space: Option<u64>) {
        let mut machine = self.machine();
        (machine.space, machine.space_owed) = (space, 0);
    }

    /// Makes flushes say that all is well and do nothing, or do their work again.
    pub fn set_lying(&self, lying: bool) {
        self.machine().lying = lying;
    }

    /// Makes flushes of files wait, as on a disk that hangs, until it is called with false. The calling
    /// threads wait: not for a simulation in one thread.
    pub fn hold_flushes(&self, held: bool) {
        self.machine().held = held;
        self.shared.released.notify_all();
    }

    /// Damages a file. True if anything is different now.
    pub fn damage(&self, path: &Path, damage: &Damage) -> bool {
        let mut machine = self.machine();
        let bit = damage::inflict(&mut machine.tree, path, damage);
        if bit {
            machine.counts.note_fault(damage.kind());
        }
        bit
    }

    /// Replaces a file's bytes, durably and behind everyone's back.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut machine = self.machine();
        let file = machine.tree.find(path).and_then(|inode| machine.tree.file_mut(inode));
        let file = file.unwrap_or_else(|error| panic!("cannot tamper with {path:?}: {error}"));
        let mut bytes = file.live.to_vec();
        change(&mut bytes);
        file.durable = Image::from(&bytes[..]);
        file.lose_cache();
    }
}

/// Time.
impl SimDisk {
    /// Where the wall clock comes from, in milliseconds since 1970; without it the clock stands at 0.
    pub fn set_clock(&self, clock: impl Fn() -> u64 + Send + Sync + 'static) {
        self.machine().clock = Some(Arc::new(clock));
    }

    /// Sets this machine's wall clock so much forward, or back, from what it is.
    pub fn step_clock(&self, milliseconds: i64) {
        let machine = &mut self.machine();
        machine.clock_offset = machine.clock_offset.saturating_add(milliseconds);
    }

    /// How long operations take from now on.
    pub fn set_latency(&self, latency: Latency) {
        self.machine().latency = latency;
    }

    /// How long the next operation of this kind takes, with so many bytes. The disk itself waits for nothing:
    /// whoever drives the node waits before the operation, and for ever if the disk is stuck.
    pub fn latency(&self, kind: OpKind, bytes: u64) -> Duration {
        let mut machine = self.machine();
        let Machine { latency, latency_random, .. } = &mut *machine;
        let (taken, slow) = latency.draw(kind, bytes, latency_random);
        if slow {
            machine.counts.note_fault(FaultKind::SlowFlush);
        }
        taken
    }
}

/// Looking at it.
impl SimDisk {
    /// Number of operations so far that change something, failed ones included.
    pub fn changes(&self) -> u64 {
        self.machine().counts.changes()
    }

    /// Operations and faults so far, this disk's and those of the ones that it comes from by crashes.
    pub fn counts(&self) -> Counts {
        self.machine().counts.clone()
    }

    /// Is called after each operation. It must not call the disk.
    pub fn set_tracer(&self, tracer: Option<Tracer>) {
        self.machine().tracer = tracer;
    }

    /// True once the machine halted ([`Fault::Halt`]) or crashed.
    pub fn is_dead(&self) -> bool {
        self.machine().dead
    }

    /// Everything on the disk as it is seen now.
    pub fn contents(&self) -> Contents {
        self.machine().contents(false)
    }

    /// Everything that a power cut would leave that loses all it can. Copies no bytes.
    pub fn durable_contents(&self) -> Contents {
        self.machine().contents(true)
    }

    /// One file of [`Self::durable_contents`].
    pub fn durable_file(&self, path: &Path) -> Option<Image> {
        let tree = &self.machine().tree;
        let file = tree.find_durable(path).and_then(|inode| tree.file(inode));
        file.ok().map(|file| file.durable.clone())
    }

    /// True if a file was mapped since the disk was made or crashed.
    pub fn is_mapped(&self, path: &Path) -> bool {
        let tree = &self.machine().tree;
        tree.find(path).and_then(|inode| tree.file(inode)).is_ok_and(|file| file.mapped)
    }

    fn of(machine: Machine) -> Self {
        let shared = Shared { machine: Mutex::new(machine), released: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.shared.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
