//! What this crate reads from a disk, as fuzz targets: bytes in, a panic when a reader breaks its word.
//!
//! Built for `fuzz/` and for tests only. Disks are in memory. A target that edits good files spares their
//! checksums in one mode, since a bit that rots does the same, and makes them right again in another,
//! since only then the readers behind them are reached.

mod journal;
mod segment;
mod state;

use std::sync::Arc;

pub use journal::{journal_recovery, journal_recovery_seeds};
pub use segment::{segment_open, segment_open_seeds};
pub use state::{state_journal, state_journal_seeds};

use crate::data_dir::{parse_format, parse_node};
use crate::disk::Disk;
use crate::disk::faulty::FaultyDisk;
use crate::spool::SpoolWriter;

/// Takes fuzzed bytes apart. At their end everything is zero.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn u8(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn number(&mut self, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.u8()))
    }

    /// A number that is usually small, and any at times.
    fn odd_number(&mut self) -> u64 {
        match self.u8() {
            0xFF => u64::MAX - u64::from(self.u8()),
            0xFE => self.number(8),
            small => u64::from(small),
        }
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Files by name.
type Image = Vec<(String, Vec<u8>)>;

fn image_of(disk: &FaultyDisk, folder: &str, suffix: &str) -> Image {
    let names = disk.list(folder).expect("the folder is there");
    names
        .into_iter()
        .filter(|name| name.ends_with(suffix))
        .map(|name| format!("{folder}/{name}"))
        .map(|path| {
            let bytes = disk.bytes_of(&path).expect("it is listed");
            (path, bytes)
        })
        .collect()
}

fn disk_with(folder: &str, image: &Image) -> FaultyDisk {
    let disk = FaultyDisk::new();
    disk.create_dir_all(folder).expect("an empty disk takes folders");
    for (path, bytes) in image {
        let file = disk.create(path).expect("an empty disk takes files");
        file.write_at(bytes, 0).expect("memory takes writes");
        file.sync_data().expect("memory takes syncs");
    }
    disk.sync_dir(folder).expect("memory takes syncs");
    disk
}

/// Damages `image`, up to `count_max` times: a bit pattern, a zeroed sector, a copied sector, or a cut.
/// Returns the places, as file and range.
fn damage(
    image: &mut Image,
    input: &mut Input<'_>,
    count_max: usize,
) -> Vec<(usize, std::ops::Range<usize>)> {
    const SECTOR_BYTES: usize = 512;
    let mut places = Vec::new();
    while !input.is_empty() && places.len() < count_max && !image.is_empty() {
        let place = usize::from(input.u8()) % image.len();
        let (at, value) = (input.number(3) as usize, input.u8());
        let bytes = &mut image[place].1;
        if bytes.is_empty() {
            continue;
        }
        let at = at % bytes.len();
        let sector = at / SECTOR_BYTES * SECTOR_BYTES;
        let range = match value {
            0 => sector..(sector + SECTOR_BYTES).min(bytes.len()),
            1 => {
                let end = bytes.len();
                bytes.truncate(at);
                at..end
            }
            _ => at..at + 1,
        };
        match value {
            0 => bytes[range.clone()].fill(0),
            1 => {}
            _ => bytes[at] ^= value,
        }
        places.push((place, range));
    }
    places
}

/// The small files of a data directory.
pub fn data_dir(data: &[u8]) {
    let _ = parse_format(data);
    let _ = parse_node(data);
}

/// Seeds of [`data_dir`].
pub fn data_dir_seeds() -> Vec<Vec<u8>> {
    vec![
        format!("{}\n", crate::data_dir::FORMAT_VERSION).into_bytes(),
        br#"{"node":"0123456789abcdef","cluster":"c0ffee00c0ffee00c0ffee00c0ffee00"}"#.to_vec(),
    ]
}

/// A spool whose file changes between writing and reading: what is read is what was written, or refused.
pub fn spool(data: &[u8]) {
    let mut input = Input(data);
    let disk = FaultyDisk::new();
    let mut writer = SpoolWriter::create(Arc::new(disk.clone())).expect("memory takes files");
    let mut records = Vec::new();
    for _ in 0..input.u8() % 8 {
        let length = usize::from(input.u8());
        let record = input.take(length);
        writer.put(record).expect("memory takes writes");
        records.push(record.to_vec());
    }
    let mut spool = writer.finish();
    let mut image = image_of(&disk, "spool", "");
    let name = image[0].0.clone();
    damage(&mut image, &mut input, 4);
    let file = disk.open(&name).expect("it is there");
    file.set_len(image[0].1.len() as u64).expect("memory takes it");
    file.write_at(&image[0].1, 0).expect("memory takes writes");
    for record in records {
        match spool.next_record() {
            Ok(read) => assert_eq!(read.as_deref(), Some(&record[..])),
            Err(_) => return,
        }
    }
    assert!(matches!(spool.next_record(), Ok(None) | Err(_)));
}

/// Seeds of [`spool`].
pub fn spool_seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x02\x03one\x05three".to_vec(),
        b"\x01\x04four\x00\x00\x00\x09\x55".to_vec(),
    ]
}

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_keep_their_word_under_mutation() {
        mutate::exercise("data_dir", data_dir, data_dir_seeds(), 20_000);
    }

    #[test]
    fn spools_keep_their_word_under_mutation() {
        mutate::exercise("spool", spool, spool_seeds(), 5_000);
    }

    #[test]
    fn journals_keep_their_word_under_mutation() {
        mutate::exercise(
            "journal_recovery",
            journal_recovery,
            journal_recovery_seeds(),
            2_000,
        );
    }

    #[test]
    fn the_states_journal_keeps_its_word_under_mutation() {
        mutate::exercise("state_journal", state_journal, state_journal_seeds(), 20_000);
    }

    #[test]
    fn segments_keep_their_word_under_mutation() {
        mutate::exercise("segment_open", segment_open, segment_open_seeds(), 2_000);
    }
}
