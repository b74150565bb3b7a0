//! Who does what is asked: this node if it leads, else the leader.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::pull::{Puller, wait_of};
use super::query::view_by_id;
use super::send::{Begun, Sender};
use super::table::{Asked, Handler, handler_of};
use crate::log::{LogBroker, Part, metrics};
use crate::mutant::Mutant;
use crate::net::{
    Connection, Deadlines, Leader, PendingRequest, RelayError, Service, bytes_to_pull_again,
    is_pull,
};
use crate::remoting::codes::{request, response};
use crate::remoting::{Command, Encoding, Reply};
use crate::request::{Failure, check_named, check_size};

/// How long a request waits for a leader, within the three seconds that clients give theirs.
const LEADER_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long a send does: its producer can try another broker in the time that is left.
const LEADER_TIMEOUT_SEND: Duration = Duration::from_millis(1000);
/// How often a follower checks that it still hears a leader that has not answered.
const HEARD_INTERVAL: Duration = Duration::from_millis(100);
/// How often in a row it is not heard before it counts as lost.
const UNHEARD_MAX: u32 = 5;
/// Pause before the leader is asked again.
const PAUSE: Duration = Duration::from_millis(20);

impl Service for LogBroker {
    fn answer(
        self: Arc<Self>,
        connection: Arc<Connection>,
        mut request: PendingRequest,
    ) -> BoxFuture<'static, Option<Vec<Bytes>>> {
        let since = Instant::now();
        let command = &request.command;
        if let Err(failure) =
            check_size(command).and_then(|()| check_named(&self.replica.name, command))
        {
            let answer = (!command.is_oneway()).then(|| failure.into_reply().encode(command));
            return Box::pin(ready(answer));
        }
        // Apart, or every send would need the memory of what may become of a request.
        if is_plain_send(command.head.code)
            && *self.replica.part.borrow() == Part::Leads
            && let Some(begun) = Sender::of(&self).begin_send(&connection, command)
        {
            self.requests.count(&self.replica.name, command.head.code);
            return Box::pin(self.finish_send(connection, request, begun, since));
        }
        Box::pin(async move {
            let command = &request.command;
            if command.head.code == request::RELAY {
                let client = command.head.fields.get("client").and_then(|addr| addr.parse().ok());
                client.into_iter().for_each(|client| connection.set_relayed(client));
                return (!command.is_oneway()).then(|| Reply::done().encode(command));
            }
            let answer = self.route(&connection, &mut request, since).await;
            answer.filter(|_| !request.command.is_oneway())
        })
    }

    fn closed(&self, connection: &Connection) {
        self.clients.disconnected(connection.number);
    }
}

/// True for messages of producers.
fn is_plain_send(code: i32) -> bool {
    matches!(code, request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE)
}

/// True for requests that may store a message, so that it matters whether they were done.
fn is_send(code: i32) -> bool {
    is_plain_send(code) || code == request::CONSUMER_SEND_MSG_BACK
}

impl LogBroker {
    async fn route(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        request: &mut PendingRequest,
        since: Instant,
    ) -> Option<Vec<Bytes>> {
        let code = request.command.head.code;
        let patience = if is_send(code) { LEADER_TIMEOUT_SEND } else { LEADER_TIMEOUT };
        let deadline = since + patience;
        let mut parts = self.replica.part.subscribe();
        loop {
            let part = parts.borrow_and_update().clone();
            match part {
                Part::Leads if self.replica.has_led_state() => {
                    let done = self.handle(connection, request).await;
                    if let Some(answer) = Self::answered(connection, &request.command, done) {
                        return answer;
                    }
                }
                _ if connection.is_relayed() => {
                    let remark = "this node does not lead";
                    // The other broker looks for the code, which the binary form has no room for.
                    let asked = Command { encoding: Encoding::Json, ..request.command.clone() };
                    return Some(Reply::refused(response::NOT_LEADING, remark).encode(&asked));
                }
                Part::Follows(addr) => {
                    let passed = self.pass_on(connection, &addr, request, deadline);
                    if let Some(answer) = Box::pin(passed).await {
                        return answer;
                    }
                }
                Part::Leads | Part::Unknown => {}
            }
            if request.is_shed() || Instant::now() + PAUSE >= deadline {
                return Some(Failure::Moved.into_reply().encode(&request.command));
            }
            // A change is told; a leader that was not reached is asked again.
            let _ = tokio::time::timeout(PAUSE, parts.changed()).await;
        }
    }

    /// The answer of the node at `addr`, which may be nothing; none if it did not answer.
    async fn pass_on(
        &self,
        connection: &Arc<Connection>,
        addr: &str,
        request: &mut PendingRequest,
        deadline: Instant,
    ) -> Option<Option<Vec<Bytes>>> {
        let code = request.command.head.code;
        // The leader gives a request as much time as this node would if it led.
        let wait = if is_pull(code) { wait_of(&request.command) } else { Duration::ZERO };
        let answered = deadline + wait.max(self.config.send_timeout);
        let deadlines = Deadlines { begun: deadline, answered };
        if !wait.is_zero()
            && let Err(full) = request.claim(connection, bytes_to_pull_again(&request.command))
        {
            return Some(Some(full.into_reply().encode(&request.command)));
        }
        let mut parts = self.replica.part.subscribe();
        let leader = Leader { transport: &*self.transport, addr, broker: &self.replica.name };
        let passed = connection.relay.pass(connection, leader, request, deadlines);
        let passed = if is_send(code) {
            passed.await
        } else {
            // A request without an unsure outcome does not wait for a node that leads no more, or hangs.
            tokio::select! {
                passed = passed => passed,
                _ = parts.wait_for(|part| !part.follows(addr)) => Err(RelayError::Lost),
                () = self.leader_is_lost(deadline) => Err(RelayError::Lost),
            }
        };
        match passed {
            Ok(answer) => Some(answer),
            Err(RelayError::Lost)
                if is_send(code) && !Mutant::RelayedSendAskedAgain.is_active() =>
            {
                Self::outcome_unknown(connection, &request.command, "the leader went away");
                Some(None)
            }
            Err(_) if is_pull(code) && request.is_shed() => {
                // Its client comes again at once. It can as well wait here until there may be another leader.
                let elsewhere = parts.wait_for(|part| !part.follows(addr));
                let _ = tokio::time::timeout(LEADER_TIMEOUT, elsewhere).await;
                Some(Some(Puller::of(self).pull_again(&request.command).encode(&request.command)))
            }
            Err(RelayError::NotDone | RelayError::Lost) => None,
        }
    }

    /// Resolves once the leader is not heard any more, at `from` at the earliest.
    async fn leader_is_lost(&self, from: Instant) {
        tokio::time::sleep_until(from).await;
        let mut unheard = 0;
        while unheard < UNHEARD_MAX {
            tokio::time::sleep(HEARD_INTERVAL).await;
            // Of a log that could not be opened here, others say who leads it, as long as they hear that one.
            let heard = self.replica.opened().map_or(true, |opened| opened.log.hears_leader());
            unheard = if heard { 0 } else { unheard + 1 };
        }
    }

    /// Waits for what `begin_send` began, and begins again if the message was refused since another node leads.
    async fn finish_send(
        self: Arc<Self>,
        connection: Arc<Connection>,
        mut request: PendingRequest,
        begun: Begun,
        since: Instant,
    ) -> Option<Vec<Bytes>> {
        let done = begun.acknowledged(&self.replica).await;
        let answer = match Self::answered(&connection, &request.command, done) {
            Some(answer) => answer,
            None => Box::pin(self.route(&connection, &mut request, since)).await,
        };
        answer.filter(|_| !request.command.is_oneway())
    }

    /// What the client is told, which may be nothing; none if another node has to be asked.
    fn answered(
        connection: &Connection,
        command: &Command,
        done: Result<Reply, Failure>,
    ) -> Option<Option<Vec<Bytes>>> {
        match done {
            Ok(reply) => Some(Some(reply.encode(command))),
            Err(Failure::Moved) => None,
            Err(Failure::Unknown(detail)) if is_send(command.head.code) => {
                Self::outcome_unknown(connection, command, &detail);
                Some(None)
            }
            Err(failure) => Some(Some(failure.into_reply().encode(command))),
        }
    }

    /// A message may have been stored or not, and no answer says that. A connection that ends does.
    fn outcome_unknown(connection: &Connection, command: &Command, detail: &str) {
        tracing::debug!(code = command.head.code, detail, "a send whose outcome is not known");
        if !command.is_oneway() {
            connection.end();
        }
    }

    /// Does what is asked, on the leader.
    async fn handle(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        asked: &mut PendingRequest,
    ) -> Result<Reply, Failure> {
        let code = asked.command.head.code;
        self.requests.count(&self.replica.name, code);
        match code {
            code if is_pull(code) => Puller::of(self).pull(connection, asked).await,
            // Apart, or each pull that waits would hold what the largest of these needs.
            request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
                Box::pin(Sender::of(self).send(connection, &asked.command)).await
            }
            request::VIEW_MESSAGE_BY_ID => {
                let bytes_max = self.config.message_bytes_max;
                Box::pin(view_by_id(&self.replica, bytes_max, connection, asked)).await
            }
            _ => Box::pin(self.handle_other(connection, &asked.command)).await,
        }
    }

    /// Does what the table has for the request.
    async fn handle_other(
        &self,
        connection: &Arc<Connection>,
        command: &Command,
    ) -> Result<Reply, Failure> {
        let code = command.head.code;
        let _turn = self.long_answers.turn(connection, code).await?;
        let asked = Asked { broker: self, connection, command };
        match handler_of(code) {
            Some(Handler::Now(answer)) => answer(asked),
            Some(Handler::Later(answer)) => answer(asked).await,
            None => {
                metrics::not_served(&self.replica.name, code, &self.not_served);
                let remark = format!(" request type {code} not supported");
                Err(Failure::refused(response::REQUEST_CODE_NOT_SUPPORTED, remark))
            }
        }
    }
}
