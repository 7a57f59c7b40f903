//! What a disk may be told to do wrong, with bounds, and what it counts.
//!
//! Plain data: it decides nothing ([`Decider`](super::decider::Decider) does) and touches nothing.

use serde::{Deserialize, Serialize};

/// Rules of one kind that a disk may have at a time.
pub const RULES_MAX: usize = 32;
/// Longest delay or stall of one operation.
pub const DISK_DELAY_MS_MAX: u64 = 60_000;

/// What is asked of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Read from a file.
    Read,
    /// Write to a file.
    Write,
    /// Sync a file, its length or only its data.
    Sync,
    /// Sync a directory.
    SyncFolder,
    /// Cut, extend or preallocate a file.
    SetLen,
    /// Make a file or a directory.
    Create,
    /// Remove a file or a directory.
    Remove,
    /// Rename either.
    Rename,
    /// Open a file, look up a name, list a directory.
    Open,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 9] = [
        Operation::Read,
        Operation::Write,
        Operation::Sync,
        Operation::SyncFolder,
        Operation::SetLen,
        Operation::Create,
        Operation::Remove,
        Operation::Rename,
        Operation::Open,
    ];

    /// Whether it changes anything, which a disk that is read-only refuses.
    pub fn is_change(self) -> bool {
        !matches!(self, Operation::Read | Operation::Open)
    }
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskError {
    /// EIO.
    Io,
    /// ENOSPC.
    NoSpace,
    /// EDQUOT.
    Quota,
    /// EROFS.
    ReadOnly,
}

/// Operations that fail (F25, F26). After a failed sync the bytes that it should have made durable read
/// as written and are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Which operations.
    pub on: Operation,
    /// How.
    #[serde(default = "io")]
    pub error: DiskError,
    /// How many succeed before.
    #[serde(default)]
    pub after: u64,
    /// How many fail then, after which all succeed; all for ever if it is not given.
    #[serde(default)]
    pub times: Option<u64>,
    /// Only paths that contain this.
    #[serde(default)]
    pub path: Option<String>,
}

fn io() -> DiskError {
    DiskError::Io
}

/// Operations that take long (F27).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slowness {
    /// Which operations.
    pub on: Operation,
    /// Milliseconds that each takes longer.
    pub delay_ms: u64,
    /// Up to this many milliseconds more.
    #[serde(default)]
    pub jitter_ms: u64,
    /// Share of them that is slow.
    #[serde(default = "one")]
    pub share: f64,
    /// Only paths that contain this.
    #[serde(default)]
    pub path: Option<String>,
}

fn one() -> f64 {
    1.0
}

/// What a disk does wrong. The default is a good disk. Shares are between 0 and 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskFaults {
    /// Operations that fail. The first rule that applies counts.
    pub fail: Vec<Failure>,
    /// Operations that take long. The first rule that applies counts.
    pub slow: Vec<Slowness>,
    /// Nothing can be made or grow, and nothing is free (F26).
    pub full: bool,
    /// Nothing can be made or grow, though as much is free as before (F26).
    pub over_quota: bool,
    /// Nothing can be changed (F26).
    pub read_only: bool,
    /// Share of reads with one bit flipped (F23).
    pub flip_read: f64,
    /// Share of reads that return another page of the same file (F23).
    pub misdirect_read: f64,
    /// Share of writes that land on another page of the same file (F23).
    pub misdirect_write: f64,
    /// Share of reads that return, for a page with unsynced bytes, the ones before (F23).
    pub stale_read: f64,
    /// Share of writes that are confirmed and not done (F23).
    pub lose_write: f64,
    /// Only files whose paths contain this have their bytes spoiled; all if it is not given.
    pub spoil_path: Option<String>,
    /// Syncs are confirmed and do nothing: the disk lies. What a test of durability must notice.
    pub lying_sync: bool,
}

/// A fault that is no fault of a disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {rule}")]
pub struct BadDiskFaults {
    /// Which field.
    pub field: &'static str,
    /// What it must be.
    pub rule: String,
}

impl DiskFaults {
    /// The first field that is out of bounds, if there is one.
    pub fn validate(&self) -> Result<(), BadDiskFaults> {
        let bad = |field, rule: String| Err(BadDiskFaults { field, rule });
        for (field, share) in [
            ("flip_read", self.flip_read),
            ("misdirect_read", self.misdirect_read),
            ("misdirect_write", self.misdirect_write),
            ("stale_read", self.stale_read),
            ("lose_write", self.lose_write),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return bad(field, "between 0 and 1".to_owned());
            }
        }
        if self.slow.iter().any(|rule| !(0.0..=1.0).contains(&rule.share)) {
            return bad("slow.share", "between 0 and 1".to_owned());
        }
        let too_slow = |rule: &Slowness| rule.delay_ms.max(rule.jitter_ms) > DISK_DELAY_MS_MAX;
        if self.slow.iter().any(too_slow) {
            return bad("slow", format!("at most {DISK_DELAY_MS_MAX} ms"));
        }
        if self.fail.len().max(self.slow.len()) > RULES_MAX {
            return bad("fail and slow", format!("at most {RULES_MAX} rules"));
        }
        Ok(())
    }
}

/// What became of the operations of one disk since it was mounted. A fault has been felt only if its
/// counter moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCounters {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes of these.
    pub written_bytes: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
    /// Syncs that were confirmed and did nothing.
    pub lied: u64,
    /// Operations that failed by a rule, or since the disk is full, over its quota or read-only.
    pub failed: u64,
    /// Operations that were made to take long.
    pub delayed: u64,
    /// Reads with a flipped bit.
    pub flipped_reads: u64,
    /// Reads of another page.
    pub misdirected_reads: u64,
    /// Reads of bytes from before an unsynced write.
    pub stale_reads: u64,
    /// Writes to another page.
    pub misdirected_writes: u64,
    /// Writes that were not done.
    pub lost_writes: u64,
    /// Files whose unsynced bytes were made durable since too many were kept.
    pub written_back: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Sectors that they took.
    pub sectors_lost: u64,
    /// Sectors that had not been synced and that they left.
    pub sectors_kept: u64,
    /// Files with a sector that they tore.
    pub torn_files: u64,
    /// Changes of names that they took.
    pub names_lost: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_out_of_bounds_is_named() {
        let fine = DiskFaults::default();
        assert_eq!(fine.validate(), Ok(()));
        let slow = |delay_ms, share| Slowness {
            on: Operation::Sync,
            delay_ms,
            jitter_ms: 0,
            share,
            path: None,
        };
        let cases = [
            (
                "flip_read",
                DiskFaults {
                    flip_read: 1.5,
                    ..fine.clone()
                },
            ),
            (
                "lose_write",
                DiskFaults {
                    lose_write: f64::NAN,
                    ..fine.clone()
                },
            ),
            (
                "slow",
                DiskFaults {
                    slow: vec![slow(DISK_DELAY_MS_MAX + 1, 1.0)],
                    ..fine.clone()
                },
            ),
            (
                "slow.share",
                DiskFaults {
                    slow: vec![slow(1, -1.0)],
                    ..fine.clone()
                },
            ),
            (
                "fail and slow",
                DiskFaults {
                    slow: vec![slow(1, 1.0); RULES_MAX + 1],
                    ..fine.clone()
                },
            ),
        ];
        for (field, faults) in cases {
            assert_eq!(faults.validate().map_err(|bad| bad.field), Err(field));
        }
    }

    #[test]
    fn faults_are_read_from_toml_and_unknown_ones_refused() {
        let text =
            "lying_sync = true\n[[fail]]\non = \"sync\"\ntimes = 1\n[[slow]]\non = \"read\"\ndelay_ms = 5";
        let read: DiskFaults = toml::from_str(text).unwrap();
        let wanted = DiskFaults {
            lying_sync: true,
            fail: vec![Failure {
                on: Operation::Sync,
                error: DiskError::Io,
                after: 0,
                times: Some(1),
                path: None,
            }],
            slow: vec![Slowness {
                on: Operation::Read,
                delay_ms: 5,
                jitter_ms: 0,
                share: 1.0,
                path: None,
            }],
            ..DiskFaults::default()
        };
        assert_eq!(read, wanted);
        assert!(toml::from_str::<DiskFaults>("lying = true").is_err());
    }
}
