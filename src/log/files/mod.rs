//! The files of a data directory and of a log, but for its segments.

pub(in crate::log) mod checkpoint_file;
pub(in crate::log) mod checkpoints;
pub(in crate::log) mod damage;
pub(in crate::log) mod data_dir;
pub(in crate::log) mod manifest;
pub(in crate::log) mod vote_file;
