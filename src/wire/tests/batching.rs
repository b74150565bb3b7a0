//! What goes out together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use super::*;

/// Takes everything, and counts the writes.
struct Counting(Arc<AtomicUsize>);

impl AsyncWrite for Counting {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// On a worker thread: there a task that another one wakes is the next to run.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_ready_tasks_send_goes_out_in_one_write() {
    let writes = Arc::new(AtomicUsize::new(0));
    let out = Outbound::new(Protocol::Peer, usize::MAX, 1 << 20);
    let (queue, io) = (out.clone(), Counting(Arc::clone(&writes)));
    let writer = tokio::spawn(async move { queue.write_to(io).await });
    let sender = out.clone();
    let sending = tokio::spawn(async move {
        let send = |n| {
            let out = sender.clone();
            tokio::spawn(async move { out.send(request(1, &[n])) })
        };
        let tasks: Vec<_> = (0..20).map(send).collect();
        for task in tasks {
            assert!(task.await.expect("a task that sends"));
        }
    });
    sending.await.expect("the task that spawns");
    out.finish(2, "");
    writer.await.expect("the writer").expect("it takes everything");
    let writes = writes.load(Ordering::Relaxed);
    // The farewell may have gone on its own.
    assert!((1..=2).contains(&writes), "{writes} writes for 20 frames");
}

#[tokio::test]
async fn a_batch_of_hundreds_of_chunks_goes_out_in_few_writes() {
    let writes = Arc::new(AtomicUsize::new(0));
    let out = Outbound::new(Protocol::Peer, usize::MAX, 1 << 20);
    for n in 0..100 {
        // A header and a body that is not copied: two slices each.
        let frame = OutFrame { body: vec![vec![n; 1024].into()], ..request(1, &[]) };
        assert!(out.send(frame));
    }
    out.finish(2, "");
    out.write_to(Counting(Arc::clone(&writes))).await.expect("it takes everything");
    assert_eq!(writes.load(Ordering::Relaxed), 1);
}
