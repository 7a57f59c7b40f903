//! The world of one run: machines, network, devices, and time, which passes a millisecond at a time.
//!
//! In each tick the plan's steps that are due are done, datagrams that have arrived are handed over, and then
//! each machine lives through its millisecond, one after the other. One thread, no clock of the machine that
//! it runs on. What came of it is judged in [`super::judge`].

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_cluster::config::NodeIdentity;

use super::disk::Pace;
use super::fleet::{Device, Shared};
use super::machine::{Machine, Site};
use super::net::{Link, Net};
use super::plan::{Action, Plan};
use super::services::{Service, Slots};
use super::trace::Trace;
use super::{SimError, alike, crypto, judge};
use crate::invariants::durable::{self, Kept};
use crate::invariants::raft::{Round, Voted, Watch};
use crate::oracle::digest;
use crate::payload::Payloads;

/// Microseconds of a tick.
const TICK_US: u64 = 1_000;
/// Time for a device before it connects again, in microseconds.
const RECONNECT_US: u64 = 20_000;
/// Time for a node that was told to stop, in microseconds; then it is killed.
const STOP_US_MAX: u64 = 3_000_000;
/// Time for a node that has stopped to write its journal's end.
const STOPPED_US: u64 = 50_000;
/// States of replicas are compared this often, in microseconds.
const COMPARE_EVERY_US: u64 = 50_000;
/// Milliseconds between looks at a condition that is waited for.
const LOOK_MS: u64 = 10;

/// A node that was told to stop.
struct Stopping {
    place: usize,
    since_us: u64,
    ended: Arc<AtomicBool>,
    ended_us: Option<u64>,
    /// Whether it was asked meanwhile to start: a process has to end first.
    starts_again: bool,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) site: Site,
    pub(super) machines: Vec<Machine>,
    pub(super) devices: Vec<Device>,
    pub(super) services: Vec<Service>,
    pub(super) shared: Arc<Shared>,
    pub(super) trace: Trace,
    pub(super) now_us: u64,
    /// Raft's properties (I13).
    pub(super) raft: Watch,
    /// Words that were held against the disk (I14).
    pub(super) words: u64,
    stopping: Vec<Stopping>,
    /// A node that could not be started, with the reason: the end of the run.
    pub(super) broken: Option<String>,
}

fn address(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, place as u8 + 1], 8900))
}

impl World {
    pub(super) fn new(
        plan: &Plan,
        identities: &[NodeIdentity],
        folder: &Path,
        trace: Trace,
    ) -> Result<World, SimError> {
        let addresses: Vec<SocketAddr> = (0..plan.nodes).map(address).collect();
        let machines = (0..plan.nodes).map(|place| {
            Machine::new(
                place,
                plan.seed.wrapping_mul(31).wrapping_add(place as u64),
                folder,
            )
        });
        let devices = (0..plan.devices).filter_map(|index| Device::new(index, index % plan.nodes));
        let slots = Arc::new(Slots::new(plan));
        let services = (0..plan.services.min(plan.nodes))
            .map(|place| Service::new(place, plan.seed ^ (place as u64 + 1) << 32, &slots));
        let payloads = Payloads::new(format!("{:x}", plan.seed), None)
            .map_err(|error| SimError::Setup(error.to_string()))?;
        Ok(World {
            site: Site {
                net: Net::new(plan.seed ^ 0x4E37, trace.clone()),
                addresses,
                identities: identities.to_vec(),
                shard_count: plan.shards,
                checkpoint_every: Duration::from_millis(plan.checkpoint_ms),
                tls: crypto::sources(),
                book: Arc::default(),
            },
            machines: machines.collect::<Result<_, _>>()?,
            devices: devices.collect(),
            services: services.collect(),
            shared: Arc::new(Shared {
                payloads,
                trace: trace.clone(),
                now_us: AtomicU64::new(0),
                is_stopped: AtomicBool::new(false),
                every: Duration::from_millis(plan.message_every_ms),
                window: plan.window,
                listens: plan.messages,
            }),
            trace,
            now_us: 0,
            raft: Watch::default(),
            words: 0,
            stopping: Vec::new(),
            broken: None,
            plan: plan.clone(),
        })
    }

    /// Lets one millisecond pass.
    pub(super) fn tick(&mut self) {
        self.now_us += TICK_US;
        self.shared.now_us.store(self.now_us, Ordering::Relaxed);
        self.end_the_failed();
        self.end_the_stopped();
        self.connect_devices();
        for (service, machine) in self.services.iter_mut().zip(&self.machines) {
            service.follow(machine.life.as_ref(), &self.shared);
        }
        self.site.net.deliver(self.now_us);
        // Nobody is always first.
        let first = (self.now_us / TICK_US) as usize;
        for turn in 0..self.machines.len() {
            let place = (first + turn) % self.machines.len();
            self.machines[place].pass(TICK_US);
        }
        if self.broken.is_none() && self.now_us.is_multiple_of(COMPARE_EVERY_US) {
            let broken = self.look_at_raft();
            let unfounded = || self.machines.iter().find_map(Machine::unfounded_damage);
            self.broken = broken
                .or_else(|| alike::first_difference(self))
                .or_else(unfounded);
        }
    }

    /// Holds what replicas said and show against the disks and against each other (I14, I13); what is wrong.
    pub(super) fn look_at_raft(&mut self) -> Option<String> {
        let heard = self.site.book.take();
        self.words += heard.words.len() as u64;
        let mut found = Vec::new();
        judge::tell(&mut found, "I14", &durable::check(&heard.words));
        for (group, at, voters) in &heard.members {
            self.raft.see_members(*group, *at, voters);
        }
        let voted = heard.words.iter().filter_map(|spoken| match spoken.kept {
            Kept::Vote(Some(vote)) => Some(Voted {
                us: spoken.us,
                node: spoken.node,
                group: spoken.group,
                replica: spoken.replica,
                vote,
            }),
            Kept::Vote(None) | Kept::LogWithout(_) => None,
        });
        let mut now = Round {
            votes: voted.collect(),
            ..Round::default()
        };
        // Together: what a life claimed at its end may rest on what others show now.
        for round in self.machines.iter_mut().flat_map(Machine::show) {
            now.sights.extend(round.sights);
            now.logs.extend(round.logs);
        }
        self.raft.see(&now);
        judge::tell(&mut found, "I13", self.raft.findings());
        found.into_iter().next()
    }

    /// Ticks until `is_met`, looking now and then; false when `ms_max` have passed without it.
    pub(super) fn until(&mut self, ms_max: u64, mut is_met: impl FnMut(&mut World) -> bool) -> bool {
        for ms in 0..ms_max {
            self.tick();
            if self.broken.is_some() {
                return false;
            }
            if ms % LOOK_MS == 0 && is_met(self) {
                return true;
            }
        }
        false
    }

    /// The end of `future`, which runs on the node in `place`.
    pub(super) fn ask<T: Send + 'static>(
        &mut self,
        place: usize,
        ms_max: u64,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let answer = Arc::new(Mutex::new(None));
        let slot = answer.clone();
        let life = self.machines[place].life.as_ref()?;
        life.runtime.spawn(async move {
            let found = future.await;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        });
        let take = || answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut found = None;
        self.until(ms_max, |_| {
            found = take();
            found.is_some()
        });
        found
    }

    /// A journal that cannot write has no node any more, and what it could not sync is lost.
    fn end_the_failed(&mut self) {
        for machine in &mut self.machines {
            if machine.has_failed() {
                self.trace.event(self.now_us, "gave up", &[machine.place as u64]);
                let seed = machine.cut_seed.take();
                machine.cut_power(&self.site, seed);
            }
        }
    }

    fn end_the_stopped(&mut self) {
        let now_us = self.now_us;
        for stopping in &mut self.stopping {
            if stopping.ended_us.is_none() && stopping.ended.load(Ordering::Relaxed) {
                stopping.ended_us = Some(now_us);
            }
            let is_over = stopping.ended_us.is_some_and(|at| now_us >= at + STOPPED_US)
                || now_us >= stopping.since_us + STOP_US_MAX;
            if is_over {
                self.machines[stopping.place].kill(&self.site);
                stopping.since_us = u64::MAX;
            }
        }
        let (over, going): (Vec<Stopping>, Vec<Stopping>) = std::mem::take(&mut self.stopping)
            .into_iter()
            .partition(|stopping| stopping.since_us == u64::MAX);
        self.stopping = going;
        for stopping in over.into_iter().filter(|stopping| stopping.starts_again) {
            self.start(stopping.place);
        }
    }

    /// A device without a connection goes to the next node that runs.
    fn connect_devices(&mut self) {
        let (now_us, count) = (self.now_us, self.machines.len());
        for device in &mut self.devices {
            if self.machines[device.place].life.is_none() {
                device.disconnect(now_us);
            }
            if !device.is_adrift() {
                continue;
            }
            if device.not_before_us == 0 {
                device.not_before_us = now_us + RECONNECT_US;
            }
            if now_us < device.not_before_us {
                continue;
            }
            device.not_before_us = 0;
            let next = (1..=count).map(|step| (device.place + step) % count);
            let running = next.clone().find(|place| {
                let machine = &self.machines[*place];
                machine.life.is_some() && !machine.is_stopped
            });
            let Some(place) = running else { continue };
            if let Some(life) = &self.machines[place].life {
                device.connect(&self.shared, life, place);
            }
        }
    }

    pub(super) fn start(&mut self, place: usize) {
        if let Some(stopping) = self.stopping.iter_mut().find(|stopping| stopping.place == place) {
            stopping.starts_again = true;
            return;
        }
        let machine = &mut self.machines[place];
        let mut started = machine.start(&self.site);
        if started.is_err()
            && let Some(seed) = machine.cut_seed.take()
        {
            // The power went while it started.
            machine.cut_power(&self.site, Some(seed));
            started = machine.start(&self.site);
        }
        if let Err(error) = started {
            self.broken = Some(error.to_string());
        }
    }

    /// Does one step of the plan.
    pub(super) fn act(&mut self, action: &Action) {
        let text = format!("{action:?}");
        self.trace.event(self.now_us, "act", &[digest(text.as_bytes())]);
        match *action {
            Action::Kill(place) => self.kill(place),
            Action::KillBusiest => {
                if let Some(place) = self.busiest() {
                    self.kill(place);
                }
            }
            Action::StopInOrder(place) => self.stop_in_order(place),
            Action::Start(place) => self.start(place),
            Action::CutPower(place, seed) => self.cut_power(place, seed),
            Action::CutPowerInSync(place, syncs, seed) => self.machines[place].cut_power_in_sync(syncs, seed),
            Action::FlipBits(place, seed) => {
                let flipped = self.machines[place].flip_bits(seed);
                self.trace.event(self.now_us, "flipped", &[flipped]);
            }
            Action::CutPowerOfAll(seed) => {
                for place in 0..self.machines.len() {
                    self.cut_power(place, seed.wrapping_add(place as u64));
                }
            }
            Action::StartAll => (0..self.machines.len()).for_each(|place| self.start(place)),
            Action::Pause(place) => {
                // A stopped process does not end in order.
                if !self.stopping.iter().any(|stopping| stopping.place == place) {
                    self.machines[place].is_stopped = self.machines[place].life.is_some();
                }
            }
            Action::Resume(place) => self.machines[place].resume(),
            Action::Isolate(node) => {
                self.set_links(|from, to| (from == node || to == node).then_some(CUT));
            }
            Action::CutOneWay { node, outwards } => self.set_links(|from, to| {
                let is_cut = if outwards { from == node } else { to == node };
                is_cut.then_some(CUT)
            }),
            Action::Weather(link) => self.set_links(|_, _| Some(link)),
            Action::HealNetwork => self.set_links(|_, _| Some(Link::HEALTHY)),
            Action::Disk(place, pace) => self.machines[place].paced.set(pace),
            Action::RefuseSyncs(place) => {
                if self.machines[place].life.is_some() {
                    self.machines[place].refuse_syncs();
                }
            }
            Action::StepWall(place, by_ms) => self.machines[place].clock.step_wall(by_ms),
            Action::Rate(place, rate_ppm) => self.machines[place].rate_ppm = rate_ppm,
            Action::MoveDevicesOf(place) => {
                let now_us = self.now_us;
                let there = self.devices.iter_mut().filter(|device| device.place == place);
                there.for_each(|device| device.disconnect(now_us));
            }
            Action::MoveDevice(index) => {
                let now_us = self.now_us;
                if let Some(device) = self.devices.get_mut(index) {
                    device.disconnect(now_us);
                }
            }
        }
    }

    fn kill(&mut self, place: usize) {
        self.stopping.retain(|stopping| stopping.place != place);
        self.machines[place].kill(&self.site);
    }

    fn cut_power(&mut self, place: usize, seed: u64) {
        self.stopping.retain(|stopping| stopping.place != place);
        // Half of the cuts leave nothing that was not synced, the other half some of it.
        let seed = (!seed.is_multiple_of(2)).then_some(seed);
        self.machines[place].cut_power(&self.site, seed);
    }

    fn stop_in_order(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        if machine.is_stopped || self.stopping.iter().any(|stopping| stopping.place == place) {
            return;
        }
        let Some(life) = &machine.life else { return };
        let (cluster, ended) = (life.cluster.clone(), Arc::new(AtomicBool::new(false)));
        let done = ended.clone();
        life.runtime.spawn(async move {
            cluster.stop().await;
            done.store(true, Ordering::Relaxed);
        });
        self.stopping.push(Stopping {
            place,
            since_us: self.now_us,
            ended,
            ended_us: None,
            starts_again: false,
        });
    }

    fn set_links(&self, link: impl Fn(usize, usize) -> Option<Link>) {
        for (from, address_from) in self.site.addresses.iter().enumerate() {
            for (to, address_to) in self.site.addresses.iter().enumerate() {
                if let Some(link) = link(from, to) {
                    self.site.net.set(*address_from, *address_to, link);
                }
            }
        }
    }

    /// The node that leads most groups.
    fn busiest(&self) -> Option<usize> {
        let led = |machine: &Machine| {
            let life = machine.life.as_ref()?;
            let groups = life.cluster.status().groups;
            let count = groups.iter().filter(|(_, group)| group.leads).count();
            Some((count, machine.place))
        };
        let most = self.machines.iter().filter_map(led).max()?;
        Some(most.1)
    }

    /// Takes back everything that was done to machines and network.
    pub(super) fn heal(&mut self) {
        self.act(&Action::HealNetwork);
        for place in 0..self.machines.len() {
            let machine = &mut self.machines[place];
            machine.disk.heal();
            machine.paced.set(Pace::HEALTHY);
            machine.rate_ppm = 1_000_000;
            machine.resume();
            self.start(place);
        }
    }

    /// Ends everything.
    pub(super) fn end(&mut self) {
        let now_us = self.now_us;
        for device in &mut self.devices {
            device.disconnect(now_us);
        }
        for place in 0..self.machines.len() {
            self.kill(place);
        }
    }
}

const CUT: Link = Link {
    is_cut: true,
    ..Link::HEALTHY
};
