//! An outside where nobody answers, and nothing is kept: for doors that are to ask nobody.

use bytes::Bytes;
use dunlin_model::port::{
    BlobError, BlobInfo, BlobStore, BlobWrite, BoxFuture, FoundBlob, Outbound, OutboundAnswer, OutboundCall,
};

/// Answers nothing.
pub(crate) struct Nobody;

impl Outbound for Nobody {
    fn call(&self, _call: OutboundCall) -> BoxFuture<'_, Result<OutboundAnswer, String>> {
        Box::pin(std::future::ready(Err("nobody is asked from here".to_owned())))
    }
}

const NO_FILES: &str = "no files are kept here";

fn no_files<T: Send + 'static>() -> BoxFuture<'static, Result<T, BlobError>> {
    Box::pin(std::future::ready(Err(BlobError::Failed(NO_FILES.to_owned()))))
}

impl BlobStore for Nobody {
    fn put(&self, _path: String, _content: Bytes) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Err(NO_FILES.to_owned())))
    }

    fn write(&self, _path: String) -> BoxFuture<'_, Result<Box<dyn BlobWrite>, BlobError>> {
        no_files()
    }

    fn read(&self, _path: String) -> BoxFuture<'_, Result<Option<FoundBlob>, BlobError>> {
        no_files()
    }

    fn info(&self, _path: String) -> BoxFuture<'_, Result<Option<BlobInfo>, BlobError>> {
        no_files()
    }

    fn delete(&self, _path: String) -> BoxFuture<'_, Result<(), BlobError>> {
        no_files()
    }

    fn list(
        &self,
        _folder: String,
        _before_ms: Option<u64>,
        _count_max: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobInfo>, BlobError>> {
        no_files()
    }

    fn sweep(&self, _before_ms: u64) -> BoxFuture<'_, Result<(), BlobError>> {
        no_files()
    }
}
