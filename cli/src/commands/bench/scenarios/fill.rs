//! A log of some size, made quickly.

use bytes::Bytes;
use quorumlog::client::ClientLog;
use quorumlog::{ByteCount, CommitLog};
use tokio::task::JoinSet;

use super::size;
use crate::commands::bench::load::payload;
use crate::failure::{Failure, Result};
use crate::progress::Progress;

/// Payload bytes and records of one append, and how many are under way at once.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_RECORDS: usize = 4096;
const APPENDERS: u64 = 6;

/// Whose log is filled.
#[derive(Clone)]
pub(super) enum Target {
    Remote(ClientLog),
    Own(CommitLog),
}

impl Target {
    async fn append(&self, payloads: Vec<Bytes>) -> Result {
        match self {
            Self::Remote(log) => log.append_batch(payloads).await.map(drop)?,
            Self::Own(log) => log.append_batch(payloads).await.map(drop)?,
        }
        Ok(())
    }

    /// Appends so many bytes of payload, in records of this size. Returns how many records that are.
    ///
    /// # Errors
    /// An append fails.
    pub(super) async fn fill(&self, bytes: ByteCount, record: ByteCount) -> Result<u64> {
        let payload = payload(size(record)?.max(1));
        let batch = (BATCH_BYTES / payload.len()).clamp(1, BATCH_RECORDS);
        let batches = bytes.bytes().div_ceil((batch * payload.len()) as u64);
        let progress = Progress::bytes(Some(bytes.bytes()));
        let mut tasks = JoinSet::new();
        for appender in 0..APPENDERS.min(batches) {
            let (target, payload, progress) = (self.clone(), payload.clone(), progress.clone());
            // The first ones take what is left over.
            let share = batches / APPENDERS + u64::from(appender < batches % APPENDERS);
            tasks.spawn(async move {
                for _ in 0..share {
                    target.append(vec![payload.clone(); batch]).await?;
                    progress.add((batch * payload.len()) as u64);
                }
                Ok::<(), Failure>(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| Failure::failed(format!("filling the log: {error}")))??;
        }
        progress.clear();
        Ok(batches * batch as u64)
    }
}
