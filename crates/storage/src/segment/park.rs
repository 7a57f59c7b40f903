//! The open block on disk, beside the segments: so that a few events of a quiet group do not keep the journal
//! from being used again.
//!
//! Only a full block or a replicated seal may end a block, since segments are the same bytes on every replica.
//! Until then its runs are in memory, and the journal must keep their entries, unless they are here. A parked
//! block is replaced as a whole and never counts against a segment: one that was closed meanwhile is stale.

use std::io;

use dunlin_model::port::{EventRun, StoreError};

use super::format;
use super::open::Start;
use crate::disk::{Disk, read_exact_at};

/// The longest file that is read: a block that does not compress, and one run more than fits.
const FILE_BYTES_MAX: u64 = 64 << 20;

fn name(start: &Start) -> String {
    format!("{:08}-open.blk", start.generation)
}

/// Whether a file of this name is the parked block of the log that begins at `start`.
pub(super) fn is_name(start: &Start, candidate: &str) -> bool {
    candidate == name(start)
}

/// Puts `runs`, at least one, in the place of what was parked. Durable on return; after a crash the old or the
/// new block is there.
pub(super) fn save(disk: &dyn Disk, folder: &str, start: &Start, runs: &[EventRun]) -> io::Result<()> {
    let path = format!("{folder}/{}", name(start));
    let temporary = format!("{path}.tmp");
    let (_, block) = format::encode_block(runs, 0);
    let file = disk.create(&temporary)?;
    file.write_at(&block, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, &path)?;
    disk.sync_dir(folder)
}

/// What was parked, if anything was.
pub(super) fn load(disk: &dyn Disk, folder: &str, start: &Start) -> Result<Vec<EventRun>, StoreError> {
    let path = format!("{folder}/{}", name(start));
    if !disk.exists(&path) {
        return Ok(Vec::new());
    }
    let io = |error| StoreError::io("read parked events", error);
    let corrupt = |reason: &str| StoreError::Corrupt {
        what: path.clone(),
        reason: reason.to_owned(),
    };
    let file = disk.open(&path).map_err(io)?;
    let length = file.len().map_err(io)?;
    if length > FILE_BYTES_MAX {
        return Err(corrupt("it is too long"));
    }
    let mut bytes = vec![0; length as usize];
    read_exact_at(&*file, &mut bytes, 0).map_err(io)?;
    let meta = format::check_block(&bytes, 0).map_err(corrupt)?;
    format::decode_block(&bytes, &meta).map_err(corrupt)
}

/// Removes what was parked, if anything was.
pub(super) fn remove(disk: &dyn Disk, folder: &str, start: &Start) -> io::Result<()> {
    let path = format!("{folder}/{}", name(start));
    match disk.exists(&path) {
        true => disk.remove(&path),
        false => Ok(()),
    }
}
