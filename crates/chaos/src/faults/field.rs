//! What a fault may touch: the nodes, the hub's door for operators, and the journal's lines about what
//! was disturbed and reached.
//!
//! Decides nothing. What the nodes are, and how one of them is taken down, is in [`crate::nodes`].

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_cluster::admin::{AdminRequest, ClusterStatus};
use dunlin_model::directory::Role;
use dunlin_node::ready::ReadyNode;
use tokio::time::Instant;

use super::{FaultError, indeterminate, skipped};
use crate::hub::Hub;
use crate::nodes::{Backend, Ended, Nodes, Resource, Starting};
use crate::run::journal::{Event, Journal};
use crate::scenario::target::Candidates;

/// How long a look at the cluster may take; after that it counts as unknown.
const LOOK_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Things that kinds have set up before the cluster started, each found by its type.
#[derive(Default)]
pub struct Gear(BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Gear {
    /// Keeps a thing, in place of an earlier one of its type.
    pub fn put<T: Send + Sync + 'static>(&mut self, thing: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(thing));
    }

    /// The thing of this type, if it was set up.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>())?.clone().downcast().ok()
    }
}

/// What faults may touch.
pub struct Field {
    nodes: Box<dyn Nodes>,
    /// Places whose node was removed for good; the next one to join takes the first of them.
    vacant: Mutex<Vec<usize>>,
    /// The hub's door.
    pub hub: Arc<Hub>,
    /// What kinds have set up.
    pub gear: Gear,
    journal: Mutex<Journal>,
    epoch: Instant,
    folder: PathBuf,
}

impl Field {
    /// A field over nodes that run. Times count from `epoch`; `folder` is the run's.
    pub fn new(
        nodes: Box<dyn Nodes>,
        hub: Arc<Hub>,
        gear: Gear,
        journal: Journal,
        (epoch, folder): (Instant, &Path),
    ) -> Field {
        Field {
            nodes,
            vacant: Mutex::default(),
            hub,
            gear,
            journal: Mutex::new(journal),
            epoch,
            folder: folder.to_owned(),
        }
    }

    /// SIGTERM to every node; returns when all have ended.
    pub async fn stop_all(&self) {
        for node in 0..self.node_count() {
            // One that is down has ended already.
            if let Err(error) = self.terminate(node).await
                && !matches!(error, FaultError::Skipped(_))
            {
                tracing::warn!(%error, node = node + 1, "a node was not stopped");
            }
        }
    }

    /// Microseconds since the run's beginning.
    pub fn now_us(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }

    /// Writes a line of the journal.
    pub fn journal(&self, event: Event) {
        let us = self.now_us();
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.write(us, event);
    }

    /// Has the journal on disk; whatever failed before fails here.
    pub fn sync_journal(&self) -> std::io::Result<()> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.sync()
    }

    /// Says that connections of a node may have been lost since `from_us`.
    pub fn disturbed(&self, node: usize, from_us: u64) {
        self.journal(Event::Disturbed {
            node,
            from_us,
            until_us: self.now_us(),
        });
    }

    /// Says that a process ended as nothing asked of it.
    pub fn died(&self, node: usize, how: &str) {
        self.journal(Event::Died {
            node,
            how: how.to_owned(),
        });
    }

    /// Says that a state of [`super::STATES`] was reached.
    pub fn reached(&self, state: &str) {
        self.journal(Event::Reached {
            state: state.to_owned(),
        });
    }

    /// What sort of nodes there are.
    pub fn backend(&self) -> Backend {
        self.nodes.backend()
    }

    /// Places of nodes that there are or were.
    pub fn node_count(&self) -> usize {
        self.nodes.count()
    }

    /// Whether the node's process was not taken away.
    pub fn is_running(&self, node: usize) -> bool {
        self.nodes.is_running(node)
    }

    /// The node's process.
    pub fn pid(&self, node: usize) -> Result<u32, FaultError> {
        self.must_run(node)?;
        let pid = self.nodes.pid(node);
        pid.ok_or_else(|| skipped(format!("the process of node {} is not seen here", node + 1)))
    }

    /// The node's id, once it was ready.
    pub fn id(&self, node: usize) -> Option<String> {
        self.nodes.node(node).map(|ready| ready.id)
    }

    /// Where the node keeps its data.
    pub fn data_dir(&self, node: usize) -> Result<PathBuf, FaultError> {
        let folder = self.nodes.data_dir(node);
        folder.ok_or_else(|| skipped(format!("the data of node {} is not within reach", node + 1)))
    }

    /// Where the node logs to.
    pub fn log_file(&self, node: usize) -> PathBuf {
        self.nodes.log_file(node)
    }

    /// A folder of the run for things that a fault keeps.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn must_run(&self, node: usize) -> Result<(), FaultError> {
        match self.is_running(node) {
            true => Ok(()),
            false => Err(skipped(format!("node {} is down", node + 1))),
        }
    }

    /// SIGKILL; returns when the process is gone. What it led is said in the journal.
    pub async fn kill(&self, node: usize) -> Result<String, FaultError> {
        self.must_run(node)?;
        let from_us = self.now_us();
        self.hub.set_down(node, true);
        let done = self.nodes.kill(node).await;
        // Also if it is not known what was done.
        self.disturbed(node, from_us);
        Ok(done?)
    }

    /// SIGTERM; returns when the process has ended, and how. One that does not end is killed.
    pub async fn terminate(&self, node: usize) -> Result<Ended, FaultError> {
        self.must_run(node)?;
        let from_us = self.now_us();
        self.hub.set_down(node, true);
        let ended = self.nodes.terminate(node).await;
        self.disturbed(node, from_us);
        Ok(ended?)
    }

    /// Has the node stand still. Nobody is told of its return but by [`resume`](Self::resume).
    pub async fn pause(&self, node: usize) -> Result<String, FaultError> {
        self.must_run(node)?;
        self.hub.set_down(node, true);
        Ok(self.nodes.pause(node).await?)
    }

    /// Returns when the node stands still.
    pub async fn wait_paused(&self, node: usize) -> Result<(), FaultError> {
        Ok(self.nodes.wait_paused(node).await?)
    }

    /// Has the node go on, which has stood still since `from_us`.
    pub async fn resume(&self, node: usize, from_us: Option<u64>) -> Result<String, FaultError> {
        let done = self.nodes.resume(node).await;
        self.hub.set_down(node, !self.is_running(node));
        if let Some(from_us) = from_us {
            self.disturbed(node, from_us);
        }
        Ok(done?)
    }

    /// Has no other node reach this one. Nobody is told of its return but by [`rejoin`](Self::rejoin).
    pub async fn isolate(&self, node: usize) -> Result<String, FaultError> {
        self.must_run(node)?;
        self.hub.set_down(node, true);
        Ok(self.nodes.isolate(node).await?)
    }

    /// Has the others reach a node again that was isolated since `from_us`.
    pub async fn rejoin(&self, node: usize, from_us: u64) -> Result<String, FaultError> {
        let done = self.nodes.rejoin(node).await;
        self.hub.set_down(node, !self.is_running(node));
        self.disturbed(node, from_us);
        Ok(done?)
    }

    /// Holds a node to this much of a resource; it lasts until [`let_go`](Self::let_go).
    pub async fn hold(&self, node: usize, resource: Resource, amount: u64) -> Result<String, FaultError> {
        self.must_run(node)?;
        Ok(self.nodes.hold(node, resource, amount).await?)
    }

    /// Gives a node back what it was held to have less of.
    pub async fn let_go(&self, node: usize, resource: Resource) -> Result<(), FaultError> {
        Ok(self.nodes.let_go(node, resource).await?)
    }

    /// How often a node has met what it is held to, where that is seen.
    pub fn times_met(&self, node: usize, resource: Resource) -> Option<u64> {
        self.nodes.times_met(node, resource)
    }

    /// Has all that a node has logged so far in its [`log_file`](Self::log_file).
    pub async fn keep_log(&self, node: usize) -> Result<(), FaultError> {
        Ok(self.nodes.keep_log(node).await?)
    }

    /// The process's end, if it has ended by itself.
    pub fn ended_by_itself(&self, node: usize) -> bool {
        self.nodes.ended_by_itself(node)
    }

    /// Starts the node's process without waiting for it.
    pub async fn spawn(&self, node: usize) -> Result<Starting, FaultError> {
        Ok(self.nodes.begin_start(node).await?)
    }

    /// Waits until a node that was spawned is ready.
    pub async fn ready(&self, node: usize, starting: Starting) -> Result<(), FaultError> {
        let ready = starting.await?;
        self.hub.set_address(node, &ready.https);
        self.nodes.set_ready(node, ready);
        self.hub.set_down(node, false);
        Ok(())
    }

    /// Starts a node that is down and waits until it is ready. One that runs is left alone.
    pub async fn start(&self, node: usize) -> Result<String, FaultError> {
        if self.ended_by_itself(node) {
            self.nodes.bury(node);
        }
        if self.is_running(node) {
            return Ok(format!("node {} runs", node + 1));
        }
        let begun = Instant::now();
        let starting = self.spawn(node).await?;
        self.ready(node, starting).await?;
        let waited_s = begun.elapsed().as_secs_f64();
        Ok(format!("node {} is back, ready after {waited_s:.1} s", node + 1))
    }

    /// The same after something that the node may have ended over; says whether it had.
    pub async fn start_after(&self, node: usize) -> Result<String, FaultError> {
        let has_ended = self.ended_by_itself(node);
        let line = self.start(node).await?;
        Ok(match has_ended {
            true => format!("it had ended over it; {line}"),
            false => line,
        })
    }

    /// Starts one more node, which joins, and returns its place.
    pub async fn add(&self) -> Result<usize, FaultError> {
        let vacant = self.vacant.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let node = vacant.unwrap_or_else(|| self.node_count());
        let starting = self.spawn(node).await?;
        self.ready(node, starting).await?;
        Ok(node)
    }

    /// Ends the process of a node that is no member any more and throws its data away. Its place is free.
    pub async fn retire(&self, node: usize) -> Result<(), FaultError> {
        match self.terminate(node).await {
            Ok(_) | Err(FaultError::Skipped(_)) => {}
            Err(error) => return Err(error),
        }
        let folder = self.data_dir(node)?;
        self.keep_audit(node).await?;
        std::fs::remove_dir_all(&folder)
            .map_err(|error| indeterminate(format!("remove {}: {error}", folder.display())))?;
        let mut vacant = self.vacant.lock().unwrap_or_else(PoisonError::into_inner);
        vacant.push(node);
        Ok(())
    }

    /// Copies a node's audit into the run's folder, since its data directory is about to go: what it has
    /// recorded has been confirmed to somebody.
    pub async fn keep_audit(&self, node: usize) -> Result<(), FaultError> {
        let into = self.folder.join("audit");
        std::fs::create_dir_all(&into).map_err(|error| indeterminate(format!("keep the audit: {error}")))?;
        let suffix = format!(".node-{}-{}", node + 1, self.now_us());
        Ok(self.nodes.keep_audit(node, &into, &suffix).await?)
    }

    /// How the cluster says that it is, if it says so soon.
    pub async fn look(&self) -> Option<ClusterStatus> {
        let asked = tokio::time::timeout(LOOK_TIMEOUT, self.hub.status()).await;
        asked.ok()?.ok()
    }

    /// Looks until `is_so`; what was seen last if that is not so in time.
    pub async fn wait_until(
        &self,
        what: &str,
        wait: Duration,
        mut is_so: impl FnMut(&ClusterStatus) -> bool,
    ) -> Result<ClusterStatus, FaultError> {
        let deadline = Instant::now() + wait;
        loop {
            let status = self.look().await;
            match status {
                Some(status) if is_so(&status) => return Ok(status),
                _ if Instant::now() >= deadline => {
                    return Err(indeterminate(format!(
                        "after {} s still not: {what}",
                        wait.as_secs()
                    )));
                }
                _ => tokio::time::sleep(LOOK_PAUSE).await,
            }
        }
    }

    /// Asks the operators' door for a change.
    pub async fn ask(&self, request: &AdminRequest) -> Result<(), FaultError> {
        self.hub.admin(request).await.map_err(indeterminate)
    }

    /// Nodes that run and keep messages, with what they lead; `others` are left out.
    pub async fn candidates(&self, others: &[usize]) -> Candidates {
        let status = self.look().await;
        let known: Vec<Option<ReadyNode>> = (0..self.node_count())
            .map(|place| self.nodes.node(place))
            .collect();
        let place_of = |id: &str| {
            let is_it = |node: &Option<ReadyNode>| node.as_ref().is_some_and(|node| node.id == id);
            known.iter().position(is_it)
        };
        let led = |place: usize| -> Vec<u32> {
            let groups = status.iter().flat_map(|status| &status.groups);
            // Group 0 is the directory, group `n + 1` is shard `n`.
            groups
                .filter(|group| group.leader.as_deref().and_then(place_of) == Some(place))
                .filter_map(|group| group.group.checked_sub(1))
                .collect()
        };
        let keeps = |place: &usize| {
            let ready = known.get(*place).and_then(Option::as_ref);
            self.is_running(*place) && ready.is_some_and(|node| node.roles.contains(&Role::Shard))
        };
        let directory = status
            .iter()
            .flat_map(|status| &status.groups)
            .find(|group| group.group == 0);
        Candidates {
            nodes: (0..known.len())
                .filter(|place| !others.contains(place))
                .filter(keeps)
                .map(|place| (place, led(place)))
                .collect(),
            directory_leader: directory.and_then(|group| group.leader.as_deref().and_then(place_of)),
        }
    }
}
