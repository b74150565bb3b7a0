//! One file for each command.

pub(crate) mod accept_loss;
pub(crate) mod append;
pub(crate) mod bench;
pub(crate) mod broker;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod group;
pub(crate) mod inspect;
pub(crate) mod leader;
pub(crate) mod log;
pub(crate) mod member;
mod name_servers;
pub(crate) mod read;
mod records;
pub(crate) mod reference_node;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod tail;
pub(crate) mod topic;
pub(crate) mod verify;
