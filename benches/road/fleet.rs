//! The load: `dunlin load`'s own engine at full windows, with the kernel's counters read at both ends of
//! the measured window.
//!
//! It speaks MQTT 3.1.1, the same bytes to every peer. A connection that is lost, or a message without
//! an answer, ends the run: a figure over half a fleet is none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunlin_chaos::load::content::{Content, Ring};
use dunlin_chaos::load::dial::{Door, Wrapping};
use dunlin_chaos::load::engine::{self, Observer, Unseen};
use dunlin_chaos::load::plan::{Action, Client, Plan};
use dunlin_chaos::load::template::Template;
use dunlin_chaos::verdict::LatencyUs;

use crate::support::Failure;
use crate::support::cluster::Device;
use crate::support::kernel::{self, Disks, Machine};

/// Messages that a connection has unacknowledged.
pub(crate) const WINDOW: u16 = 32;
/// Bytes of a payload.
pub(crate) const PAYLOAD_BYTES: usize = 256;

/// One connection to be.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) address: SocketAddr,
    pub(crate) device: Device,
}

/// What to do.
pub(crate) struct Load {
    pub(crate) senders: Vec<Sender>,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Whose processor time is counted.
    pub(crate) servers: Vec<u32>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) per_s: f64,
    /// Processor time per message: of all servers, and of the load itself.
    pub(crate) server_us: f64,
    pub(crate) client_us: f64,
    pub(crate) latency_us: LatencyUs,
    pub(crate) flushes_per_s: f64,
    pub(crate) written_mb_per_s: f64,
    /// Share of the machine that was idle, and that was used by others.
    pub(crate) idle: f64,
    pub(crate) others: f64,
}

/// Readings at one moment.
struct Reading {
    at: Instant,
    server_s: f64,
    client_s: f64,
    disks: Disks,
    machine: Machine,
}

fn read(servers: &[u32]) -> Result<Reading, Failure> {
    let server_s = servers
        .iter()
        .map(|pid| kernel::cpu_s(*pid))
        .sum::<Result<f64, _>>()?;
    Ok(Reading {
        at: Instant::now(),
        server_s,
        client_s: kernel::cpu_s(std::process::id())?,
        disks: Disks::read(),
        machine: Machine::read(),
    })
}

/// Reads at both ends of the window.
struct Readings {
    servers: Vec<u32>,
    before: Option<Result<Reading, Failure>>,
    after: Option<Result<Reading, Failure>>,
}

impl Observer for Readings {
    fn measuring(&mut self) {
        self.before = Some(read(&self.servers));
    }

    fn measured(&mut self) {
        self.after = Some(read(&self.servers));
    }
}

/// Doors of these addresses; certificates are for `localhost` and 127.0.0.1.
fn door(address: SocketAddr) -> Door {
    Door {
        host: address.ip().to_string(),
        port: address.port(),
    }
}

fn plan(load: &Load) -> Result<Plan, Failure> {
    let mut doors = Vec::new();
    let mut clients = Vec::new();
    for (index, sender) in (0..).zip(&load.senders) {
        let own = door(sender.address);
        let place = doors.iter().position(|door| *door == own).unwrap_or_else(|| {
            doors.push(own);
            doors.len() - 1
        });
        clients.push(Client {
            index,
            id: sender.device.id.clone(),
            username: Some(sender.device.username.clone()),
            password: Some(sender.device.token.clone()),
            topic: Template::parse(&format!("devices/{}/messages/events/", sender.device.id))?,
            door: place,
        });
    }
    Ok(Plan {
        doors,
        wrapping: Wrapping {
            tls: load.tls.clone(),
            websocket: None,
        },
        action: Action::Publish {
            qos: 1,
            window: WINDOW,
            schedule: None,
            count_max: None,
            clients: clients.len() as u64,
            content: Content::Ring(Arc::new(Ring::new(PAYLOAD_BYTES))),
        },
        clients,
        warm_up: load.warm_up,
        duration: Some(load.measured),
        ..Plan::default()
    })
}

/// Runs the load.
pub(crate) async fn run(load: Load) -> Result<Measured, Failure> {
    let plan = plan(&load)?;
    let mut readings = Readings {
        servers: load.servers,
        before: None,
        after: None,
    };
    let outcome = engine::run(plan, &mut readings, std::future::pending()).await?;
    let tally = &outcome.total.tally;
    if tally.lost + tally.connects_failed + tally.unacked + tally.refused > 0 {
        return Err(format!("the fleet was not whole: {tally:?}, {:?}", outcome.total.reasons).into());
    }
    let (Some(before), Some(after)) = (readings.before, readings.after) else {
        return Err("nothing was measured".into());
    };
    let (before, after) = (before?, after?);
    let seconds = (after.at - before.at).as_secs_f64();
    let acked = tally.acked_in_window as f64;
    let (server_s, client_s) = (after.server_s - before.server_s, after.client_s - before.client_s);
    let cores_s = seconds * std::thread::available_parallelism()?.get() as f64;
    let idle = (after.machine.idle_s - before.machine.idle_s) / cores_s;
    let disks = after.disks.since(before.disks);
    Ok(Measured {
        per_s: acked / outcome.window_s,
        server_us: server_s / acked * 1e6,
        client_us: client_s / acked * 1e6,
        latency_us: (&outcome.total.latency_us).into(),
        flushes_per_s: disks.flushes as f64 / seconds,
        written_mb_per_s: disks.written_bytes as f64 / seconds / 1e6,
        idle,
        others: (1.0 - idle - (server_s + client_s) / cores_s).max(0.0),
    })
}

/// Registers a durable subscriber for everything and leaves again, so that a broker that keeps only what
/// somebody has asked for keeps it.
pub(crate) async fn register_subscriber(address: SocketAddr, id: &str, filter: &str) -> Result<(), Failure> {
    let plan = Plan {
        doors: vec![door(address)],
        clean: false,
        clients: vec![Client {
            index: 0,
            id: id.to_owned(),
            username: Some(id.to_owned()),
            password: Some("none".into()),
            topic: Template::parse(filter)?,
            door: 0,
        }],
        action: Action::Subscribe { qos: 1 },
        ..Plan::default()
    };
    let outcome = engine::run(plan, &mut Unseen, std::future::pending()).await?;
    match outcome.total.tally.lost + outcome.total.tally.connects_failed {
        0 => Ok(()),
        _ => Err(format!("no durable subscriber: {:?}", outcome.total.reasons).into()),
    }
}
