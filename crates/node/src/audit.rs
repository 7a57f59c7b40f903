//! The audit: one line of JSON per security-relevant action, in order, each with the hash of the line
//! before, in `audit.log` of the data directory.
//!
//! Decides how much of a flood of refusals is kept, when a record counts as kept (synced to disk), and
//! nothing about the actions themselves. The file is in [`chain`], the bound on floods in [`gate`]. The
//! chain shows that lines were changed or taken out, to whoever knows a later line; it does not stop a
//! person who may write the whole file.

mod chain;
mod gate;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_model::audit::AuditRecord;
use dunlin_model::id::NodeId;
use dunlin_model::port::{AuditSink, BoxFuture, Clock};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use chain::{Broken, Extent, Mark, files_of, in_order, verify, verify_files};
use chain::{Chain, line_of};
use gate::Gate;

/// Name of the file in the data directory; older ones are `audit.log.1` and up.
pub const AUDIT_FILE: &str = "audit.log";
/// Records that wait for the disk. Actions wait beyond it, refusals are counted.
const RECORDS_WAITING_MAX: usize = 1_024;
/// Records of one write and one sync.
const RECORDS_PER_WRITE_MAX: usize = 256;
/// Time after which refusals that were only counted are recorded as a number.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// Opens the audit at `path` as a start does, and appends one record.
#[cfg(test)]
pub(crate) fn chain_appended(path: &Path, record: &AuditRecord, node: &str) -> std::io::Result<()> {
    Chain::open(path)?.append(vec![line_of(record, node, 0)])
}

struct Waiting {
    line: chain::Line,
    kept: Option<oneshot::Sender<()>>,
}

struct Shared {
    node: String,
    clock: Arc<dyn Clock>,
    gate: Mutex<Gate>,
    records: AtomicU64,
    lost: AtomicU64,
    is_failing: AtomicBool,
}

/// The audit of one node.
pub(crate) struct Audit {
    shared: Arc<Shared>,
    queue: Mutex<Option<mpsc::Sender<Waiting>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Audit {
    /// Goes on with the file in `folder`. Writes on the current runtime.
    pub(crate) fn open(folder: &Path, node: NodeId, clock: Arc<dyn Clock>) -> std::io::Result<Arc<Self>> {
        let chain = Chain::open(&folder.join(AUDIT_FILE))?;
        let shared = Arc::new(Shared {
            node: node.to_string(),
            gate: Mutex::new(Gate::new(clock.monotonic_ms())),
            clock,
            records: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
        });
        let (sender, queue) = mpsc::channel(RECORDS_WAITING_MAX);
        let writer = tokio::spawn(write(chain, queue, shared.clone()));
        Ok(Arc::new(Self {
            shared,
            queue: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// Records kept since start.
    pub(crate) fn records(&self) -> u64 {
        self.shared.records.load(Relaxed)
    }

    /// Records that could not be written since start.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }

    /// Refusals that were counted and not recorded one by one, since start.
    pub(crate) fn suppressed(&self) -> u64 {
        self.shared.lock_gate().suppressed()
    }

    /// Whether the last write failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.shared.is_failing.load(Relaxed)
    }

    /// Takes nothing more in, and returns when what was taken in is on disk.
    pub(crate) async fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.await;
        }
    }

    fn sender(&self) -> Option<mpsc::Sender<Waiting>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn lock_gate(&self) -> std::sync::MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, record: &AuditRecord) -> chain::Line {
        line_of(record, &self.node, self.clock.wall_ms())
    }
}

impl AuditSink for Audit {
    fn record(&self, record: AuditRecord) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (kept, told) = oneshot::channel();
            let line = self.shared.line(&record);
            let waiting = Waiting {
                line,
                kept: Some(kept),
            };
            let is_taken = match self.sender() {
                Some(sender) => sender.send(waiting).await.is_ok(),
                None => false,
            };
            if !is_taken || told.await.is_err() {
                self.shared.lost.fetch_add(1, Relaxed);
                tracing::error!(?record, "keep audit record: the audit is closed");
            }
        })
    }

    fn refused(&self, record: AuditRecord) {
        let passes = self.shared.lock_gate().handle(self.shared.clock.monotonic_ms());
        let line = self.shared.line(&record);
        let is_taken = passes
            && self
                .sender()
                .is_some_and(|sender| sender.try_send(Waiting { line, kept: None }).is_ok());
        if passes && !is_taken {
            self.shared.lock_gate().handle_full();
        }
    }
}

/// Writes what waits, as much as there is at once, until the queue is closed.
async fn write(mut chain: Chain, mut queue: mpsc::Receiver<Waiting>, shared: Arc<Shared>) {
    let mut counting = tokio::time::interval(COUNT_EVERY);
    loop {
        let mut batch = Vec::new();
        let is_open = tokio::select! {
            taken = queue.recv_many(&mut batch, RECORDS_PER_WRITE_MAX) => taken > 0,
            _ = counting.tick() => true,
        };
        if batch.is_empty() {
            let count = shared.lock_gate().take_count();
            if count > 0 {
                let what = format!("{count} more");
                let record = AuditRecord::refused("refusals.counted", "", what, "too many to record each");
                batch.push(Waiting {
                    line: shared.line(&record),
                    kept: None,
                });
            }
        }
        if !batch.is_empty() {
            chain = write_batch(chain, batch, &shared).await;
        }
        if !is_open {
            return;
        }
    }
}

async fn write_batch(chain: Chain, batch: Vec<Waiting>, shared: &Shared) -> Chain {
    let (lines, waiters): (Vec<_>, Vec<_>) = batch.into_iter().map(|w| (w.line, w.kept)).unzip();
    let count = lines.len() as u64;
    let mut chain = chain;
    let written = tokio::task::spawn_blocking(move || {
        let result = chain.append(lines);
        (chain, result)
    });
    let (chain, result) = match written.await {
        Ok(written) => written,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    match result {
        Ok(()) => {
            shared.records.fetch_add(count, Relaxed);
            shared.is_failing.store(false, Relaxed);
        }
        Err(error) => {
            shared.lost.fetch_add(count, Relaxed);
            if !shared.is_failing.swap(true, Relaxed) {
                tracing::error!(%error, "write audit records: they are lost until there is room again");
            }
        }
    }
    // The action has happened either way, and its answer is owed; health says that the audit fails.
    for waiter in waiters.into_iter().flatten() {
        let _ = waiter.send(());
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn an_action_is_on_disk_when_its_record_is_kept_and_a_flood_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path(), NodeId(7), Arc::new(SystemClock::new())).unwrap();
        let path = folder.path().join(AUDIT_FILE);
        audit
            .record(AuditRecord::done("device.create", "admin", "d"))
            .await;
        assert_eq!(verify(&path).unwrap(), 1, "it is there before anybody is told");
        for _ in 0..10_000 {
            let why = "the token has expired";
            audit.refused(AuditRecord::refused("mqtt.connect", "d", "session", why));
        }
        assert!(audit.suppressed() > 9_000);
        audit
            .record(AuditRecord::done("device.delete", "admin", "d"))
            .await;
        audit.close().await;
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let of = |action: &str| lines.iter().filter(|line| line["action"] == action).count() as u64;
        assert_eq!((of("device.create"), of("device.delete")), (1, 1));
        assert_eq!(of("mqtt.connect") + audit.suppressed(), 10_000);
        assert_eq!(of("refusals.counted"), 1, "{text}");
        assert_eq!(verify(&path).unwrap(), lines.len() as u64);
        assert_eq!(audit.lost(), 0);
    }
}
