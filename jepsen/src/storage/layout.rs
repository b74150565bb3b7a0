//! Where groups lie in a segment, read by a second implementation of docs/storage.md 4.3 and 4.4, and
//! what a scan must make of the segment once it is damaged.

use std::ops::Range;

/// Bytes of a segment before the first group.
pub(crate) const HEADER_BLOCK: usize = 4096;
/// Bytes of the segment header that count.
const SEGMENT_HEADER: usize = 48;
const GROUP_HEADER: usize = 56;

/// A group of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) at: usize,
    pub(crate) end: usize,
    /// Bytes before here were flushed when it was written.
    pub(crate) durable_end: usize,
    pub(crate) entries: usize,
}

/// The groups of a sound segment.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) groups: Vec<Group>,
}

/// What opening an active segment must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// An error: something that was flushed is damaged, and there is evidence.
    Error,
    /// So many entries of the segment, and all of them if it says so.
    Entries(usize),
}

impl Layout {
    /// Reads a segment that nobody has damaged.
    pub(crate) fn of(segment: &[u8]) -> Self {
        let u32_at = |at: usize| segment.get(at..at + 4).map_or(0, |bytes| number(bytes) as usize);
        let u64_at = |at: usize| segment.get(at..at + 8).map_or(0, |bytes| number(bytes) as usize);
        let mut groups: Vec<Group> = Vec::new();
        let mut at = HEADER_BLOCK;
        while segment.get(at..at + 4) == Some(b"QLGR") {
            let (entries, end) = (u32_at(at + 8), at + GROUP_HEADER + u32_at(at + 12));
            groups.push(Group { at, end, durable_end: u64_at(at + 24), entries });
            at = end;
        }
        Self { groups }
    }

    /// Behind the last group.
    pub(crate) fn end(&self) -> usize {
        self.groups.last().map_or(HEADER_BLOCK, |group| group.end)
    }

    pub(crate) fn entries(&self) -> usize {
        self.groups.iter().map(|group| group.entries).sum()
    }

    /// What a scan must give of a file that is `len` bytes long, with something else in the bytes that `differs`
    /// names, none of which forges a group.
    pub(crate) fn expect(&self, len: usize, differs: impl Fn(Range<usize>) -> bool) -> Expect {
        let bad = |range: Range<usize>| range.end > len || differs(range);
        if len < HEADER_BLOCK || differs(0..SEGMENT_HEADER) {
            return Expect::Error;
        }
        let damaged = self.groups.iter().position(|group| bad(group.at..group.end));
        let Some(first) = damaged else { return Expect::Entries(self.entries()) };
        let at = self.groups[first].at;
        let witness = self.groups[first + 1..]
            .iter()
            .any(|group| group.durable_end > at && !bad(group.at..group.at + GROUP_HEADER));
        if witness {
            return Expect::Error;
        }
        Expect::Entries(self.groups[..first].iter().map(|group| group.entries).sum())
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let group = |at, end, durable_end, entries| Group { at, end, durable_end, entries };
        let groups = vec![
            group(4096, 4300, 4096, 2),
            group(4300, 4500, 4300, 1),
            group(4500, 4700, 4300, 3),
            group(4700, 4756, 4700, 0),
        ];
        Layout { groups }
    }

    fn expect(bad: Range<usize>) -> Expect {
        layout().expect(8192, |range| range.start < bad.end && bad.start < range.end)
    }

    #[test]
    fn a_damaged_group_is_an_error_if_a_later_one_knows_it_to_be_flushed() {
        assert_eq!(expect(5000..5001), Expect::Entries(6));
        assert_eq!(expect(4750..4751), Expect::Entries(6), "the marker itself");
        assert_eq!(expect(4600..4601), Expect::Error);
        assert_eq!(expect(4600..4756), Expect::Entries(3), "with its witness");
        assert_eq!(expect(4200..4201), Expect::Error);
        assert_eq!(
            expect(4400..4701),
            Expect::Entries(2),
            "the next one knows only what is before it"
        );
        assert_eq!(expect(0..1), Expect::Error);
        assert_eq!(expect(60..61), Expect::Entries(6));
    }

    #[test]
    fn a_file_that_is_cut_has_the_groups_that_are_whole() {
        let cut = |len| layout().expect(len, |_| false);
        let found = [4095, 4096, 4299, 4300, 4499, 4500, 4699, 4700, 9999].map(cut);
        let entries = [0, 0, 2, 2, 3, 3, 6, 6].map(Expect::Entries);
        assert_eq!(found[0], Expect::Error);
        assert_eq!(found[1..], entries);
    }

    #[test]
    fn groups_are_read_up_to_the_first_byte_that_is_none() {
        let mut segment = vec![0; 8192];
        segment[4096..4100].copy_from_slice(b"QLGR");
        segment[4104] = 2;
        segment[4108] = 100;
        segment[4121] = 16;
        let layout = Layout::of(&segment);
        let group = Group { at: 4096, end: 4252, durable_end: 4096, entries: 2 };
        assert_eq!(layout.groups, [group]);
        assert_eq!((layout.end(), layout.entries()), (4252, 2));
    }
}
