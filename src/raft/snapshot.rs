//! A boundary and its checkpoint on their way from a leader to a node that needs them: piece by piece, out of a file and into
//! one, so that neither end holds the state in memory, whatever its size.
//!
//! A sender first asks how much of this very checkpoint the node has, and goes on from there: a broken connection loses only
//! the bytes on the way, not those that had arrived.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, StreamingError, Unreachable};
use openraft::network::RPCTypes;
use openraft::storage::Snapshot;
use tokio::time::Instant;

use super::agreement::NotTaken;
use super::group::Group;
use super::messages::{self, BadMessage, SnapshotHead};
use super::network::PeerClient;
use super::state_machine::{Checkpoint, RaftSnapshot};
use super::types::{
    RaftMembership, RaftSnapshotMeta, RaftVote, Types, decode_membership, entry_id, raft_log_id,
    stored_membership,
};
use crate::error::{StorageError, with_sources};
use crate::format::entry::EntryId;
use crate::log::{CheckpointFile, Draft, Log};
use crate::mutant::Mutant;
use crate::seam::BoxFuture;
use crate::wire::{Frame, OutFrame};

/// Bytes of a checkpoint in one frame.
const PIECE_BYTES: usize = 1 << 20;
/// An unfinished checkpoint is dropped if nothing more of it comes for this long.
const PATIENCE: Duration = Duration::from_secs(300);
/// A node that has all pieces needs time to restore the state: at least this many bytes a second.
const RESTORED_A_SECOND: u64 = 8 << 20;

/// A checkpoint that comes from a leader.
#[derive(Debug)]
pub(crate) struct Incoming {
    head: SnapshotHead,
    draft: Draft,
    touched: Instant,
}

/// What waits for space.
#[derive(Debug)]
struct Waits {
    reason: String,
    since: Instant,
    asked: Instant,
}

#[derive(Debug, Default)]
struct State {
    incoming: Option<Incoming>,
    waits: Option<Waits>,
}

/// An unfinished checkpoint. Each log has one at most; a later one replaces it.
#[derive(Debug, Clone, Default)]
pub(super) struct Receiving(Arc<Mutex<State>>);

/// The result of a piece.
#[derive(Debug)]
pub(super) enum Received {
    /// So many bytes are there.
    SoFar(u64),
    All(CheckpointFile),
    /// The sender leads no more: nothing was taken.
    Deposed,
}

/// Why a piece was not taken.
#[derive(Debug)]
enum Failed {
    /// It is no piece of this checkpoint: of another sender, or of before a connection broke.
    Unfitting(String),
    Disk(StorageError),
    /// All of it is there, and it is another than the sender's.
    Damaged,
}

impl Receiving {
    /// Adds a piece; an empty one asks how much is there. Pieces may come twice. What is there stays if a piece cannot be taken, but
    /// not if its flush failed.
    /// `vote` is that of this node. Blocks on the disk.
    pub(super) fn take(
        &self,
        log: &Log,
        vote: &RaftVote,
        head: &SnapshotHead,
        piece: &[u8],
    ) -> Result<Received, String> {
        if *vote > head.vote() && !Mutant::DeposedSenderBelieved.is_active() {
            return Ok(Received::Deposed);
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = state.piece(log, head, piece);
        let lost = state.incoming.as_ref().is_some_and(|incoming| incoming.draft.is_lost());
        if lost
            || matches!(taken, Ok(Received::All(_)) | Err(Failed::Damaged))
            || taken.is_err() && Mutant::ReceivedDropped.is_active()
        {
            state.incoming = None;
        }
        state.note_waiting(&taken, head);
        taken.map_err(|failed| match failed {
            Failed::Unfitting(reason) => reason,
            Failed::Disk(error) => with_sources(&error),
            Failed::Damaged => "a checkpoint arrived damaged".to_owned(),
        })
    }

    /// Drops a checkpoint that has made no progress for long. It leaves a piece that is being written alone.
    pub(super) fn forget_silent(&self) {
        if let Ok(mut state) = self.0.try_lock() {
            state.incoming.take_if(|incoming| incoming.touched.elapsed() > PATIENCE);
            state.waits.take_if(|waits| waits.asked.elapsed() > PATIENCE);
        }
    }

    /// What a leader sends and the disk has no space for, and since when. None while a piece is being written.
    pub(super) fn waiting(&self) -> Option<(String, Duration)> {
        let state = self.0.try_lock().ok()?;
        state.waits.as_ref().map(|waits| (waits.reason.clone(), waits.since.elapsed()))
    }
}

impl State {
    fn piece(&mut self, log: &Log, head: &SnapshotHead, piece: &[u8]) -> Result<Received, Failed> {
        let under_way = self.incoming.as_ref().map(|incoming| &incoming.head);
        match under_way {
            Some(begun) if begun.is_of_same_checkpoint(head) => {}
            Some(begun) if begun.is_later_than(head) => {
                return Err(Failed::Unfitting("a later checkpoint is under way".to_owned()));
            }
            _ if head.offset > 0 => {
                let reason = "an earlier piece of the checkpoint is missing".to_owned();
                return Err(Failed::Unfitting(reason));
            }
            _ => {
                // Its space first.
                self.incoming = None;
                self.incoming = Some(Incoming::begin(log, head.clone()));
            }
        }
        let incoming = self.incoming.as_mut().expect("it was begun");
        incoming.touched = Instant::now();
        incoming.take(log, head, piece)
    }

    /// Tells of a full disk while the sender tries again and again.
    fn note_waiting(&mut self, taken: &Result<Received, Failed>, head: &SnapshotHead) {
        match taken {
            Err(Failed::Disk(StorageError::Full { .. })) => {
                let now = Instant::now();
                let since = self.waits.as_ref().map_or(now, |waits| waits.since);
                let there = self.incoming.as_ref().map_or(0, |incoming| incoming.draft.state_len());
                let reason = format!(
                    "a checkpoint of {} bytes waits for space on the disk, which keeps its reserve besides; \
                     {there} are there",
                    head.state_len
                );
                if self.waits.is_none() {
                    tracing::warn!("{reason}");
                }
                self.waits = Some(Waits { reason, since, asked: now });
            }
            Ok(_) => self.waits = None,
            Err(_) => {}
        }
    }
}

impl Incoming {
    fn begin(log: &Log, head: SnapshotHead) -> Self {
        let (term, index) = head.last;
        let draft = log.receive_checkpoint(EntryId { term, index });
        Self { head, draft, touched: Instant::now() }
    }

    fn take(&mut self, log: &Log, head: &SnapshotHead, piece: &[u8]) -> Result<Received, Failed> {
        let (so_far, len) = (self.draft.state_len(), head.state_len);
        if head.offset > so_far || len - head.offset < piece.len() as u64 {
            let reason = format!("piece {} of a checkpoint does not follow", head.offset);
            return Err(Failed::Unfitting(reason));
        }
        // What is there already has come a second time.
        let known = usize::try_from(so_far - head.offset).unwrap_or(usize::MAX);
        let new = piece.get(known..).unwrap_or_default();
        let written = match new {
            [] => self.draft.check_space(len - so_far),
            new => self.draft.write_all(new),
        };
        written.map_err(|error| {
            Failed::Disk(StorageError::io("write a checkpoint in", log.dir(), error))
        })?;
        let so_far = self.draft.state_len();
        if so_far < len {
            return Ok(Received::SoFar(so_far));
        }
        let file = self.draft.finish().map_err(Failed::Disk)?;
        match file.state_crc() == head.state_crc || Mutant::ReceivedCrcIgnored.is_active() {
            true => Ok(Received::All(file)),
            false => Err(Failed::Damaged),
        }
    }
}

/// Takes a piece of a checkpoint from a leader; the last one installs it.
///
/// # Errors
/// The frame breaks the protocol.
pub(super) fn serve(
    group: Arc<Group>,
    frame: Frame,
) -> Result<BoxFuture<Result<OutFrame, NotTaken>>, BadMessage> {
    let head: SnapshotHead = messages::decode(&frame.head)?;
    if frame.body.len() > PIECE_BYTES || head.offset > head.state_len {
        return Err(BadMessage::new("a piece of a checkpoint is too large"));
    }
    let meta = boundary(&head)?;
    Ok(Box::pin(async move {
        match group.take_piece(head, meta, frame.body.clone()).await {
            Ok((vote, so_far)) => Ok(messages::piece_reply(&frame, &vote, so_far)),
            Err(Refused::Reason(reason)) => Ok(messages::refused(&frame, reason)),
            Err(Refused::NotTaken(error)) => Err(error),
        }
    }))
}

fn boundary(head: &SnapshotHead) -> Result<RaftSnapshotMeta, BadMessage> {
    let id = |(term, index)| raft_log_id(EntryId { term, index });
    let last_membership = match &head.membership {
        Some((at, bytes)) => {
            let membership = decode_membership(bytes).map_err(BadMessage::new)?;
            RaftMembership::new(Some(id(*at)), membership)
        }
        None => RaftMembership::default(),
    };
    Ok(RaftSnapshotMeta { last_log_id: Some(id(head.last)), last_membership })
}

/// Why a piece is refused.
enum Refused {
    Reason(String),
    /// Its boundary may not be installed.
    NotTaken(NotTaken),
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

impl Group {
    /// This node's vote, and how much of the checkpoint is here.
    async fn take_piece(
        &self,
        head: SnapshotHead,
        meta: RaftSnapshotMeta,
        piece: Bytes,
    ) -> Result<(RaftVote, u64), Refused> {
        let (vote, len) = (head.vote(), head.state_len);
        let (term, index) = head.last;
        let last = EntryId { term, index };
        let state = if head.has_state {
            let (receiving, own) = (self.receiving.clone(), self.vote());
            let taking = self.saver.run(move |log| receiving.take(log, &own, &head, &piece));
            match taking.await.ok_or_else(|| "the node is stopping".to_owned())?? {
                Received::SoFar(so_far) => return Ok((self.vote(), so_far)),
                Received::Deposed => return Ok((self.vote(), 0)),
                Received::All(file) => Some(file),
            }
        } else {
            None
        };
        self.check_boundary(&vote, last).await.map_err(Refused::NotTaken)?;
        let snapshot = Snapshot { meta, snapshot: Checkpoint { state } };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        installed.map(|reply| (reply.vote, len)).map_err(|error| error.to_string().into())
    }
}

impl PeerClient {
    /// Sends a boundary and its checkpoint; returns the vote of the node that took it.
    pub(super) async fn send_snapshot(
        &self,
        vote: RaftVote,
        snapshot: RaftSnapshot,
        timeout: Duration,
    ) -> Result<RaftVote, StreamingError<Types>> {
        let Some(last) = &snapshot.meta.last_log_id else {
            return Err(StreamingError::Network(NetworkError::from_string("an empty snapshot")));
        };
        let membership = stored_membership(&snapshot.meta.last_membership);
        let mut head =
            SnapshotHead::new(entry_id(last), membership.map(|stored| (stored.id, stored.payload)));
        head.set_vote(&vote);
        let state = snapshot.snapshot.state;
        head.has_state = state.is_some();
        head.state_len = state.as_ref().map_or(0, CheckpointFile::state_len);
        head.state_crc = state.as_ref().map_or(0, CheckpointFile::state_crc);
        if head.state_len > PIECE_BYTES as u64 {
            let (there, so_far) = self.send_piece(&head, Bytes::new(), timeout).await?;
            if there > vote {
                return Ok(there);
            }
            // A node of an older build does not say, and begins.
            head.offset = so_far.unwrap_or(0).min(head.state_len);
        }
        loop {
            let piece = match &state {
                Some(state) => state.piece(head.offset, PIECE_BYTES).map_err(|error| {
                    StreamingError::Unreachable(Unreachable::from_string(with_sources(&error)))
                })?,
                None => Bytes::new(),
            };
            let end = head.offset + piece.len() as u64;
            let restoring = Duration::from_secs(head.state_len / RESTORED_A_SECOND);
            let patience = if end == head.state_len { timeout + restoring } else { timeout };
            let (there, _) = self.send_piece(&head, piece, patience).await?;
            if end == head.state_len || there > vote {
                return Ok(there);
            }
            head.offset = end;
        }
    }

    /// Gives the vote there, and how much is there if it says.
    async fn send_piece(
        &self,
        head: &SnapshotHead,
        piece: Bytes,
        timeout: Duration,
    ) -> Result<(RaftVote, Option<u64>), StreamingError<Types>> {
        let mut frame = messages::frame(messages::SNAPSHOT, self.log, head);
        frame.body.extend((!piece.is_empty()).then_some(piece));
        let response = self.request(RPCTypes::InstallSnapshot, frame, timeout).await;
        let reply = response.map_err(streaming_error)?;
        messages::decode_piece_reply(&reply)
            .map_err(|error| StreamingError::Unreachable(Unreachable::from_string(error)))
    }
}

fn streaming_error(error: RPCError<Types>) -> StreamingError<Types> {
    match error {
        RPCError::Timeout(timeout) => StreamingError::Timeout(timeout),
        RPCError::Unreachable(unreachable) => StreamingError::Unreachable(unreachable),
        RPCError::Network(network) => StreamingError::Network(network),
        RPCError::RemoteError(remote) => match remote.source {},
    }
}
