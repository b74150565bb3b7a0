//! Has a log follow the registry of topics, and the registry take over what the log had before there was one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::log::{DECIDE_TIMEOUT, FOLLOW_TIMEOUT, Part, Replica, Topics};
use crate::request::Failure;
use crate::state::{Change, Decision, HOME_LOG, Shared};

/// Pause before something is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// Has a log follow the registry while this node leads it, for as long as the broker lives.
pub(crate) async fn follow_registry(replica: &Replica, topics: &Topics) {
    Follower { replica, topics }.follow().await;
}

#[derive(Clone, Copy)]
struct Follower<'a> {
    replica: &'a Replica,
    topics: &'a Topics,
}

impl Follower<'_> {
    async fn follow(self) {
        let mut parts = self.replica.part.subscribe();
        loop {
            if parts.wait_for(|part| *part == Part::Leads).await.is_err() {
                return;
            }
            let following = async {
                self.have_topics_adopted().await?;
                // The home log may have no leader: all else goes on.
                tokio::select! {
                    done = self.follow_while_leading() => done,
                    failure = self.report_adopted() => Err(failure),
                }
            };
            if let Err(failure) = following.await {
                tracing::debug!(log = self.replica.name, ?failure, "topics are followed again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Tells the home log that it knows all topics that this log has from before there was a registry. Does not end
    /// but with a failure.
    async fn report_adopted(&self) -> Failure {
        loop {
            let home = match self.topics.home() {
                Ok(home) => home,
                Err(failure) => return failure,
            };
            let is_known =
                |shared: &Arc<Shared>| shared.state().registry().has_adopted(self.replica.number);
            if home.replica.shared().is_ok_and(is_known) {
                return std::future::pending().await;
            }
            let adopted = Decision::Adopted { log: self.replica.number, logs: self.topics.logs() };
            if let Err(failure) = self.topics.decide(adopted, Instant::now() + DECIDE_TIMEOUT).await
            {
                tracing::debug!(
                    log = self.replica.name,
                    ?failure,
                    "what was taken over is reported again"
                );
            } else {
                return std::future::pending().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow_while_leading(&self) -> Result<(), Failure> {
        if self.replica.number == HOME_LOG {
            // It follows as it decides.
            let mut parts = self.replica.part.subscribe();
            let _ = parts.wait_for(|part| *part != Part::Leads).await;
            return Ok(());
        }
        let mut parts = self.replica.part.subscribe();
        let shared = self.replica.shared()?;
        let home = self.topics.home()?;
        let home: &Shared = loop {
            if let Ok(home) = home.replica.shared() {
                break home;
            }
            tokio::time::sleep(PAUSE).await;
        };
        let mut decided = home.followed.subscribe();
        while *parts.borrow_and_update() == Part::Leads {
            decided.mark_unchanged();
            if let Some(follow) = shared.next_follow(home, self.replica.number) {
                self.replica.change(&Change::Follow(follow)).await?;
                self.topics.forget_offsets_of_other_topics()?;
                continue;
            }
            tokio::select! {
                _ = decided.changed() => {}
                _ = parts.changed() => {}
            }
        }
        Ok(())
    }

    /// Has the registry take over the topics that this log has from before there was one.
    async fn have_topics_adopted(&self) -> Result<(), Failure> {
        loop {
            let topics = self.replica.shared()?.state().unadopted();
            if topics.is_empty() {
                return Ok(());
            }
            tracing::info!(log = self.replica.name, topics = topics.len(), "registering topics");
            let deadline = Instant::now() + DECIDE_TIMEOUT;
            let adopt = Decision::Adopt { log: self.replica.number, topics: topics.clone() };
            let version = self.topics.decide(adopt, deadline).await?;
            if self.replica.number != HOME_LOG {
                self.follow_up_to(version).await?;
            }
            if self.replica.shared()?.state().unadopted() == topics {
                tracing::error!(log = self.replica.name, "there are too many topics to take over");
                return Ok(());
            }
        }
    }

    /// Proposes what this log has to follow up to a version, which this node may not have seen yet.
    async fn follow_up_to(&self, version: u64) -> Result<(), Failure> {
        let home = self.topics.home()?;
        home.replica.followed(version, Instant::now() + FOLLOW_TIMEOUT).await?;
        let shared = self.replica.shared()?;
        while let Some(follow) = shared.next_follow(home.replica.shared()?, self.replica.number) {
            self.replica.change(&Change::Follow(follow)).await?;
        }
        Ok(())
    }
}
