//! Load on direct methods: services call devices that answer at once, and count how long that takes.
//!
//! Devices and callers share this process and its cores; the way between them is the hub's alone. With a rate the load is
//! open: a call is counted from when it was due. Without one each of the callers goes on as soon as it has its answer. A
//! call is made once, whatever becomes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dunlin_gateway::client::{Client, ConnectOptions, Event};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::figures::Latency;
use super::tally::{Tally, per_s, write_ends};
use crate::hub::{Hub, error_code};

/// What devices subscribe to.
const FILTER: &str = "$iothub/methods/POST/#";
/// Time for all devices to listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause of a device whose connection was refused or lost.
const PAUSE: Duration = Duration::from_millis(500);
/// Time for the last answers.
const DRAIN: Duration = Duration::from_secs(20);

/// What is to be done.
pub struct Plan {
    /// How each device connects.
    pub devices: Vec<ConnectOptions>,
    /// The services' doors.
    pub hub: Arc<Hub>,
    /// Calls per second; without it, as many as the callers make.
    pub rate: Option<u64>,
    /// Calls at a time.
    pub in_flight: usize,
    /// Bytes of a payload, each way.
    pub payload_bytes: usize,
    /// Load before the measured time.
    pub warm_up: Duration,
    /// The measured time.
    pub duration: Duration,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    /// Devices do not come in.
    #[error("only {listening} of {all} devices listen after {} s", LISTEN_TIMEOUT.as_secs())]
    NotListening {
        /// Those that do.
        listening: usize,
        /// Those that should.
        all: usize,
    },
    /// Somebody asked for an end.
    #[error("stopped before the end")]
    Stopped,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Devices that were called.
    pub devices: usize,
    /// Calls of the measured time that were answered by their device.
    pub answered: u64,
    /// The others, by what was said instead.
    pub failed: BTreeMap<String, u64>,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Answers per second.
    pub per_s: f64,
    /// From when a call was due to its answer; nothing if none was answered.
    pub latency_us: Option<Latency>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  answered  {} calls of {} devices, {:.0} per second",
            self.answered, self.devices, self.per_s
        )?;
        write_ends(f, self.latency_us.as_ref(), &self.failed, "nothing was answered")
    }
}

struct Caller {
    hub: Arc<Hub>,
    paths: Vec<String>,
    body: Vec<u8>,
    payload: Value,
    next: AtomicUsize,
    tally: Tally,
    /// The measured time.
    from: Instant,
    until: Instant,
}

/// Runs it, unless `stop` resolves first.
pub async fn run(plan: Plan, stop: impl Future<Output = ()>) -> Result<Figures, CallsError> {
    let mut devices = JoinSet::new();
    let listening = Arc::new((AtomicUsize::new(0), Notify::new()));
    let all = plan.devices.len();
    let paths = plan.devices.iter().map(|device| {
        let id = &device.client_id;
        format!("/twins/{id}/methods?api-version=2021-04-12")
    });
    let paths = paths.collect();
    for options in plan.devices {
        devices.spawn(answer(options, Arc::clone(&listening)));
    }
    let everybody = async {
        while listening.0.load(Ordering::Relaxed) < all {
            listening.1.notified().await;
        }
    };
    let working = async {
        timeout(LISTEN_TIMEOUT, everybody).await.map_err(|_| {
            let listening = listening.0.load(Ordering::Relaxed);
            CallsError::NotListening { listening, all }
        })?;
        let payload = json!("x".repeat(plan.payload_bytes));
        let from = Instant::now() + plan.warm_up;
        let caller = Arc::new(Caller {
            hub: plan.hub,
            paths,
            body: json!({ "methodName": "load", "payload": payload })
                .to_string()
                .into_bytes(),
            payload,
            next: AtomicUsize::new(0),
            tally: Tally::new(),
            from,
            until: from + plan.duration,
        });
        match plan.rate {
            Some(rate) => call_at(&caller, rate, plan.in_flight).await,
            None => call_on(&caller, plan.in_flight).await,
        }
        Ok(caller.figures(all))
    };
    tokio::select! {
        figures = working => figures,
        () = stop => Err(CallsError::Stopped),
    }
}

/// Each of so many callers goes on as soon as it has its answer.
async fn call_on(caller: &Arc<Caller>, callers: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let caller = Arc::clone(caller);
        tasks.spawn(async move {
            while Instant::now() < caller.until {
                caller.call(Instant::now()).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// A call whenever one is due, so many at a time at the most.
async fn call_at(caller: &Arc<Caller>, rate: u64, in_flight: usize) {
    let places = Arc::new(Semaphore::new(in_flight));
    let (mut tasks, begun) = (JoinSet::new(), Instant::now());
    for number in 0_u64.. {
        let due = begun + Duration::from_secs_f64(number as f64 / rate as f64);
        if due >= caller.until {
            break;
        }
        sleep_until(due).await;
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            break;
        };
        let caller = Arc::clone(caller);
        tasks.spawn(async move {
            caller.call(due).await;
            drop(place);
        });
        while tasks.try_join_next().is_some() {}
    }
    let drained = async { while tasks.join_next().await.is_some() {} };
    let _ = timeout_at(caller.until + DRAIN, drained).await;
}

impl Caller {
    async fn call(&self, due: Instant) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = &self.paths[number % self.paths.len()];
        let node = number / self.paths.len() % self.hub.node_count().max(1);
        let asked = (Method::POST, path.as_str());
        let answered = self
            .hub
            .attempt(node, asked, None, Some(self.body.clone()), None)
            .await;
        if due < self.from || due >= self.until {
            return;
        }
        let took_us = due.elapsed().as_micros() as u64;
        let ended = match answered {
            Ok((StatusCode::OK, body)) => {
                let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                let is_echoed = answer["payload"] == self.payload;
                is_echoed.then_some(()).ok_or_else(|| "another answer".to_owned())
            }
            Ok((status, body)) => Err(format!("{status} {}", error_code(&body))),
            Err(error) => Err(error),
        };
        self.tally.count(ended, took_us);
    }

    fn figures(&self, devices: usize) -> Figures {
        let seconds = (self.until - self.from).as_secs_f64();
        let total = self.tally.total();
        Figures {
            devices,
            answered: total.count,
            failed: total.failed,
            seconds,
            per_s: per_s(total.count, seconds),
            latency_us: total.latency_us,
        }
    }
}

/// A device that answers every call with what came with it, until its task is ended.
async fn answer(options: ConnectOptions, listening: Arc<(AtomicUsize, Notify)>) {
    let mut is_counted = false;
    loop {
        if let Ok(mut client) = Client::connect(&options).await
            && client.subscribe(FILTER).await.is_ok()
        {
            loop {
                match client.next_event().await {
                    Event::Suback { .. } if !is_counted => {
                        is_counted = true;
                        listening.0.fetch_add(1, Ordering::Relaxed);
                        listening.1.notify_one();
                    }
                    Event::Message { topic, payload, .. } => {
                        let Some((_, rid)) = topic.split_once("$rid=") else {
                            continue;
                        };
                        let topic = format!("$iothub/methods/res/200/?$rid={rid}");
                        let sent = client.publish_unacknowledged(&topic, &payload).await;
                        if sent.is_err() || client.flush().await.is_err() {
                            break;
                        }
                    }
                    Event::Disconnected { .. } => break,
                    _ => {}
                }
            }
        }
        sleep(PAUSE).await;
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
            devices: 3,
            answered: 1_000,
            failed: BTreeMap::from([("504 Gateway Timeout".to_owned(), 2)]),
            seconds: 10.0,
            per_s: 100.0,
            latency_us: Latency::of(&latency_us),
        };
        let text = figures.to_string();
        assert!(text.contains("1000 calls of 3 devices, 100 per second"), "{text}");
        assert!(
            text.contains("p50 5.00 ms") && text.contains("max 10.0 ms"),
            "{text}"
        );
        assert!(text.ends_with("failed    2: 504 Gateway Timeout"), "{text}");
    }
}
