//! openraft's state machine: feeds the embedder's, if there is one, and keeps the boundary snapshot.
//!
//! The log is the state, so without an embedder's state machine applying moves a counter. A snapshot
//! is a boundary: the last log id that is gone, the membership as of it, and the state machine's
//! checkpoint as of it. A node that needs one gets that, and then the retained log by replication.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use super::apply_shared::{ApplyShared, InUse};
use super::checkpoint_pace::CheckpointPace;
use super::metrics::{GroupMetrics, Started};
use super::runtime::Crash;
use super::types::{
    RaftLogId, RaftMembership, RaftSnapshotMeta, Response, Types, entry_id, raft_log_id,
    raft_membership, stored_membership,
};
use crate::error::{StorageError, with_sources};
use crate::format::entry::{Batch, EntryId};
use crate::log::{CheckpointFile, Log, Saver, Saving, Turn};
use crate::mutant::Mutant;
use crate::panics;
use crate::record::Record;
use crate::state_machine::StateMachine;

/// Pause before something that found no space is tried again.
const SPACE_PAUSE: Duration = Duration::from_millis(250);

/// Entries applied before others have their turn on this thread: one commit may have tens of thousands.
const APPLY_RUN: usize = 1024;
/// So many bytes of them end such a run, too: one entry may be thousands of messages.
const APPLY_RUN_BYTES: usize = 256 << 10;

/// What travels with a boundary: the state machine's checkpoint as of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checkpoint {
    pub(crate) state: Option<CheckpointFile>,
}

pub(crate) type RaftSnapshot = openraft::alias::SnapshotOf<Types, Checkpoint>;

/// The embedder's state machine and the records of a batch that is not whole yet.
struct User {
    /// Never locked: it only makes the machine shareable, which openraft asks for and never does.
    machine: Mutex<Box<dyn StateMachine>>,
    /// Told if it panics.
    crash: Arc<Crash>,
    /// Records of a batch whose last record has not come yet (I11).
    batch: Vec<Record>,
    pace: CheckpointPace,
    /// The last field: dropped behind the machine.
    _in_use: InUse,
}

impl User {
    /// Runs `call` on the machine. A panic stops its log on this node: the machine's state is then unknown.
    fn call<T>(
        &mut self,
        what: impl FnOnce() -> String,
        call: impl FnOnce(&mut dyn StateMachine) -> T,
    ) -> io::Result<T> {
        let machine = self.machine.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut();
        panics::catch(|| call(machine)).map_err(|panic| {
            let reason = format!("the state machine panicked {}: {panic}", what());
            self.crash.stopped_for_good(reason.clone());
            io::Error::other(reason)
        })
    }

    fn apply(&mut self, record: &Record) -> io::Result<Bytes> {
        let applied =
            self.call(|| format!("at record {}", record.index), |machine| machine.apply(record))?;
        applied.map_err(|error| {
            tracing::error!(index = record.index, %error, "the state machine stops");
            self.crash.stopped_for_good(error.to_string());
            io::Error::other(error)
        })
    }

    /// Restores the machine from a checkpoint, on the thread that saves them. It is lost if the node is stopping.
    async fn restored(mut self, saver: &Saver, file: CheckpointFile) -> io::Result<Self> {
        let restoring = saver.run(move |_| {
            let from = &mut file.reader();
            let what = || "restoring a checkpoint".to_owned();
            self.call(what, |machine| machine.restore(from)).flatten()?;
            // Only the end of the state tells whether it is the one that was saved.
            if !Mutant::RestoredUnread.is_active() {
                io::copy(from, &mut io::sink())?;
            }
            self.batch.clear();
            self.pace = CheckpointPace::restored(file.id().index, file.state_len());
            Ok(self)
        });
        restoring.await.unwrap_or_else(|| Err(to_io(saver.closed())))
    }
}

/// openraft's state machine over one log.
pub(crate) struct LogStateMachine {
    log: Log,
    shared: Arc<ApplyShared>,
    applied: Option<EntryId>,
    membership: RaftMembership,
    user: Option<User>,
    saver: Saver,
    sound: Sound,
    /// Boundary announced but not purged yet.
    snapshot: Option<RaftSnapshotMeta>,
    metrics: Arc<GroupMetrics>,
}

fn to_io(error: impl std::error::Error) -> io::Error {
    io::Error::other(with_sources(&error))
}

/// Installs a checkpoint that a leader sent. A full disk stops no log: the node tries again until there is space.
async fn keep_when_there_is_space(
    saver: &Saver,
    state: &CheckpointFile,
) -> Result<(), StorageError> {
    loop {
        let _turn = saver.turn().await;
        let file = state.clone();
        let kept = saver.run(move |log| log.keep_checkpoint(&file)).await;
        match kept.unwrap_or_else(|| Err(saver.closed())) {
            Err(StorageError::Full { path }) if saver.log().failure().is_none() => {
                tracing::warn!(path = %path.display(), "no space for a checkpoint that was sent; waiting");
                tokio::time::sleep(SPACE_PAUSE).await;
            }
            kept => return kept,
        }
    }
}

/// Opens checkpoints that are what was saved: each is read to its end once, on the thread that saves them.
#[derive(Clone)]
struct Sound {
    saver: Saver,
    /// The last one that was read: what it is as of, its length and its CRC.
    known: Arc<Mutex<Option<(EntryId, u64, u32)>>>,
}

impl Sound {
    fn new(saver: Saver) -> Self {
        Self { saver, known: Arc::default() }
    }

    async fn open(&self, id: EntryId) -> Result<CheckpointFile, StorageError> {
        let known = Arc::clone(&self.known);
        let opening = self.saver.run(move |log| {
            let file = log.open_checkpoint(id)?;
            let this = Some((id, file.state_len(), file.state_crc()));
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if *known != this {
                file.verify()?;
                *known = this;
            }
            Ok(file)
        });
        opening.await.unwrap_or_else(|| Err(self.saver.closed()))
    }

    /// The newest sound checkpoint to go on from; none if the log holds everything itself. A damaged one is
    /// passed over, and replaying from an older one takes longer.
    async fn newest(&self) -> Result<Option<CheckpointFile>, StorageError> {
        let log = self.saver.log();
        let (purged, committed) = (log.purged(), log.committed());
        let mut damaged = None;
        let held = log.checkpoints().into_iter();
        // All of them are of this log's history: it has removed others when it was opened.
        let applied = |id: EntryId| {
            committed.is_some_and(|committed| id.index <= committed.index)
                || Mutant::AppliedNotClamped.is_active()
        };
        let kept = |id: EntryId| purged.is_none_or(|purged| id.index >= purged.index);
        for id in held.rev().filter(|id| applied(*id) && kept(*id)) {
            match self.open(id).await {
                Ok(file) => return Ok(Some(file)),
                Err(error) => {
                    tracing::warn!(error = %with_sources(&error), "passing over a checkpoint");
                    damaged.get_or_insert(error);
                }
            }
        }
        match damaged {
            Some(error) if purged.is_some() => Err(error),
            _ => Ok(None),
        }
    }
}

impl LogStateMachine {
    /// Takes up where the log's recovery left off: at its committed entry, or, with an embedder's
    /// state machine, at the newest checkpoint; openraft replays the rest.
    pub(crate) async fn open(
        saver: Saver,
        machine: Option<Box<dyn StateMachine>>,
        shared: Arc<ApplyShared>,
        crash: Arc<Crash>,
        metrics: Arc<GroupMetrics>,
    ) -> Result<Self, StorageError> {
        let log = saver.log().clone();
        let committed = log.committed();
        let mut applied = committed;
        let mut user = None;
        let sound = Sound::new(saver.clone());
        if let Some(machine) = machine {
            let machine = Mutex::new(machine);
            let _in_use = InUse::new(&shared);
            let batch = Vec::new();
            let pace = CheckpointPace::default();
            let mut held = User { machine, crash, batch, pace, _in_use };
            let newest = sound.newest().await?;
            applied = newest.as_ref().map(CheckpointFile::id);
            if let Some(file) = newest {
                held = held.restored(&saver, file).await.map_err(|error| {
                    StorageError::io("restore the checkpoint in", log.dir(), error)
                })?;
            }
            user = Some(held);
        }
        let membership = match applied.and_then(|id| log.membership_at(id.index)) {
            Some(stored) => raft_membership(&stored)
                .map_err(|detail| StorageError::corrupt("MANIFEST", 0, detail))?,
            None => RaftMembership::default(),
        };
        if let Some(id) = applied {
            shared.set_applied(id);
        }
        Ok(Self { log, shared, applied, membership, user, saver, sound, snapshot: None, metrics })
    }

    fn apply_record(&mut self, record: Record, batch: Batch) -> io::Result<Bytes> {
        let Some(user) = &mut self.user else { return Ok(Bytes::new()) };
        if batch.count <= 1 || Mutant::BrokenBatchApplied.is_active() {
            user.batch.clear();
            return user.apply(&record);
        }
        // A batch that its leader could not finish is followed by an entry of a later term.
        let broken = user.batch.last().is_some_and(|last| last.term != record.term);
        if batch.position == 0 || broken {
            user.batch.clear();
        }
        if user.batch.len() == batch.position as usize {
            user.batch.push(record);
        }
        if batch.position + 1 < batch.count || user.batch.len() < batch.count as usize {
            return Ok(Bytes::new());
        }
        assert!(user.batch.len() == batch.count as usize, "I11: a part of a batch is visible");
        let mut response = Bytes::new();
        for record in std::mem::take(&mut user.batch) {
            response = user.apply(&record)?;
        }
        Ok(response)
    }

    /// Takes a checkpoint if one is due, and does not wait for the disk. While the one before is being saved, it waits for
    /// the entries after.
    fn checkpoint_if_due(&mut self) {
        let Some((user, id)) = self.user.as_mut().zip(self.applied) else { return };
        let base = self.log.active_base();
        if !user.pace.is_due(id.index, base) || !user.batch.is_empty() {
            return;
        }
        let Some(turn) = self.saver.try_turn() else { return };
        user.pace.tried(id.index, base);
        if let Err(error) = self.checkpoint(turn) {
            // Not fatal: the log still holds everything, and the next one is tried in its time.
            tracing::warn!(error = %with_sources(&error), index = id.index, "checkpoint given up");
        }
    }

    /// Takes the state as of the last applied entry, and has it saved. None without a state machine,
    /// before the first entry, or in the middle of a batch.
    pub(crate) fn checkpoint(&mut self, turn: Turn) -> Result<Option<Saving>, StorageError> {
        let Some((user, id)) = self.user.as_mut().zip(self.applied) else { return Ok(None) };
        // One that has stopped may be in the middle of a batch, or further than what was applied last.
        let stopped =
            user.crash.reason().is_some() && !Mutant::StoppedMachineCheckpointed.is_active();
        if !user.batch.is_empty() || stopped {
            return Ok(None);
        }
        let mut draft = self.log.take_checkpoint(id);
        let taken = user.call(
            || "taking a checkpoint".to_owned(),
            |machine| machine.checkpoint(&mut draft).map(|()| machine.flush_files()),
        );
        let files = taken.flatten().map_err(|error| {
            StorageError::io("take a checkpoint of", "the state machine", error)
        })?;
        user.pace.taken(id.index, draft.state_len());
        Ok(Some(self.saver.save(turn, draft, files)))
    }

    /// The first record that the program still has to read, if there is one.
    pub(crate) fn needs_from(&mut self) -> io::Result<Option<u64>> {
        let Some(user) = self.user.as_mut() else { return Ok(None) };
        user.call(|| "asked what it needs of the log".to_owned(), |machine| machine.needs_from())
    }

    fn boundary_meta(&self, id: EntryId) -> io::Result<RaftSnapshotMeta> {
        let last_membership = match self.log.membership_at(id.index) {
            _ if self.applied == Some(id) => self.membership.clone(),
            Some(stored) => raft_membership(&stored).map_err(io::Error::other)?,
            None => RaftMembership::default(),
        };
        Ok(RaftSnapshotMeta { last_log_id: Some(raft_log_id(id)), last_membership })
    }

    /// What travels with a boundary at `id`.
    fn checkpoint_at(&self, id: EntryId) -> io::Result<Unread> {
        match &self.user {
            Some(_) if self.log.checkpoints().contains(&id) => {
                Ok(Unread(Some((self.sound.clone(), id))))
            }
            Some(_) => {
                let detail = format!("no checkpoint as of the boundary {}", id.index);
                Err(io::Error::new(io::ErrorKind::NotFound, detail))
            }
            None => Ok(Unread(None)),
        }
    }
}

/// What travels with a boundary, before it was read.
struct Unread(Option<(Sound, EntryId)>);

impl Unread {
    /// Takes long if there is much to read.
    async fn read(self) -> io::Result<Checkpoint> {
        let Some((sound, id)) = self.0 else { return Ok(Checkpoint::default()) };
        let state = sound.open(id).await.map_err(to_io)?;
        Ok(Checkpoint { state: Some(state) })
    }
}

impl RaftStateMachine<Types> for LogStateMachine {
    type SnapshotData = Checkpoint;
    type SnapshotBuilder = BoundaryBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, RaftMembership)> {
        Ok((self.applied.map(raft_log_id), self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let started = Started::now();
        let (mut run, mut bytes) = (0, 0);
        while let Some((entry, responder)) = entries.try_next().await? {
            if run >= APPLY_RUN || bytes >= APPLY_RUN_BYTES {
                (run, bytes) = (0, 0);
                tokio::task::yield_now().await;
            }
            run += 1;
            let id = entry_id(&entry.log_id);
            let response = match entry.payload {
                EntryPayload::Normal(proposal) => {
                    bytes += proposal.payload.len();
                    let record = Record::new(id.index, id.term, proposal.payload);
                    self.apply_record(record, proposal.batch)?
                }
                EntryPayload::Membership(membership) => {
                    self.membership = RaftMembership::new(Some(entry.log_id), membership);
                    Bytes::new()
                }
                EntryPayload::Blank => {
                    // A new leader's first entry: what its predecessor did not finish never will be.
                    if let Some(user) = &mut self.user {
                        user.batch.clear();
                    }
                    Bytes::new()
                }
            };
            self.applied = Some(id);
            if let Some(responder) = responder {
                responder.send(Response(response));
            }
        }
        if let Some(id) = self.applied {
            self.shared.set_applied(id);
        }
        self.metrics.applied(started);
        self.checkpoint_if_due();
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<BoundaryBuilder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> BoundaryBuilder {
        // Without a target (only at start-up, and in openraft's own tests) it lies at what is applied.
        let id = self.shared.target().or(self.applied).max(self.log.purged());
        // I8: the boundary never passes what is applied.
        assert!(
            id <= self.applied.max(self.log.purged()) || Mutant::BoundaryPassesApplied.is_active(),
            "I8: boundary {id:?} is not applied yet"
        );
        let boundary = match id {
            Some(id) => self.boundary_meta(id).and_then(|meta| {
                let checkpoint = self.checkpoint_at(id)?;
                self.snapshot = Some(meta.clone());
                Ok((meta, checkpoint))
            }),
            None => Ok((RaftSnapshotMeta::default(), Unread(None))),
        };
        BoundaryBuilder(Some(boundary))
    }

    async fn install_snapshot(
        &mut self,
        meta: &RaftSnapshotMeta,
        checkpoint: Checkpoint,
    ) -> io::Result<()> {
        let Some(last) = &meta.last_log_id else { return Ok(()) };
        let id = entry_id(last);
        match (self.user.take(), checkpoint.state) {
            (Some(user), Some(state)) => {
                // On disk before the log refers to it; a crash between leaves an unused file.
                keep_when_there_is_space(&self.saver, &state).await.map_err(to_io)?;
                self.user = Some(user.restored(&self.saver, state).await?);
            }
            (Some(_), None) => {
                return Err(io::Error::other(
                    "the leader sent no checkpoint for the state machine",
                ));
            }
            (None, _) => {}
        }
        self.log.install(id, stored_membership(&meta.last_membership)).await.map_err(to_io)?;
        self.applied = Some(id);
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(meta.clone());
        self.shared.set_applied(id);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let purged = self.log.purged();
        let meta = match (&self.snapshot, purged) {
            (Some(meta), _) if meta.last_log_id >= purged.map(raft_log_id) => meta.clone(),
            (_, Some(id)) => self.boundary_meta(id)?,
            (_, None) => return Ok(None),
        };
        let Some(last) = &meta.last_log_id else { return Ok(None) };
        let snapshot = self.checkpoint_at(entry_id(last))?.read().await?;
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

/// Hands out the boundary that was asked for, once its checkpoint was read. openraft waits for it beside what it applies.
pub(crate) struct BoundaryBuilder(Option<io::Result<(RaftSnapshotMeta, Unread)>>);

impl RaftSnapshotBuilder<Types> for BoundaryBuilder {
    type SnapshotData = Checkpoint;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let built_already = || Err(io::Error::other("built already"));
        let (meta, checkpoint) = self.0.take().unwrap_or_else(built_already)?;
        Ok(Snapshot { meta, snapshot: checkpoint.read().await? })
    }
}
