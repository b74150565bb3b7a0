//! The file of a node: written to its end once before it is used, and then over and over.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FallocateFlags;

/// Zeros written at once to get there.
const STEP: usize = 4 << 20;

/// The file, and where it is written next.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    length: u64,
    at: u64,
}

impl Journal {
    /// Makes a file of this length, whose blocks are all written: a flush then writes data and nothing else.
    pub(crate) fn create(path: &Path, length: u64) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length)?;
        let zeros = vec![0; STEP];
        for at in (0..length).step_by(STEP) {
            let some = (length - at).min(STEP as u64) as usize;
            file.write_all_at(&zeros[..some], at)?;
        }
        file.sync_all()?;
        Ok(Self { file, length, at: 0 })
    }

    /// Writes a group; at the end of the file it goes on at the begin.
    pub(crate) fn write(&mut self, group: &[u8]) -> io::Result<()> {
        for part in group.chunks(self.length as usize) {
            if self.at + part.len() as u64 > self.length {
                self.at = 0;
            }
            self.file.write_all_at(part, self.at)?;
            self.at += part.len() as u64;
        }
        Ok(())
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
