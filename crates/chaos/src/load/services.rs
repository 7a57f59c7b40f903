//! Load on what services do over HTTPS: create devices, change what is desired of them, send them messages, ask for
//! them; and devices that connect and leave again.
//!
//! The load is closed: each of the workers goes on with the next as soon as it has its answer, and at another gateway in
//! turn. Nothing is done twice; what failed is counted by what was said. When things are done is decided in [`super::pace`],
//! what they count in [`super::meter`].

use std::sync::Arc;
use std::time::Duration;

use dunlin_gateway::client::{Client, ConnectOptions, Transport};
use futures_util::stream::{self, StreamExt as _};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use super::ceiling::{BURST, Ceiling, CeilingError, Opposite, WARM_UP};
use super::engine::{Observer, Outcome, Unseen};
use super::figures::{Figures, Loop, Shape};
use super::hdr::HdrError;
use super::meter::{End, Meter};
use super::pace;
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
    #[error("stopped before the load began")]
    Stopped,
    /// The figures.
    #[error(transparent)]
    Hdr(#[from] HdrError),
}

/// Runs it against `target`, and tells `observer` on the way. When `stop` resolves, what there is by then is counted.
pub async fn run(
    plan: Plan,
    target: &str,
    observer: &mut dyn Observer,
    stop: impl Future<Output = ()>,
) -> Result<Figures, ServicesError> {
    let shape = plan.shape();
    let mut stop = Box::pin(stop);
    tokio::select! {
        made = plan.make_devices() => made?,
        () = &mut stop => return Err(ServicesError::Stopped),
    }
    let outcome = plan.work(observer, stop).await;
    Ok(Figures::of(&shape, target, &outcome)?)
}

impl Plan {
    /// What this generator reaches against a sink, which speaks MQTT alone.
    pub async fn ceiling(&self) -> Result<Ceiling, CeilingError> {
        let Deed::Connect(devices) = &self.deed else {
            return Ok(Ceiling::none("a null sink speaks no HTTPS"));
        };
        let transports = || devices.iter().map(|device| &device.transport);
        let is_tls = transports().any(|transport| !matches!(transport, Transport::Tcp { .. }));
        let is_websocket = transports().any(|transport| matches!(transport, Transport::WebSocket { .. }));
        let opposite = Opposite::start(is_tls, 0, &std::env::temp_dir()).await?;
        let burst = Plan {
            hub: Arc::clone(&self.hub),
            deed: Deed::Connect(devices.iter().map(|device| opposite.redirect(device)).collect()),
            prefix: String::new(),
            devices: 0,
            in_flight: self.in_flight,
            warm_up: WARM_UP,
            duration: BURST,
        };
        let shape = burst.shape();
        let outcome = burst.work(&mut Unseen, std::future::pending()).await;
        let per_s = Figures::of(&shape, "null sink", &outcome)?.per_s();
        Ok(Ceiling::of(per_s, is_websocket))
    }

    fn shape(&self) -> Shape {
        Shape {
            kind: "service",
            pacing: Some(Loop::Closed),
            scheduled_per_s: None,
            clients: self.in_flight as u64,
            slots: Some(self.in_flight as u64),
        }
    }

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
                    End::Done => Ok(()),
                    End::Refused(why) | End::Unknown(why) => Err(ServicesError::Create { device, why }),
                }
            })
            .buffer_unordered(MAKING_AT_A_TIME);
        while let Some(made) = making.next().await {
            made?;
        }
        Ok(())
    }

    async fn work(self, observer: &mut dyn Observer, stop: impl Future<Output = ()>) -> Outcome {
        let (warm_up, duration, in_flight) = (self.warm_up, self.duration, self.in_flight);
        let plan = Arc::new(self);
        let act = move |number| {
            let plan = Arc::clone(&plan);
            async move { plan.act_in_time(number).await }
        };
        let meter = Arc::new(Meter::start(warm_up, Some(duration), false));
        let working = pace::in_turn(&meter, in_flight, u64::MAX, act);
        meter.watch(observer, stop, working).await
    }

    async fn act_in_time(&self, number: u64) -> End {
        timeout(WAIT, self.act(number as usize))
            .await
            .unwrap_or_else(|_| End::Unknown("no answer in time".to_owned()))
    }

    async fn act(&self, number: usize) -> End {
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
            Deed::Connect(devices) => match Client::connect(&devices[number % devices.len()]).await {
                Ok(client) => {
                    client.disconnect().await;
                    End::Done
                }
                Err(error) => error.into(),
            },
        }
    }

    /// One request, at one gateway after the other.
    async fn ask(&self, number: usize, method: Method, path: &str, body: &str) -> End {
        let node = number % self.hub.node_count().max(1);
        let body = Some(body.as_bytes().to_vec());
        match self.hub.attempt(node, (method, path), None, body, None).await {
            Ok((StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT, _)) => End::Done,
            Ok((status, body)) => End::Refused(format!("{status} {}", error_code(&body))),
            Err(error) => End::Unknown(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::trust;

    /// Devices that would connect to nobody, and a hub that nobody asks.
    fn plan(deed: Deed) -> Plan {
        let hub = Hub::of_nodes(Vec::new(), &trust::anybody().unwrap(), String::new());
        Plan {
            hub: Arc::new(hub.unwrap()),
            deed,
            prefix: "load-".into(),
            devices: 0,
            in_flight: 2,
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn connects_have_a_ceiling_and_requests_say_why_they_have_none() {
        let nowhere = "127.0.0.1:1".to_owned();
        let options = |transport| ConnectOptions::new(transport, "", "d", String::new());
        let config = trust::anybody().unwrap();
        let plain = options(Transport::Tcp {
            address: nowhere.clone(),
        });
        let ceiling = plan(Deed::Connect(vec![plain])).ceiling().await.unwrap();
        assert!(ceiling.per_s.is_some_and(|per_s| per_s > 0.0), "{ceiling:?}");
        assert_eq!(ceiling.note, None);
        let websocket = options(Transport::WebSocket {
            address: nowhere,
            server_name: "localhost".into(),
            config,
        });
        let ceiling = plan(Deed::Connect(vec![websocket])).ceiling().await.unwrap();
        assert!(ceiling.per_s.is_some_and(|per_s| per_s > 0.0), "{ceiling:?}");
        assert_eq!(ceiling.note.as_deref(), Some("measured without WebSocket"));
        let ceiling = plan(Deed::Query).ceiling().await.unwrap();
        assert_eq!(ceiling.note.as_deref(), Some("none: a null sink speaks no HTTPS"));
        assert_eq!(ceiling.per_s, None);
    }
}
