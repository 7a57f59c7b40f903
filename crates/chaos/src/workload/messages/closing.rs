//! What is left when nobody sends or fetches any more: of each device the messages that wait and its dead letters, and of
//! services the feedback that they are still owed.
//!
//! Asked when all faults are over. It may take as long as a batch of feedback is locked that somebody took without hearing
//! of it; where nothing is missing it takes no time.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Asker, feedback};
use crate::hub::Hub;
use crate::invariants::feedback::{locked_until_us, owed};
use crate::invariants::settlements::over_by_us;
use crate::workload::handling::{Account, Batch, Handling, Letter};

/// All of it together: messages have their time, and unheard batches theirs.
const CLOSE_WAIT: Duration = Duration::from_secs(180);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// Looks at what is left of what was done so far, at these `gateways`. Returns what was done for that.
pub async fn close(
    hub: Arc<Hub>,
    (gateways, seed): (usize, u64),
    epoch: Instant,
    so_far: Vec<Handling>,
) -> Vec<Handling> {
    let devices: Vec<(String, u64)> = over_by_us(&so_far)
        .into_iter()
        .map(|(device, us)| (device.to_owned(), us))
        .collect();
    if devices.is_empty() {
        return Vec::new();
    }
    let mut closing = Closing {
        asker: Asker {
            hub,
            gateways,
            epoch,
            random: StdRng::seed_from_u64(seed),
        },
        until: Instant::now() + CLOSE_WAIT,
        done: so_far.len(),
        all: so_far,
    };
    for (device, over_us) in devices {
        closing.account(&device, over_us).await;
    }
    closing.hear_out().await;
    closing.all.split_off(closing.done)
}

struct Closing {
    asker: Asker,
    until: Instant,
    /// All that was done, and how much of it before.
    all: Vec<Handling>,
    done: usize,
}

impl Closing {
    /// Waits until none of a device's messages waits, or all are over.
    async fn account(&mut self, device: &str, over_us: u64) {
        while Instant::now() < self.until {
            let invoked_us = self.asker.now_us();
            let waiting = self.asker.waiting(device).await;
            if let Some(waiting) = waiting.filter(|waiting| *waiting == 0 || invoked_us > over_us)
                && let Some(letters) = self.letters(device).await
            {
                let completed_us = self.asker.now_us();
                let device = device.to_owned();
                return self.all.push(Handling::Left(Account {
                    device,
                    waiting,
                    letters,
                    invoked_us,
                    completed_us,
                }));
            }
            sleep(PAUSE).await;
        }
    }

    async fn letters(&mut self, device: &str) -> Option<Vec<Letter>> {
        let path = format!("/devices/{device}/messages/deadletters?api-version=2021-04-12");
        let asked = self.asker.plain(Method::GET, &path).await;
        if asked.status() != Some(StatusCode::OK) {
            return None;
        }
        let letters = asked.json();
        let letter = |letter: &Value| {
            let text = |key: &str| letter[key].as_str().unwrap_or_default().to_owned();
            Letter {
                id: text("messageId"),
                reason: serde_json::from_value(letter["reason"].clone()).ok(),
                dead: text("deadLetteredTimeUtc"),
                count: letter["deliveryCount"]
                    .as_u64()
                    .and_then(|count| count.try_into().ok())
                    .unwrap_or(u32::MAX),
            }
        };
        Some(letters.as_array()?.iter().map(letter).collect())
    }

    /// Takes feedback until nothing is owed, or what is missing cannot be in a batch that somebody has.
    async fn hear_out(&mut self) {
        while Instant::now() < self.until {
            let taken = feedback::take(&mut self.asker).await;
            let lock = taken.as_ref().and_then(feedback::lock_of);
            let nothing_us = taken.as_ref().and_then(|take| match take.batch {
                Batch::Nothing => Some(take.invoked_us),
                Batch::Records { .. } | Batch::Unknown => None,
            });
            self.all.extend(taken.map(Handling::Taken));
            if let Some(lock) = lock {
                let settled = feedback::settle(&mut self.asker, &lock, true).await;
                self.all.extend(settled.map(Handling::BatchSettled));
                continue;
            }
            if let Some(us) = nothing_us
                && (owed(&self.all).is_empty() || us > locked_until_us(&self.all))
            {
                return;
            }
            sleep(PAUSE).await;
        }
    }
}
