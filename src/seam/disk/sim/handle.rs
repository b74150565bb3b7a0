//! What a node asks of the disk.

use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::io::Errno;

use super::crash;
use super::fault::{Fault, FaultKind, OpKind, dead, eio, no_space};
use super::file::FileState;
use super::image::{Image, SECTOR};
use super::machine::{Begun, Machine};
use super::random::Random;
use super::trace::Operation;
use super::tree::{DirState, Inode, Node};
use super::{Access, DirEntry, Disk, DiskFile, DiskLock, LockMode, SimDisk};
use crate::seam::Clock;

/// Longest file.
const FILE_LEN_MAX: u64 = 1 << 40;
/// Most buffers that one write takes, as on Linux.
const IO_SLICES_MAX: usize = 1024;

/// What is asked, of what.
struct Call<'a> {
    kind: OpKind,
    path: &'a Path,
    to: &'a Path,
    offset: u64,
}

impl<'a> Call<'a> {
    fn new(kind: OpKind, path: &'a Path) -> Self {
        Self { kind, path, to: path, offset: 0 }
    }
}

/// What an operation moved, for the tracer.
#[derive(Default)]
struct Moved {
    len: u64,
    crc: u32,
}

impl SimDisk {
    fn operate<T>(
        &self,
        call: &Call<'_>,
        work: impl FnOnce(&mut Machine, Begun, &mut Moved) -> io::Result<T>,
    ) -> io::Result<T> {
        self.operate_on(self.machine(), call, work)
    }

    fn operate_on<T>(
        &self,
        mut machine: MutexGuard<'_, Machine>,
        call: &Call<'_>,
        work: impl FnOnce(&mut Machine, Begun, &mut Moved) -> io::Result<T>,
    ) -> io::Result<T> {
        if machine.dead {
            return Err(dead());
        }
        let number = machine.counts.total();
        let mut moved = Moved::default();
        let begun = machine.begin(call.kind, [call.path, call.to]);
        let result = begun.and_then(|begun| work(&mut machine, begun, &mut moved));
        if machine.dead {
            self.shared.released.notify_all();
        }
        if let Some(tracer) = machine.tracer.clone() {
            drop(machine);
            let Moved { len, crc } = moved;
            let (&Call { kind, path, offset, .. }, result) = (call, result.as_ref().map(|_| ()));
            tracer(&Operation { number, kind, path, offset, len, crc, result });
        }
        result
    }

    fn unlink_then(
        &self,
        path: &Path,
        release: impl FnOnce(&mut Machine, Option<Inode>),
    ) -> io::Result<()> {
        self.operate(&Call::new(OpKind::Unlink, path), |machine, begun, _| {
            let slot = machine.tree.slot(path)?;
            let inode = slot.inode.ok_or(ErrorKind::NotFound)?;
            machine.tree.file(inode)?;
            release(machine, slot.inode);
            machine.tree.remove(begun.operation, path, slot);
            Ok(())
        })
    }

    /// What a call at this path would do, which decides what it counts as.
    fn is_absent(&self, path: &Path) -> bool {
        self.machine().tree.find(path).is_err()
    }

    fn handle(
        &self,
        machine: &Machine,
        inode: Inode,
        path: &Path,
        access: Access,
    ) -> io::Result<SimFile> {
        let open = Arc::clone(&machine.tree.file(inode)?.open);
        let (disk, path) = (self.clone(), path.to_owned());
        Ok(SimFile { disk, inode, path, writable: access != Access::Read, _open: open })
    }
}

fn create(machine: &mut Machine, operation: u64, path: &Path) -> io::Result<Inode> {
    let slot = machine.tree.slot(path)?;
    match slot.inode {
        Some(inode) => Ok(inode),
        None => Ok(machine.tree.make(operation, path, slot, Node::File(FileState::default()))),
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let kind = if access == Access::Create { OpKind::Create } else { OpKind::Open };
        self.operate(&Call::new(kind, path), |machine, begun, _| {
            let inode = match access {
                Access::Read | Access::Write => machine.tree.find(path)?,
                Access::Create => create(machine, begun.operation, path)?,
            };
            let file = machine.tree.file_mut(inode)?;
            if access == Access::Create {
                assert!(!file.mapped, "I7: a mapped file is emptied");
                let len = file.live.len();
                file.cut(begun.operation, 0);
                machine.space = machine.space.map(|space| space.saturating_add(len));
            }
            Ok(Arc::new(self.handle(machine, inode, path, access)?) as Arc<dyn DiskFile>)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = Call { to, ..Call::new(OpKind::Rename, from) };
        self.operate(&call, |machine, begun, _| {
            let (from, target) = (machine.tree.slot(from)?, machine.tree.slot(to)?);
            if machine.tree.may_rename(&from, &target)? {
                machine.release(target.inode);
                machine.tree.rename(begun.operation, to, from, target);
            }
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.operate(&Call::new(OpKind::SyncDir, dir), |machine, _, _| {
            let inode = machine.tree.find(dir)?;
            if !machine.tree.is_dir(inode) {
                return Err(ErrorKind::NotADirectory.into());
            }
            if !machine.lying {
                machine.tree.sync(inode);
            } else if !machine.tree.pending.is_empty() {
                machine.counts.note_fault(FaultKind::LyingFlush);
            }
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.operate(&Call::new(OpKind::List, dir), |machine, _, _| {
            let names = machine.tree.list(machine.tree.find(dir)?)?;
            Ok(names.map(|(name, is_dir)| DirEntry { name: name.to_owned(), is_dir }).collect())
        })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.unlink_then(path, Machine::release)
    }

    fn unlink_later(&self, path: &Path) -> io::Result<()> {
        self.unlink_then(path, Machine::release_later)
    }

    fn mkdir(&self, dir: &Path) -> io::Result<()> {
        self.operate(&Call::new(OpKind::MakeDir, dir), |machine, begun, _| {
            if machine.tree.find(dir).is_ok() {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let slot = machine.tree.slot(dir)?;
            machine.tree.make(begun.operation, dir, slot, Node::Dir(DirState::default()));
            Ok(())
        })
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.operate(&Call::new(OpKind::RemoveDir, dir), |machine, begun, _| {
            let slot = machine.tree.slot(dir)?;
            let inode = slot.inode.ok_or(ErrorKind::NotFound)?;
            if machine.tree.list(inode)?.next().is_some() {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            machine.tree.remove(begun.operation, dir, slot);
            Ok(())
        })
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Option<Box<dyn DiskLock>>> {
        let makes = mode == LockMode::Exclusive && self.is_absent(path);
        let kind = if makes { OpKind::Create } else { OpKind::Lock };
        self.operate(&Call::new(kind, path), |machine, begun, _| {
            let inode = match mode {
                LockMode::Exclusive => create(machine, begun.operation, path)?,
                LockMode::Shared => machine.tree.find(path)?,
            };
            let open = Arc::clone(&machine.tree.file(inode)?.open);
            let held = machine.locks.entry(inode).or_default();
            let alone = mode == LockMode::Exclusive;
            let conflict = |(_, held): &(u64, LockMode)| alone || *held == LockMode::Exclusive;
            if held.iter().any(conflict) {
                return Ok(None);
            }
            held.push((begun.operation, mode));
            let lock = SimLock { disk: self.clone(), inode, number: begun.operation, _open: open };
            Ok(Some(Box::new(lock) as Box<dyn DiskLock>))
        })
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        self.operate(&Call::new(OpKind::FreeSpace, path), |machine, _, _| {
            machine.tree.find(path)?;
            Ok(machine.space.unwrap_or(u64::MAX))
        })
    }

    fn boot_id(&self, _path: &Path) -> Option<u128> {
        Some(u128::from(self.machine().boots))
    }
}

impl Clock for SimDisk {
    fn now_ms(&self) -> u64 {
        self.machine().now_ms()
    }

    fn random(&self) -> io::Result<u128> {
        self.operate(&Call::new(OpKind::Random, Path::new("/")), |machine, _, _| {
            let random = &mut machine.random;
            Ok(u128::from(random.next()) << 64 | u128::from(random.next()))
        })
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    inode: Inode,
    number: u64,
    _open: Arc<()>,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let locks = &mut self.disk.machine().locks;
        if let Some(held) = locks.get_mut(&self.inode) {
            held.retain(|(number, _)| *number != self.number);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: Inode,
    path: PathBuf,
    writable: bool,
    /// Keeps the file's bytes while it has no name.
    _open: Arc<()>,
}

impl SimFile {
    fn call(&self, kind: OpKind, offset: u64) -> Call<'_> {
        Call { offset, ..Call::new(kind, &self.path) }
    }

    fn need_writable(&self, otherwise: Errno) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(otherwise.into()) }
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.disk.operate(&self.call(OpKind::Size, 0), |machine, _, _| {
            Ok(machine.tree.file(self.inode)?.live.len())
        })
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.disk.operate(&self.call(OpKind::Allocate, from), |machine, begun, moved| {
            if from >= to {
                return Err(Errno::INVAL.into());
            }
            self.need_writable(Errno::BADF)?;
            if to > FILE_LEN_MAX {
                return Err(Errno::FBIG.into());
            }
            let more = to.saturating_sub(machine.tree.file(self.inode)?.live.len());
            if machine.space.is_some_and(|space| space < more) {
                return Err(machine.no_space());
            }
            machine.take_space(more, more)?;
            machine.tree.file_mut(self.inode)?.extend(begun.operation, to);
            moved.len = to - from;
            Ok(())
        })
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.disk.operate(&self.call(OpKind::Cut, len), |machine, begun, _| {
            self.need_writable(Errno::INVAL)?;
            if len > FILE_LEN_MAX {
                return Err(Errno::FBIG.into());
            }
            let file = machine.tree.file_mut(self.inode)?;
            assert!(!file.mapped, "I7: a mapped file is cut");
            let freed = file.live.len().saturating_sub(len);
            file.cut(begun.operation, len);
            machine.space = machine.space.map(|space| space.saturating_add(freed));
            Ok(())
        })
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.disk.operate(&self.call(OpKind::Write, offset), |machine, begun, moved| {
            self.need_writable(Errno::BADF)?;
            let buffers = &buffers[..buffers.len().min(IO_SLICES_MAX)];
            let whole: usize = buffers.iter().map(|buffer| buffer.len()).sum();
            need_offset(offset)?;
            if offset.saturating_add(whole as u64) > FILE_LEN_MAX {
                return Err(Errno::FBIG.into());
            }
            let short = begun.fault == Some(Fault::Short);
            let len = if short { whole.div_ceil(2) } else { whole };
            let file = machine.tree.file(self.inode)?;
            assert!(!file.mapped, "I7: a mapped file is written");
            let more = (offset + len as u64).saturating_sub(file.live.len());
            let len = if len == 0 { 0 } else { machine.take_space(more, len as u64)? as usize };
            let bytes = gather(buffers, len);
            moved.len = len as u64;
            if machine.tracer.is_some() {
                moved.crc = crc32fast::hash(&bytes);
            }
            if len > 0 {
                let file = machine.tree.file_mut(self.inode)?;
                write(file, &begun, offset, bytes);
            }
            Ok(len)
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.operate(&self.call(OpKind::Read, offset), |machine, begun, moved| {
            need_offset(offset)?;
            let short = begun.fault == Some(Fault::Short);
            let wanted = if short { buffer.len().div_ceil(2) } else { buffer.len() };
            let file = machine.tree.file(self.inode)?;
            let read = file.live.read_at(&mut buffer[..wanted], offset);
            moved.len = read as u64;
            if machine.tracer.is_some() {
                moved.crc = crc32fast::hash(&buffer[..read]);
            }
            Ok(read)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = self.disk.machine();
        if machine.held && !machine.dead {
            machine.counts.note_fault(FaultKind::HeldFlush);
            let waits = |machine: &mut Machine| machine.held && !machine.dead;
            let released = self.disk.shared.released.wait_while(machine, waits);
            machine = released.unwrap_or_else(PoisonError::into_inner);
        }
        self.disk.operate_on(machine, &self.call(OpKind::Flush, 0), |machine, begun, moved| {
            let lying = machine.lying;
            let file = machine.tree.file_mut(self.inode)?;
            moved.len = file.pending_bytes();
            let Some(fault) = begun.fault else {
                if !lying {
                    file.flush();
                } else if !file.pending.is_empty() {
                    machine.counts.note_fault(FaultKind::LyingFlush);
                }
                return Ok(());
            };
            if let Fault::TornFlush { seed } = fault {
                crash::tear_flush(file, &mut Random(seed));
            }
            file.fail_flush();
            Err(if fault == Fault::NoSpace { no_space() } else { eio() })
        })
    }

    fn map(&self, len: u64) -> io::Result<Bytes> {
        self.disk.operate(&self.call(OpKind::Map, 0), |machine, _, moved| {
            let file = machine.tree.file_mut(self.inode)?;
            if len > file.live.len() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            file.mapped = true;
            let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            file.live.read_at(&mut bytes, 0);
            moved.len = len;
            if machine.tracer.is_some() {
                moved.crc = crc32fast::hash(&bytes);
            }
            Ok(bytes.into())
        })
    }
}

/// Offsets are signed for the system.
fn need_offset(offset: u64) -> io::Result<()> {
    if i64::try_from(offset).is_ok() { Ok(()) } else { Err(Errno::INVAL.into()) }
}

/// The first `len` bytes of `buffers`.
fn gather(buffers: &[IoSlice<'_>], len: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(len);
    for buffer in buffers {
        let left = len - bytes.len();
        bytes.extend_from_slice(&buffer[..buffer.len().min(left)]);
    }
    bytes.into()
}

/// Writes, and decides where it will be written back to.
fn write(file: &mut FileState, begun: &Begun, offset: u64, bytes: Bytes) {
    let landing = match begun.fault {
        Some(Fault::LostWrite) => None,
        Some(Fault::MisdirectedWrite { sectors }) => {
            Some((misdirected(&file.live, offset, bytes.len() as u64, sectors), bytes.clone()))
        }
        _ => Some((offset, bytes.clone())),
    };
    file.write(begun.operation, offset, &bytes, landing);
}

/// Where a write lands that goes wrong by some sectors: within the file, and not where it should.
fn misdirected(live: &Image, offset: u64, len: u64, sectors: u64) -> u64 {
    let room = live.len().max(offset + len) / SECTOR + 1;
    let (sector, within) = (offset / SECTOR, offset % SECTOR);
    (sector + sectors % room) % room * SECTOR + within
}
