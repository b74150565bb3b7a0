//! Opens what a crash has left, and judges it by the model.

use std::path::Path;

use quorumlog::offline::Severity;
use quorumlog::simulation::{CrashPolicy, SimDisk, StoredId, StoredLog, verify};

use super::host::{DATA, Recovered, text};
use super::model::{Life, LogModel, Model};
use super::script::Script;

/// Recovers twice, uses the logs, and recovers again. Says what is wrong.
pub(crate) fn examine(image: &SimDisk, script: &Script, model: &Model) -> Result<(), String> {
    let disk = image.after_crash(&CrashPolicy::KeepAll);
    if model.dir.incarnation.is_some() {
        check_offline(&disk)?;
    }
    let opened = |disk: &SimDisk| {
        Recovered::open(disk, script, model).map_err(|error| format!("no start: {}", text(&error)))
    };
    let recovered = opened(&disk)?;
    check_dir(&recovered, model)?;
    let unreadable = |error| format!("it cannot be read: {}", text(&error));
    let first = recovered.holdings().map_err(unreadable)?;
    for (number, model) in &model.logs {
        match (recovered.logs.get(number), first.get(number)) {
            (Some(log), Some(holding)) => {
                let checked = model.check(holding).and_then(|()| check_log(log, model));
                checked.map_err(|why| format!("log {number}: {why}"))?;
            }
            _ if model.life == Life::Listed => return Err(format!("log {number} is gone")),
            _ => {}
        }
    }
    drop(recovered);

    // What a start has found, it has made durable; and the next start finds the same.
    let disk = disk.after_crash(&CrashPolicy::LoseAll);
    let mut again = opened(&disk)?;
    let second = again.holdings().map_err(unreadable)?;
    if first != second {
        return Err(format!("at first {first:?}\nthen {second:?}"));
    }
    let grown = again.go_on(model)?;
    drop(again);
    let disk = disk.after_crash(&CrashPolicy::LoseAll);
    let mut third = opened(&disk)?;
    let found = third.holdings().map_err(unreadable)?;
    if found != grown {
        return Err(format!("in use {grown:?}\nand after a crash {found:?}"));
    }
    let grown = third.go_further()?;
    drop(third);
    let found = opened(&disk.after_crash(&CrashPolicy::LoseAll))?;
    let found = found.holdings().map_err(unreadable)?;
    if found != grown {
        return Err(format!("in use again {grown:?}\nand after a crash {found:?}"));
    }
    Ok(())
}

/// What reads without a node must find no damage where only a crash was.
fn check_offline(disk: &SimDisk) -> Result<(), String> {
    let found = verify(disk, Path::new(DATA));
    let found = found.map_err(|error| format!("not to be verified: {}", text(&error)))?;
    match found.findings.iter().find(|finding| finding.severity != Severity::Harmless) {
        Some(damage) => Err(format!("verify takes a crash for damage: {damage}")),
        None => Ok(()),
    }
}

fn check_dir(recovered: &Recovered, model: &Model) -> Result<(), String> {
    let (dir, must) = (&recovered.dir, &model.dir);
    if must.incarnation.is_some_and(|incarnation| incarnation != dir.incarnation()) {
        return Err("another incarnation".to_owned());
    }
    let (acknowledged, submitted) = must.cluster;
    if ![acknowledged, submitted].contains(&dir.cluster()) {
        return Err(format!("cluster {}", dir.cluster()));
    }
    let unknown = |log: &&quorumlog::LogId| !model.logs.contains_key(&log.0);
    match dir.logs().iter().find(unknown) {
        Some(log) => Err(format!("log {} is listed again", log.0)),
        None => Ok(()),
    }
}

fn check_log(log: &StoredLog, model: &LogModel) -> Result<(), String> {
    let marks = log.watermarks();
    let committed = log.committed();
    let end = committed.map_or(0, |id| id.index + 1);
    let most = model.told.max(log.boundary()).map_or(0, |id| id.index + 1);
    if end > marks.end || end > most {
        return Err(format!("committed {committed:?}, and it ends at {}", marks.end));
    }
    if end < model.committed_floor.min(marks.end) {
        let floor = model.committed_floor;
        return Err(format!("committed {committed:?} and once saved as below {floor}"));
    }
    let held = log.checkpoints();
    for id in &held {
        let Some((state, _)) = model.checkpoints.get(id) else {
            return Err(format!("checkpoint {id:?} was never taken"));
        };
        match log.load_checkpoint(*id) {
            Ok(found) if found == *state => {}
            Ok(_) => return Err(format!("checkpoint {id:?} holds another state")),
            Err(error) => return Err(format!("checkpoint {id:?}: {}", text(&error))),
        }
    }
    let acknowledged = model.checkpoints.iter().filter(|(_, (_, acknowledged))| *acknowledged);
    // One that was received counts once its boundary is there: until then it is not of this log's history, and the leader
    // sends it again.
    let is_held = |id: &StoredId| {
        let entry = || log.read(id.index, id.index + 1, usize::MAX);
        (marks.begin..marks.end).contains(&id.index)
            && entry().is_ok_and(|found| found.iter().any(|entry| entry.id == *id))
    };
    let newest = acknowledged.clone().rfind(|(id, _)| is_held(id));
    let boundary = acknowledged.clone().find(|(id, _)| Some(**id) == log.boundary());
    match newest.into_iter().chain(boundary).find(|(id, _)| !held.contains(id)) {
        Some((id, _)) => Err(format!("checkpoint {id:?} is gone")),
        None => Ok(()),
    }
}
