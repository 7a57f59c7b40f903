//! W10: readers that ask for ranges of the past, by offset and by time, at one gateway after the other.
//!
//! They ask for what they have been shown before and for what has just come, and go on where an answer ended, as often
//! as not at another gateway. Whether the answers agree with each other and with what is there in the end is for
//! [`crate::invariants::ranges`] to say.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use tokio::time::Instant;

use super::Bench;
use super::range::{From, Range, Shown};
use crate::hub::Page;
use crate::{oracle, payload};

/// Events that are asked for at a time, at the most.
const EVENTS_MAX: usize = 60;
/// Events that a reader remembers of each shard, to ask for their times.
const REMEMBERED_MAX: usize = 64;
/// How near to the end those begin that are to see what has just come.
const TAIL: u64 = 40;

/// Reads until it is told to stop, each `period`. `slot` tells readers apart; `known` are the devices whose events are
/// compared.
pub async fn run(bench: Bench, slot: usize, (shards, period): (u32, Duration), known: Arc<HashSet<String>>) {
    let mut reader = Reader {
        random: StdRng::seed_from_u64(bench.seed ^ (slot as u64 + 1) << 16),
        shelves: (0..shards).map(|_| Shelf::default()).collect(),
        node: slot,
        bench,
        known,
    };
    let mut due = Instant::now();
    while reader.bench.wait_until(due).await {
        due = (due + period).max(Instant::now());
        reader.read().await;
    }
}

/// What a reader knows of a shard.
#[derive(Default)]
struct Shelf {
    end: u64,
    /// Where the last answer ended.
    next: u64,
    remembered: Vec<Shown>,
}

struct Reader {
    bench: Bench,
    random: StdRng,
    shelves: Vec<Shelf>,
    node: usize,
    known: Arc<HashSet<String>>,
}

impl Reader {
    async fn read(&mut self) {
        let shard = self.random.random_range(0..self.shelves.len().max(1));
        let Some(from) = self.draw(shard) else { return };
        let count = self.random.random_range(1..=EVENTS_MAX);
        let node = self.bench.turn(&mut self.node);
        let begin = match from {
            From::Offset(offset) => offset.to_string(),
            From::TimeMs(time_ms) => format!("time={time_ms}"),
        };
        let path = format!("/events/{shard}?from={begin}&max={count}");
        let invoked_us = self.bench.now_us();
        let asked = (Method::GET, path.as_str());
        let answer = self.bench.hub.attempt(node, asked, None, None, None).await;
        let completed_us = self.bench.now_us();
        let Ok((StatusCode::OK, body)) = answer else {
            return;
        };
        let Ok(page) = serde_json::from_slice::<Page>(&body) else {
            return;
        };
        let events = self.shown(&page);
        self.remember(shard, &page, &events);
        self.bench.shelf.ranges.note(Range {
            shard: shard as u32,
            from,
            invoked_us,
            completed_us,
            events,
            next: page.next,
            end: page.end,
        });
    }

    /// Where to begin.
    fn draw(&mut self, shard: usize) -> Option<From> {
        let shelf = self.shelves.get(shard)?;
        let random = &mut self.random;
        Some(match random.random_range(0..10) {
            0..3 => From::Offset(random.random_range(0..=shelf.end)),
            3..5 => From::Offset(shelf.end.saturating_sub(random.random_range(0..TAIL))),
            5..7 => From::Offset(shelf.next),
            _ => match shelf.remembered.len() {
                0 => From::TimeMs(0),
                count => {
                    let time_ms = shelf.remembered[random.random_range(0..count)].time_ms;
                    // The time itself, and its neighbours.
                    From::TimeMs((time_ms + random.random_range(0..3)).saturating_sub(1))
                }
            },
        })
    }

    fn shown(&self, page: &Page) -> Vec<Shown> {
        let events = page.events.iter();
        let events = events.filter(|event| self.known.contains(&event.device_id));
        let shown = events.map(|event| Shown {
            offset: event.offset,
            time_ms: event.enqueued_time_ms,
            digest: oracle::digest(&payload::of_body(&event.body)),
        });
        shown.collect()
    }

    fn remember(&mut self, shard: usize, page: &Page, events: &[Shown]) {
        let Some(shelf) = self.shelves.get_mut(shard) else {
            return;
        };
        (shelf.end, shelf.next) = (page.end.max(shelf.end), page.next);
        let Some(last) = events.last() else { return };
        if shelf.remembered.len() < REMEMBERED_MAX {
            shelf.remembered.push(*last);
        } else {
            let place = self.random.random_range(0..REMEMBERED_MAX);
            shelf.remembered[place] = *last;
        }
    }
}
