//! What runs beside the fleet: messages over HTTPS (W2); services and devices that talk about twins, messages and methods
//! (W3 to W5); messages that are fetched and settled under locks (W4); the registry, by one service at a time and by
//! several at once, devices that are enrolled and register, devices that are erased (W6); a consumer group that reads
//! events over Kafka (W7); jobs with queries that look at what they do (W8, W10); routes to a webhook and configurations
//! (W8); devices that take themselves over (W9); readers of ranges of the past (W10); policies whose keys roll (W11); and
//! files of devices. W1, telemetry over MQTT, is [`crate::fleet`].
//!
//! Each does its work on the run's own thread, writes down every operation with its outcome, and never
//! judges one. An operation is `ok`, `fail` (refused, and not done) or `unknown`.

pub mod access;
pub mod churn;
pub mod configurations;
pub mod contended;
pub mod delivery;
pub mod dialogue;
pub mod enrolling;
pub mod erasing;
pub mod erasure;
pub mod exchange;
pub mod file;
pub mod grant;
pub mod handling;
pub mod history;
pub mod https;
pub mod jobs;
pub mod messages;
pub mod operation;
pub mod policies;
pub mod provisioning;
pub mod range;
pub mod readers;
pub mod registry;
pub mod routes;
pub mod sight;
pub mod step;
pub mod survey;
pub mod uploads;
pub mod webhook;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_gateway::client::kafka::Door;
use dunlin_gateway::client::{Client, ClientError, ConnectOptions, Transport};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::hub::{Answered, Hub};
use crate::invariants::raft;
use crate::payload::Payloads;
use crate::record::Recorder;
use crate::waiting::Waiting;
use access::Access;
use delivery::Delivery;
use enrolling::Enrolling;
use erasure::Trace;
use exchange::Exchange;
use grant::Grant;
use handling::Handling;
use operation::{Operation, Outcome};
use range::Range;
use sight::Sight;
use step::Step;
use survey::Survey;

/// CONNACK codes that turn a credential away (MQTT 3.1.1: bad user name or password, not authorized).
const TURNED_AWAY: [u8; 2] = [4, 5];
/// Pause before a device that could not be made is asked for again.
const PAUSE: Duration = Duration::from_millis(200);

/// Where what happens waits to be written down.
#[derive(Clone, Default)]
pub struct Shelf {
    /// Where deeds go.
    pub recorder: Arc<Recorder>,
    /// Where operations go.
    pub operations: Arc<Waiting<Operation>>,
    /// Where accesses go.
    pub accesses: Arc<Waiting<Access>>,
    /// Where exchanges go.
    pub exchanges: Arc<Waiting<Exchange>>,
    /// Where what is done with messages that are fetched goes.
    pub handlings: Arc<Waiting<Handling>>,
    /// Where what a consumer group does goes.
    pub steps: Arc<Waiting<Step>>,
    /// Where jobs go, and what queries show of them.
    pub sights: Arc<Waiting<Sight>>,
    /// Where what is asked of policies goes, and what their keys open.
    pub grants: Arc<Waiting<Grant>>,
    /// Where enrolments go, and what came of those who registered.
    pub enrollings: Arc<Waiting<Enrolling>>,
    /// Where goes what was erased, and what is shown of it.
    pub traces: Arc<Waiting<Trace>>,
    /// Where what readers are shown of ranges of events goes.
    pub ranges: Arc<Waiting<Range>>,
    /// Where what configurations ask of twins goes, and what these say.
    pub surveys: Arc<Waiting<Survey>>,
    /// Where what is done with files goes.
    pub files: Arc<Waiting<file::Deed>>,
    /// Where what routes lead to the webhook goes.
    pub deliveries: Arc<Waiting<Delivery>>,
    /// Where goes how replicas stand in their groups.
    pub standings: Arc<Waiting<raft::Sight>>,
}

/// What all workloads share.
#[derive(Clone)]
pub struct Bench {
    /// The hub's door.
    pub hub: Arc<Hub>,
    /// How to reach each gateway.
    pub gateways: Arc<Vec<Transport>>,
    /// How to read events at each gateway.
    pub kafka: Arc<Vec<Door>>,
    /// The hub's name.
    pub host: String,
    /// What messages say.
    pub payloads: Arc<Payloads>,
    /// Where what happens goes.
    pub shelf: Shelf,
    /// Times count from here.
    pub epoch: Instant,
    /// Draws.
    pub seed: u64,
    /// Turns true when nothing new is to begin.
    pub stop: watch::Receiver<bool>,
}

impl Bench {
    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }

    /// Waits until then; `false` once nothing new is to begin.
    pub async fn wait_until(&mut self, until: Instant) -> bool {
        let mut stop = self.stop.clone();
        tokio::select! {
            // Whoever led the run is gone: the same as being told.
            _ = stop.wait_for(|stop| *stop) => false,
            () = tokio::time::sleep_until(until) => true,
        }
    }

    /// The gateway after `node`, which is the next one to be asked from then on.
    fn turn(&self, node: &mut usize) -> usize {
        *node = (*node + 1) % self.gateways.len().max(1);
        *node
    }

    /// One attempt of a service at `node`, with an answer in JSON; none where there is no answer.
    async fn ask_json(
        &self,
        node: usize,
        asked: (Method, &str),
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Option<(StatusCode, Value)> {
        let body = body.map(|body| body.to_string().into_bytes());
        let answer = self.hub.attempt(node, asked, None, body, if_match);
        let (status, body) = answer.await.ok()?;
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// Makes a device with this key, unless it is there; `false` if there is no time for it any more.
    async fn make_device(&mut self, device: &str, key: &str) -> bool {
        while self.hub.create_device(device, key).await.is_err() {
            if !self.wait_until(Instant::now() + PAUSE).await {
                return false;
            }
        }
        true
    }

    /// Whether a node shows a device in the registry, if that is answered.
    async fn has_device(&self, node: usize, device: &str) -> Option<bool> {
        let path = format!("/devices/{device}?api-version=2021-04-12");
        let asked = (Method::GET, path.as_str());
        match self.hub.attempt(node, asked, None, None, None).await {
            Ok((StatusCode::OK, _)) => Some(true),
            Ok((StatusCode::NOT_FOUND, _)) => Some(false),
            _ => None,
        }
    }

    /// Connects as a device at `node`: `ok` is let in, `fail` turned away for the credential.
    async fn enter(&self, node: usize, device: &str, token: String, within: Duration) -> (Outcome, String) {
        let transport = self.gateways[node].clone();
        let options = ConnectOptions {
            clean: true,
            ..ConnectOptions::new(transport, &self.host, device, token)
        };
        match timeout(within, Client::connect(&options)).await {
            Err(_) => (Outcome::Unknown, "no answer in time".to_owned()),
            Ok(Err(ClientError::Refused(code))) if TURNED_AWAY.contains(&code) => {
                (Outcome::Fail, format!("code {code}"))
            }
            Ok(Err(error)) => (Outcome::Unknown, error.to_string()),
            // When it was let in is what counts; its goodbye is not waited for.
            Ok(Ok(_client)) => (Outcome::Ok, String::new()),
        }
    }
}

/// How a change ended that was answered so, and why. Where a node says that it could not make it, the directory's leader may
/// have made it all the same.
fn outcome_of_change(answer: Result<(StatusCode, Bytes), String>) -> (Outcome, String) {
    match answer {
        Ok((status, _)) if status.is_success() => (Outcome::Ok, String::new()),
        Ok((status, _)) if status.is_server_error() => (Outcome::Unknown, status.to_string()),
        Ok((status, body)) => {
            let said = String::from_utf8_lossy(&body);
            (Outcome::Fail, format!("{status} {said}"))
        }
        Err(error) => (Outcome::Unknown, error),
    }
}

/// What an answer says under a header; empty if that is no text, or is not there.
fn header<'a>(answered: &'a Answered, name: &str) -> &'a str {
    let value = answered.headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

/// What settles a thing that was handed over under a lock.
fn lock(answered: &Answered) -> String {
    header(answered, "etag").trim_matches('"').to_owned()
}
