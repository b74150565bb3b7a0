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

/// A node with the logs `formal` and `other`.
fn with_a_formal_log() -> Running {
    let machines = |log: &LogName| {
        (log.as_str() == "formal").then(|| Box::new(Formal) as Box<dyn StateMachine>)
    };
    let build = |builder: NodeBuilder| builder.state_machines(machines);
    let transport = MemoryTransport::default();
    let running =
        Running::try_build(&transport, &SimDisk::new(), 1, |_| {}, build).expect("it opens");
    running.bootstrap(vec![running.node.member()]);
    for log in ["formal", "other"] {
        running.run(running.node.create_log(&name(log))).expect("one node");
    }
    running
}

#[test]
fn a_log_whose_records_have_a_form_takes_none_from_clients() {
    let running = with_a_formal_log();
    let submit = |name: &str| {
        let log = running.until("the log", || running.node.log(&super::name(name)));
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

#[test]
fn a_client_deletes_no_log_that_takes_no_appends_from_clients() {
    let running = with_a_formal_log();
    running.until("the log", || running.node.log(&name("formal")));
    let delete = |log: &str| running.run(running.node.delete_for_client(&name(log)));
    let error = delete("formal").expect_err("its records are the program's");
    assert!(matches!(error, AdminError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("formal"), "{error}");
    assert!(running.node.logs().iter().any(|info| info.name.as_str() == "formal"));
    running.until("the other log", || running.node.log(&name("other")));
    delete("other").expect("clients append to it");
    assert!(matches!(delete("absent"), Err(AdminError::UnknownLog { .. })));
    running.run(running.node.delete_log(&name("formal"))).expect("the program itself deletes");
    running.kill();
}
