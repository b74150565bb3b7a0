//! One round of load on one system. Closed loop: clients that each append, wait for the
//! acknowledgement, and append again. Open loop: appends on schedule, whether or not earlier ones are done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::appender::{Appender, Problem};
use super::case::Case;
use super::pace::{self, Schedule};
use super::timeline::Timeline;
use crate::failure::{Failure, Result};
use crate::latency::LatencyRecorder;

/// Wait of a client after an append that failed, so that a dead cluster is not hammered.
const BACKOFF: Duration = Duration::from_millis(20);

/// One round.
pub(super) struct Load {
    payload: Bytes,
    batch: usize,
    appenders: Vec<Appender>,
    begun: Instant,
    /// What counts: in a closed loop what ends from `begin` on and before `end`, in an open loop what is
    /// due then.
    begin: Instant,
    end: Instant,
    latencies: LatencyRecorder,
    timeline: Option<Timeline>,
    errors: AtomicU64,
}

/// What a round found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Found {
    /// Appends that were acknowledged.
    pub(super) appends: u64,
    pub(super) errors: u64,
    pub(super) took: Duration,
    pub(super) latency: crate::latency::Percentiles,
    /// Quantiles and latencies in microseconds.
    pub(super) curve: Vec<(f64, u64)>,
}

impl Load {
    /// A round that begins now. `timeline` takes every append, when given.
    ///
    /// # Errors
    /// There is nothing to append to.
    pub(super) fn new(
        case: &Case,
        appenders: Vec<Appender>,
        warmup: Duration,
        duration: Duration,
        timeline: Option<Timeline>,
    ) -> Result<Arc<Self>> {
        if appenders.is_empty() {
            return Err(Failure::failed("there is no log to append to"));
        }
        let begun = Instant::now();
        let begin = begun + warmup;
        Ok(Arc::new(Self {
            payload: payload(usize::try_from(case.size).unwrap_or(usize::MAX)),
            batch: case.batch as usize,
            appenders,
            begun,
            begin,
            end: begin + duration,
            latencies: LatencyRecorder::new()?,
            timeline,
            errors: AtomicU64::new(0),
        }))
    }

    pub(super) fn begin(&self) -> Instant {
        self.begin
    }

    pub(super) fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_ref()
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// An append failed with what every further one would meet too.
    pub(super) async fn run(self: &Arc<Self>, case: &Case) -> Result<Found> {
        let ended = match case.rate {
            None => self.closed(case.clients).await?,
            Some(rate) => self.open(case.clients, rate).await?,
        };
        let latency = self.latencies.percentiles();
        Ok(Found {
            appends: latency.count,
            errors: self.errors.load(Ordering::Relaxed),
            took: ended - self.begin,
            latency,
            curve: self.latencies.curve(),
        })
    }

    async fn closed(self: &Arc<Self>, clients: u32) -> Result<Instant> {
        let mut tasks = JoinSet::new();
        for client in 0..clients as usize {
            tasks.spawn(Arc::clone(self).client(client));
        }
        while let Some(ended) = tasks.join_next().await {
            joined(ended)?;
        }
        Ok(self.end)
    }

    async fn client(self: Arc<Self>, client: usize) -> Result {
        let appender = self.appenders[client % self.appenders.len()].clone();
        loop {
            let begun = Instant::now();
            if begun >= self.end {
                return Ok(());
            }
            let result = appender.append(&self.payload, self.batch).await;
            let ended = Instant::now();
            let counts = ended >= self.begin && ended < self.end;
            if !self.note(client, result, begun, ended, counts)? {
                sleep(BACKOFF).await;
            }
        }
    }

    async fn open(self: &Arc<Self>, clients: u32, rate: u64) -> Result<Instant> {
        let schedule = Schedule::new(self.begun, rate);
        let slots = Arc::new(Semaphore::new(clients as usize));
        let last = schedule.first_at(self.end);
        // A system that cannot keep up is given the same time again, and then the rest counts as errors.
        let give_up = self.end + (self.end - self.begin);
        let mut tasks = JoinSet::new();
        let mut moments = pace::keep(schedule, last)?;
        let mut taken = 0;
        while let Some(due) = moments.recv().await {
            let slot = Arc::clone(&slots).acquire_owned().await;
            let slot = slot.map_err(|_| Failure::failed("the load was closed"))?;
            if Instant::now() > give_up {
                self.errors.fetch_add(last - taken, Ordering::Relaxed);
                break;
            }
            let (load, client) = (Arc::clone(self), taken as usize);
            taken += 1;
            tasks.spawn(async move {
                let appender = &load.appenders[client % load.appenders.len()];
                let result = appender.append(&load.payload, load.batch).await;
                drop(slot);
                load.note(client, result, due, Instant::now(), due >= load.begin).map(drop)
            });
            while let Some(ended) = tasks.try_join_next() {
                joined(ended)?;
            }
        }
        while let Some(ended) = tasks.join_next().await {
            joined(ended)?;
        }
        Ok(self.end.max(Instant::now()))
    }

    /// Counts one append; false if it failed.
    fn note(
        &self,
        client: usize,
        result: std::result::Result<(), Problem>,
        begun: Instant,
        ended: Instant,
        counts: bool,
    ) -> Result<bool> {
        match result {
            Ok(()) => {
                if counts {
                    self.latencies.record(client, ended - begun);
                }
                if let Some(timeline) = &self.timeline {
                    timeline.acknowledged(client, self.begin, begun, ended);
                }
                Ok(true)
            }
            Err(Problem::Lasting(failure)) => Err(failure),
            Err(Problem::Passing(error)) => {
                tracing::info!(error, client, "append failed");
                if counts {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                }
                Ok(false)
            }
        }
    }
}

/// Waits until then, which may have passed.
pub(super) async fn until(at: Instant) {
    sleep_until(at.into()).await;
}

/// What a task of the load came to.
pub(super) fn joined(ended: std::result::Result<Result, tokio::task::JoinError>) -> Result {
    ended.map_err(|error| Failure::failed(format!("a task of the load: {error}")))?
}

/// Bytes that do not compress.
pub(super) fn payload(size: usize) -> Bytes {
    let mut state: u64 = 0x2545_f491_4f6c_dd1d;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_size_and_do_not_repeat_a_byte() {
        assert!(payload(0).is_empty());
        let payload = payload(1024);
        assert_eq!(payload.len(), 1024);
        let mut seen = [0; 256];
        payload.iter().for_each(|byte| seen[usize::from(*byte)] += 1);
        assert!(seen.iter().all(|count| *count < 20), "{seen:?}");
    }
}
