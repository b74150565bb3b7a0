//! Members that have moved: the leader writes down where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::group::Group;
use super::membership::Settled;
use super::types::Address;
use crate::error::AdminError;
use crate::member::{Member, ReplicaId};
use crate::mutant::Mutant;

/// How long it may take to store the new addresses of members.
const MOVE_TIMEOUT: Duration = Duration::from_secs(5);

impl Group {
    /// Changes where members are reached. openraft warns of it, since a node behind an address could be another than the
    /// one that was meant: a link finds out who answers (`ReplicaId`).
    pub(super) async fn set_addresses(
        &self,
        settled: Settled,
        addresses: BTreeMap<ReplicaId, Address>,
        timeout: Duration,
    ) -> Result<(), AdminError> {
        if addresses.is_empty() && !Mutant::EmptyMovesWritten.is_active() {
            return Ok(());
        }
        self.change(settled, ChangeMembers::SetNodes(addresses), true, timeout).await
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
            if id != self.replica && self.peers.is_at(id, &listed).await {
                self.peers.contacts.is_at(id, &listed);
                moves.remove(&id);
            }
        }
        if moves.is_empty() {
            return;
        }
        let Ok(settled) = self.settled(MOVE_TIMEOUT).await else { return };
        // `SetNodes` adds whom it does not find.
        moves.retain(|id, _| settled.members.get_node(id).is_some());
        for (id, addr) in &moves {
            tracing::info!(log = %self.name, member = %id, peers = addr.peer, clients = addr.client, "a member has moved");
        }
        if let Err(error) = self.set_addresses(settled, moves, MOVE_TIMEOUT).await {
            tracing::warn!(log = %self.name, %error, "cannot store the new addresses of members");
        }
    }

    /// On a sole voter that leads: writes down where it is, since nobody else can tell. It does so once after its start:
    /// what an operator has it told later stays.
    pub(crate) async fn write_own_place(&self, own: &Member) {
        let alone = self.voters() == BTreeSet::from([self.replica]);
        if !alone || self.own_place_written.load(Ordering::Relaxed) {
            return;
        }
        let Ok(settled) = self.settled(MOVE_TIMEOUT).await else { return };
        let own = Address::from(own);
        if settled.members.get_node(&self.replica).is_none_or(|held| *held == own) {
            self.own_place_written.store(true, Ordering::Relaxed);
            return;
        }
        tracing::info!(log = %self.name, peers = own.peer, clients = own.client, "this node has moved");
        let written = self.set_addresses(settled, [(self.replica, own)].into(), MOVE_TIMEOUT).await;
        if let Err(error) = written {
            tracing::warn!(log = %self.name, %error, "cannot store this node's new address");
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
