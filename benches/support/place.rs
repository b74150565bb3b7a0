//! Where benchmarks have their files.

use std::path::PathBuf;

use tempfile::TempDir;

/// A directory on the disk of the target directory, or below the one that `QUORUMLOG_BENCH_DIR` names.
pub(crate) fn directory() -> TempDir {
    let parent = std::env::var_os("QUORUMLOG_BENCH_DIR");
    let parent = parent.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    tempfile::tempdir_in(parent).expect("the directory can be written")
}
