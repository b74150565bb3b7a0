//! Lets the disk begin with what was written while the writer goes on.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::background::Background;

/// Flushes files. A hint that it does not take is dropped.
static FLUSHING: Background<Arc<Ahead>> = Background::new("quorumlog-writeback", flush);

/// One file's way to the thread that flushes ahead.
#[derive(Debug)]
pub(super) struct Writeback {
    path: PathBuf,
    ahead: OnceLock<Option<Arc<Ahead>>>,
}

/// The file, opened once more: an error of writing is reported once to each opening, so that flushing ahead takes none
/// away from the flush that counts.
#[derive(Debug)]
struct Ahead {
    file: File,
    under_way: AtomicBool,
}

impl Writeback {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), ahead: OnceLock::new() }
    }

    /// Has the file flushed by another thread, unless that is under way.
    pub(super) fn start(&self) {
        let open = || {
            let file = OpenOptions::new().write(true).open(&self.path).ok()?;
            Some(Arc::new(Ahead { file, under_way: AtomicBool::new(false) }))
        };
        let Some(ahead) = self.ahead.get_or_init(open) else { return };
        if ahead.under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        if !FLUSHING.offer(Arc::clone(ahead)) {
            ahead.under_way.store(false, Ordering::Release);
        }
    }
}

fn flush(ahead: Arc<Ahead>) {
    // The flush that counts meets the same error, if there is one.
    let _ = ahead.file.sync_data();
    ahead.under_way.store(false, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_flushed_ahead_once_at_a_time_and_again_later() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("f");
        let mut file = File::create_new(&path).expect("create");
        let writeback = Writeback::new(&path);
        for _ in 0..3 {
            file.write_all(&[7; 4096]).expect("write");
            writeback.start();
            let ahead = writeback.ahead.get().and_then(Option::as_ref).expect("the file is there");
            while ahead.under_way.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_file_that_is_gone_is_left_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let writeback = Writeback::new(&dir.path().join("gone"));
        writeback.start();
        assert!(writeback.ahead.get().is_some_and(Option::is_none));
    }
}
