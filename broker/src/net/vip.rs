//! The VIP channel: Java clients before 4.5, and later ones if told to, connect to the port two below a broker's address
//! (`MixAll.brokerVIPChannel`). Old ones do not name the broker that they mean, so no other log may listen there.

use std::io;

use crate::settings::BrokerConfig;

/// How far below its broker's port the channel lies.
const BELOW: u16 = 2;

/// The channel of a broker that listens on `port`.
pub(crate) fn port(port: u16) -> Option<u16> {
    port.checked_sub(BELOW).filter(|port| *port > 0)
}

/// Checks that no log's channel is where another log listens.
///
/// # Errors
/// It is: a message could be stored in another log than was meant.
pub(crate) fn check(config: &BrokerConfig) -> io::Result<()> {
    let split = |addr: &str| {
        let (host, port) = addr.rsplit_once(':')?;
        Some((host.to_owned(), port.parse::<u16>().ok().filter(|port| *port > 0)?))
    };
    let taken: Vec<_> = config.listen.iter().filter_map(|addr| split(addr)).collect();
    for (host, own) in &taken {
        let channel = port(*own);
        // Different hosts may be the same machine, so all count as one.
        if let Some((other, port)) = taken.iter().find(|(_, port)| Some(*port) == channel) {
            let detail = format!(
                "the VIP channel of the broker at {host}:{own} is the address of another, {other}:{port}: leave three \
                 ports to each log, or switch the channel off"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, detail));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(ports: &[u16]) -> BrokerConfig {
        let listen = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        BrokerConfig { listen, ..BrokerConfig::default() }
    }

    #[test]
    fn a_log_that_listens_where_the_vip_channel_of_another_is_is_refused() {
        for bad in [&[10911, 10912, 10913][..], &[10911, 10913], &[10913, 10911]] {
            let refused = check(&listening(bad)).expect_err("they clash");
            assert!(refused.to_string().contains("10913 is the address of another"), "{refused}");
        }
        for good in [&[10911][..], &[10911, 10914, 10917], &[10911, 10912], &[0, 0, 0], &[1, 2]] {
            check(&listening(good)).expect("no clash");
        }
    }
}
