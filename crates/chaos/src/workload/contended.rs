//! W6, several services at once: they read, create, change and delete the same devices through all gateways,
//! with and without conditions.
//!
//! Nobody waits for anybody, so what is right is for the whole history to say
//! ([`crate::invariants::registrations`]). A device is left for another one after so many accesses, or when too
//! many of its outcomes are not known: each of those may come at any later time, and the search tries them all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Bench;
use super::access::{Access, Answer, Call};
use crate::stage;

/// Services that access one device.
pub const WRITERS: usize = 3;
/// Accesses of a device before another takes its place.
const ACCESSES_MAX: u32 = 300;
/// Outcomes of a device that are not known before another takes its place.
const UNKNOWN_MAX: u32 = 6;

/// A device that is accessed.
struct Shared {
    device: String,
    accesses: AtomicU32,
    unknown: AtomicU32,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.accesses.load(Ordering::Relaxed) >= ACCESSES_MAX
            || self.unknown.load(Ordering::Relaxed) >= UNKNOWN_MAX
    }
}

/// One device after the other, until it is told to stop. `slot` tells those apart that run at once; each writer
/// waits `period` between two accesses.
pub async fn run(bench: Bench, slot: usize, period: Duration) {
    for life in 0_usize.. {
        let shared = Arc::new(Shared {
            device: format!("contended-{slot}-{life}"),
            accesses: AtomicU32::new(0),
            unknown: AtomicU32::new(0),
        });
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let number = (slot * WRITERS + writer) as u64;
            let seed = bench.seed ^ (life as u64) << 40 ^ (number + 1) << 24;
            let one = Writer {
                bench: bench.clone(),
                shared: Arc::clone(&shared),
                writer,
                random: StdRng::seed_from_u64(seed),
                etag: None,
            };
            writers.spawn(one.run(period));
        }
        let mut goes_on = true;
        while let Some(ended) = writers.join_next().await {
            goes_on &= ended.unwrap_or(false);
        }
        if !goes_on {
            return;
        }
    }
}

struct Writer {
    bench: Bench,
    shared: Arc<Shared>,
    writer: usize,
    random: StdRng,
    /// The ETag that it saw last.
    etag: Option<String>,
}

/// A registration, as far as it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    etag: String,
    status_reason: Option<String>,
}

impl Writer {
    /// Whether another device is to follow.
    async fn run(mut self, period: Duration) -> bool {
        let mut number = 0;
        while !self.shared.is_over() {
            let begun = Instant::now();
            number += 1;
            let value = format!("{}-{number}", self.writer);
            let call = Call::draw(&mut self.random, self.etag.as_deref(), value);
            self.access(call).await;
            let pause = period.mul_f64(self.random.random_range(0.5..1.5));
            if !self.bench.wait_until(begun + pause).await {
                return false;
            }
        }
        true
    }

    async fn access(&mut self, call: Call) {
        self.shared.accesses.fetch_add(1, Ordering::Relaxed);
        let node = self.random.random_range(0..self.bench.gateways.len().max(1));
        let path = format!("/devices/{}?api-version=2021-04-12", self.shared.device);
        let (method, condition, value) = match &call {
            Call::Read => (Method::GET, None, None),
            Call::Create { value } => (Method::PUT, None, Some(value)),
            Call::Replace { value } => (Method::PUT, Some("*".to_owned()), Some(value)),
            Call::Swap { etag, value } => (Method::PUT, Some(format!("\"{etag}\"")), Some(value)),
            Call::Delete => (Method::DELETE, Some("*".to_owned()), None),
        };
        let body = value.map(|value| {
            let key = stage::draw_key(&mut self.random);
            let keys = json!({ "primaryKey": key, "secondaryKey": key });
            let authentication = json!({ "type": "sas", "symmetricKey": keys });
            let device = &self.shared.device;
            json!({ "deviceId": device, "statusReason": value, "authentication": authentication })
                .to_string()
                .into_bytes()
        });
        let invoked_us = self.bench.now_us();
        let asked = (method, path.as_str());
        let answered = self
            .bench
            .hub
            .attempt(node, asked, None, body, condition.as_deref())
            .await;
        let completed_us = self.bench.now_us();
        let Some(answer) = self.read(&call, answered) else {
            return;
        };
        match &answer {
            Answer::There { etag, .. } => self.etag = Some(etag.clone()),
            Answer::Unknown => {
                // A read that was not answered has changed nothing, whatever it would have said.
                if call == Call::Read {
                    return;
                }
                self.shared.unknown.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        self.bench.shelf.accesses.note(Access {
            device: self.shared.device.clone(),
            writer: self.writer,
            call,
            node,
            invoked_us,
            completed_us,
            answer,
        });
    }

    /// What an answer says; `None` if it says that nothing was tried.
    fn read(&self, call: &Call, answered: Result<(StatusCode, bytes::Bytes), String>) -> Option<Answer> {
        let Ok((status, body)) = answered else {
            return Some(Answer::Unknown);
        };
        Some(match status {
            StatusCode::NO_CONTENT if *call == Call::Delete => Answer::Deleted,
            StatusCode::OK => match serde_json::from_slice(&body) {
                Ok(Registered { etag, status_reason }) => Answer::There {
                    value: status_reason.unwrap_or_default(),
                    etag,
                },
                // Nothing that the hub says of a registration looks like that: the checker is to see it.
                Err(error) => Answer::There {
                    value: format!("unreadable: {error}"),
                    etag: String::new(),
                },
            },
            StatusCode::NOT_FOUND => Answer::Missing,
            StatusCode::CONFLICT => Answer::Exists,
            StatusCode::PRECONDITION_FAILED => Answer::Mismatch,
            StatusCode::GATEWAY_TIMEOUT | StatusCode::INTERNAL_SERVER_ERROR => Answer::Unknown,
            // Turned away before anything was tried.
            _ => return None,
        })
    }
}
