//! Messages out of the log: the bytes as they were stored, with both offsets put in.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::failure::Failure;
use super::log_broker::LogBroker;
use crate::record::{Message, QUEUE_OFFSET_AT, SPLICED_BYTES};
use crate::state::{Entry, message_at};
use quorumlog::ReadError;

/// A message's bytes for a client: a copy of the head with its offsets, and a handle to the rest.
fn splice(record: &Bytes, entry: Entry) -> [Bytes; 2] {
    let mut head = BytesMut::with_capacity(SPLICED_BYTES);
    head.put_slice(&record[..QUEUE_OFFSET_AT]);
    head.put_u64(entry.offset);
    head.put_u64(entry.physical);
    [head.freeze(), record.slice(SPLICED_BYTES..)]
}

impl LogBroker {
    /// A message's bytes as they lie in the log; none if retention has removed it.
    ///
    /// # Errors
    /// There is no message, or reading failed.
    pub(super) async fn stored(&self, entry: Entry) -> Result<Option<Bytes>, Failure> {
        let opened = self.opened()?;
        let records = match opened.log.read(entry.index(), 1).await {
            Err(ReadError::Trimmed { begin, .. }) => {
                opened.shared.prune_once(begin);
                return Ok(None);
            }
            // The next leader holds it whole.
            Err(ReadError::Storage(_)) if opened.log.leaves() => {
                return Err(Failure::Moved);
            }
            records => records?,
        };
        match records.first() {
            Some(record) if record.index == entry.index() => {
                Ok(Some(message_at(&record.payload, entry.part())?))
            }
            _ => Ok(None),
        }
    }

    /// A message; none if retention has removed it.
    ///
    /// # Errors
    /// As `stored`.
    pub(super) async fn message(&self, entry: Entry) -> Result<Option<Message>, Failure> {
        let stored = self.stored(entry).await?;
        Ok(stored.map(Message::decode).transpose()?)
    }

    /// The messages of a queue's entries, in chunks to be written: as many as fit `bytes_max`, at least one.
    /// Returns how many entries were dealt with; those that retention has removed are passed over.
    ///
    /// # Errors
    /// As `stored`.
    pub(super) async fn chunks(
        &self,
        entries: &[Entry],
        bytes_max: usize,
    ) -> Result<(Vec<Bytes>, usize), Failure> {
        let mut chunks = Vec::with_capacity(entries.len() * 2);
        let mut bytes = 0;
        for (done, entry) in entries.iter().enumerate() {
            let Some(record) = self.stored(*entry).await? else { continue };
            if bytes > 0 && bytes + record.len() > bytes_max {
                return Ok((chunks, done));
            }
            bytes += record.len();
            chunks.extend(splice(&record, *entry));
        }
        Ok((chunks, entries.len()))
    }
}
