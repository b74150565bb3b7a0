//! `append`: an argument, a file, or standard input line by line.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quorumlog::client::{ClientLog, ClientTicket};
use quorumlog::{AppendError, AppendOptions, Appended, Flush, LogName, Outcome};
use tokio::time::{Instant, timeout_at};

use crate::client::{ClientArgs, ensure_log, log_name};
use crate::failure::{Exit, Failure, Result};
use crate::lines::Lines;
use crate::output::Output;
use crate::progress::Progress;

/// Payload bytes that may wait for their acknowledgement.
const INFLIGHT_BYTES_MAX: u64 = 32 << 20;

/// Pause before what a node has refused is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A batch is sent when its payloads reach this, even if it has fewer records than asked for.
const BATCH_BYTES: u64 = 1 << 20;

const AFTER_HELP: &str = "\
Examples:
  quorumlog append orders hello
  quorumlog append orders --file orders.txt --create
  journalctl -f | quorumlog append journal -
  quorumlog append orders --file orders.txt --batch 100 --print-index

Lines keep their order as long as the leader does not change. --inflight 1 always keeps it.
Exit code 3: some records may or may not be in the log. Look at the log before you retry.";

/// Append records: an argument, or a file or standard input line by line.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Name of the log.
    #[arg(value_parser = log_name)]
    log: LogName,
    /// One record. `-` or nothing reads lines from standard input.
    text: Option<String>,
    /// Read lines from this file.
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Ask for a flush by a majority even if nodes run with flush = "async".
    #[arg(long, value_name = "MODE")]
    flush: Option<Flush>,
    /// Put up to this many lines into one append, which happens as a whole or not at all.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Appends that may wait for their acknowledgement.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    inflight: u32,
    /// Create the log if it does not exist.
    #[arg(long)]
    create: bool,
    /// Print the index of each record, in the order of the lines, instead of a summary.
    #[arg(long)]
    print_index: bool,
    #[command(flatten)]
    cluster: ClientArgs,
}

/// Where records come from.
enum Source {
    One(Option<Bytes>),
    Lines(Lines),
}

/// What was appended so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    acknowledged: u64,
    unknown: u64,
    refused: u64,
    first_index: Option<u64>,
    last_index: u64,
}

/// Runs the command.
///
/// # Errors
/// A record was not appended, or its outcome is not known.
pub(crate) async fn run(args: Args, out: &mut Output) -> Result {
    let (source, progress) = source(&args).await?;
    let client = args.cluster.connect().await?;
    if args.create {
        ensure_log(&client, &args.log).await?;
    }
    let mut pipeline = Pipeline {
        log: client.log(&args.log),
        args: &args,
        progress,
        tally: Tally::default(),
        failure: None,
        sending: None,
        sent: VecDeque::new(),
        refused: VecDeque::new(),
        inflight_bytes: 0,
    };
    let read = pipeline.run(source, out).await;
    pipeline.progress.clear();
    let Pipeline { tally, failure, .. } = pipeline;
    match (failure, read) {
        (None, Ok(())) if args.print_index => Ok(()),
        (None, Ok(())) => out.line(tally.summary(&args.log)),
        (None, Err(failure)) => Err(tally.explain(failure)),
        (Some(failure), _) => Err(tally.explain(failure)),
    }
}

async fn source(args: &Args) -> Result<(Source, Progress)> {
    if let Some(path) = &args.file {
        let lines = Lines::of_file(path).await?;
        let size = tokio::fs::metadata(path).await.ok().filter(|meta| meta.is_file());
        return Ok((Source::Lines(lines), Progress::bytes(size.map(|meta| meta.len()))));
    }
    match args.text.as_deref() {
        Some(text) if text != "-" => {
            let record = Bytes::copy_from_slice(text.as_bytes());
            Ok((Source::One(Some(record)), Progress::hidden()))
        }
        None if std::io::stdin().is_terminal() => {
            Err(Failure::usage("nothing to append: standard input is a terminal")
                .with_hint("give a record, --file FILE, or - to type lines"))
        }
        _ if std::io::stdin().is_terminal() => {
            Ok((Source::Lines(Lines::of_stdin()), Progress::hidden()))
        }
        _ => Ok((Source::Lines(Lines::of_stdin()), Progress::bytes(None))),
    }
}

impl Source {
    /// The next record. Cancel safe.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::One(record) => Ok(record.take()),
            Self::Lines(lines) => lines.next().await,
        }
    }
}

struct Pipeline<'a> {
    log: ClientLog,
    args: &'a Args,
    progress: Progress,
    tally: Tally,
    /// The first append that failed. Nothing is begun after it.
    failure: Option<Failure>,
    /// On its way to the leader.
    sending: Option<BoxFuture<'static, Sent>>,
    /// Sent and not yet acknowledged, in the order of the lines.
    sent: VecDeque<InFlight>,
    /// Certainly not appended; sent again once nothing is in flight any more.
    refused: VecDeque<Append>,
    inflight_bytes: u64,
}

/// One or more lines that are appended together.
struct Append {
    records: Vec<Bytes>,
    bytes: u64,
    begun: Instant,
}

struct InFlight {
    append: Append,
    ticket: ClientTicket,
    sent: Instant,
}

type Sent = (Append, std::result::Result<ClientTicket, AppendError>);

impl Append {
    fn new(records: Vec<Bytes>) -> Self {
        let bytes = records.iter().map(|record| record.len() as u64).sum();
        Self { records, bytes, begun: Instant::now() }
    }
}

impl Pipeline<'_> {
    /// Reads and appends until the source ends or an append fails; waits for all that it began.
    async fn run(&mut self, mut source: Source, out: &mut Output) -> Result {
        let mut batch: Vec<Bytes> = Vec::new();
        let mut batch_bytes = 0;
        let mut open = true;
        let mut read_result = Ok(());
        loop {
            if self.sending.is_none() && self.sent.is_empty() {
                self.send_again().await;
            }
            open &= self.failure.is_none();
            if !open && self.sending.is_none() && self.sent.is_empty() {
                return read_result;
            }
            let room = self.sending.is_none()
                && self.refused.is_empty()
                && self.sent.len() < self.args.inflight as usize
                && self.inflight_bytes < INFLIGHT_BYTES_MAX;
            let next = tokio::select! {
                biased;
                result = oldest(&mut self.sent, self.args.cluster.timeout) => {
                    self.ended(result, out)?;
                    continue;
                }
                (append, ticket) = sending(&mut self.sending) => {
                    self.sending = None;
                    match ticket {
                        Ok(ticket) => {
                            let sent = Instant::now();
                            self.sent.push_back(InFlight { append, ticket, sent });
                        }
                        Err(error) => self.failed(&append, &error),
                    }
                    continue;
                }
                next = source.next(), if open && room => next,
            };
            match next {
                Ok(Some(record)) => {
                    batch_bytes += record.len() as u64;
                    batch.push(record);
                }
                Ok(None) => open = false,
                Err(failure) => {
                    open = false;
                    read_result = Err(failure);
                }
            }
            let full = batch.len() >= self.args.batch as usize || batch_bytes >= BATCH_BYTES;
            if !batch.is_empty() && (full || !open) {
                batch_bytes = 0;
                self.send(Append::new(std::mem::take(&mut batch)));
            }
        }
    }

    fn send(&mut self, append: Append) {
        let log = self.log.clone();
        let options = match self.args.flush {
            Some(Flush::Sync) => AppendOptions::sync(),
            _ => AppendOptions::default(),
        };
        let single = self.args.batch == 1;
        self.inflight_bytes += append.bytes;
        self.sending = Some(Box::pin(async move {
            let ticket = match append.records.first() {
                Some(record) if single => log.submit_with(record.clone(), options).await,
                _ => log.submit_batch_with(append.records.clone(), options).await,
            };
            (append, ticket)
        }));
    }

    /// Sends the first of what was refused. What follows it waits in the same queue, so that the lines
    /// keep their order.
    async fn send_again(&mut self) {
        if let Some(append) = self.refused.pop_front() {
            tokio::time::sleep(RETRY_PAUSE).await;
            self.send(append);
        }
    }

    /// The oldest append in flight has ended.
    fn ended(
        &mut self,
        result: std::result::Result<Appended, AppendError>,
        out: &mut Output,
    ) -> Result {
        let Some(InFlight { append, .. }) = self.sent.pop_front() else { return Ok(()) };
        let appended = match result {
            Ok(appended) => appended,
            Err(error)
                if error.is_retryable()
                    && self.failure.is_none()
                    && append.begun.elapsed() < self.args.cluster.timeout =>
            {
                self.inflight_bytes -= append.bytes;
                self.refused.push_back(append);
                return Ok(());
            }
            Err(error) => {
                self.failed(&append, &error);
                return Ok(());
            }
        };
        self.inflight_bytes -= append.bytes;
        let records = append.records.len() as u64;
        self.tally.acknowledged(appended.index, records);
        self.progress.add(append.bytes + records);
        if self.args.print_index {
            for index in appended.index..=appended.last_index() {
                out.line(index)?;
            }
            if self.sent.is_empty() {
                out.flush()?;
            }
        }
        Ok(())
    }

    /// Nothing is begun after the first failure, so what was refused before stays so.
    fn failed(&mut self, append: &Append, error: &AppendError) {
        self.inflight_bytes -= append.bytes;
        self.tally.failed(error.outcome(), append.records.len() as u64);
        self.failure.get_or_insert_with(|| error.clone().into());
        for append in std::mem::take(&mut self.refused) {
            self.tally.failed(Outcome::NotAppended, append.records.len() as u64);
        }
    }
}

/// How the oldest append ends, within `limit` after it was sent; never if there is none.
async fn oldest(
    sent: &mut VecDeque<InFlight>,
    limit: Duration,
) -> std::result::Result<Appended, AppendError> {
    let Some(oldest) = sent.front_mut() else { return std::future::pending().await };
    let ended = timeout_at(oldest.sent + limit, &mut oldest.ticket).await;
    ended.unwrap_or(Err(AppendError::Timeout { after: limit }))
}

/// What is being sent, once it is; never if nothing is.
async fn sending(sending: &mut Option<BoxFuture<'static, Sent>>) -> Sent {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

impl Tally {
    fn acknowledged(&mut self, first: u64, records: u64) {
        self.acknowledged += records;
        let least = self.first_index.map_or(first, |index| index.min(first));
        self.first_index = Some(least);
        self.last_index = self.last_index.max(first + records.saturating_sub(1));
    }

    fn failed(&mut self, outcome: Outcome, records: u64) {
        match outcome {
            Outcome::Unknown => self.unknown += records,
            Outcome::NotAppended => self.refused += records,
        }
    }

    fn summary(&self, log: &LogName) -> String {
        let count = self.acknowledged;
        match self.first_index {
            None => format!("appended nothing to {log}: there were no lines"),
            Some(index) if count == 1 => format!("appended 1 record to {log} at index {index}"),
            Some(first) => {
                let last = self.last_index;
                format!("appended {count} records to {log} at indexes {first} to {last}")
            }
        }
    }

    /// The first failure, what became of the other records, and the exit code for all together.
    fn explain(&self, mut failure: Failure) -> Failure {
        let Self { acknowledged, unknown, refused, .. } = self;
        if acknowledged + unknown + refused > 1 {
            failure.message.push_str(&format!(
                "; {acknowledged} records acknowledged, {unknown} unknown, {refused} not appended"
            ));
        }
        if *unknown > 0 {
            failure.exit = Exit::Unknown;
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unknown_outcome_decides_the_exit_code() {
        let mut tally = Tally::default();
        tally.acknowledged(7, 2);
        tally.failed(Outcome::NotAppended, 1);
        let refused = tally.explain(Failure::failed("refused"));
        assert_eq!(refused.exit, Exit::Failed);
        assert_eq!(refused.message, "refused; 2 records acknowledged, 0 unknown, 1 not appended");
        tally.failed(Outcome::Unknown, 1);
        assert_eq!(tally.explain(Failure::failed("refused")).exit, Exit::Unknown);
    }

    #[test]
    fn the_summary_names_the_indexes() {
        let log = LogName::new("orders").expect("name");
        let mut tally = Tally::default();
        assert!(tally.summary(&log).contains("nothing"));
        tally.acknowledged(7, 1);
        assert_eq!(tally.summary(&log), "appended 1 record to orders at index 7");
        tally.acknowledged(12, 3);
        tally.acknowledged(9, 1);
        assert_eq!(tally.summary(&log), "appended 5 records to orders at indexes 7 to 14");
    }
}
