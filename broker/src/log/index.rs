//! Questions to the index. What it has lost is made again from the log first, and what it has not found yet in the
//! background.

use quorumlog::ReadError;

use super::replica::Replica;
use crate::remoting::codes::response;
use crate::request::Failure;
use crate::state::{Lost, Shared};

/// How often one question may meet a part of the index that is lost.
const ATTEMPTS_MAX: usize = 4;
/// Bytes of records that are read at once.
const READ_BYTES: usize = 1 << 20;

impl Replica {
    /// What `ask` says of the state.
    ///
    /// # Errors
    /// The index was damaged and the log could not be read.
    pub(crate) async fn indexed<T>(
        &self,
        ask: impl Fn(&Shared) -> Result<T, Lost>,
    ) -> Result<T, Failure> {
        let shared = self.shared()?;
        for _ in 0..ATTEMPTS_MAX {
            match ask(shared) {
                Ok(answer) => return Ok(answer),
                // A future of its own, since almost no question gets here.
                Err(lost) => drop(Box::pin(self.rebuild(lost.0)).await?),
            }
        }
        let remark = "a part of the index is damaged and could not be made again from the log";
        Err(Failure::refused(response::SYSTEM_ERROR, remark))
    }

    /// Makes again what the index has lost, some of it: first what begins at a physical offset, or next behind it.
    /// None if nothing was missing; else whether all of it could be made again and written.
    ///
    /// # Errors
    /// The log cannot be read.
    async fn rebuild(&self, from: u64) -> Result<Option<bool>, Failure> {
        let opened = self.opened()?;
        let _alone = self.rebuilding.lock().await;
        let Some(mut pass) = opened.shared.begin_rebuild(from) else { return Ok(None) };
        let records = pass.records();
        tracing::info!(log = self.name, ?records, "making a part of the index again");
        let mut next = records.start;
        let mut begin = 0;
        while next < records.end {
            let read = match opened.log.read(next, READ_BYTES).await {
                Err(ReadError::Trimmed { begin: held_from, .. }) => {
                    begin = held_from;
                    next = held_from.max(next + 1);
                    continue;
                }
                read => read?,
            };
            let Some(last) = read.last() else { break };
            next = last.index + 1;
            read.iter().filter(|record| record.index < records.end).for_each(|r| pass.take(r));
            tokio::task::yield_now().await;
        }
        let all = opened.shared.finish_rebuild(pass, begin);
        // What lay at the log's beginning can be counted now.
        opened.shared.prune(opened.log.watermarks().begin);
        Ok(Some(all))
    }

    /// Makes some of what is lost again, if there is any. False if it could not.
    pub(crate) async fn repair_index(&self) -> bool {
        let Ok(shared) = self.shared() else { return true };
        if !shared.take_lost() {
            return true;
        }
        let rebuilt = self.rebuild(0).await;
        if !matches!(rebuilt, Ok(None)) {
            shared.note_lost();
        }
        match rebuilt {
            Ok(None | Some(true)) => true,
            Ok(Some(false)) => false,
            Err(failure) => {
                tracing::warn!(log = self.name, ?failure, "the index cannot be made again yet");
                false
            }
        }
    }
}
