//! W6: devices whose history is erased. Each sends over HTTPS, also while a service has it erased; then it is looked for
//! at every gateway, and made again under the same name, with a history of its own. The last of its lives is not ended.
//!
//! An erasure that is not answered is asked for again until it is, since asking twice is asking once. But it may come
//! late and meet whoever has the name by then, so after that nobody gets it again.

use std::time::Duration;

use dunlin_model::id::DeviceId;
use futures_util::future::join_all;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::erasure::{Erasure, Look, Sent, Trace};
use super::operation::Outcome;
use super::{Bench, header};
use crate::hub::Page;
use crate::oracle::{self, Deed, Road};
use crate::stage;

/// Names that are kept for one slot; when all are used, it is done.
pub const NAMES: usize = 40;
/// Lives of one name.
const LIVES: usize = 3;
/// Messages of one life, before it is erased.
const MESSAGES: usize = 4;
/// Events of a page, and pages of one look: more than come into a shard while a name lives.
const PAGE_EVENTS: usize = 1000;
/// See [`PAGE_EVENTS`].
const PAGES_MAX: usize = 20;
/// The header of an answer that says where a message stands.
const RECEIPT: &str = "dunlin-receipt";

/// A name whose devices are erased.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Place in the history.
    pub index: u32,
    /// The device.
    pub device: String,
    /// Its shard.
    pub shard: u32,
}

impl Subject {
    /// All names for `slots` slots, slot by slot, in a cluster of so many shards; `first` is the first's place in the
    /// history.
    pub fn all(slots: usize, first: usize, shards: u32) -> Vec<Subject> {
        let numbers = (0..slots).flat_map(|slot| (0..NAMES).map(move |number| (slot, number)));
        let subject = |(place, (slot, number)): (usize, (usize, usize))| {
            let device = format!("erased-{slot}-{number}");
            let slot = DeviceId::parse(&device).map_or(0, |device| u32::from(device.slot().0));
            Subject {
                index: (first + place) as u32,
                shard: slot % shards.max(1),
                device,
            }
        };
        numbers.enumerate().map(subject).collect()
    }
}

/// One name after the other, until it is told to stop.
pub async fn run(mut bench: Bench, subjects: Vec<Subject>, period: Duration) {
    for subject in subjects {
        let begun = Instant::now();
        let mut one = Life {
            random: StdRng::seed_from_u64(bench.seed ^ u64::from(subject.index) << 16),
            node: subject.index as usize,
            subject,
            key: String::new(),
            next: 0,
            first: None,
            period,
            bench: bench.clone(),
        };
        one.live().await;
        // Not faster than that, even where everything is refused at once.
        if !bench.wait_until(begun + period).await {
            return;
        }
    }
}

struct Life {
    bench: Bench,
    subject: Subject,
    random: StdRng,
    key: String,
    node: usize,
    /// The number of the next message.
    next: u32,
    /// The offset of the first message that has a receipt.
    first: Option<u64>,
    period: Duration,
}

impl Life {
    /// `None` when it ended early.
    async fn live(&mut self) -> Option<()> {
        // Over HTTPS nothing is open between two requests; one that never ends stands for all.
        let opened = Deed::Opened {
            node: 0,
            us: self.bench.now_us(),
        };
        self.bench.shelf.recorder.note(self.subject.index, opened);
        for life in 0..LIVES {
            self.make().await?;
            for _ in 0..MESSAGES {
                let begun = Instant::now();
                self.send().await;
                let pause = self.period / MESSAGES as u32;
                if !self.bench.wait_until(begun + pause).await {
                    return None;
                }
            }
            if life + 1 < LIVES {
                self.erase().await?;
            }
        }
        Some(())
    }

    fn next_node(&mut self) -> usize {
        self.bench.turn(&mut self.node)
    }

    /// Makes the device, with a key that it has not had before.
    async fn make(&mut self) -> Option<()> {
        self.key = stage::draw_key(&mut self.random);
        let node = self.next_node();
        let path = format!("/devices/{}?api-version=2021-04-12", self.subject.device);
        let keys = json!({ "primaryKey": self.key, "secondaryKey": self.key });
        let body = json!({
            "deviceId": self.subject.device,
            "authentication": { "type": "sas", "symmetricKey": keys },
        });
        let asked = (Method::PUT, path.as_str());
        let body = Some(body.to_string().into_bytes());
        let answer = self.bench.hub.attempt(node, asked, None, body, None).await;
        matches!(answer, Ok((StatusCode::OK, _))).then_some(())
    }

    async fn send(&mut self) {
        let message = self.next_message();
        let node = self.next_node();
        let stands = self.send_at(node, message).await;
        self.first = self.first.or(stands);
    }

    /// The next message, which is noted as sent.
    fn next_message(&mut self) -> (u32, String) {
        let (index, seq) = (self.subject.index, self.next);
        self.next += 1;
        let mut text = String::new();
        let of = (index as usize, self.subject.device.as_str());
        self.bench.payloads.write(&mut text, of, seq);
        let sent = Deed::Sent {
            us: self.bench.now_us(),
            digest: oracle::digest(text.as_bytes()),
            road: Road::Https,
            former: false,
        };
        self.bench.shelf.recorder.note(index, sent);
        (seq, text)
    }

    /// Sends a message, once; where it stands, if it has a receipt.
    async fn send_at(&self, node: usize, (seq, text): (u32, String)) -> Option<u64> {
        let Subject { index, device, shard } = &self.subject;
        let token = stage::token(&self.bench.host, device, &self.key).ok()?;
        let path = format!("/devices/{device}/messages/events?api-version=2021-04-12");
        let asked = (Method::POST, path.as_str());
        let body = Some(text.into_bytes());
        let headers = [("authorization", token.as_str())];
        let offset = match self.bench.hub.ask(node, asked, &headers, body).await {
            Err(_) => None,
            Ok(answered) => match answered.status {
                StatusCode::NO_CONTENT => {
                    let us = self.bench.now_us();
                    self.bench.shelf.recorder.note(*index, Deed::Acked { seq, us });
                    offset_of(header(&answered, RECEIPT))
                }
                StatusCode::GATEWAY_TIMEOUT | StatusCode::INTERNAL_SERVER_ERROR => None,
                // Whatever else the hub says itself means that nothing was stored.
                _ => return None,
            },
        };
        self.note(Trace::Sent(Sent {
            device: device.clone(),
            seq,
            shard: *shard,
            offset,
        }));
        offset
    }

    /// Has the device erased while it sends once more, and looks for it; none if its name is not to be used again.
    async fn erase(&mut self) -> Option<()> {
        let message = self.next_message();
        let node = self.next_node();
        let other = self.next_node();
        let (stands, mut ended) = tokio::join!(self.send_at(node, message), self.erase_at(other));
        self.first = self.first.or(stands);
        let is_clear = ended.0 != Outcome::Unknown;
        while ended.0 == Outcome::Unknown {
            let node = self.next_node();
            if !self.bench.wait_until(Instant::now() + self.period).await {
                return None;
            }
            ended = self.erase_at(node).await;
        }
        if let (Outcome::Ok, Some(upto)) = ended {
            self.look(upto).await;
        }
        (is_clear && ended.0 == Outcome::Ok).then_some(())
    }

    async fn erase_at(&self, node: usize) -> (Outcome, Option<u64>) {
        let path = format!("/devices/{}/erase?api-version=2021-04-12", self.subject.device);
        let invoked_us = self.bench.now_us();
        let asked = (Method::POST, path.as_str());
        let answer = self.bench.hub.attempt(node, asked, None, None, None).await;
        let (outcome, upto) = match answer {
            Ok((StatusCode::OK, body)) => {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                (Outcome::Ok, body["upto"].as_u64())
            }
            // Of these some say that nothing was done; all may be asked again.
            Ok((status, _)) if status.is_server_error() => (Outcome::Unknown, None),
            Err(_) => (Outcome::Unknown, None),
            Ok(_) => (Outcome::Fail, None),
        };
        self.note(Trace::Erasure(Erasure {
            device: self.subject.device.clone(),
            node,
            invoked_us,
            completed_us: self.bench.now_us(),
            outcome,
            upto,
        }));
        (outcome, upto)
    }

    /// Looks for the device and its events at every gateway.
    async fn look(&self, upto: u64) {
        let looks = (0..self.bench.gateways.len()).map(|node| async move {
            let invoked_us = self.bench.now_us();
            let look = Look {
                device: self.subject.device.clone(),
                node,
                invoked_us,
                is_there: self.bench.has_device(node, &self.subject.device).await,
                shown: self.read(node, upto).await,
            };
            self.note(Trace::Look(look));
        });
        join_all(looks).await;
    }

    /// Offsets of the device's events below `upto`, as far as a node shows its shard.
    async fn read(&self, node: usize, upto: u64) -> Vec<u64> {
        let (mut shown, mut from) = (Vec::new(), self.first.unwrap_or(upto));
        for _ in 0..PAGES_MAX {
            if from >= upto {
                break;
            }
            let path = format!("/events/{}?from={from}&max={PAGE_EVENTS}", self.subject.shard);
            let asked = (Method::GET, path.as_str());
            let answer = self.bench.hub.attempt(node, asked, None, None, None).await;
            let Ok((StatusCode::OK, body)) = answer else {
                break;
            };
            let Ok(page) = serde_json::from_slice::<Page>(&body) else {
                break;
            };
            let own = page
                .events
                .iter()
                .filter(|event| event.device_id == self.subject.device);
            shown.extend(own.map(|event| event.offset));
            if page.next <= from {
                break;
            }
            from = page.next;
        }
        shown
    }

    fn note(&self, trace: Trace) {
        self.bench.shelf.traces.note(trace);
    }
}

/// The offset of a receipt, `shard/offset/term`.
fn offset_of(receipt: &str) -> Option<u64> {
    receipt.split('/').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_names_the_offset_and_names_are_kept_in_their_order() {
        assert_eq!(offset_of("13/7/1"), Some(7));
        assert_eq!(offset_of("13"), None);
        let subjects = Subject::all(2, 100, 8);
        assert_eq!(subjects.len(), 2 * NAMES);
        for (place, subject) in subjects.iter().enumerate() {
            assert_eq!((subject.index as usize, subject.shard < 8), (100 + place, true));
        }
        assert_eq!(subjects[NAMES].device, "erased-1-0");
    }
}
