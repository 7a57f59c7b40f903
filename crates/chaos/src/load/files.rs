//! Open files: each connection is one, and systems begin with a bound far below a load's needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the bound on open files to what the system allows, and returns it.
pub fn raise_open_files() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    // Refused or not, what counts is what is in force afterwards.
    let _ = setrlimit(Resource::Nofile, wanted);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
