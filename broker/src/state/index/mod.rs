//! What is kept on disk to find messages by: places and keys, and what is made again of it.

pub(super) mod index_files;
pub(super) mod keys;
pub(super) mod lookup;
pub(super) mod rebuild;
pub(super) mod voids;
