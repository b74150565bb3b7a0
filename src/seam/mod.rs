//! What a node takes from outside: disks and networks, each real or simulated.
//!
//! Nothing below this layer exists. A node that runs on a [`Disk`] and a [`Transport`] of a simulation, in tokio's paused
//! time, does the same each time. [`NodeBuilder`](crate::NodeBuilder) takes both.

pub(crate) mod disk;
pub(crate) mod net;

pub use disk::{Access, DirEntry, Disk, DiskFile, DiskLock, LockMode};
pub use net::{Acceptor, BoxFuture, Duplex, TcpTransport, Transport};
