//! One of two who fetch the messages of a device, and do with each what it is for.
//!
//! Neither knows of the other, so what one has must be kept from the other by its lock alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dunlin_model::messages::Settlement;
use rand::RngExt as _;
use reqwest::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use super::{Ask, Asker, Fate, Life};
use crate::hub::Answered;
use crate::workload::handling::{Fetch, Found, Handed, Handling, Settling};
use crate::workload::operation::Outcome;
use crate::workload::{Bench, header, lock};

/// Seconds for which a message is asked for; one of these.
const LOCKS_S: [u64; 4] = [5, 5, 8, 12];
/// Who comes too late comes so long after the lock is over.
const LATE_AFTER: Duration = Duration::from_millis(1_500);
/// Locks that wait for that; beyond it the oldest is forgotten.
const LATE_MAX: usize = 8;
/// The longest that a message is thought about before it is settled, in milliseconds.
const THOUGHT_MS_MAX: u64 = 1_000;

/// Fetches and settles until the device is left, or it is told to stop.
pub(super) async fn run(mut bench: Bench, asker: Asker, life: Arc<Life>, period: Duration) {
    let mut receiver = Receiver {
        path: format!("/devices/{}/messages/devicebound", life.device),
        bench: bench.clone(),
        asker,
        life,
        late: VecDeque::new(),
    };
    while !receiver.life.is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let is_busy = receiver.fetch().await;
        receiver.settle_late().await;
        let factor = match is_busy {
            true => receiver.asker.random.random_range(0.25..0.75),
            false => receiver.asker.random.random_range(1.0..2.0),
        };
        if !bench.wait_until(begun + period.mul_f64(factor)).await {
            return;
        }
    }
}

struct Receiver {
    path: String,
    bench: Bench,
    asker: Asker,
    life: Arc<Life>,
    /// Locks that are used when they are over, and when.
    late: VecDeque<(Instant, String)>,
}

impl Receiver {
    /// Asks for a message, and does with it what it is for. Whether there was one.
    async fn fetch(&mut self) -> bool {
        let place = self.asker.random.random_range(0..LOCKS_S.len());
        let lock_s = LOCKS_S[place];
        let path = format!("{}?api-version=2021-04-12", self.path);
        let told = lock_s.to_string();
        let ask = Ask {
            token: Some(&self.life.token),
            headers: &[("iothub-messagelocktimeout", &told)],
            ..Ask::new(Method::GET, &path)
        };
        let asked = self.asker.ask(ask).await;
        let found = match &asked.answer {
            Ok(answered) => match answered.status {
                StatusCode::OK => Found::Message(handed(answered)),
                StatusCode::NO_CONTENT => Found::Nothing,
                // Turned away before anything was tried.
                StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => return false,
                // What it carries may not have been read once it was locked.
                _ => Found::Unknown,
            },
            Err(_) => Found::Unknown,
        };
        self.bench.shelf.handlings.note(Handling::Fetched(Fetch {
            device: self.life.device.clone(),
            lock_s,
            invoked_us: asked.invoked_us,
            completed_us: asked.completed_us,
            found: found.clone(),
        }));
        match found {
            Found::Message(handed) => self.treat(handed, lock_s).await,
            Found::Nothing | Found::Unknown => return false,
        }
        true
    }

    async fn treat(&mut self, handed: Handed, lock_s: u64) {
        let deed = match Fate::of(&handed.id) {
            Some(Fate::Leave) | None => return,
            Some(Fate::Lapse) if handed.count == 0 => {
                if self.late.len() >= LATE_MAX {
                    self.late.pop_front();
                }
                let due = Instant::now() + Duration::from_secs(lock_s) + LATE_AFTER;
                return self.late.push_back((due, handed.lock));
            }
            Some(Fate::Abandon) => Settlement::Abandon,
            // Now and then somebody is not up to it.
            Some(_) if self.asker.random.random_bool(0.05) => Settlement::Abandon,
            Some(Fate::Reject) => Settlement::Reject,
            Some(Fate::Complete | Fate::Lapse) => Settlement::Complete,
        };
        if deed != Settlement::Abandon && self.asker.random.random_bool(0.3) {
            let thought_ms = self.asker.random.random_range(0..THOUGHT_MS_MAX);
            sleep(Duration::from_millis(thought_ms)).await;
        }
        self.settle(&handed.lock, deed).await;
    }

    async fn settle_late(&mut self) {
        while let Some((due, _)) = self.late.front()
            && *due <= Instant::now()
            && let Some((_, lock)) = self.late.pop_front()
        {
            self.settle(&lock, Settlement::Complete).await;
        }
    }

    /// Once, or once more elsewhere if nobody knows what came of it.
    async fn settle(&mut self, lock: &str, deed: Settlement) {
        let (method, path) = match deed {
            Settlement::Complete => (Method::DELETE, format!("{}/{lock}", self.path)),
            Settlement::Reject => (Method::DELETE, format!("{}/{lock}?reject", self.path)),
            Settlement::Abandon => (Method::POST, format!("{}/{lock}/abandon", self.path)),
        };
        loop {
            let ask = Ask {
                token: Some(&self.life.token),
                ..Ask::new(method.clone(), &path)
            };
            let asked = self.asker.ask(ask).await;
            let outcome = asked.outcome(StatusCode::NO_CONTENT, StatusCode::PRECONDITION_FAILED);
            let Some(outcome) = outcome else { return };
            self.bench.shelf.handlings.note(Handling::Settled(Settling {
                device: self.life.device.clone(),
                lock: lock.to_owned(),
                deed,
                invoked_us: asked.invoked_us,
                completed_us: asked.completed_us,
                outcome,
            }));
            if outcome != Outcome::Unknown || self.asker.random.random_bool(0.5) {
                return;
            }
        }
    }
}

/// What an answer hands over. What the hub never says is nobody's message, for the checker to see.
fn handed(answered: &Answered) -> Handed {
    let text = |name: &str| header(answered, name);
    let id = text("iothub-messageid");
    let is_whole = answered.body == id.as_bytes();
    Handed {
        id: if is_whole { id.to_owned() } else { String::new() },
        number: text("iothub-sequencenumber").parse().unwrap_or_default(),
        count: text("iothub-deliverycount").parse().unwrap_or(u32::MAX),
        lock: lock(answered),
    }
}
