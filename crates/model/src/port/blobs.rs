//! Where files go that the hub keeps for others: an object store. `node` implements it.

use bytes::Bytes;

use super::BoxFuture;

/// Keeps files by their paths, whose parts are separated by `/` and none of which is empty or `..`.
pub trait BlobStore: Send + Sync + 'static {
    /// Writes a file, whole or not at all, in place of one that is there; it outlives a power cut as far as the store
    /// promises that. `Err` says why it may not be there.
    fn put(&self, path: String, content: Bytes) -> BoxFuture<'_, Result<(), String>>;
}
