//! What is measured: one case for each combination of what was asked for.

use std::fmt;

use quorumlog::{ByteCount, Flush};
use serde::Serialize;

/// One combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Case {
    #[serde(serialize_with = "as_text")]
    pub(super) flush: Flush,
    /// Appends that may be under way at once.
    pub(super) clients: u32,
    /// Bytes of a record.
    pub(super) size: u64,
    pub(super) logs: u32,
    /// Records of one append.
    pub(super) batch: u32,
    /// Appends a second, on schedule; else each client appends again once it was acknowledged.
    pub(super) rate: Option<u64>,
}

fn as_text<S: serde::Serializer>(flush: &Flush, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(flush)
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flush, clients, size, logs, batch, rate } = self;
        write!(f, "{clients} clients, {} records, flush {flush}", ByteCount::new(*size))?;
        if *logs > 1 {
            write!(f, ", {logs} logs")?;
        }
        if *batch > 1 {
            write!(f, ", batches of {batch}")?;
        }
        rate.map_or(Ok(()), |rate| write!(f, ", {rate} appends/s on schedule"))
    }
}

/// The lists that were asked for.
#[derive(Debug, Clone)]
pub(super) struct Matrix {
    pub(super) clients: Vec<u32>,
    pub(super) sizes: Vec<u64>,
    pub(super) logs: Vec<u32>,
    pub(super) batches: Vec<u32>,
    pub(super) rates: Vec<u64>,
}

impl Matrix {
    /// All combinations with a flush mode; what changes the load changes fastest.
    pub(super) fn cases(&self, flush: Flush) -> Vec<Case> {
        let rates: Vec<Option<u64>> = match self.rates.as_slice() {
            [] => vec![None],
            rates => rates.iter().copied().map(Some).collect(),
        };
        let mut cases = Vec::new();
        for &logs in &self.logs {
            for &size in &self.sizes {
                for &batch in &self.batches {
                    for &clients in &self.clients {
                        let case = |&rate| Case { flush, clients, size, logs, batch, rate };
                        cases.extend(rates.iter().map(case));
                    }
                }
            }
        }
        cases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_a_case() {
        let mut matrix = Matrix {
            clients: vec![1, 64],
            sizes: vec![64, 1024],
            logs: vec![1],
            batches: vec![1, 16],
            rates: Vec::new(),
        };
        let cases = matrix.cases(Flush::Sync);
        assert_eq!(cases.len(), 8);
        assert!(cases.iter().all(|case| case.rate.is_none()));
        assert_eq!(cases[0].to_string(), "1 clients, 64B records, flush sync");
        matrix.rates = vec![100, 200, 300];
        let cases = matrix.cases(Flush::Async);
        assert_eq!(cases.len(), 24);
        let last = cases[23].to_string();
        let wanted =
            "64 clients, 1KiB records, flush async, batches of 16, 300 appends/s on schedule";
        assert_eq!(last, wanted);
    }
}
