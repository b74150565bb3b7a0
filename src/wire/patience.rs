//! A time limit that costs nothing while nobody waits.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Limits how long a piece of I/O may take over any number of waits. The timer is set only when
/// one of them really has to wait.
pub(crate) struct Patience {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, timer: None, running: false }
    }

    /// There was progress: the next wait begins anew.
    pub(crate) fn reset(&mut self) {
        self.running = false;
    }

    /// Waits for `io`, and fails with `TimedOut` when the limit has passed since the first wait
    /// after the last `reset`.
    pub(crate) async fn limit<T>(
        &mut self,
        io: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut io = pin!(io);
        poll_fn(|cx| match io.as_mut().poll(cx) {
            Poll::Pending if self.is_over(cx) => {
                Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
            }
            poll => poll,
        })
        .await
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.running {
            timer.as_mut().reset(Instant::now() + limit);
            self.running = true;
        }
        timer.as_mut().poll(cx).is_ready()
    }
}
