//! What several benchmarks share. Each uses a part of it.
#![allow(dead_code, reason = "each benchmark uses a part")]

pub(crate) mod place;
pub(crate) mod recovered;
pub(crate) mod ways;
