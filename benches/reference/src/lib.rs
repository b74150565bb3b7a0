//! The floor: the least that an append to three nodes has to do.
//!
//! A fixed leader, two followers, records with a CRC, group commit onto preallocated files, pipelined
//! replication over TCP, commit by a majority, one acknowledgement a record. No elections, no terms, no
//! recovery, no reads: what it leaves out is what a log costs above it. It loses data by design.
//! `quorumlog bench --reference` runs it with the same load in the same run, so that each figure is a
//! ratio to what the machine can do.
//!
//! As few threads wake up for a record as can be: the leader's reader of a client's connection checks the
//! records, sends them on to both followers and leaves them to the disk's thread; a follower reads, writes,
//! flushes and answers in one thread; who completes the majority sends the acknowledgements. While a
//! flush runs, what comes next piles up in the sockets and is the next group.

mod client;
mod follower;
mod journal;
mod leader;
mod node;
mod quorum;
mod records;
#[cfg(test)]
mod tests;

pub use client::{Client, counts};
pub use node::{Config, Counts, run};
pub use records::PAYLOAD_MAX;
