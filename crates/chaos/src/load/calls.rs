//! Load on direct methods: services call devices that answer at once, and count how long that takes.
//!
//! Devices and callers share this process and its cores; the way between them is the hub's alone. With a schedule the load
//! is open: a call is counted from when it was due. Without one each of the callers goes on as soon as it has its answer. A
//! call is made once, whatever becomes of it, and one without an answer is counted as that. When calls are made is decided in
//! [`super::pace`], what they count in [`super::meter`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dunlin_gateway::client::{Client, ConnectOptions, Event};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::ceiling::Ceiling;
use super::engine::Observer;
use super::figures::{Figures, Loop, Shape};
use super::hdr::HdrError;
use super::meter::{End, Meter};
use super::pace;
use super::schedule::Schedule;
use crate::hub::{Hub, error_code};

/// What devices subscribe to.
const FILTER: &str = "$iothub/methods/POST/#";
/// Time for all devices to listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause of a device whose connection was refused or lost.
const PAUSE: Duration = Duration::from_millis(500);

/// Why there is no ceiling of such a load.
const NO_CEILING: &str = "a null sink calls no methods";

/// What is to be done.
pub struct Plan {
    /// How each device connects.
    pub devices: Vec<ConnectOptions>,
    /// The services' doors.
    pub hub: Arc<Hub>,
    /// When calls are due; without a schedule, whenever a caller is free.
    pub schedule: Option<Schedule>,
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
    #[error("stopped before the load began")]
    Stopped,
    /// The figures.
    #[error(transparent)]
    Hdr(#[from] HdrError),
}

struct Caller {
    hub: Arc<Hub>,
    paths: Vec<String>,
    body: Vec<u8>,
    payload: Value,
}

/// Runs it against `target`, and tells `observer` on the way. When `stop` resolves, what there is by then is counted.
pub async fn run(
    plan: Plan,
    target: &str,
    observer: &mut dyn Observer,
    stop: impl Future<Output = ()>,
) -> Result<Figures, CallsError> {
    let (shape, schedule, in_flight) = (plan.shape(), plan.schedule, plan.in_flight);
    let mut stop = Box::pin(stop);
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
    tokio::select! {
        heard = timeout(LISTEN_TIMEOUT, everybody) => heard.map_err(|_| {
            let listening = listening.0.load(Ordering::Relaxed);
            CallsError::NotListening { listening, all }
        })?,
        () = &mut stop => return Err(CallsError::Stopped),
    }
    let payload = json!("x".repeat(plan.payload_bytes));
    let body = json!({ "methodName": "load", "payload": payload });
    let caller = Arc::new(Caller {
        hub: plan.hub,
        paths,
        body: body.to_string().into_bytes(),
        payload,
    });
    let call = move |number| {
        let caller = Arc::clone(&caller);
        async move { caller.call(number).await }
    };
    let meter = Meter::start(plan.warm_up, Some(plan.duration), schedule.is_some());
    let meter = Arc::new(meter);
    let working = async {
        match schedule {
            Some(schedule) => pace::on_schedule(&meter, schedule, in_flight, call).await,
            None => pace::in_turn(&meter, in_flight, u64::MAX, call).await,
        }
    };
    let outcome = meter.watch(observer, stop, working).await;
    let figures = Figures::of(&shape, target, &outcome)?;
    Ok(figures.with_ceiling(Ceiling::none(NO_CEILING)))
}

impl Plan {
    fn shape(&self) -> Shape {
        let pacing = Loop::of(self.schedule.is_some());
        Shape {
            kind: "method",
            pacing: Some(pacing),
            scheduled_per_s: self.schedule.map(|schedule| schedule.per_s()),
            clients: self.devices.len() as u64,
            slots: (pacing == Loop::Closed).then_some(self.in_flight as u64),
        }
    }
}

impl Caller {
    /// Calls the `number`th device, from the first on again and again, at one gateway after the other.
    async fn call(&self, number: u64) -> End {
        let number = number as usize;
        let path = &self.paths[number % self.paths.len()];
        let node = number / self.paths.len() % self.hub.node_count().max(1);
        let asked = (Method::POST, path.as_str());
        let answered = self
            .hub
            .attempt(node, asked, None, Some(self.body.clone()), None)
            .await;
        match answered {
            Ok((StatusCode::OK, body)) => {
                let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                if answer["payload"] == self.payload {
                    End::Done
                } else {
                    End::Refused("another answer".to_owned())
                }
            }
            Ok((status, body)) => End::Refused(format!("{status} {}", error_code(&body))),
            Err(error) => End::Unknown(error),
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
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::load::trust;

    #[tokio::test]
    async fn a_call_without_an_answer_is_unknown_and_no_refusal() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let hub = Hub::of_nodes(vec![address], &trust::anybody().unwrap(), String::new());
        let caller = Caller {
            hub: Arc::new(hub.unwrap()),
            paths: vec!["/twins/d/methods".to_owned()],
            body: Vec::new(),
            payload: Value::Null,
        };
        // Whoever dials is let in and left alone at once.
        let hang_up = async {
            let (stream, _) = listener.accept().await.unwrap();
            drop(stream);
        };
        let (end, ()) = tokio::join!(caller.call(0), hang_up);
        assert!(matches!(&end, End::Unknown(why) if !why.is_empty()), "{end:?}");
    }
}
