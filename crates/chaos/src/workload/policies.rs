//! W11: the lives of shared access policies. Created, given another primary key and another secondary one, their keys
//! swapped, removed, through one gateway after the other, with every key tried at all of them in between.
//!
//! One change at a time, so that what follows on it is clear. After an outcome that is not known nothing about the
//! policy is, and another one begins its life; what is left of it is removed as soon as that can be.

use std::collections::BTreeMap;
use std::time::Duration;

use dunlin_cluster::admin::{AdminRequest, PolicyKey, PolicyLine};
use dunlin_gateway::auth;
use dunlin_model::directory::Right;
use futures_util::future::join_all;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use reqwest::{Method, StatusCode};
use tokio::time::{Instant, timeout};

use super::grant::{Asked, Door, Grant};
use super::operation::Outcome;
use super::{Bench, outcome_of_change};
use crate::invariants::identity::REFUSED_WITHIN;
use crate::stage;

/// Time for a probe's answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Looks at the keys after a change, and the pause between two: a node shows its copy, which may be older.
const LOOKS_MAX: u32 = 50;
/// See [`LOOKS_MAX`].
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Policies whose removal is still to be made sure; beyond it none is remembered. The hub takes 64 policies.
const LEFT_MAX: usize = 32;

/// Lives, one after the other, until it is told to stop. `slot` tells those apart that run at once.
pub async fn run(mut bench: Bench, slot: usize, period: Duration) {
    let device = format!("granted-{slot}");
    // It shows the keys of policies, and never its own.
    let mut random = StdRng::seed_from_u64(bench.seed ^ (slot as u64 + 1) << 24);
    if !bench.make_device(&device, &stage::draw_key(&mut random)).await {
        return;
    }
    let mut left = Vec::new();
    for life in 0_usize.. {
        let begun = Instant::now();
        let mut one = Life {
            policy: format!("grant-{slot}-{life}"),
            device: device.clone(),
            keys: Vec::new(),
            now: Vec::new(),
            node: slot + life,
            bench: bench.clone(),
        };
        one.sweep(&mut left).await;
        let is_gone = one.live(period).await.is_some();
        if !is_gone && left.len() < LEFT_MAX {
            left.push(one.policy);
        }
        // Not faster than that, even where everything is refused at once.
        if !bench.wait_until(begun + period).await {
            return;
        }
    }
}

struct Life {
    bench: Bench,
    policy: String,
    device: String,
    /// In Base64, in the order in which they were first seen.
    keys: Vec<String>,
    /// Numbers of those that the policy has: the primary and the secondary, or none.
    now: Vec<u32>,
    node: usize,
}

impl Life {
    /// `None` when it ended early, and the policy may still be there.
    async fn live(&mut self, period: Duration) -> Option<()> {
        let plan = [
            Asked::Create,
            Asked::RenewPrimary,
            Asked::Swap,
            Asked::RenewSecondary,
            Asked::Remove,
        ];
        for asked in plan {
            let begun = Instant::now();
            let before = self.now.clone();
            if self.change(asked).await != Outcome::Ok {
                return None;
            }
            let done = Instant::now();
            for key in self.now.clone() {
                self.probe(key).await;
            }
            let gone: Vec<u32> = before.into_iter().filter(|key| !self.now.contains(key)).collect();
            if !gone.is_empty() {
                let settle = REFUSED_WITHIN + Duration::from_millis(50);
                if !self.bench.wait_until(done + settle).await {
                    return None;
                }
                for key in gone {
                    self.probe(key).await;
                }
            }
            if !self.bench.wait_until(begun + period).await {
                return None;
            }
        }
        Some(())
    }

    async fn change(&mut self, asked: Asked) -> Outcome {
        let node = self.bench.turn(&mut self.node);
        let name = self.policy.clone();
        let renewal = |key| AdminRequest::RenewPolicyKey {
            name: name.clone(),
            key,
        };
        let request = match asked {
            Asked::Create => AdminRequest::CreatePolicy {
                name,
                rights: vec![Right::RegistryRead, Right::DeviceConnect],
            },
            Asked::RenewPrimary => renewal(PolicyKey::Primary),
            Asked::RenewSecondary => renewal(PolicyKey::Secondary),
            Asked::Swap => renewal(PolicyKey::Swap),
            Asked::Remove => AdminRequest::RemovePolicy { name },
            Asked::Probe { .. } => return Outcome::Fail,
        };
        let invoked_us = self.bench.now_us();
        let (mut outcome, mut detail) = outcome_of_change(self.ask(node, &request).await);
        let completed_us = self.bench.now_us();
        if outcome == Outcome::Ok && !self.learn(asked).await {
            (outcome, detail) = (Outcome::Unknown, "its keys were not shown".to_owned());
        }
        let keys = match outcome {
            Outcome::Ok => self.now.clone(),
            _ => Vec::new(),
        };
        self.note(asked, keys, node, (invoked_us, completed_us), (outcome, detail));
        outcome
    }

    async fn ask(&self, node: usize, request: &AdminRequest) -> Result<(StatusCode, bytes::Bytes), String> {
        let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        let asked = (Method::POST, "/cluster/admin");
        self.bench.hub.attempt(node, asked, None, Some(body), None).await
    }

    /// Learns which keys a change has made, from the node that made it: its copy may be of a moment ago.
    async fn learn(&mut self, asked: Asked) -> bool {
        if asked == Asked::Remove {
            self.now.clear();
            return true;
        }
        let before: Vec<String> = self
            .now
            .iter()
            .map(|key| self.keys[*key as usize].clone())
            .collect();
        for _ in 0..LOOKS_MAX {
            if let Some(keys) = self.look().await
                && is_after(asked, &before, &keys)
            {
                self.now = keys.into_iter().map(|key| self.number(key)).collect();
                return true;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        false
    }

    /// The policy's keys, as the node shows them that was asked last.
    async fn look(&self) -> Option<Vec<String>> {
        let (status, body) = self.ask(self.node, &AdminRequest::Policies).await.ok()?;
        if !status.is_success() {
            return None;
        }
        let mut found: BTreeMap<String, PolicyLine> = serde_json::from_slice(&body).ok()?;
        let keys = found.remove(&self.policy)?.keys;
        Some(vec![keys.primary, keys.secondary])
    }

    fn number(&mut self, key: String) -> u32 {
        let known = self.keys.iter().position(|known| *known == key);
        let place = known.unwrap_or_else(|| {
            self.keys.push(key);
            self.keys.len() - 1
        });
        place as u32
    }

    /// Tries a key at every gateway, over HTTPS and over MQTT.
    async fn probe(&self, key: u32) {
        let doors = [Door::Https, Door::Mqtt];
        let probes = (0..self.bench.gateways.len())
            .flat_map(|node| doors.map(|door| (node, door)))
            .map(|(node, door)| self.probe_at(node, door, key));
        join_all(probes).await;
    }

    async fn probe_at(&self, node: usize, door: Door, key: u32) {
        let invoked_us = self.bench.now_us();
        let answered = match door {
            Door::Https => self.read_registry(node, key).await,
            Door::Mqtt => self.connect(node, key).await,
        };
        let us = (invoked_us, self.bench.now_us());
        self.note(Asked::Probe { key, door }, Vec::new(), node, us, answered);
    }

    fn token(&self, resource: &str, key: u32) -> Result<String, String> {
        let (key, expiry_s) = (&self.keys[key as usize], stage::token_expiry_s());
        auth::sign(resource, key, expiry_s, Some(&self.policy)).map_err(|error| error.to_string())
    }

    async fn read_registry(&self, node: usize, key: u32) -> (Outcome, String) {
        let token = match self.token(&self.bench.host, key) {
            Ok(token) => token,
            Err(error) => return (Outcome::Unknown, error),
        };
        let path = format!("/devices/{}?api-version=2021-04-12", self.device);
        let asked = (Method::GET, path.as_str());
        let answer = self.bench.hub.attempt(node, asked, Some(&token), None, None);
        match timeout(PROBE_TIMEOUT, answer).await {
            Err(_) => (Outcome::Unknown, "no answer in time".to_owned()),
            Ok(Err(error)) => (Outcome::Unknown, error),
            Ok(Ok((StatusCode::OK | StatusCode::NOT_FOUND, _))) => (Outcome::Ok, String::new()),
            Ok(Ok((StatusCode::UNAUTHORIZED, _))) => (Outcome::Fail, "401".to_owned()),
            Ok(Ok((status, _))) => (Outcome::Unknown, status.to_string()),
        }
    }

    async fn connect(&self, node: usize, key: u32) -> (Outcome, String) {
        let resource = format!("{}/devices/{}", self.bench.host, self.device);
        match self.token(&resource, key) {
            Ok(token) => self.bench.enter(node, &self.device, token, PROBE_TIMEOUT).await,
            Err(error) => (Outcome::Unknown, error),
        }
    }

    /// Removes what earlier lives may have left; what cannot be removed now stays for the next life.
    async fn sweep(&mut self, left: &mut Vec<String>) {
        let node = self.bench.turn(&mut self.node);
        for name in std::mem::take(left) {
            let request = AdminRequest::RemovePolicy { name: name.clone() };
            let (outcome, _) = outcome_of_change(self.ask(node, &request).await);
            if outcome == Outcome::Unknown {
                left.push(name);
            }
        }
    }

    fn note(
        &self,
        asked: Asked,
        keys: Vec<u32>,
        node: usize,
        (invoked_us, completed_us): (u64, u64),
        (outcome, detail): (Outcome, String),
    ) {
        self.bench.shelf.grants.note(Grant {
            policy: self.policy.clone(),
            asked,
            keys,
            node,
            invoked_us,
            completed_us,
            outcome,
            detail,
        });
    }
}

/// Whether `keys` are those of a policy after a change of one that had `before`.
fn is_after(asked: Asked, before: &[String], keys: &[String]) -> bool {
    match (asked, before, keys) {
        (Asked::RenewPrimary, [primary, _], [now, _]) => now != primary,
        (Asked::RenewSecondary, [_, secondary], [_, now]) => now != secondary,
        (Asked::Swap, [primary, secondary], [first, second]) => first == secondary && second == primary,
        (Asked::Create, [], _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_before_a_change_are_not_taken_for_those_after_it() {
        let keys = |texts: [&str; 2]| texts.map(str::to_owned);
        let before = keys(["a", "b"]);
        for (asked, after) in [
            (Asked::RenewPrimary, ["c", "b"]),
            (Asked::RenewSecondary, ["a", "c"]),
            (Asked::Swap, ["b", "a"]),
        ] {
            assert!(is_after(asked, &before, &keys(after)), "{asked:?}");
            assert!(!is_after(asked, &before, &before), "{asked:?}");
        }
        assert!(is_after(Asked::Create, &[], &before));
    }
}
