//! Gives back the space of removed files while whoever removed them goes on: a file system takes tens of milliseconds
//! for a segment, in which its log would write nothing.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::background::Background;

/// Smaller files are freed at once.
const LARGE: u64 = 1 << 20;

/// Closes files. What it does not take is closed, and freed, by whoever offers it.
static FREEING: Background<File> = Background::new("quorumlog-freeing", drop);

/// Removes a file's name. If the file is large, its space is free some time later.
pub(super) fn unlink(path: &Path) -> io::Result<()> {
    unlink_with(path, |file| {
        FREEING.offer(file);
    })
}

/// A file that is open keeps its space when its name goes, and `free` is to close it.
fn unlink_with(path: &Path, free: impl FnOnce(File)) -> io::Result<()> {
    let is_large = |file: &File| file.metadata().is_ok_and(|meta| meta.len() >= LARGE);
    let large = File::open(path).ok().filter(is_large);
    fs::remove_file(path)?;
    if let Some(file) = large {
        free(file);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Removes a file of `len` bytes; gives what is left to be closed.
    fn removed(len: u64) -> Option<File> {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("f");
        File::create_new(&path).and_then(|file| file.set_len(len)).expect("a file");
        let mut left = None;
        unlink_with(&path, |file| left = Some(file)).expect("unlink");
        assert!(!path.exists(), "the name is gone on return");
        left
    }

    #[test]
    fn a_large_file_keeps_its_space_until_it_is_closed_and_a_small_one_does_not() {
        assert!(removed(LARGE - 1).is_none());
        let meta = removed(LARGE).expect("open").metadata().expect("metadata");
        assert_eq!((meta.len(), meta.nlink()), (LARGE, 0));
    }

    #[test]
    fn the_thread_closes_what_it_gets() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("f");
        File::create_new(&path).and_then(|file| file.set_len(LARGE)).expect("a file");
        unlink(&path).expect("unlink");
        let name = format!("{} (deleted)", path.display());
        let is_open = || {
            let fds = fs::read_dir("/proc/self/fd").expect("fds").flatten();
            fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|link| *link == *name)
        };
        while is_open() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().expect("tempdir");
        let gone = unlink(&dir.path().join("gone")).expect_err("not there");
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
