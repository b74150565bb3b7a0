//! Frames that are written together.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use crate::format::frame::HEADER_BYTES;

/// Chunks up to this size are copied next to each other rather than written on their own.
const COPIED_BYTES_MAX: usize = 256;
/// Slices given to one vectored write.
pub(super) const SLICES: usize = 256;
/// Room for copied bytes that is kept from one batch to the next.
const COPIED_ROOM_KEPT: usize = 64 << 10;

/// Frames in the form in which they are written.
#[derive(Default)]
pub(super) struct Batch {
    copied: Vec<u8>,
    pub(super) pieces: Vec<Piece>,
}

pub(super) enum Piece {
    Copied(Range<usize>),
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
        let begin = self.copied.len();
        self.copied.extend_from_slice(bytes);
        let end = self.copied.len();
        match self.pieces.last_mut() {
            Some(Piece::Copied(range)) => range.end = end,
            _ => self.pieces.push(Piece::Copied(begin..end)),
        }
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.pieces.shrink_to(COPIED_ROOM_KEPT / HEADER_BYTES);
        self.copied.clear();
        self.copied.shrink_to(COPIED_ROOM_KEPT);
    }

    fn bytes<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Copied(range) => &self.copied[range.clone()],
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
