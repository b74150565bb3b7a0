//! Logs whose records have a form, which their state machine cannot go on without: clients append nothing to them.

use bytes::Bytes;

use super::*;
use crate::AppendError;
use crate::raft::AckSink;
use crate::record::{AppendOptions, Appended, Record};
use crate::state_machine::{ApplyError, StateMachine};

/// Knows one record.
struct Formal;

impl StateMachine for Formal {
    fn apply(&mut self, record: &Record) -> Result<Bytes, ApplyError> {
        match &record.payload[..] {
            b"known" => Ok(Bytes::new()),
            _ => Err(ApplyError::NewerBuild { detail: "a record".to_owned() }),
        }
    }

    fn takes_client_appends(&self) -> bool {
        false
    }

    fn checkpoint(&self, _: &mut dyn std::io::Write) -> std::io::Result<()> {
        Ok(())
    }

    fn restore(&mut self, _: &mut dyn std::io::Read) -> std::io::Result<()> {
        Ok(())
    }
}

/// For appends of which nobody waits to hear.
struct Nobody;

impl AckSink for Nobody {
    fn acked(&self, _: u64, _: Result<Appended, AppendError>) {}
}

#[test]
fn a_log_whose_records_have_a_form_takes_none_from_clients() {
    let machines = |log: &LogName| {
        (log.as_str() == "formal").then(|| Box::new(Formal) as Box<dyn StateMachine>)
    };
    let build = |builder: NodeBuilder| builder.state_machines(machines);
    let transport = MemoryTransport::default();
    let running =
        Running::try_build(&transport, &SimDisk::new(), 1, |_| {}, build).expect("it opens");
    running.bootstrap(vec![running.node.member()]);
    for name in ["formal", "other"] {
        running
            .run(running.node.create_log(&LogName::new(name).expect("a name")))
            .expect("one node");
    }
    let submit = |name: &str| {
        let log = running.until("the log", || running.node.log(name));
        running.until("its leader", || log.status().leader);
        let (payload, options) = (Bytes::from_static(b"\x63"), AppendOptions::default());
        let submitted = running.run(async {
            let one = log.submit_to(payload.clone(), None, options, Arc::new(Nobody), 0);
            let both = vec![payload.clone(), payload];
            [one, log.submit_batch_to(both, options, Arc::new(Nobody), 0)]
        });
        (log, submitted)
    };
    let (_, submitted) = submit("other");
    assert!(submitted.iter().all(Result::is_ok), "{submitted:?}");
    let (log, submitted) = submit("formal");
    for refused in submitted {
        let error = refused.expect_err("it would stop the log for good");
        assert!(matches!(error, AppendError::NotForClients { .. }), "{error}");
        assert!(!error.is_retryable(), "{error}");
    }
    running.run(log.propose("known")).expect("the program itself appends");
    running.kill();
}
