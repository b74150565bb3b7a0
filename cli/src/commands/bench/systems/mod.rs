//! What is measured: quorumlog from another process, by its own protocol or as a broker, quorumlog inside a node's
//! process, the reference.

mod broker;
mod embedded;
mod reference;
mod remote;
mod scrape;

use clap::ValueEnum;
use quorumlog::{AppendOptions, Flush, LogName, NodeId};
use serde::Serialize;

use super::Args;
use super::appender::Appender;
use super::case::Case;
use crate::failure::Result;
use crate::output::note;
use crate::proc::ProcessSample;
pub(super) use broker::{Broker, BrokerNodes, connect};
pub(super) use embedded::Embedded;
pub(super) use reference::Reference;
pub(super) use remote::Remote;

/// Where the load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ClientKind {
    /// In a separate process, over TCP.
    Remote,
    /// In the process of the leader.
    Embedded,
}

/// What the load speaks to nodes in other processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    /// Our own: appends to a log.
    Native,
    /// RocketMQ's: sends to a topic of a broker.
    Rocketmq,
}

/// One running system.
pub(super) enum System {
    Remote(Remote),
    Broker(Broker),
    Embedded(Embedded),
    Reference(Reference),
}

/// One node at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeSample {
    pub(super) node: NodeId,
    pub(super) process: ProcessSample,
    /// Flushes so far; none if the node does not tell.
    pub(super) flushes: Option<u64>,
}

impl System {
    /// Starts what was asked for, the reference first.
    ///
    /// # Errors
    /// One does not start, or cannot be reached.
    pub(super) async fn all(args: &Args, flush: Flush) -> Result<Vec<Self>> {
        let mut systems = Vec::new();
        if args.reference {
            systems.push(Self::Reference(Reference::start(args, flush).await?));
        }
        for kind in &args.client {
            if *kind == ClientKind::Embedded {
                systems.push(Self::Embedded(Embedded::start(args, flush).await?));
                continue;
            }
            for protocol in &args.protocol {
                systems.push(match protocol {
                    Protocol::Rocketmq => Self::Broker(Broker::start(args, flush).await?),
                    Protocol::Native if args.runs_elsewhere() => {
                        Self::Remote(Remote::running(args).await?)
                    }
                    Protocol::Native => Self::Remote(Remote::start(args, flush).await?),
                });
            }
        }
        Ok(systems)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Remote(_) | Self::Embedded(_) => "quorumlog",
            Self::Broker(_) => "broker",
            Self::Reference(_) => "reference",
        }
    }

    pub(super) fn client(&self) -> ClientKind {
        match self {
            Self::Remote(_) | Self::Broker(_) | Self::Reference(_) => ClientKind::Remote,
            Self::Embedded(_) => ClientKind::Embedded,
        }
    }

    /// Makes the logs of a case, and gives what the clients append to in turn.
    ///
    /// # Errors
    /// The cluster refuses.
    pub(super) async fn appenders(&self, args: &Args, case: &Case) -> Result<Vec<Appender>> {
        let names = log_names(&args.log, case.logs)?;
        match self {
            Self::Remote(system) => system.appenders(&names, options(case.flush)).await,
            Self::Broker(system) => system.appenders(&args.log, case).await,
            Self::Embedded(system) => system.appenders(&names, options(case.flush)).await,
            Self::Reference(system) => Ok(system.appenders()),
        }
    }

    pub(super) async fn sample(&self) -> Vec<NodeSample> {
        match self {
            Self::Remote(system) => system.sample().await,
            Self::Broker(system) => system.sample().await,
            Self::Embedded(system) => system.sample().await,
            Self::Reference(system) => system.sample().await,
        }
    }

    /// Fails if a node has ended by itself.
    ///
    /// # Errors
    /// See above.
    pub(super) fn check(&mut self) -> Result {
        match self {
            Self::Remote(system) => system.check(),
            Self::Broker(system) => system.check(),
            Self::Embedded(system) => system.check(),
            Self::Reference(system) => system.check(),
        }
    }

    /// Stops the nodes that were started.
    pub(super) async fn end(self) {
        let result = match self {
            Self::Remote(system) => system.end().await,
            Self::Broker(system) => system.end().await,
            Self::Embedded(system) => system.end().await,
            Self::Reference(system) => system.end().await,
        };
        if let Err(failure) = result {
            note(format_args!("warning: {failure}"));
        }
    }
}

fn options(flush: Flush) -> AppendOptions {
    match flush {
        Flush::Sync => AppendOptions::sync(),
        Flush::Async => AppendOptions::default(),
    }
}

fn log_names(base: &LogName, logs: u32) -> Result<Vec<LogName>> {
    if logs == 1 {
        return Ok(vec![base.clone()]);
    }
    (0..logs).map(|n| Ok(LogName::new(format!("{base}-{n}"))?)).collect()
}

/// What the nodes that are started run with, before `--set`.
fn settings<'a>(args: &'a Args, flush: &'a str) -> Result<Vec<(&'a str, &'a str)>> {
    // A long run must not fill the disk.
    let mut settings =
        vec![("storage.flush", flush), ("log.level", "warn"), ("retention.size_max", "1GiB")];
    for setting in &args.set {
        settings.push(super::setting(setting)?);
    }
    Ok(settings)
}
