//! A request that is not answered yet, and what it holds. One that waits for something that its client decides on, such as the
//! next message of a queue, is parked: it gives back its frame, and what is left of it counts among the parked.

use bytes::Bytes;

use super::connection::Connection;
use crate::mutant::Mutant;
use crate::remoting::codes::response;
use crate::remoting::{Command, Room};
use crate::request::Failure;

/// About the memory that a parked request takes, beside the names that it has.
const PARKED_BYTES: usize = 2 << 10;

/// A request that is not answered yet.
pub(crate) struct PendingRequest {
    /// As it came, without its length word; empty once it is shed.
    frame: Bytes,
    pub(crate) command: Command,
    /// What it takes among the parked.
    parked: Option<Room>,
    shed: bool,
}

impl PendingRequest {
    pub(crate) fn new(frame: Bytes, command: Command) -> Self {
        Self { frame, command, parked: None, shed: false }
    }

    /// The request as it came, to be passed on.
    pub(crate) fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Takes room among the parked requests, once. `bytes` is what the request keeps, beside what its answer needs.
    ///
    /// # Errors
    /// There is none. A stock consumer pauses for three seconds before it pulls again: after PULL_NOT_FOUND it would not.
    pub(crate) fn claim(&mut self, connection: &Connection, bytes: usize) -> Result<(), Failure> {
        if self.parked.is_none() && !Mutant::ParkedUnbounded.is_active() {
            let room = connection.parked().try_reserve(PARKED_BYTES + bytes);
            let full = || Failure::refused(response::SYSTEM_BUSY, "too many requests wait");
            self.parked = Some(room.ok_or_else(full)?);
        }
        Ok(())
    }

    /// Gives back what the request holds, but for what its answer needs and these fields. It cannot be passed on any more.
    pub(crate) fn shed(&mut self, keep: &[&str]) {
        self.shed = true;
        if !Mutant::ParkedKeepsFrame.is_active() {
            self.frame = Bytes::new();
            self.command.keep(keep);
        }
    }

    /// `claim` and `shed`.
    ///
    /// # Errors
    /// As `claim`; then the request holds what it did.
    pub(crate) fn park(&mut self, connection: &Connection, bytes: usize) -> Result<(), Failure> {
        self.claim(connection, bytes)?;
        if !self.shed {
            self.shed(&[]);
        }
        Ok(())
    }

    /// True if it has room among the parked.
    pub(crate) fn has_room(&self) -> bool {
        self.parked.is_some()
    }

    /// True once it cannot be passed on any more.
    pub(crate) fn is_shed(&self) -> bool {
        self.shed
    }
}
