//! A file system that can be told to misbehave, for a node's data directory.
//!
//! Mounted over FUSE in front of a real folder. What was not synced can be taken away, as a loss of
//! power does, wholly or in part; operations can fail, wait or spoil bytes. The node runs on it
//! unchanged and knows nothing of it, and this room knows nothing of the node: it is a disk.
//!
//! What is durable is decided in [`pages`] and [`names`], what fails in [`decider`]; the switches are
//! in [`faults`]. `backing` has the files and `fuse` talks to the kernel. This room mounts, hands the
//! switches over, and unmounts.

mod backing;
pub mod control;
pub mod decider;
pub mod faults;
mod fuse;
pub mod names;
pub mod pages;
#[cfg(test)]
mod tests;
pub mod tree;

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, MountOption, SessionACL};

use backing::Backing;
use faults::{BadDiskFaults, DiskCounters, DiskFaults};
use fuse::Fuse;
use pages::Tear;

/// Threads that serve the kernel: as many operations can stall before everything does, as on a disk.
const THREADS: usize = 8;
/// How long the end of a mount is waited for. A process that still has files open keeps it alive.
const UNMOUNT_WAIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Why there is no such file system, or no power cut.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {source}")]
pub struct ChaosFsError {
    /// Verb and object.
    action: String,
    /// Why.
    source: io::Error,
}

/// A mounted file system. Dropping it unmounts it, and so does the end of the process.
pub struct ChaosFs {
    backing: Arc<Backing>,
    mountpoint: PathBuf,
    session: Option<BackgroundSession>,
    guardian: Guardian,
}

/// Unmounts when its input ends, which it does with this process, however that ends. FUSE's own way asks once,
/// just then, whether the file system still answers; a kernel that is still closing a killed process's handles
/// answers otherwise than it expects, and the mount stays.
struct Guardian(Child);

impl Guardian {
    fn start(mountpoint: &Path) -> io::Result<Guardian> {
        let script = "trap '' HUP INT TERM; cat >/dev/null; exec fusermount3 -u -q -z -- \"$0\"";
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(mountpoint)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Signals to a terminal's foreground are not for it.
            .process_group(0)
            .spawn()?;
        Ok(Guardian(child))
    }

    /// Has it unmount now, and waits until it has.
    fn call(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            tracing::warn!(%error, "cannot wait for the unmount");
        }
    }
}

impl ChaosFs {
    /// Mounts what is in `backing` at `mountpoint`; both are folders that exist. What is drawn comes
    /// from `seed`. Needs `/dev/fuse` and `fusermount3`, and root or `user_allow_other`.
    pub fn mount(backing: &Path, mountpoint: &Path, seed: u64) -> Result<ChaosFs, ChaosFsError> {
        let failed = |action: &str, path: &Path| {
            let action = format!("{action} {}", path.display());
            move |source| ChaosFsError { action, source }
        };
        let backing = Arc::new(Backing::open(backing, seed).map_err(failed("open backing folder", backing))?);
        let mountpoint = &mountpoint.canonicalize().map_err(failed("find", mountpoint))?;
        // Before there is anything to unmount, so that nothing is ever mounted without it.
        let mut guardian = Guardian::start(mountpoint).map_err(failed("start a guardian of", mountpoint))?;
        let mut config = fuser::Config::default();
        config.mount_options = vec![
            MountOption::FSName("chaosfs".to_owned()),
            MountOption::Subtype("chaosfs".to_owned()),
            MountOption::DefaultPermissions,
        ];
        config.acl = SessionACL::All;
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let fuse = Fuse {
            backing: backing.clone(),
        };
        let session = fuser::spawn_mount(fuse, mountpoint, &config)
            .inspect_err(|_| guardian.call())
            .map_err(failed("mount", mountpoint))?;
        Ok(ChaosFs {
            backing,
            mountpoint: mountpoint.to_owned(),
            session: Some(session),
            guardian,
        })
    }

    /// Tells the disk what to do wrong from now on. Operations that wait go on at once.
    pub fn set(&self, faults: DiskFaults) -> Result<(), BadDiskFaults> {
        faults.validate()?;
        self.backing.set(faults);
        Ok(())
    }

    /// What it is told at present.
    pub fn faults(&self) -> DiskFaults {
        self.backing.faults()
    }

    /// Cuts the power of the machine whose disk this is: what was not synced is gone, or some of it,
    /// as `tear` says. To be called when the node has been killed; whatever it still has under way
    /// fails. The faults stay as they are.
    pub fn lose_power(&self, tear: Tear) -> Result<(), ChaosFsError> {
        self.backing.lose_power(tear).map_err(|source| ChaosFsError {
            action: "undo what was not synced".to_owned(),
            source,
        })
    }

    /// What has happened so far.
    pub fn counters(&self) -> DiskCounters {
        self.backing.counters()
    }

    fn is_mounted(&self) -> bool {
        let point = self.mountpoint.to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(point.as_str()))
    }
}

impl Drop for ChaosFs {
    fn drop(&mut self) {
        // Whoever stands in a stall must not hold up the end.
        self.backing.set(DiskFaults::default());
        self.guardian.call();
        drop(self.session.take());
        let begin = Instant::now();
        while self.is_mounted() && begin.elapsed() < UNMOUNT_WAIT {
            std::thread::sleep(LOOK_AGAIN);
        }
        if self.is_mounted() {
            tracing::warn!(at = %self.mountpoint.display(), "the file system is still mounted");
        }
    }
}
