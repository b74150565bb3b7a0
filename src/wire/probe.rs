//! Asks who listens at an address.

use std::io::ErrorKind;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::timeout;

use super::hello::{self, HandshakeError};
use super::{Hello, WireLimits};
use crate::seam::Transport;

/// Who listens at an address.
#[derive(Debug)]
pub(crate) enum Probed {
    /// Somebody who said this.
    Answered(Hello),
    /// Nobody, as the host says, or nobody who speaks this protocol.
    Nobody,
    /// There was no answer in time, or none that says who it is.
    Silent,
}

/// Says `hello` to whoever listens at `addr`, and hangs up.
///
/// # Cancel safety
/// Safe: nothing stays of it.
pub(crate) async fn probe(
    transport: &Arc<dyn Transport>,
    addr: &str,
    hello: &Hello,
    limits: &WireLimits,
    patience: Duration,
) -> Probed {
    let heard = OnceLock::new();
    let ask = async {
        let io = match transport.dial(addr).await {
            Ok(io) => io,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Probed::Nobody,
            Err(_) => return Probed::Silent,
        };
        let listen = |theirs: &Hello| {
            // It is called once.
            let _ = heard.set(theirs.clone());
            Ok(())
        };
        let answer = hello::dial(io, hello, listen, limits).await;
        if let Err(HandshakeError::OtherVersion { .. }) = answer {
            return Probed::Nobody;
        }
        heard.get().cloned().map_or(Probed::Silent, Probed::Answered)
    };
    timeout(patience, ask).await.unwrap_or(Probed::Silent)
}
