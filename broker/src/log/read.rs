//! Messages out of the log: the bytes as they were stored, with both offsets put in.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};
use quorumlog::{Index, ReadError, Record};

use super::replica::{Opened, Replica};
use crate::limits::PULL_BYTES_MAX;
use crate::mutant::Mutant;
use crate::record::{Message, QUEUE_OFFSET_AT, SPLICED_BYTES, put_offset_id};
use crate::request::Failure;
use crate::state::{Entry, messages_of};

/// A message's bytes for a client: a copy of the head with its offsets, and a handle to the rest.
fn splice(record: &Bytes, entry: Entry) -> [Bytes; 2] {
    let mut head = BytesMut::with_capacity(SPLICED_BYTES);
    head.put_slice(&record[..QUEUE_OFFSET_AT]);
    head.put_u64(entry.offset);
    head.put_u64(entry.physical);
    [head.freeze(), record.slice(SPLICED_BYTES..)]
}

/// Reads messages in the order of a queue: records that lie side by side in the log are read at once, and a batch is walked
/// once.
struct Reader<'a> {
    opened: &'a Opened,
    /// Records that were read ahead.
    ahead: VecDeque<Record>,
    /// Bytes of the last record that was read.
    size: usize,
    walk: Option<Walk>,
}

/// A record of which some messages were taken.
struct Walk {
    index: Index,
    taken: usize,
    left: Bytes,
}

impl<'a> Reader<'a> {
    fn new(opened: &'a Opened) -> Self {
        Self { opened, ahead: VecDeque::new(), size: 0, walk: None }
    }

    /// The bytes of the first of `entries` as they lie in the log; none if retention has removed it. The others will be asked
    /// for next.
    async fn first(&mut self, entries: &[Entry]) -> Result<Option<Bytes>, Failure> {
        let Some(entry) = entries.first() else { return Ok(None) };
        let goes_on = |walk: &Walk| walk.index == entry.index() && walk.taken <= entry.part();
        if !self.walk.as_ref().is_some_and(goes_on) {
            self.walk = None;
            let Some(record) = self.record(entries, entry.index()).await? else { return Ok(None) };
            let left = messages_of(&record.payload)?;
            self.walk = Some(Walk { index: record.index, taken: 0, left });
        }
        let Some(walk) = &mut self.walk else { return Ok(None) };
        while walk.taken < entry.part() && !Mutant::PartsReadAsFirst.is_active() {
            Message::take_bytes(&mut walk.left)?;
            walk.taken += 1;
        }
        walk.taken += 1;
        Ok(Some(Message::take_bytes(&mut walk.left)?))
    }

    async fn record(&mut self, entries: &[Entry], index: Index) -> Result<Option<Record>, Failure> {
        while self.ahead.front().is_some_and(|record| record.index < index) {
            self.ahead.pop_front();
        }
        if self.ahead.front().is_none_or(|record| record.index > index) {
            let wanted = (side_by_side(entries) * self.size).clamp(1, PULL_BYTES_MAX);
            self.ahead = match self.opened.log.read(index, wanted).await {
                Err(ReadError::Trimmed { begin, .. }) => {
                    self.opened.shared.prune_once(begin);
                    return Ok(None);
                }
                // The next leader holds it whole.
                Err(ReadError::Storage(_)) if self.opened.log.hands_over() => {
                    return Err(Failure::Moved);
                }
                records => records?.into(),
            };
        }
        let record = self.ahead.pop_front().filter(|record| record.index == index);
        self.size = record.as_ref().map_or(0, |record| record.payload.len());
        Ok(record)
    }
}

/// How many records that lie side by side in the log the first entries are of.
fn side_by_side(entries: &[Entry]) -> usize {
    let neighbours = entries.windows(2).map(|pair| pair[1].index().wrapping_sub(pair[0].index()));
    1 + neighbours.take_while(|step| *step <= 1).filter(|step| *step == 1).count()
}

impl Replica {
    /// The ids of messages at these places.
    pub(crate) fn ids(&self, physical: impl Iterator<Item = u64>) -> String {
        let mut ids = String::new();
        for physical in physical {
            if !ids.is_empty() {
                ids.push(',');
            }
            put_offset_id(&mut ids, self.addr, physical);
        }
        ids
    }

    /// A message's bytes as they lie in the log; none if retention has removed it.
    ///
    /// # Errors
    /// There is no message, or reading failed.
    pub(crate) async fn stored(&self, entry: Entry) -> Result<Option<Bytes>, Failure> {
        Reader::new(self.opened()?).first(&[entry]).await
    }

    /// A message; none if retention has removed it.
    ///
    /// # Errors
    /// As `stored`.
    pub(crate) async fn message(&self, entry: Entry) -> Result<Option<Message>, Failure> {
        let stored = self.stored(entry).await?;
        Ok(stored.map(Message::decode).transpose()?)
    }

    /// The messages of a queue's entries, in chunks to be written: as many as fit `bytes_max`, at least one.
    /// Returns how many entries were dealt with; those that retention has removed are passed over.
    ///
    /// # Errors
    /// As `stored`.
    pub(crate) async fn chunks(
        &self,
        entries: &[Entry],
        bytes_max: usize,
    ) -> Result<(Vec<Bytes>, usize), Failure> {
        let mut reader = Reader::new(self.opened()?);
        let mut chunks = Vec::with_capacity(entries.len() * 2);
        let mut bytes = 0;
        for (done, entry) in entries.iter().enumerate() {
            let Some(record) = reader.first(&entries[done..]).await? else { continue };
            if bytes > 0 && bytes + record.len() > bytes_max {
                return Ok((chunks, done));
            }
            bytes += record.len();
            chunks.extend(splice(&record, *entry));
        }
        Ok((chunks, entries.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::physical;

    #[test]
    fn entries_of_one_record_and_of_its_neighbours_lie_side_by_side() {
        let count = |places: &[(u64, usize)]| {
            let entries: Vec<_> =
                places.iter().map(|(index, part)| Entry::at(physical(*index, *part))).collect();
            side_by_side(&entries)
        };
        assert_eq!(count(&[(7, 0)]), 1);
        assert_eq!(count(&[(7, 0), (7, 1), (8, 0), (9, 0), (9, 3), (11, 0), (12, 0)]), 3);
        assert_eq!(count(&[(7, 0), (3, 0)]), 1);
    }
}
