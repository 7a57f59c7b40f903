//! Writes down what happens while it happens: the history, the operations, what the nodes use.
//!
//! Once a second, and at the end of an epoch for good (synced). Decides nothing.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::folder::Folder;
use super::journal::Lines;
use crate::faults::{Field, processes};
use crate::invariants::bounded::Sample;
use crate::record::Recorder;
use crate::waiting::Waiting;
use crate::workload::access::Access;
use crate::workload::exchange::Exchange;
use crate::workload::operation::Operation;
use crate::workload::sight::Sight;
use crate::workload::step::Step;

/// Between two samples.
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

struct Books {
    history: Lines,
    operations: Lines,
    accesses: Lines,
    exchanges: Lines,
    steps: Lines,
    sights: Lines,
    samples: Lines,
    failed: Option<io::Error>,
}

/// Keeps the books of a run.
pub(super) struct Keeper {
    books: Mutex<Books>,
    waiting: Shelf,
}

/// Where what happens waits to be written down.
#[derive(Clone, Default)]
pub(super) struct Shelf {
    pub(super) recorder: Arc<Recorder>,
    pub(super) operations: Arc<Waiting<Operation>>,
    pub(super) accesses: Arc<Waiting<Access>>,
    pub(super) exchanges: Arc<Waiting<Exchange>>,
    pub(super) steps: Arc<Waiting<Step>>,
    pub(super) sights: Arc<Waiting<Sight>>,
}

impl Keeper {
    pub(super) fn new(folder: &Folder, waiting: Shelf) -> io::Result<Keeper> {
        let books = Books {
            history: folder.lines("history.jsonl")?,
            operations: folder.lines("operations.jsonl")?,
            accesses: folder.lines("accesses.jsonl")?,
            exchanges: folder.lines("exchanges.jsonl")?,
            steps: folder.lines("readers.jsonl")?,
            sights: folder.lines("jobs.jsonl")?,
            samples: folder.lines("samples.jsonl")?,
            failed: None,
        };
        Ok(Keeper {
            books: Mutex::new(books),
            waiting,
        })
    }

    /// Writes and samples until it is dropped.
    pub(super) async fn keep(&self, field: &Field) -> Infallible {
        let mut ticks = tokio::time::interval(SAMPLE_PERIOD);
        loop {
            ticks.tick().await;
            let samples = sample(field);
            let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
            let written = books.write(&self.waiting, &samples);
            if let Err(error) = written {
                books.failed.get_or_insert(error);
            }
        }
    }

    /// Returns when all that has happened is on disk, with the number of things that were dropped.
    pub(super) fn write_up(&self) -> io::Result<u64> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = books.failed.take() {
            return Err(error);
        }
        let dropped = books.write(&self.waiting, &[])?;
        books.history.sync()?;
        books.operations.sync()?;
        books.accesses.sync()?;
        books.exchanges.sync()?;
        books.steps.sync()?;
        books.sights.sync()?;
        books.samples.sync()?;
        Ok(dropped)
    }
}

impl Books {
    /// How many things were dropped so far.
    fn write(&mut self, waiting: &Shelf, samples: &[Sample]) -> io::Result<u64> {
        let (deeds, mut dropped) = waiting.recorder.take();
        for deed in &deeds {
            self.history.write(deed)?;
        }
        dropped += drain(&waiting.operations, &mut self.operations)?;
        dropped += drain(&waiting.accesses, &mut self.accesses)?;
        dropped += drain(&waiting.exchanges, &mut self.exchanges)?;
        dropped += drain(&waiting.steps, &mut self.steps)?;
        dropped += drain(&waiting.sights, &mut self.sights)?;
        for sample in samples {
            self.samples.write(sample)?;
        }
        Ok(dropped)
    }
}

/// Writes down what waits, and tells how many were dropped so far.
fn drain<T: Serialize>(waiting: &Waiting<T>, lines: &mut Lines) -> io::Result<u64> {
    let (found, dropped) = waiting.take();
    for one in &found {
        lines.write(one)?;
    }
    Ok(dropped)
}

fn sample(field: &Field) -> Vec<Sample> {
    let us = field.now_us();
    let of = |node: usize| {
        let usage = processes::usage(field.pid(node).ok()?)?;
        Some(Sample {
            us,
            node,
            rss_bytes: usage.rss_bytes,
            descriptors: usage.descriptors,
            threads: usage.threads,
        })
    };
    (0..field.node_count()).filter_map(of).collect()
}
