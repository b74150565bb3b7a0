//! A disk in memory, for tests: it knows what was flushed, can lose the rest as a power cut does, and
//! can fail or stop at any operation.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bytes::Bytes;

use super::disk::{Access, DirEntry, Disk, DiskFile, DiskLock, LockMode};

/// Writes are torn between sectors of this size.
const SECTOR: usize = 512;

/// What a crash leaves of the changes that were not flushed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keep {
    /// A crash of the process: the page cache stays.
    Everything,
    /// A power cut before anything was written back.
    Nothing,
    /// A power cut in the middle of it: each write whole, in part or not at all, as the seed has it.
    Some(u64),
}

/// What happens at the chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It and all later ones fail: the machine is dead.
    Halt,
    /// It fails once with this error.
    Error(ErrorKind),
}

/// The disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct TestDisk {
    inner: Arc<Mutex<Inner>>,
    released: Arc<Condvar>,
}

#[derive(Debug, Default, Clone)]
struct Inner {
    files: Vec<File>,
    live: Names,
    durable: Names,
    /// Changes of names that are not durable, oldest first.
    pending: Vec<NameChange>,
    changes: u64,
    trouble: Option<(u64, Trouble)>,
    halted: bool,
    /// Flushes wait, as on a disk that hangs.
    held: bool,
    /// Bytes that may yet be allocated.
    space: Option<u64>,
    drawn: u64,
}

#[derive(Debug, Default, Clone)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last flush, oldest first.
    writes: Vec<(usize, Vec<u8>)>,
    mapped: bool,
}

/// What a path names: a file by its number, or a directory.
type Names = BTreeMap<PathBuf, Option<usize>>;

#[derive(Debug, Clone)]
enum NameChange {
    Make(PathBuf, Option<usize>),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn path(&self) -> &Path {
        match self {
            Self::Make(path, _) | Self::Remove(path) | Self::Rename(_, path) => path,
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Make(path, what) => drop(names.insert(path.clone(), *what)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename(from, to) => {
                let moved: Vec<_> =
                    names.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in moved {
                    let what = names.remove(&path).expect("listed");
                    let rest = path.strip_prefix(from).expect("below");
                    let path = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                    names.insert(path, what);
                }
            }
        }
    }
}

impl TestDisk {
    /// An empty disk with the directory `/`.
    pub(crate) fn new() -> Self {
        let disk = Self::default();
        disk.inner().live.insert("/".into(), None);
        disk.inner().durable.insert("/".into(), None);
        disk
    }

    /// As the trait object that the rest takes.
    pub(crate) fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Number of changing operations so far.
    pub(crate) fn changes(&self) -> u64 {
        self.inner().changes
    }

    /// Makes trouble at the `at`th changing operation from the beginning, counted from 0.
    pub(crate) fn trouble_at(&self, at: u64, trouble: Trouble) {
        self.inner().trouble = Some((at, trouble));
    }

    /// Limits what may yet be allocated; none lifts the limit.
    pub(crate) fn set_space(&self, space: Option<u64>) {
        self.inner().space = space;
    }

    /// The disk after a crash, as the next start finds it.
    pub(crate) fn crash(&self, keep: Keep) -> Self {
        let mut inner = self.inner().clone();
        let mut random = Random(match keep {
            Keep::Some(seed) => seed,
            _ => 0,
        });
        let changes = std::mem::take(&mut inner.pending);
        let kept = match keep {
            Keep::Everything => changes.len(),
            Keep::Nothing => 0,
            Keep::Some(_) => random.below(changes.len() + 1),
        };
        changes[..kept].iter().for_each(|change| change.apply(&mut inner.durable));
        for file in &mut inner.files {
            for (at, bytes) in std::mem::take(&mut file.writes) {
                let len = match keep {
                    Keep::Everything => bytes.len(),
                    Keep::Nothing => 0,
                    Keep::Some(_) => match random.below(3) {
                        0 => 0,
                        1 => bytes.len(),
                        _ => {
                            // Torn where a sector of the file ends.
                            let end = at + random.below(bytes.len() + 1);
                            (end / SECTOR * SECTOR).saturating_sub(at)
                        }
                    },
                };
                overwrite(&mut file.durable, at, &bytes[..len]);
            }
            file.live = file.durable.clone();
            file.mapped = false;
        }
        let names = inner.durable.clone();
        let reachable = |path: &Path| path.ancestors().all(|above| names.contains_key(above));
        inner.durable.retain(|path, _| reachable(path));
        inner.live = inner.durable.clone();
        (inner.halted, inner.trouble, inner.space, inner.held) = (false, None, None, false);
        Self { inner: Arc::new(Mutex::new(inner)), released: Arc::default() }
    }

    /// Makes flushes of files wait until it is called again with false.
    pub(crate) fn hold_flushes(&self, held: bool) {
        self.inner().held = held;
        self.released.notify_all();
    }

    /// True once the chosen operation was reached.
    pub(crate) fn is_halted(&self) -> bool {
        self.inner().halted
    }

    /// Lets a new process use the disk after the old one died; nothing was flushed by that.
    pub(crate) fn restart_process(&self) {
        let mut inner = self.inner();
        (inner.halted, inner.trouble, inner.space) = (false, None, None);
    }

    /// Everything on the disk as it is seen now.
    pub(crate) fn contents(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let inner = self.inner();
        let bytes = |what: &Option<usize>| what.map(|number| inner.files[number].live.clone());
        inner.live.iter().map(|(path, what)| (path.clone(), bytes(what))).collect()
    }

    /// Replaces a file's bytes, durably and behind everyone's back.
    pub(crate) fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner();
        let number = inner.live[path].expect("a file");
        let file = &mut inner.files[number];
        change(&mut file.live);
        file.durable = file.live.clone();
        file.writes.clear();
    }

    /// True if a file was mapped since the disk was made or crashed.
    pub(crate) fn is_mapped(&self, path: &Path) -> bool {
        let inner = self.inner();
        inner.files[inner.live[path].expect("a file")].mapped
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic under this lock")
    }

    /// Counts a change, and fails it if there is to be trouble.
    fn begin(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.inner();
        let at = inner.changes;
        inner.changes += 1;
        match inner.trouble {
            Some((when, Trouble::Halt)) if at >= when => inner.halted = true,
            Some((when, Trouble::Error(kind))) if at == when => return Err(kind.into()),
            _ => {}
        }
        if inner.halted { Err(io::Error::other("the machine is dead")) } else { Ok(inner) }
    }

    fn rename_entry(&self, change: NameChange) -> io::Result<()> {
        let mut inner = self.begin()?;
        change.apply(&mut inner.live);
        inner.pending.push(change);
        Ok(())
    }
}

impl Disk for TestDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let found = self.inner().live.get(path).copied();
        let number = match (found, access) {
            (Some(Some(number)), Access::Read | Access::Write) => number,
            (Some(None), _) => return Err(ErrorKind::IsADirectory.into()),
            (None, Access::Read | Access::Write) => return Err(ErrorKind::NotFound.into()),
            (_, Access::Create) => {
                let mut inner = self.begin()?;
                if !inner.live.contains_key(path.parent().expect("absolute")) {
                    return Err(ErrorKind::NotFound.into());
                }
                let number = inner.files.len();
                inner.files.push(File::default());
                let change = NameChange::Make(path.to_owned(), Some(number));
                change.apply(&mut inner.live);
                inner.pending.push(change);
                number
            }
        };
        Ok(Arc::new(TestFile { disk: self.clone(), number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.inner().live.contains_key(from) {
            return Err(ErrorKind::NotFound.into());
        }
        self.rename_entry(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.begin()?;
        let pending = std::mem::take(&mut inner.pending);
        for change in pending {
            if change.path().parent() == Some(dir) {
                change.apply(&mut inner.durable);
            } else {
                inner.pending.push(change);
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let inner = self.inner();
        if !inner.live.contains_key(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = inner.live.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, what): (&PathBuf, &Option<usize>)| DirEntry {
            name: path.file_name().expect("not the root").to_string_lossy().into_owned(),
            is_dir: what.is_none(),
        };
        Ok(inside.map(entry).collect())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let Some(Some(number)) = self.inner().live.get(path).copied() else {
            return Err(ErrorKind::NotFound.into());
        };
        self.rename_entry(NameChange::Remove(path.to_owned()))?;
        let mut inner = self.inner();
        let len = inner.files[number].live.len() as u64;
        inner.space = inner.space.map(|space| space + len);
        Ok(())
    }

    fn mkdir(&self, dir: &Path) -> io::Result<()> {
        let inner = self.inner();
        if inner.live.contains_key(dir) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if !dir.parent().is_some_and(|parent| inner.live.contains_key(parent)) {
            return Err(ErrorKind::NotFound.into());
        }
        drop(inner);
        self.rename_entry(NameChange::Make(dir.to_owned(), None))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        if !self.list(dir)?.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.rename_entry(NameChange::Remove(dir.to_owned()))
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Option<Box<dyn DiskLock>>> {
        if mode == LockMode::Exclusive {
            self.open(path, Access::Create)?;
        }
        Ok(Some(Box::new(TestLock)))
    }

    fn free_space(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.inner().space.unwrap_or(u64::MAX))
    }

    fn now_ms(&self) -> u64 {
        0
    }

    fn random(&self) -> io::Result<u128> {
        let mut inner = self.inner();
        inner.drawn += 1;
        let mut random = Random(inner.drawn);
        Ok(u128::from(random.next()) << 64 | u128::from(random.next()))
    }
}

#[derive(Debug)]
struct TestLock;

impl DiskLock for TestLock {}

#[derive(Debug)]
struct TestFile {
    disk: TestDisk,
    number: usize,
}

impl DiskFile for TestFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.inner().files[self.number].live.len() as u64)
    }

    fn allocate(&self, _from: u64, to: u64) -> io::Result<()> {
        let mut inner = self.disk.begin()?;
        let len = inner.files[self.number].live.len();
        let more = (to as usize).saturating_sub(len);
        if let Some(space) = &mut inner.space {
            *space = space.checked_sub(more as u64).ok_or(ErrorKind::StorageFull)?;
        }
        inner.files[self.number].write(len, &vec![0; more]);
        Ok(())
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.begin()?;
        let file = &mut inner.files[self.number];
        assert!(!file.mapped, "I7: a mapped file is cut");
        file.live.truncate(len as usize);
        // Only unused space is ever cut off, so that it does not matter when it becomes durable.
        file.durable.truncate(len as usize);
        file.writes.retain(|(at, _)| *at < len as usize);
        Ok(())
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut inner = self.disk.begin()?;
        let file = &mut inner.files[self.number];
        assert!(!file.mapped, "I7: a mapped file is written");
        let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
        file.write(offset as usize, &bytes);
        Ok(bytes.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.disk.inner();
        let live = &inner.files[self.number].live;
        let from = live.get(offset as usize..).unwrap_or_default();
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let inner = self.disk.begin()?;
        let held = self.disk.released.wait_while(inner, |inner| inner.held);
        let mut inner = held.expect("no panic under this lock");
        let file = &mut inner.files[self.number];
        file.durable = file.live.clone();
        file.writes.clear();
        Ok(())
    }

    fn map(&self, len: u64) -> io::Result<Bytes> {
        let mut inner = self.disk.inner();
        let file = &mut inner.files[self.number];
        file.mapped = true;
        let bytes = file.live.get(..len as usize).ok_or(ErrorKind::UnexpectedEof)?;
        Ok(Bytes::copy_from_slice(bytes))
    }
}

impl File {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        overwrite(&mut self.live, at, bytes);
        self.writes.push((at, bytes.to_vec()));
    }
}

fn overwrite(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    file.resize(file.len().max(at + bytes.len()), 0);
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// SplitMix64.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
