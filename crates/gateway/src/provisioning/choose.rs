//! Which hub a device gets: the candidates gathered and, where it matters, how far away each is.
//!
//! What follows from them is decided in [`dunlin_model::provisioning::allocation`]. A device that has a hub keeps it as
//! long as that is one of the candidates and its policy does not say another: only weights that change, a hub that is
//! unlinked, or a webhook moves one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_model::directory::Directory;
use dunlin_model::port::OutboundCall;
use dunlin_model::provisioning::allocation::{self, Candidate};
use dunlin_model::provisioning::{AllocationPolicy, InitialTwin};
use futures_util::future::join_all;
use serde_json::Value;

use super::attest::Attested;
use super::error::{ProvisioningCode, ProvisioningError};
use super::webhook;
use crate::auth;
use crate::limits::{PROVISIONING_ANSWER_BYTES_MAX, PROVISIONING_PROBE_WAIT};
use crate::shared::Shared;

/// How long a measured latency counts.
const LATENCY_LIFE: Duration = Duration::from_secs(60);
/// How long it counts that a hub did not answer: it may only have been slow to shake hands.
const SILENCE_LIFE: Duration = Duration::from_secs(3);

/// The hub of a device, and what a webhook said beside it.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) host: String,
    /// In place of the enrolment's.
    pub(crate) initial_twin: Option<InitialTwin>,
    /// JSON text for the device.
    pub(crate) payload: Option<String>,
}

impl Chosen {
    fn plain(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            initial_twin: None,
            payload: None,
        }
    }
}

/// This hub, if it takes devices, and those that are linked.
fn linked(shared: &Shared, directory: &Directory) -> Vec<Candidate> {
    let own = (directory.book.own_weight > 0).then(|| Candidate {
        host: shared.host_names[0].clone(),
        weight: directory.book.own_weight,
    });
    let others = directory.book.hubs.iter().map(|(host, hub)| Candidate {
        host: host.clone(),
        weight: hub.weight,
    });
    own.into_iter().chain(others).collect()
}

/// Chooses for a device; `payload` is what it sent with its request.
pub(super) async fn choose(
    shared: &Shared,
    directory: &Directory,
    attested: &Attested,
    payload: Option<&Value>,
) -> Result<Chosen, ProvisioningError> {
    let spec = &attested.enrollment.spec;
    let all = linked(shared, directory);
    let no_hub = |error: allocation::AllocationError| {
        ProvisioningError::new(ProvisioningCode::NoHub, error.to_string())
    };
    let current = attested
        .registration
        .as_ref()
        .map(|registration| &registration.spec);
    if let Some(current) = current.filter(|_| !spec.reprovision.updates_hub) {
        return Ok(Chosen {
            payload: current.payload.clone(),
            ..Chosen::plain(&current.hub)
        });
    }
    if spec.allocation == AllocationPolicy::Static {
        return Ok(Chosen::plain(
            &allocation::fixed(spec, &all).map_err(no_hub)?.host,
        ));
    }
    let candidates = allocation::candidates(spec, &all).map_err(no_hub)?;
    match spec.allocation {
        AllocationPolicy::Hashed => Ok(Chosen::plain(
            &allocation::hashed(attested.id.as_str(), &candidates).host,
        )),
        AllocationPolicy::LowestLatency => {
            let current = current.and_then(|current| allocation::named(&candidates, &current.hub).ok());
            if let Some(current) = current {
                return Ok(Chosen::plain(&current.host));
            }
            let latencies = latencies(shared, directory, &candidates).await;
            let nearest = allocation::nearest(&candidates, &latencies);
            let nearest = nearest.ok_or_else(|| ProvisioningError::unavailable("no linked hub answers"))?;
            Ok(Chosen::plain(&nearest.host))
        }
        AllocationPolicy::Custom => {
            let chosen = webhook::ask(shared, attested, payload, &candidates).await?;
            allocation::named(&candidates, &chosen.host).map_err(no_hub)?;
            Ok(chosen)
        }
        AllocationPolicy::Static => unreachable!("decided above"),
    }
}

/// Latencies that were measured, by host. Bounded by the number of linked hubs.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Mutex<BTreeMap<String, (Instant, Option<u64>)>>);

impl Latencies {
    fn get(&self, host: &str, now: Instant) -> Option<Option<u64>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, latency) = known.get(host)?;
        let life = if latency.is_some() {
            LATENCY_LIFE
        } else {
            SILENCE_LIFE
        };
        (now.saturating_duration_since(*at) < life).then_some(*latency)
    }

    fn put(&self, host: &str, now: Instant, latency: Option<u64>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| now.saturating_duration_since(*at) < LATENCY_LIFE);
        known.insert(host.to_owned(), (now, latency));
    }
}

/// Microseconds to each of `candidates`: 0 to this hub, `None` to one that does not answer.
async fn latencies(shared: &Shared, directory: &Directory, candidates: &[Candidate]) -> Vec<Option<u64>> {
    let measured = candidates.iter().map(|hub| async move {
        if auth::is_host(&shared.host_names, &hub.host) {
            return Some(0);
        }
        let now = Instant::now();
        if let Some(known) = shared.latencies.get(&hub.host, now) {
            return known;
        }
        let call = OutboundCall {
            method: "HEAD",
            url: format!("https://{}/", host_and_port(directory, &hub.host)),
            headers: Vec::new(),
            body: Bytes::new(),
            authority: directory
                .book
                .hubs
                .get(&hub.host)
                .and_then(|hub| hub.authority.clone()),
            wait_ms: PROVISIONING_PROBE_WAIT.as_millis() as u64,
            answer_bytes_max: PROVISIONING_ANSWER_BYTES_MAX,
        };
        // Whatever it answers, it is that far away.
        let answered = shared.hooks.outbound.call(call).await.is_ok();
        let latency = answered.then(|| now.elapsed().as_micros() as u64);
        shared.latencies.put(&hub.host, now, latency);
        latency
    });
    join_all(measured).await
}

/// Where a linked hub's services are.
fn host_and_port(directory: &Directory, host: &str) -> String {
    let hub = directory.book.hubs.get(host);
    let connection = hub.and_then(|hub| auth::ConnectionString::parse(&hub.connection_string).ok());
    connection.map_or_else(|| host.to_owned(), |connection| connection.host_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_counts_for_a_while() {
        let latencies = Latencies::default();
        let now = Instant::now();
        latencies.put("a", now, Some(7));
        latencies.put("b", now, None);
        assert_eq!(latencies.get("a", now + LATENCY_LIFE / 2), Some(Some(7)));
        assert_eq!(latencies.get("b", now), Some(None));
        assert_eq!(latencies.get("b", now + SILENCE_LIFE), None);
        assert_eq!(latencies.get("a", now + LATENCY_LIFE), None);
        latencies.put("c", now + LATENCY_LIFE, None);
        assert_eq!(latencies.0.lock().expect("no panic").len(), 1, "old ones go");
    }
}
