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
use crate::record::Recorder;
use crate::waiting::Waiting;
use crate::workload::Shelf;
use crate::workload::handling::Handling;

/// Between two samples.
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

struct Books {
    all: Vec<Book>,
    samples: Lines,
    failed: Option<io::Error>,
}

/// Writes down what waits, and tells how much was dropped so far.
type Drain = dyn Fn(&mut Lines) -> io::Result<u64> + Send;

/// A file of the run, and how what waits for it gets there.
struct Book {
    lines: Lines,
    drain: Box<Drain>,
}

/// Keeps the books of a run.
pub(super) struct Keeper {
    books: Mutex<Books>,
    shelf: Shelf,
}

impl Keeper {
    pub(super) fn new(folder: &Folder, shelf: Shelf) -> io::Result<Keeper> {
        let all = vec![
            Book::new(folder, "history.jsonl", &shelf.recorder, Recorder::take)?,
            Book::new(folder, "operations.jsonl", &shelf.operations, Waiting::take)?,
            Book::new(folder, "accesses.jsonl", &shelf.accesses, Waiting::take)?,
            Book::new(folder, "exchanges.jsonl", &shelf.exchanges, Waiting::take)?,
            Book::new(folder, "messages.jsonl", &shelf.handlings, Waiting::take)?,
            Book::new(folder, "policies.jsonl", &shelf.grants, Waiting::take)?,
            Book::new(folder, "provisioning.jsonl", &shelf.enrollings, Waiting::take)?,
            Book::new(folder, "erasing.jsonl", &shelf.traces, Waiting::take)?,
            Book::new(folder, "readers.jsonl", &shelf.steps, Waiting::take)?,
            Book::new(folder, "jobs.jsonl", &shelf.sights, Waiting::take)?,
            Book::new(folder, "deliveries.jsonl", &shelf.deliveries, Waiting::take)?,
            Book::new(folder, "ranges.jsonl", &shelf.ranges, Waiting::take)?,
            Book::new(folder, "surveys.jsonl", &shelf.surveys, Waiting::take)?,
            Book::new(folder, "files.jsonl", &shelf.files, Waiting::take)?,
            Book::new(folder, "raft.jsonl", &shelf.standings, Waiting::take)?,
        ];
        let books = Books {
            all,
            samples: folder.lines("samples.jsonl")?,
            failed: None,
        };
        Ok(Keeper {
            books: Mutex::new(books),
            shelf,
        })
    }

    /// Writes and samples until it is dropped.
    pub(super) async fn keep(&self, field: &Field) -> Infallible {
        let (never, _) = join(self.write(field), self.ask_replicas(field)).await;
        never
    }

    /// Takes in what was done with messages when nobody noted that any more.
    pub(super) fn take_in(&self, handlings: Vec<Handling>) {
        for handling in handlings {
            self.shelf.handlings.note(handling);
        }
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
                    self.shelf.standings.note(sight);
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
            let written = books.write(&samples);
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
        let dropped = books.write(&[])?;
        for book in &mut books.all {
            book.lines.sync()?;
        }
        books.samples.sync()?;
        Ok(dropped)
    }
}

impl Books {
    /// How many things were dropped so far.
    fn write(&mut self, samples: &[Sample]) -> io::Result<u64> {
        let mut dropped = 0;
        for book in &mut self.all {
            dropped += (book.drain)(&mut book.lines)?;
        }
        for sample in samples {
            self.samples.write(sample)?;
        }
        Ok(dropped)
    }
}

impl Book {
    /// What waits in `from` is taken from there, with how many things were dropped so far.
    fn new<F, T>(
        folder: &Folder,
        name: &str,
        from: &Arc<F>,
        take: fn(&F) -> (Vec<T>, u64),
    ) -> io::Result<Book>
    where
        F: Send + Sync + 'static,
        T: Serialize + 'static,
    {
        let from = Arc::clone(from);
        let drain = move |lines: &mut Lines| {
            let (found, dropped) = take(&from);
            for one in &found {
                lines.write(one)?;
            }
            Ok(dropped)
        };
        Ok(Book {
            lines: folder.lines(name)?,
            drain: Box::new(drain),
        })
    }
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
