//! The logs of a sink: what has arrived, written and synced as so many nodes would.
//!
//! One batch is on its way at a time and the next gathers meanwhile, so that a sync is shared by all
//! that waited for it. A log that fails ends the sink; it never acknowledges what is not synced.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::{Notify, mpsc};

use super::super::packet;

/// Writes are padded to a multiple of this.
const BLOCK_BYTES: usize = 4096;
/// Batches that one log is behind at the most; the next is gathered meanwhile.
const BATCHES_QUEUED_MAX: usize = 1;

/// A connection, as far as the flushing task sees it.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) out: RefCell<Vec<u8>>,
    pub(super) wake: Notify,
    /// Whether it was woken for the batch that is being answered.
    touched: Cell<bool>,
}

/// What has arrived and is in no log yet.
#[derive(Default)]
pub(super) struct Gather {
    bytes: RefCell<Vec<u8>>,
    messages: RefCell<Vec<(Rc<Answers>, u8, u16)>>,
    wake: Notify,
}

impl Gather {
    /// Adds a message that is to be answered with `head` once it is durable.
    pub(super) fn add(&self, answers: &Rc<Answers>, (head, id): (u8, u16), bytes: &[u8]) {
        let mut messages = self.messages.borrow_mut();
        if messages.is_empty() {
            self.wake.notify_one();
        }
        messages.push((Rc::clone(answers), head, id));
        self.bytes.borrow_mut().extend_from_slice(bytes);
    }
}

/// The logs.
pub(super) struct Logs {
    logs: Vec<SyncSender<Arc<Vec<u8>>>>,
    finished: mpsc::Receiver<io::Result<()>>,
}

impl Logs {
    /// Makes `count` files full of zeros in `folder`, so that no write of theirs changes their size.
    pub(super) fn open(folder: &Path, count: usize, log_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (done, finished) = mpsc::channel(count);
        let logs = (0..count)
            .map(|log| start_log(&folder.join(format!("log-{log}")), log_bytes, done.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Self { logs, finished })
    }

    /// Hands everything that gathers to all logs, and acknowledges when all have synced it. Returns
    /// only with an error.
    pub(super) async fn flush(mut self, gather: &Gather) -> io::Result<()> {
        loop {
            if gather.messages.borrow().is_empty() {
                gather.wake.notified().await;
                continue;
            }
            let mut bytes = gather.bytes.take();
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
            let messages = gather.messages.take();
            let batch = Arc::new(bytes);
            let gone = || io::Error::other("a log has ended");
            for log in &self.logs {
                log.send(Arc::clone(&batch)).map_err(|_| gone())?;
            }
            for _ in &self.logs {
                self.finished.recv().await.ok_or_else(gone)??;
            }
            for (answers, head, id) in &messages {
                packet::push_answer(&mut answers.out.borrow_mut(), *head, *id);
                if !answers.touched.replace(true) {
                    answers.wake.notify_one();
                }
            }
            for (answers, ..) in &messages {
                answers.touched.set(false);
            }
        }
    }
}

fn start_log(
    path: &Path,
    log_bytes: u64,
    done: mpsc::Sender<io::Result<()>>,
) -> io::Result<SyncSender<Arc<Vec<u8>>>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < log_bytes {
        let bytes = (log_bytes - at).min(zeros.len() as u64) as usize;
        file.write_all_at(&zeros[..bytes], at)?;
        at += bytes as u64;
    }
    file.sync_data()?;
    let (sender, batches) = sync_channel::<Arc<Vec<u8>>>(BATCHES_QUEUED_MAX);
    std::thread::Builder::new().name("log".into()).spawn(move || {
        let mut at = 0;
        while let Ok(batch) = batches.recv() {
            let written = write(&file, (&mut at, log_bytes), &batch);
            if done.blocking_send(written).is_err() {
                return;
            }
        }
    })?;
    Ok(sender)
}

fn write(file: &File, (at, log_bytes): (&mut u64, u64), batch: &[u8]) -> io::Result<()> {
    if *at + batch.len() as u64 > log_bytes {
        *at = 0;
    }
    file.write_all_at(batch, *at)?;
    *at += batch.len() as u64;
    file.sync_data()
}
