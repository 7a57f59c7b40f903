//! Nodes that are containers of a compose project.
//!
//! Takes them down, starts, limits and cuts them off with Docker's command line, and copies their audits out
//! of them. Where Docker runs on this very machine their processes are seen in `/proc`, their volumes and
//! networks are within root's reach, and those that publish no port answer operators at their own addresses;
//! elsewhere they are not sampled, and an end that nobody asked for is not noticed. No fault meets a gateway,
//! so the ports that lead to one stay as they were when the project came up ([`super::compose`]).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_gateway::auth::ConnectionString;
use dunlin_node::audit::AUDIT_FILE;
use dunlin_node::ready::{ENDPOINT_FILE, Ready, ReadyNode};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::compose::{ComposeError, Outfit, Project, log_file};
use super::docker::{self, Attached, CALL_TIMEOUT, Container, DockerError, Limits};
use super::{Backend, Call, END_TIMEOUT, Ended, NodeError, Nodes, Resource, Starting, quota};
use crate::faults::processes;
use crate::namespaces::NamespaceError;
use crate::namespaces::gates::Gates;

/// How long a node may take to serve.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The same at the beginning, when all start at once.
const FIRST_READY_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks whether it does.
const READY_PAUSE: Duration = Duration::from_millis(200);
/// Time to copy a file or a log out of a container.
const COPY_TIMEOUT: Duration = Duration::from_secs(60);
/// Files of an audit, which keeps fewer.
const AUDIT_FILES_MAX: usize = 64;
/// Exit code of a process that SIGKILL ended.
const KILLED: i64 = 137;
/// Port of MQTT over TLS inside a gateway.
const MQTTS_PORT: u16 = 8883;
const AMQPS_PORT: u16 = 5671;
const KAFKA_PORT: u16 = 9093;
/// Port of HTTPS inside a node.
const HTTPS_PORT: u16 = 8443;
/// The data directory, in the folder that the node's program runs in.
const DATA_FOLDER: &str = "dunlin-data";
/// The program inside a container, asked whether its node serves.
const HEALTH: [&str; 2] = ["dunlin", "health"];

struct Place {
    container: String,
    name: String,
    is_running: bool,
    /// Its process, where this machine sees it.
    pid: Option<u32>,
    /// What it said last; nothing before it was ready once.
    ready: Option<ReadyNode>,
    /// Its data directory, as it sees it ...
    data_inside: String,
    /// ... and as this machine does, if it may.
    data_outside: Option<PathBuf>,
    /// What it may use when no fault says otherwise.
    limits: Limits,
    /// Networks that it was taken out of.
    left: Vec<Attached>,
}

impl Place {
    /// The place of a container that is not known to run.
    fn of(container: &Container) -> Place {
        let inside = format!("{}/{DATA_FOLDER}", container.working_dir);
        let outside = container.outside(Path::new(&inside));
        Place {
            container: container.id.clone(),
            name: container.name.clone(),
            is_running: false,
            pid: None,
            ready: None,
            data_outside: outside.filter(|folder| is_within_reach(folder)),
            data_inside: inside,
            limits: container.limits,
            left: Vec::new(),
        }
    }
}

/// Containers of a project.
pub struct Containers {
    places: Mutex<Vec<Place>>,
    /// Places of nodes that may join, the next one last.
    spare: Mutex<Vec<Place>>,
    gates: Option<Arc<Gates>>,
    /// Where logs go.
    folder: PathBuf,
}

impl From<DockerError> for NodeError {
    fn from(error: DockerError) -> NodeError {
        NodeError::unclear(error)
    }
}

impl From<ComposeError> for NodeError {
    fn from(error: ComposeError) -> NodeError {
        NodeError::unclear(error)
    }
}

impl Containers {
    /// Brings the project up and waits until every node serves; says how the hub is reached. `folder` is
    /// for what the nodes leave, and for the certificate that is trusted.
    pub async fn start(
        project: &Project,
        (shards, gateways): (usize, usize),
        outfit: Outfit,
        folder: &Path,
    ) -> Result<(Containers, Ready), ComposeError> {
        let brought = project.up((shards, gateways), &outfit, folder).await?;
        let found = brought.running;
        let waits = found
            .iter()
            .map(|container| wait_served(&container.id, FIRST_READY_TIMEOUT));
        for (container, served) in found.iter().zip(join_all(waits).await) {
            served.map_err(|why| ComposeError::NotReady {
                name: container.name.clone(),
                why,
            })?;
        }
        let mut whole: Option<Ready> = None;
        let mut places = Vec::new();
        for container in &found {
            let said = read_at_last(container, folder).await?;
            let node = node_of(&said, container, visible(container).is_some())?;
            places.push(Place {
                is_running: true,
                pid: visible(container),
                ready: Some(node.clone()),
                ..Place::of(container)
            });
            match &mut whole {
                Some(whole) => whole.nodes.push(node),
                None => whole = Some(first(said, node, container, folder).await?),
            }
        }
        let ready = whole.ok_or(ComposeError::Count {
            service: "gateway",
            wanted: gateways,
            found: 0,
        })?;
        let containers = Containers {
            places: Mutex::new(places),
            spare: Mutex::new(brought.spare.iter().rev().map(Place::of).collect()),
            gates: outfit.gates,
            folder: folder.to_owned(),
        };
        for place in 0..containers.count() {
            containers.settle(place)?;
        }
        Ok((containers, ready))
    }

    /// Has the gate of a node stand before its network, which is another one after each start.
    fn settle(&self, place: usize) -> Result<(), NamespaceError> {
        match (&self.gates, self.pid(place)) {
            (Some(gates), Some(pid)) => gates.settle(place, &PathBuf::from(format!("/proc/{pid}/ns/net"))),
            _ => Ok(()),
        }
    }

    /// Makes room behind the last place for a node that joins, if there is a container for it.
    fn make_place(&self, place: usize) -> Result<(), NodeError> {
        if place == self.count() {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            let next = spare.pop().ok_or(NodeError::NotCarried("one more node"))?;
            self.places().push(next);
        }
        Ok(())
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, place: usize, look: impl FnOnce(&mut Place) -> T) -> Option<T> {
        self.places().get_mut(place).map(look)
    }

    /// The container of a place, with its name.
    fn named(&self, place: usize) -> Result<(String, String), NodeError> {
        let found = self.with(place, |one| (one.container.clone(), one.name.clone()));
        found.ok_or(NodeError::Down(place))
    }

    /// Says that a node is being taken down, and whose container it is.
    fn take(&self, place: usize) -> Result<(String, String), NodeError> {
        let taken = self.with(place, |one| std::mem::replace(&mut one.is_running, false));
        match taken {
            Some(true) => self.named(place),
            _ => Err(NodeError::Down(place)),
        }
    }
}

/// Waits until a container's node serves; or why it does not.
async fn wait_served(container: &str, wait: Duration) -> Result<(), String> {
    let deadline = Instant::now() + wait;
    let line = [&["docker", "exec", container], &HEALTH[..]].concat();
    loop {
        let Err(last) = docker::call(&line, CALL_TIMEOUT).await else {
            return Ok(());
        };
        let is_over = docker::inspect_one(container)
            .await
            .is_ok_and(|now| !now.is_running);
        if is_over {
            return Err("it ended before it was ready".into());
        }
        if Instant::now() >= deadline {
            return Err(format!("it does not serve after {} s: {last}", wait.as_secs()));
        }
        sleep(READY_PAUSE).await;
    }
}

/// Copies a file out of a container that runs or has ended.
async fn copy_out(container: &str, from: &str, into: &Path) -> Result<(), DockerError> {
    let (from, into) = (format!("{container}:{from}"), into.display().to_string());
    let line = ["docker", "cp", &from, &into];
    docker::call(&line, COPY_TIMEOUT).await.map(drop)
}

/// Whether a copy failed since there is no such file.
fn is_missing(error: &DockerError) -> bool {
    let DockerError::Failed { output, .. } = error else {
        return false;
    };
    let said = output.to_lowercase();
    said.contains("could not find the file") || said.contains("no such container:path")
}

/// What a node says of itself. It opens everything, so the copy goes at once.
async fn read_endpoint(container: &Container, folder: &Path) -> Result<Ready, ComposeError> {
    let unread = |why: String| ComposeError::Unread {
        what: "the endpoint",
        name: container.name.clone(),
        why,
    };
    let kept = tempfile::tempdir_in(folder).map_err(|error| unread(error.to_string()))?;
    let from = format!("{}/{DATA_FOLDER}/{ENDPOINT_FILE}", container.working_dir);
    copy_out(&container.id, &from, &kept.path().join(ENDPOINT_FILE)).await?;
    Ready::load(kept.path()).map_err(|error| unread(error.to_string()))
}

/// The same of a node of a new cluster, once it says what opens the hub: it serves a moment before that.
async fn read_at_last(container: &Container, folder: &Path) -> Result<Ready, ComposeError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let said = read_endpoint(container, folder).await?;
        match ConnectionString::parse(&said.connection_string) {
            Ok(_) => return Ok(said),
            Err(error) if Instant::now() >= deadline => {
                return Err(ComposeError::Unread {
                    what: "the endpoint",
                    name: container.name.clone(),
                    why: error.to_string(),
                });
            }
            Err(_) => sleep(READY_PAUSE).await,
        }
    }
}

/// The node of a container as it is reached from here: a gateway by its published ports, others only where they
/// are on this machine, for operators.
fn node_of(said: &Ready, container: &Container, is_here: bool) -> Result<ReadyNode, ComposeError> {
    let unread = |why: &str| ComposeError::Unread {
        what: "the endpoint",
        name: container.name.clone(),
        why: why.to_owned(),
    };
    let node = said.nodes.first().ok_or_else(|| unread("it names no node"))?;
    let at = |port| container.published.get(&port).cloned();
    let own = container.address().filter(|_| is_here);
    let (mqtts, https) = match said.is_gateway() {
        false => {
            let https = own.map(|address| format!("{address}:{HTTPS_PORT}"));
            (String::new(), https.unwrap_or_default())
        }
        true => (
            at(MQTTS_PORT).ok_or_else(|| unread("its port of MQTT is not published"))?,
            at(HTTPS_PORT).ok_or_else(|| unread("its port of HTTPS is not published"))?,
        ),
    };
    Ok(ReadyNode {
        pid: container.pid.unwrap_or(0),
        mqtts,
        // No load goes there: a file that does not publish it will do.
        amqps: at(AMQPS_PORT).unwrap_or_default(),
        kafka: at(KAFKA_PORT).unwrap_or_default(),
        https,
        mqtt: None,
        ..node.clone()
    })
}

/// The hub by its first node, with a copy of the certificate that is trusted.
async fn first(
    said: Ready,
    node: ReadyNode,
    container: &Container,
    folder: &Path,
) -> Result<Ready, ComposeError> {
    let ca_file = folder.join("ca.pem");
    copy_out(&container.id, &said.ca_file.display().to_string(), &ca_file).await?;
    Ok(Ready {
        mqtts: node.mqtts.clone(),
        amqps: node.amqps.clone(),
        kafka: node.kafka.clone(),
        https: node.https.clone(),
        mqtt: None,
        ca_file,
        nodes: vec![node],
        ..said
    })
}

/// The process of a container, if the one of that number here is it: Docker may run on another machine.
fn visible(container: &Container) -> Option<u32> {
    container.pid.filter(|pid| is_process_of(*pid, &container.id))
}

fn is_process_of(pid: u32, container: &str) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
    groups.is_ok_and(|groups| groups.contains(container))
}

/// Whether this process may do what it likes to a folder of a volume, which need not be there just now.
fn is_within_reach(folder: &Path) -> bool {
    let volume = folder.parent().and_then(|volume| volume.metadata().ok());
    rustix::process::geteuid().is_root() && volume.is_some_and(|volume| volume.is_dir())
}

/// Takes a container out of all its networks, one after the other; `left` has those that it is out of.
async fn leave(container: &Container, left: &mut Vec<Attached>) -> Result<(), DockerError> {
    for attached in &container.networks {
        let line = [
            "docker",
            "network",
            "disconnect",
            &attached.network,
            &container.id,
        ];
        docker::call(&line, CALL_TIMEOUT).await?;
        left.push(attached.clone());
    }
    Ok(())
}

/// Puts a container back into a network, under the names that it had there.
async fn join(container: &str, attached: &Attached) -> Result<(), DockerError> {
    let aliases = attached.aliases.iter().flat_map(|alias| ["--alias", alias]);
    let mut line = vec!["docker", "network", "connect"];
    line.extend(aliases);
    line.extend([attached.network.as_str(), container]);
    docker::call(&line, CALL_TIMEOUT).await.map(drop)
}

impl Nodes for Containers {
    fn backend(&self) -> Backend {
        Backend::Containers
    }

    fn count(&self) -> usize {
        self.places().len()
    }

    fn node(&self, place: usize) -> Option<ReadyNode> {
        self.with(place, |one| one.ready.clone()).flatten()
    }

    fn is_running(&self, place: usize) -> bool {
        self.with(place, |one| one.is_running).unwrap_or(false)
    }

    fn pid(&self, place: usize) -> Option<u32> {
        self.with(place, |one| one.pid.filter(|_| one.is_running))
            .flatten()
    }

    fn ended_by_itself(&self, place: usize) -> bool {
        // One that Docker has started again has another process.
        let state = self.pid(place).map(processes::state);
        state.is_some_and(|state| state.is_none_or(|state| state == 'Z'))
    }

    fn bury(&self, place: usize) {
        self.with(place, |one| one.is_running = false);
    }

    fn data_dir(&self, place: usize) -> Option<PathBuf> {
        self.with(place, |one| one.data_outside.clone()).flatten()
    }

    fn log_file(&self, place: usize) -> PathBuf {
        log_file(&self.folder, place)
    }

    fn kill(&self, place: usize) -> Call<'_, String> {
        async move {
            let (container, name) = self.take(place)?;
            docker::call(&["docker", "kill", &container], CALL_TIMEOUT).await?;
            docker::call(&["docker", "wait", &container], CALL_TIMEOUT).await?;
            Ok(format!("docker kill of node {} ({name})", place + 1))
        }
        .boxed_local()
    }

    fn terminate(&self, place: usize) -> Call<'_, Ended> {
        async move {
            let (container, _) = self.take(place)?;
            let grace = END_TIMEOUT.as_secs().to_string();
            let line = ["docker", "stop", "-t", &grace, &container];
            docker::call(&line, END_TIMEOUT + CALL_TIMEOUT).await?;
            let exit_code = docker::inspect_one(&container).await?.exit_code;
            match exit_code {
                KILLED => Err(NodeError::late(place)),
                code => Ok(Ended {
                    is_clean: code == 0,
                    how: format!("exit code {code}"),
                }),
            }
        }
        .boxed_local()
    }

    fn begin_start(&self, place: usize) -> Call<'_, Starting> {
        async move {
            self.make_place(place)?;
            let (container, name) = self.named(place)?;
            docker::call(&["docker", "start", &container], CALL_TIMEOUT).await?;
            let now = docker::inspect_one(&container).await?;
            self.with(place, |one| (one.is_running, one.pid) = (true, visible(&now)));
            self.settle(place).map_err(NodeError::unclear)?;
            let folder = self.folder.clone();
            let starting = async move {
                let served = wait_served(&container, READY_TIMEOUT).await;
                served.map_err(|why| NodeError::Unclear(format!("start {name}: {why}")))?;
                // Its address may be another one, and so may the node, if its disk was empty.
                let now = docker::inspect_one(&container).await?;
                let said = read_endpoint(&now, &folder).await?;
                Ok(node_of(&said, &now, visible(&now).is_some())?)
            };
            Ok(starting.boxed_local())
        }
        .boxed_local()
    }

    fn set_ready(&self, place: usize, ready: ReadyNode) {
        let is_another = self.with(place, |one| {
            let pid = Some(ready.pid).filter(|pid| is_process_of(*pid, &one.container));
            one.ready = Some(ready);
            std::mem::replace(&mut one.pid, pid) != pid
        });
        // Docker has started it once more meanwhile.
        if is_another == Some(true)
            && let Err(error) = self.settle(place)
        {
            tracing::warn!(%error, node = place + 1, "a node has no gate");
        }
    }

    fn pause(&self, place: usize) -> Call<'_, String> {
        async move {
            let (container, name) = self.named(place)?;
            docker::call(&["docker", "pause", &container], CALL_TIMEOUT).await?;
            Ok(format!("docker pause of node {} ({name})", place + 1))
        }
        .boxed_local()
    }

    fn wait_paused(&self, place: usize) -> Call<'_, ()> {
        async move {
            let (container, name) = self.named(place)?;
            match docker::inspect_one(&container).await?.is_paused {
                true => Ok(()),
                false => Err(NodeError::Unclear(format!("{name} does not stand still"))),
            }
        }
        .boxed_local()
    }

    fn resume(&self, place: usize) -> Call<'_, String> {
        async move {
            let (container, _) = self.named(place)?;
            docker::call(&["docker", "unpause", &container], CALL_TIMEOUT).await?;
            Ok(format!("docker unpause of node {}", place + 1))
        }
        .boxed_local()
    }

    fn isolate(&self, place: usize) -> Call<'_, String> {
        async move {
            let (container, name) = self.named(place)?;
            let now = docker::inspect_one(&container).await?;
            let mut left = Vec::new();
            let done = leave(&now, &mut left).await;
            // Also if it is out of some of them only: it must be put back.
            self.with(place, |one| one.left.extend(left));
            done?;
            let now = docker::inspect_one(&container).await?;
            match now.networks.is_empty() {
                true => Ok(format!("node {} ({name}) is in no network", place + 1)),
                false => Err(NodeError::Unclear(format!("{name} is still in a network"))),
            }
        }
        .boxed_local()
    }

    fn rejoin(&self, place: usize) -> Call<'_, String> {
        async move {
            let (container, name) = self.named(place)?;
            let left = self
                .with(place, |one| std::mem::take(&mut one.left))
                .unwrap_or_default();
            for attached in &left {
                join(&container, attached).await?;
            }
            let now = docker::inspect_one(&container).await?.networks;
            for before in &left {
                let address = now.iter().find(|after| after.network == before.network);
                let address = address.map_or("none", |after| after.address.as_str());
                if address != before.address {
                    return Err(NodeError::Unclear(format!(
                        "{name} had the address {} and has {address}",
                        before.address
                    )));
                }
            }
            // Each network that it is in again is another interface.
            self.settle(place).map_err(NodeError::unclear)?;
            Ok(format!("node {} is in its networks again", place + 1))
        }
        .boxed_local()
    }

    fn hold(&self, place: usize, resource: Resource, amount: u64) -> Call<'_, String> {
        async move {
            let (container, _) = self.named(place)?;
            let pid = self.pid(place).ok_or(NodeError::Down(place))?;
            let now = docker::inspect_one(&container).await?;
            Ok(quota::hold(&now, pid, resource, amount).await?)
        }
        .boxed_local()
    }

    fn let_go(&self, place: usize, resource: Resource) -> Call<'_, ()> {
        async move {
            let (container, _) = self.named(place)?;
            let before = self.with(place, |one| one.limits).unwrap_or_default();
            Ok(quota::let_go(&container, before, resource).await?)
        }
        .boxed_local()
    }

    fn times_met(&self, place: usize, resource: Resource) -> Option<u64> {
        quota::times_met(self.pid(place)?, resource)
    }

    fn keep_log(&self, place: usize) -> Call<'_, ()> {
        async move {
            let (container, _) = self.named(place)?;
            let line = ["docker", "logs", &container];
            Ok(docker::call_into(&line, &log_file(&self.folder, place), COPY_TIMEOUT).await?)
        }
        .boxed_local()
    }

    fn keep_audit<'a>(&'a self, place: usize, into: &'a Path, suffix: &'a str) -> Call<'a, ()> {
        async move {
            let (container, _) = self.named(place)?;
            let folder = self.with(place, |one| one.data_inside.clone());
            let folder = folder.unwrap_or_default();
            // Older ones are numbered without a gap.
            for number in 0..AUDIT_FILES_MAX {
                let name = match number {
                    0 => AUDIT_FILE.to_owned(),
                    number => format!("{AUDIT_FILE}.{number}"),
                };
                let copy = into.join(format!("{name}{suffix}"));
                match copy_out(&container, &format!("{folder}/{name}"), &copy).await {
                    Ok(()) => {}
                    Err(error) if is_missing(&error) => break,
                    Err(error) => return Err(NodeError::Unclear(format!("keep the audit: {error}"))),
                }
            }
            Ok(())
        }
        .boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::directory::Role;

    use super::*;

    fn ready(mqtts: &str) -> Ready {
        Ready {
            ready: true,
            mqtts: mqtts.into(),
            amqps: String::new(),
            kafka: String::new(),
            https: "hub.example:8443".into(),
            mqtt: None,
            ca_file: "/var/lib/dunlin-pki/ca.pem".into(),
            admin_token: "t".into(),
            connection_string: "HostName=hub.example:8443".into(),
            nodes: vec![ReadyNode {
                id: "1".into(),
                pid: 1,
                roles: vec![Role::Gateway],
                mqtts: mqtts.into(),
                amqps: String::new(),
                kafka: String::new(),
                https: "0.0.0.0:8443".into(),
                mqtt: None,
                data_dir: "/var/lib/dunlin/dunlin-data".into(),
            }],
        }
    }

    fn container(published: &[(u16, &str)]) -> Container {
        Container {
            name: "p_gateway_1".into(),
            working_dir: "/var/lib/dunlin".into(),
            pid: Some(77),
            networks: vec![Attached {
                network: "p_default".into(),
                aliases: Vec::new(),
                address: "172.18.0.5".into(),
            }],
            published: published
                .iter()
                .map(|(port, at)| (*port, (*at).to_owned()))
                .collect(),
            ..Container::default()
        }
    }

    #[test]
    fn a_gateway_is_reached_by_its_published_ports_and_others_on_this_machine_alone() {
        let published = [(8883, "127.0.0.1:8890"), (8443, "127.0.0.1:8449")];
        let node = node_of(&ready("hub.example:8883"), &container(&published), true).unwrap();
        assert_eq!(
            (node.mqtts.as_str(), node.https.as_str()),
            ("127.0.0.1:8890", "127.0.0.1:8449")
        );
        assert_eq!(node.pid, 77);
        let https = |is_here| node_of(&ready(""), &container(&[]), is_here).unwrap().https;
        assert_eq!(
            (https(true), https(false)),
            ("172.18.0.5:8443".into(), String::new())
        );
        let error = node_of(&ready("hub.example:8883"), &container(&published[..1]), true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "read the endpoint of p_gateway_1: its port of HTTPS is not published"
        );
    }

    #[test]
    fn spare_containers_have_no_place_until_nodes_join() {
        let spare = |name: &str| {
            Place::of(&Container {
                id: name.into(),
                ..Container::default()
            })
        };
        let containers = Containers {
            places: Mutex::default(),
            spare: Mutex::new(vec![spare("second"), spare("first")]),
            gates: None,
            folder: PathBuf::new(),
        };
        assert_eq!(containers.count(), 0);
        containers.make_place(0).unwrap();
        assert_eq!(containers.named(0).unwrap().0, "first");
        assert_eq!((containers.node(0), containers.is_running(0)), (None, false));
        // One whose place is there has its container already.
        containers.make_place(0).unwrap();
        containers.make_place(1).unwrap();
        assert_eq!(containers.named(1).unwrap().0, "second");
        assert_eq!(
            containers.make_place(2),
            Err(NodeError::NotCarried("one more node"))
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_told_from_a_copy_that_failed() {
        let failed = |output: &str| DockerError::Failed {
            call: "docker cp".into(),
            output: output.into(),
        };
        assert!(is_missing(&failed("Error: No such container:path: a:/b")));
        assert!(is_missing(&failed(
            "Error response from daemon: Could not find the file /b in container a"
        )));
        assert!(!is_missing(&failed("Cannot connect to the Docker daemon")));
        assert!(!is_missing(&failed("Error: No such container: a")));
    }
}
