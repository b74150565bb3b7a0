//! What the simulated disk promises, and that every fault bites.

mod cost;
mod crashes;
mod damages;
mod enumeration;
mod faults;
mod handles;
mod real_disk;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;

fn create(disk: &SimDisk, path: &str) -> Arc<dyn DiskFile> {
    disk.open(Path::new(path), Access::Create).expect("create")
}

fn write(file: &Arc<dyn DiskFile>, at: u64, bytes: &[u8]) {
    file.write_all_at(bytes, at).expect("write");
}

/// A file whose bytes and name are durable.
fn durable(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = create(disk, path);
    write(&file, 0, bytes);
    file.sync_data().expect("flush");
    disk.sync_dir(Path::new(path).parent().expect("a file")).expect("sync");
    file
}

/// Files by their path, as a string; `None` is a directory.
fn seen(disk: &SimDisk) -> BTreeMap<String, Option<Vec<u8>>> {
    plain(disk.contents())
}

fn plain(contents: Contents) -> BTreeMap<String, Option<Vec<u8>>> {
    let text = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
    contents.into_iter().map(|(path, file)| (text(path), file.map(|f| f.to_vec()))).collect()
}

fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    seen(disk).remove(path).flatten()
}

/// What is left of a file after a crash.
fn after(disk: &SimDisk, policy: CrashPolicy, path: &str) -> Option<Vec<u8>> {
    read(&disk.after_crash(&policy), path)
}

fn names(disk: &SimDisk) -> Vec<String> {
    seen(disk).into_keys().filter(|path| path != "/").collect()
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("it fails").kind()
}

fn raw<T>(result: io::Result<T>) -> Option<i32> {
    result.err().expect("it fails").raw_os_error()
}

/// A rule for one kind of operation at any path.
fn rule(kind: OpKind, when: When, fault: Fault) -> Rule {
    Rule { ops: Ops::Kind(kind), path: String::new(), when, fault }
}
