//! The time of day and random numbers: the machine's in production, made up in a simulation.

use std::fmt;
use std::io;

mod system;

pub use system::SystemClock;

/// A wall clock and a source of random numbers: whatever a node takes from its machine that is neither in its files nor in
/// what others send. Elapsed time is tokio's.
///
/// The wall clock may be wrong, and it may jump in either direction.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Wall clock, milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// A random number that nobody else draws.
    ///
    /// # Errors
    /// The system has none to give.
    fn random(&self) -> io::Result<u128>;
}
