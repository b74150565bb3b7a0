//! One round of load on a system that runs: clients that each append, wait until it is confirmed, and append
//! again. Prints one JSON object with the fields that `quorumlog bench --json` has.

mod systems;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use systems::{Appender, Failure, System};

/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 600_000_000;

/// Load on one system.
#[derive(Debug, Clone, Parser)]
struct Args {
    /// What runs there.
    #[arg(long, value_enum)]
    system: System,
    /// Where its three nodes take clients.
    #[arg(long, value_delimiter = ',', required = true)]
    addrs: Vec<String>,
    /// Clients, each with one append under way.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Bytes of one message.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Seconds that count.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Seconds before those.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// What the system's own settings make of a confirmation; is printed as it is.
    #[arg(long, default_value = "sync")]
    flush: String,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let appenders = systems::connect(args.system, &args.addrs, args.clients).await?;
    println!("ready");
    let begin = Instant::now() + Duration::from_secs_f64(args.warmup);
    let end = begin + Duration::from_secs_f64(args.duration);
    let payload = payload(args.size);
    let mut tasks = JoinSet::new();
    let errors = Arc::new(Mutex::new((0_u64, String::new())));
    for appender in appenders {
        tasks.spawn(client(appender, payload.clone(), begin, end, Arc::clone(&errors)));
    }
    let mut all = histogram()?;
    while let Some(ended) = tasks.join_next().await {
        all.add(ended??)?;
    }
    let (errors, last) = errors.lock().map_err(|_| "a client panicked")?.clone();
    if errors > 0 {
        eprintln!("{errors} appends failed, one of them with: {last}");
    }
    let line = serde_json::json!({
        "system": args.system.name(),
        "flush": args.flush,
        "clients": args.clients,
        "size": args.size,
        "logs": 1,
        "ops_s": all.len() as f64 / args.duration,
        "p50_us": all.value_at_quantile(0.5),
        "p99_us": all.value_at_quantile(0.99),
        "p999_us": all.value_at_quantile(0.999),
        "errors": errors,
    });
    println!("{line}");
    Ok(())
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Ok(Histogram::new_with_bounds(1, LONGEST_US, 3)?)
}

/// Latencies of what ended in the time that counts.
async fn client(
    mut appender: Appender,
    payload: Bytes,
    begin: Instant,
    end: Instant,
    errors: Arc<Mutex<(u64, String)>>,
) -> Result<Histogram<u64>, Failure> {
    let mut latencies = histogram()?;
    loop {
        let begun = Instant::now();
        if begun >= end {
            return Ok(latencies);
        }
        let result = appender.append(payload.clone()).await;
        let ended = Instant::now();
        if ended < begin || ended >= end {
            continue;
        }
        match result {
            Ok(()) => latencies.saturating_record((ended - begun).as_micros() as u64),
            Err(error) => {
                if let Ok(mut errors) = errors.lock() {
                    *errors = (errors.0 + 1, error.to_string());
                }
                // paced: a broken system is not hammered.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Bytes that do not compress, the same that `quorumlog bench` appends.
fn payload(size: usize) -> Bytes {
    let mut state: u64 = 0x2545_f491_4f6c_dd1d;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(byte).collect()
}
