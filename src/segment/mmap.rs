//! Read-only mappings of sealed segment files. The only `unsafe` of the library.
#![expect(unsafe_code, reason = "a mapping is sound only while nobody changes the file")]

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::MmapOptions;

/// Maps the first `len` bytes of `file`. The mapping lives as long as the last slice of it.
pub(super) fn map(file: &File, len: usize) -> io::Result<Bytes> {
    // SAFETY: invariant I7. Only sealed segments whose last entry is committed are mapped. Such a
    // file is never written or cut again by this process: truncation stops at the committed index,
    // and retention unlinks the file, which leaves mappings of it intact. Other processes are kept
    // out by the lock on the data directory. `len` lies within the file, which the caller has checked.
    let mapping = unsafe { MmapOptions::new().len(len).map(file)? };
    Ok(Bytes::from_owner(mapping))
}
