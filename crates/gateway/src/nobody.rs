//! An outside where nobody answers, and nothing is kept: for doors that are to ask nobody.

use bytes::Bytes;
use dunlin_model::port::{BlobStore, BoxFuture, Outbound, OutboundAnswer, OutboundCall};

/// Answers nothing.
pub(crate) struct Nobody;

impl Outbound for Nobody {
    fn call(&self, _call: OutboundCall) -> BoxFuture<'_, Result<OutboundAnswer, String>> {
        Box::pin(std::future::ready(Err("nobody is asked from here".to_owned())))
    }
}

impl BlobStore for Nobody {
    fn put(&self, _path: String, _content: Bytes) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Err("no files are kept here".to_owned())))
    }
}
