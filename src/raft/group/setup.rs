//! What a group is made of when it is opened: its log's options, openraft's configuration, its network.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Raft, SnapshotPolicy};

use super::{Founding, GroupSetup, RaftHandle};
use crate::config::Config;
use crate::error::{OpenError, with_sources};
use crate::log::{DataDir, Log, LogOptions, WriterObserver};
use crate::member::ReplicaId;
use crate::mutant::Mutant;
use crate::raft::ballot::{Ballots, configs_of};
use crate::raft::log_store::LogStore;
use crate::raft::metrics::GroupMetrics;
use crate::raft::network::NetworkFactory;
use crate::raft::responder::APPEND_BYTES_MIN;
use crate::raft::runtime::{Crash, start_for};
use crate::raft::space::GroupSpace;
use crate::raft::stable::Stable;
use crate::raft::state_machine::LogStateMachine;
use crate::raft::timing::{Timers, millis, rest_after_append};
use crate::raft::trust::Trust;
use crate::raft::types::first_entry;
use crate::raft::unfit::Unfit;
use crate::record::{Flush, LogId, LogName};

/// Room in the core's queue for requests that are not appends.
const API_CHANNEL_SPARE: u64 = 65_536;

/// So many of the longest election timeouts those that lost nothing are waited for after a start.
const STRAGGLERS_PATIENCE: u32 = 8;

/// Writes the first entry of a new log, if this is one.
pub(super) fn found(founding: Option<Founding>, log: &Log) -> Option<Founding> {
    let founding = founding.filter(|_| log.last_id().is_none())?;
    // Not waited for: a vote is saved after it, and makes it durable.
    log.append(vec![first_entry(&founding.founders)], Box::new(drop));
    Some(founding)
}

/// Has this node stand for election at once, not after an election timeout.
pub(super) async fn stand(raft: &RaftHandle) {
    // An error means that the core has stopped already.
    let _ = raft.trigger().elect(false).await;
}

/// Starts consensus.
pub(super) async fn run_consensus(
    replica: ReplicaId,
    name: &LogName,
    config: openraft::Config,
    network: NetworkFactory,
    store: LogStore,
    machine: LogStateMachine,
    crash: &Arc<Crash>,
) -> Result<RaftHandle, OpenError> {
    let raft = Raft::build(replica, Arc::new(config), network, store, machine).await;
    let raft = raft.map_err(|error| OpenError::Start {
        log: name.to_string(),
        detail: crash.reason().map_or_else(|| error.to_string(), ToOwned::to_owned),
    })?;
    start_for(crash, || raft.run());
    Ok(raft)
}

pub(super) fn ballots(setup: &GroupSetup<'_>, log: &Log, trust: Arc<Trust>) -> Ballots {
    let patience = setup.config.raft.election_timeout_max * STRAGGLERS_PATIENCE;
    Ballots::new(setup.replica, configs_of(log.clone()), trust, patience)
}

pub(super) fn network(
    setup: &GroupSetup<'_>,
    log: &Log,
    space: Arc<GroupSpace>,
    unfit: Arc<Unfit>,
    trust: Arc<Trust>,
    ballots: Arc<Ballots>,
) -> NetworkFactory {
    NetworkFactory {
        peers: setup.peers.clone(),
        space,
        unfit,
        trust,
        ballots,
        stable: Arc::new(Stable::new(setup.replica, log.clone())),
        log: setup.id,
        replica: setup.replica,
        window: setup.config.raft.replication_window as usize,
        append_timeout: setup.config.raft.election_timeout_max * 2,
    }
}

/// Notes that a log may have lost something when it fails: what it had acknowledged and not flushed is in no page cache any
/// more, and a later start in the same boot would not see that.
#[derive(Debug)]
struct Watched {
    metrics: Arc<GroupMetrics>,
    data: Arc<DataDir>,
    log: LogId,
}

impl WriterObserver for Watched {
    fn flushed(&self, duration: Duration, entries: u64, bytes: u64) {
        self.metrics.flushed(duration, entries, bytes);
    }

    fn failed(&self) {
        if !self.data.acknowledges_unflushed(self.log) || Mutant::FailedLogTrusted.is_active() {
            return;
        }
        if let Err(error) = self.data.suspect(self.log) {
            let (log, error) = (self.log, with_sources(&error));
            tracing::error!(%log, error, "cannot note that a log may have lost something");
        }
    }
}

pub(super) fn log_options(setup: &GroupSetup<'_>, metrics: Arc<GroupMetrics>) -> LogOptions {
    let (config, log_id) = (setup.config, setup.id);
    // The list of logs gives out their numbers: one that was given twice would mix the files of two.
    let flush = match log_id {
        LogId::SYSTEM => Flush::Sync,
        _ => config.storage.flush,
    };
    let observer = Watched { metrics, data: setup.data.clone(), log: log_id };
    LogOptions {
        log_id,
        flush,
        at_stable: setup.at_stable || setup.data.is_suspect(log_id),
        flush_interval: config.storage.flush_interval,
        segment_size: config.storage.segment_size.bytes(),
        tail_cache_max: config.limits.tail_cache_max.bytes(),
        disk_reserve: config.storage.disk_reserve.bytes(),
        clock: setup.clock.clone(),
        observer: Some(Arc::new(observer)),
    }
}

pub(in crate::raft) fn raft_config(
    config: &Config,
    name: &LogName,
) -> Result<openraft::Config, OpenError> {
    let raft = &config.raft;
    let timers = Timers::of(raft);
    let config = openraft::Config {
        cluster_name: name.to_string(),
        heartbeat_interval: millis(raft.heartbeat_interval),
        election_timeout_min: timers.min,
        election_timeout_max: timers.max,
        heartbeat_min_interval: Some(rest_after_append(raft)),
        install_snapshot_timeout: 60_000,
        max_payload_entries: 4096,
        // Room for every append in flight, each of which counts for `APPEND_BYTES_MIN` at least.
        api_channel_size: Some(
            config.limits.append_inflight_max.bytes() / APPEND_BYTES_MIN + API_CHANNEL_SPARE,
        ),
        backoff: "20ms 40ms ...500ms".to_owned(),
        // Snapshots are boundaries, made by retention; nothing is purged by count.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // A follower can be behind what it had acknowledged: it lost its tail, or somebody put back an older copy of its data.
        // openraft then looks again for what it holds. Otherwise the leader would panic, which has everything.
        allow_log_reversion: Some(!Mutant::RevertedFollowerStopsLeader.is_active()),
        // A leader that lost its unflushed tail would give the same log ids again.
        enable_leader_restore: Some(Mutant::LeaderRestored.is_active()),
        ..openraft::Config::default()
    };
    config
        .validate()
        .map_err(|error| OpenError::Start { log: name.to_string(), detail: error.to_string() })
}
