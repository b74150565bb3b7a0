//! The client against nodes that follow a script.

mod appends;
mod others;
mod scripted;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::error::AppendError;
use crate::record::{Record, Start};
use scripted::{ScriptedCluster, name};

/// Every future of the public API can be sent to another thread.
#[test]
fn futures_are_send() {
    fn check<T: Send>(_: impl FnOnce(Client, ClientLog, ClientSubscription) -> T) {}
    check(|_, log, _| async move { log.append("x").await.is_ok() });
    check(|_, log, _| async move { log.append_batch(vec![]).await.is_ok() });
    check(|_, log, _| async move { log.submit("x").await?.await });
    check(|_, log, _| async move { log.read(0, 1).await.is_ok() });
    check(|_, log, _| async move { log.read_barrier().await.is_ok() });
    check(|_, log, _| async move { log.status().await.is_ok() });
    check(|_, _, mut subscription| async move { subscription.next().await.is_none() });
    check(|client, _, _| async move { client.statuses().await.len() });
    check(|client, _, _| async move { client.create_log(&name("a")).await.is_ok() });
    check(|client, _, _| async move { client.transfer_leadership(None, 1).await.is_ok() });
    check(|_, _, _| Client::connect(ClientConfig::new(["127.0.0.1:1"])));
}
