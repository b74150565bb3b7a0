//! A deterministic world for whole nodes: hosts, their clocks, and the network between them.
//!
//! ```
//! use std::time::Duration;
//! use jepsen::world::{World, WorldConfig, simulate};
//!
//! let hash = simulate(7, || {
//!     let mut world = World::new(WorldConfig::new(7));
//!     world.start("node1", || async {
//!         tokio::time::sleep(Duration::from_secs(3)).await;
//!         Ok(())
//!     });
//!     assert!(world.run_until(Duration::from_secs(5), |world| !world.is_running("node1")));
//!     assert_eq!(world.now().as_secs(), 3);
//!     world.trace().hash()
//! });
//! # let _ = hash;
//! ```
//!
//! Everything runs on one thread. Each host is its own tokio runtime with a paused clock, and
//! [`World::step`] gives each a tick of simulated time, in a fixed order. Within it a host runs until
//! it has nothing left to do at that moment; then its clock goes on. Hosts meet only in the
//! [`Network`], which moves between ticks.
//!
//! **One seed, one process.** On a thread made by [`simulate`], random bytes and clocks come from the
//! seed, whoever asks (`entropy.rs`). What is left are counters of tokio and the standard library that
//! belong to the process: two worlds one after the other in one process may differ, the first worlds of
//! two processes may not.
//!
//! The design is that of the crate turmoil (a runtime per host, ticks, one thread), with what it cannot
//! do: a host that is paused and finds its clock ahead, clocks that drift, machines that lose their
//! power, and requests that are lost,
//! doubled, or come long after their connection is gone.

mod context;
mod entropy;
mod events;
mod executor;
mod host;
mod network;
mod panics;
mod random;
mod trace;

pub use context::current_host;
pub use events::EventTrace;
pub use executor::{World, WorldConfig};
pub use host::Outcome;
pub use network::{BusFaults, Death, Latency, Mode, Network, NetworkConfig, NetworkCounters};
pub use panics::Panic;
pub use random::Random;
pub use trace::Trace;

/// Stack of a simulated thread: hosts poll deep futures, in debug builds too.
const STACK_BYTES: usize = 64 << 20;

/// Runs `run` on its own thread, where random bytes and clocks come from `seed`. A [`World`] lives
/// there and nowhere else.
///
/// # Panics
/// If `run` does, or if the system gives no thread.
pub fn simulate<T: Send>(seed: u64, run: impl FnOnce() -> T + Send) -> T {
    panics::install();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(format!("seed {seed}"));
        let thread = thread.stack_size(STACK_BYTES).spawn_scoped(scope, || {
            entropy::enter(seed);
            run()
        });
        let thread = thread.unwrap_or_else(|error| panic!("no thread for a simulation: {error}"));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Random bytes that were asked for on this thread so far, for tests of what asks.
pub fn random_bytes_drawn() -> u64 {
    entropy::drawn()
}
