//! Load on provisioning: devices that nobody knows register, each over a connection of its own, and are counted from the
//! first packet of TCP to the hub that they are told.
//!
//! The load is closed: each of the workers goes on with the next device as soon as one is registered. Nobody is asked
//! twice; what failed is counted by what was said. When devices begin is decided in [`super::pace`], what they count in
//! [`super::meter`].

use std::sync::Arc;
use std::time::Duration;

use dunlin_gateway::auth;
use dunlin_gateway::client::{ConnectOptions, Transport};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::time::timeout;

use super::ceiling::Ceiling;
use super::engine::Observer;
use super::figures::{Figures, Loop, Shape};
use super::hdr::HdrError;
use super::meter::{End, Meter};
use super::pace;
use crate::registering;

/// Time for one device.
const WAIT: Duration = Duration::from_secs(30);

/// Why there is no ceiling of such a load.
const NO_CEILING: &str = "a null sink assigns no devices";

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

/// Runs it against `target`, and tells `observer` on the way. When `stop` resolves, what there is by then is counted.
pub async fn run(
    plan: Plan,
    target: &str,
    observer: &mut dyn Observer,
    stop: impl Future<Output = ()>,
) -> Result<Figures, HdrError> {
    let (in_flight, devices) = (plan.in_flight, plan.devices as u64);
    let plan = Arc::new(plan);
    let act = move |number| {
        let plan = Arc::clone(&plan);
        async move { plan.register_in_time(number).await }
    };
    let meter = Arc::new(Meter::start(Duration::ZERO, None, false));
    let working = pace::in_turn(&meter, in_flight, devices, act);
    let outcome = meter.watch(observer, stop, working).await;
    let shape = Shape {
        kind: "provision",
        pacing: Some(Loop::Closed),
        scheduled_per_s: None,
        clients: in_flight as u64,
        slots: Some(in_flight as u64),
    };
    let figures = Figures::of(&shape, target, &outcome)?;
    Ok(figures.with_ceiling(Ceiling::none(NO_CEILING)))
}

impl Plan {
    /// How device `number` connects.
    fn options(&self, number: usize) -> Result<ConnectOptions, String> {
        let name = format!("{}{number}", self.prefix);
        let own = auth::derive_key(&self.group_key, &name).map_err(|error| error.to_string())?;
        let (address, server_name) = &self.doors[number % self.doors.len()];
        let transport = Transport::Tls {
            address: address.clone(),
            server_name: server_name.clone(),
            config: Arc::clone(&self.trust),
        };
        registering::options(transport, &self.scope, &name, &own).map_err(|error| error.to_string())
    }

    async fn register_in_time(&self, number: u64) -> End {
        match timeout(WAIT, self.register(number as usize)).await {
            Ok(Ok(())) => End::Done,
            Ok(Err(end)) => end,
            Err(_) => End::Unknown("no answer in time".to_owned()),
        }
    }

    async fn register(&self, number: usize) -> Result<(), End> {
        let options = self.options(number).map_err(End::Refused)?;
        let (_, told) = registering::register(&options).await?;
        read_answer(&told)
    }
}

/// What the provisioning service said to a device.
fn read_answer(told: &Value) -> Result<(), End> {
    match told["status"].as_str() {
        Some("assigned") => Ok(()),
        Some(other) => Err(End::Refused(format!(
            "{other} {}",
            told["registrationState"]["errorCode"]
        ))),
        None => Err(End::Refused(format!("error {}", told["errorCode"]))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::load::engine::Unseen;
    use crate::load::trust;

    #[test]
    fn an_answer_says_whether_a_device_is_assigned() {
        assert_eq!(read_answer(&json!({"status": "assigned"})), Ok(()));
        let refused = |text: &str| Err(End::Refused(text.to_owned()));
        let failed = json!({"status": "failed", "registrationState": {"errorCode": 401_002}});
        assert_eq!(read_answer(&failed), refused("failed 401002"));
        assert_eq!(
            read_answer(&json!({"errorCode": 503_001})),
            refused("error 503001")
        );
    }

    #[tokio::test]
    async fn devices_that_reach_nobody_are_counted_each_once() {
        // Nobody listens on the first port of this machine.
        let plan = Plan {
            doors: vec![("127.0.0.1:1".to_owned(), "localhost".to_owned())],
            trust: trust::anybody().unwrap(),
            scope: "0ne00000000".to_owned(),
            group_key: auth::draw_key(),
            prefix: "load-".to_owned(),
            devices: 5,
            in_flight: 2,
        };
        let figures = run(plan, "nowhere", &mut Unseen, std::future::pending())
            .await
            .unwrap();
        let counts = figures.counts;
        assert_eq!((counts.sent, counts.acked, counts.unacked), (5, 0, 5));
        assert_eq!(figures.reasons.values().sum::<u64>(), 5, "{:?}", figures.reasons);
        assert!(!figures.is_whole() && figures.latency_us.is_none());
        assert_eq!(
            figures.ceiling_note.as_deref(),
            Some("none: a null sink assigns no devices")
        );
        assert_eq!(
            (figures.kind.as_str(), figures.pacing),
            ("provision", Some(Loop::Closed))
        );
    }
}
