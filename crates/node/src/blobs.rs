//! The object store that this node writes files to: a folder, or whatever else the crate `object_store` was built for.
//!
//! Which files those are is decided at the doors. In a folder a file is synced, and the folders that lead to it, before it
//! counts as written; nodes of a cluster that are to share one need a folder that they share.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::port::{BlobStore, BoxFuture};
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt as _};

/// Scheme of a folder.
const FOLDER: &str = "file://";
/// Name of the folder inside the data directory that is used unless another is named.
const DEFAULT_FOLDER: &str = "objects";

/// The store of one node.
pub(crate) struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// The folder, if it is one.
    folder: Option<PathBuf>,
}

/// What is wrong with the address of a store, if anything is.
pub(crate) fn problem(url: &str) -> Option<String> {
    let is_known = url.strip_prefix(FOLDER).is_some_and(|path| path.starts_with('/'));
    (!is_known).then(|| "is file:// and a folder from the root on".to_owned())
}

impl Blobs {
    /// Opens the store at `url`, or the one inside `data`.
    pub(crate) fn open(url: Option<&str>, data: &Path) -> io::Result<Self> {
        let folder = match url.and_then(|url| url.strip_prefix(FOLDER)) {
            Some(folder) => PathBuf::from(folder),
            None => data.join(DEFAULT_FOLDER),
        };
        fs::create_dir_all(&folder)?;
        let store = LocalFileSystem::new_with_prefix(&folder).map_err(io::Error::other)?;
        Ok(Self {
            store: Arc::new(store),
            folder: Some(folder),
        })
    }
}

impl BlobStore for Blobs {
    fn put(&self, path: String, content: Bytes) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let at = StorePath::parse(&path).map_err(|error| format!("read path {path}: {error}"))?;
            let put = self.store.put(&at, content.into()).await;
            put.map_err(|error| format!("write {path}: {error}"))?;
            let Some(folder) = self.folder.clone() else {
                return Ok(());
            };
            let synced = tokio::task::spawn_blocking(move || sync(&folder, &path));
            let synced = synced.await.map_err(|error| format!("sync: {error}"))?;
            synced.map_err(|error| format!("sync: {error}"))
        })
    }
}

/// Syncs a file and every folder that leads to it.
fn sync(folder: &Path, path: &str) -> io::Result<()> {
    let file = folder.join(path);
    File::open(&file)?.sync_all()?;
    let above = file.ancestors().skip(1);
    for parent in above.take_while(|parent| parent.starts_with(folder)) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_written_whole_and_again() {
        let data = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(None, data.path()).expect("a store");
        let path = "cold/00003/2030/a.jsonl";
        for content in ["one", "two"] {
            let put = blobs
                .put(path.to_owned(), Bytes::from_static(content.as_bytes()))
                .await;
            assert_eq!(put, Ok(()));
            let read = fs::read_to_string(data.path().join("objects").join(path)).expect("the file");
            assert_eq!(read, content);
        }
        let outside = blobs.put("../x".to_owned(), Bytes::new()).await;
        assert!(outside.is_err(), "a path stays below the store");
    }

    #[test]
    fn addresses_are_of_folders() {
        assert_eq!(problem("file:///var/lib/dunlin"), None);
        for url in ["file://relative", "s3://bucket", "/var/lib", ""] {
            assert!(problem(url).is_some(), "{url}");
        }
    }
}
