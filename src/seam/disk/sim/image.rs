//! The bytes of a file: sparse, and cheap to copy.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Bytes that a disk writes whole, unless the power fails in between.
pub const SECTOR: u64 = 512;

const PAGE: usize = 4096;
static ZEROS: [u8; PAGE] = [0; PAGE];

/// The bytes of a file. A clone shares them; zeros that were never written take no memory. While a clone is
/// held, the first write behind it copies the list of the pages, and each page when it is written.
#[derive(Clone, Default)]
pub struct Image {
    len: u64,
    /// By number. An absent one is zeros, and so is what a page has behind `len`.
    pages: Arc<BTreeMap<u64, Arc<[u8; PAGE]>>>,
}

impl Image {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads some bytes into `buffer`: all that fit and are there.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let left = self.len.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        for (number, within, piece) in pieces(offset, len) {
            let page: &[u8; PAGE] = self.pages.get(&number).map_or(&ZEROS, |page| page);
            let bytes = &page[within..within + piece.len()];
            buffer[piece].copy_from_slice(bytes);
        }
        len
    }

    /// All bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        // A file that is longer than the memory can only be sparse, and nobody wants all of it.
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(usize::MAX)];
        self.read_at(&mut bytes, 0);
        bytes
    }

    /// CRC-32 of all bytes.
    pub fn crc(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut at = 0;
        while at < self.len {
            let page: &[u8; PAGE] = self.pages.get(&(at / PAGE as u64)).map_or(&ZEROS, |page| page);
            let some = (self.len - at).min(PAGE as u64);
            hasher.update(&page[..some as usize]);
            at += some;
        }
        hasher.finalize()
    }

    /// Writes `bytes`, and makes the file longer for it if need be.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.len = self.len.max(at + bytes.len() as u64);
        let pages = Arc::make_mut(&mut self.pages);
        for (number, within, piece) in pieces(at, bytes.len()) {
            let piece = &bytes[piece];
            match pages.get_mut(&number) {
                Some(page) => {
                    Arc::make_mut(page)[within..within + piece.len()].copy_from_slice(piece);
                }
                None if piece == &ZEROS[..piece.len()] => {}
                None => {
                    let mut page = [0; PAGE];
                    page[within..within + piece.len()].copy_from_slice(piece);
                    pages.insert(number, Arc::new(page));
                }
            }
        }
    }

    /// Makes the file longer, with zeros, or shorter.
    pub(super) fn resize(&mut self, len: u64) {
        if len < self.len {
            let pages = Arc::make_mut(&mut self.pages);
            let (last, within) = (len / PAGE as u64, (len % PAGE as u64) as usize);
            drop(pages.split_off(&(last + u64::from(within > 0))));
            if within > 0
                && let Some(page) = pages.get_mut(&last)
            {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    /// Makes the file at least `len` bytes long.
    pub(super) fn extend(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// One sector; zeros where the file ends.
    pub(super) fn sector(&self, number: u64) -> [u8; SECTOR as usize] {
        let mut bytes = [0; SECTOR as usize];
        self.read_at(&mut bytes, number * SECTOR);
        bytes
    }

    /// Replaces a sector, as far as the file has it.
    pub(super) fn set_sector(&mut self, number: u64, bytes: &[u8; SECTOR as usize]) {
        let at = number * SECTOR;
        let len = self.len.saturating_sub(at).min(SECTOR);
        self.write(at, &bytes[..len as usize]);
    }

    /// False only if the sector was never written: then it is zeros.
    pub(super) fn may_hold(&self, sector: u64) -> bool {
        self.pages.contains_key(&(sector * SECTOR / PAGE as u64))
    }
}

impl From<&[u8]> for Image {
    fn from(bytes: &[u8]) -> Self {
        let mut image = Self::default();
        image.write(0, bytes);
        image
    }
}

impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        let same = |number: &u64| match (self.pages.get(number), other.pages.get(number)) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (Some(page), None) | (None, Some(page)) => **page == ZEROS,
            (None, None) => true,
        };
        self.len == other.len
            && (Arc::ptr_eq(&self.pages, &other.pages)
                || self.pages.keys().all(same) && other.pages.keys().all(same))
    }
}

impl Eq for Image {}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, crc {:08x}", self.len, self.crc())
    }
}

/// The pages that `len` bytes at `at` lie in: number, offset within the page, which of the bytes.
fn pieces(at: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let from = at + done as u64;
        let within = (from % PAGE as u64) as usize;
        let begin = done;
        done += (PAGE - within).min(len - done);
        Some((from / PAGE as u64, within, begin..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_reads_as_the_bytes_that_were_written_to_it() {
        let mut random = super::super::Random(5);
        let mut image = Image::default();
        let mut model: Vec<u8> = Vec::new();
        for _ in 0..3000 {
            let at = random.below(20_000);
            match random.below(8) {
                0 => {
                    image.resize(at as u64);
                    model.resize(at, 0);
                }
                1 => {
                    image.extend(at as u64);
                    model.resize(model.len().max(at), 0);
                }
                _ => {
                    let mut bytes = vec![0; random.below(6000)];
                    if random.below(4) > 0 {
                        random.fill(&mut bytes);
                    }
                    image.write(at as u64, &bytes);
                    if !bytes.is_empty() {
                        model.resize(model.len().max(at + bytes.len()), 0);
                        model[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                }
            }
            assert_eq!(image.to_vec(), model);
        }
        assert_eq!(image, Image::from(&model[..]));
        assert_eq!(image.crc(), crc32fast::hash(&model));
        let clone = image.clone();
        image.write(0, b"x");
        image.write(0, &[clone.sector(0)[0] ^ 1]);
        assert_ne!(image, clone, "a clone keeps its bytes");
    }

    #[test]
    fn space_that_was_never_written_takes_no_memory() {
        let mut image = Image::default();
        image.extend(1 << 40);
        image.write(1 << 39, &[0; 9000]);
        assert!(image.pages.is_empty());
        image.write(1 << 39, b"x");
        assert_eq!(image.pages.len(), 1);
        image.resize(0);
        image.extend(1 << 40);
        assert_eq!(image.sector((1 << 39) / SECTOR), [0; 512]);
    }
}
