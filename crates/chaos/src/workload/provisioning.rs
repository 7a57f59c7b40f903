//! W6: devices that nobody knows. Services make, change, disable, enable and delete enrolments of single devices and of
//! groups with symmetric keys, through one gateway after the other, and in between devices register under them, at one
//! gateway or at all at once, over MQTT and over HTTPS, and connect to the hub that they are told.
//!
//! A service changes an enrolment only when all that was asked under it is answered, so what follows on it is clear.
//! After a change whose outcome is not known nothing about the enrolment is, and another begins its life.

mod device;

use std::time::Duration;

use dunlin_gateway::auth;
use futures_util::future::join_all;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::enrolling::{Change, Enrolling, Entry, Found, Look, Registration, Terms, Told};
use super::grant::Door;
use super::operation::Outcome;
use super::{Bench, outcome_of_change};
use crate::invariants::identity::REFUSED_WITHIN;
use crate::stage;
use device::Applicant;

/// Keys that an enrolment has in its life, and one that it never has.
const KEYS: usize = 7;
/// The number of the key that no enrolment has.
const STRANGE: u32 = KEYS as u32 - 1;
/// Devices of a group.
const MEMBERS: usize = 2;
/// Pause before something that was not answered is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Lives, one after the other, until it is told to stop. `slot` tells those apart that run at once: of the even ones
/// each enrolment is a group, of the others that of one device.
pub async fn run(mut bench: Bench, slot: usize, period: Duration) {
    let Some(scope) = find_scope(&mut bench).await else {
        return;
    };
    let mut random = StdRng::seed_from_u64(bench.seed ^ (slot as u64 + 1) << 40);
    for life in 0_usize.. {
        let begun = Instant::now();
        let is_group = slot.is_multiple_of(2);
        let enrollment = format!("{}-{slot}-{life}", if is_group { "crew" } else { "own" });
        let mut one = Life {
            ids: match is_group {
                true => (0..MEMBERS)
                    .map(|member| format!("{enrollment}-{member}"))
                    .collect(),
                false => vec![enrollment.clone()],
            },
            is_group,
            is_there: false,
            enrollment,
            scope: scope.clone(),
            keys: (0..KEYS).map(|_| stage::draw_key(&mut random)).collect(),
            node: slot + life,
            period,
            begun,
            bench: bench.clone(),
        };
        if one.live().await.is_none() {
            // Groups are few, and this one may be there.
            one.change(None).await;
        }
        // Not faster than that, even where everything is refused at once.
        if !bench.wait_until(begun + period).await {
            return;
        }
    }
}

/// The name of the hub's provisioning service; none if there is no time for it any more.
async fn find_scope(bench: &mut Bench) -> Option<String> {
    let mut node = 0;
    loop {
        let asked = (Method::GET, "/provisioning?api-version=2021-10-01");
        let answer = bench.ask_json(bench.turn(&mut node), asked, None, None).await;
        if let Some((StatusCode::OK, shown)) = answer
            && let Some(scope) = shown["idScope"].as_str()
        {
            return Some(scope.to_owned());
        }
        if !bench.wait_until(Instant::now() + PAUSE).await {
            return None;
        }
    }
}

struct Life {
    bench: Bench,
    scope: String,
    enrollment: String,
    is_group: bool,
    /// Whether the enrolment is there, as far as is known.
    is_there: bool,
    /// Registration ids that come under it.
    ids: Vec<String>,
    /// In Base64, in the order in which the enrolment gets them; the last is never one of its own.
    keys: Vec<String>,
    node: usize,
    period: Duration,
    /// When the step began that is under way.
    begun: Instant,
}

impl Life {
    /// `None` when it ended early, and the enrolment may still be there.
    async fn live(&mut self) -> Option<()> {
        let (first, last) = (0, self.ids.len() - 1);
        self.put([0, 1], true).await?;
        let device = self.register_everywhere(first, 0).await;
        self.look(first, device.as_deref()).await;
        self.enter(first, 0, device.as_deref()).await;
        self.register(first, STRANGE).await;

        self.put([2, 1], true).await?;
        self.register_everywhere(first, 0).await;
        self.register(first, 1).await;
        let device = self.register(first, 2).await.or(device);
        self.enter(first, 2, device.as_deref()).await;

        self.put([2, 1], false).await?;
        self.register_everywhere(first, 2).await;

        self.put([2, 1], true).await?;
        let other = self.register_everywhere(last, 1).await;
        self.look(last, other.as_deref()).await;
        self.enter(last, 1, other.as_deref()).await;

        self.put([2, 3], true).await?;
        self.register(first, 1).await;
        self.register(first, 3).await;

        self.step(None).await?;
        self.register_everywhere(first, 2).await;
        self.look(first, device.as_deref()).await;

        self.put([4, 5], true).await?;
        let device = self.register_everywhere(first, 4).await.or(device);
        let registered = Instant::now();
        self.look(first, device.as_deref()).await;
        self.enter(first, 4, device.as_deref()).await;
        // What the device had before must be refused from then on, and so is tried then.
        let settle = REFUSED_WITHIN + Duration::from_millis(50);
        if !self.bench.wait_until(registered + settle).await {
            return None;
        }
        self.enter(first, 2, device.as_deref()).await;
        self.step(None).await
    }

    async fn put(&mut self, keys: [u32; 2], is_enabled: bool) -> Option<()> {
        self.step(Some(Terms { keys, is_enabled })).await
    }

    /// Changes the enrolment when it is time for that; none if the life is over with it.
    async fn step(&mut self, terms: Option<Terms>) -> Option<()> {
        if !self.bench.wait_until(self.begun).await {
            return None;
        }
        self.begun = Instant::now() + self.period;
        (self.change(terms).await == Outcome::Ok).then_some(())
    }

    fn next_node(&mut self) -> usize {
        self.bench.turn(&mut self.node)
    }

    async fn change(&mut self, terms: Option<Terms>) -> Outcome {
        let node = self.next_node();
        let (collection, id) = match self.is_group {
            true => ("enrollmentGroups", "enrollmentGroupId"),
            false => ("enrollments", "registrationId"),
        };
        let path = format!("/{collection}/{}?api-version=2021-10-01", self.enrollment);
        let body = terms.as_ref().map(|terms| {
            let [primary, secondary] = terms.keys.map(|key| self.keys[key as usize].as_str());
            let keys = json!({ "primaryKey": primary, "secondaryKey": secondary });
            let body = json!({
                id: self.enrollment,
                "attestation": { "type": "symmetricKey", "symmetricKey": keys },
                "provisioningStatus": if terms.is_enabled { "enabled" } else { "disabled" },
            });
            body.to_string().into_bytes()
        });
        let method = if terms.is_some() {
            Method::PUT
        } else {
            Method::DELETE
        };
        // Without a condition an enrolment is made, and none is changed.
        let condition = (self.is_there || terms.is_none()).then_some("*");
        let invoked_us = self.bench.now_us();
        let asked = (method, path.as_str());
        let answer = self.bench.hub.attempt(node, asked, None, body, condition).await;
        let (outcome, detail) = outcome_of_change(answer);
        if outcome == Outcome::Ok {
            self.is_there = terms.is_some();
        }
        self.bench.shelf.enrollings.note(Enrolling::Change(Change {
            enrollment: self.enrollment.clone(),
            terms,
            node,
            invoked_us,
            completed_us: self.bench.now_us(),
            outcome,
            detail,
        }));
        outcome
    }

    /// The key that a device of this life shows.
    fn key_of(&self, member: usize, key: u32) -> Option<String> {
        let key = &self.keys[key as usize];
        match self.is_group {
            true => auth::derive_key(key, &self.ids[member]).ok(),
            false => Some(key.clone()),
        }
    }

    /// Registers at one gateway; what the device is called at its hub, if it is told.
    async fn register(&mut self, member: usize, key: u32) -> Option<String> {
        let node = self.next_node();
        self.register_at(node, member, key).await
    }

    /// Registers at all gateways at once.
    async fn register_everywhere(&self, member: usize, key: u32) -> Option<String> {
        let all = (0..self.bench.gateways.len()).map(|node| self.register_at(node, member, key));
        join_all(all).await.into_iter().flatten().next()
    }

    async fn register_at(&self, node: usize, member: usize, key: u32) -> Option<String> {
        let own = self.key_of(member, key)?;
        let applicant = Applicant {
            bench: &self.bench,
            scope: &self.scope,
            id: &self.ids[member],
            key: &own,
        };
        let door = match (node + key as usize).is_multiple_of(2) {
            true => Door::Mqtt,
            false => Door::Https,
        };
        let invoked_us = self.bench.now_us();
        let told = applicant.register(node, door).await;
        let device = match &told {
            Told::Assigned(assignment) => Some(assignment.device.clone()),
            _ => None,
        };
        self.bench
            .shelf
            .enrollings
            .note(Enrolling::Registration(Registration {
                id: self.ids[member].clone(),
                enrollment: self.enrollment.clone(),
                key,
                door,
                node,
                invoked_us,
                completed_us: self.bench.now_us(),
                told,
            }));
        device
    }

    /// Looks at the registration and at the device, at all gateways.
    async fn look(&self, member: usize, device: Option<&str>) {
        let looks = (0..self.bench.gateways.len()).map(|node| self.look_at(node, member, device));
        join_all(looks).await;
    }

    async fn look_at(&self, node: usize, member: usize, device: Option<&str>) {
        let id = &self.ids[member];
        let note = |invoked_us, found| {
            let id = id.clone();
            let look = Look {
                id,
                node,
                invoked_us,
                found,
            };
            self.bench.shelf.enrollings.note(Enrolling::Look(look));
        };
        let path = format!("/registrations/{id}?api-version=2021-10-01");
        let invoked_us = self.bench.now_us();
        match self.bench.ask_json(node, (Method::GET, &path), None, None).await {
            // What cannot be read is no registration: the checker is to see it.
            Some((StatusCode::OK, state)) => {
                note(invoked_us, Found::Registration(device::assignment(&state)));
            }
            Some((StatusCode::NOT_FOUND, _)) => note(invoked_us, Found::Registration(None)),
            _ => {}
        }
        let Some(device) = device else {
            return;
        };
        let invoked_us = self.bench.now_us();
        if let Some(is_there) = self.bench.has_device(node, device).await {
            note(invoked_us, Found::Device(is_there));
        }
    }

    /// Connects to the hub as the device that was assigned, at all gateways.
    async fn enter(&self, member: usize, key: u32, device: Option<&str>) {
        let (Some(device), Some(own)) = (device, self.key_of(member, key)) else {
            return;
        };
        let own = own.as_str();
        let entries = (0..self.bench.gateways.len()).map(|node| async move {
            let applicant = Applicant {
                bench: &self.bench,
                scope: &self.scope,
                id: &self.ids[member],
                key: own,
            };
            let invoked_us = self.bench.now_us();
            let (outcome, detail) = applicant.enter(node, device).await;
            self.bench.shelf.enrollings.note(Enrolling::Entry(Entry {
                id: self.ids[member].clone(),
                key,
                node,
                invoked_us,
                outcome,
                detail,
            }));
        });
        join_all(entries).await;
    }
}
