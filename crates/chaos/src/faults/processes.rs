//! Processes as the kernel shows and changes them: state, memory, descriptors, threads, signals, limits,
//! control groups.
//!
//! Reads `/proc` and `/sys/fs/cgroup` (version 1 or 2) and nothing else. Decides nothing; a thing that
//! this machine does not allow is an error with a reason.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";
/// Microseconds over which a quota of processor time counts.
pub const PERIOD_US: u64 = 100_000;

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

fn pid_of(pid: u32) -> io::Result<Pid> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    raw.ok_or_else(|| io::Error::other(format!("{pid} is no process")))
}

/// Sends a signal.
pub fn signal(pid: u32, signal: Signal) -> Result<(), String> {
    let sent = pid_of(pid).and_then(|pid| Ok(rustix::process::kill_process(pid, signal)?));
    sent.map_err(|error| format!("signal process {pid}: {error}"))
}

/// The state letter of a process, as `ps` shows it; `None` when it is gone.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// What a process uses just now; `None` when it is gone.
pub fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Usage {
        rss_bytes: number("VmRSS:")? * 1024,
        descriptors: descriptors(pid)?,
        threads: number("Threads:")?,
    })
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// How many descriptors a process may have (its soft limit); `None` when it is gone or has no limit.
pub fn limit_descriptors_now(pid: u32) -> Option<u64> {
    descriptor_limit(pid, 3)
}

/// A column of the process's line of limits, where the soft one is the fourth word and the hard one the fifth.
fn descriptor_limit(pid: u32, word: usize) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(word)?.parse().ok()
}

/// Sets how many descriptors a process may have, and returns what it might have before.
pub fn limit_descriptors(pid: u32, current_max: Option<u64>) -> Result<Option<u64>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("limit descriptors of process {pid}: {error}");
    let target = pid_of(pid).map_err(|error| failed(&error))?;
    let limit = Rlimit {
        current: current_max,
        // As it is: it can be lowered and never be raised again.
        maximum: descriptor_limit(pid, 4),
    };
    let before = rustix::process::prlimit(Some(target), Resource::Nofile, limit);
    before
        .map(|before| before.current)
        .map_err(|error| failed(&error))
}

/// A control group that a process was moved into. Dropping it moves the process back.
#[derive(Debug)]
pub struct Group {
    pid: u32,
    path: PathBuf,
    /// Where the process was.
    home: PathBuf,
}

impl Group {
    /// Makes a group of `controller` (version 1) and writes `settings` (file, text) to it, then moves the
    /// process there.
    pub fn confine(pid: u32, controller: &str, settings: &[(&str, String)]) -> Result<Group, String> {
        let base = Path::new(GROUPS).join(controller);
        if !base.join("cgroup.procs").exists() {
            return Err(format!(
                "this machine has no control group '{controller}' of version 1"
            ));
        }
        let home =
            home_of(pid, controller).map_or(base.clone(), |path| base.join(path.trim_start_matches('/')));
        let path = home.join(format!("dunlin-chaos-{}-{pid}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("make control group {}: {error}", path.display()))?;
        // From here on the group goes whatever happens.
        let group = Group { pid, path, home };
        for (file, text) in settings {
            group.write(file, text)?;
        }
        group.write("cgroup.procs", &pid.to_string())?;
        Ok(group)
    }

    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        let path = self.path.join(file);
        fs::write(&path, text).map_err(|error| format!("write {}: {error}", path.display()))
    }

    /// A number out of one of the group's files: that behind `name`, or the first.
    pub fn number(&self, file: &str, name: &str) -> Option<u64> {
        GroupOf::folder(&self.path).number(file, name)
    }

    /// Writes a setting while the process is in the group.
    pub fn set(&self, file: &str, text: &str) -> Result<(), String> {
        self.write(file, text)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that has ended is in no group any more.
        let _ = fs::write(self.home.join("cgroup.procs"), self.pid.to_string());
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the control group");
        }
    }
}

/// A control group that is only looked at.
#[derive(Debug)]
pub struct GroupOf(Option<PathBuf>);

impl GroupOf {
    /// That of a process: of `controller` in version 1, or its only one in version 2.
    pub fn process(pid: u32, controller: &str) -> GroupOf {
        let below = |base: PathBuf, path: String| base.join(path.trim_start_matches('/'));
        let base = Path::new(GROUPS).join(controller);
        let old = home_of(pid, controller).filter(|_| base.exists());
        let new = || home_of(pid, "").map(|path| below(GROUPS.into(), path));
        GroupOf(old.map(|path| below(base.clone(), path)).or_else(new))
    }

    /// That of this folder.
    pub fn folder(path: &Path) -> GroupOf {
        GroupOf(Some(path.to_owned()))
    }

    /// A number out of one of its files: that behind `name`, or the first.
    pub fn number(&self, file: &str, name: &str) -> Option<u64> {
        let text = fs::read_to_string(self.0.as_ref()?.join(file)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

/// The group of `controller` that a process is in; that of version 2 has none.
fn home_of(pid: u32, controller: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let is_it = parts.next()?.split(',').any(|name| name == controller);
        is_it.then(|| parts.next().map(str::to_owned))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_looked_at() {
        let own = std::process::id();
        let usage = usage(own).unwrap();
        assert!(usage.rss_bytes > 1024 * 1024, "{usage:?}");
        assert!(usage.descriptors >= 3 && usage.threads >= 1, "{usage:?}");
        assert!(state(own).is_some());
        assert_eq!(state(u32::MAX), None);
    }

    #[test]
    fn a_stopped_process_shows_and_goes_on() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        signal(child.id(), Signal::STOP).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while state(child.id()) != Some('T') {
            assert!(
                std::time::Instant::now() < deadline,
                "it is {:?}",
                state(child.id())
            );
            std::thread::yield_now();
        }
        signal(child.id(), Signal::CONT).unwrap();
        let before = limit_descriptors(child.id(), Some(64)).unwrap();
        assert_eq!(limit_descriptors(child.id(), before).unwrap(), Some(64));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(signal(u32::MAX, Signal::CONT).is_err());
    }
}
