//! What clients see while a leader is killed: a time line.

use std::fmt;
use std::time::Duration;

use quorumlog::{Flush, NodeId};

use super::case::Case;
use super::load::{self, Load};
use super::systems::{ClientKind, Remote, System};
use super::timeline::{Span, Timeline};
use super::{Args, Matrix};
use crate::failure::{Failure, Result};
use crate::output::note;

/// When the leader is killed, when it is started again, and when the round ends.
const KILL: Duration = Duration::from_secs(5);
const RESTART: Duration = Duration::from_secs(8);
const END: Duration = Duration::from_secs(12);
const WARMUP: Duration = Duration::from_secs(1);
/// Clients of the round.
const CLIENTS: u32 = 64;
/// Length of one span of the time line.
const SPAN: Duration = Duration::from_millis(50);

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failover {
    pub(super) case: Case,
    pub(super) killed: NodeId,
    /// In seconds since the begin.
    pub(super) killed_at: f64,
    pub(super) restarted_at: f64,
    /// From the kill until an append that began after it was acknowledged; none if that did not happen.
    pub(super) outage_ms: Option<u32>,
    pub(super) errors: u64,
    pub(super) spans: Vec<Span>,
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} led and was killed; ", self.killed)?;
        match self.outage_ms {
            Some(ms) => write!(f, "the first append after it was acknowledged {ms} ms later")?,
            None => f.write_str("no append after it was acknowledged")?,
        }
        write!(f, ", {} appends failed", self.errors)
    }
}

/// Starts nodes for one round, kills the leader in it, and starts it again.
///
/// # Errors
/// The nodes do not start, or there is no leader to kill.
pub(super) async fn run(args: &Args) -> Result<Failover> {
    let flush = args.flush.first().copied().unwrap_or(Flush::Sync);
    let matrix = Matrix { clients: vec![CLIENTS], rates: Vec::new(), ..args.matrix() };
    let first = matrix.cases(flush).into_iter().next();
    let fallback = Case { flush, clients: CLIENTS, size: 1024, logs: 1, batch: 1, rate: None };
    let case = Case { logs: 1, ..first.unwrap_or(fallback) };
    note(format_args!("a killed leader: {case}"));
    // Its directory must not be that of the rounds before.
    let data = args.data.as_ref().map(|dir| dir.join("failover"));
    let args = Args { data, reference: false, client: vec![ClientKind::Remote], ..args.clone() };
    let mut system = System::Remote(Remote::start(&args, flush).await?);
    let result = kill_in_the_middle(&args, &case, &mut system).await;
    system.end().await;
    result
}

async fn kill_in_the_middle(args: &Args, case: &Case, system: &mut System) -> Result<Failover> {
    let appenders = system.appenders(args, case).await?;
    let load = Load::new(case, appenders, WARMUP, END, Some(Timeline::new()))?;
    let nemesis = async {
        let System::Remote(remote) = system else {
            return Err(Failure::failed("only nodes in processes can be killed"));
        };
        load::until(load.begin() + KILL).await;
        let (killed, at) = remote.kill_leader(&args.log).await?;
        let killed_at = at.saturating_duration_since(load.begin());
        load::until(load.begin() + RESTART).await;
        remote.start_again(killed)?;
        Ok((killed, killed_at, load.begin().elapsed()))
    };
    let (found, killed) = tokio::join!(load.run(case), nemesis);
    let (found, (killed, killed_at, restarted_at)) = (found?, killed?);
    let timeline = load.timeline();
    Ok(Failover {
        case: *case,
        killed,
        killed_at: killed_at.as_secs_f64(),
        restarted_at: restarted_at.as_secs_f64(),
        outage_ms: timeline.and_then(|timeline| timeline.first_after(killed_at)),
        errors: found.errors,
        spans: timeline.map(|timeline| timeline.spans(SPAN, END)).unwrap_or_default(),
    })
}
