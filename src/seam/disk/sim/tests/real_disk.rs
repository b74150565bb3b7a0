//! The simulated disk against the file system of this machine: the same calls, the same results.

use super::*;
use crate::seam::disk::RealDisk;

/// What a call gave: a value as text, or the kind of the error.
type Given = Result<String, io::ErrorKind>;

fn given<T: fmt::Debug>(result: io::Result<T>) -> Given {
    result.map(|value| format!("{value:?}")).map_err(|error| error.kind())
}

/// A disk, the directory on it that stands for `/`, and what is open.
struct Side {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    files: Vec<Arc<dyn DiskFile>>,
    locks: Vec<Box<dyn DiskLock>>,
}

impl Side {
    fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self { disk, root: root.to_owned(), files: Vec::new(), locks: Vec::new() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn call(&mut self, call: &Call) -> Given {
        match call {
            Call::Open(path, access) => {
                let opened = self.disk.open(&self.path(path), *access);
                given(opened.map(|file| self.files.push(file)))
            }
            Call::Rename(from, to) => given(self.disk.rename(&self.path(from), &self.path(to))),
            Call::SyncDir(path) => given(self.disk.sync_dir(&self.path(path))),
            Call::List(path) => given(self.disk.list(&self.path(path))),
            Call::Unlink(path) => given(self.disk.unlink(&self.path(path))),
            Call::MakeDir(path) => given(self.disk.mkdir(&self.path(path))),
            Call::RemoveDir(path) => given(self.disk.remove_dir(&self.path(path))),
            Call::Lock(path, mode) => {
                let lock = self.disk.lock(&self.path(path), *mode);
                given(lock.map(|lock| {
                    let locked = lock.is_some();
                    self.locks.extend(lock);
                    locked
                }))
            }
            Call::Unlock => {
                self.locks.pop();
                Ok(String::new())
            }
            Call::Close(file) => {
                if !self.files.is_empty() {
                    self.files.swap_remove(file % self.files.len());
                }
                Ok(String::new())
            }
            Call::On(file, call) => match self.files.len() {
                0 => Ok(String::new()),
                len => Self::on(&*self.files[file % len], call),
            },
        }
    }

    fn on(file: &dyn DiskFile, call: &FileCall) -> Given {
        match call {
            FileCall::Size => given(file.size()),
            FileCall::Allocate(from, to) => given(file.allocate(*from, *to)),
            FileCall::Cut(len) => given(file.cut(*len)),
            FileCall::Write(bytes, offset) => {
                let (one, two) = bytes.split_at(bytes.len() / 3);
                let buffers = [one, &[], two].map(io::IoSlice::new);
                given(file.write_vectored_at(&buffers, *offset))
            }
            FileCall::Read(len, offset) => {
                let mut buffer = vec![0; *len];
                let read = file.read_at(&mut buffer, *offset);
                given(read.map(|len| (len, crc32fast::hash(&buffer))))
            }
            FileCall::Flush => given(file.sync_data()),
        }
    }
}

#[derive(Debug)]
enum Call {
    Open(&'static str, Access),
    Rename(&'static str, &'static str),
    SyncDir(&'static str),
    List(&'static str),
    Unlink(&'static str),
    MakeDir(&'static str),
    RemoveDir(&'static str),
    Lock(&'static str, LockMode),
    Unlock,
    Close(usize),
    On(usize, FileCall),
}

#[derive(Debug)]
enum FileCall {
    Size,
    Allocate(u64, u64),
    Cut(u64),
    Write(Vec<u8>, u64),
    Read(usize, u64),
    Flush,
}

const PATHS: [&str; 9] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "a/x", "none/a"];

fn draw(random: &mut Random) -> Call {
    let mut path = || PATHS[random.below(PATHS.len())];
    let (path, other) = (path(), path());
    let access = [Access::Read, Access::Write, Access::Create][random.below(3)];
    let mode = [LockMode::Exclusive, LockMode::Shared][random.below(2)];
    match random.below(24) {
        0..4 => Call::Open(path, access),
        4 => Call::Rename(path, other),
        5 => Call::SyncDir(path),
        6 => Call::List(path),
        7 => Call::Unlink(path),
        8 => Call::MakeDir(path),
        9 => Call::RemoveDir(path),
        10 => Call::Lock(path, mode),
        11 => Call::Unlock,
        12 => Call::Close(random.below(100)),
        _ => Call::On(random.below(100), draw_on(random)),
    }
}

fn draw_on(random: &mut Random) -> FileCall {
    let (at, to) = (random.below(9000) as u64, random.below(9000) as u64);
    match random.below(12) {
        0 => FileCall::Size,
        1 => FileCall::Allocate(at, to),
        2 => FileCall::Cut(at),
        3 => FileCall::Flush,
        4..8 => FileCall::Read(random.below(5000), at),
        _ => {
            let mut bytes = vec![0; random.below(3000)];
            random.fill(&mut bytes);
            FileCall::Write(bytes, at)
        }
    }
}

/// A directory opened or locked as if it were a file, and a file synced as if it were a directory, are errors
/// here and not on Linux; the library does neither.
fn is_apart(call: &Call, disk: &SimDisk) -> bool {
    match call {
        Call::Open(path, Access::Read) | Call::Lock(path, LockMode::Shared) => {
            disk.list(&Path::new("/").join(path)).is_ok()
        }
        Call::SyncDir(path) => disk.open(&Path::new("/").join(path), Access::Read).is_ok(),
        _ => false,
    }
}

#[test]
fn it_does_and_says_the_same_as_the_file_system_of_this_machine() {
    let (mut failed, mut done) = (0, 0);
    for seed in 0..25 {
        let temp = tempfile::tempdir().expect("tempdir");
        let sim = SimDisk::new();
        let mut real = Side::new(RealDisk::shared(), temp.path());
        let mut simulated = Side::new(sim.shared(), Path::new("/"));
        let mut random = Random(seed);
        for step in 0..400 {
            let call = draw(&mut random);
            if is_apart(&call, &sim) {
                continue;
            }
            let (expected, found) = (real.call(&call), simulated.call(&call));
            assert_eq!(found, expected, "seed {seed}, step {step}: {call:?}");
            failed += usize::from(found.is_err());
            done += usize::from(found.is_ok());
        }
        let paths = [""].into_iter().chain(PATHS);
        for path in paths {
            let list = Call::List(path);
            assert_eq!(simulated.call(&list), real.call(&list), "seed {seed}: {path}");
        }
        for (simulated, real) in simulated.files.iter().zip(&real.files) {
            let len = real.size().expect("size");
            let mapped = simulated.map(len).expect("mapped");
            assert_eq!(mapped, real.map(len).expect("mapped"), "seed {seed}");
            assert_eq!(kind(simulated.map(len + 1)), kind(real.map(len + 1)));
        }
    }
    assert!(failed > 1000 && done > 2500, "{failed} failed, {done} were done");
}

#[test]
fn odd_calls_are_refused_as_by_the_file_system_of_this_machine() {
    let temp = tempfile::tempdir().expect("tempdir");
    let disks: [(Arc<dyn Disk>, &Path); 2] =
        [(RealDisk::shared(), temp.path()), (SimDisk::new().shared(), Path::new("/"))];
    let results = disks.map(|(disk, root)| {
        let path = root.join("f");
        let file = disk.open(&path, Access::Create).expect("create");
        file.write_all_at(b"x", 0).expect("write");
        let readable = disk.open(&path, Access::Read).expect("open");
        let many = vec![io::IoSlice::new(b"y"); 1025];
        disk.mkdir(&root.join("d")).expect("mkdir");
        disk.mkdir(&root.join("d/e")).expect("mkdir");
        [
            given(readable.write_vectored_at(&[io::IoSlice::new(b"y")], 0)),
            given(readable.write_vectored_at(&[], 0)),
            given(readable.cut(0)),
            given(readable.allocate(0, 5)),
            given(file.allocate(5, 5)),
            given(file.allocate(9, 5)),
            given(file.write_vectored_at(&many, 0)),
            given(file.write_vectored_at(&[], 50)),
            given(file.write_vectored_at(&[io::IoSlice::new(b"y")], u64::MAX - 5)),
            given(file.read_at(&mut [0; 4], 1 << 40)),
            given(file.read_at(&mut [0; 4], u64::MAX)),
            given(file.size()),
            given(disk.rename(&root.join("d"), &root.join("d/e/f"))),
            given(disk.rename(&root.join("d/e"), &root.join("d"))),
            given(disk.rename(&path, &root.join("d"))),
            given(disk.rename(&root.join("d/e"), &path)),
            given(disk.mkdir(&path)),
            given(disk.mkdir(&root.join("f/g"))),
            given(disk.remove_dir(&path)),
            given(disk.unlink(&root.join("d"))),
            given(disk.list(&path)),
            given(disk.open(&root.join("d"), Access::Write).map(drop)),
            given(disk.free_space(&root.join("nowhere"))),
        ]
    });
    for (number, (real, simulated)) in results[0].iter().zip(&results[1]).enumerate() {
        assert_eq!(simulated, real, "call {number}");
    }
}
