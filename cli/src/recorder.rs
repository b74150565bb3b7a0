//! The process's metrics: the library records through the `metrics` facade, HTTP renders.

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::failure::{Failure, Result};

/// How often samples are folded into the histograms, so that they do not pile up between scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
    2.0, 5.0, 10.0,
];
const BYTES: &[f64] =
    &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 8_388_608.0];
const COUNTS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0];

fn builder() -> Result<PrometheusBuilder> {
    let suffix = |suffix: &str| Matcher::Suffix(suffix.to_owned());
    PrometheusBuilder::new()
        .set_buckets(COUNTS)
        .and_then(|builder| builder.set_buckets_for_metric(suffix("_seconds"), SECONDS))
        .and_then(|builder| builder.set_buckets_for_metric(suffix("_bytes"), BYTES))
        .map_err(|error| Failure::failed(format!("cannot set up metrics: {error}")))
}

/// Installs the process's recorder. Call once.
///
/// # Errors
/// A recorder is installed already.
pub(crate) fn install() -> Result<PrometheusHandle> {
    builder()?
        .install_recorder()
        .map_err(|error| Failure::failed(format!("cannot set up metrics: {error}")))
}

/// Keeps the memory of the recorder bounded, whether or not somebody scrapes. Never returns.
pub(crate) async fn upkeep(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buckets_are_accepted_and_rise() {
        builder().expect("buckets");
        for buckets in [SECONDS, BYTES, COUNTS] {
            assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]), "{buckets:?}");
        }
    }
}
