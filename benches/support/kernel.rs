//! What Linux counts: processor time and memory of a process, flushes and bytes of the disks, load.

use std::fs;
use std::io;

/// The unit of processor time in `/proc`; the same on every Linux that this builds for.
const TICKS_PER_S: f64 = 100.0;
/// Bytes of a sector in `/sys/block`, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// Processor seconds that a process has used, in its own code and in the kernel.
pub(crate) fn cpu_s(pid: u32) -> io::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, which may hold anything, ends at the last parenthesis.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let field = |place: usize| fields.split_whitespace().nth(place)?.parse::<f64>().ok();
    match (field(11), field(12)) {
        (Some(user), Some(system)) => Ok((user + system) / TICKS_PER_S),
        _ => Err(io::Error::other("/proc/PID/stat has another shape")),
    }
}

/// Bytes of memory that a process holds, and how many of them are no file's.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    match (field("VmRSS:"), field("RssAnon:")) {
        (Some(all), Some(anonymous)) => Ok((all * 1024, anonymous * 1024)),
        _ => Err(io::Error::other("/proc/PID/status has another shape")),
    }
}

/// What all disks together were told to do so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Disks {
    pub(crate) flushes: u64,
    pub(crate) written_bytes: u64,
}

impl Disks {
    pub(crate) fn read() -> Disks {
        let mut sum = Disks::default();
        for disk in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            let Ok(text) = fs::read_to_string(disk.path().join("stat")) else {
                continue;
            };
            let field = |place: usize| text.split_whitespace().nth(place)?.parse::<u64>().ok();
            sum.written_bytes += field(6).unwrap_or(0) * SECTOR_BYTES;
            sum.flushes += field(15).unwrap_or(0);
        }
        sum
    }

    pub(crate) fn since(self, before: Disks) -> Disks {
        Disks {
            flushes: self.flushes - before.flushes,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

/// Seconds of all processors that nothing used, and that the machine's host took away.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Machine {
    pub(crate) idle_s: f64,
    pub(crate) stolen_s: f64,
}

impl Machine {
    pub(crate) fn read() -> Machine {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let field = |place: usize| {
            let text = line.split_whitespace().nth(place);
            text.and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0) / TICKS_PER_S
        };
        Machine {
            idle_s: field(4) + field(5),
            stolen_s: field(8),
        }
    }
}

/// The machine's load averages, as text.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
