//! One append, to whichever system is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use quorumlog::client::ClientLog;
use quorumlog::{AppendError, AppendOptions, CommitLog, with_sources};
use quorumlog_broker::{BrokerClient, SendError};
use quorumlog_reference::Client;

use crate::failure::Failure;

/// Appends to one log of one system. Cheap to clone.
#[derive(Clone)]
pub(super) enum Appender {
    /// Over TCP, with the library's client.
    Remote(ClientLog, AppendOptions),
    /// In the process of a node.
    Embedded(CommitLog, AppendOptions),
    /// Over TCP, to a queue of a broker, as RocketMQ's clients do.
    Broker(BrokerClient, Queues),
    /// Over TCP, with the reference's client.
    Reference(Client),
}

/// A topic's queues, which are sent to in turn.
#[derive(Clone)]
pub(super) struct Queues {
    pub(super) topic: String,
    pub(super) count: u32,
    pub(super) turn: Arc<AtomicU32>,
}

impl Queues {
    fn next(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.count.max(1)
    }
}

/// Why an append failed.
pub(super) enum Problem {
    /// The next one may work.
    Passing(String),
    /// Every further one would fail too.
    Lasting(Failure),
}

impl Appender {
    /// Appends `batch` records, all of them `payload`, and waits for the acknowledgement of the last.
    pub(super) async fn append(&self, payload: &Bytes, batch: usize) -> Result<(), Problem> {
        let payloads = || vec![payload.clone(); batch];
        let result = match self {
            Self::Remote(log, options) if batch == 1 => {
                log.append_with(payload.clone(), *options).await
            }
            Self::Remote(log, options) => log.append_batch_with(payloads(), *options).await,
            Self::Embedded(log, options) if batch == 1 => {
                log.append_with(payload.clone(), *options).await
            }
            Self::Embedded(log, options) => log.append_batch_with(payloads(), *options).await,
            Self::Broker(client, queues) => {
                let (topic, queue) = (&queues.topic, queues.next());
                let sent = if batch == 1 {
                    client.send(topic, queue, payload.clone()).await
                } else {
                    client.send_batch(topic, queue, &payloads()).await
                };
                return sent.map(drop).map_err(|error| match error {
                    error @ SendError::Answered { .. } => Problem::Passing(error.to_string()),
                    // The connection does not come back.
                    error => Problem::Lasting(Failure::failed(format!(
                        "send to the broker: {}",
                        with_sources(&error)
                    ))),
                });
            }
            Self::Reference(client) => {
                let result = if batch == 1 {
                    client.append(std::slice::from_ref(payload)).await
                } else {
                    client.append(&payloads()).await
                };
                // A connection that ended does not come back.
                return result.map(drop).map_err(|error| {
                    Problem::Lasting(Failure::io("append to the reference", &error))
                });
            }
        };
        result.map(drop).map_err(Problem::from)
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::TooLarge { .. } | AppendError::UnknownLog { .. } => {
                Self::Lasting(error.into())
            }
            error => Self::Passing(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_no_retry_helps_end_the_load() {
        let unknown = AppendError::UnknownLog { name: "x".to_owned() };
        assert!(matches!(Problem::from(unknown), Problem::Lasting(_)));
        assert!(matches!(Problem::from(AppendError::NoQuorum), Problem::Passing(_)));
    }
}
