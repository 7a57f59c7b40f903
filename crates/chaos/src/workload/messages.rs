//! W4: services send messages, each with a time of its own, and ask how they ended; two receivers of the same device
//! fetch them over HTTPS and settle them under a lock, all through whatever gateways.
//!
//! A message says itself what is to be done with it ([`Fate`]), so that every end comes about: completed, rejected, given
//! too often, expired; and so that locks are let lapse and used too late. Who does what is in [`receiver`], what services
//! hear of it in [`feedback`], and what is left when all is over in [`closing`]. Nobody judges here: see
//! [`crate::invariants::settlements`] and [`crate::invariants::feedback`]. A device is left for another after so many
//! messages, fewer than it keeps dead letters.

mod closing;
mod feedback;
mod receiver;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dunlin_model::iso_time::iso_utc;
use dunlin_model::messages::{AckWanted, DEAD_LETTERS_MAX};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Bench;
use super::handling::{Handling, Sent};
use super::operation::Outcome;
use crate::hub::{Answered, Hub};
use crate::stage;

pub use closing::close;

/// Those who fetch the messages of one device.
const RECEIVERS: usize = 2;
/// Messages of a device before another takes its place: all of them may become dead letters.
const SENDS_MAX: u32 = 40;
const _: () = assert!(SENDS_MAX as usize <= DEAD_LETTERS_MAX);
/// How long a message may wait, in milliseconds.
const TTL_MS: u64 = 20_000;
/// The same for one that nobody is to settle: shorter than the shortest lock.
const TTL_LEFT_MS: std::ops::Range<u64> = 1_000..4_000;
/// How long a device that nobody sends to any more goes on: all of its messages are over by then, and their locks.
const REST_WAIT: Duration = Duration::from_secs(40);
/// Between two looks whether it has any.
const REST_PAUSE: Duration = Duration::from_millis(500);

/// What a message is for. It stands at the end of the message's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is completed.
    Complete,
    /// It is rejected.
    Reject,
    /// It is abandoned whenever it comes, until it was given too often.
    Abandon,
    /// The first who has it comes too late, and whoever has it then completes it.
    Lapse,
    /// Nobody settles it, and its time is short.
    Leave,
}

impl Fate {
    /// All of them, by name, with how likely each is.
    const ALL: [(Fate, &'static str, u32); 5] = [
        (Fate::Complete, "complete", 50),
        (Fate::Reject, "reject", 15),
        (Fate::Abandon, "abandon", 8),
        (Fate::Lapse, "lapse", 15),
        (Fate::Leave, "leave", 12),
    ];

    fn draw(random: &mut StdRng) -> (Fate, &'static str) {
        let mut drawn = random.random_range(0..Self::ALL.iter().map(|(.., weight)| weight).sum());
        for (fate, name, weight) in Self::ALL {
            if drawn < weight {
                return (fate, name);
            }
            drawn -= weight;
        }
        (Fate::Complete, "complete")
    }

    /// Of the message with this id.
    fn of(id: &str) -> Option<Fate> {
        let (_, name) = id.split_once('-')?;
        let found = Self::ALL.iter().find(|(_, known, _)| *known == name);
        found.map(|(fate, ..)| *fate)
    }
}

/// What somebody asks.
struct Ask<'a> {
    method: Method,
    path: &'a str,
    /// A device's; a service has the admin's.
    token: Option<&'a str>,
    headers: &'a [(&'a str, &'a str)],
    body: Option<Vec<u8>>,
}

impl<'a> Ask<'a> {
    fn new(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            token: None,
            headers: &[],
            body: None,
        }
    }
}

/// Whoever asks, each time at a gateway that is drawn.
struct Asker {
    hub: Arc<Hub>,
    gateways: usize,
    epoch: Instant,
    random: StdRng,
}

/// What came of it, on the clock of the run.
struct Asked {
    invoked_us: u64,
    completed_us: u64,
    answer: Result<Answered, String>,
}

impl Asked {
    fn status(&self) -> Option<StatusCode> {
        self.answer.as_ref().ok().map(|answered| answered.status)
    }

    /// How something ended that is done with `done`, and refused with `refused`; nothing where it was turned away before
    /// it was tried.
    fn outcome(&self, done: StatusCode, refused: StatusCode) -> Option<Outcome> {
        match self.status() {
            Some(status) if status == done => Some(Outcome::Ok),
            Some(status) if status == refused => Some(Outcome::Fail),
            None | Some(StatusCode::GATEWAY_TIMEOUT | StatusCode::INTERNAL_SERVER_ERROR) => {
                Some(Outcome::Unknown)
            }
            Some(_) => None,
        }
    }

    fn json(&self) -> Value {
        let body = self.answer.as_ref().ok().map(|answered| &answered.body[..]);
        body.and_then(|body| serde_json::from_slice(body).ok())
            .unwrap_or_default()
    }
}

impl Asker {
    fn of(bench: &Bench, seed: u64) -> Asker {
        Asker {
            hub: Arc::clone(&bench.hub),
            gateways: bench.gateways.len(),
            epoch: bench.epoch,
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn now_us(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }

    async fn ask(&mut self, ask: Ask<'_>) -> Asked {
        let count = self.gateways.max(1);
        let first = self.random.random_range(0..count);
        let mut places = (first..first + count).map(|place| place % count);
        // One that is known to be down leaves everything open, and nothing tried.
        let node = places.find(|node| !self.hub.is_down(*node)).unwrap_or(first);
        let token = ask.token.unwrap_or(self.hub.authorization());
        let headers: Vec<(&str, &str)> = [&[("authorization", token)], ask.headers].concat();
        let invoked_us = self.now_us();
        let answer = self
            .hub
            .ask(node, (ask.method, ask.path), &headers, ask.body)
            .await;
        Asked {
            invoked_us,
            completed_us: self.now_us(),
            answer,
        }
    }

    /// One request of a service without a body.
    async fn plain(&mut self, method: Method, path: &str) -> Asked {
        self.ask(Ask::new(method, path)).await
    }

    /// Messages that wait for a device, if that can be learnt just now.
    async fn waiting(&mut self, device: &str) -> Option<u64> {
        let path = format!("/devices/{device}?api-version=2021-04-12");
        let asked = self.plain(Method::GET, &path).await;
        match asked.status() {
            Some(StatusCode::OK) => asked.json()["cloudToDeviceMessageCount"].as_u64(),
            _ => None,
        }
    }
}

/// A device that is sent messages.
struct Life {
    device: String,
    token: String,
    /// Nobody looks after it any more.
    is_over: AtomicBool,
}

/// `devices` of them at once, one after the other in each place, and whoever reads feedback, until they are told to stop.
/// Each of those who act waits `period` between two things.
pub async fn run(bench: Bench, devices: usize, period: Duration) {
    let mut tasks = JoinSet::new();
    for slot in 0..devices {
        tasks.spawn(live(bench.clone(), slot, period));
    }
    tasks.spawn(feedback::read(bench, period));
    while tasks.join_next().await.is_some() {}
}

async fn live(mut bench: Bench, slot: usize, period: Duration) {
    let mut random = StdRng::seed_from_u64(bench.seed ^ (slot as u64 + 1) << 32);
    for life in 0_usize.. {
        let begun = Instant::now();
        let device = format!("fetch-{slot}-{life}");
        let key = stage::draw_key(&mut random);
        let made = bench.hub.create_device(&device, &key).await;
        if let (Ok(()), Ok(token)) = (made, stage::token(&bench.host, &device, &key)) {
            let life = Arc::new(Life {
                device,
                token,
                is_over: AtomicBool::new(false),
            });
            let mut receivers = JoinSet::new();
            for _ in 0..RECEIVERS {
                let asker = Asker::of(&bench, random.random());
                receivers.spawn(receiver::run(bench.clone(), asker, Arc::clone(&life), period));
            }
            let service = Service {
                asker: Asker::of(&bench, random.random()),
                bench: bench.clone(),
                life: Arc::clone(&life),
            };
            service.run(period).await;
            life.is_over.store(true, Ordering::Relaxed);
            while receivers.join_next().await.is_some() {}
        }
        // Not faster than that, even where everything is refused at once.
        if !bench.wait_until(begun + period).await {
            return;
        }
    }
}

/// Whoever sends to one device.
struct Service {
    asker: Asker,
    bench: Bench,
    life: Arc<Life>,
}

impl Service {
    /// Sends all messages, and stays until none waits or all are over.
    async fn run(mut self, period: Duration) {
        for number in 0..SENDS_MAX {
            let begun = Instant::now();
            self.send(number).await;
            let pause = period.mul_f64(self.asker.random.random_range(0.5..1.5));
            if !self.bench.wait_until(begun + pause).await {
                return;
            }
        }
        let until = Instant::now() + REST_WAIT;
        while Instant::now() < until && self.asker.waiting(&self.life.device).await != Some(0) {
            if !self.bench.wait_until(Instant::now() + REST_PAUSE).await {
                return;
            }
        }
    }

    async fn send(&mut self, number: u32) {
        let random = &mut self.asker.random;
        let (fate, name) = Fate::draw(random);
        let ack = match random.random_range(0..10) {
            0 => AckWanted::None,
            1 => AckWanted::Positive,
            2 => AckWanted::Negative,
            _ => AckWanted::Full,
        };
        let ttl_ms = match fate {
            Fate::Leave => random.random_range(TTL_LEFT_MS),
            _ => TTL_MS,
        };
        let id = format!("{number}-{name}");
        let expires_us = self.asker.now_us() + ttl_ms * 1000;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires = iso_utc(wall.as_millis() as u64 + ttl_ms);
        let path = format!(
            "/devices/{}/messages/devicebound?api-version=2021-04-12",
            self.life.device
        );
        let headers = [
            ("iothub-messageid", id.as_str()),
            ("iothub-ack", ack.word()),
            ("iothub-expiry", &expires),
        ];
        let ask = Ask {
            headers: &headers,
            body: Some(id.clone().into_bytes()),
            ..Ask::new(Method::POST, &path)
        };
        let asked = self.asker.ask(ask).await;
        let outcome = asked.outcome(StatusCode::CREATED, StatusCode::FORBIDDEN);
        self.bench.shelf.handlings.note(Handling::Sent(Sent {
            device: self.life.device.clone(),
            id,
            ack,
            expires,
            expires_us,
            invoked_us: asked.invoked_us,
            completed_us: asked.completed_us,
            outcome: outcome.unwrap_or(Outcome::Fail),
            number: asked.json()["sequenceNumber"].as_u64(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_it_is_for() {
        let mut random = StdRng::seed_from_u64(1);
        for number in 0..100 {
            let (fate, name) = Fate::draw(&mut random);
            assert_eq!(Fate::of(&format!("{number}-{name}")), Some(fate));
        }
        assert_eq!(Fate::of(""), None);
        assert_eq!(Fate::of("3-other"), None);
    }
}
