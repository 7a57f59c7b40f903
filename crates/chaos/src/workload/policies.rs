//! W11: the lives of shared access policies. Created, given another primary key and another secondary one, their keys
//! swapped, removed, through one gateway after the other, with every key tried at all of them in between.
//!
//! One change at a time, so that what follows on it is clear. After an outcome that is not known nothing about the
//! policy is, and another one begins its life; what is left of it is removed as soon as that can be.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dunlin_cluster::admin::{AdminRequest, PolicyKey, PolicyLine};
use dunlin_gateway::auth;
use dunlin_gateway::client::{Client, ClientError, ConnectOptions};
use dunlin_model::directory::Right;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::Bench;
use super::grant::{Asked, Door, Grant};
use super::operation::Outcome;
use crate::invariants::identity::REFUSED_WITHIN;

/// Time for a probe's answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// CONNACK codes that turn a credential away (MQTT 3.1.1: bad user name or password, not authorized).
const TURNED_AWAY: [u8; 2] = [4, 5];
/// Looks at the keys after a change, and the pause between two: a node shows its copy, which may be older.
const LOOKS_MAX: u32 = 50;
/// See [`LOOKS_MAX`].
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Seconds that a token is good for.
const TOKEN_LIFE_S: u64 = 24 * 3_600;
/// Policies whose removal is still to be made sure; beyond it the oldest is forgotten. The hub takes 64 policies.
const LEFT_MAX: usize = 32;
/// Pause before something that was not answered is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Lives, one after the other, until it is told to stop. `slot` tells those apart that run at once.
pub async fn run(mut bench: Bench, slot: usize, period: Duration) {
    let device = format!("granted-{slot}");
    if !make_device(&mut bench, &device).await {
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

/// Makes the device that shows keys over MQTT; `false` if there is no time for it any more.
async fn make_device(bench: &mut Bench, device: &str) -> bool {
    let path = format!("/devices/{device}?api-version=2021-04-12");
    for node in 0_usize.. {
        let body = json!({ "deviceId": device }).to_string().into_bytes();
        let asked = (Method::PUT, path.as_str());
        let node = node % bench.gateways.len().max(1);
        let answer = bench.hub.attempt(node, asked, None, Some(body), None).await;
        if let Ok((StatusCode::OK | StatusCode::CONFLICT, _)) = answer {
            return true;
        }
        if !bench.wait_until(Instant::now() + PAUSE).await {
            break;
        }
    }
    false
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
        self.node = (self.node + 1) % self.bench.gateways.len().max(1);
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
        let (mut outcome, mut detail) = match self.ask(self.node, &request).await {
            Ok((status, _)) if status.is_success() => (Outcome::Ok, String::new()),
            Ok((status, _)) if may_be_done(status) => (Outcome::Unknown, status.to_string()),
            Ok((status, body)) => (
                Outcome::Fail,
                format!("{status} {}", String::from_utf8_lossy(&body)),
            ),
            Err(error) => (Outcome::Unknown, error),
        };
        let completed_us = self.bench.now_us();
        if outcome == Outcome::Ok && !self.learn(asked).await {
            (outcome, detail) = (Outcome::Unknown, "its keys were not shown".to_owned());
        }
        let keys = match outcome {
            Outcome::Ok => self.now.clone(),
            _ => Vec::new(),
        };
        self.note(
            asked,
            keys,
            self.node,
            (invoked_us, completed_us),
            (outcome, detail),
        );
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
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let expiry_s = since.map_or(0, |since| since.as_secs()) + TOKEN_LIFE_S;
        let signed = auth::sign(resource, &self.keys[key as usize], expiry_s, Some(&self.policy));
        signed.map_err(|error| error.to_string())
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
        let token = match self.token(&resource, key) {
            Ok(token) => token,
            Err(error) => return (Outcome::Unknown, error),
        };
        let transport = self.bench.gateways[node].clone();
        let options = ConnectOptions {
            clean: true,
            ..ConnectOptions::new(transport, &self.bench.host, &self.device, token)
        };
        match timeout(PROBE_TIMEOUT, Client::connect(&options)).await {
            Err(_) => (Outcome::Unknown, "no answer in time".to_owned()),
            Ok(Err(ClientError::Refused(code))) if TURNED_AWAY.contains(&code) => {
                (Outcome::Fail, format!("code {code}"))
            }
            Ok(Err(error)) => (Outcome::Unknown, error.to_string()),
            // When it was let in is what counts; its goodbye is not waited for.
            Ok(Ok(_client)) => (Outcome::Ok, String::new()),
        }
    }

    /// Removes what earlier lives may have left; what cannot be removed now stays for the next life.
    async fn sweep(&self, left: &mut Vec<String>) {
        let mut kept = Vec::new();
        for name in std::mem::take(left) {
            let request = AdminRequest::RemovePolicy { name: name.clone() };
            let is_gone = match self
                .ask(self.node % self.bench.gateways.len().max(1), &request)
                .await
            {
                Ok((status, _)) => !may_be_done(status),
                Err(_) => false,
            };
            if !is_gone {
                kept.push(name);
            }
        }
        *left = kept;
    }

    fn note(
        &self,
        asked: Asked,
        keys: Vec<u32>,
        node: usize,
        (invoked_us, completed_us): (u64, u64),
        (outcome, detail): (Outcome, String),
    ) {
        self.bench.grants.note(Grant {
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

/// Whether a change may have been made that was answered so: the directory's leader may have had it all the same.
fn may_be_done(status: StatusCode) -> bool {
    status.is_server_error()
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
