//! Read-only mappings of sealed segment files. The only `unsafe` of the library.
#![expect(unsafe_code, reason = "a mapping is sound only while nobody changes the file")]

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::MmapOptions;

use crate::mutant::Mutant;

/// Maps the first `len` bytes of `file`. The mapping lives as long as the last slice of it.
pub(super) fn map(file: &File, len: usize) -> io::Result<Bytes> {
    // SAFETY: invariant I7. Only sealed segments whose last entry is committed are mapped. Such a
    // file is never written or cut again by this process: truncation stops at the committed index,
    // and retention unlinks the file, which leaves mappings of it intact. Other processes are kept
    // out by the lock on the data directory. `len` lies within the file, which the caller has checked.
    let mapping = unsafe { MmapOptions::new().len(len).map(file)? };
    Ok(Bytes::from_owner(mapping))
}

/// Reads the pages of a mapping that hold these bytes. To look at a page that the disk cannot read, or that lies behind the
/// end of a file which somebody has cut, ends the process (SIGBUS): so it is asked for first. Bytes that are in memory anyway
/// cost a system call. Systems without `MADV_POPULATE_READ` (Linux before 5.14) find nothing.
///
/// # Errors
/// They cannot be read.
pub(crate) fn read_in(bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() || Mutant::MappedUnchecked.is_active() {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;
        use rustix::mm::{Advice, madvise};

        let before = bytes.as_ptr().addr() % rustix::param::page_size();
        let page = bytes.as_ptr().wrapping_sub(before).cast_mut().cast();
        // SAFETY: this advice changes no memory, and the pages are mapped: each holds some of `bytes`.
        match unsafe { madvise(page, before + bytes.len(), Advice::LinuxPopulateRead) } {
            // The system does not know the advice.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(Errno::FAULT) => Err(Errno::IO.into()),
            Err(error) => Err(error.into()),
        }
    }
    #[cfg(not(target_os = "linux"))]
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn what_a_mapping_can_no_longer_read_is_an_error_and_not_the_end_of_the_process() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&[7; 20_000], 0).expect("it is written");
        let mapping = map(&file, 20_000).expect("it is mapped");
        read_in(&mapping).expect("it is whole");
        read_in(&mapping[5_000..5_001]).expect("it is whole");
        file.set_len(9_000).expect("it is cut");
        read_in(&mapping[..8_192]).expect("this part is there");
        read_in(&mapping[16_384..]).expect_err("this is not");
        read_in(&mapping).expect_err("nor is all of it");
        read_in(b"").expect("nothing is asked for");
        read_in(&[1; 100]).expect("memory of any other kind is there");
    }
}
