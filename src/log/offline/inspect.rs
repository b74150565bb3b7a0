//! What a data directory holds.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::error::StorageError;
use crate::format::entry::EntryId;
use crate::member::NodeId;
use crate::record::{Index, LogId, Term};
use crate::seam::disk::RealDisk;
use crate::seam::{Access, Disk};
use crate::segment::{recovery, segment_path};

use super::{list_logs, look_at_lock};
use crate::log::files::checkpoints;
use crate::log::files::data_dir::{SUPERBLOCK_NAME, log_dir, read_superblock};
use crate::log::files::manifest::{check_sealed, open_segment, read_manifest};
use crate::log::files::vote_file::VoteFile;

/// What a data directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// A process uses the directory now.
    pub in_use: bool,
    /// Whose it is.
    pub node: NodeSummary,
    /// Its logs, by number.
    pub logs: Vec<LogSummary>,
}

/// Whose a data directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NodeSummary {
    /// Number of the node.
    pub node_id: NodeId,
    /// Random number made with the directory.
    #[serde(serialize_with = "as_hex")]
    pub incarnation: u128,
    /// Number of the cluster, 0 if the node belongs to none yet.
    #[serde(serialize_with = "as_hex")]
    pub cluster: u128,
    /// How new the data is: raised now and then while the node runs. Other members refuse data of the node that is older than
    /// what they have heard of.
    pub generation: u64,
    /// Other members have refused the data as older: the node takes no part with it.
    pub outdated: bool,
}

/// What one log holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogSummary {
    /// Its number.
    pub id: LogId,
    /// The last vote saved.
    pub vote: Option<VoteSummary>,
    /// One past the last index that is known to be committed; newer ones may be, too.
    pub committed: Index,
    /// The last entry that retention has removed.
    pub boundary: Option<Position>,
    /// Its segments in their order; the last one is active.
    pub segments: Vec<SegmentSummary>,
    /// Checkpoints of the state machine, oldest first.
    pub checkpoints: Vec<CheckpointSummary>,
}

/// A vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VoteSummary {
    /// Term of the election.
    pub term: Term,
    /// For whom.
    pub voted_for: NodeId,
    /// A majority voted the same.
    pub committed: bool,
}

/// Term and index of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Position {
    /// Term of the leader that appended it.
    pub term: Term,
    /// Its index.
    pub index: Index,
}

impl From<EntryId> for Position {
    fn from(id: EntryId) -> Self {
        Self { term: id.term, index: id.index }
    }
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SegmentSummary {
    /// Its file.
    pub path: PathBuf,
    /// Index of its first entry.
    pub base_index: Index,
    /// Its last entry; none in an empty active segment.
    pub last: Option<Position>,
    /// Number of entries.
    pub entries: u64,
    /// Length of the file, allocated space included.
    pub bytes: u64,
    /// Not written to any more.
    pub sealed: bool,
    /// Wall clock of the newest entry's write, milliseconds since 1970; of sealed segments only.
    pub newest_ms: Option<u64>,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointSummary {
    /// Its file.
    pub path: PathBuf,
    /// The last entry that it includes.
    pub last: Position,
    /// Length of the file.
    pub bytes: u64,
}

/// Says what a data directory holds. Reads the headers of all files, and the active segments; see
/// [`verify`](super::verify) for the rest. Changes nothing.
///
/// # Errors
/// The first file that is missing or damaged.
pub fn inspect(data_dir: impl AsRef<Path>) -> Result<Inspection, StorageError> {
    inspect_on(&RealDisk, data_dir.as_ref())
}

pub(crate) fn inspect_on(disk: &dyn Disk, data_dir: &Path) -> Result<Inspection, StorageError> {
    let (in_use, _lock) = look_at_lock(disk, data_dir)?;
    let Some(superblock) = read_superblock(disk, data_dir)? else {
        let detail = "this is no data directory of a node".to_owned();
        return Err(StorageError::Missing { path: data_dir.join(SUPERBLOCK_NAME), detail });
    };
    let node = NodeSummary {
        node_id: superblock.node_id,
        incarnation: superblock.incarnation,
        cluster: superblock.cluster,
        generation: superblock.generation,
        outdated: superblock.outdated,
    };
    let logs = list_logs(disk, data_dir)?;
    let logs =
        logs.into_iter().map(|log| inspect_log(disk, data_dir, log)).collect::<Result<_, _>>()?;
    Ok(Inspection { in_use, node, logs })
}

fn inspect_log(disk: &dyn Disk, data_dir: &Path, id: LogId) -> Result<LogSummary, StorageError> {
    let dir = log_dir(data_dir, id);
    let manifest = read_manifest(disk, &dir, id.0)?;
    let size = |path: &Path| {
        let size = disk.open(path, Access::Read).and_then(|file| file.size());
        size.map_err(|error| StorageError::io("read", path, error))
    };
    let mut segments = Vec::new();
    for meta in &manifest.sealed {
        check_sealed(disk, &dir, id.0, meta)?;
        let path = segment_path(&dir, meta.segment.id);
        segments.push(SegmentSummary {
            base_index: meta.segment.base,
            last: Some(meta.last.into()),
            entries: meta.last.index + 1 - meta.segment.base,
            bytes: size(&path)?,
            sealed: true,
            newest_ms: Some(meta.newest_ms),
            path,
        });
    }
    let (file, path) = open_segment(disk, &dir, &manifest.active, Access::Read)?;
    recovery::check_header(&*file, &path, id.0, &manifest.active)?;
    let scan = recovery::scan(&*file, &path, &manifest.active)?;
    segments.push(SegmentSummary {
        path,
        base_index: manifest.active.base,
        last: scan.last.map(Position::from),
        entries: scan.offsets.len() as u64,
        bytes: scan.file_len,
        sealed: false,
        newest_ms: None,
    });
    let vote = VoteFile::open(disk, &dir, id.0, Access::Read)?;
    let end =
        segments.iter().rev().find_map(|segment| segment.last).map_or(0, |last| last.index + 1);
    let boundary = manifest.boundary.as_ref().map(|boundary| boundary.id);
    let begin = boundary.map_or(0, |boundary| boundary.index + 1);
    let stored = manifest.committed.end().max(vote.newest().committed.end());
    let committed = stored.max(scan.committed);
    Ok(LogSummary {
        id,
        vote: vote.newest().vote.map(|vote| VoteSummary {
            term: vote.term,
            voted_for: vote.voted_for.node,
            committed: vote.committed,
        }),
        committed: committed.min(end).max(begin),
        boundary: boundary.map(Position::from),
        segments,
        checkpoints: inspect_checkpoints(disk, &dir, id)?,
    })
}

fn inspect_checkpoints(
    disk: &dyn Disk,
    dir: &Path,
    id: LogId,
) -> Result<Vec<CheckpointSummary>, StorageError> {
    let names = disk.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
    let indexes = names.iter().filter_map(|entry| checkpoints::index_of(&entry.name));
    let summary = |index| {
        let file = checkpoints::open_at(disk, dir, id.0, index)?;
        let path = checkpoints::path_of(dir, index);
        Ok(CheckpointSummary { path, last: file.id().into(), bytes: file.len() })
    };
    indexes.map(summary).collect()
}

fn as_hex<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{number:032x}"))
}
