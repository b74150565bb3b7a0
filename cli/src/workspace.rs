//! A directory for the data of nodes that this process starts: given, or temporary.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::failure::{Failure, Result};
use crate::output::note;

/// `f_type` of a file system in memory, which no flush makes durable.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The directory. A temporary one is removed on drop.
pub(crate) struct Workspace {
    path: PathBuf,
    temporary: Option<TempDir>,
}

impl Workspace {
    /// In `given`, which must not exist or be empty, or in a temporary directory on a disk.
    ///
    /// # Errors
    /// The directory is not empty or cannot be made.
    pub(crate) fn fresh(given: Option<&Path>, name: &str) -> Result<Self> {
        if let Some(dir) = given
            && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
        {
            return Err(Failure::usage(format!("{} is not empty", dir.display()))
                .with_hint("name a directory that does not exist yet"));
        }
        Self::reusable(given, name)
    }

    /// In `given`, whatever it holds, or in a temporary directory on a disk.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn reusable(given: Option<&Path>, name: &str) -> Result<Self> {
        let failed = |dir: &Path, error| {
            Failure::io(format_args!("cannot make a directory in {}", dir.display()), &error)
        };
        if let Some(dir) = given {
            std::fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
            let path = dir.canonicalize().map_err(|error| failed(dir, error))?;
            return Ok(Self { path, temporary: None });
        }
        let parent = temporary_parent();
        let dir = tempfile::Builder::new()
            .prefix(&format!("quorumlog-{name}-"))
            .tempdir_in(&parent)
            .map_err(|error| failed(&parent, error))?;
        Ok(Self { path: dir.path().to_owned(), temporary: Some(dir) })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it in place, temporary or not.
    pub(crate) fn keep(&mut self) {
        if let Some(dir) = self.temporary.take() {
            self.path = dir.keep();
        }
    }
}

/// The system's temporary directory; if that lies in memory, the current directory, so that flushes
/// mean something.
fn temporary_parent() -> PathBuf {
    let system = std::env::temp_dir();
    if !in_memory(&system) {
        return system;
    }
    match std::env::current_dir() {
        Ok(current) if !in_memory(&current) => current,
        _ => {
            note(format_args!(
                "{} lies in memory, where a flush costs and proves nothing; use --data DIR",
                system.display()
            ));
            system
        }
    }
}

fn in_memory(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type as u64 == TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_goes_unless_kept() {
        let workspace = Workspace::fresh(None, "test").expect("made");
        let path = workspace.path().to_owned();
        assert!(path.is_dir());
        drop(workspace);
        assert!(!path.exists());
        let mut workspace = Workspace::fresh(None, "test").expect("made");
        workspace.keep();
        let path = workspace.path().to_owned();
        drop(workspace);
        assert!(path.is_dir());
        std::fs::remove_dir(path).expect("kept");
    }

    #[test]
    fn a_directory_in_use_is_refused_where_a_fresh_one_is_needed() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("file"), "x").expect("file");
        let failure = Workspace::fresh(Some(dir.path()), "test").err().expect("refused");
        assert!(failure.message.contains("not empty"), "{failure}");
        Workspace::reusable(Some(dir.path()), "test").expect("fine");
    }
}
