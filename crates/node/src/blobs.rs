//! The object store that this node writes files to: a folder, or a store in a cloud if it was built for that.
//!
//! Which files those are is decided at the doors. In a folder a file is synced, and the folders that lead to it, before it
//! counts as written; nodes of a cluster that are to share one need a folder that they share. Files are written bit by bit
//! in [`folder`] and [`parts`]; addresses of clouds are read in `cloud`.

#[cfg(feature = "cloud")]
mod cloud;
mod folder;
#[cfg(any(test, feature = "cloud"))]
mod parts;
#[cfg(test)]
mod tests;

use std::error::Error as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::port::{BlobError, BlobInfo, BlobRead, BlobStore, BlobWrite, BoxFuture, FoundBlob};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{Error, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt as _};

use folder::{FolderRead, FolderWrite};

/// Scheme of a folder.
const FOLDER: &str = "file://";
/// Schemes of stores in a cloud.
const CLOUDS: [&str; 3] = ["s3://", "az://", "gs://"];
/// Name of the folder inside the data directory that is used unless another is named.
const DEFAULT_FOLDER: &str = "objects";

/// The store of one node.
pub(crate) struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// The folder, if it is one.
    folder: Option<Folder>,
}

struct Folder {
    path: PathBuf,
    /// Knows which file a path is.
    files: Arc<LocalFileSystem>,
    /// Bytes of its file system that stay free.
    reserve_bytes: u64,
}

/// What is wrong with the address of a store, if anything is.
pub(crate) fn problem(url: &str) -> Option<String> {
    if let Some(path) = url.strip_prefix(FOLDER) {
        let is_whole = path.starts_with('/');
        return (!is_whole).then(|| "is file:// and a folder from the root on".to_owned());
    }
    let Some(rest) = CLOUDS.iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        return Some("is file:// and a folder, or s3://, az:// or gs:// and a container".to_owned());
    };
    if rest.is_empty() || rest.starts_with('/') {
        return Some("names no container".to_owned());
    }
    match cfg!(feature = "cloud") {
        true => None,
        false => Some("needs a program that was built with `--features cloud`".to_owned()),
    }
}

impl Blobs {
    /// Opens the store at `url`, or the one inside `data`.
    pub(crate) fn open(url: Option<&str>, data: &Path) -> io::Result<Self> {
        match url {
            None => Self::open_folder(data.join(DEFAULT_FOLDER)),
            Some(url) => match url.strip_prefix(FOLDER) {
                Some(folder) => Self::open_folder(PathBuf::from(folder)),
                None => Self::open_cloud(url, &[]),
            },
        }
    }

    fn open_folder(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        // As the store spells it, so that every file in it begins with it.
        let path = path.canonicalize()?;
        // It may be new; what is written in it syncs no folder above it.
        if let Some(above) = path.parent() {
            File::open(above)?.sync_all()?;
        }
        let files = LocalFileSystem::new_with_prefix(&path).map_err(io::Error::other)?;
        let files = Arc::new(files.with_automatic_cleanup(true));
        Ok(Self {
            store: files.clone(),
            folder: Some(Folder {
                path,
                files,
                reserve_bytes: folder::DISK_RESERVE_BYTES,
            }),
        })
    }

    #[cfg(feature = "cloud")]
    fn open_cloud(url: &str, said: &[(&str, &str)]) -> io::Result<Self> {
        Ok(Self {
            store: cloud::open(url, said).map_err(io::Error::other)?,
            folder: None,
        })
    }

    /// Configurations that ask for it are refused before.
    #[cfg(not(feature = "cloud"))]
    fn open_cloud(url: &str, _said: &[(&str, &str)]) -> io::Result<Self> {
        Err(io::Error::other(problem(url).unwrap_or_default()))
    }

    fn writer(&self, path: &str) -> Result<Writer, BlobError> {
        let at = parse(path)?;
        let Some(folder) = &self.folder else {
            return Ok(Writer::Store(at));
        };
        let to = folder.files.path_to_filesystem(&at).map_err(failed)?;
        Ok(Writer::Folder(folder.path.clone(), to, folder.reserve_bytes))
    }
}

/// Where a file is going to be.
enum Writer {
    /// The folder, the file, and the bytes that stay free.
    Folder(PathBuf, PathBuf, u64),
    Store(StorePath),
}

impl BlobStore for Blobs {
    fn put(&self, path: String, content: Bytes) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let at = StorePath::parse(&path).map_err(|error| format!("read path {path}: {error}"))?;
            if let Some(folder) = &self.folder {
                let room = folder::check_room(&folder.path, folder.reserve_bytes).await;
                room.map_err(|error| format!("write {path}: {error}"))?;
            }
            let put = self.store.put(&at, content.into()).await;
            put.map_err(|error| format!("write {path}: {error}"))?;
            let Some(folder) = &self.folder else {
                return Ok(());
            };
            let file = folder.files.path_to_filesystem(&at);
            let file = file.map_err(|error| format!("read path {path}: {error}"))?;
            let folder = folder.path.clone();
            let synced = tokio::task::spawn_blocking(move || {
                File::open(&file)?.sync_all()?;
                folder::sync_folders(&folder, &file)
            });
            let synced = synced.await.map_err(|error| format!("sync: {error}"))?;
            synced.map_err(|error| format!("sync: {error}"))
        })
    }

    fn write(&self, path: String) -> BoxFuture<'_, Result<Box<dyn BlobWrite>, BlobError>> {
        Box::pin(async move {
            Ok(match self.writer(&path)? {
                Writer::Folder(folder, to, reserve_bytes) => {
                    Box::new(FolderWrite::begin(folder, to, reserve_bytes).await?) as Box<dyn BlobWrite>
                }
                #[cfg(any(test, feature = "cloud"))]
                Writer::Store(at) => Box::new(parts::PartsWrite::begin(self.store.clone(), at)),
                #[cfg(not(any(test, feature = "cloud")))]
                Writer::Store(at) => return Err(BlobError::Failed(format!("{at} is in no folder"))),
            })
        })
    }

    fn read(&self, path: String) -> BoxFuture<'_, Result<Option<FoundBlob>, BlobError>> {
        Box::pin(async move {
            let at = parse(&path)?;
            let Some(found) = absent_is_none(self.store.get(&at).await)? else {
                return Ok(None);
            };
            let info = info_of(path, &found.meta);
            let read: Box<dyn BlobRead> = match found.payload {
                GetResultPayload::File(file, _) => Box::new(FolderRead(Some(file))),
                GetResultPayload::Stream(stream) => Box::new(StreamRead(stream)),
            };
            Ok(Some((info, read)))
        })
    }

    fn info(&self, path: String) -> BoxFuture<'_, Result<Option<BlobInfo>, BlobError>> {
        Box::pin(async move {
            let at = parse(&path)?;
            let found = absent_is_none(self.store.head(&at).await)?;
            Ok(found.map(|meta| info_of(path, &meta)))
        })
    }

    fn delete(&self, path: String) -> BoxFuture<'_, Result<(), BlobError>> {
        Box::pin(async move {
            let at = parse(&path)?;
            absent_is_none(self.store.delete(&at).await).map(|_| ())
        })
    }

    fn list(
        &self,
        folder: String,
        before_ms: Option<u64>,
        count_max: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobInfo>, BlobError>> {
        Box::pin(async move {
            let below = parse(&folder)?;
            let mut listed = self.store.list(Some(&below));
            let mut found = Vec::new();
            while found.len() < count_max
                && let Some(one) = listed.next().await
            {
                let Some(meta) = absent_is_none(one)? else {
                    continue;
                };
                let info = info_of(meta.location.as_ref().to_owned(), &meta);
                if before_ms.is_none_or(|before_ms| info.modified_ms < before_ms) {
                    found.push(info);
                }
            }
            Ok(found)
        })
    }

    fn sweep(&self, before_ms: u64) -> BoxFuture<'_, Result<(), BlobError>> {
        match &self.folder {
            Some(folder) => Box::pin(folder::sweep(folder.path.clone(), before_ms)),
            // A cloud has rules of its own for parts that belong to no file.
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }
}

/// A file in a cloud that is being read.
struct StreamRead(BoxStream<'static, object_store::Result<Bytes>>);

impl BlobRead for StreamRead {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, BlobError>> {
        Box::pin(async move { self.0.next().await.transpose().map_err(failed) })
    }
}

fn parse(path: &str) -> Result<StorePath, BlobError> {
    StorePath::parse(path).map_err(|error| BlobError::Failed(error.to_string()))
}

/// Under a prefix a store calls a file by all of its path where it tells of that one file.
fn info_of(path: String, meta: &ObjectMeta) -> BlobInfo {
    BlobInfo {
        path,
        bytes: meta.size,
        modified_ms: u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0),
        tag: meta.e_tag.as_deref().map(|tag| tag.trim_matches('"').to_owned()),
    }
}

fn failed(error: Error) -> BlobError {
    match io_error(&error) {
        Some(io) => folder::blob_error(io),
        None => BlobError::Failed(error.to_string()),
    }
}

/// What the file system said, if it was one.
fn io_error(error: &Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

/// What is not there, or could not be there because a file stands in its way, is none.
fn absent_is_none<T>(found: object_store::Result<T>) -> Result<Option<T>, BlobError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => match io_error(&error).map(io::Error::kind) {
            Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            _ => Err(failed(error)),
        },
    }
}
