//! The faults, one file each, and the catalogue of them.
//!
//! A [`Kind`] is a line of the catalogue: its name and number, what it damages, what it can be told. A
//! [`Fault`] is one of them that is happening: installed, confirmed, healed. Each of these steps says what
//! it did, or why not, and [`crate::run`] writes that down. A fault never decides whom it meets, nor when.
//! What it may touch is a [`Field`]. To add a kind, write its file and its line in [`CATALOGUE`].
//!
//! The numbers are those of the fault list in `docs/chaos.md`.

mod at_rest;
mod clients;
mod crash_loop;
mod disk;
pub mod field;
mod held;
mod isolation;
mod kill;
mod leaders;
mod limits;
mod lost_disk;
mod membership;
mod network;
mod partitions;
mod pause;
pub mod processes;
mod reach;
mod refusals;
mod replica_making;
mod starve;
mod stop;
mod swizzle;
mod weather;
mod within;

use std::collections::BTreeMap;
use std::time::Duration;

use dunlin_node::local::LocalOptions;
use futures_util::future::LocalBoxFuture;
use tokio::time::{Instant, sleep};

pub use clients::insiders;
pub use field::{Field, Gear};

use crate::nodes::compose::Outfit;
use crate::nodes::{Backend, NodeError};
use crate::scenario::target::Target;

/// Every kind that can be named in a scenario.
pub const CATALOGUE: &[&Kind] = &[
    &kill::KIND,
    &kill::MANY,
    &crash_loop::KIND,
    &stop::KIND,
    &within::PANIC,
    &pause::KIND,
    &starve::KIND,
    &at_rest::ROT,
    &at_rest::ZEROED,
    &at_rest::CUT,
    &at_rest::LOST,
    &lost_disk::WIPED,
    &lost_disk::RESTORED,
    &within::STEP,
    &within::DRIFT,
    &within::STROBE,
    &limits::DESCRIPTORS,
    &limits::MEMORY,
    &membership::KIND,
    &leaders::KIND,
    &replica_making::RECEIVER,
    &replica_making::SENDER,
    &partitions::PARTITION,
    &partitions::ONE_WAY,
    &partitions::BRIDGE,
    &partitions::RING,
    &partitions::FLAP,
    &swizzle::KIND,
    &weather::LOSS,
    &weather::BURST_LOSS,
    &weather::LATENCY,
    &weather::SPIKES,
    &weather::REPEAT,
    &weather::CORRUPT,
    &weather::SLOW_LINK,
    &weather::MTU_HOLE,
    &weather::REBIND,
    &clients::HALF_OPEN,
    &clients::HALF_TLS,
    &clients::VANISH,
    &clients::RESET,
    &clients::HALF_CLOSE,
    &disk::POWER,
    &disk::TORN,
    &disk::SPOIL,
    &refusals::SYNC,
    &refusals::WRITE,
    &refusals::READ,
    &refusals::RENAME,
    &refusals::FOLDER_SYNC,
    &refusals::FULL,
    &refusals::OVER_QUOTA,
    &refusals::READ_ONLY,
    &disk::SLOW,
    &disk::STALL,
    &clients::MALFORMED,
    &clients::BOMBS,
    &clients::HUGE_LENGTH,
    &clients::SLOW_CONNECT,
    &clients::SLOW_READER,
    &clients::RECONNECT,
    &clients::TAKE_OVER,
];

/// States that a run may reach, and what each means.
pub const STATES: &[(&str, &str)] = &[
    ("faults", "faults of any kind, installed and confirmed"),
    ("epochs", "epochs that ended in a quiet time"),
    ("leader-killed", "a node was killed that led a shard"),
    (
        "directory-leader-killed",
        "a node was killed that led the directory",
    ),
    ("all-down", "no node was running"),
    ("replica-made", "a replica was made on a node that had none"),
    ("drained", "a node was drained until it was empty"),
    ("removed", "a node was removed from the cluster"),
    ("leaders-moved", "another node led a shard after a fault"),
    ("taken-over", "a device took its own session over"),
    ("revoked", "a credential was revoked and probed on every gateway"),
    (
        "key-refused",
        "a gateway turned a key of a shared access policy away",
    ),
    (
        "assigned",
        "a device that nobody knew was registered and told its hub",
    ),
    (
        "turned-away",
        "a device was not registered, as its enrolment or its key did not count",
    ),
    ("erased", "a device was erased with what it had sent"),
    ("told", "a device was told what a service wants of it"),
    ("received", "a device received a message that a service sent"),
    (
        "settled",
        "a device completed or rejected a message that it had fetched",
    ),
    (
        "lock-lost",
        "a device was refused to settle a message whose lock was over",
    ),
    ("dead-lettered", "a message became a dead letter"),
    ("expired", "a message became one because its time was over"),
    ("worn-out", "a message became one because it was given too often"),
    ("feedback-fetched", "a service was told how a message ended"),
    ("called", "a device answered a method"),
    ("job-done", "a job was seen to have ended"),
    ("queried", "a query over all devices was answered"),
    ("routed", "the webhook said of an event that it has it"),
    (
        "turned-down",
        "the webhook refused a parcel of events, or gave no answer",
    ),
    ("looked-back", "a range of past events was read that had some"),
    (
        "configured",
        "twins had followed their configurations after some of these were changed",
    ),
    ("uploaded", "a device brought a file and said that it is done"),
    ("file-told", "a service was told of a file"),
    ("file-read", "a service read a file of a device"),
    (
        "heard-out",
        "services were told of all files that had come, or waited long enough for it",
    ),
    ("read", "a member of a consumer group read an event"),
    (
        "committed",
        "a consumer group's commit of a partition was acknowledged",
    ),
    (
        "fenced",
        "a commit was refused because the group had gone on without its member",
    ),
    (
        "resumed",
        "a member of a consumer group began where another had committed",
    ),
    (
        "redelivered",
        "a device lost its connection and sent an unacknowledged message again on another",
    ),
];

/// The kind with this name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    CATALOGUE.iter().copied().find(|kind| kind.name == name)
}

/// Something that a kind can be told.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name; the unit stands last.
    pub name: &'static str,
    /// What it is.
    pub meaning: &'static str,
    /// Drawn from here where a scenario says nothing.
    pub usual: (u64, u64),
    /// The least that is possible.
    pub min: u64,
    /// The most.
    pub max: u64,
}

/// What the healing of a fault says that was never there.
pub(crate) const NOTHING_DONE: &str = "nothing was done";

/// Between two looks whether a fault is felt.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Sets up what a kind needs, or says why it cannot.
pub type Prepare = fn(&mut LocalOptions, &mut Gear) -> Result<(), String>;

/// The same where nodes are containers.
pub type PrepareContainers = fn(&mut Outfit, &mut Gear) -> Result<(), String>;

/// One kind of fault.
#[derive(Debug)]
pub struct Kind {
    /// Its name in scenarios.
    pub name: &'static str,
    /// Its number in the fault list.
    pub number: &'static str,
    /// How it is carried where nodes are processes.
    pub how: &'static str,
    /// How it is carried where nodes are containers, if it is.
    pub in_containers: Option<&'static str>,
    /// Whether shards cannot count on the nodes that it meets.
    pub damages: bool,
    /// Whether it is measured how long the shards stood still that these nodes led.
    pub is_watched: bool,
    /// Whom it meets usually.
    pub target: Target,
    /// Milliseconds until it is healed, usually.
    pub for_ms: (u64, u64),
    /// What else it can be told.
    pub with: &'static [Parameter],
    /// Words of which a node must log one afterwards: the fault is of a sort that must not pass in silence.
    pub alarms: &'static [&'static str],
    /// Sets up what must stand before the first node starts. If it cannot, its faults are skipped, with
    /// the reason that it gives.
    pub prepare: Option<Prepare>,
    /// The same where nodes are containers.
    pub prepare_in_containers: Option<PrepareContainers>,
    /// Whether a node may end over it.
    pub may_end: bool,
    /// Makes a fault of it.
    pub begin: fn(Order) -> Box<dyn Fault>,
    /// The same where nodes are containers, if it is done otherwise there.
    pub begin_in_containers: Option<fn(Order) -> Box<dyn Fault>>,
}

impl Kind {
    /// Why its faults are skipped where nodes are of this sort, if they are.
    pub fn refusal(&self, backend: Backend) -> Option<String> {
        match (backend, self.in_containers) {
            (Backend::Processes, _) | (Backend::Containers, Some(_)) => None,
            (Backend::Containers, None) => Some(format!("not carried with --compose: {}", self.how)),
        }
    }

    /// A fault of this kind, for nodes of this sort.
    pub fn fault(&self, backend: Backend, order: Order) -> Box<dyn Fault> {
        let begin = match backend {
            Backend::Processes => self.begin,
            Backend::Containers => self.begin_in_containers.unwrap_or(self.begin),
        };
        begin(order)
    }

    /// A kind that damages one random node for two to four seconds, to be changed where it is otherwise.
    const fn new(name: &'static str, number: &'static str, begin: fn(Order) -> Box<dyn Fault>) -> Kind {
        Kind {
            name,
            number,
            how: "",
            in_containers: None,
            damages: true,
            is_watched: false,
            target: Target::Random,
            for_ms: (2_000, 4_000),
            with: &[],
            alarms: &[],
            prepare: None,
            prepare_in_containers: None,
            may_end: false,
            begin,
            begin_in_containers: None,
        }
    }
}

/// What a fault is told when its time has come.
#[derive(Debug, Clone)]
pub struct Order {
    /// Places of the nodes that it meets.
    pub nodes: Vec<usize>,
    /// Milliseconds until it is healed.
    pub for_ms: u64,
    /// Every parameter of its kind.
    pub with: BTreeMap<&'static str, u64>,
    /// For what it draws itself.
    pub seed: u64,
}

impl Order {
    /// A parameter's value; 0 for one that the kind does not have.
    pub fn told(&self, name: &str) -> u64 {
        self.with.get(name).copied().unwrap_or(0)
    }

    /// The node of a fault that meets one.
    fn node(&self) -> usize {
        self.nodes.first().copied().unwrap_or(0)
    }
}

/// Why a step did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// Nothing was done: it cannot be done here, or not just now.
    #[error("skipped: {0}")]
    Skipped(String),
    /// It is not known what was done.
    #[error("indeterminate: {0}")]
    Indeterminate(String),
}

/// What a step did, for people, or why not.
pub type Step<'a> = LocalBoxFuture<'a, Result<String, FaultError>>;

/// A fault that happens.
pub trait Fault {
    /// Does it.
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a>;

    /// Makes sure that it has taken effect.
    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a>;

    /// Undoes it, however far it got, and returns when the nodes run again. Called once, also after a
    /// step that failed.
    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a>;
}

impl From<NodeError> for FaultError {
    fn from(error: NodeError) -> FaultError {
        match error {
            NodeError::Down(_) | NodeError::NotCarried(_) => skipped(error),
            NodeError::Unclear(_) => indeterminate(error),
        }
    }
}

/// For kinds that reach into containers from this machine, past Docker.
fn reach_into_containers(_: &mut Outfit, _: &mut Gear) -> Result<(), String> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err("only root reaches into containers".to_owned()),
    }
}

/// For kinds that have one more node join.
fn spare_container(outfit: &mut Outfit, gear: &mut Gear) -> Result<(), String> {
    // The data of a node that has left is thrown away.
    reach_into_containers(outfit, gear)?;
    outfit.spares += 1;
    Ok(())
}

/// Looks until there is something to say, and says it; `reason` is why not, once there was nothing for so long.
async fn look_until(
    wait: Duration,
    reason: &str,
    mut look: impl FnMut() -> Result<Option<String>, FaultError>,
) -> Result<String, FaultError> {
    let deadline = Instant::now() + wait;
    loop {
        match look()? {
            Some(line) => return Ok(line),
            None if Instant::now() >= deadline => return Err(indeterminate(reason)),
            None => sleep(LOOK_PAUSE).await,
        }
    }
}

/// Whether a step may have done something. One of which that is not known may have.
fn may_have_done<T>(step: &Result<T, FaultError>) -> bool {
    !matches!(step, Err(FaultError::Skipped(_)))
}

fn skipped(reason: impl std::fmt::Display) -> FaultError {
    FaultError::Skipped(reason.to_string())
}

fn indeterminate(reason: impl std::fmt::Display) -> FaultError {
    FaultError::Indeterminate(reason.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_kind_says_how_it_is_carried() {
        let mut names: Vec<&str> = CATALOGUE.iter().map(|kind| kind.name).collect();
        names.extend(STATES.iter().map(|(name, _)| *name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for kind in CATALOGUE {
            assert!(!kind.how.is_empty(), "{}", kind.name);
            assert!(kind.number.starts_with('F'), "{}", kind.name);
            for parameter in kind.with {
                let (low, high) = parameter.usual;
                assert!(parameter.min <= low && low <= high && high <= parameter.max);
            }
        }
    }

    #[test]
    fn a_kind_that_containers_do_not_carry_is_refused_there_with_a_reason_that_says_so() {
        for kind in CATALOGUE {
            assert_eq!(kind.refusal(Backend::Processes), None, "{}", kind.name);
            match (kind.refusal(Backend::Containers), kind.in_containers) {
                (None, Some(how)) => assert!(!how.is_empty(), "{}", kind.name),
                (Some(reason), None) => {
                    assert!(reason.starts_with("not carried with --compose: "), "{reason}");
                    assert!(reason.ends_with(kind.how), "{reason}");
                }
                (refusal, how) => panic!("{}: {refusal:?}, {how:?}", kind.name),
            }
            // Nothing of what a local cluster is told reaches a container.
            let needs_local = kind.prepare.is_some() && kind.in_containers.is_some();
            let is_done_otherwise =
                kind.begin_in_containers.is_some() || kind.prepare_in_containers.is_some();
            assert!(!needs_local || is_done_otherwise, "{}", kind.name);
        }
    }

    #[test]
    fn the_document_says_what_containers_carry_and_how() {
        let document = include_str!("../../../../docs/chaos.md");
        for kind in CATALOGUE {
            if let Some(how) = kind.in_containers {
                let row = format!("| `{}` | {how} |", kind.name);
                assert!(document.contains(&row), "docs/chaos.md has no row {row}");
            }
        }
    }

    #[test]
    fn the_document_lists_every_kind_with_what_it_damages() {
        let document = include_str!("../../../../docs/chaos.md");
        for kind in CATALOGUE {
            let begin = format!("| {} | `{}` | ", kind.number, kind.name);
            let end = if kind.damages { " | yes |" } else { " | no |" };
            let listed = document
                .lines()
                .any(|line| line.starts_with(&begin) && line.ends_with(end));
            assert!(listed, "docs/chaos.md has no row {begin}..{end}");
        }
    }
}
