//! A number that goes back by itself.

use std::sync::atomic::{AtomicUsize, Ordering};

/// One more in a number, until it is dropped.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(crate) fn new(number: &'a AtomicUsize) -> Self {
        number.fetch_add(1, Ordering::AcqRel);
        Self(number)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
