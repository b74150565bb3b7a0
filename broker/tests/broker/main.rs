//! Three nodes with a broker each, and a small client of RocketMQ's protocol over TCP.

#[path = "../../../tests/cluster/mod.rs"]
mod cluster;

mod bad_input;
mod client;
#[cfg(feature = "simulation")]
mod clocks;
mod connections;
mod consumers;
mod damage;
mod delayed;
mod failover;
mod features;
#[cfg(feature = "simulation")]
mod full_disk;
mod groups;
mod index;
#[cfg(feature = "simulation")]
mod lagging;
mod messages;
mod nodes;
mod routes;
mod send_status;
#[cfg(feature = "simulation")]
mod stopped;
mod tools;
mod topics;
mod waiting;
