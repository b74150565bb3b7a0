//! What the demo appends: lines of a file, or generated ones. Each carries its own number.

use std::path::Path;

use bytes::Bytes;

use crate::failure::{Failure, Result};
use crate::lines::Lines;

/// Digits of a record's number, which is followed by a tab and the line.
const DIGITS: usize = 10;

/// Bytes of a file that are held in memory.
const FILE_BYTES_MAX: usize = 1 << 30;

/// A sequence of records, numbered from 0.
pub(super) struct Records {
    /// Empty: generated.
    lines: Vec<Bytes>,
    total: u64,
}

impl Records {
    /// The lines of `file`, repeated if `count` asks for more; or generated ones.
    pub(super) async fn open(
        file: Option<&Path>,
        count: Option<u64>,
        default: u64,
    ) -> Result<Self> {
        let Some(path) = file else {
            return Ok(Self { lines: Vec::new(), total: count.unwrap_or(default) });
        };
        let mut reader = Lines::of_file(path).await?;
        let mut lines = Vec::new();
        let mut bytes = 0;
        while let Some(line) = reader.next().await? {
            bytes += line.len();
            if bytes > FILE_BYTES_MAX {
                let shown = path.display();
                return Err(Failure::usage(format!("{shown} is over the limit of 1GiB")));
            }
            lines.push(line);
        }
        let total = count.unwrap_or(lines.len() as u64);
        // Fewer leave no room for a middle in which a leader can be killed.
        if lines.is_empty() || total < 1000 {
            return Err(Failure::usage(format!("{} has {} lines", path.display(), lines.len()))
                .with_hint("the demo needs 1000 records; repeat the lines with --records 100000"));
        }
        Ok(Self { lines, total })
    }

    pub(super) fn len(&self) -> u64 {
        self.total
    }

    /// The payload of record `id`.
    pub(super) fn payload(&self, id: u64) -> Bytes {
        let mut payload = format!("{id:0DIGITS$}\t").into_bytes();
        match self.lines.get((id % self.lines.len().max(1) as u64) as usize) {
            Some(line) => payload.extend_from_slice(line),
            None => payload.extend_from_slice(order(id).as_bytes()),
        }
        payload.into()
    }
}

/// A payload that carries the number `id`, as long as the filler if that is longer than the number.
pub(in crate::commands) fn numbered(id: u64, filler: &[u8]) -> Bytes {
    let mut payload = format!("{id:0DIGITS$}\t").into_bytes();
    payload.extend_from_slice(filler.get(payload.len()..).unwrap_or_default());
    payload.into()
}

/// The number that a payload carries.
pub(super) fn id_of(payload: &[u8]) -> Option<u64> {
    let (digits, rest) = payload.split_at_checked(DIGITS)?;
    (rest.first() == Some(&b'\t')).then_some(())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A line about an order; the same for the same number on every machine.
fn order(id: u64) -> String {
    const ITEMS: [&str; 8] =
        ["anchor", "bolt", "cable", "drill", "eyelet", "file", "gasket", "hinge"];
    const EVENTS: [&str; 5] = ["placed", "paid", "packed", "shipped", "returned"];
    // splitmix64, so that neighbours differ.
    let mut mixed = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let item = ITEMS[(mixed % 8) as usize];
    let event = EVENTS[(mixed >> 8) as usize % 5];
    let (customer, count, cents) = ((mixed >> 16) % 10_000, (mixed >> 32) % 99 + 1, mixed >> 48);
    format!(
        "order={id} event={event} customer={customer} item={item} count={count} price={}.{:02}",
        cents / 100,
        cents % 100
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test]
    async fn generated_records_are_the_same_each_time_and_carry_their_number() {
        let records = Records::open(None, None, 5000).await.expect("records");
        assert_eq!(records.len(), 5000);
        let all: HashSet<Bytes> = (0..5000).map(|id| records.payload(id)).collect();
        assert_eq!(all.len(), 5000);
        assert_eq!(records.payload(7), records.payload(7));
        assert_eq!(id_of(&records.payload(4999)), Some(4999));
        let filled = numbered(7, &[b'x'; 64]);
        assert_eq!((id_of(&filled), filled.len()), (Some(7), 64));
        for foreign in [&b""[..], b"0000000001", b"0000000001 x", b"000000000x\tx"] {
            assert_eq!(id_of(foreign), None, "{foreign:?}");
        }
    }

    #[tokio::test]
    async fn lines_of_a_file_are_repeated_under_new_numbers() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("lines");
        std::fs::write(&path, "a\nb\n").expect("write");
        let records = Records::open(Some(&path), Some(1000), 5).await.expect("records");
        assert_eq!(records.len(), 1000);
        assert_eq!(&records.payload(2)[..], b"0000000002\ta");
        assert_eq!(&records.payload(3)[..], b"0000000003\tb");
        assert!(Records::open(Some(&path), None, 5).await.is_err(), "two lines have no middle");
    }
}
