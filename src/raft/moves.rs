//! Members that have moved: the leader writes down where they are.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::group::Group;
use super::types::Address;
use crate::error::AdminError;
use crate::member::{Member, ReplicaId};

/// How long it may take to store the new addresses of members.
const MOVE_TIMEOUT: Duration = Duration::from_secs(5);

impl Group {
    /// Changes where members are reached. openraft warns of it, since a node behind an address could be another than the
    /// one that was meant: a link finds out who answers (`ReplicaId`).
    pub(super) async fn set_addresses(
        &self,
        addresses: BTreeMap<ReplicaId, Address>,
        timeout: Duration,
    ) -> Result<(), AdminError> {
        self.change(ChangeMembers::SetNodes(addresses), true, timeout).await
    }

    /// On the leader: writes down where members have moved, so that it is known after a restart, to those that they have
    /// not told, and to clients. `own` is this node's member if others reach it there. What fails now is done later.
    pub(crate) async fn write_moves(&self, own: Option<&Member>) {
        let mut moves = {
            let server = self.raft.server_metrics().borrow_watched().clone();
            let membership = server.membership_config.membership();
            let moved = |(id, held): (&ReplicaId, &Address)| {
                let addr = match own.filter(|_| *id == self.replica) {
                    Some(own) => Some(Address::from(own)).filter(|own| own.peer != held.peer),
                    None => self.peers.contacts.moved(*id, held),
                };
                Some((*id, addr?))
            };
            membership.nodes().filter_map(moved).collect::<BTreeMap<_, _>>()
        };
        for (id, listed) in self.listed(&moves) {
            // Both addresses may be the member's, as a name and what it stands for: then the name stays.
            if id != self.replica && self.peers.session_at(id, &listed).await.is_some() {
                self.peers.contacts.is_at(id, &listed);
                moves.remove(&id);
            }
        }
        if moves.is_empty() || self.settled(MOVE_TIMEOUT).await.is_err() {
            return;
        }
        for (id, addr) in &moves {
            tracing::info!(log = %self.name, member = %id, peers = addr.peer, clients = addr.client, "a member has moved");
        }
        if let Err(error) = self.set_addresses(moves, MOVE_TIMEOUT).await {
            tracing::warn!(log = %self.name, %error, "cannot store the new addresses of members");
        }
    }

    /// Where the membership lists these members.
    fn listed(&self, of: &BTreeMap<ReplicaId, Address>) -> Vec<(ReplicaId, String)> {
        let server = self.raft.server_metrics().borrow_watched().clone();
        let membership = server.membership_config.membership();
        let listed = |id: &ReplicaId| Some((*id, membership.get_node(id)?.peer.clone()));
        of.keys().filter_map(listed).collect()
    }
}
