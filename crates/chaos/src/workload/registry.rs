//! W6: the lives of devices. Created, given another key, disabled, enabled, deleted, created again, with
//! the old key and the new one tried at every gateway in between.
//!
//! One operation on a device at a time, so that what follows on it is clear. After an outcome that is not
//! known nothing about the device is, and another one begins its life.

use std::time::Duration;

use futures_util::future::join_all;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::Bench;
use super::operation::{Action, Operation, Outcome};
use crate::invariants::identity::REFUSED_WITHIN;
use crate::stage;

/// Time for a probe's answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

struct Life {
    bench: Bench,
    device: String,
    /// In Base64, in the order in which the device gets them.
    keys: Vec<String>,
    node: usize,
}

/// Lives, one after the other, until it is told to stop. `slot` tells those apart that run at once.
pub async fn run(mut bench: Bench, slot: usize, period: Duration) {
    let mut random = StdRng::seed_from_u64(bench.seed ^ (slot as u64 + 1) << 32);
    for life in 0_usize.. {
        let begun = Instant::now();
        let mut one = Life {
            device: format!("life-{slot}-{life}"),
            keys: (0..3).map(|_| stage::draw_key(&mut random)).collect(),
            node: slot + life,
            bench: bench.clone(),
        };
        one.live(period).await;
        // Not faster than that, even where everything is refused at once.
        if !bench.wait_until(begun + period).await {
            return;
        }
    }
}

impl Life {
    /// `None` when it ended early, which is nothing to be told.
    async fn live(&mut self, period: Duration) -> Option<()> {
        let plan = [
            (Action::Create, 0),
            (Action::Rotate, 1),
            (Action::Disable, 1),
            (Action::Enable, 1),
            (Action::Delete, 1),
            (Action::Create, 2),
            (Action::Delete, 2),
        ];
        for (action, key) in plan {
            let begun = Instant::now();
            if self.act(action, key).await != Outcome::Ok {
                return None;
            }
            let done = Instant::now();
            if !matches!(action, Action::Disable | Action::Delete) {
                self.probe(key).await;
            }
            // What was revoked must be refused from then on, and so is tried then.
            let revoked: Vec<u32> = match action {
                Action::Disable | Action::Delete => (0..=key).collect(),
                _ => (0..key).collect(),
            };
            if !revoked.is_empty() {
                let settle = REFUSED_WITHIN + Duration::from_millis(50);
                if !self.bench.wait_until(done + settle).await {
                    return None;
                }
                for key in revoked {
                    self.probe(key).await;
                }
            }
            if !self.bench.wait_until(begun + period).await {
                return None;
            }
        }
        Some(())
    }

    async fn act(&mut self, action: Action, key: u32) -> Outcome {
        let node = self.bench.turn(&mut self.node);
        let path = format!("/devices/{}?api-version=2021-04-12", self.device);
        let method = match action {
            Action::Delete => Method::DELETE,
            _ => Method::PUT,
        };
        let secret = &self.keys[key as usize];
        let body = json!({
            "deviceId": self.device,
            "status": if action == Action::Disable { "disabled" } else { "enabled" },
            "authentication": { "type": "sas", "symmetricKey": { "primaryKey": secret, "secondaryKey": secret } },
        });
        let body = (action != Action::Delete).then(|| body.to_string().into_bytes());
        let invoked_us = self.bench.now_us();
        let asked = (method, path.as_str());
        let condition = (action != Action::Create).then_some("*");
        let answer = self.bench.hub.attempt(node, asked, None, body, condition);
        let (outcome, detail) = match answer.await {
            Ok((status, _)) if status.is_success() => (Outcome::Ok, String::new()),
            Ok((StatusCode::GATEWAY_TIMEOUT, _)) => (Outcome::Unknown, "504".into()),
            // Whatever else the hub says itself means that nothing was done; a broken one may say 500.
            Ok((status, _)) if status != StatusCode::INTERNAL_SERVER_ERROR => {
                (Outcome::Fail, status.to_string())
            }
            Ok((status, _)) => (Outcome::Unknown, status.to_string()),
            Err(error) => (Outcome::Unknown, error),
        };
        self.note(action, key, node, (invoked_us, outcome, detail));
        outcome
    }

    /// Tries a key at every gateway.
    async fn probe(&self, key: u32) {
        let probes = (0..self.bench.gateways.len()).map(|node| self.probe_at(node, key));
        join_all(probes).await;
    }

    async fn probe_at(&self, node: usize, key: u32) {
        let Ok(token) = stage::token(&self.bench.host, &self.device, &self.keys[key as usize]) else {
            return;
        };
        let invoked_us = self.bench.now_us();
        let entered = self.bench.enter(node, &self.device, token, PROBE_TIMEOUT);
        let (outcome, detail) = entered.await;
        self.note(Action::Probe, key, node, (invoked_us, outcome, detail));
    }

    fn note(
        &self,
        action: Action,
        key: u32,
        node: usize,
        (invoked_us, outcome, detail): (u64, Outcome, String),
    ) {
        self.bench.shelf.operations.note(Operation {
            device: self.device.clone(),
            action,
            key,
            node,
            invoked_us,
            completed_us: self.bench.now_us(),
            outcome,
            detail,
        });
    }
}
