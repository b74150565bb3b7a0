//! Exhaustive tests of what is stored: crashes and failures at every call of the disk, and damage to every
//! bit and sector of every file.

mod command;
mod crashes;
mod cuts;
mod damage;
mod files;
mod flips;
mod host;
mod io_errors;
mod judge;
mod layout;
mod model;
mod sample;
mod scenarios;
mod script;
mod tally;

#[cfg(test)]
mod tests;

pub use command::{StorageArgs, run};
