//! What the journal costs over the floor of the disk.
//!
//! Prints messages and syncs per second of the journal, fed by one closed loop per replica with
//! entries of 64 KiB of 256-byte messages, and of plain writes of 64 KiB into a file of zeros with
//! a sync each. The two take turns in one run, since disks change their mood.
//!
//! Usage: `cargo bench -p dunlin-storage --bench journal [-- <folder>]`.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_model::id::{GroupId, GroupReplica, LogPosition, ReplicaId};
use dunlin_storage::disk::{Disk, DiskFile, RealDisk};
use dunlin_storage::journal::{Journal, JournalConfig, LogEntry};

const MESSAGE_BYTES: usize = 256;
const ENTRY_BYTES: usize = 64 << 10;
const FLOOR_FILE_BYTES: usize = 64 << 20;
const ROUNDS: u32 = 4;
const ROUND: Duration = Duration::from_secs(2);
/// Entries in flight per replica.
const DEPTH: usize = 4;

fn main() {
    let folder = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let made = folder
        .is_none()
        .then(|| tempfile::tempdir_in(".").expect("a folder for the run"));
    let root = folder.unwrap_or_else(|| made.as_ref().expect("made").path().display().to_string());
    let disk = Arc::new(RealDisk::new(&root));
    let floor_file = disk.create("floor").expect("a file for the floor");
    floor_file.write_at(&vec![0; FLOOR_FILE_BYTES], 0).expect("zeros");
    floor_file.sync_data().expect("sync");
    let journal = Journal::open(disk.clone(), JournalConfig::default()).expect("open journal");
    for replicas in [1u32, 8] {
        let logs: Vec<Feeder> = (0..replicas).map(|group| Feeder::new(&journal, group)).collect();
        let (mut floor_syncs, mut messages, mut syncs) = (0, 0, 0);
        let mut logs = logs;
        for _ in 0..ROUNDS {
            floor_syncs += floor(&*floor_file);
            let before = journal.stats().flushes;
            messages += feed(&mut logs);
            syncs += journal.stats().flushes - before;
        }
        let seconds = (ROUND * ROUNDS).as_secs_f64();
        let floor_messages = floor_syncs * (ENTRY_BYTES / MESSAGE_BYTES) as u64;
        println!(
            "{replicas} replicas: journal {:.0} messages/s, {:.0} syncs/s; floor {:.0} messages/s, {:.0} syncs/s; ratio {:.2}",
            messages as f64 / seconds,
            syncs as f64 / seconds,
            floor_messages as f64 / seconds,
            floor_syncs as f64 / seconds,
            messages as f64 / floor_messages as f64,
        );
    }
}

/// Writes and syncs 64 KiB at a time; returns how often.
fn floor(file: &dyn DiskFile) -> u64 {
    let block = vec![7; ENTRY_BYTES];
    let begun = Instant::now();
    let mut count = 0u64;
    while begun.elapsed() < ROUND {
        let slot = count as usize % (FLOOR_FILE_BYTES / ENTRY_BYTES);
        file.write_at(&block, (slot * ENTRY_BYTES) as u64).expect("write");
        file.sync_data().expect("sync");
        count += 1;
    }
    count
}

struct Feeder {
    log: dunlin_storage::journal::ReplicaLog,
    next: u64,
    body: Bytes,
}

impl Feeder {
    fn new(journal: &Journal, group: u32) -> Feeder {
        let log = journal.replica(GroupReplica {
            group: GroupId(group),
            replica: ReplicaId(1),
        });
        let next = log.state().last.map_or(0, |last| last.index + 1);
        Feeder {
            log,
            next,
            body: vec![7; ENTRY_BYTES].into(),
        }
    }

    fn send(&mut self, number: usize, done: mpsc::SyncSender<usize>) {
        let position = LogPosition {
            term: 1,
            leader: 1,
            index: self.next,
        };
        self.next += 1;
        let confirm = move |outcome: Result<(), _>| {
            outcome.expect("append");
            done.send(number).expect("the loop waits");
        };
        self.log.append(
            vec![LogEntry {
                position,
                body: self.body.clone(),
            }],
            Box::new(confirm),
        );
        if self.next.is_multiple_of(256) {
            self.log.purge(LogPosition {
                index: self.next - 128,
                ..position
            });
        }
    }
}

/// Keeps [`DEPTH`] entries of each replica in flight; returns messages confirmed.
fn feed(feeders: &mut [Feeder]) -> u64 {
    let (sender, receiver) = mpsc::sync_channel(feeders.len() * DEPTH);
    for (number, feeder) in feeders.iter_mut().enumerate() {
        for _ in 0..DEPTH {
            feeder.send(number, sender.clone());
        }
    }
    let begun = Instant::now();
    let mut in_flight = feeders.len() * DEPTH;
    let mut confirmed = 0;
    while in_flight > 0 {
        let number = receiver.recv().expect("every append is answered");
        confirmed += 1;
        if begun.elapsed() < ROUND {
            feeders[number].send(number, sender.clone());
        } else {
            in_flight -= 1;
        }
    }
    confirmed * (ENTRY_BYTES / MESSAGE_BYTES) as u64
}
