//! One run: a cluster is made, disturbed, healed and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quorumlog::simulation::OpKind;
use quorumlog::{LogName, Role};

use super::broker;
use super::clients;
use super::cluster::Cluster;
use super::fault::Fault;
use super::heal::{heal, wait};
use super::nemesis::Nemesis;
use super::node::{host_of, member_of};
use super::profile::{Profile, ProfileKind};
use super::schedule::Schedule;
use super::shared::{LogState, Shared};
use super::summary::{Breach, Summary, Verdict};
use crate::cluster::{Liveness, Requirements};
use crate::report::{Anomaly, Finding};
use crate::world::{EventTrace, simulate};
use crate::{History, Report, check, to_edn};

/// How long a cluster that nobody disturbs may take to be made.
const SETUP_MS: u64 = 10_000;
/// Of the operations on the log that faults are aimed at, so many of a hundred must succeed.
const OK_PERCENT: u64 = 30;
const NANOS: u64 = 1_000_000;

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) kind: ProfileKind,
    /// Only the faults with these numbers; all if none are given.
    pub(crate) keep: Option<Vec<usize>>,
    /// Text of the trace that is kept.
    pub(crate) trace_bytes_max: usize,
    /// Where histories are written to.
    pub(crate) history: Option<PathBuf>,
    /// The trace has what openraft says, too.
    pub(crate) verbose: bool,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) summary: Summary,
    pub(crate) trace: String,
}

/// Runs a seed, on a simulated thread.
pub(crate) fn run(options: &Options) -> Done {
    let mut done = simulate(options.seed, || simulated(options));
    done.summary.cpu_ms = cpu_ms();
    done
}

fn simulated(options: &Options) -> Done {
    let profile = Profile::new(options.kind, options.seed);
    let schedule = Schedule::new(&profile);
    let schedule = match &options.keep {
        Some(ids) => schedule.keep(ids),
        None => schedule,
    };
    let described = profile.to_string();
    let listed = schedule.faults.iter().map(|fault| (fault.id, fault.to_string())).collect();
    let required = requirements(&profile, &schedule);
    let mut cluster = Cluster::new(profile, options.trace_bytes_max);
    let (level, targets): (_, &[&str]) = match options.verbose {
        true => (tracing::Level::DEBUG, &["quorumlog", "openraft"]),
        false => (tracing::Level::INFO, &["quorumlog"]),
    };
    let events = EventTrace::new(cluster.world.trace(), level, targets.iter().copied());
    let heal_ms = tracing::subscriber::with_default(events, || go_through(&mut cluster, schedule));
    judge(cluster, options, Judged { described, listed, required, heal_ms })
}

/// What is known before the histories are looked at.
struct Judged {
    described: String,
    listed: Vec<(usize, String)>,
    required: Requirements,
    heal_ms: u64,
}

fn go_through(cluster: &mut Cluster, schedule: Schedule) -> u64 {
    trace_disks(cluster);
    if let Err(reason) = set_up(cluster) {
        cluster.shared.breach("setup", reason);
        return 0;
    }
    let begun = cluster.shared.now_ms();
    let mut nemesis = Nemesis::new(schedule, begun);
    let chaos_ms = cluster.shared.profile.chaos_ms;
    // By then there are sealed segments that were stamped while it was wrong.
    let clock_right_at = begun + chaos_ms / 10;
    while cluster.shared.now_ms() < begun + chaos_ms {
        nemesis.act(cluster);
        if cluster.shared.now_ms() == clock_right_at {
            cluster.set_clock_right();
        }
        cluster.tick();
    }
    heal(cluster, &mut nemesis)
}

/// Every change of a disk is a line of the trace.
fn trace_disks(cluster: &mut Cluster) {
    for (id, machine) in &cluster.machines {
        let (host, trace) = (host_of(*id), cluster.shared.trace.clone());
        machine.disk.set_tracer(Some(Arc::new(move |operation| {
            if operation.kind.is_change() && operation.kind != OpKind::Allocate {
                let failed = if operation.result.is_err() { " FAILS" } else { "" };
                let (kind, path) = (operation.kind, operation.path.display());
                let (at, len, crc) = (operation.offset, operation.len, operation.crc);
                trace.line(&host, format_args!("{kind:?} {path} {at}+{len} {crc:08x}{failed}"));
            }
        })));
    }
}

/// Founds the cluster, makes the first logs and starts the clients.
fn set_up(cluster: &mut Cluster) -> Result<(), String> {
    let nodes: Vec<u64> = cluster.machines.keys().copied().collect();
    nodes.iter().for_each(|id| cluster.start(*id));
    let open = wait(cluster, SETUP_MS, |cluster| cluster.shared.nodes().len() == nodes.len());
    open.then_some(()).ok_or("the nodes did not open")?;
    let (voters, shared) = (cluster.shared.profile.voters, Arc::clone(&cluster.shared));
    cluster.shared.run_on_node(
        1,
        Box::new(move |node| {
            Box::pin(async move {
                if let Err(error) = node.bootstrap((1..=voters).map(member_of)).await {
                    shared.breach("setup", format!("bootstrap: {error}"));
                }
                if shared.is_of_brokers() {
                    return broker::add_logs(&shared, &node).await;
                }
                for number in 1..=shared.profile.logs {
                    make_log(&shared, &node, number).await;
                }
            })
        }),
    );
    let logs = cluster.shared.profile.logs as usize;
    let served = |cluster: &mut Cluster| {
        let made = cluster.shared.logs();
        made.len() == logs
            && made.iter().all(|log| {
                let statuses = cluster.statuses(log.id);
                let led = statuses.iter().any(|status| status.role == Role::Leader);
                led && statuses.len() as u64 == voters
            })
    };
    wait(cluster, SETUP_MS, served).then_some(()).ok_or("the logs were not made")?;
    for client in 1..=cluster.shared.profile.clients {
        let (shared, network) = (Arc::clone(&cluster.shared), cluster.network.clone());
        let host = clients::host_of(client);
        cluster.world.start(&host.clone(), move || {
            let transport = network.transport(&host);
            async move {
                match shared.is_of_brokers() {
                    true => broker::run(client, transport, shared).await,
                    false => clients::run(client, transport, shared).await,
                }
            }
        });
    }
    Ok(())
}

async fn make_log(shared: &Shared, node: &quorumlog::Node, number: u64) {
    let made = match LogName::new(format!("log-{number}")) {
        Ok(name) => node.create_log(&name).await.map(|log| (name, log.id())),
        Err(_) => return,
    };
    match made {
        Ok((name, id)) => drop::<Arc<LogState>>(shared.add_log(name, id)),
        Err(error) => shared.breach("setup", format!("log {number}: {error}")),
    }
}

/// What the run must have gone through.
fn requirements(profile: &Profile, schedule: &Schedule) -> Requirements {
    let mut counts: BTreeMap<Fault, u64> = BTreeMap::new();
    for planned in &schedule.faults {
        *counts.entry(planned.fault).or_default() += 1;
    }
    // Faults that take effect whatever else happens, if they are tried twice.
    let sure = [
        Fault::Kill,
        Fault::PowerCut,
        Fault::PowerCutAll,
        Fault::Pause,
        Fault::PartitionSingle,
        Fault::PartitionHalves,
        Fault::LeaderWithMinority,
    ];
    let faults: BTreeSet<String> = (counts.iter())
        .filter(|(fault, count)| sure.contains(fault) && **count >= 2)
        .map(|(fault, _)| fault.name().to_owned())
        .collect();
    Requirements {
        faults,
        leader_changes: 0,
        ok_percent: OK_PERCENT,
        liveness: Some(Liveness { converge_within: profile.heal_ms * NANOS, respond_within: None }),
    }
}

/// Hands the histories to the checker, and puts together what came of it.
fn judge(mut cluster: Cluster, options: &Options, judged: Judged) -> Done {
    let Judged { described, listed, required, heal_ms } = judged;
    let panics = cluster.world.panics().to_vec();
    for panic in panics {
        let detail = format!("on {} at {}: {}", panic.host, panic.place, panic.message);
        cluster.shared.breach("panic", detail);
    }
    let shared = Arc::clone(&cluster.shared);
    let simulated_ms = shared.now_ms();
    let trace = cluster.world.trace();
    let starts = cluster.starts;
    let of_brokers = shared.is_of_brokers().then(|| broker::judge(&shared));
    drop(cluster);
    let mut breaches = shared.take_breaches();
    let mut vacuous = Vec::new();
    let mut summary = Summary::died(options.seed, String::new());
    let scanned = |log: &Arc<LogState>| log.scanned.load(Ordering::Relaxed);
    for (number, log) in shared.logs().into_iter().filter(scanned).enumerate() {
        log.recorder.require(if number == 0 { required.clone() } else { modest(&required) });
        let history = log.recorder.finish();
        let report = check(&history);
        if let Some(dir) = &options.history
            && let Err(error) = write_history(dir, options.seed, &log, &history)
        {
            let detail = format!("cannot write into {}: {error}", dir.display());
            breaches.push(Breach { kind: "history".to_owned(), detail });
        }
        add_findings(&log, &report, of_brokers.is_some(), &mut breaches, &mut vacuous);
        summary.operations += report.operations;
        summary.ok += report.ok;
        summary.acknowledged += report.acknowledged;
        summary.leaders += history.leaders.len() as u64;
        if number == 0 {
            summary.faults = report.faults;
        }
    }
    if let Some(counts) = of_brokers {
        summary.operations += counts.operations;
        summary.ok += counts.operations;
        summary.acknowledged += counts.acknowledged;
        vacuous.extend(counts.vacuous);
    }
    let verdict = match (breaches.is_empty(), vacuous.is_empty()) {
        (false, _) => Verdict::Failed,
        (true, false) => Verdict::Invalid,
        (true, true) => Verdict::Passed,
    };
    let events = shared.take_events();
    summary.events = if verdict == Verdict::Failed { events } else { Vec::new() };
    summary.audited = shared.auditor().audited();
    summary.restarts = starts.saturating_sub(shared.profile.nodes().count() as u64);
    let (trace_lines, trace_hash) = (trace.lines(), trace.hash());
    let (profile, schedule) = (described, listed);
    let summary = Summary {
        verdict,
        breaches,
        vacuous,
        profile,
        schedule,
        simulated_ms,
        heal_ms,
        trace_lines,
        trace_hash,
        ..summary
    };
    let text = if options.trace_bytes_max > 0 { trace.text() } else { String::new() };
    Done { summary, trace: text }
}

/// What is asked of logs that faults are not aimed at.
fn modest(required: &Requirements) -> Requirements {
    Requirements { faults: BTreeSet::new(), leader_changes: 0, ok_percent: 0, ..required.clone() }
}

fn add_findings(
    log: &LogState,
    report: &Report,
    of_brokers: bool,
    breaches: &mut Vec<Breach>,
    vacuous: &mut Vec<String>,
) {
    for (check, finding) in &report.findings {
        match finding {
            Finding::Passed { .. } | Finding::NotApplicable(_) => {}
            // The broker's judge looks at what clients did.
            Finding::CannotTell(_) if of_brokers => {}
            Finding::CannotTell(reason) => breaches.push(Breach {
                kind: "cannot-tell".to_owned(),
                detail: format!("{check:?} of {}: {reason}", log.name),
            }),
            Finding::Failed { violations, .. } => {
                for violation in violations {
                    // Nobody told this checker what a broker appends, and some of it is the same again.
                    let of_clients = matches!(
                        violation.anomaly,
                        Anomaly::NotServing
                            | Anomaly::FewSuccesses
                            | Anomaly::Phantom
                            | Anomaly::Duplicate
                    );
                    if of_brokers && of_clients {
                        continue;
                    }
                    let made = log.name.as_str().starts_with("made");
                    if violation.anomaly.check() == crate::Check::C10 {
                        // A log that was made late need not have seen much.
                        if !made {
                            vacuous.push(violation.to_string());
                        }
                        continue;
                    }
                    let served_late = violation.anomaly == Anomaly::NotServing && made;
                    if !served_late {
                        breaches.push(Breach {
                            kind: violation.anomaly.name(),
                            detail: format!("{}: {violation}", log.name),
                        });
                    }
                }
            }
        }
    }
}

fn write_history(dir: &Path, seed: u64, log: &LogState, history: &History) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let path = |ending: &str| dir.join(format!("seed-{seed}-{}.{ending}", log.name));
    std::fs::write(path("jsonl"), history.to_json_lines())?;
    std::fs::write(path("edn"), to_edn(history))
}

/// CPU time of this process, in steps of 10 ms; 0 where the system does not say.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything, the 12th and 13th fields are ticks of 10 ms.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
    fields
        .into_iter()
        .flatten()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum::<u64>()
        * 10
}
