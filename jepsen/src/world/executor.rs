//! The executor: hosts, and the time that passes for all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::host::{Host, Outcome, RESOLUTION};
use super::network::{Death, Network, NetworkConfig};
use super::panics::{self, Panic};
use super::{Random, Trace, context, entropy};

/// Text of a trace that is kept unless told otherwise.
const TRACE_BYTES_MAX: usize = 16 << 20;

/// Settings of a world.
#[derive(Debug, Clone)]
pub struct WorldConfig {
    /// What everything random depends on.
    pub seed: u64,
    /// Simulated time of one step, in whole milliseconds.
    pub tick: Duration,
    /// Settings of its network.
    pub network: NetworkConfig,
    /// Bytes of the trace that are kept as text.
    pub trace_bytes_max: usize,
}

impl WorldConfig {
    /// The usual settings: ticks of a millisecond.
    pub fn new(seed: u64) -> Self {
        let network = NetworkConfig::default();
        Self { seed, tick: RESOLUTION, network, trace_bytes_max: TRACE_BYTES_MAX }
    }
}

/// Hosts, their clocks, and the network between them. See the [module](super).
pub struct World {
    tick: Duration,
    now: Duration,
    hosts: Vec<Host>,
    by_name: BTreeMap<String, usize>,
    network: Network,
    trace: Trace,
    random: Random,
    /// Threads that tasks have started.
    threads: Arc<AtomicU64>,
    panics: Vec<Panic>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("now", &self.now).finish_non_exhaustive()
    }
}

impl World {
    /// A world without hosts.
    ///
    /// # Panics
    /// Outside of [`simulate`](super::simulate), or with a tick that is no whole millisecond.
    pub fn new(config: WorldConfig) -> Self {
        assert!(entropy::is_simulated(), "a world lives within `simulate`");
        let whole = !config.tick.is_zero() && config.tick.subsec_nanos().is_multiple_of(1_000_000);
        assert!(whole, "a tick is some whole milliseconds, and not {:?}", config.tick);
        context::set_now(Duration::ZERO);
        let mut random = Random::new(config.seed);
        let trace = Trace::new(config.trace_bytes_max);
        let network = Network::new(config.network, random.fork(), trace.clone());
        Self {
            tick: config.tick,
            now: Duration::ZERO,
            hosts: Vec::new(),
            by_name: BTreeMap::new(),
            network,
            trace,
            random,
            threads: Arc::default(),
            panics: Vec::new(),
        }
    }

    /// Simulated time since the world began.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The network between the hosts.
    pub fn network(&self) -> Network {
        self.network.clone()
    }

    /// What has happened.
    pub fn trace(&self) -> Trace {
        self.trace.clone()
    }

    /// A generator for one purpose of the caller. Each call gives another one.
    pub fn random(&mut self) -> Random {
        self.random.fork()
    }

    /// Starts a process on `host`, which is made if it is new: its own runtime, on which `software`
    /// runs with all that it spawns. When it returns, the process ends.
    ///
    /// Hosts run in the order of their first start. Values are exchanged with software through any
    /// channel: the caller's end can be used between two steps.
    ///
    /// # Panics
    /// A process runs there already.
    pub fn start<S, F>(&mut self, host: &str, software: S)
    where
        S: FnOnce() -> F,
        F: Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let at = *self.by_name.entry(host.to_owned()).or_insert_with(|| {
            self.hosts.push(Host::new(host, self.now));
            self.hosts.len() - 1
        });
        assert!(!self.hosts[at].is_running(), "{host} runs already");
        self.network.host_up(host);
        self.trace.line(host, format_args!("starts"));
        self.hosts[at].start(|| Box::pin(software()), &self.threads);
    }

    /// Runs `future` on `host`, where nothing may run yet, and gives its value. Everything else goes on
    /// meanwhile. None if `limit` passes first; the host is killed then.
    pub fn run_on<T: Send + 'static>(
        &mut self,
        host: &str,
        limit: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let value = Arc::new(Mutex::new(None));
        let place = Arc::clone(&value);
        self.start(host, || async move {
            let value = future.await;
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            Ok(())
        });
        if !self.run_until(limit, |world| !world.is_running(host)) {
            self.kill(host, Death::Process);
        }
        value.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends the process on `host` where it stands: its tasks are dropped, its connections break.
    ///
    /// Dropping runs destructors, as a real death would not. The network is closed to the process
    /// before; cut it off from its disk, too, before you call this.
    pub fn kill(&mut self, host: &str, death: Death) {
        let host = self.index(host);
        self.end(host, death, "killed");
    }

    /// Stops the process on `host` as SIGSTOP does: it does not run, and its clock goes on. Its machine
    /// still takes connections and bytes for it.
    pub fn pause(&mut self, host: &str) {
        let at = self.index(host);
        self.hosts[at].paused = true;
        self.trace.line(host, format_args!("paused"));
    }

    /// Lets the process on `host` go on. For it, all the time of the pause passes at once.
    pub fn resume(&mut self, host: &str) {
        let at = self.index(host);
        if self.hosts[at].paused {
            self.hosts[at].resume();
            self.trace.line(host, format_args!("resumed"));
        }
    }

    /// True while the process on `host` is paused.
    pub fn is_paused(&self, host: &str) -> bool {
        self.hosts[self.index(host)].paused
    }

    /// From now on the clocks of `host` run `ratio` times as fast as time.
    pub fn drift(&mut self, host: &str, ratio: f64) {
        let at = self.index(host);
        self.hosts[at].set_rate(ratio);
        self.trace.line(host, format_args!("clock runs at {ratio}"));
    }

    /// Moves the wall clock of `host`, forth or back.
    pub fn step_wall_clock(&mut self, host: &str, millis: i64) {
        let at = self.index(host);
        self.hosts[at].step_wall_clock(millis);
        self.trace.line(host, format_args!("wall clock steps by {millis} ms"));
    }

    /// What the monotonic clock of `host` shows, from the start of the world on.
    pub fn clock(&self, host: &str) -> Duration {
        self.hosts[self.index(host)].clock()
    }

    /// True while a process runs on `host`, paused or not. False for a host that nobody knows.
    pub fn is_running(&self, host: &str) -> bool {
        self.by_name.get(host).is_some_and(|at| self.hosts[*at].is_running())
    }

    /// How the last process on `host` ended; none while one runs.
    pub fn outcome(&self, host: &str) -> Option<Outcome> {
        self.hosts[self.index(host)].outcome.clone()
    }

    /// Panics of all hosts so far, in tasks too.
    pub fn panics(&mut self) -> &[Panic] {
        self.collect_panics();
        &self.panics
    }

    /// One tick passes.
    ///
    /// # Panics
    /// A host has started a thread, such as by `spawn_blocking`: nothing is certain any more.
    pub fn step(&mut self) {
        self.network.advance(self.now);
        for at in 0..self.hosts.len() {
            let running = self.hosts[at].is_running();
            self.hosts[at].pass(self.tick);
            if running && !self.hosts[at].is_running() {
                self.end(at, Death::Process, "ended");
            }
        }
        self.collect_panics();
        self.now += self.tick;
        context::set_now(self.now);
        let threads = self.threads.load(Ordering::Relaxed);
        assert_eq!(threads, 0, "a host started a thread: tasks must not block");
    }

    /// Lets `span` pass.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.step();
        }
    }

    /// Steps until `done`, and says whether that was so before `limit` had passed.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if self.now >= end {
                return false;
            }
            self.step();
        }
    }

    fn end(&mut self, at: usize, death: Death, how: &str) {
        let name = Arc::clone(&self.hosts[at].name);
        self.network.host_down(&name, death);
        self.hosts[at].kill();
        match &self.hosts[at].outcome {
            Some(outcome) => self.trace.line(&name, format_args!("{how}: {outcome:?}, {death:?}")),
            None => self.trace.line(&name, format_args!("{how}, {death:?}")),
        }
    }

    fn collect_panics(&mut self) {
        for panic in panics::take() {
            // Not the place: its path is that of a machine.
            self.trace.line(&panic.host, format_args!("panicked: {}", panic.message));
            self.panics.push(panic);
        }
    }

    /// A wrong name is an error of the test.
    fn index(&self, host: &str) -> usize {
        let at = self.by_name.get(host).copied();
        at.unwrap_or_else(|| panic!("there is no host {host:?}"))
    }
}

impl Drop for World {
    /// Processes die before the network does, and in their own context.
    fn drop(&mut self) {
        debug_assert!(context::current_host().is_none(), "no host runs now");
        for host in &mut self.hosts {
            if host.is_running() {
                self.network.host_down(&host.name, Death::Process);
                host.kill();
            }
        }
    }
}
