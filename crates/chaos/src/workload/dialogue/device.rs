//! The device's side of a dialogue: it reads its twin, reports, hears of changes, and carries out what it is asked.
//!
//! It stays connected as long as its gateway lets it, and goes to the next one otherwise. What it hears it writes down
//! before it answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dunlin_gateway::client::{Client, ConnectOptions, Event};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{Talk, seen};
use crate::workload::Bench;
use crate::workload::exchange::{Access, Answer, Call, Exchange, Execution, Note, Receipt, Section};

/// Time to connect and to subscribe.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Pause after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(250);
/// What it subscribes to, beside its messages.
const FILTERS: [&str; 3] = [
    "$iothub/twin/res/#",
    "$iothub/twin/PATCH/properties/desired/#",
    "$iothub/methods/POST/#",
];

struct Device {
    bench: Bench,
    talk: Arc<Talk>,
    random: StdRng,
    /// Counts its connections.
    connection: u64,
    /// Counts what it reports.
    reports: u64,
    /// It has read its twin on this connection, or is about to.
    has_read: bool,
    /// What it asked and has no answer to yet: when, and the value if it was a report.
    asked: Option<(u64, Option<String>)>,
}

/// Talks until everybody has left it. It begins at gateway `node`.
pub(super) async fn run(
    bench: Bench,
    talk: Arc<Talk>,
    (token, mut node, seed): (String, usize, u64),
    period: Duration,
) {
    let mut device = Device {
        bench,
        talk,
        random: StdRng::seed_from_u64(seed),
        connection: 0,
        reports: 0,
        has_read: false,
        asked: None,
    };
    while !device.is_left() {
        match device.connect(node, &token).await {
            Some(client) => device.converse(client, period).await,
            None => sleep(PAUSE).await,
        }
        node += 1;
    }
}

impl Device {
    fn is_left(&self) -> bool {
        self.talk.is_left.load(Ordering::Relaxed)
    }

    async fn connect(&mut self, node: usize, token: &str) -> Option<Client> {
        let gateways = &self.bench.gateways;
        let transport = gateways[node % gateways.len()].clone();
        let options = ConnectOptions::new(transport, &self.bench.host, &self.talk.device, token.to_owned());
        let connecting = async {
            let mut client = Client::connect(&options).await.ok()?;
            self.connection += 1;
            self.has_read = false;
            let messages = format!("devices/{}/messages/devicebound/#", self.talk.device);
            for filter in FILTERS.into_iter().chain([&*messages]) {
                client.subscribe(filter).await.ok()?;
                // What comes before the answer is of an earlier subscription, and as good as what comes after.
                loop {
                    match client.next_event().await {
                        Event::Suback { .. } => break,
                        Event::Disconnected { .. } => return None,
                        event => self.hear(&mut client, event).await?,
                    }
                }
            }
            Some(client)
        };
        timeout(CONNECT_TIMEOUT, connecting).await.ok().flatten()
    }

    /// Until the connection ends, or nobody is there any more.
    async fn converse(&mut self, mut client: Client, period: Duration) {
        let mut due = Instant::now();
        while !self.is_left() {
            match tokio::time::timeout_at(due, client.next_event()).await {
                Ok(Event::Disconnected { .. }) => break,
                Ok(event) => {
                    if self.hear(&mut client, event).await.is_none() {
                        break;
                    }
                }
                Err(_) => {
                    due = Instant::now() + period.mul_f64(self.random.random_range(0.5..1.5));
                    if self.ask(&mut client).await.is_none() {
                        break;
                    }
                }
            }
        }
        if let Some((invoked_us, Some(value))) = self.asked.take() {
            self.note_report(value, invoked_us, Answer::Unknown);
        }
        self.asked = None;
    }

    /// Reads the twin at the beginning of a connection, and reports from then on, one thing at a time: a device that
    /// reads too often does not miss what it is not told. `None` when the connection is lost.
    async fn ask(&mut self, client: &mut Client) -> Option<()> {
        if self.asked.is_some() || self.talk.is_over() {
            return Some(());
        }
        let invoked_us = self.bench.now_us();
        let (topic, payload, value) = if !self.has_read {
            self.has_read = true;
            ("$iothub/twin/GET/?$rid=1", String::new(), None)
        } else {
            self.reports += 1;
            let value = format!("r-{}", self.reports);
            let topic = "$iothub/twin/PATCH/properties/reported/?$rid=1";
            (topic, json!({ "value": value }).to_string(), Some(value))
        };
        self.asked = Some((invoked_us, value));
        client.publish(topic, payload.as_bytes()).await.ok()?;
        client.flush().await.ok()
    }

    /// Takes in what comes. `None` when the connection is lost.
    async fn hear(&mut self, client: &mut Client, event: Event) -> Option<()> {
        let Event::Message {
            topic, payload, dup, ..
        } = event
        else {
            return Some(());
        };
        let body: Value = serde_json::from_slice(&payload).unwrap_or_default();
        if let Some(rest) = topic.strip_prefix("$iothub/methods/POST/echo/?$rid=") {
            let id = body.as_str().unwrap_or_default().to_owned();
            let device = self.talk.device.clone();
            self.bench
                .shelf
                .exchanges
                .note(Exchange::Execution(Execution { device, id }));
            let answer = format!("$iothub/methods/res/200/?$rid={rest}");
            client.publish(&answer, &payload).await.ok()?;
            return client.flush().await.ok();
        }
        if topic.starts_with("devices/") {
            self.bench.shelf.exchanges.note(Exchange::Receipt(Receipt {
                device: self.talk.device.clone(),
                connection: self.connection,
                id: body.as_str().unwrap_or_default().to_owned(),
                dup,
            }));
            // The client has put its acknowledgement beside it.
            return client.flush().await.ok();
        }
        if topic.starts_with("$iothub/twin/PATCH/properties/desired/") {
            self.note(&body, false);
        } else if let Some(rest) = topic.strip_prefix("$iothub/twin/res/") {
            self.hear_answer(rest, &body);
        }
        Some(())
    }

    fn note(&self, desired: &Value, asked: bool) {
        self.bench.shelf.exchanges.note(Exchange::Note(Note {
            device: self.talk.device.clone(),
            connection: self.connection,
            version: desired["$version"].as_u64().unwrap_or_default(),
            value: desired["value"].as_str().unwrap_or_default().to_owned(),
            asked,
        }));
    }

    fn hear_answer(&mut self, rest: &str, body: &Value) {
        let Some((invoked_us, value)) = self.asked.take() else {
            return;
        };
        match (rest.get(..3), value) {
            (Some("200"), None) => {
                self.note(&body["desired"], true);
                for (section, name) in [(Section::Desired, "desired"), (Section::Reported, "reported")] {
                    let access = Access {
                        device: self.talk.device.clone(),
                        section,
                        call: Call::Read,
                        invoked_us,
                        completed_us: self.bench.now_us(),
                        answer: seen(&body[name], None),
                    };
                    self.talk.note(&self.bench, access);
                }
            }
            (Some("204"), Some(value)) => {
                let version = rest
                    .split_once("$version=")
                    .and_then(|(_, text)| text.parse().ok());
                self.note_report(value, invoked_us, Answer::Done { version });
            }
            // Busy or cut off: nothing was done.
            (Some("429" | "503"), _) | (_, None) => {}
            (_, Some(value)) => self.note_report(value, invoked_us, Answer::Unknown),
        }
    }

    fn note_report(&self, value: String, invoked_us: u64, answer: Answer) {
        let access = Access {
            device: self.talk.device.clone(),
            section: Section::Reported,
            call: Call::Write { value },
            invoked_us,
            completed_us: self.bench.now_us(),
            answer,
        };
        self.talk.note(&self.bench, access);
    }
}
