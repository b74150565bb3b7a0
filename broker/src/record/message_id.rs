//! Ids of messages: where one is stored, and the key that a client gives it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// A number's last digits. By hand: an id is made for each message, and formatting takes several times as long.
pub(crate) fn put_hex(out: &mut String, number: u64, digits: u32) {
    for digit in (0..digits).rev() {
        out.push(DIGITS[(number >> (4 * digit)) as usize & 0xF].into());
    }
}

fn hex_ip(out: &mut String, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => ip.octets().into_iter().for_each(|byte| put_hex(out, byte.into(), 2)),
        IpAddr::V6(ip) => ip.octets().into_iter().for_each(|byte| put_hex(out, byte.into(), 2)),
    }
}

/// The id that names the broker and the physical offset; clients take it apart to view a message.
pub(crate) fn offset_id(host: SocketAddr, physical: u64) -> String {
    let mut id = String::new();
    put_offset_id(&mut id, host, physical);
    id
}

/// Puts an `offset_id` behind what is there.
pub(crate) fn put_offset_id(out: &mut String, host: SocketAddr, physical: u64) {
    out.reserve(56);
    hex_ip(out, host.ip());
    put_hex(out, host.port().into(), 8);
    put_hex(out, physical, 16);
}

/// Keys for messages whose clients gave none (L8): the broker's address, a number drawn at its start, time and a count.
#[derive(Debug)]
pub(crate) struct UniqueIds {
    host: SocketAddr,
    start: u16,
    count: AtomicU32,
}

impl UniqueIds {
    /// `random` tells this start of the broker from others.
    pub(crate) fn new(host: SocketAddr, random: u128) -> Self {
        Self { host, start: random as u16, count: AtomicU32::new((random >> 16) as u32) }
    }

    /// One that no message has yet.
    pub(crate) fn next(&self, now_ms: i64) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut id = String::with_capacity(64);
        hex_ip(&mut id, self.host.ip());
        let _ = write!(id, "{:04X}{:04X}", self.start, self.host.port());
        let _ = write!(id, "{:08X}{count:08X}", now_ms & 0xFFFF_FFFF);
        id
    }
}
