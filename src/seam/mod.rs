//! What a node takes from outside: disks, networks, and clocks with their random numbers, each real or simulated.
//!
//! Nothing below this layer exists. A node that runs on a [`Disk`], a [`Transport`] and a [`Clock`] of a simulation, in
//! tokio's paused time, does the same each time. [`NodeBuilder`](crate::NodeBuilder) takes all three.

pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod net;

pub use clock::{Clock, SystemClock};
pub use disk::{Access, DirEntry, Disk, DiskFile, DiskLock, LockMode};
pub use net::{Acceptor, BoxFuture, Duplex, Listener, TcpTransport, Transport};
