//! `start --dev`: three nodes in this process, to try things out.

use std::path::Path;
use std::time::Duration;

use quorumlog::LogName;
use quorumlog::client::{Client, ClientConfig};

use crate::cli::{block_on, cores};
use crate::client::ensure_log;
use crate::cluster::plan::{Plan, Ports};
use crate::commands::broker::BrokerPlan;
use crate::commands::start::Flag;
use crate::failure::{Failure, Result};
use crate::output::note;
use crate::serve::{self, Served};
use crate::settings::{Layers, Settings};
use crate::signals::StopSignals;
use crate::workspace::Workspace;
use crate::{logging, recorder};

const LOG: &str = "default";

/// Runs three nodes until SIGTERM or SIGINT; with `data` they keep what they store, and the
/// ports of their first run.
///
/// # Errors
/// A node cannot open or stop cleanly.
pub(crate) fn run(
    data: Option<&Path>,
    ports: Ports,
    overrides: &[Flag],
    broker: Option<&BrokerPlan>,
) -> Result {
    let workspace = Workspace::reusable(data, "dev")?;
    let plan = match Plan::load(workspace.path())? {
        Some(plan) => plan,
        None => Plan::create(workspace.path(), ports, &[("log.level", "warn")])?,
    };
    let mut nodes = Vec::new();
    for node in &plan.nodes {
        let mut layers = Layers::defaults();
        layers.file(&node.config)?;
        for (flag, key, value) in overrides {
            layers.flag(flag, key, value)?;
        }
        nodes.push(layers.settings()?);
    }
    let Some(first) = nodes.first() else {
        return Err(Failure::failed("no nodes are planned"));
    };
    logging::init(&first.log.level, first.log.format)?;
    quorumlog::log_panics();
    let result =
        block_on(first.runtime.threads(cores()), serve_all(&plan, nodes, data.is_some(), broker));
    drop(workspace);
    result
}

async fn serve_all(
    plan: &Plan,
    nodes: Vec<Settings>,
    keeps: bool,
    broker: Option<&BrokerPlan>,
) -> Result {
    let mut signals = StopSignals::new().map_err(|error| Failure::io("signals", &error))?;
    let metrics = recorder::install()?;
    let mut served: Vec<Served> = Vec::new();
    // The founder is the first, and needs the others to elect a leader; so it opens last.
    for (number, settings) in nodes.iter().enumerate().rev() {
        let broker = broker.map(|plan| plan.of_node(number)).transpose()?;
        served.push(serve::open(settings, broker, metrics.clone()).await?);
    }
    let prepared = tokio::select! {
        result = prepare(plan, broker.is_some()) => result,
        _ = signals.next() => Ok(()),
    };
    if prepared.is_ok() {
        match broker {
            Some(broker) => broker.hints(plan, keeps),
            None => hints(plan, keeps),
        }
        tokio::select! {
            _ = signals.next() => {}
            () = recorder::upkeep(metrics) => {}
        }
    }
    let mut result = prepared;
    for node in served {
        tokio::select! {
            stopped = node.shutdown() => result = result.and(stopped),
            signal = signals.next() => {
                return Err(Failure::failed(format!("a second {signal} cut the shutdown short")));
            }
        }
    }
    result
}

async fn prepare(plan: &Plan, broker: bool) -> Result {
    let mut config = ClientConfig::new(plan.client_addrs());
    config.timeout = Duration::from_secs(30);
    let client = Client::connect(config).await?;
    if broker {
        // The broker makes its own logs; to be asked for them, the cluster must be there.
        client.logs().await?;
        return Ok(());
    }
    ensure_log(&client, &LogName::new(LOG)?).await
}

fn hints(plan: &Plan, keeps: bool) {
    let clients = plan.client_addrs();
    note(format_args!("three nodes serve the log `{LOG}`; data in {}", plan.dir.display()));
    if !keeps {
        note("the data is removed at the end; keep it with --data DIR");
    }
    let to = if clients.first().is_some_and(|addr| addr == "127.0.0.1:20921") {
        String::new()
    } else {
        format!(" --node {}", clients.join(" --node "))
    };
    note("try, in another terminal:");
    note(format_args!("  quorumlog append {LOG} 'hello'{to}"));
    note(format_args!("  quorumlog tail {LOG} --begin{to}"));
    note(format_args!("  quorumlog status{to}"));
    for node in &plan.nodes {
        note(format_args!("  curl http://{}/metrics   # node {}", node.http_addr, node.member.id));
    }
    note("Ctrl-C stops all three");
}
