//! Which of several hubs a device gets, when nobody outside decides it.
//!
//! Nothing here asks a hub or a clock: callers bring the candidates, and how far away each is.

#[cfg(doc)]
use super::AllocationPolicy;
use super::EnrollmentSpec;

/// A hub that a device may get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its host name.
    pub host: String,
    /// Its share of those that are spread: 1 to [`WEIGHT_MAX`](super::book::WEIGHT_MAX).
    pub weight: u32,
}

/// Why there is no hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// The enrolment names hubs, and none of them is linked.
    #[error("none of the hubs of the enrolment is linked")]
    NoHub,
    /// The enrolment is to name one hub, and names none.
    #[error("the enrolment names no hub, and its allocation policy is static")]
    NoStaticHub,
    /// A hub is named that is not linked.
    #[error("hub {0} is not linked")]
    NotLinked(String),
}

/// Those of `linked` that the enrolment allows.
pub fn candidates(spec: &EnrollmentSpec, linked: &[Candidate]) -> Result<Vec<Candidate>, AllocationError> {
    let is_named = |host: &str| spec.hubs.iter().any(|named| named.eq_ignore_ascii_case(host));
    let allowed = linked
        .iter()
        .filter(|hub| spec.hubs.is_empty() || is_named(&hub.host));
    let allowed: Vec<Candidate> = allowed.cloned().collect();
    if allowed.is_empty() {
        Err(AllocationError::NoHub)
    } else {
        Ok(allowed)
    }
}

/// The linked hub of this name.
pub fn named<'a>(linked: &'a [Candidate], host: &str) -> Result<&'a Candidate, AllocationError> {
    let mut found = linked.iter().filter(|hub| hub.host.eq_ignore_ascii_case(host));
    found
        .next()
        .ok_or_else(|| AllocationError::NotLinked(host.to_owned()))
}

/// The hub that an enrolment with [`AllocationPolicy::Static`] names: by itself, or as the only one of its list.
pub fn fixed<'a>(spec: &EnrollmentSpec, linked: &'a [Candidate]) -> Result<&'a Candidate, AllocationError> {
    let host = match (&spec.hub, &spec.hubs[..]) {
        (Some(host), _) | (None, [host]) => host,
        _ => return Err(AllocationError::NoStaticHub),
    };
    named(linked, host)
}

/// Spreads registrations over hubs by weight: each hub draws a number from its name and the registration's, and the
/// highest wins, so that a hub that comes or goes moves none but those that it gets or had (rendezvous hashing with
/// weights, Thaler and Ravishankar 1998). `candidates` are not empty.
pub fn hashed<'a>(registration: &str, candidates: &'a [Candidate]) -> &'a Candidate {
    let score = |hub: &Candidate| {
        let text = format!("{registration}\n{}", hub.host.to_ascii_lowercase());
        let drawn = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        // Above 0 and below 1, from the 53 bits that a float holds.
        let share = ((drawn >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -f64::from(hub.weight.max(1)) / share.ln()
    };
    let best = candidates
        .iter()
        .max_by(|a, b| score(a).total_cmp(&score(b)).then_with(|| b.host.cmp(&a.host)));
    best.expect("an allocation has candidates")
}

/// The candidate with the lowest latency; those without one are not reached. Equal ones go by their order.
pub fn nearest<'a>(candidates: &'a [Candidate], latencies_us: &[Option<u64>]) -> Option<&'a Candidate> {
    let reached = candidates
        .iter()
        .zip(latencies_us)
        .filter_map(|(hub, latency)| Some((hub, (*latency)?)));
    reached.min_by_key(|(_, latency)| *latency).map(|(hub, _)| hub)
}

#[cfg(test)]
mod tests {
    use super::super::Attestation;
    use super::*;
    use crate::identity::SymmetricKeys;

    fn hubs(weights: &[(&str, u32)]) -> Vec<Candidate> {
        let hub = |(host, weight): &(&str, u32)| Candidate {
            host: (*host).to_owned(),
            weight: *weight,
        };
        weights.iter().map(hub).collect()
    }

    fn spec(hub: Option<&str>, hubs: &[&str]) -> EnrollmentSpec {
        EnrollmentSpec {
            hub: hub.map(str::to_owned),
            hubs: hubs.iter().map(|host| (*host).to_owned()).collect(),
            ..EnrollmentSpec::enabled(Attestation::SymmetricKey(SymmetricKeys::default()))
        }
    }

    fn counts(hubs: &[Candidate]) -> Vec<usize> {
        let chosen: Vec<&str> = (0..10_000)
            .map(|n| hashed(&format!("device-{n}"), hubs).host.as_str())
            .collect();
        let count = |hub: &Candidate| chosen.iter().filter(|host| **host == hub.host).count();
        hubs.iter().map(count).collect()
    }

    #[test]
    fn registrations_are_spread_by_weight() {
        let even = counts(&hubs(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]));
        assert!(
            even.iter().all(|count| (2_300..2_700).contains(count)),
            "{even:?}"
        );
        let uneven = counts(&hubs(&[("a", 1), ("b", 3)]));
        assert!((2_300..2_700).contains(&uneven[0]), "{uneven:?}");
    }

    #[test]
    fn a_hub_that_comes_moves_nobody_between_the_others() {
        let (few, more) = (hubs(&[("a", 1), ("b", 1)]), hubs(&[("a", 1), ("b", 1), ("c", 1)]));
        let mut moved = 0;
        for name in (0..1_000).map(|n| format!("device-{n}")) {
            let (before, after) = (hashed(&name, &few), hashed(&name, &more));
            if before != after {
                assert_eq!(after.host, "c");
                moved += 1;
            }
        }
        assert!((250..420).contains(&moved), "{moved}");
    }

    #[test]
    fn golden_places_never_change() {
        let hubs = hubs(&[("one.example", 1), ("two.example", 1), ("three.example", 2)]);
        let places =
            ["sn-1", "sn-2", "sn-3", "sn-4", "sn-5", "sn-6"].map(|name| &hashed(name, &hubs).host[..3]);
        assert_eq!(places, ["thr", "thr", "one", "thr", "thr", "thr"]);
    }

    #[test]
    fn enrolments_narrow_the_choice() {
        let linked = hubs(&[("a.example", 1), ("b.example", 1)]);
        assert_eq!(candidates(&spec(None, &[]), &linked).as_ref(), Ok(&linked));
        let one = candidates(&spec(None, &["B.Example", "gone"]), &linked);
        assert_eq!(one.as_deref(), Ok(&linked[1..]));
        assert_eq!(
            candidates(&spec(None, &["gone"]), &linked),
            Err(AllocationError::NoHub)
        );
        assert_eq!(
            fixed(&spec(Some("a.example"), &["b.example"]), &linked),
            Ok(&linked[0])
        );
        assert_eq!(fixed(&spec(None, &["b.example"]), &linked), Ok(&linked[1]));
        assert_eq!(
            fixed(&spec(None, &[]), &linked),
            Err(AllocationError::NoStaticHub)
        );
        let gone = AllocationError::NotLinked("gone".into());
        assert_eq!(fixed(&spec(Some("gone"), &[]), &linked), Err(gone));
    }

    #[test]
    fn the_nearest_of_those_that_answer_is_taken() {
        let hubs = hubs(&[("a", 1), ("b", 1), ("c", 1)]);
        assert_eq!(nearest(&hubs, &[None, Some(7), Some(3)]), Some(&hubs[2]));
        assert_eq!(nearest(&hubs, &[Some(3), Some(7), Some(3)]), Some(&hubs[0]));
        assert_eq!(nearest(&hubs, &[None, None, None]), None);
    }
}
