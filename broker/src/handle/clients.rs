//! What clients say and ask of who is there.

use std::sync::Arc;

use serde_json::Value;

use crate::clients::Heartbeat;
use crate::log::LogBroker;
use crate::net::Connection;
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply};
use crate::request::{Failure, Look, list, quoted};

impl LogBroker {
    pub(crate) fn heartbeat(
        &self,
        connection: &Arc<Connection>,
        command: &Command,
    ) -> Result<Reply, Failure> {
        let beat: Heartbeat = command.json_body()?;
        beat.check()?;
        self.clients.hear(connection, command.head.speaker, beat).map(|()| Reply::done())
    }

    /// A client's connection leaves a group, as RocketMQ's `unregisterChannel` has it.
    pub(crate) fn unregister(
        &self,
        connection: &Connection,
        command: &Command,
    ) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let client = fields.text("clientID")?;
        if let Some(group) = fields.get("consumerGroup") {
            self.clients.leave(client, connection.number, group);
        }
        Ok(Reply::done())
    }

    pub(crate) async fn consumer_list(&self, command: &Command) -> Result<Reply, Failure> {
        let group = command.head.fields.text("consumerGroup")?;
        if !self.clients.has_group(group) {
            let remark = format!("no consumer for this group, {group}");
            return Err(Failure::refused(response::SYSTEM_ERROR, remark));
        }
        let look = |after: Option<&str>, look: &mut Look| {
            self.clients.look_at_members(group, after, look);
        };
        list(command, (r#"{"consumerIdList":["#, "]}"), look, quoted).await
    }

    /// TAG is served; SQL is not, and the client is told before it subscribes.
    pub(crate) fn check_client_config(command: &Command) -> Result<Reply, Failure> {
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
}
