//! Where the handles of a log find its group: another one after the log was opened again.

use std::sync::Arc;

use tokio::sync::watch;

use crate::raft::Group;
use crate::record::{LogId, LogName};

/// See the module.
pub(super) struct LogPlace {
    pub(super) name: LogName,
    pub(super) id: LogId,
    held: watch::Sender<Held>,
}

struct Held {
    group: Arc<Group>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// If its group has stopped, it is being opened again.
    Open,
    /// It could not be opened again. The node goes on trying.
    NotOpen,
    /// It is not opened again: it was deleted or has failed, or the node stops.
    Ended,
}

impl LogPlace {
    pub(super) fn new(group: Arc<Group>) -> Arc<Self> {
        let (name, id) = (group.name.clone(), group.id);
        let held = watch::Sender::new(Held { group, state: State::Open });
        Arc::new(Self { name, id, held })
    }

    /// The log's group. One that has stopped if the log is not open.
    pub(super) fn group(&self) -> Arc<Group> {
        Arc::clone(&self.held.borrow().group)
    }

    /// The log was opened again.
    pub(super) fn set(&self, group: Arc<Group>) {
        self.held.send_replace(Held { group, state: State::Open });
    }

    /// The log could not be opened again, so far.
    pub(super) fn not_open(&self) {
        self.held.send_modify(|held| held.state = State::NotOpen);
    }

    /// The log is not opened again.
    pub(super) fn end(&self) {
        self.held.send_modify(|held| held.state = State::Ended);
    }

    /// The group that takes the place of one that went back. None if there will be none.
    pub(super) async fn successor(&self, of: &Arc<Group>) -> Option<Arc<Group>> {
        self.replaced(of, |state| state == State::Ended).await
    }

    /// The log's group, once it is open again if it goes back just now.
    pub(super) async fn settled(&self) -> Arc<Group> {
        let mut group = self.group();
        while let Some(successor) = self.replaced(&group, |state| state != State::Open).await {
            group = successor;
        }
        group
    }

    /// The group that takes the place of one that went back. None once the log's state is such that nobody waits for it.
    async fn replaced(
        &self,
        of: &Arc<Group>,
        gives_up: impl Fn(State) -> bool,
    ) -> Option<Arc<Group>> {
        of.rewound_to()?;
        let is_other = |held: &Held| !Arc::ptr_eq(&held.group, of);
        let mut changed = self.held.subscribe();
        let held = changed.wait_for(|held| gives_up(held.state) || is_other(held)).await.ok()?;
        is_other(&held).then(|| Arc::clone(&held.group))
    }
}

impl std::fmt::Debug for LogPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("LogPlace");
        out.field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}
