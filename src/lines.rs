//! Waiting in line for room that many connections share: for programs that serve clients and limit what these hold.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, Notify};

use crate::counted::Counted;
use crate::mutant::Mutant;

/// Those that wait for room, each in one of `N` lines. Only the first of each line looks whether there is some: were all
/// woken whenever some is given back, many would cost much.
#[derive(Debug)]
pub struct Lines<const N: usize> {
    lines: [Mutex<()>; N],
    freed: Notify,
    waiting: AtomicUsize,
}

impl<const N: usize> Default for Lines<N> {
    fn default() -> Self {
        let lines = std::array::from_fn(|_| Mutex::default());
        Self { lines, freed: Notify::new(), waiting: AtomicUsize::new(0) }
    }
}

impl<const N: usize> Lines<N> {
    /// Room was given back: the first of each line looks again.
    pub fn freed(&self) {
        self.freed.notify_waiters();
    }

    /// True while somebody waits.
    pub fn is_waited_in(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Waits until all before it in its line have been served, and then until `look` takes something.
    ///
    /// # Panics
    /// There is no such line.
    ///
    /// # Cancel safety
    /// Dropping it gives up the place.
    pub async fn first<T>(&self, line: usize, mut look: impl FnMut() -> Option<T>) -> T {
        let together = Mutant::AllWaitersWoken.is_active();
        let _turn = if together { None } else { Some(self.lines[line].lock().await) };
        let mut waits = None;
        loop {
            let mut freed = pin!(self.freed.notified());
            // Registered before the look, or what is given back in between would be missed.
            freed.as_mut().enable();
            if let Some(taken) = look() {
                return taken;
            }
            waits.get_or_insert_with(|| Counted::new(&self.waiting));
            freed.await;
        }
    }
}
