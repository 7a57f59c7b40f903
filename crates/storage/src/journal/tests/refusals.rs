//! What a disk has refused is not believed when it reads as written: not at the next start either, which finds
//! it in the kernel's memory.

use super::*;

/// Returns when nothing but flushes asks the disk for anything.
fn settle(disk: &FaultyDisk, log: &ReplicaLog) {
    wait_for_spares(disk);
    // The spare's name is there before it is durable; a flush comes after both.
    vote(log, "settled").unwrap();
}

#[test]
fn a_flush_whose_sync_failed_is_on_disk_before_the_next_start_reports_it() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    append(&log, vec![entry(1, 0, "a")]).unwrap();
    settle(&disk, &log);
    disk.fail(Operation::Sync, 0, false);
    assert!(append(&log, vec![entry(1, 1, "b")]).is_err());
    drop((log, journal));
    let journal = open(&disk);
    let reported = indexes(&journal.replica(id(1)));
    assert_eq!(reported, [0, 1], "it reads as written");
    let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
    assert_eq!(indexes(&journal.replica(id(1))), reported);
}

#[test]
fn the_name_of_a_segment_is_on_disk_before_anything_in_it_is_confirmed() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    settle(&disk, &log);
    // Somewhere on the way the journal moves on to its second segment, whose name is never synced.
    disk.fail(Operation::SyncDir, 0, false);
    assert!(fill(&log, 14).is_err());
    drop((log, journal));
    assert!(disk.exists("journal/00000000000000000002.log"));
    let shared = Arc::new(disk.clone());
    let (journal, mut driver) = Journal::open_driven(shared, config(), Box::new(|| ())).unwrap();
    let log = journal.replica(id(1));
    let first = log.state().last.map_or(0, |last| last.index + 1);
    let (sender, receiver) = mpsc::channel();
    log.append(
        vec![entry(1, first, "confirmed")],
        Box::new(move |outcome| sender.send(outcome).unwrap()),
    );
    // One turn: no spare is made before it, which would sync the folder as well.
    assert_eq!(driver.turn(), Turn::Worked);
    receiver.recv().unwrap().unwrap();
    let disk = disk.power_cut(PowerCut::LoseAll);
    drop((log, journal, driver));
    let journal = open(&disk);
    let log = journal.replica(id(1));
    assert_eq!(log.state().damaged, None);
    assert_eq!(log.state().last.map(|last| last.index), Some(first));
}
