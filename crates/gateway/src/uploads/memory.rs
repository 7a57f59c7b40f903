//! An object store in memory, for tests: of this crate, and of the doors.

// Each of them needs a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use dunlin_model::port::{BlobError, BlobInfo, BlobRead, BlobStore, BlobWrite, BoxFuture, FoundBlob};

type Files = BTreeMap<String, (Bytes, u64)>;

/// Clones are the same store.
#[derive(Clone, Default)]
pub(crate) struct MemoryBlobs {
    files: Arc<Mutex<Files>>,
    now_ms: Arc<AtomicU64>,
    fails: Arc<AtomicBool>,
    stuck: Arc<Mutex<Option<String>>>,
}

impl MemoryBlobs {
    fn lock(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When files are written from now on.
    pub(crate) fn set_now(&self, ms: u64) {
        self.now_ms.store(ms, SeqCst);
    }

    /// Nothing works from now on, or it does again.
    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, SeqCst);
    }

    /// Files whose path begins so cannot be removed from now on, or all can be.
    pub(crate) fn stick(&self, path: Option<&str>) {
        *self.stuck.lock().unwrap_or_else(PoisonError::into_inner) = path.map(str::to_owned);
    }

    /// What there is.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// A file.
    pub(crate) fn get(&self, path: &str) -> Option<Bytes> {
        self.lock().get(path).map(|(content, _)| content.clone())
    }

    /// Takes everything out.
    pub(crate) fn take_all(&self) -> BTreeMap<String, Bytes> {
        let all = std::mem::take(&mut *self.lock());
        all.into_iter()
            .map(|(path, (content, _))| (path, content))
            .collect()
    }

    fn insert(&self, path: String, content: Bytes) {
        let now_ms = self.now_ms.load(SeqCst);
        self.lock().insert(path, (content, now_ms));
    }

    fn check(&self) -> Result<(), BlobError> {
        match self.fails.load(SeqCst) {
            true => Err(BlobError::Failed("a test".to_owned())),
            false => Ok(()),
        }
    }
}

fn info(path: &str, (content, modified_ms): &(Bytes, u64)) -> BlobInfo {
    BlobInfo {
        path: path.to_owned(),
        bytes: content.len() as u64,
        modified_ms: *modified_ms,
        tag: None,
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

struct Write(MemoryBlobs, String, BytesMut);

impl BlobWrite for Write {
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), BlobError>> {
        self.2.extend_from_slice(&bytes);
        ready(self.0.check())
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), BlobError>> {
        let checked = self.0.check();
        if checked.is_ok() {
            self.0.insert(self.1.clone(), self.2.freeze());
        }
        ready(checked)
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        ready(())
    }
}

struct Read(Bytes);

impl BlobRead for Read {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, BlobError>> {
        let piece = self.0.split_to(self.0.len().min(1000));
        ready(Ok((!piece.is_empty()).then_some(piece)))
    }
}

impl BlobStore for MemoryBlobs {
    fn put(&self, path: String, content: Bytes) -> BoxFuture<'_, Result<(), String>> {
        let checked = self.check().map_err(|error| error.to_string());
        if checked.is_ok() {
            self.insert(path, content);
        }
        ready(checked)
    }

    fn write(&self, path: String) -> BoxFuture<'_, Result<Box<dyn BlobWrite>, BlobError>> {
        let is_in_the_way = |other: &String| path.starts_with(&format!("{other}/"));
        let begun = match self.lock().keys().any(is_in_the_way) {
            true => Err(BlobError::InTheWay),
            false => self.check(),
        };
        let write = Write(self.clone(), path, BytesMut::new());
        ready(begun.map(|()| Box::new(write) as Box<dyn BlobWrite>))
    }

    fn read(&self, path: String) -> BoxFuture<'_, Result<Option<FoundBlob>, BlobError>> {
        let found = self.lock().get(&path).cloned();
        let read = found.map(|file| {
            let read = Box::new(Read(file.0.clone())) as Box<dyn BlobRead>;
            (info(&path, &file), read)
        });
        ready(self.check().map(|()| read))
    }

    fn info(&self, path: String) -> BoxFuture<'_, Result<Option<BlobInfo>, BlobError>> {
        let found = self.lock().get(&path).map(|file| info(&path, file));
        ready(self.check().map(|()| found))
    }

    fn delete(&self, path: String) -> BoxFuture<'_, Result<(), BlobError>> {
        let stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        let checked = match stuck.as_ref().is_some_and(|stuck| path.starts_with(stuck)) {
            true => Err(BlobError::Failed("it is stuck".to_owned())),
            false => self.check(),
        };
        if checked.is_ok() {
            self.lock().remove(&path);
        }
        ready(checked)
    }

    fn list(
        &self,
        folder: String,
        before_ms: Option<u64>,
        count_max: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobInfo>, BlobError>> {
        let below = format!("{folder}/");
        let files = self.lock();
        let found = files
            .iter()
            .filter(|(path, (_, ms))| path.starts_with(&below) && before_ms.is_none_or(|before| *ms < before))
            .map(|(path, file)| info(path, file))
            .take(count_max)
            .collect();
        ready(self.check().map(|()| found))
    }

    fn sweep(&self, _before_ms: u64) -> BoxFuture<'_, Result<(), BlobError>> {
        ready(self.check())
    }
}
