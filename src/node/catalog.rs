//! The list of logs: a state machine over the system log.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::format::codec;
use crate::member::Replica;
use crate::record::{LogId, LogName, Record};
use crate::state_machine::{ApplyError, StateMachine};

/// Logs of one cluster. Each costs a directory, a few tasks and some memory on every node.
pub(crate) const LOGS_MAX: usize = 1024;

/// What the system log's records say. Version 1; changes need new variants at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CatalogCommand {
    /// Make a log with these first voters.
    Create {
        name: LogName,
        members: Vec<Replica>,
    },
    Delete {
        name: LogName,
    },
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CatalogReply {
    Done(LogId),
    Exists,
    Unknown,
    TooMany,
    NotUnderstood,
}

/// A log of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogEntry {
    pub(crate) id: LogId,
    /// Its first voters.
    pub(crate) founders: Vec<Replica>,
}

/// The list as of some entry of the system log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CatalogState {
    pub(crate) logs: BTreeMap<LogName, LogEntry>,
    pub(crate) deleted: BTreeSet<LogId>,
}

impl CatalogState {
    fn apply(&mut self, index: u64, command: CatalogCommand) -> CatalogReply {
        match command {
            CatalogCommand::Create { name, .. } if self.logs.contains_key(&name) => {
                CatalogReply::Exists
            }
            CatalogCommand::Create { .. } if self.logs.len() >= LOGS_MAX => CatalogReply::TooMany,
            CatalogCommand::Create { name, members } => {
                let id = LogId(index);
                self.logs.insert(name, LogEntry { id, founders: members });
                CatalogReply::Done(id)
            }
            CatalogCommand::Delete { name } => match self.logs.remove(&name) {
                Some(log) => {
                    self.deleted.insert(log.id);
                    CatalogReply::Done(log.id)
                }
                None => CatalogReply::Unknown,
            },
        }
    }
}

/// The list, shared between the state machine that changes it and the node that follows it.
#[derive(Debug)]
pub(crate) struct Catalog {
    state: Mutex<CatalogState>,
    changed: watch::Sender<u64>,
}

impl Catalog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: watch::Sender::new(0) })
    }

    pub(crate) fn state(&self) -> CatalogState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn lists(&self, id: LogId) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.logs.values().any(|log| log.id == id)
    }

    /// Counts changes.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn change<T>(&self, change: impl FnOnce(&mut CatalogState) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|count| *count += 1);
        result
    }
}

/// Feeds the list from the system log.
pub(crate) struct CatalogMachine(pub(crate) Arc<Catalog>);

impl StateMachine for CatalogMachine {
    fn apply(&mut self, record: &Record) -> Result<Bytes, ApplyError> {
        let command = codec::decode::<CatalogCommand>(&record.payload);
        let command = command.map_err(|error| ApplyError::NewerBuild {
            detail: format!("record {} of the system log: {error}", record.index),
        })?;
        let reply = self.0.change(|state| state.apply(record.index, command));
        Ok(codec::encode(&reply).into())
    }

    fn takes_client_appends(&self) -> bool {
        false
    }

    fn checkpoint(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&codec::encode(&self.0.state()))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let state = codec::decode(&bytes).map_err(|error| io::Error::other(error.to_string()))?;
        self.0.change(|held| *held = state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(machine: &mut CatalogMachine, index: u64, command: &CatalogCommand) -> CatalogReply {
        let record = Record::new(index, 1, codec::encode(command).into());
        codec::decode(&machine.apply(&record).expect("it is known")).expect("a reply")
    }

    #[test]
    fn a_name_gets_a_new_number_each_time_it_is_created() {
        let mut machine = CatalogMachine(Catalog::new());
        let name = LogName::new("orders").expect("a name");
        let create = CatalogCommand::Create { name: name.clone(), members: Vec::new() };
        let delete = CatalogCommand::Delete { name };
        assert_eq!(apply(&mut machine, 5, &create), CatalogReply::Done(LogId(5)));
        assert_eq!(apply(&mut machine, 6, &create), CatalogReply::Exists);
        assert_eq!(apply(&mut machine, 7, &delete), CatalogReply::Done(LogId(5)));
        assert_eq!(apply(&mut machine, 8, &delete), CatalogReply::Unknown);
        assert_eq!(apply(&mut machine, 9, &create), CatalogReply::Done(LogId(9)));
        assert!(machine.0.state().deleted.contains(&LogId(5)));
    }

    #[test]
    fn a_checkpoint_restores_to_the_same_list() {
        let mut machine = CatalogMachine(Catalog::new());
        let name = LogName::new("orders").expect("a name");
        apply(&mut machine, 5, &CatalogCommand::Create { name, members: Vec::new() });
        let mut bytes = Vec::new();
        machine.checkpoint(&mut bytes).expect("checkpoint");
        let mut other = CatalogMachine(Catalog::new());
        other.restore(&mut &bytes[..]).expect("restore");
        assert_eq!(machine.0.state(), other.0.state());
        assert!(other.restore(&mut &b"nonsense"[..]).is_err());
    }

    #[test]
    fn a_record_of_a_newer_version_is_not_passed_over() {
        let mut machine = CatalogMachine(Catalog::new());
        let unknown = Record::new(7, 1, Bytes::from_static(&[9, 9, 9, 9, 9]));
        let error = machine.apply(&unknown).expect_err("nobody knows what it means").to_string();
        assert!(
            error.starts_with("written by a newer build; upgrade this node: record 7"),
            "{error}"
        );
        assert_eq!(machine.0.state(), CatalogState::default());
    }
}
