//! What each node of a cluster says about itself.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::Client;
use super::cluster::NodeLink;
use super::failure::Failure as _;
use super::routing::Target;
use crate::error::AdminError;
use crate::member::{Member, NodeId, Status};
use crate::problem::{NodeStatus, Problem, ProblemKind};
use crate::record::LogId;
use crate::wire::client_protocol::{Request, Response, is_unknown};

type Answers<T> = Vec<(Member, Result<T, AdminError>)>;

impl Client {
    /// Status of every log (the system log first) on each node that answers, and why the others did not.
    pub async fn statuses(&self) -> Vec<(Member, Result<Vec<Status>, AdminError>)> {
        let who = |statuses: &Vec<Status>| statuses.first().map(|status| status.node_id);
        self.each_node(|node, deadline| self.logs_of(node, deadline).boxed(), who).await
    }

    /// What each node says about itself, its logs and its problems; for a node that did not answer, the reason. Of a node
    /// whose build does not tell problems, there are its logs and a problem that says so.
    pub async fn node_statuses(&self) -> Vec<(Member, Result<NodeStatus, AdminError>)> {
        self.each_node(
            |node, deadline| self.status_of(node, deadline).boxed(),
            |status: &NodeStatus| Some(status.node.id),
        )
        .await
    }

    async fn logs_of(&self, node: NodeLink, deadline: Instant) -> Result<Vec<Status>, AdminError> {
        let read = |response| match response {
            Response::Statuses(statuses) => Ok(statuses),
            other => Err(AdminError::from_response(other)),
        };
        let target = Target::Node(node);
        self.cluster.route(target, LogId::SYSTEM, &Request::Statuses, deadline, read).await
    }

    async fn status_of(&self, node: NodeLink, deadline: Instant) -> Result<NodeStatus, AdminError> {
        let read = |response| match response {
            Response::NodeStatus(status) => Ok(*status),
            other => Err(AdminError::from_response(other)),
        };
        let (target, request) = (Target::Node(node.clone()), Request::NodeStatus);
        let answer = self.cluster.route(target, LogId::SYSTEM, &request, deadline, read).await;
        match answer {
            Err(AdminError::Interrupted { detail }) if is_unknown(&request, &detail) => {
                // It has closed the connection.
                node.link.retry_now();
                let logs = self.logs_of(node, deadline).await?;
                let id = logs.first().map_or(0, |status| status.node_id);
                let reason =
                    "the node runs an older build, which does not tell its problems: upgrade it";
                let problems = vec![Problem::new(ProblemKind::OtherVersion, reason)];
                Ok(NodeStatus { node: Member::new(id, ""), logs, problems })
            }
            answer => answer,
        }
    }

    /// Asks each member where it is listed, and whoever is at the other addresses that are configured: a member that has
    /// moved is found there. `who` tells the node that an answer is of.
    async fn each_node<'a, T>(
        &'a self,
        ask: impl Fn(NodeLink, Instant) -> BoxFuture<'a, Result<T, AdminError>>,
        who: impl Fn(&T) -> Option<NodeId>,
    ) -> Answers<T> {
        // If nobody knows the members, those known before are asked.
        let _ = self.members().await;
        let deadline = self.deadline();
        let members = self.cluster.members();
        let configured = self.cluster.config.nodes.iter();
        let elsewhere: Vec<Member> = configured
            .filter(|addr| members.iter().all(|member| member.client_addr != **addr))
            .map(|addr| Member::new(0, "").with_client_addr(addr))
            .collect();
        let (ask, who) = (&ask, &who);
        let asking = members.into_iter().chain(elsewhere).map(|member| async move {
            if member.client_addr.is_empty() {
                let detail = format!("{member} serves no clients");
                return (member, Err(AdminError::Unreachable { detail }));
            }
            let node = self.cluster.node(&member.client_addr);
            let answer = ask(node.clone(), deadline).await;
            if let Some(id) = answer.as_ref().ok().and_then(who) {
                self.cluster.learn_place(id, &node);
            }
            (member, answer)
        });
        each_once(futures_util::future::join_all(asking).await, who)
    }
}

/// Each node's answer under its number, and the failures of members that did not answer at all. Those without a number
/// are addresses at which no member is listed.
fn each_once<T>(answers: Answers<T>, who: &impl Fn(&T) -> Option<NodeId>) -> Answers<T> {
    let knows_members = answers.iter().any(|(member, _)| member.id != 0);
    let mut each: Answers<T> = Vec::new();
    let mut failed: Answers<T> = Vec::new();
    for (mut member, answer) in answers {
        let answered = answer.as_ref().ok().and_then(who);
        match answered {
            Some(id) if id == member.id => each.push((member, answer)),
            Some(id) => {
                let listed = std::mem::replace(&mut member.id, id);
                if listed != 0 {
                    let detail = format!("node {id} answers at {}", member.client_addr);
                    let other = Member { id: listed, ..member.clone() };
                    failed.push((other, Err(AdminError::Unreachable { detail })));
                    member.peer_addr.clear();
                }
                each.push((member, answer));
            }
            None => failed.push((member, answer)),
        }
    }
    // Where a member is listed, before where it was found.
    let mut known = std::collections::BTreeSet::new();
    each.retain(|(member, _)| known.insert(member.id));
    failed.retain(|(member, _)| {
        let unlisted = member.id == 0 && knows_members;
        !unlisted && (member.id == 0 || known.insert(member.id))
    });
    each.extend(failed);
    each
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> Result<NodeId, AdminError> {
        Err(AdminError::Unreachable { detail: "refused".to_owned() })
    }

    fn merged(answers: Answers<NodeId>) -> Vec<(NodeId, String, bool)> {
        let mut merged: Vec<_> = each_once(answers, &|id| Some(*id))
            .into_iter()
            .map(|(member, answer)| (member.id, member.client_addr, answer.is_ok()))
            .collect();
        merged.sort();
        merged
    }

    fn at(id: NodeId, addr: &str) -> Member {
        Member::new(id, "").with_client_addr(addr)
    }

    #[test]
    fn a_member_that_answers_elsewhere_is_not_said_to_be_silent() {
        let answers = vec![(at(1, "old"), unreachable()), (at(0, "new"), Ok(1))];
        assert_eq!(merged(answers), [(1, "new".to_owned(), true)]);
    }

    #[test]
    fn nodes_that_have_swapped_addresses_are_told_under_their_own_numbers() {
        let answers = vec![(at(1, "a"), Ok(2)), (at(2, "b"), Ok(1)), (at(3, "c"), unreachable())];
        let expected = [(1, "b", true), (2, "a", true), (3, "c", false)];
        assert_eq!(merged(answers), expected.map(|(id, addr, ok)| (id, addr.to_owned(), ok)));
    }

    #[test]
    fn an_address_that_nobody_answers_at_is_told_only_while_no_members_are_known() {
        let listed = vec![(at(1, "a"), Ok(1)), (at(0, "gone"), unreachable())];
        assert_eq!(merged(listed), [(1, "a".to_owned(), true)]);
        assert_eq!(merged(vec![(at(0, "gone"), unreachable())]), [(0, "gone".to_owned(), false)]);
    }
}
