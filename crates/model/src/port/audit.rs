//! Where the records of security-relevant actions go. `node` keeps them in a file.

use super::BoxFuture;
use crate::audit::AuditRecord;

/// Keeps records in the order of the calls.
pub trait AuditSink: Send + Sync + 'static {
    /// Of an action. Resolves when the record is on disk, or has been given up and counted as lost; an
    /// answer that tells of the action waits for it.
    fn record(&self, record: AuditRecord) -> BoxFuture<'_, ()>;

    /// Of somebody who was turned away. Never waits. In a flood some are only counted, and their
    /// number is recorded.
    fn refused(&self, record: AuditRecord);
}
