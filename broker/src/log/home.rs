//! Decisions on topics. The home log's leader takes them, whichever node was asked; then each log's leader has its log
//! follow (`state/topics/follow.rs`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorumlog::codec;
use quorumlog::seam::Transport;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::log_broker::LogBroker;
use super::replica::{Part, Replica};
use super::topics::Topics;
use crate::LOG_PREFIX;
use crate::limits::QUEUES_MAX;
use crate::mutant::Mutant;
use crate::net::Way;
use crate::remoting::Fields;
use crate::remoting::codes::{request, response};
use crate::request::{Failure, check_topic, is_reserved};
use crate::state::{
    Answer, Change, Decision, HOME_LOG, LOGS_MAX, TOPICS_OF_RECORD, TopicConfig, is_registered,
};

/// How long the home log may take to decide.
pub(crate) const DECIDE_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long all logs may take to follow.
pub(crate) const FOLLOW_TIMEOUT: Duration = Duration::from_millis(2000);
/// Decisions of one node that are under way at once.
const DECISIONS_MAX: usize = 64;
/// Pause before something is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// A node's way to the leader of the home log.
pub(crate) struct Home {
    way: Way,
    under_way: Semaphore,
}

/// Why one attempt came to nothing.
enum Attempt {
    /// Nothing was done.
    NotDone(String),
    /// It may have been done, or may yet be.
    Unknown(String),
    /// Refused: so will the next one be.
    Failed(Failure),
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Moved => Self::NotDone("it has no leader".to_owned()),
            Failure::Unknown(detail) => Self::Unknown(detail),
            failure => Self::Failed(failure),
        }
    }
}

impl Attempt {
    /// As the home log's leader answers. It is asked again if it may do it soon.
    fn refused(code: i32, remark: &str) -> Self {
        let lasts = Failure::tells_full_disk(remark) && !Mutant::FullDiskAskedAgain.is_active();
        match code {
            response::SERVICE_NOT_AVAILABLE if !lasts => Self::NotDone(remark.to_owned()),
            code => Self::Failed(Failure::refused(code, remark)),
        }
    }
}

impl Home {
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { way: Way::new(transport), under_way: Semaphore::new(DECISIONS_MAX) }
    }

    async fn ask(&self, addr: &str, decision: &Decision, left: Duration) -> Result<u64, Attempt> {
        let not_reached = || Attempt::NotDone("its leader is not reached".to_owned());
        let addr = addr.parse().map_err(|_| not_reached())?;
        let link = self.way.to(addr).await.ok_or_else(not_reached)?;
        let body = Bytes::from(codec::encode(decision));
        let answer = link.call(request::DECIDE_TOPIC, Fields::default(), body, left).await;
        let answer = answer.map_err(|error| Attempt::Unknown(error.to_string()))?;
        match answer.head.code {
            response::SUCCESS => {
                let version = answer.head.fields.number("version").ok();
                let version = version.and_then(|version| u64::try_from(version).ok());
                version.ok_or_else(|| Attempt::Unknown("its answer is not understood".to_owned()))
            }
            code => Err(Attempt::refused(code, answer.remark())),
        }
    }
}

/// Checks what another node, or anybody, asks for.
fn check(decision: &Decision) -> Result<(), Failure> {
    let check = |name: &str, config: Option<&TopicConfig>| {
        check_topic(name)?;
        let queues = config.is_none_or(|config| {
            let numbers = [config.read_queues, config.write_queues];
            numbers.iter().all(|queues| (1..=QUEUES_MAX).contains(queues)) && config.perm < 8
        });
        if is_reserved(name) || !is_registered(name) || !queues {
            let remark = format!("topic[{name}] cannot be made or deleted");
            return Err(Failure::refused(response::INVALID_PARAMETER, remark));
        }
        Ok(())
    };
    match decision {
        Decision::Ensure { name, config, .. } | Decision::Put { name, config, .. } => {
            check(name, Some(config))
        }
        Decision::Delete { name } => check(name, None),
        Decision::Adopt { topics, .. } if topics.len() > TOPICS_OF_RECORD => {
            let remark = format!("{} topics in one decision", topics.len());
            Err(Failure::refused(response::INVALID_PARAMETER, remark))
        }
        Decision::Adopt { topics, .. } => {
            topics.iter().try_for_each(|(name, config)| check(name, Some(config)))
        }
        Decision::Adopted { log, logs } if log >= logs || *logs > LOGS_MAX => {
            let remark = format!("there is no log {log} of {logs}");
            Err(Failure::refused(response::INVALID_PARAMETER, remark))
        }
        Decision::Adopted { .. } => Ok(()),
    }
}

impl Topics {
    /// This node's broker of the home log.
    pub(crate) fn home(&self) -> Result<Arc<LogBroker>, Failure> {
        let brokers = self.brokers.upgrade().ok_or(Failure::Moved)?;
        brokers.logs().get(HOME_LOG as usize).cloned().ok_or(Failure::Moved)
    }

    /// Has the home log decide, by a deadline. Returns the version of the registry that logs have to follow. A decision
    /// may be taken twice without harm, so an attempt of which nothing is known is followed by the next one.
    ///
    /// # Errors
    /// It was refused; or the home log did not take it in time, and may yet.
    pub(crate) async fn decide(
        &self,
        decision: Decision,
        deadline: Instant,
    ) -> Result<u64, Failure> {
        let home = self.home()?;
        let (mut why, mut unknown) = ("it has no leader".to_owned(), false);
        let deciding = async {
            let place = home.topics.decisions.under_way.acquire().await;
            let _place = place.map_err(|_| Failure::Moved)?;
            loop {
                let before = std::mem::replace(&mut unknown, true);
                match home.topics.attempt(&decision, deadline).await {
                    Ok(version) => return Ok(version),
                    Err(Attempt::Failed(failure)) => return Err(failure),
                    Err(Attempt::NotDone(reason)) => (why, unknown) = (reason, before),
                    Err(Attempt::Unknown(reason)) => why = reason,
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        match tokio::time::timeout_at(deadline, deciding).await {
            Ok(done) => done,
            Err(_) if unknown => {
                let detail =
                    format!("{} has not answered in time, and may yet do it", home.replica.name);
                Err(Failure::Unknown(detail))
            }
            Err(_) => {
                let detail =
                    format!("nothing was done: {} decides on topics, and {why}", home.replica.name);
                Err(Failure::refused(response::SERVICE_NOT_AVAILABLE, detail))
            }
        }
    }

    async fn attempt(&self, decision: &Decision, deadline: Instant) -> Result<u64, Attempt> {
        let part = self.replica.part.borrow().clone();
        match part {
            Part::Leads => Ok(self.decide_here(decision.clone()).await?),
            Part::Follows(addr) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.decisions.ask(&addr, decision, left).await
            }
            Part::Unknown => Err(Failure::Moved.into()),
        }
    }

    /// Takes a decision, on the home log's leader.
    async fn decide_here(&self, decision: Decision) -> Result<u64, Failure> {
        let ends_topics = matches!(decision, Decision::Delete { .. } | Decision::Adopt { .. });
        let answer = self.replica.change(&Change::Decide(decision)).await?;
        if ends_topics {
            self.forget_offsets_of_other_topics()?;
        }
        match answer {
            Answer::Decided { version } => Ok(version),
            _ => Err(Failure::Unknown("the answer is not understood".to_owned())),
        }
    }

    /// How many logs there are.
    pub(crate) fn logs(&self) -> u32 {
        let logs = self.brokers.upgrade().map_or(0, |brokers| brokers.logs().len());
        u32::try_from(logs).unwrap_or(u32::MAX)
    }

    /// Forgets the offsets on their way whose topics were deleted, or made again, since they were reported.
    pub(crate) fn forget_offsets_of_other_topics(&self) -> Result<(), Failure> {
        let shared = self.replica.shared()?;
        self.consumed.forget_other_topics(|topic| shared.state().topic_since(topic).unwrap_or(0));
        Ok(())
    }

    /// Takes a decision for another node, on the home log's leader.
    ///
    /// # Errors
    /// It makes no sense, or was refused.
    pub(crate) async fn decide_for_another(&self, decision: Decision) -> Result<u64, Failure> {
        check(&decision)?;
        if let Decision::Put { log, .. } | Decision::Adopt { log, .. } = &decision
            && *log >= self.logs()
        {
            let remark = format!("there is no log {log}");
            return Err(Failure::refused(response::INVALID_PARAMETER, remark));
        }
        if let Decision::Adopted { logs, .. } = &decision
            && *logs != self.logs()
        {
            let remark = format!("there are {} logs, and not {logs}", self.logs());
            return Err(Failure::refused(response::INVALID_PARAMETER, remark));
        }
        self.decide_here(decision).await
    }

    /// Waits until all logs have followed a version.
    ///
    /// # Errors
    /// One has not, by the deadline; it will.
    pub(crate) async fn all_followed(
        &self,
        version: u64,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let brokers = self.brokers.upgrade().ok_or(Failure::Moved)?;
        for broker in brokers.logs() {
            broker.replica.followed(version, deadline).await?;
        }
        Ok(())
    }

    /// Waits until all logs have reported their topics to the registry: one that it does not know could come back.
    ///
    /// # Errors
    /// They have not, by the deadline.
    pub(crate) async fn all_adopted(&self, deadline: Instant) -> Result<(), Failure> {
        let home = self.home()?;
        while !home.replica.shared().is_ok_and(|shared| shared.state().registry().has_adopted_all())
        {
            if Instant::now() >= deadline {
                let missing = (0..self.logs()).find(|log| {
                    let shared = home.replica.shared();
                    !shared.is_ok_and(|shared| shared.state().registry().has_adopted(*log))
                });
                let missing =
                    missing.map_or("all logs".to_owned(), |log| format!("{LOG_PREFIX}{log}"));
                let remark = format!("the topics of {missing} are not all taken over yet");
                return Err(Failure::refused(response::SERVICE_NOT_AVAILABLE, remark));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl Replica {
    /// Waits until this log has followed a version, as this node sees it.
    ///
    /// # Errors
    /// It has not, by the deadline.
    pub(crate) async fn followed(&self, version: u64, deadline: Instant) -> Result<(), Failure> {
        let following = async {
            while self.opened.get().is_none() {
                tokio::time::sleep(PAUSE).await;
            }
            let mut followed = self.shared()?.followed.subscribe();
            followed.wait_for(|followed| *followed >= version).await.map_err(|_| Failure::Moved)?;
            Ok(())
        };
        tokio::time::timeout_at(deadline, following).await.unwrap_or_else(|_| {
            let remark = format!("{} has not followed yet", self.name);
            Err(Failure::refused(response::SERVICE_NOT_AVAILABLE, remark))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorumlog::AppendError;

    #[test]
    fn a_full_disk_of_the_home_log_is_told_at_once_and_a_leader_that_is_to_come_waited_for() {
        let said = |failure: Failure| {
            let reply = failure.into_reply();
            Attempt::refused(reply.code, &reply.remark.unwrap_or_default())
        };
        let full = AppendError::DiskFull { path: "/data".into() }.into();
        let lasting = said(full);
        let code = |attempt: &Attempt| match attempt {
            Attempt::Failed(Failure::Refused { code, .. }) => Some(*code),
            _ => None,
        };
        assert_eq!(code(&lasting), Some(response::SERVICE_NOT_AVAILABLE));
        assert!(matches!(said(Failure::Moved), Attempt::NotDone(_)));
        let unknown = Failure::refused(response::SYSTEM_ERROR, "why");
        assert_eq!(code(&said(unknown)), Some(response::SYSTEM_ERROR));
    }
}
