//! Directories: what names are seen, what names are durable, and the changes between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::file::FileState;

/// Number of a file or directory; never used twice.
pub(super) type Inode = u64;

pub(super) const ROOT: Inode = 0;

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(FileState),
    Dir(DirState),
}

#[derive(Debug, Clone, Default)]
pub(super) struct DirState {
    pub(super) live: BTreeMap<String, Inode>,
    pub(super) durable: BTreeMap<String, Inode>,
}

/// A change of names that is not durable. All of it becomes so, or nothing.
#[derive(Debug, Clone)]
pub(super) struct NameChange {
    pub(super) operation: u64,
    /// In which directory which name stands for what from now on.
    slots: Vec<(Inode, String, Option<Inode>)>,
    /// A directory that was removed, and so is empty.
    emptied: Option<Inode>,
    /// For the eyes of people.
    pub(super) path: PathBuf,
}

impl NameChange {
    /// The directory that it is about, or the first of two.
    pub(super) fn dir(&self) -> Inode {
        self.slots.first().map_or(ROOT, |(dir, ..)| *dir)
    }

    fn is_about(&self, dir: Inode) -> bool {
        self.slots.iter().any(|(slot, ..)| *slot == dir)
    }

    /// True if this one cannot be durable without `earlier`.
    fn needs(&self, earlier: &Self) -> bool {
        let same = |(dir, name, _): &(Inode, String, Option<Inode>)| {
            self.slots.iter().any(|(d, n, _)| d == dir && n == name)
        };
        earlier.slots.iter().any(same) || self.emptied.is_some_and(|dir| earlier.is_about(dir))
    }
}

/// All files and directories.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<Inode, Node>,
    next: Inode,
    /// Oldest first.
    pub(super) pending: Vec<NameChange>,
    /// Look for nodes that nobody can reach once there are so many.
    collect_at: usize,
}

impl Default for Tree {
    fn default() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(DirState::default()))]);
        Self { nodes, next: ROOT + 1, pending: Vec::new(), collect_at: 64 }
    }
}

/// A name in a directory, and what it stands for.
pub(super) struct Slot {
    pub(super) dir: Inode,
    pub(super) name: String,
    pub(super) inode: Option<Inode>,
}

impl Tree {
    fn dir(&self, inode: Inode) -> io::Result<&DirState> {
        match self.nodes.get(&inode) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn file(&self, inode: Inode) -> io::Result<&FileState> {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn file_mut(&mut self, inode: Inode) -> io::Result<&mut FileState> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (Inode, &FileState)> {
        self.nodes.iter().filter_map(|(inode, node)| match node {
            Node::File(file) => Some((*inode, file)),
            Node::Dir(_) => None,
        })
    }

    pub(super) fn is_dir(&self, inode: Inode) -> bool {
        matches!(self.nodes.get(&inode), Some(Node::Dir(_)))
    }

    /// What a path stands for.
    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        self.walk(path, |dir| &dir.live)
    }

    /// What a path would stand for if all that is not durable were lost.
    pub(super) fn find_durable(&self, path: &Path) -> io::Result<Inode> {
        self.walk(path, |dir| &dir.durable)
    }

    fn walk(
        &self,
        path: &Path,
        names: fn(&DirState) -> &BTreeMap<String, Inode>,
    ) -> io::Result<Inode> {
        let mut inode = ROOT;
        for name in components(path) {
            let names = names(self.dir(inode)?);
            inode = *names.get(name?).ok_or(ErrorKind::NotFound)?;
        }
        Ok(inode)
    }

    /// The name that a path ends in, in a directory that exists.
    pub(super) fn slot(&self, path: &Path) -> io::Result<Slot> {
        let (Some(parent), Some(Component::Normal(name))) =
            (path.parent(), path.components().next_back())
        else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let name = name.to_str().ok_or(ErrorKind::InvalidInput)?;
        let dir = self.find(parent)?;
        let inode = self.dir(dir)?.live.get(name).copied();
        Ok(Slot { dir, name: name.to_owned(), inode })
    }

    /// Names in a directory and whether they are directories, in their order.
    pub(super) fn list(&self, dir: Inode) -> io::Result<impl Iterator<Item = (&str, bool)>> {
        let names = self.dir(dir)?.live.iter();
        Ok(names.map(|(name, inode)| (name.as_str(), self.is_dir(*inode))))
    }

    /// Makes a file or directory.
    pub(super) fn make(&mut self, operation: u64, path: &Path, slot: Slot, node: Node) -> Inode {
        self.collect();
        let inode = self.next;
        self.next += 1;
        self.nodes.insert(inode, node);
        let slots = vec![(slot.dir, slot.name, Some(inode))];
        self.change(NameChange { operation, slots, emptied: None, path: path.to_owned() });
        inode
    }

    /// Removes a name.
    pub(super) fn remove(&mut self, operation: u64, path: &Path, slot: Slot) {
        let emptied = slot.inode.filter(|inode| self.is_dir(*inode));
        let slots = vec![(slot.dir, slot.name, None)];
        self.change(NameChange { operation, slots, emptied, path: path.to_owned() });
    }

    /// Whether a rename is one that a file system does; false if there is nothing to do.
    pub(super) fn may_rename(&self, from: &Slot, to: &Slot) -> io::Result<bool> {
        let Some(moved) = from.inode else { return Err(ErrorKind::NotFound.into()) };
        if self.is_dir(moved) && (to.dir == moved || self.lies_in(to.dir, moved)) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let Some(replaced) = to.inode else { return Ok(true) };
        if replaced == moved {
            return Ok(false);
        }
        match (self.is_dir(moved), self.is_dir(replaced)) {
            (false, true) if self.lies_in(from.dir, replaced) || from.dir == replaced => {
                Err(ErrorKind::DirectoryNotEmpty.into())
            }
            (false, true) => Err(ErrorKind::IsADirectory.into()),
            (true, false) => Err(ErrorKind::NotADirectory.into()),
            (true, true) if !self.dir(replaced)?.live.is_empty() => {
                Err(ErrorKind::DirectoryNotEmpty.into())
            }
            _ => Ok(true),
        }
    }

    fn lies_in(&self, inode: Inode, above: Inode) -> bool {
        let Ok(dir) = self.dir(above) else { return false };
        dir.live.values().any(|&child| child == inode || self.lies_in(inode, child))
    }

    pub(super) fn rename(&mut self, operation: u64, path: &Path, from: Slot, to: Slot) {
        let emptied = to.inode.filter(|inode| self.is_dir(*inode));
        let slots = vec![(from.dir, from.name, None), (to.dir, to.name, from.inode)];
        self.change(NameChange { operation, slots, emptied, path: path.to_owned() });
    }

    fn change(&mut self, change: NameChange) {
        for (dir, name, inode) in &change.slots {
            self.set(*dir, name, *inode, |dir| &mut dir.live);
        }
        self.pending.push(change);
    }

    fn set(
        &mut self,
        dir: Inode,
        name: &str,
        inode: Option<Inode>,
        names: fn(&mut DirState) -> &mut BTreeMap<String, Inode>,
    ) {
        let Some(Node::Dir(dir)) = self.nodes.get_mut(&dir) else { return };
        match inode {
            Some(inode) => drop(names(dir).insert(name.to_owned(), inode)),
            None => drop(names(dir).remove(name)),
        }
    }

    /// Makes the names in a directory durable, and what they cannot be without.
    pub(super) fn sync(&mut self, dir: Inode) {
        let mut keep: Vec<bool> = self.pending.iter().map(|change| change.is_about(dir)).collect();
        for at in (0..keep.len()).rev() {
            let (earlier, later) = self.pending.split_at(at + 1);
            let change = &earlier[at];
            keep[at] |= later.iter().zip(&keep[at + 1..]).any(|(l, kept)| *kept && l.needs(change));
        }
        self.commit(&keep);
    }

    /// Makes all files and names durable.
    pub(super) fn flush_all(&mut self) {
        self.commit(&vec![true; self.pending.len()]);
        self.files_mut().for_each(FileState::flush);
    }

    /// Makes the chosen changes durable; the others stay pending.
    fn commit(&mut self, keep: &[bool]) {
        let mut left = Vec::new();
        for (change, keep) in std::mem::take(&mut self.pending).into_iter().zip(keep) {
            if !keep {
                left.push(change);
                continue;
            }
            for (dir, name, inode) in &change.slots {
                self.set(*dir, name, *inode, |dir| &mut dir.durable);
            }
        }
        self.pending = left;
    }

    /// A power cut that leaves the chosen changes, save those that need one that it does not leave. Gives
    /// how many were lost.
    pub(super) fn lose_all_but(&mut self, mut keep: Vec<bool>) -> u64 {
        for at in 0..keep.len() {
            let needs = |other: usize| !keep[other] && self.pending[at].needs(&self.pending[other]);
            let broken = (0..at).any(needs);
            keep[at] &= !broken;
        }
        self.commit(&keep);
        let lost = std::mem::take(&mut self.pending).len() as u64;
        for node in self.nodes.values_mut() {
            if let Node::Dir(dir) = node {
                dir.live = dir.durable.clone();
            }
        }
        self.collect_at = 0;
        self.collect();
        lost
    }

    /// Puts a name durably where it is not pending, or takes it away.
    pub(super) fn tamper(&mut self, slot: &Slot, inode: Option<Inode>) {
        self.set(slot.dir, &slot.name, inode, |dir| &mut dir.live);
        self.set(slot.dir, &slot.name, inode, |dir| &mut dir.durable);
    }

    /// Every path as it is seen, or as it would be if all that is not durable were lost.
    pub(super) fn paths(&self, durable: bool) -> Vec<(PathBuf, Inode)> {
        let mut paths = vec![(PathBuf::from("/"), ROOT)];
        let mut at = 0;
        while at < paths.len() {
            if let Ok(dir) = self.dir(paths[at].1) {
                let names = if durable { &dir.durable } else { &dir.live };
                let below: Vec<_> =
                    names.iter().map(|(name, inode)| (paths[at].0.join(name), *inode)).collect();
                paths.extend(below);
            }
            at += 1;
        }
        paths
    }

    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut FileState> {
        self.nodes.values_mut().filter_map(|node| match node {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        })
    }

    /// Forgets files and directories that can never be reached again.
    fn collect(&mut self) {
        if self.nodes.len() < self.collect_at {
            return;
        }
        let mut reached = BTreeSet::new();
        let mut open: Vec<Inode> = vec![ROOT];
        open.extend(self.pending.iter().flat_map(|change| {
            change.slots.iter().flat_map(|(dir, _, inode)| [Some(*dir), *inode]).flatten()
        }));
        let held = self.files().filter(|(_, file)| Arc::strong_count(&file.open) > 1);
        open.extend(held.map(|(inode, _)| inode));
        while let Some(inode) = open.pop() {
            if reached.insert(inode)
                && let Ok(dir) = self.dir(inode)
            {
                open.extend(dir.live.values().chain(dir.durable.values()));
            }
        }
        self.nodes.retain(|inode, _| reached.contains(inode));
        self.collect_at = 2 * self.nodes.len() + 64;
    }
}

/// The names that a path consists of.
fn components(path: &Path) -> impl Iterator<Item = io::Result<&str>> {
    path.components().filter_map(|component| match component {
        Component::RootDir | Component::CurDir => None,
        Component::Normal(name) => Some(name.to_str().ok_or(ErrorKind::InvalidInput.into())),
        Component::Prefix(_) | Component::ParentDir => Some(Err(ErrorKind::InvalidInput.into())),
    })
}
