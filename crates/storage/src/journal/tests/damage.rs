//! What is lost of a journal is seen, stays seen, and concerns nobody who came later.

use super::*;

#[test]
fn damage_is_remembered_when_its_segment_is_gone() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    append(&journal.replica(id(1)), vec![entry(1, 0, "a")]).unwrap();
    vote(&journal.replica(id(1)), "v").unwrap();
    journal.replica(id(1)).purge(at(1, 0));
    vote(&journal.replica(id(2)), "v").unwrap();
    let disk = disk.power_cut(PowerCut::LoseAll);
    drop(journal);
    disk.flip_bit(FIRST, (flushes(&disk, FIRST)[1].1 - 1) * 8);
    let mut journal = open(&disk);
    let mut disk = disk;
    // The second round is long enough for the mark itself to be written anew.
    for _ in 0..2 {
        let log = journal.replica(id(2));
        for _ in 0..3 {
            fill(&log, 9).unwrap();
            log.purge(log.state().last.unwrap());
            vote(&log, "v").unwrap();
        }
        (journal, disk) = reboot(journal, &disk, PowerCut::LoseAll);
        assert_eq!(journal.stats().damaged, vec![id(1)]);
        assert!(!disk.exists(FIRST), "what is marked keeps no segment");
        let refused = append(&journal.replica(id(1)), vec![entry(1, 1, "b")]);
        assert!(
            matches!(refused, Err(JournalError::Damaged { .. })),
            "{refused:?}"
        );
    }
    wait(|done| journal.replica(id(1)).remove(done)).unwrap();
    let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
    assert_eq!(journal.stats().damaged, vec![]);
}

#[test]
fn damage_that_is_not_marked_yet_keeps_its_segment() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    append(&journal.replica(id(1)), vec![entry(1, 0, "a")]).unwrap();
    vote(&journal.replica(id(2)), "v").unwrap();
    let disk = disk.power_cut(PowerCut::LoseAll);
    drop(journal);
    disk.flip_bit(FIRST, (flushes(&disk, FIRST)[0].1 - 1) * 8);
    let (core, _flusher) = recovery::recover(Arc::new(disk), config()).unwrap();
    assert!(core.replicas[&id(1)].damaged.is_some());
    assert_eq!(core.replicas[&id(1)].oldest_segment(), Some(0));
    assert_eq!(core.queue.len(), 1, "the mark waits for the first flush");
}

#[test]
fn a_damaged_replica_keeps_what_was_written_before_the_damage() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    vote(&journal.replica(id(1)), "in the first segment").unwrap();
    fill(&journal.replica(id(2)), 14).unwrap();
    let disk = disk.power_cut(PowerCut::LoseAll);
    drop(journal);
    let second = "journal/00000000000000000002.log";
    // Nobody can tell whose records that flush held.
    disk.flip_bit(second, 8 * (flushes(&disk, second)[0].0 + 20));
    let journal = open(&disk);
    assert_eq!(journal.stats().damaged, vec![id(1), id(2)]);
    wait(|done| journal.replica(id(2)).remove(done)).unwrap();
    fill(&journal.replica(id(3)), 3).unwrap();
    let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
    // A replica that was forgotten would vote again.
    assert_eq!(journal.stats().damaged, vec![id(1)]);
}

#[test]
fn a_lost_segment_damages_all() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    fill(&journal.replica(id(1)), 12).unwrap();
    let disk = disk.power_cut(PowerCut::LoseAll);
    drop(journal);
    Disk::remove(&disk, FIRST).unwrap();
    let journal = open(&disk);
    assert_eq!(journal.stats().damaged, vec![id(1)]);
}

#[test]
fn a_replica_that_is_made_after_a_loss_is_whole_at_every_later_start() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    for index in 0..4 {
        append(&journal.replica(id(1)), vec![entry(1, index, "a")]).unwrap();
    }
    drop(journal);
    // The header of the second flush: nobody can tell whose records it held.
    let name = format!("journal/{:020}.log", 1);
    disk.flip_bit(&name, 8 * (2 * BLOCK_BYTES + 20));
    let journal = open(&disk);
    assert_eq!(journal.stats().damaged, vec![id(1)]);
    append(&journal.replica(id(2)), vec![entry(1, 0, "made anew")]).unwrap();
    drop(journal);
    let journal = open(&disk);
    assert_eq!(
        journal.stats().damaged,
        vec![id(1)],
        "the loss is older than the other"
    );
    assert_eq!(indexes(&journal.replica(id(2))), vec![0]);
    wait(|done| journal.replica(id(1)).remove(done)).unwrap();
    // What is lost now may concern the second as well.
    append(&journal.replica(id(2)), vec![entry(1, 1, "b")]).unwrap();
    append(&journal.replica(id(2)), vec![entry(1, 2, "c")]).unwrap();
    let whole = disk.bytes_of(&name).unwrap();
    let header = SegmentHeader::decode(&whole[..BLOCK_BYTES as usize]).unwrap();
    let starts = (BLOCK_BYTES..whole.len() as u64).step_by(BLOCK_BYTES as usize);
    let reads = |start: &u64| decode_record(&whole[*start as usize..], header.seed(), *start).is_some();
    let flushes: Vec<u64> = starts.filter(reads).collect();
    drop(journal);
    disk.flip_bit(&name, 8 * (flushes[flushes.len() - 2] + 20));
    assert_eq!(open(&disk).stats().damaged, vec![id(2)]);
}

#[test]
fn a_survey_says_nothing_about_what_is_lost_right_behind_it() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    for index in 0..4 {
        append(&journal.replica(id(1)), vec![entry(1, index, "a")]).unwrap();
    }
    drop(journal);
    let header_of = |flush: usize| 8 * (flushes(&disk, FIRST)[flush].0 + 20);
    disk.flip_bit(FIRST, header_of(1));
    let journal = open(&disk);
    // Of votes none is missed where one is lost.
    for term in 0..4 {
        vote(&journal.replica(id(2)), &format!("voted in term {term}")).unwrap();
    }
    drop(journal);
    let bytes = disk.bytes_of(FIRST).unwrap();
    let header = SegmentHeader::decode(&bytes[..BLOCK_BYTES as usize]).unwrap();
    let has_survey = |(start, end): &(u64, u64)| {
        let mut at = *start;
        while let Some((head, body)) = decode_record(&bytes[at as usize..], header.seed(), at)
            && at < *end
        {
            if head.kind == format::Kind::Survey {
                return true;
            }
            at += body.end as u64;
        }
        false
    };
    let survey = flushes(&disk, FIRST).iter().position(has_survey).unwrap();
    disk.flip_bit(FIRST, header_of(survey + 1));
    assert_eq!(open(&disk).stats().damaged, vec![id(1), id(2)]);
}

/// Entries of one replica in the first two segments; behind them that most of these are cut off, and votes of
/// another. The segments' files, in order.
fn several_segments(disk: &FaultyDisk) -> Vec<String> {
    let journal = open(disk);
    let log = journal.replica(id(1));
    for index in 0..14 {
        append(&log, vec![entry(1, index, vec![7; 4_000])]).unwrap();
    }
    for number in 0..16 {
        vote(&journal.replica(id(2)), &format!("vote {number}")).unwrap();
        if number == 6 {
            wait(|done| log.truncate_after(Some(at(1, 5)), done)).unwrap();
        }
    }
    drop(journal);
    let names = disk.list("journal").unwrap().into_iter();
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".log")).collect();
    names.sort_unstable();
    assert!(names.len() >= 3);
    names.into_iter().map(|name| format!("journal/{name}")).collect()
}

#[test]
fn flushes_that_vanish_from_the_beginning_are_missed() {
    let disk = FaultyDisk::new();
    let names = several_segments(&disk);
    for name in &names[..2] {
        let length = disk.bytes_of(name).unwrap().len();
        let file = disk.open(name).unwrap();
        file.write_at(&vec![0; length - BLOCK_BYTES as usize], BLOCK_BYTES)
            .unwrap();
    }
    // That entries were cut off would leave an empty log, as good as new, if nobody asked what came before.
    assert_eq!(open(&disk).stats().damaged, vec![id(1), id(2)]);
}

#[test]
fn a_segment_that_was_cut_is_seen_to_be_wherever_it_stands() {
    let count = several_segments(&FaultyDisk::new()).len();
    for place in 0..count {
        let disk = FaultyDisk::new();
        let name = several_segments(&disk).swap_remove(place);
        disk.open(&name).unwrap().set_len(BLOCK_BYTES + 9).unwrap();
        let damaged = open(&disk).stats().damaged;
        assert!(damaged.contains(&id(1)), "{name}: {damaged:?}");
        // It goes on behind the loss, and whoever is new there is whole.
        let journal = open(&disk);
        append(&journal.replica(id(3)), vec![entry(1, 0, "new")]).unwrap();
        drop(journal);
        assert!(!open(&disk).stats().damaged.contains(&id(3)), "{name}");
    }
}
