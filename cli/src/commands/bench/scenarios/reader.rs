//! A subscriber, in the process of a node or over TCP.

use quorumlog::client::ClientSubscription;
use quorumlog::{ReadError, Record, Subscription};

pub(super) enum Reader {
    Own(Subscription),
    Remote(ClientSubscription),
}

impl Reader {
    /// The next record; none once the log has ended.
    pub(super) async fn next(&mut self) -> Option<Result<Record, ReadError>> {
        match self {
            Self::Own(subscription) => subscription.next().await,
            Self::Remote(subscription) => subscription.next().await,
        }
    }
}
