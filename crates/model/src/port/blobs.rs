//! Where files go that the hub keeps for others: an object store. `node` implements it.

use bytes::Bytes;

use super::BoxFuture;

/// What a store says when something did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// No file of this name can be there: a part of its path is a file, or the path is a folder.
    #[error("a file stands where a folder would have to, or a folder where the file would")]
    InTheWay,
    /// The store has no room that it may use.
    #[error("there is no room to store more")]
    Full,
    /// The store does not do it now; why.
    #[error("{0}")]
    Failed(String),
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Where.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was written, milliseconds since 1970.
    pub modified_ms: u64,
    /// Tells it from what was there before, if the store knows.
    pub tag: Option<String>,
}

/// A file that is being written. Dropping it leaves what was there before.
pub trait BlobWrite: Send {
    /// Appends; waits while the store is behind, so that no more than a part of the file is in memory.
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), BlobError>>;

    /// The file is whole: it stands in place of one that is there, and outlives a power cut as far as the store promises
    /// that.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), BlobError>>;

    /// There will be no more: what was appended is thrown away.
    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// A file that is being read.
pub trait BlobRead: Send {
    /// The next bytes; `None` at the end.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, BlobError>>;
}

/// What is known of a file, and what reads it.
pub type FoundBlob = (BlobInfo, Box<dyn BlobRead>);

/// Keeps files by their paths, whose parts are separated by `/` and none of which is empty, `.` or `..`.
pub trait BlobStore: Send + Sync + 'static {
    /// Writes a file, whole or not at all, in place of one that is there; it outlives a power cut as far as the store
    /// promises that. `Err` says why it may not be there.
    fn put(&self, path: String, content: Bytes) -> BoxFuture<'_, Result<(), String>>;

    /// Begins to write a file bit by bit.
    fn write(&self, path: String) -> BoxFuture<'_, Result<Box<dyn BlobWrite>, BlobError>>;

    /// Begins to read a file, if it is there.
    fn read(&self, path: String) -> BoxFuture<'_, Result<Option<FoundBlob>, BlobError>>;

    /// What is known of a file, if it is there.
    fn info(&self, path: String) -> BoxFuture<'_, Result<Option<BlobInfo>, BlobError>>;

    /// Removes a file; none is as well.
    fn delete(&self, path: String) -> BoxFuture<'_, Result<(), BlobError>>;

    /// Files below a folder, in any order and `count_max` at the most; of those alone that were written before
    /// `before_ms`, if that is said.
    fn list(
        &self,
        folder: String,
        before_ms: Option<u64>,
        count_max: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobInfo>, BlobError>>;

    /// Removes what writes that came to no end have left behind before `before_ms`.
    fn sweep(&self, before_ms: u64) -> BoxFuture<'_, Result<(), BlobError>>;
}
