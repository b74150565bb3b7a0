//! The clients of a group that hold locks. Each has a place, and its id is here once, however many queues it holds.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, Serializer};

use super::{CLIENT_COST, QUEUE_COST};
use crate::limits::LOCKING_CLIENTS_MAX;
use crate::state::name::Name;

/// A client that holds locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Client {
    id: Name,
    /// Queues that it holds; without any, the place is free for another client.
    held: u32,
}

/// A group's clients by their places. All but the places follows from them, and is in no checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<Client>")]
pub(super) struct Clients {
    places: Vec<Client>,
    by_id: BTreeMap<Name, u32>,
    /// Places that hold nothing, with others behind them.
    free: BTreeSet<u32>,
    /// Queues that all of them hold.
    held: usize,
}

impl From<Vec<Client>> for Clients {
    fn from(places: Vec<Client>) -> Self {
        let mut clients = Self { places, ..Self::default() };
        for (at, client) in (0..).zip(&clients.places) {
            if client.held > 0 {
                clients.by_id.entry(client.id.clone()).or_insert(at);
                clients.held += client.held as usize;
            } else {
                clients.free.insert(at);
            }
        }
        clients
    }
}

impl Serialize for Clients {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.places.serialize(serializer)
    }
}

impl Clients {
    /// Queues that the group holds.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// The place of a client that holds something.
    pub(super) fn place(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// The client's place, and what a new one costs; none if there are too many. A new client gets the first free place.
    pub(super) fn place_or_new(&mut self, id: &str) -> Option<(u32, usize)> {
        if let Some(place) = self.place(id) {
            return Some((place, 0));
        }
        let at = self.free.first().map_or(self.places.len(), |at| *at as usize);
        if at >= LOCKING_CLIENTS_MAX {
            return None;
        }
        let place = u32::try_from(at).ok()?;
        let new = Client { id: id.into(), held: 0 };
        self.free.remove(&place);
        self.by_id.insert(new.id.clone(), place);
        match self.places.get_mut(at) {
            Some(free) => *free = new,
            None => self.places.push(new),
        }
        Some((place, CLIENT_COST + id.len()))
    }

    /// One queue more for a client.
    pub(super) fn take(&mut self, place: u32) {
        self.places[place as usize].held += 1;
        self.held += 1;
    }

    /// One queue less for a client; returns what is saved. [`Self::trim`] follows.
    pub(super) fn release(&mut self, place: u32) -> usize {
        let Some(client) = self.places.get_mut(place as usize) else { return 0 };
        self.held -= usize::from(client.held > 0);
        client.held = client.held.saturating_sub(1);
        if client.held > 0 {
            return QUEUE_COST;
        }
        QUEUE_COST + CLIENT_COST + self.vacate(place)
    }

    /// Forgets a new client that got nothing.
    pub(super) fn drop_new(&mut self, place: u32) {
        self.vacate(place);
        self.trim();
    }

    /// Frees a place; returns the length of the id that goes.
    fn vacate(&mut self, place: u32) -> usize {
        let id = std::mem::replace(&mut self.places[place as usize].id, "".into());
        self.by_id.remove(&*id);
        self.free.insert(place);
        id.len()
    }

    /// Forgets free places at the end.
    pub(super) fn trim(&mut self) {
        while self.places.pop_if(|client| client.held == 0).is_some() {
            self.free.pop_last();
        }
    }
}
