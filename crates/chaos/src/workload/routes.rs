//! W8: routes that lead some of the messages to a webhook, which is the run itself.
//!
//! One route takes everything of some devices of the fleet; the other, of those that send over HTTPS, what a condition is
//! true of that looks into bodies. Both lead to the built-in endpoint as well, as the fallback does with all else, so that
//! whoever reads everything back finds everything. Which messages fit is said here, by rules of its own ([`Fits`]); what
//! came of them is for [`crate::invariants::routes`] to say.

use serde_json::{Value, json};

use super::webhook::Webhook;
use crate::oracle::Stored;
use crate::payload::Payloads;

/// Names of devices of the fleet begin so ..
const FLEET: &str = "load-";
/// .. and this is in the names of those whose messages are all led to the webhook: each tenth.
const TENTH: &str = "7-";
/// Names of devices that send over HTTPS.
const HTTPS: &str = "https-";
/// What is warmer than this is led to the webhook, of what they send.
const WARM: f64 = 21.0;

/// The routing document of a run.
pub fn document(webhook: &Webhook) -> Value {
    let route = |name: &str, condition: String| {
        json!({
            "name": name,
            "source": "DeviceMessages",
            "condition": condition,
            "endpointNames": ["webhook", "events"],
        })
    };
    json!({
        "routes": [
            route("some-devices", some_devices()),
            route("what-is-warm", what_is_warm()),
        ],
        "endpoints": { "webhooks": [{
            "name": "webhook",
            "url": webhook.url(),
            "authorization": webhook.authorization(),
            "authority": webhook.authority(),
        }] },
    })
}

fn some_devices() -> String {
    format!("STARTS_WITH($connectionDeviceId, '{FLEET}') AND CONTAINS($connectionDeviceId, '{TENTH}')")
}

fn what_is_warm() -> String {
    format!("STARTS_WITH($connectionDeviceId, '{HTTPS}') AND $body.temperature > {WARM}")
}

/// Which messages of a run fit a route.
pub struct Fits<'a> {
    names: &'a [String],
    payloads: Payloads,
}

impl<'a> Fits<'a> {
    /// Of devices with these names, in the order of the history, which say this.
    pub fn new(names: &'a [String], payloads: Payloads) -> Self {
        Self { names, payloads }
    }

    /// Whether message `seq` of a device does.
    pub fn fits(&self, device: usize, seq: u32) -> bool {
        let Some(name) = self.names.get(device) else {
            return false;
        };
        if name.starts_with(FLEET) {
            return name.contains(TENTH);
        }
        name.starts_with(HTTPS) && {
            let mut text = String::new();
            self.payloads.write(&mut text, (device, name), seq);
            let said: Value = serde_json::from_str(&text).unwrap_or_default();
            said["temperature"].as_f64().is_some_and(|warmth| warmth > WARM)
        }
    }

    /// Where those of `stored` stand that do.
    pub fn places(&self, stored: &[Stored]) -> Vec<(u32, u64)> {
        let fits = |one: &&Stored| match (one.device, one.seq) {
            (Some(device), Some(seq)) => self.fits(device as usize, seq),
            _ => false,
        };
        stored
            .iter()
            .filter(fits)
            .map(|one| (one.shard, one.offset))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::query_language::Condition;

    use super::*;

    #[test]
    fn some_devices_fit_with_all_they_send_and_others_with_what_is_warm() {
        let names: Vec<String> = ["load-00027-1", "load-00013-7", "https-0", "probe-1-1"]
            .map(str::to_owned)
            .into();
        let fits = Fits::new(&names, Payloads::of_run(1, None));
        let of = |device| (0..1_000).filter(|seq| fits.fits(device, *seq)).count();
        assert_eq!([of(0), of(1), of(3), of(4)], [1_000, 0, 0, 0]);
        assert!((100..900).contains(&of(2)), "{}", of(2));
    }

    #[test]
    fn conditions_are_such_as_the_hub_understands() {
        for condition in [some_devices(), what_is_warm()] {
            assert!(Condition::parse(&condition).is_ok(), "{condition}");
        }
    }
}
