//! Follows who leads a log. A new leader says in the log where it serves clients; once that is applied, so is
//! everything before it, and it begins to serve.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorumlog::{AdminError, LedElsewhere, LogId, LogName, Node, Role, Status};

use crate::log::{LogBroker, Opened, Part};
use crate::mutant::Mutant;
use crate::request::Failure;
use crate::state::{Change, Machines, Rules};

/// Pause before something is tried again that nothing tells us about.
const PAUSE: Duration = Duration::from_millis(20);

impl LogBroker {
    /// Waits for the log, makes it if nobody has, and follows its leaders; as other nodes name them where this node has no
    /// copy that runs.
    pub(crate) async fn follow(self: Arc<Self>, node: Node, machines: Machines, name: LogName) {
        let opened = loop {
            let log = node.log(&name);
            if let Some((log, shared)) = log.zip(machines.shared(name.as_str())) {
                break Opened { log, shared };
            }
            if let Some(info) = node.logs().into_iter().find(|info| info.name == name) {
                self.replica.not_open.store(node.is_not_open(info.id), Ordering::Release);
                self.set_part_elsewhere(&node.watch_elsewhere().borrow(), info.id);
            }
            self.make_log(&node, &name).await;
        };
        let mut statuses = opened.log.watch_status();
        let mut changed = opened.shared.changed.subscribe();
        let opened = self.replica.opened.get_or_init(|| opened);
        let mut elsewhere = node.watch_elsewhere();
        let mut announced = None;
        loop {
            changed.mark_unchanged();
            elsewhere.mark_unchanged();
            let status = statuses.current();
            // Another state than it was announced with has to be announced as well: it is whole once that is applied.
            let number = opened.shared.number();
            let unannounced = announced != Some((status.term, number));
            if status.role == Role::Leader && unannounced {
                self.tell_service(&node, &status, &Part::Unknown);
                self.set_part(Part::Unknown);
                if self.announce(&node).await {
                    announced = Some((status.term, number));
                    self.replica.led.store(number, Ordering::Release);
                    continue;
                }
            } else {
                let applied = part(&status, opened);
                self.tell_service(&node, &status, &applied);
                let part = newer_part(&elsewhere.borrow(), &status).unwrap_or(applied);
                self.set_part(part);
            }
            tokio::select! {
                status = statuses.changed() => if status.is_none() { break },
                _ = changed.changed() => {}
                _ = elsewhere.changed() => {}
                () = tokio::time::sleep(PAUSE), if status.role == Role::Leader && unannounced => {}
            }
        }
        // Stopped, or deleted.
        loop {
            self.set_part_elsewhere(&elsewhere.borrow_and_update(), opened.log.id());
            if elsewhere.changed().await.is_err() {
                return;
            }
        }
    }

    /// Follows the leader that other nodes name.
    fn set_part_elsewhere(&self, found: &LedElsewhere, log: LogId) {
        let led = found.service(log).map(|addr| Part::Follows(addr.to_string()));
        if led.is_some() {
            // It is led, and not by this node.
            self.replica.settled.send_if_modified(|held| !std::mem::replace(held, true));
        }
        self.set_part(led.unwrap_or(Part::Unknown));
    }

    /// Has the node tell others where the leader's broker is, as it has applied that.
    fn tell_service(&self, node: &Node, status: &Status, part: &Part) {
        let addr = match part {
            Part::Leads => Some(self.replica.addr),
            Part::Follows(addr) => addr.parse().ok(),
            Part::Unknown => None,
        };
        let served = status.leader.as_ref().map(|leader| leader.id).zip(addr);
        node.note_service(LogId(status.log_id), served);
    }

    async fn make_log(&self, node: &Node, name: &LogName) {
        if node.is_bootstrapped() && !node.logs().iter().any(|info| info.name == *name) {
            match node.create_log(name).await {
                Ok(_) | Err(AdminError::LogExists { .. }) => return,
                Err(error) => tracing::debug!(log = %name, %error, "the log cannot be made yet"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }

    async fn announce(&self, node: &Node) -> bool {
        let lead = Change::Lead { node: node.member().id, addr: self.replica.addr.to_string() };
        let announced = async {
            self.raise_rules().await?;
            self.replica.change(&lead).await
        };
        match announced.await {
            Ok(_) => {
                let newest_ms =
                    self.replica.shared().map_or(0, |shared| shared.state().newest_lock_ms());
                self.leases.begin(newest_ms);
                true
            }
            Err(failure) => {
                tracing::debug!(log = self.replica.name, ?failure, "cannot lead yet");
                false
            }
        }
    }

    /// Says in the log that records mean from here on what they mean to this build.
    async fn raise_rules(&self) -> Result<(), Failure> {
        let newest = Rules::NEWEST;
        if self.replica.shared()?.state().rules() < newest {
            self.replica.change(&Change::Rules { version: newest.version() }).await?;
        }
        Ok(())
    }

    fn set_part(&self, part: Part) {
        let changed = self.replica.part.send_if_modified(|held| {
            let differs = *held != part;
            *held = part;
            differs
        });
        if changed && *self.replica.part.borrow() != Part::Leads {
            self.forget_clients();
        }
    }
}

impl LogBroker {
    /// Forgets what clients said to this node while it led: they say it to the next leader, with their next heartbeats and
    /// reports, and what they say there is newer. What is in the log stays, and so does the last time of storing that this
    /// node gave, which must not go back.
    fn forget_clients(&self) {
        if !Mutant::ClientsRemembered.is_active() {
            self.clients.forget_all();
        }
        if !Mutant::ReportsRemembered.is_active() {
            self.consumed.forget();
        }
    }
}

fn part(status: &Status, opened: &Opened) -> Part {
    let Some(leader) = &status.leader else { return Part::Unknown };
    if leader.id == status.node_id {
        return if status.role == Role::Leader { Part::Leads } else { Part::Unknown };
    }
    let state = opened.shared.state();
    state.address(leader.id).map_or(Part::Unknown, |addr| Part::Follows(addr.to_owned()))
}

/// The part as other nodes know it, if this one's copy lags: it has not applied where the leader's broker is, or what it has
/// is out of date.
fn newer_part(found: &LedElsewhere, status: &Status) -> Option<Part> {
    let log = LogId(status.log_id);
    if status.role == Role::Leader {
        return None;
    }
    match found.service_since(log, status.term) {
        Some(addr) => Some(Part::Follows(addr.to_string())),
        None => found.is_led_after(log, status.term).then_some(Part::Unknown),
    }
}
