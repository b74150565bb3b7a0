//! Ids of messages: where one is stored, and the key that a client gives it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

fn hex(out: &mut String, bytes: impl IntoIterator<Item = u8>) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02X}");
    }
}

fn hex_ip(out: &mut String, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => hex(out, ip.octets()),
        IpAddr::V6(ip) => hex(out, ip.octets()),
    }
}

/// The id that names the broker and the physical offset; clients take it apart to view a message.
pub(crate) fn offset_id(host: SocketAddr, physical: u64) -> String {
    let mut id = String::with_capacity(56);
    hex_ip(&mut id, host.ip());
    let _ = write!(id, "{:08X}{physical:016X}", u32::from(host.port()));
    id
}

/// A key for a message whose client gave none (L8): the broker's address, its process, time and a count.
pub(crate) fn unique_id(host: SocketAddr) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut id = String::with_capacity(64);
    hex_ip(&mut id, host.ip());
    let _ = write!(id, "{:04X}{:04X}", std::process::id() & 0xFFFF, host.port());
    let _ = write!(id, "{:08X}{count:08X}", now & 0xFFFF_FFFF);
    id
}
