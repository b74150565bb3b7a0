//! The queue between what a log holds in memory and its writer, and who empties it: threads, or tasks in a simulation.

pub(in crate::log) mod core;
mod pool;
pub(in crate::log) mod queue;
mod saving;
mod submit;
mod thread;
#[cfg(feature = "simulation")]
mod writer_task;

pub(crate) use pool::WriterPool;
pub(in crate::log) use saving::SavingQueue;
#[cfg(feature = "simulation")]
pub(crate) use writer_task::Pace;
