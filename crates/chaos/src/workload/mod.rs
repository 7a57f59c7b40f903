//! What runs beside the fleet: messages over HTTPS (W2), the registry (W6), by one service at a time and by several
//! at once, policies whose keys roll (W11), devices that are enrolled and register, devices that are erased (W6),
//! a consumer group that reads events over Kafka (W7), jobs with queries that look at what they do (W8, W10), devices that take
//! themselves over (W9), services and devices that talk about twins, messages and methods (W3 to W5), messages that are fetched and settled under locks (W4), routes to a
//! webhook, configurations (W8), files of devices, readers of ranges of the past (W10). W1, telemetry over MQTT, is [`crate::fleet`].
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

use dunlin_gateway::client::Transport;
use dunlin_gateway::client::kafka::Door;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::hub::Hub;
use crate::payload::Payloads;
use crate::record::Recorder;
use crate::waiting::Waiting;
use access::Access;
use enrolling::Enrolling;
use erasure::Trace;
use exchange::Exchange;
use grant::Grant;
use handling::Handling;
use operation::Operation;
use range::Range;
use sight::Sight;
use step::Step;
use survey::Survey;

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
}
