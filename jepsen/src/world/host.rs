//! One host: a process on its own runtime, and the machine's clock.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{context, entropy, panics};

/// What software gives back.
pub(super) type Software =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send>>;

/// What a clock counts from, so that times before the simulation can be told.
const BOOT: Duration = Duration::from_secs(1_000_000);
/// Wall clock at the start of every simulation: 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// Timers of tokio have this resolution, so clocks move in whole steps of it.
pub(super) const RESOLUTION: Duration = Duration::from_millis(1);
const MILLION: u128 = 1_000_000;

/// How a host's software ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It returned.
    Finished,
    /// It returned an error.
    Failed(String),
    /// It panicked.
    Panicked(String),
    /// It was killed.
    Killed,
}

pub(super) struct Host {
    pub(super) name: Arc<str>,
    pub(super) paused: bool,
    pub(super) outcome: Option<Outcome>,
    process: Option<Process>,
    /// What the machine's clock has counted since the simulation began.
    clock: Duration,
    /// Simulated time that the clock has not counted yet: less than its resolution, or a pause.
    behind: Duration,
    /// Counted per million simulated.
    rate: u128,
    /// Wall clock minus `EPOCH` and `clock`, in milliseconds.
    wall_offset: i64,
}

struct Process {
    runtime: Runtime,
    main: JoinHandle<Result<(), Box<dyn std::error::Error + Send + Sync>>>,
    /// The clock at its start, for tokio and for the machine.
    started: (Instant, Duration),
}

impl Host {
    pub(super) fn new(name: &str, now: Duration) -> Self {
        Self {
            name: Arc::from(name),
            paused: false,
            outcome: None,
            process: None,
            clock: now,
            behind: Duration::ZERO,
            rate: MILLION,
            wall_offset: 0,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn clock(&self) -> Duration {
        self.clock
    }

    pub(super) fn set_rate(&mut self, ratio: f64) {
        self.rate = (ratio * MILLION as f64).round() as u128;
    }

    pub(super) fn step_wall_clock(&mut self, millis: i64) {
        self.wall_offset = self.wall_offset.saturating_add(millis);
    }

    /// Starts a process. `threads` counts threads that its tasks start.
    pub(super) fn start(&mut self, software: impl FnOnce() -> Software, threads: &Arc<AtomicU64>) {
        let _running = self.enter();
        let threads = Arc::clone(threads);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_start(move || {
                threads.fetch_add(1, Ordering::Relaxed);
            })
            .build()
            .expect("a runtime without I/O asks nothing of the system");
        let (main, started) = {
            let _entered = runtime.enter();
            (runtime.spawn(software()), Instant::now())
        };
        self.outcome = None;
        self.paused = false;
        self.process = Some(Process { runtime, main, started: (started, self.clock) });
    }

    /// `span` of simulated time passes.
    pub(super) fn pass(&mut self, span: Duration) {
        let counted = span.as_nanos() * self.rate / MILLION;
        self.behind += Duration::from_nanos(u64::try_from(counted).unwrap_or(u64::MAX));
        if self.paused {
            return;
        }
        // Set before the clock goes on: until its own timers are due, a host is at the start of the span.
        let running = self.enter();
        let due = self.catch_up();
        if due.is_zero() {
            return;
        }
        let Some(process) = &self.process else { return };
        let now = process.runtime.block_on(async {
            tokio::time::sleep(due).await;
            Instant::now()
        });
        let (began, clock) = process.started;
        assert_eq!(now - began, self.clock - clock, "the clock of {} is off", self.name);
        if process.main.is_finished() {
            drop(running);
            self.finish();
        }
    }

    /// The clock makes up for a pause in one step, and every timer that is due fires at once.
    pub(super) fn resume(&mut self) {
        let jump = self.catch_up();
        let _running = self.enter();
        if let Some(process) = self.process.as_ref().filter(|_| !jump.is_zero()) {
            process.runtime.block_on(tokio::time::advance(jump));
        }
    }

    /// The process ends where it stands. A machine without one is not paused.
    pub(super) fn kill(&mut self) {
        self.catch_up();
        let _running = self.enter();
        if self.process.take().is_some() {
            self.outcome = Some(Outcome::Killed);
        }
    }

    /// The machine's clock makes up for a pause; gives by how much.
    fn catch_up(&mut self) -> Duration {
        self.paused = false;
        let steps = self.behind.as_nanos() / RESOLUTION.as_nanos();
        let jump = RESOLUTION * u32::try_from(steps).unwrap_or(u32::MAX);
        self.behind -= jump;
        self.clock += jump;
        jump
    }

    /// The main task has ended, and the process with it.
    fn finish(&mut self) {
        let _running = self.enter();
        let Some(Process { runtime, main, .. }) = self.process.take() else { return };
        let outcome = match runtime.block_on(main) {
            Ok(Ok(())) => Outcome::Finished,
            Ok(Err(error)) => Outcome::Failed(error.to_string()),
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => Outcome::Panicked(panics::text(panic.as_ref())),
                Err(failure) => Outcome::Failed(failure.to_string()),
            },
        };
        drop(runtime);
        self.outcome = Some(outcome);
    }

    /// Code of this host runs, until what comes back is dropped.
    fn enter(&self) -> context::Running {
        let wall = EPOCH + self.clock;
        let offset = Duration::from_millis(self.wall_offset.unsigned_abs());
        let wall = if self.wall_offset < 0 { wall.saturating_sub(offset) } else { wall + offset };
        entropy::set_clocks(BOOT + self.clock, wall);
        context::run(&self.name)
    }
}
