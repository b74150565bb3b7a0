//! How large the log is that is opened.

use quorumlog::ByteCount;

/// What `QUORUMLOG_BENCH_LOG` says, or else `default`.
pub(crate) fn log_size(default: ByteCount) -> ByteCount {
    let size = std::env::var("QUORUMLOG_BENCH_LOG").ok();
    size.map_or(default, |size| size.parse().expect("QUORUMLOG_BENCH_LOG is a size"))
}
