//! Frames that are written together.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use crate::format::frame::HEADER_BYTES;

/// Chunks up to this size are copied next to each other rather than written on their own.
const COPIED_BYTES_MAX: usize = 256;
/// Slices given to one vectored write.
pub(super) const SLICES: usize = 256;
/// Copied bytes lie in chunks of this size: a single one that grows to megabytes would be moved again and again, and the
/// memory that it leaves is of little use to others. One is kept from one batch to the next.
const CHUNK_BYTES: usize = 64 << 10;

/// Frames in the form in which they are written.
#[derive(Default)]
pub(super) struct Batch {
    copied: Vec<Vec<u8>>,
    pub(super) pieces: Vec<Piece>,
}

pub(super) enum Piece {
    /// A chunk, and where in it.
    Copied(usize, Range<usize>),
    Shared(Bytes),
}

#[derive(Clone, Copy, Default)]
pub(super) struct Position {
    pub(super) piece: usize,
    offset: usize,
}

impl Batch {
    pub(super) fn push(&mut self, chunk: Bytes) {
        if chunk.len() <= COPIED_BYTES_MAX {
            self.copy(&chunk);
        } else {
            self.pieces.push(Piece::Shared(chunk));
        }
    }

    pub(super) fn copy(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let chunk = match self.copied.last_mut() {
            Some(last) if last.len() + bytes.len() <= CHUNK_BYTES => last,
            last => {
                // What comes after a full one will be long, too.
                let room = if last.is_some() { CHUNK_BYTES } else { 0 };
                self.copied.push(Vec::with_capacity(room));
                let at = self.copied.len() - 1;
                &mut self.copied[at]
            }
        };
        let begin = chunk.len();
        chunk.extend_from_slice(bytes);
        let end = chunk.len();
        let at = self.copied.len() - 1;
        match self.pieces.last_mut() {
            Some(Piece::Copied(chunk, range)) if *chunk == at => range.end = end,
            _ => self.pieces.push(Piece::Copied(at, begin..end)),
        }
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.pieces.shrink_to(CHUNK_BYTES / HEADER_BYTES);
        self.copied.truncate(1);
        if let Some(first) = self.copied.first_mut() {
            first.clear();
            first.shrink_to(CHUNK_BYTES);
        }
    }

    fn bytes<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Copied(chunk, range) => &self.copied[*chunk][range.clone()],
            Piece::Shared(bytes) => bytes,
        }
    }

    /// Fills in the slices from `at` on; how many.
    pub(super) fn slices<'a>(&'a self, at: Position, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = at.offset;
        let pieces = &self.pieces[at.piece..];
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(&self.bytes(piece)[skip..]);
            skip = 0;
        }
        pieces.len().min(slices.len())
    }

    pub(super) fn advance(&self, at: &mut Position, mut written: usize) {
        while written > 0 {
            let left = self.bytes(&self.pieces[at.piece]).len() - at.offset;
            if written < left {
                at.offset += written;
                return;
            }
            written -= left;
            *at = Position { piece: at.piece + 1, offset: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(batch: &Batch) -> Vec<u8> {
        batch.pieces.iter().flat_map(|piece| batch.bytes(piece).to_vec()).collect()
    }

    #[test]
    fn many_small_frames_take_little_more_memory_than_their_bytes() {
        let mut batch = Batch::default();
        let mut expected = Vec::new();
        for n in 0..20_000_u32 {
            let bytes = [&n.to_le_bytes()[..], &vec![7; n as usize % 250]].concat();
            batch.push(Bytes::copy_from_slice(&bytes));
            expected.extend_from_slice(&bytes);
        }
        assert!(all(&batch) == expected);
        let held: usize = batch.copied.iter().map(Vec::capacity).sum();
        assert!(held <= expected.len() * 101 / 100 + 2 * CHUNK_BYTES, "{held}");
        assert!(batch.copied.iter().all(|chunk| chunk.capacity() <= 2 * CHUNK_BYTES));
        batch.clear();
        batch.copy(&vec![1; 3 * CHUNK_BYTES]);
        batch.copy(b"x");
        assert_eq!(all(&batch).len(), 3 * CHUNK_BYTES + 1);
        batch.clear();
        assert!(batch.copied.iter().map(Vec::capacity).sum::<usize>() <= CHUNK_BYTES);
    }
}
