//! What a data directory must hold after a crash: everything acknowledged, and of what was only
//! submitted a prefix.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use quorumlog::Flush;
use quorumlog::simulation::{
    StoredChange, StoredEntry, StoredId, StoredKind, StoredMembers, StoredVote,
};

/// What a log holds.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Holding {
    /// Behind the boundary.
    pub(crate) entries: Vec<StoredEntry>,
    pub(crate) boundary: Option<StoredId>,
    /// The membership as of the end.
    pub(crate) members: Option<StoredMembers>,
    pub(crate) vote: Option<StoredVote>,
}

impl fmt::Debug for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.entries.first(), self.entries.last());
        let id = |entry: Option<&StoredEntry>| {
            entry.map_or("-".to_owned(), |entry| format!("{}.{}", entry.id.term, entry.id.index))
        };
        write!(f, "{} entries {}..={}", self.entries.len(), id(first), id(last))?;
        if let Some(StoredId { term, index }) = self.boundary {
            write!(f, " behind {term}.{index}")?;
        }
        if let Some(members) = &self.members {
            write!(f, ", members of {}.{}", members.id.term, members.id.index)?;
        }
        match self.vote {
            Some(vote) => write!(f, ", term {}", vote.term),
            None => write!(f, ", no vote"),
        }
    }
}

/// One moment of a log.
#[derive(Debug, Clone, Default)]
struct Moment {
    holding: Holding,
    /// The membership as of the boundary.
    boundary_members: Option<StoredMembers>,
    /// What led here.
    change: Option<StoredChange>,
}

impl Moment {
    fn after(&self, change: &StoredChange) -> Self {
        let mut next = Self { change: Some(change.clone()), ..self.clone() };
        let Holding { entries, boundary, vote, .. } = &mut next.holding;
        match change {
            StoredChange::Append(new) => entries.extend(new.iter().cloned()),
            StoredChange::SaveVote(new) => *vote = Some(*new),
            StoredChange::TruncateAfter(last) => {
                let end = last.or(*boundary).max(*boundary).map_or(0, |last| last.index + 1);
                entries.retain(|entry| entry.id.index < end);
            }
            StoredChange::Purge(upto) if *boundary < Some(*upto) => {
                let gone = entries.iter().filter(|entry| entry.id.index <= upto.index);
                next.boundary_members =
                    gone.filter_map(members_in).last().or(next.boundary_members);
                entries.retain(|entry| entry.id.index > upto.index);
                *boundary = Some(*upto);
            }
            StoredChange::Install(upto, members) => {
                let held = *boundary == Some(*upto) || entries.iter().any(|e| e.id == *upto);
                if !held && boundary.is_none_or(|boundary| boundary.index < upto.index) {
                    entries.clear();
                    *boundary = Some(*upto);
                    next.boundary_members.clone_from(members);
                }
            }
            StoredChange::Purge(_) | StoredChange::Close | StoredChange::Destroy => {}
        }
        let newest = next.holding.entries.iter().filter_map(members_in).last();
        next.holding.members = newest.or_else(|| next.boundary_members.clone());
        next
    }
}

fn members_in(entry: &StoredEntry) -> Option<StoredMembers> {
    let payload = entry.payload.clone();
    (entry.kind == StoredKind::Membership).then_some(StoredMembers { id: entry.id, payload })
}

/// How far a log has come into being, or out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It may be there.
    Maybe,
    /// It must be there.
    Listed,
    /// It may be there, and must then be removed.
    Forgotten,
}

/// What one log must hold, and what it may hold.
#[derive(Debug, Clone)]
pub(crate) struct LogModel {
    pub(crate) life: Life,
    flush: Flush,
    /// After each change that was submitted; the first is before all.
    moments: Vec<Moment>,
    /// The first moment that a crash may leave.
    durable: usize,
    /// How many changes were acknowledged.
    acknowledged: usize,
    /// Checkpoints that were submitted, and whether they were acknowledged.
    pub(crate) checkpoints: BTreeMap<StoredId, (Bytes, bool)>,
    /// The highest position that was said to be committed.
    pub(crate) told: Option<StoredId>,
    /// Committed, as of the last vote that was saved.
    pub(crate) committed_floor: u64,
}

impl LogModel {
    pub(crate) fn new(flush: Flush) -> Self {
        Self {
            life: Life::Maybe,
            flush,
            moments: vec![Moment::default()],
            durable: 0,
            acknowledged: 0,
            checkpoints: BTreeMap::new(),
            told: None,
            committed_floor: 0,
        }
    }

    /// Notes a change that is about to be submitted.
    pub(crate) fn submit(&mut self, change: &StoredChange) {
        let now = self.moments[self.moments.len() - 1].after(change);
        self.moments.push(now);
    }

    /// Notes that the oldest change without an answer was acknowledged.
    pub(crate) fn acknowledge(&mut self) {
        self.acknowledged += 1;
        let flushed = match &self.moments[self.acknowledged].change {
            Some(StoredChange::Append(entries)) => {
                self.flush == Flush::Sync || entries.iter().any(|entry| entry.sync)
            }
            _ => true,
        };
        if flushed {
            self.durable = self.acknowledged;
        }
        if let Some(StoredChange::SaveVote(_)) = self.moments[self.acknowledged].change
            && self.acknowledged + 1 == self.moments.len()
        {
            self.committed_floor = self.told.map_or(0, |told| told.index + 1);
        }
    }

    /// Notes that all that was acknowledged was flushed.
    pub(crate) fn flushed(&mut self) {
        self.durable = self.acknowledged;
    }

    /// The appends behind index `end`, as far as they follow each other: what may lie behind a torn tail.
    pub(crate) fn appends_from(&self, mut end: u64) -> Vec<&[StoredEntry]> {
        let mut appends = Vec::new();
        for moment in &self.moments {
            if let Some(StoredChange::Append(entries)) = &moment.change
                && entries.first().is_some_and(|first| first.id.index == end)
            {
                end += entries.len() as u64;
                appends.push(entries.as_slice());
            }
        }
        appends
    }

    /// All that was submitted.
    pub(crate) fn newest(&self) -> &Holding {
        &self.moments[self.moments.len() - 1].holding
    }

    /// Says why a log must not hold this after a crash, if it must not.
    pub(crate) fn check(&self, found: &Holding) -> Result<(), String> {
        let may = &self.moments[self.durable..];
        let fits = may.iter().any(|moment| moment.holding == *found);
        if fits || may.windows(2).any(|pair| is_part(&pair[0], &pair[1], found)) {
            return Ok(());
        }
        let [must, newest] = [&may[0].holding, &may[may.len() - 1].holding];
        let differs = first_difference(must, found);
        Err(format!("it holds {found:?}\nit must hold {must:?}\nat most {newest:?}{differs}"))
    }
}

/// True for a part of the append that lies between two moments.
fn is_part(before: &Moment, after: &Moment, found: &Holding) -> bool {
    let Some(StoredChange::Append(_)) = after.change else { return false };
    let (from, to) = (before.holding.entries.len(), after.holding.entries.len());
    (from < found.entries.len() && found.entries.len() < to)
        && after.holding.entries.starts_with(&found.entries)
        && (found.boundary, found.vote) == (after.holding.boundary, after.holding.vote)
}

fn first_difference(must: &Holding, found: &Holding) -> String {
    let pairs = must.entries.iter().zip(&found.entries);
    match pairs.into_iter().find(|(must, found)| must != found) {
        Some((must, found)) => format!("\nentry {:?} where {:?} must be", found.id, must.id),
        None => String::new(),
    }
}

/// What the superblock must say.
#[derive(Debug, Clone, Default)]
pub(crate) struct DirModel {
    /// Once it was seen.
    pub(crate) incarnation: Option<u128>,
    /// Acknowledged, and submitted.
    pub(crate) cluster: (u128, u128),
}

/// What a data directory must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) dir: DirModel,
    pub(crate) logs: BTreeMap<u64, LogModel>,
}

#[cfg(test)]
mod tests {
    use super::super::script::{id, members, records};
    use super::*;

    fn holding(entries: Vec<StoredEntry>) -> Holding {
        let members = entries.iter().filter_map(members_in).last();
        Holding { entries, members, ..Holding::default() }
    }

    #[test]
    fn acknowledged_entries_must_be_there_and_submitted_ones_may() {
        let mut model = LogModel::new(Flush::Sync);
        model.submit(&StoredChange::Append(records(1, 0..3, 9)));
        assert!(model.check(&holding(Vec::new())).is_ok(), "nothing was acknowledged");
        model.acknowledge();
        model.submit(&StoredChange::Append(records(1, 3..6, 9)));
        for (end, fits) in [(0, false), (2, false), (3, true), (4, true), (6, true), (7, false)] {
            let found = holding(records(1, 0..end, 9));
            assert_eq!(model.check(&found).is_ok(), fits, "{end} entries");
        }
        let other = holding(records(2, 0..3, 9));
        assert!(model.check(&other).is_err(), "other entries at the same indexes");
    }

    #[test]
    fn a_vote_and_a_boundary_never_go_back() {
        let mut model = LogModel::new(Flush::Sync);
        let vote = |term| StoredVote { term, voted_for: 1, committed: false };
        let changes = [
            StoredChange::Append(records(1, 0..4, 9)),
            StoredChange::SaveVote(vote(3)),
            StoredChange::Purge(id(1, 1)),
        ];
        for change in changes {
            model.submit(&change);
            model.acknowledge();
        }
        let good = Holding {
            boundary: Some(id(1, 1)),
            vote: Some(vote(3)),
            ..holding(records(1, 2..4, 9))
        };
        assert!(model.check(&good).is_ok());
        assert!(model.check(&Holding { vote: Some(vote(2)), ..good.clone() }).is_err());
        assert!(model.check(&Holding { boundary: Some(id(1, 0)), ..good.clone() }).is_err());
        assert!(model.check(&Holding { boundary: None, ..good }).is_err());
    }

    #[test]
    fn without_a_flush_an_acknowledged_append_may_go_and_a_later_vote_keeps_it() {
        let mut model = LogModel::new(Flush::Async);
        model.submit(&StoredChange::Append(records(1, 0..3, 9)));
        model.acknowledge();
        assert!(model.check(&Holding::default()).is_ok());
        let vote = StoredVote { term: 1, voted_for: 1, committed: true };
        model.submit(&StoredChange::SaveVote(vote));
        model.acknowledge();
        let lost = Holding { vote: Some(vote), ..Holding::default() };
        assert!(model.check(&lost).is_err());
        assert!(model.check(&Holding { vote: Some(vote), ..holding(records(1, 0..3, 9)) }).is_ok());
    }

    #[test]
    fn appends_that_follow_each_other_are_found_by_where_they_begin() {
        let mut model = LogModel::new(Flush::Sync);
        for range in [0..2, 2..5, 5..6] {
            model.submit(&StoredChange::Append(records(1, range, 9)));
        }
        let firsts = |end| {
            let found = model.appends_from(end);
            found.iter().map(|entries| entries[0].id.index).collect::<Vec<_>>()
        };
        assert_eq!((firsts(0), firsts(2), firsts(3)), (vec![0, 2, 5], vec![2, 5], vec![]));
    }

    #[test]
    fn the_membership_is_the_last_one_that_is_held_or_the_boundarys() {
        let mut model = LogModel::new(Flush::Sync);
        let first = members(1, 0);
        model.submit(&StoredChange::Append(vec![first.clone()]));
        model.submit(&StoredChange::Append(records(1, 1..3, 9)));
        model.submit(&StoredChange::Purge(id(1, 1)));
        assert_eq!(model.newest().members.as_ref().map(|members| members.id), Some(first.id));
        model.submit(&StoredChange::Append(vec![members(1, 3)]));
        assert_eq!(model.newest().members.as_ref().map(|members| members.id), Some(id(1, 3)));
        model.submit(&StoredChange::TruncateAfter(Some(id(1, 2))));
        assert_eq!(model.newest().members.as_ref().map(|members| members.id), Some(first.id));
    }
}
