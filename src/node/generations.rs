//! The generation of this node's data: it is raised while the node runs, so that a copy that was made of it in the meantime
//! can be told apart. See `raft/generations.rs`.

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

/// What others count on: each log's vote and last entry.
type Deeds = Vec<(LogId, Option<Vote>, Option<EntryId>)>;

/// Runs until the node stops.
pub(super) async fn keep_generations(node: Arc<NodeInner>) {
    let keeping = async {
        let mut before = Deeds::new();
        loop {
            tokio::time::sleep(INTERVAL).await;
            node.note_generations(&mut before).await;
        }
    };
    tokio::select! {
        () = node.stopped() => {}
        () = keeping => {}
    }
}

impl NodeInner {
    /// Raises the generation if the node has done something since `before`, and notes what it has heard of others.
    pub(super) async fn note_generations(&self, before: &mut Deeds) {
        let mut deeds = Deeds::new();
        self.each_group(|group| {
            let (vote, last) = group.log.vote_and_last();
            deeds.push((group.id, vote, last));
        });
        let Some(system) = self.system() else { return };
        let has_acted = deeds != *before && self.peers.standing.is_outdated().is_none();
        let (dir, newest) = (self.dir.clone(), self.peers.contacts.generations.all());
        let noting = move || dir.note_generations(has_acted, newest);
        match system.beside(noting).await {
            // What was done meanwhile counts for the next time.
            Some(Ok(())) => *before = deeds,
            Some(Err(error)) => {
                let error = with_sources(&error);
                tracing::warn!(error, "cannot note how new this node's data is");
            }
            None => {}
        }
    }
}
