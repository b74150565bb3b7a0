//! Models of protocols, small enough to look at every state that they can reach.
//!
//! A model leaves out time, disks and threads, and keeps the rules. What holds in it holds of the
//! rules, within the bounds that were searched; whether the code follows the rules is for the
//! simulation to show.

mod async_recovery;
mod command;
mod search;

pub use command::{ModelArgs, run};
