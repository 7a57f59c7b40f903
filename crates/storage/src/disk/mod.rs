//! The file operations that storage needs, as a trait, so that a test can stand in for the disk.
//!
//! Paths are relative to one root, with `/` between names. The rules are those of Linux: bytes are
//! durable after [`DiskFile::sync_data`], names after [`Disk::sync_dir`] of their folder. Nothing
//! here retries. [`RealDisk`] is the kernel; [`faulty::FaultyDisk`] is memory that loses, tears and
//! refuses on demand.

use std::io;
use std::sync::Arc;

pub mod faulty;
mod real;

pub use real::RealDisk;

/// A tree of files under one root.
pub trait Disk: Send + Sync {
    /// Makes an empty file, or empties the one that is there, for reading and writing.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, replacing what had it. Open files stay open.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_dir(&self, path: &str) -> io::Result<()>;

    /// Names (without the folder) of files and folders in `folder`, sorted; empty text is the root.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Makes a folder and those above it, and makes their names durable.
    fn create_dir_all(&self, path: &str) -> io::Result<()>;

    /// Makes the names in `folder` durable.
    fn sync_dir(&self, folder: &str) -> io::Result<()>;

    /// Bytes that can still be written, as far as is known; without a limit, all there are.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Whether a file or folder has this name.
    fn exists(&self, path: &str) -> bool;
}

/// An open file. Offsets and lengths are in bytes.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. Durable only after [`sync_data`](Self::sync_data).
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything written so far durable, with the length of the file. After an error the
    /// unwritten bytes are lost for good: never call it again in the hope of another answer.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts the file, or grows it with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// The length.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is zero.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Reads exactly `buffer.len()` bytes at `offset`.
pub fn read_exact_at(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let count = file.read_at(buffer, offset)?;
    if count == buffer.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// The folder part of a path; empty for a name in the root.
pub fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Whether an error means that no room is left.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
