//! What clients say and ask of who is there.

use std::sync::Arc;

use serde_json::Value;

use crate::clients::{Clients, Heartbeat};
use crate::net::Connection;
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply, Speaker};
use crate::request::{Failure, Look, after, list, quoted};

/// A client says what it is.
pub(super) struct HeartBeat {
    beat: Heartbeat,
    speaker: Speaker,
}

impl HeartBeat {
    pub(super) fn read(command: &Command) -> Result<Self, Failure> {
        let beat: Heartbeat = command.json_body()?;
        beat.check()?;
        Ok(Self { beat, speaker: command.head.speaker })
    }

    pub(super) fn run(
        self,
        clients: &Clients,
        connection: &Arc<Connection>,
    ) -> Result<Reply, Failure> {
        clients.hear(connection, self.speaker, self.beat).map(|()| Reply::done())
    }
}

/// A client's connection leaves a group, as RocketMQ's `unregisterChannel` has it.
pub(super) struct Unregister<'a> {
    client: &'a str,
    /// Producers are in no group here.
    group: Option<&'a str>,
}

impl<'a> Unregister<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        let fields = &command.head.fields;
        Ok(Self { client: fields.text("clientID")?, group: fields.get("consumerGroup") })
    }

    pub(super) fn run(self, clients: &Clients, connection: &Connection) -> Reply {
        if let Some(group) = self.group {
            clients.leave(self.client, connection.number, group);
        }
        Reply::done()
    }
}

/// The members of a group.
pub(super) struct ConsumerList<'a> {
    group: &'a str,
    after: Option<&'a str>,
}

impl<'a> ConsumerList<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        let group = command.head.fields.text("consumerGroup")?;
        Ok(Self { group, after: after(command) })
    }

    pub(super) async fn run(self, clients: &Clients) -> Result<Reply, Failure> {
        let group = self.group;
        if !clients.has_group(group) {
            let remark = format!("no consumer for this group, {group}");
            return Err(Failure::refused(response::SYSTEM_ERROR, remark));
        }
        let look = |after: Option<&str>, look: &mut Look| {
            clients.look_at_members(group, after, look);
        };
        list(self.after, (r#"{"consumerIdList":["#, "]}"), look, quoted).await
    }
}

/// TAG is served; SQL is not, and the client is told before it subscribes.
pub(super) fn check_client_config(command: &Command) -> Result<Reply, Failure> {
    let body: Value = command.json_body()?;
    let kind = body.pointer("/subscriptionData/expressionType").and_then(Value::as_str);
    match kind {
        None | Some("" | "TAG") => Ok(Reply::done()),
        Some(kind) => {
            let remark =
                format!("The broker does not support consumer to filter message by {kind}");
            Err(Failure::refused(response::SYSTEM_ERROR, remark))
        }
    }
}
