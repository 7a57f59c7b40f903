//! Deterministic simulation: the production code of nodes, consensus, storage, actors and transport in one
//! thread, on simulated time, network and disk. One seed draws one plan, and repeats its run bit for bit.
//!
//! A run has four phases: the cluster forms; faults happen ([`Plan`]); everything heals and must serve again
//! (liveness); what is stored is compared with what the devices were told. Simulated are time ([`machine`]), the
//! UDP below quinn ([`net`]), the disk below journal and event segments ([`disk`]), and SIGKILL. Not part of
//! it: the doors (devices stand below them), fjall (a store in memory stands for it), the few small files of
//! the data directory, which are written for real.

mod alike;
mod crypto;
mod disk;
mod ears;
mod eyes;
mod fleet;
mod judge;
mod machine;
mod messages;
mod net;
mod panics;
mod plan;
mod services;
mod shrink;
mod standstill;
#[cfg(test)]
mod tests;
mod trace;
mod world;

use std::path::Path;
use std::sync::Arc;

use dunlin_cluster::config::NodeIdentity;
use serde::Serialize;
use tempfile::TempDir;

pub use disk::Pace;
pub use net::{Counts, Link};
pub use plan::{Action, Kind, Plan, Step};
pub use shrink::shrink;

use standstill::Progress;
use trace::Trace;
use world::World;

/// Time for a new cluster to be whole, in milliseconds of the simulation.
const FORM_MS: u64 = 60_000;
/// Nodes that a run may have.
const NODES_MAX: usize = 5;

/// Why a run has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// A folder, a certificate, a runtime.
    #[error("set up the simulation: {0}")]
    Setup(String),
    /// A node does not start.
    #[error("node {node} does not start: {reason}")]
    Start {
        /// Which, from 1.
        node: usize,
        /// Why.
        reason: String,
    },
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// What it was drawn from.
    pub seed: u64,
    /// Equal for two runs that did the same, event for event.
    pub trace: u64,
    /// Milliseconds that passed in the simulation.
    pub simulated_ms: u64,
    /// Messages that devices sent.
    pub sent: u64,
    /// Those that were acked.
    pub acked: u64,
    /// What became of the datagrams.
    pub datagrams: Counts,
    /// Replicas that were looked at for Raft's properties, each as often as it was.
    pub sights: u64,
    /// Votes, confirmations and entries that were looked for on disk.
    pub words: u64,
    /// What is wrong; nothing, usually.
    pub violations: Vec<String>,
}

impl Outcome {
    /// Whether nothing is wrong.
    pub fn is_pass(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Runs plans, one after the other, on this thread.
pub struct Simulator {
    identities: Vec<NodeIdentity>,
    folder: TempDir,
    progress: Arc<Progress>,
}

impl Simulator {
    /// Makes what all runs share: the nodes' identities, and a folder for their small files.
    pub fn new() -> Result<Simulator, SimError> {
        let setup = |error: &dyn ToString| SimError::Setup(error.to_string());
        // In memory if possible: those files are synced, and nothing about them is simulated.
        let memory = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("dunlin-sim-");
        let folder = match memory.is_dir() {
            true => builder.tempdir_in(memory),
            false => builder.tempdir(),
        };
        let folder = folder.map_err(|error| setup(&error))?;
        let nodes: Vec<_> = (0..NODES_MAX).map(machine::node_id).collect();
        let identities = dunlin_node::steady::identities(&nodes).map_err(|error| setup(&error))?;
        Ok(Simulator {
            identities,
            folder,
            progress: Progress::watched(),
        })
    }

    /// Runs a plan.
    pub fn run(&self, plan: &Plan) -> Result<Outcome, SimError> {
        self.run_with(plan, Trace::default())
    }

    /// Runs a plan and keeps every event of it as a line.
    pub fn run_telling(&self, plan: &Plan) -> Result<(Outcome, Vec<String>), SimError> {
        let trace = Trace::telling();
        let outcome = self.run_with(plan, trace.clone())?;
        Ok((outcome, trace.lines()))
    }

    fn run_with(&self, plan: &Plan, trace: Trace) -> Result<Outcome, SimError> {
        dunlin_cluster::entropy::seed_thread(Some(plan.seed));
        let folder = tempfile::tempdir_in(self.folder.path())
            .map_err(|error| SimError::Setup(format!("make a folder: {error}")))?;
        let mut world = World::new(plan, &self.identities, folder.path(), trace)?;
        self.progress.begin(plan.seed, &world.shared);
        let panics = panics::Watch::begin();
        let mut violations = play(&mut world);
        world.end();
        self.progress.end();
        violations.extend(
            panics
                .end()
                .into_iter()
                .map(|panic| format!("I18: a panic: {panic}")),
        );
        dunlin_cluster::entropy::seed_thread(None);
        let messages = |is_counted: fn(bool) -> bool| {
            let of = |device: &fleet::Device| {
                let told = device.told();
                told.history
                    .messages
                    .iter()
                    .filter(|message| is_counted(message.is_acked()))
                    .count() as u64
            };
            world.devices.iter().map(of).sum()
        };
        Ok(Outcome {
            seed: plan.seed,
            trace: world.trace.hash(),
            simulated_ms: world.now_us / 1000,
            sent: messages(|_| true),
            acked: messages(|is_acked| is_acked),
            datagrams: world.site.net.counts(),
            sights: world.raft.sights(),
            words: world.words,
            violations,
        })
    }
}

/// All phases of a run; what is wrong.
fn play(world: &mut World) -> Vec<String> {
    for place in 0..world.machines.len() {
        world.start(place);
    }
    let served = world.until(FORM_MS, |world| {
        world
            .devices
            .iter()
            .all(|device| device.told().receipts.len() > 2)
    });
    if !served {
        return vec![
            world
                .broken
                .take()
                .unwrap_or_else(|| "I15: a new cluster does not serve".into()),
        ];
    }
    let begun_us = world.now_us;
    let steps = world.plan.steps.clone();
    for step in &steps {
        while world.now_us < begun_us + step.at_ms * 1000 {
            world.tick();
            if let Some(reason) = world.broken.take() {
                return vec![reason];
            }
        }
        world.act(&step.action);
    }
    world.heal();
    world
        .shared
        .is_stopped
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let found = judge::judge(world);
    let at_last = world.look_at_raft();
    match world.broken.take().or(at_last) {
        Some(reason) => vec![reason],
        None => found,
    }
}
