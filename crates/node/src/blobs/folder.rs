//! Files of a store that is a folder, as they are written and read bit by bit.
//!
//! A file is written beside the others under a name that nobody asks for, synced, and put in its place at once, with the
//! folders that lead to it. What a node leaves behind that is killed meanwhile is swept.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use dunlin_model::port::{BlobError, BlobRead, BlobWrite, BoxFuture};

/// Folder of files that are being written, below the store's own.
pub(super) const WRITING: &str = ".writing";
/// Bytes that are written, and read, at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes of its file system that a folder leaves free. The default folder lies on the disk of the journal, which refuses
/// everything when less than 128 MiB are free (`cluster::room`): files stop well before.
pub(super) const DISK_RESERVE_BYTES: u64 = 512 * 1024 * 1024;
/// Bytes of one file between two looks at the disk. 32 bodies that come at a time write 128 MiB in between, a third of
/// what lies between the two reserves.
const LOOK_EVERY_BYTES: usize = 4 * 1024 * 1024;
/// Times that a folder is made which somebody else removes meanwhile because it is empty.
const FOLDER_ATTEMPTS_MAX: usize = 16;

/// A file that is being written.
pub(super) struct FolderWrite {
    folder: PathBuf,
    to: PathBuf,
    unnamed: Unnamed,
    /// Taken while it is written to.
    file: Option<File>,
    buffer: BytesMut,
    /// Bytes that the file system leaves free.
    reserve_bytes: u64,
    /// Bytes written since the last look at it.
    unlooked_bytes: usize,
}

/// The file as long as it is not in its place. It goes unless it gets there.
struct Unnamed(PathBuf);

impl Drop for Unnamed {
    fn drop(&mut self) {
        // Usually it is gone already, to its place.
        let _ = fs::remove_file(&self.0);
    }
}

impl FolderWrite {
    /// Begins to write the file `to` in `folder`.
    pub(super) async fn begin(folder: PathBuf, to: PathBuf, reserve_bytes: u64) -> Result<Self, BlobError> {
        check_room(&folder, reserve_bytes).await?;
        let name = format!("{:032x}", rand::random::<u128>());
        let path = folder.join(WRITING).join(name);
        let (unnamed, file) = blocking(move || {
            let file = within_folder(&path, || File::create_new(&path))?;
            Ok((Unnamed(path), file))
        })
        .await?;
        Ok(Self {
            folder,
            to,
            unnamed,
            file: Some(file),
            buffer: BytesMut::new(),
            reserve_bytes,
            unlooked_bytes: 0,
        })
    }

    /// Another reserve from now on.
    #[cfg(test)]
    pub(super) fn set_reserve(&mut self, bytes: u64) {
        self.reserve_bytes = bytes;
    }

    async fn flush(&mut self) -> Result<(), BlobError> {
        let chunk = self.buffer.split().freeze();
        self.unlooked_bytes += chunk.len();
        if self.unlooked_bytes >= LOOK_EVERY_BYTES {
            self.unlooked_bytes = 0;
            check_room(&self.folder, self.reserve_bytes).await?;
        }
        let Some(mut file) = self.file.take() else {
            return Err(BlobError::Failed("an earlier write has failed".to_owned()));
        };
        let file = blocking(move || {
            file.write_all(&chunk)?;
            Ok(file)
        });
        self.file = Some(file.await?);
        Ok(())
    }
}

impl BlobWrite for FolderWrite {
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), BlobError>> {
        Box::pin(async move {
            self.buffer.extend_from_slice(&bytes);
            match self.buffer.len() < CHUNK_BYTES {
                true => Ok(()),
                false => self.flush().await,
            }
        })
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<(), BlobError>> {
        Box::pin(async move {
            self.flush().await?;
            let Self {
                folder,
                to,
                unnamed,
                file,
                ..
            } = *self;
            blocking(move || {
                if let Some(file) = file {
                    file.sync_all()?;
                }
                within_folder(&to, || fs::rename(&unnamed.0, &to))?;
                sync_folders(&folder, &to)
            })
            .await
        })
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        drop(self);
        Box::pin(std::future::ready(()))
    }
}

/// A file that is being read.
pub(super) struct FolderRead(pub(super) Option<File>);

impl BlobRead for FolderRead {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, BlobError>> {
        Box::pin(async move {
            let Some(file) = self.0.take() else {
                return Ok(None);
            };
            let (file, chunk) = blocking(move || {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES);
                let mut part = file.take(CHUNK_BYTES as u64);
                part.read_to_end(&mut chunk)?;
                Ok((part.into_inner(), chunk))
            })
            .await?;
            if chunk.is_empty() {
                return Ok(None);
            }
            self.0 = Some(file);
            Ok(Some(chunk.into()))
        })
    }
}

/// Whether the file system of `folder` has more free than is to be left so.
pub(super) async fn check_room(folder: &Path, reserve_bytes: u64) -> Result<(), BlobError> {
    let folder = folder.to_owned();
    let free_bytes = blocking(move || {
        let found = rustix::fs::statvfs(&folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    });
    match free_bytes.await? < reserve_bytes {
        true => Err(BlobError::Full),
        false => Ok(()),
    }
}

/// Does something where it may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| blob_error(&error)),
        Err(error) => Err(BlobError::Failed(error.to_string())),
    }
}

/// How an error of a file system is called.
pub(super) fn blob_error(error: &io::Error) -> BlobError {
    match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::DirectoryNotEmpty => {
            BlobError::InTheWay
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BlobError::Full,
        // Where a folder is to be made.
        io::ErrorKind::AlreadyExists => BlobError::InTheWay,
        _ => BlobError::Failed(error.to_string()),
    }
}

/// Does something with `file`, and makes its folder where there is none: folders that are empty go with their last file.
fn within_folder<T>(file: &Path, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut done = work();
    for _ in 0..FOLDER_ATTEMPTS_MAX {
        match &done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => break,
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        done = work();
    }
    done
}

/// Syncs every folder that leads to `file`.
pub(super) fn sync_folders(folder: &Path, file: &Path) -> io::Result<()> {
    let above = file.ancestors().skip(1);
    for parent in above.take_while(|parent| parent.starts_with(folder)) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Removes files that somebody began to write before `before_ms` and left.
pub(super) async fn sweep(folder: PathBuf, before_ms: u64) -> Result<(), BlobError> {
    blocking(move || {
        let entries = match fs::read_dir(folder.join(WRITING)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        // One that cannot be looked at keeps none of the others.
        for entry in entries.flatten() {
            // One that is gone meanwhile is as well.
            let modified = entry.metadata().and_then(|found| found.modified());
            if modified.is_ok_and(|modified| to_ms(modified) < before_ms) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    })
    .await
}

fn to_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
