//! Free ports on loopback for nodes that this process starts.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::failure::{Failure, Result};

/// Below what systems give to outgoing connections: a node that restarts must find its port free,
/// and a dial to a dead node's port must not meet itself.
const RANGE: Range<u16> = 21_000..32_000;

/// Places that are tried for ports in a row.
const ROW_ATTEMPTS: usize = 100;

/// That many ports that are free now.
///
/// # Errors
/// There are not enough.
pub(crate) fn free(count: usize) -> Result<Vec<u16>> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    // Callers that search at the same time, here or in another process, begin at different places.
    let call = CALLS.fetch_add(1, Ordering::Relaxed).wrapping_mul(1009);
    let span = u32::from(RANGE.end - RANGE.start);
    let offset = (std::process::id().wrapping_mul(97).wrapping_add(call) % span) as u16;
    let ports = (RANGE.start + offset..RANGE.end).chain(RANGE.start..RANGE.start + offset);
    let mut held: Vec<(u16, TcpListener)> = Vec::with_capacity(count);
    for port in ports {
        if held.len() == count {
            break;
        }
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
    }
    if held.len() < count {
        return Err(Failure::failed(format!("no {count} free ports on 127.0.0.1")));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

/// That many ports one after another that are free now.
///
/// # Errors
/// There are none.
pub(crate) fn free_row(count: usize) -> Result<Vec<u16>> {
    for _ in 0..ROW_ATTEMPTS {
        let first = free(1)?.first().map_or(RANGE.start, |port| *port);
        let row: Vec<u16> = (first..RANGE.end).take(count).collect();
        if row.len() == count && are_free(&row) {
            return Ok(row);
        }
    }
    Err(Failure::failed(format!("no {count} free ports in a row on 127.0.0.1")))
}

/// Whether all these ports are free now.
pub(crate) fn are_free(ports: &[u16]) -> bool {
    let held: Vec<_> = ports.iter().map(|port| TcpListener::bind(("127.0.0.1", *port))).collect();
    held.iter().all(std::result::Result::is_ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_taken_ones_are_not_given() {
        let first = free(9).expect("ports");
        let mut sorted = first.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 9);
        let held = TcpListener::bind(("127.0.0.1", first[0])).expect("free");
        assert!(!are_free(&first));
        assert!(!free(9).expect("ports").contains(&first[0]));
        drop(held);
    }
}
