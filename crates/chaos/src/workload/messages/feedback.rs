//! A service that fetches what it is told of how messages ended, and completes it, or now and then gives it back.

use std::time::Duration;

use rand::RngExt as _;
use reqwest::{Method, StatusCode};
use tokio::time::Instant;

use super::Asker;
use crate::workload::handling::{Batch, BatchSettling, Handling, Take, Told};
use crate::workload::operation::Outcome;
use crate::workload::{Bench, lock};

/// Where it is asked for.
const PATH: &str = "/messages/serviceBound/feedback";
/// Periods between two questions where there is nothing.
const PERIODS: u32 = 5;

/// Asks until it is told to stop.
pub(super) async fn read(mut bench: Bench, period: Duration) {
    let mut asker = Asker::of(&bench, bench.seed ^ 0xfeed);
    let mut goes_on = true;
    while goes_on {
        let taken = take(&mut asker).await;
        let lock = taken.as_ref().and_then(lock_of);
        if let Some(taken) = taken {
            bench.shelf.handlings.note(Handling::Taken(taken));
        }
        let Some(lock) = lock else {
            goes_on = bench.wait_until(Instant::now() + period * PERIODS).await;
            continue;
        };
        let completes = asker.random.random_bool(0.9);
        while let Some(settled) = settle(&mut asker, &lock, completes).await {
            let is_known = settled.outcome != Outcome::Unknown;
            bench.shelf.handlings.note(Handling::BatchSettled(settled));
            if is_known || asker.random.random_bool(0.5) {
                break;
            }
        }
        goes_on = bench.wait_until(Instant::now() + period).await;
    }
}

/// What settles the records of a batch, if there is one.
pub(super) fn lock_of(take: &Take) -> Option<String> {
    match &take.batch {
        Batch::Records { lock, .. } => Some(lock.clone()),
        Batch::Nothing | Batch::Unknown => None,
    }
}

/// Asks for a batch. Nothing if that was turned away before it was tried.
pub(super) async fn take(asker: &mut Asker) -> Option<Take> {
    let asked = asker.plain(Method::GET, PATH).await;
    let batch = match &asked.answer {
        Ok(answered) => match answered.status {
            StatusCode::OK => {
                let records = asked.json();
                let records = records.as_array().map(Vec::as_slice).unwrap_or_default();
                Batch::Records {
                    lock: lock(answered),
                    records: records.iter().map(told).collect(),
                }
            }
            StatusCode::NO_CONTENT => Batch::Nothing,
            StatusCode::UNAUTHORIZED => return None,
            // Of several shards one may have locked a batch before another failed.
            _ => Batch::Unknown,
        },
        Err(_) => Batch::Unknown,
    };
    Some(Take {
        invoked_us: asked.invoked_us,
        completed_us: asked.completed_us,
        batch,
    })
}

fn told(record: &serde_json::Value) -> Told {
    let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
    Told {
        device: text("deviceId"),
        id: text("originalMessageId"),
        end: serde_json::from_value(record["statusCode"].clone()).ok(),
        ended: text("enqueuedTimeUtc"),
    }
}

/// Settles a batch once. Nothing if that was turned away before it was tried.
pub(super) async fn settle(asker: &mut Asker, lock: &str, completes: bool) -> Option<BatchSettling> {
    let asked = match completes {
        true => asker.plain(Method::DELETE, &format!("{PATH}/{lock}")).await,
        false => asker.plain(Method::POST, &format!("{PATH}/{lock}/abandon")).await,
    };
    Some(BatchSettling {
        lock: lock.to_owned(),
        completes,
        invoked_us: asked.invoked_us,
        completed_us: asked.completed_us,
        outcome: asked.outcome(StatusCode::NO_CONTENT, StatusCode::PRECONDITION_FAILED)?,
    })
}
