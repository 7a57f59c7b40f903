//! The epochs of a run: faults at their times, several at once, then a quiet time with deadlines.
//!
//! Decides whom a fault meets (the target says how, the cluster says who that is just then), whether it may
//! (never more damage than the scenario allows), and when everything is well again. What a fault does is in
//! [`crate::faults`]; every step goes to the journal.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dunlin_cluster::admin::ClusterStatus;
use dunlin_model::directory::NodeState;
use futures_util::future::join_all;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, sleep_until};

use super::journal::{Event, Progress};
use super::keeper::Keeper;
use super::metrics;
use crate::faults::{FaultError, Field, Order};
use crate::fleet::{Armed, Fleet};
use crate::scenario::Scenario;
use crate::scenario::draw::{self, DrawnFault};
use crate::scenario::target::Target;
use crate::view::View;

/// Probes send from so long before a fault ...
const ARMED_BEFORE: Duration = Duration::from_secs(1);
/// ... until so long after it, or until it is healed.
const ARMED_AFTER: Duration = Duration::from_secs(5);
/// Choices of a node before the last one stands, because leaderships do not rest.
const CHOICES_MAX: u32 = 5;
/// Between two looks at a quiet time.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Time beyond its deadlines after which a quiet time is given up, and the run with it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// Bytes of a node's log that are searched for an alarm.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A fault that must not pass in silence, with where each node's log ended before it.
struct Expected {
    fault: usize,
    words: &'static [&'static str],
    logs: Vec<(std::path::PathBuf, u64)>,
}

/// Leads through the epochs.
pub(super) struct Epochs<'a> {
    scenario: &'a Scenario,
    seed: u64,
    field: &'a Field,
    fleet: &'a Fleet,
    view: &'a View,
    begun: Instant,
    /// Kinds that cannot be done in this run, and why.
    refused: Vec<(&'static str, String)>,
    fault_count: Cell<usize>,
    /// Nodes that are damaged until the next quiet time is over.
    damaged: RefCell<BTreeSet<usize>>,
    watched: RefCell<BTreeSet<(usize, u32)>>,
    expected: RefCell<Vec<Expected>>,
    /// Held while logs are fetched and measured: of one that is being fetched a part may be there.
    logs: tokio::sync::Mutex<()>,
}

/// A fault under way.
struct Running<'a> {
    drawn: &'a DrawnFault,
    number: usize,
    epoch: u64,
    nodes: Vec<usize>,
}

impl<'a> Epochs<'a> {
    pub(super) fn new(
        (scenario, seed): (&'a Scenario, u64),
        field: &'a Field,
        fleet: &'a Fleet,
        view: &'a View,
        begun: Instant,
        refused: Vec<(&'static str, String)>,
    ) -> Self {
        Self {
            scenario,
            seed,
            field,
            fleet,
            view,
            begun,
            refused,
            fault_count: Cell::new(0),
            damaged: RefCell::default(),
            watched: RefCell::default(),
            expected: RefCell::default(),
            logs: tokio::sync::Mutex::default(),
        }
    }

    /// Faults and shards that were watched from before the fault on.
    pub(super) fn watched(&self) -> BTreeSet<(usize, u32)> {
        self.watched.borrow().clone()
    }

    fn say(&self, text: &str) {
        self.view
            .say(&format!("{:5.1} s  {text}", self.begun.elapsed().as_secs_f64()));
    }

    /// Plays all epochs, or as many as begin within `duration_s`.
    pub(super) async fn play(&self, duration_s: Option<u64>, keeper: &Keeper) -> io::Result<()> {
        let until = duration_s.map(|duration_s| self.begun + Duration::from_secs(duration_s));
        let mut given_up = None;
        for index in 0.. {
            let is_over = match until {
                Some(until) => Instant::now() >= until,
                None => index >= draw::epoch_count(self.scenario),
            };
            if is_over {
                break;
            }
            let is_well = self.play_one(index).await;
            keeper.write_up()?;
            self.field.sync_journal()?;
            if !is_well {
                given_up = Some(format!("not everything was well again after epoch {}", index + 1));
                break;
            }
        }
        self.field.journal(Event::Ended { given_up });
        self.field.sync_journal()
    }

    /// One epoch; whether all was well again after it.
    async fn play_one(&self, index: u64) -> bool {
        let drawn = draw::epoch(self.scenario, self.seed, index);
        let names: Vec<String> = drawn
            .faults
            .iter()
            .map(|fault| format!("{} {} of {}", fault.kind.number, fault.kind.name, fault.target))
            .collect();
        let shown = match names.is_empty() {
            true => "no fault".to_owned(),
            false => names.join(", "),
        };
        self.say(&format!("epoch {}: {shown}", index + 1));
        self.field.journal(Event::Epoch {
            epoch: index,
            faults: names,
        });
        let begun = Instant::now();
        let faults = drawn.faults.iter().map(|fault| self.drive(index, fault, begun));
        join_all(faults).await;
        sleep_until(begun + Duration::from_millis(drawn.duration_ms)).await;
        let is_well = self.quiet(index).await;
        self.look_for_alarms().await;
        self.damaged.borrow_mut().clear();
        self.fleet.set_phase(|phase| phase.home_calls += 1);
        is_well
    }

    /// One fault, from its choice of a node to its end.
    async fn drive(&self, epoch: u64, drawn: &DrawnFault, begun: Instant) {
        let number = self.fault_count.replace(self.fault_count.get() + 1);
        let mut running = Running {
            drawn,
            number,
            epoch,
            nodes: Vec::new(),
        };
        let at = begun + Duration::from_millis(drawn.at_ms);
        let kind = drawn.kind;
        if let Some((_, reason)) = self.refused.iter().find(|(name, _)| *name == kind.name) {
            return self.note(&running, Progress::Skipped, reason);
        }
        if kind.is_watched {
            sleep_until((at - ARMED_BEFORE).max(begun)).await;
        } else {
            sleep_until(at).await;
        }
        let led = match self.choose(&mut running, at).await {
            Ok(led) => led,
            Err(reason) => return self.note(&running, Progress::Skipped, &reason),
        };
        let alarms = self.alarms_due(&running).await;
        let order = Order {
            nodes: running.nodes.clone(),
            for_ms: drawn.for_ms,
            with: drawn.with.clone(),
            seed: drawn.seed,
        };
        let mut fault = kind.fault(self.field.backend(), order);
        self.note(&running, Progress::Begun, "");
        let installed = fault.install(self.field).await;
        let installed_at = Instant::now();
        let is_on = self.note_step(&running, Progress::Installed, &installed);
        if is_on {
            self.field.journal(Event::Watched {
                fault: number,
                shards: led.clone(),
            });
            let watched = led.iter().map(|shard| (number, *shard));
            self.watched.borrow_mut().extend(watched);
            let confirmed = fault.confirm(self.field).await;
            if self.note_step(&running, Progress::Confirmed, &confirmed) {
                self.expected.borrow_mut().extend(alarms);
            }
            let over = installed_at + Duration::from_millis(drawn.for_ms);
            sleep_until(over.min(installed_at + ARMED_AFTER)).await;
            self.disarm(number);
            sleep_until(over).await;
        } else {
            self.disarm(number);
        }
        if matches!(installed, Err(FaultError::Skipped(_))) {
            // Whatever it began, it must end; but nothing was done, so nothing is told.
            let _ = fault.heal(self.field).await;
            return;
        }
        self.look_for_deaths(&running);
        let healed = fault.heal(self.field).await;
        self.note_step(&running, Progress::Healed, &healed);
    }

    /// A node that a fault met must still run when it is healed, unless the fault ends processes. Healing starts
    /// it again; of the others a quiet time finds out.
    fn look_for_deaths(&self, running: &Running<'_>) {
        if running.drawn.kind.may_end {
            return;
        }
        let died = |node: &&usize| self.field.ended_by_itself(**node);
        for node in running.nodes.iter().filter(died) {
            self.field.died(*node, "it ended by itself");
        }
    }

    fn note(&self, running: &Running<'_>, step: Progress, detail: &str) {
        let kind = running.drawn.kind;
        let shown = match step {
            Progress::Begun => None,
            Progress::Skipped => Some(format!("skipped: {detail}")),
            Progress::Indeterminate => Some(format!("unclear: {detail}")),
            _ => Some(detail.to_owned()),
        };
        if let Some(shown) = shown {
            self.say(&format!("{} {:<12} {shown}", kind.number, kind.name));
        }
        self.field.journal(Event::Fault {
            fault: running.number,
            epoch: running.epoch,
            kind: kind.name.into(),
            number: kind.number.into(),
            nodes: running.nodes.clone(),
            step,
            detail: detail.to_owned(),
        });
    }

    /// Writes down how a step went; whether it was done.
    fn note_step(&self, running: &Running<'_>, step: Progress, result: &Result<String, FaultError>) -> bool {
        match result {
            Ok(detail) => self.note(running, step, detail),
            Err(FaultError::Skipped(reason)) => self.note(running, Progress::Skipped, reason),
            Err(FaultError::Indeterminate(reason)) => self.note(running, Progress::Indeterminate, reason),
        }
        result.is_ok()
    }

    /// Chooses the nodes, watches what they lead, and waits until it is time; the shards that were watched
    /// all along.
    async fn choose(&self, running: &mut Running<'_>, at: Instant) -> Result<Vec<u32>, String> {
        let drawn = running.drawn;
        let mut random = StdRng::seed_from_u64(drawn.seed);
        let (mut nodes, mut led) = self.candidates(drawn, &mut random).await?;
        if drawn.kind.is_watched && nodes.len() == 1 {
            for _ in 0..CHOICES_MAX {
                self.arm(running.number, &nodes, &led);
                sleep_until(at.max(Instant::now() + ARMED_BEFORE / 2)).await;
                // Leaderships may have moved meanwhile.
                let mut again = StdRng::seed_from_u64(drawn.seed);
                let (nodes_now, led_now) = self.candidates(drawn, &mut again).await?;
                if nodes_now == nodes {
                    led.retain(|shard| led_now.contains(shard));
                    break;
                }
                (nodes, led) = (nodes_now, led_now);
            }
        } else {
            led.clear();
        }
        if drawn.kind.damages {
            let mut damaged = self.damaged.borrow_mut();
            let together: BTreeSet<usize> = damaged.iter().chain(&nodes).copied().collect();
            let tolerance = self.scenario.cluster.tolerance();
            if together.len() > tolerance && !self.scenario.majority {
                self.disarm(running.number);
                return Err(format!("{tolerance} nodes may be damaged, and are"));
            }
            *damaged = together;
        }
        running.nodes = nodes;
        Ok(led)
    }

    /// The nodes that the target names now, and the shards that they lead.
    async fn candidates(
        &self,
        drawn: &DrawnFault,
        random: &mut StdRng,
    ) -> Result<(Vec<usize>, Vec<u32>), String> {
        let candidates = self.field.candidates(&[]).await;
        let nodes = candidates.choose(drawn.target, random);
        let wanted = drawn.target.count(candidates.nodes.len());
        if nodes.len() < wanted || (wanted == 0 && drawn.target != Target::Cluster) {
            return Err(format!("there is no '{}' just now", drawn.target));
        }
        let led = nodes.iter().flat_map(|node| candidates.led_by(*node).to_vec());
        let led = led.collect();
        Ok((nodes, led))
    }

    /// Has one probe for each shard send, in turn through gateways that are not met.
    fn arm(&self, fault: usize, nodes: &[usize], led: &[u32]) {
        let damaged = self.damaged.borrow();
        let gateways: Vec<usize> = (0..self.scenario.cluster.gateway_count())
            .filter(|gateway| !nodes.contains(gateway) && !damaged.contains(gateway))
            .collect();
        if gateways.is_empty() {
            return;
        }
        let probes = led
            .iter()
            .enumerate()
            .map(|(place, shard)| (gateways[place % gateways.len()], *shard));
        let armed = Arc::new(Armed {
            fault,
            probes: probes.collect(),
        });
        self.fleet.set_phase(|phase| {
            phase.armed.retain(|other| other.fault != fault);
            phase.armed.push(armed);
        });
    }

    fn disarm(&self, fault: usize) {
        self.fleet
            .set_phase(|phase| phase.armed.retain(|armed| armed.fault != fault));
    }

    /// Waits until everything is well; whether it is.
    async fn quiet(&self, epoch: u64) -> bool {
        let from_us = self.field.now_us();
        let deadlines = &self.scenario.liveness;
        let given_up =
            Instant::now() + Duration::from_secs(deadlines.serve_s.max(deadlines.whole_s)) + GIVE_UP_AFTER;
        let (mut served_us, mut whole_us) = (None, None);
        let mut dead = BTreeSet::new();
        let missing = loop {
            // Every fault is healed: whoever has ended now, met by one or not, did so unasked.
            for node in (0..self.field.node_count()).filter(|node| self.field.ended_by_itself(*node)) {
                if dead.insert(node) {
                    self.field.died(node, "it ended by itself, and is down");
                }
            }
            let status = self.field.look().await;
            let now_us = self.field.now_us();
            let missing = match self.not_served(&dead, status.as_ref(), from_us) {
                Some(missing) => missing,
                None => {
                    served_us.get_or_insert(now_us);
                    match self.not_whole(status.as_ref()) {
                        Some(missing) => missing,
                        None => {
                            whole_us.get_or_insert(now_us);
                            break String::new();
                        }
                    }
                }
            };
            if Instant::now() >= given_up {
                break missing;
            }
            sleep(LOOK_PAUSE).await;
        };
        let after = |us: Option<u64>| match us {
            Some(us) => format!("{:.1} s", us.saturating_sub(from_us) as f64 / 1e6),
            None => "never".into(),
        };
        let mut line = format!(
            "quiet: all served after {}, all replicas after {}",
            after(served_us),
            after(whole_us)
        );
        if !missing.is_empty() {
            line.push_str(&format!("; missing: {missing}"));
        }
        self.say(&line);
        self.field.journal(Event::Quiet {
            epoch,
            from_us,
            served_us,
            whole_us,
            missing,
        });
        whole_us.is_some()
    }

    /// What is missing for everything to be served.
    fn not_served(
        &self,
        dead: &BTreeSet<usize>,
        status: Option<&ClusterStatus>,
        from_us: u64,
    ) -> Option<String> {
        if let Some(node) = dead.first() {
            return Some(format!("node {} has ended by itself", node + 1));
        }
        let Some(status) = status else {
            return Some("an answer of the cluster".into());
        };
        let leaderless = status
            .groups
            .iter()
            .filter(|group| group.leader.is_none())
            .count();
        if leaderless > 0 {
            return Some(format!("{leaderless} groups have no leader"));
        }
        let live = self.fleet.live();
        let all = self.fleet.device_count();
        let connected = live.connected_count.load(Ordering::Relaxed);
        if connected < all {
            return Some(format!("{} of {all} devices are not connected", all - connected));
        }
        let behind = live.behind(self.scenario.load.devices, from_us);
        (behind > 0).then(|| format!("{behind} devices have had nothing acked since"))
    }

    /// What is missing for every shard to have all its replicas.
    fn not_whole(&self, status: Option<&ClusterStatus>) -> Option<String> {
        let status = status?;
        if status.health != "healthy" {
            return Some(format!("the cluster is {}", status.health));
        }
        let silent = status
            .nodes
            .iter()
            .find(|line| line.state == NodeState::Active && !line.alive);
        silent.map(|line| format!("node {} is silent", line.node))
    }

    async fn alarms_due(&self, running: &Running<'_>) -> Option<Expected> {
        let words = running.drawn.kind.alarms;
        if words.is_empty() {
            return None;
        }
        let _alone = self.logs.lock().await;
        self.keep_logs().await;
        let log = |node| {
            let path = self.field.log_file(node);
            let end = path.metadata().map_or(0, |found| found.len());
            (path, end)
        };
        Some(Expected {
            fault: running.number,
            words,
            logs: (0..self.field.node_count()).map(log).collect(),
        })
    }

    /// Has all that nodes have logged where it is looked for.
    async fn keep_logs(&self) {
        for node in 0..self.field.node_count() {
            if let Err(error) = self.field.keep_log(node).await {
                tracing::warn!(%error, node = node + 1, "a node's log is not kept");
            }
        }
    }

    async fn look_for_alarms(&self) {
        let all = std::mem::take(&mut *self.expected.borrow_mut());
        if !all.is_empty() {
            self.keep_logs().await;
        }
        for expected in all {
            let logged = |(path, from): &(std::path::PathBuf, u64)| -> Option<Vec<String>> {
                let mut file = File::open(path).ok()?;
                file.seek(SeekFrom::Start(*from)).ok()?;
                let mut text = Vec::new();
                file.take(LOG_BYTES_MAX).read_to_end(&mut text).ok()?;
                let text = String::from_utf8_lossy(&text).into_owned();
                let told = |line: &&str| expected.words.iter().any(|word| line.contains(word));
                Some(text.lines().filter(told).map(str::to_owned).collect())
            };
            let (mut line, mut counted) = (None, None);
            for (node, log) in expected.logs.iter().enumerate() {
                let lines = logged(log).unwrap_or_default();
                if let Some(first) = lines.first() {
                    let texts: Vec<&str> = lines.iter().map(String::as_str).collect();
                    counted = metrics::is_counted(&self.field.hub, node, &texts).await;
                    line = Some(first.clone());
                    break;
                }
            }
            self.field.journal(Event::Alarm {
                fault: expected.fault,
                line,
                counted,
            });
        }
    }
}
