//! How many files this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process have as many files open as the system allows: each connection is one, and so is each part of a log.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused the limit stays as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
