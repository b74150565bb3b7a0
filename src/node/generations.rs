//! The generation of this node's data: it is raised once a majority has let the node in, and while it runs, so that a copy
//! that was made of it before can be told apart. See `raft/generations.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::inner::NodeInner;
use crate::error::with_sources;
use crate::format::entry::EntryId;
use crate::log::Vote;
use crate::record::LogId;

/// How often the generation is raised while the node does something, and what was heard of others is noted. A copy of the
/// data that is younger than this may not be told apart from the data itself.
const INTERVAL: Duration = Duration::from_secs(10);

/// How often a node that has just started looks whether enough members have let it in, without being told of another.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What others count on: each log's vote and last entry.
type Deeds = Vec<(LogId, Option<Vote>, Option<EntryId>)>;

/// Runs until the node stops.
pub(super) async fn keep_generations(node: Arc<NodeInner>) {
    let keeping = async {
        let (mut before, mut admitted) = (Deeds::new(), false);
        loop {
            // After a raise the next one waits: a hello that is on its way may be one generation behind, and no more.
            tokio::select! {
                biased;
                () = node.admitted(), if !admitted => admitted = true,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            node.note_generations(admitted, &mut before).await;
        }
    };
    tokio::select! {
        () = node.stopped() => {}
        () = keeping => {}
    }
}

impl NodeInner {
    /// True if enough members have let this process in for it to raise the generation.
    pub(super) fn is_admitted(&self) -> bool {
        let voters = self.system().map(|system| system.voters()).unwrap_or_default();
        self.peers.contacts.generations.is_admitted(self.identity.replica(), &voters)
    }

    /// Resolves once enough members have let this process in.
    async fn admitted(&self) {
        while !self.is_admitted() {
            let another = self.peers.contacts.generations.admitted.notified();
            // The voters may change, too, which is not told here: an error means that it is time to look.
            let _ = tokio::time::timeout(LOOK_AGAIN, another).await;
        }
    }

    /// Raises the generation if the node is `admitted` and has done something since `before`, and notes what it has heard of
    /// others.
    pub(super) async fn note_generations(&self, admitted: bool, before: &mut Deeds) {
        let mut deeds = Deeds::new();
        self.each_group(|group| {
            let (vote, last) = group.log.vote_and_last();
            deeds.push((group.id, vote, last));
        });
        let Some(system) = self.system() else { return };
        let has_acted = deeds != *before;
        let is_raised = admitted && has_acted && self.peers.standing.is_outdated().is_none();
        let (dir, newest) = (self.dir.clone(), self.peers.contacts.generations.all());
        let noting = move || dir.note_generations(is_raised, newest);
        match system.beside(noting).await {
            // What was done meanwhile counts for the next time.
            Some(Ok(())) if is_raised => {
                *before = deeds;
                tracing::debug!(
                    generation = self.dir.generation(),
                    "the data has a new generation"
                );
            }
            Some(Ok(())) => {}
            Some(Err(error)) => {
                let error = with_sources(&error);
                tracing::warn!(error, "cannot note how new this node's data is");
            }
            None => {}
        }
    }
}
