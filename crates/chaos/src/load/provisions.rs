//! Load on provisioning: devices that nobody knows register, each over a connection of its own, and are counted from the
//! first packet of TCP to the hub that they are told.
//!
//! The load is closed: each of the workers goes on with the next device as soon as one is registered. Nobody is asked
//! twice; what failed is counted by what was said.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dunlin_gateway::auth;
use dunlin_gateway::client::{Client, ConnectOptions, Event, Transport};
use rustls::ClientConfig;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::figures::Latency;
use super::tally::{Tally, per_s, write_ends};

/// Time for one device.
const WAIT: Duration = Duration::from_secs(30);
/// Seconds that a token is good for.
const TOKEN_LIFE_S: u64 = 3_600;

/// What is to be done.
pub struct Plan {
    /// `host:port` of MQTT over TLS of each gateway, and the name that its certificate has.
    pub doors: Vec<(String, String)>,
    /// Whom to trust.
    pub trust: Arc<ClientConfig>,
    /// Id scope of the provisioning service.
    pub scope: String,
    /// Key of the enrolment group, Base64.
    pub group_key: String,
    /// What the names of the devices begin with; their number follows.
    pub prefix: String,
    /// How many.
    pub devices: usize,
    /// How many at a time.
    pub in_flight: usize,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Devices that were assigned to a hub.
    pub assigned: u64,
    /// The others, by what was said instead.
    pub failed: BTreeMap<String, u64>,
    /// Seconds that it took.
    pub seconds: f64,
    /// Devices per second.
    pub per_s: f64,
    /// From the first packet to the answer; nothing if nobody was assigned.
    pub latency_us: Option<Latency>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  assigned  {} devices, {:.0} per second",
            self.assigned, self.per_s
        )?;
        write_ends(f, self.latency_us.as_ref(), &self.failed, "nobody was assigned")
    }
}

/// Runs it, unless `stop` resolves first; then what there is by then is counted.
pub async fn run(plan: Plan, stop: impl Future<Output = ()>) -> Figures {
    let (plan, next) = (Arc::new(plan), Arc::new(AtomicUsize::new(0)));
    let tally = Arc::new(Tally::new());
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..plan.in_flight {
        let (plan, next, tally) = (Arc::clone(&plan), Arc::clone(&next), Arc::clone(&tally));
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= plan.devices {
                    break;
                }
                let since = Instant::now();
                let registered = timeout(WAIT, plan.register(number)).await;
                let registered = registered.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                tally.count(registered, since.elapsed().as_micros() as u64);
            }
        });
    }
    tokio::select! {
        () = async { while workers.join_next().await.is_some() {} } => {}
        () = stop => {}
    }
    let seconds = begun.elapsed().as_secs_f64();
    let total = tally.total();
    Figures {
        assigned: total.count,
        failed: total.failed,
        seconds,
        per_s: per_s(total.count, seconds),
        latency_us: total.latency_us,
    }
}

impl Plan {
    /// How device `number` connects.
    fn options(&self, number: usize) -> Result<ConnectOptions, String> {
        let name = format!("{}{number}", self.prefix);
        let own = auth::derive_key(&self.group_key, &name).map_err(|error| error.to_string())?;
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let resource = format!("{}/registrations/{name}", self.scope);
        let token = auth::sign(&resource, &own, now_s + TOKEN_LIFE_S, None);
        let token = token.map_err(|error| error.to_string())?;
        let (address, server_name) = &self.doors[number % self.doors.len()];
        let transport = Transport::Tls {
            address: address.clone(),
            server_name: server_name.clone(),
            config: Arc::clone(&self.trust),
        };
        Ok(ConnectOptions {
            username: format!("{resource}/api-version=2019-03-31"),
            clean: true,
            ..ConnectOptions::new(transport, &self.scope, &name, token)
        })
    }

    async fn register(&self, number: usize) -> Result<(), String> {
        let options = self.options(number)?;
        let lost = |error: dunlin_gateway::client::ClientError| error.to_string();
        let mut client = Client::connect(&options).await.map_err(lost)?;
        client.subscribe("$dps/registrations/res/#").await.map_err(lost)?;
        let body = json!({ "registrationId": options.client_id, "payload": null }).to_string();
        let topic = "$dps/registrations/PUT/iotdps-register/?$rid=1";
        client.publish(topic, body.as_bytes()).await.map_err(lost)?;
        client.flush().await.map_err(lost)?;
        let told = loop {
            match client.next_event().await {
                Event::Message { payload, .. } => break payload,
                Event::Disconnected { .. } => return Err("the connection ended".to_owned()),
                _ => {}
            }
        };
        client.disconnect().await;
        let told: Value = serde_json::from_slice(&told).map_err(|error| error.to_string())?;
        match told["status"].as_str() {
            Some("assigned") => Ok(()),
            Some(other) => Err(format!("{other} {}", told["registrationState"]["errorCode"])),
            None => Err(format!("error {}", told["errorCode"])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::histogram;

    #[test]
    fn figures_are_put_into_words() {
        let mut latency_us = histogram();
        for us in 1..=1_000 {
            latency_us.record(us * 10).expect("within bounds");
        }
        let figures = Figures {
            assigned: 1_000,
            failed: BTreeMap::from([("error 503001".to_owned(), 2)]),
            seconds: 10.0,
            per_s: 100.0,
            latency_us: Latency::of(&latency_us),
        };
        let text = figures.to_string();
        assert!(text.contains("1000 devices, 100 per second"), "{text}");
        assert!(text.ends_with("failed    2: error 503001"), "{text}");
    }
}
