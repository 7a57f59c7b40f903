//! Load on what services do over HTTPS: create devices, change what is desired of them, send them messages, ask for
//! them; and devices that connect and leave again.
//!
//! The load is closed: each of the workers goes on with the next as soon as it has its answer, and at another gateway in
//! turn. Nothing is done twice; what failed is counted by what was said.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dunlin_gateway::client::{Client, ConnectOptions};
use futures_util::stream::{self, StreamExt as _};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::figures::Latency;
use super::tally::{Tally, per_s, write_ends};
use crate::hub::{Hub, error_code};

/// Time for one.
const WAIT: Duration = Duration::from_secs(30);
/// Devices that are made at a time before the load begins.
const MAKING_AT_A_TIME: usize = 32;

/// What is done.
#[derive(Clone)]
pub enum Deed {
    /// Devices are created, each by a request of its own.
    Create,
    /// What is desired of a device is changed.
    Desired,
    /// A device is sent a message, which waits for it. A queue holds 50.
    Message,
    /// One device is asked for by its id, in the query language.
    Query,
    /// A device connects, is let in, and leaves; these are they.
    Connect(Vec<ConnectOptions>),
}

/// What is to be done.
pub struct Plan {
    /// The services' doors.
    pub hub: Arc<Hub>,
    /// What.
    pub deed: Deed,
    /// What the names of the devices begin with; their number follows.
    pub prefix: String,
    /// Devices that are there for it; none for [`Deed::Create`], which makes its own.
    pub devices: usize,
    /// How many at a time.
    pub in_flight: usize,
    /// Load before the measured time.
    pub warm_up: Duration,
    /// The measured time.
    pub duration: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// What was done in the measured time.
    pub done: u64,
    /// What was not, by what was said instead.
    pub failed: BTreeMap<String, u64>,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Done per second.
    pub per_s: f64,
    /// From the beginning of each to its answer; nothing if nothing was done.
    pub latency_us: Option<Latency>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  done      {}, {:.0} per second", self.done, self.per_s)?;
        write_ends(f, self.latency_us.as_ref(), &self.failed, "nothing was done")
    }
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// A device cannot be made.
    #[error("create {device}: {why}")]
    Create {
        /// Which.
        device: String,
        /// Why not.
        why: String,
    },
    /// It was stopped before.
    #[error("stopped")]
    Stopped,
}

/// Runs it, unless `stop` resolves first.
pub async fn run(plan: Plan, stop: impl Future<Output = ()>) -> Result<Figures, ServicesError> {
    let working = async {
        plan.make_devices().await?;
        Ok(plan.work().await)
    };
    tokio::select! {
        figures = working => figures,
        () = stop => Err(ServicesError::Stopped),
    }
}

impl Plan {
    async fn make_devices(&self) -> Result<(), ServicesError> {
        let number = match self.deed {
            Deed::Create | Deed::Connect(_) => 0,
            _ => self.devices,
        };
        let mut making = stream::iter(0..number)
            .map(|number| async move {
                let device = format!("{}{number}", self.prefix);
                let path = format!("/devices/{device}");
                match self.ask(number, Method::PUT, &path, "{}").await {
                    Ok(()) => Ok(()),
                    Err(why) => Err(ServicesError::Create { device, why }),
                }
            })
            .buffer_unordered(MAKING_AT_A_TIME);
        while let Some(made) = making.next().await {
            made?;
        }
        Ok(())
    }

    async fn work(self) -> Figures {
        let from = Instant::now() + self.warm_up;
        let until = from + self.duration;
        let seconds = self.duration.as_secs_f64();
        let (tally, next) = (Arc::new(Tally::new()), Arc::new(AtomicUsize::new(0)));
        let plan = Arc::new(self);
        let mut workers = JoinSet::new();
        for _ in 0..plan.in_flight {
            let (plan, next, tally) = (Arc::clone(&plan), Arc::clone(&next), Arc::clone(&tally));
            workers.spawn(async move {
                while Instant::now() < until {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let since = Instant::now();
                    let done = timeout(WAIT, plan.act(number)).await;
                    let done = done.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                    if since >= from && Instant::now() < until {
                        tally.count(done, since.elapsed().as_micros() as u64);
                    }
                }
            });
        }
        while workers.join_next().await.is_some() {}
        let total = tally.total();
        Figures {
            done: total.count,
            failed: total.failed,
            seconds,
            per_s: per_s(total.count, seconds),
            latency_us: total.latency_us,
        }
    }

    async fn act(&self, number: usize) -> Result<(), String> {
        let device = match &self.deed {
            Deed::Create => number,
            _ => number % self.devices.max(1),
        };
        let name = format!("{}{device}", self.prefix);
        match &self.deed {
            Deed::Create => {
                self.ask(number, Method::PUT, &format!("/devices/{name}"), "{}")
                    .await
            }
            Deed::Desired => {
                let body = json!({ "properties": { "desired": { "load": number } } }).to_string();
                self.ask(number, Method::PATCH, &format!("/twins/{name}"), &body)
                    .await
            }
            Deed::Message => {
                let path = format!("/devices/{name}/messages/devicebound");
                self.ask(number, Method::POST, &path, "load").await
            }
            Deed::Query => {
                let query = format!("SELECT deviceId FROM devices WHERE deviceId = '{name}'");
                let body = json!({ "query": query }).to_string();
                self.ask(number, Method::POST, "/devices/query", &body).await
            }
            Deed::Connect(devices) => {
                let options = &devices[number % devices.len()];
                let client = Client::connect(options).await;
                client.map_err(|error| error.to_string())?.disconnect().await;
                Ok(())
            }
        }
    }

    /// One request, at one gateway after the other.
    async fn ask(&self, number: usize, method: Method, path: &str, body: &str) -> Result<(), String> {
        let node = number % self.hub.node_count().max(1);
        let body = Some(body.as_bytes().to_vec());
        let answer = self.hub.attempt(node, (method, path), None, body, None).await?;
        match answer {
            (StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT, _) => Ok(()),
            (status, body) => Err(format!("{status} {}", error_code(&body))),
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
            done: 1_000,
            failed: BTreeMap::from([("429 Too Many Requests".to_owned(), 2)]),
            seconds: 10.0,
            per_s: 100.0,
            latency_us: Latency::of(&latency_us),
        };
        let text = figures.to_string();
        assert!(text.contains("1000, 100 per second"), "{text}");
        assert!(text.ends_with("failed    2: 429 Too Many Requests"), "{text}");
    }
}
