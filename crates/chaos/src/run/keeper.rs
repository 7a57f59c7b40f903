//! Writes down what happens while it happens: the history, the operations, what the nodes use.
//!
//! Once a second, and at the end of an epoch for good (synced). Decides nothing.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::folder::Folder;
use super::journal::Lines;
use super::metrics;
use crate::faults::{Field, processes};
use crate::invariants::bounded::Sample;
use crate::invariants::raft;
use crate::record::Recorder;
use crate::waiting::Waiting;
use crate::workload::access::Access;
use crate::workload::delivery::Delivery;
use crate::workload::enrolling::Enrolling;
use crate::workload::erasure::Trace;
use crate::workload::exchange::Exchange;
use crate::workload::file;
use crate::workload::grant::Grant;
use crate::workload::handling::Handling;
use crate::workload::operation::Operation;
use crate::workload::range::Range;
use crate::workload::sight::Sight;
use crate::workload::step::Step;
use crate::workload::survey::Survey;

/// Between two samples.
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

struct Books {
    history: Lines,
    operations: Lines,
    accesses: Lines,
    exchanges: Lines,
    handlings: Lines,
    grants: Lines,
    enrollings: Lines,
    traces: Lines,
    steps: Lines,
    sights: Lines,
    deliveries: Lines,
    ranges: Lines,
    surveys: Lines,
    files: Lines,
    standings: Lines,
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
    pub(super) handlings: Arc<Waiting<Handling>>,
    pub(super) grants: Arc<Waiting<Grant>>,
    pub(super) enrollings: Arc<Waiting<Enrolling>>,
    pub(super) traces: Arc<Waiting<Trace>>,
    pub(super) steps: Arc<Waiting<Step>>,
    pub(super) sights: Arc<Waiting<Sight>>,
    pub(super) deliveries: Arc<Waiting<Delivery>>,
    pub(super) ranges: Arc<Waiting<Range>>,
    pub(super) surveys: Arc<Waiting<Survey>>,
    pub(super) files: Arc<Waiting<file::Deed>>,
    pub(super) standings: Arc<Waiting<raft::Sight>>,
}

impl Keeper {
    pub(super) fn new(folder: &Folder, waiting: Shelf) -> io::Result<Keeper> {
        let books = Books {
            history: folder.lines("history.jsonl")?,
            operations: folder.lines("operations.jsonl")?,
            accesses: folder.lines("accesses.jsonl")?,
            exchanges: folder.lines("exchanges.jsonl")?,
            handlings: folder.lines("messages.jsonl")?,
            grants: folder.lines("policies.jsonl")?,
            enrollings: folder.lines("provisioning.jsonl")?,
            traces: folder.lines("erasing.jsonl")?,
            steps: folder.lines("readers.jsonl")?,
            sights: folder.lines("jobs.jsonl")?,
            deliveries: folder.lines("deliveries.jsonl")?,
            ranges: folder.lines("ranges.jsonl")?,
            surveys: folder.lines("surveys.jsonl")?,
            files: folder.lines("files.jsonl")?,
            standings: folder.lines("raft.jsonl")?,
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
        let (never, _) = join(self.write(field), self.ask_replicas(field)).await;
        never
    }

    /// Asks every node that is not known to be down how its replicas stand.
    async fn ask_replicas(&self, field: &Field) -> Infallible {
        let mut ticks = tokio::time::interval(SAMPLE_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let nodes = (0..field.node_count()).filter(|node| !field.hub.is_down(*node));
            let asked = nodes.map(|node| async move { (node, metrics::ask(&field.hub, node).await) });
            for (node, scrape) in join_all(asked).await {
                let sights = scrape.map(|scrape| scrape.sights(field.now_us(), node));
                for sight in sights.into_iter().flatten() {
                    self.waiting.standings.note(sight);
                }
            }
        }
    }

    async fn write(&self, field: &Field) -> Infallible {
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
        books.handlings.sync()?;
        books.grants.sync()?;
        books.enrollings.sync()?;
        books.traces.sync()?;
        books.steps.sync()?;
        books.sights.sync()?;
        books.deliveries.sync()?;
        books.ranges.sync()?;
        books.surveys.sync()?;
        books.files.sync()?;
        books.standings.sync()?;
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
        dropped += drain(&waiting.handlings, &mut self.handlings)?;
        dropped += drain(&waiting.grants, &mut self.grants)?;
        dropped += drain(&waiting.enrollings, &mut self.enrollings)?;
        dropped += drain(&waiting.traces, &mut self.traces)?;
        dropped += drain(&waiting.steps, &mut self.steps)?;
        dropped += drain(&waiting.sights, &mut self.sights)?;
        dropped += drain(&waiting.deliveries, &mut self.deliveries)?;
        dropped += drain(&waiting.ranges, &mut self.ranges)?;
        dropped += drain(&waiting.surveys, &mut self.surveys)?;
        dropped += drain(&waiting.files, &mut self.files)?;
        dropped += drain(&waiting.standings, &mut self.standings)?;
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
