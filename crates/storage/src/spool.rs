//! A file for what a peer sends before any of it counts: written once, read from its beginning, then gone.
//!
//! Records are length and crc32c in front of bytes, so that memory holds one of them at a time and a bit
//! that flips between writing and reading is found. Nothing is synced: what a crash leaves is removed at
//! the next start ([`remove_leftovers`]). What the records say is the business of whoever spools them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dunlin_model::port::StoreError;

use crate::disk::{Disk, DiskFile, is_full, read_exact_at};

/// The folder of all spools on a disk.
const FOLDER: &str = "spool";
/// Length and checksum in front of each record.
const HEAD_BYTES: usize = 8;
/// A record is at most this long.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// Names of spools differ within a process; those of others are removed at start.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn refused(action: &'static str, error: io::Error) -> StoreError {
    if is_full(&error) {
        StoreError::Full(action.to_owned())
    } else {
        StoreError::io(action, error)
    }
}

/// Removes what a process that ended without a goodbye has left.
pub fn remove_leftovers(disk: &dyn Disk) -> Result<(), StoreError> {
    if !disk.exists(FOLDER) {
        return Ok(());
    }
    let names = disk.list(FOLDER).map_err(|error| refused("list spools", error))?;
    for name in names {
        disk.remove(&format!("{FOLDER}/{name}"))
            .map_err(|error| refused("remove spool", error))?;
    }
    Ok(())
}

/// Place and length are part of it: zeros would pass for empty records otherwise, and a record in another's
/// place for that one.
fn checksum(at: u64, record: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&at.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &(record.len() as u32).to_le_bytes());
    crc32c::crc32c_append(sum, record)
}

struct SpoolFile {
    disk: Arc<dyn Disk>,
    name: String,
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if let Err(error) = self.disk.remove(&self.name) {
            tracing::warn!(file = %self.name, %error, "cannot remove a spool; the next start will");
        }
    }
}

/// A spool that is being filled. Dropped before it is finished, it is gone.
pub struct SpoolWriter(SpoolFile);

impl SpoolWriter {
    /// Makes an empty spool.
    pub fn create(disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        disk.create_dir_all(FOLDER)
            .map_err(|error| refused("make spool folder", error))?;
        let name = format!("{FOLDER}/{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let file = disk.create(&name).map_err(|error| refused("make spool", error))?;
        Ok(Self(SpoolFile {
            disk,
            name,
            file,
            bytes: 0,
        }))
    }

    /// Adds a record, at most [`RECORD_BYTES_MAX`] long.
    pub fn put(&mut self, record: &[u8]) -> Result<(), StoreError> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(StoreError::io(
                "write spool",
                format!("record of {} bytes", record.len()),
            ));
        }
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&(record.len() as u32).to_le_bytes());
        let spool = &mut self.0;
        head[4..].copy_from_slice(&checksum(spool.bytes, record).to_le_bytes());
        let mut write = |bytes: &[u8]| {
            spool.file.write_at(bytes, spool.bytes)?;
            spool.bytes += bytes.len() as u64;
            Ok(())
        };
        write(&head)
            .and_then(|()| write(record))
            .map_err(|error| refused("write spool", error))
    }

    /// Nothing more is added.
    pub fn finish(self) -> Spool {
        Spool { spool: self.0, at: 0 }
    }
}

/// A spool that is read. Dropped, it is gone.
pub struct Spool {
    spool: SpoolFile,
    at: u64,
}

impl Spool {
    /// Reads from the beginning again.
    pub fn rewind(&mut self) {
        self.at = 0;
    }

    /// The next record; `None` after the last.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, StoreError> {
        let corrupt = |reason: &str| StoreError::Corrupt {
            what: self.spool.name.clone(),
            reason: reason.to_owned(),
        };
        if self.at == self.spool.bytes {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        read_exact_at(&*self.spool.file, &mut head, self.at).map_err(|error| refused("read spool", error))?;
        let field = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let (length, sum) = (field(0) as usize, field(4));
        if length > RECORD_BYTES_MAX {
            return Err(corrupt("a record is too long"));
        }
        let mut record = vec![0; length];
        read_exact_at(&*self.spool.file, &mut record, self.at + HEAD_BYTES as u64)
            .map_err(|error| refused("read spool", error))?;
        if checksum(self.at, &record) != sum {
            return Err(corrupt("a record does not match its checksum"));
        }
        self.at += (HEAD_BYTES + length) as u64;
        Ok(Some(record.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::faulty::FaultyDisk;

    #[test]
    fn records_are_read_as_often_as_wanted_and_leave_with_the_spool() {
        let disk = FaultyDisk::new();
        let mut writer = SpoolWriter::create(Arc::new(disk.clone())).unwrap();
        for record in ["one", "", "three"] {
            writer.put(record.as_bytes()).unwrap();
        }
        let mut spool = writer.finish();
        for _ in 0..2 {
            for record in ["one", "", "three"] {
                assert_eq!(spool.next_record().unwrap().unwrap(), record);
            }
            assert_eq!(spool.next_record().unwrap(), None);
            spool.rewind();
        }
        assert_eq!(disk.list(FOLDER).unwrap().len(), 1);
        drop(spool);
        assert_eq!(disk.used_bytes(), 0);
    }

    #[test]
    fn a_flipped_bit_is_found_and_a_full_disk_is_said() {
        let disk = FaultyDisk::new();
        let mut writer = SpoolWriter::create(Arc::new(disk.clone())).unwrap();
        writer.put(b"a record").unwrap();
        disk.set_capacity(Some(disk.used_bytes()));
        assert!(matches!(writer.put(b"more"), Err(StoreError::Full(_))));
        let mut spool = writer.finish();
        let name = format!("{FOLDER}/{}", disk.list(FOLDER).unwrap()[0]);
        for bit in 0..(HEAD_BYTES as u64 + 8) * 8 {
            disk.flip_bit(&name, bit);
            assert!(spool.next_record().is_err(), "bit {bit}");
            disk.flip_bit(&name, bit);
        }
        assert_eq!(spool.next_record().unwrap().unwrap(), "a record");
    }

    #[test]
    fn a_zeroed_page_is_no_empty_record() {
        let disk = FaultyDisk::new();
        let mut writer = SpoolWriter::create(Arc::new(disk.clone())).unwrap();
        writer.put(b"a record").unwrap();
        let name = format!("{FOLDER}/{}", disk.list(FOLDER).unwrap()[0]);
        let file = disk.open(&name).unwrap();
        file.write_at(&[0; HEAD_BYTES + 8], 0).unwrap();
        assert!(writer.finish().next_record().is_err());
    }

    #[test]
    fn what_a_crash_leaves_is_removed() {
        let disk = FaultyDisk::new();
        remove_leftovers(&disk).unwrap();
        let mut writer = SpoolWriter::create(Arc::new(disk.clone())).unwrap();
        writer.put(b"half of it").unwrap();
        std::mem::forget(writer);
        assert_ne!(disk.used_bytes(), 0);
        remove_leftovers(&disk).unwrap();
        assert_eq!(disk.used_bytes(), 0);
    }
}
