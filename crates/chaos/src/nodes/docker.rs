//! Docker's command line: how it is asked, how long it may take, and what its answers mean.
//!
//! Decides nothing about nodes. Each call ends within the time that it is given, and is then killed; its
//! process is out of the terminal's group, so that Ctrl-C ends the run and not what tidies up after it.
//! What is asked for is in [`super::compose`] and [`super::containers`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

/// Time for a call that does little.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Lines of a failed call's output that its error shows.
const LINES_SHOWN: usize = 12;
/// Label of a container with the service that it is of.
const SERVICE_LABEL: &str = "com.docker.compose.service";
/// Label of a container with its number in that service, from 1.
const NUMBER_LABEL: &str = "com.docker.compose.container-number";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// The program could not be run.
    #[error("run '{call}': {source}")]
    Run {
        /// What was called.
        call: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("'{call}' did not end within {} s", .wait.as_secs())]
    Late {
        /// What was called.
        call: String,
        /// How long was waited.
        wait: Duration,
    },
    /// It ended with an error.
    #[error("'{call}' failed: {output}")]
    Failed {
        /// What was called.
        call: String,
        /// The end of what it said.
        output: String,
    },
    /// It said something that makes no sense.
    #[error("read the answer of '{call}': {why}")]
    Answer {
        /// What was called.
        call: String,
        /// Why.
        why: String,
    },
}

/// Calls a program with arguments; what it printed to standard output, if it ended well.
pub async fn call(line: &[&str], wait: Duration) -> Result<String, DockerError> {
    let output = carry(command(line), line, wait).await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Calls a program; everything that it prints goes to a file, in its order.
pub async fn call_into(line: &[&str], path: &Path, wait: Duration) -> Result<(), DockerError> {
    let failed = |source| DockerError::Run {
        call: line.join(" "),
        source,
    };
    let file = File::create(path).map_err(failed)?;
    let same = file.try_clone().map_err(failed)?;
    let mut command = command(line);
    command.stdout(file).stderr(same);
    carry(command, line, wait).await.map(drop)
}

fn command(line: &[&str]) -> Command {
    let (program, arguments) = line.split_first().unwrap_or((&"docker", &[]));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

async fn carry(mut command: Command, line: &[&str], wait: Duration) -> Result<Output, DockerError> {
    let call = || line.join(" ");
    let spawned = command.spawn();
    let child = spawned.map_err(|source| DockerError::Run { call: call(), source })?;
    let output = match timeout(wait, child.wait_with_output()).await {
        Err(_) => return Err(DockerError::Late { call: call(), wait }),
        Ok(Err(source)) => return Err(DockerError::Run { call: call(), source }),
        Ok(Ok(output)) => output,
    };
    match output.status.success() {
        true => Ok(output),
        false => Err(DockerError::Failed {
            call: call(),
            output: end_of(&output),
        }),
    }
}

/// The last lines of what a call said.
fn end_of(output: &Output) -> String {
    let said = match output.stderr.is_empty() {
        true => &output.stdout,
        false => &output.stderr,
    };
    let said = String::from_utf8_lossy(said);
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    match lines.is_empty() {
        true => output.status.to_string(),
        false => lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n"),
    }
}

/// A network that a container is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub network: String,
    /// What others there call the container.
    pub aliases: Vec<String>,
    /// The container's address.
    pub address: String,
}

/// A folder of a container that outlives it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Mount {
    /// Where the container has it.
    #[serde(rename = "Destination")]
    pub inside: PathBuf,
    /// Where the machine has it on which Docker runs.
    #[serde(rename = "Source")]
    pub source: PathBuf,
}

/// What a container may use of its machine; 0 where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Limits {
    /// Microseconds of processor time in each [`cpu_period`](Self::cpu_period); below 0 for any.
    pub cpu_quota: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of memory and of what is swapped out; below 0 for any.
    pub memory_swap: i64,
}

/// A container as Docker describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// Its id, whole.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The service that it is of.
    pub service: String,
    /// Which of that service, from 1.
    pub number: u32,
    /// The folder that its program runs in.
    pub working_dir: String,
    /// What its program is told.
    pub arguments: Vec<String>,
    /// Its volumes.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub limits: Limits,
    /// Whether its process runs; one that stands still does.
    pub is_running: bool,
    /// Whether it stands still.
    pub is_paused: bool,
    /// Its process, as the machine counts on which Docker runs.
    pub pid: Option<u32>,
    /// How its process ended last.
    pub exit_code: i64,
    /// The networks that it is in, by name.
    pub networks: Vec<Attached>,
    /// `host:port` of this machine that leads to each of its TCP ports.
    pub published: BTreeMap<u16, String>,
}

impl Container {
    /// Where the machine on which Docker runs has a file of the container, if that is in a volume.
    pub fn outside(&self, inside: &Path) -> Option<PathBuf> {
        let fits = self.mounts.iter().filter_map(|mount| {
            let rest = inside.strip_prefix(&mount.inside).ok()?;
            Some((mount, rest))
        });
        let nearest = fits.min_by_key(|(_, rest)| rest.components().count());
        nearest.map(|(mount, rest)| mount.source.join(rest))
    }

    /// The address of one of its networks, if it is in any.
    pub fn address(&self) -> Option<&str> {
        let mut addresses = self.networks.iter().map(|attached| attached.address.as_str());
        addresses.find(|address| !address.is_empty())
    }
}

/// Asks what containers are like.
pub async fn inspect(ids: &[&str]) -> Result<Vec<Container>, DockerError> {
    let line = [&["docker", "inspect", "--type", "container"], ids].concat();
    let text = call(&line, CALL_TIMEOUT).await?;
    parse(&text).map_err(|why| DockerError::Answer {
        call: "docker inspect".into(),
        why,
    })
}

/// Asks what a container is like.
pub async fn inspect_one(id: &str) -> Result<Container, DockerError> {
    let found = inspect(&[id]).await?.into_iter().next();
    found.ok_or_else(|| DockerError::Answer {
        call: format!("docker inspect {id}"),
        why: "it is empty".into(),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    state: State,
    config: Config,
    #[serde(default)]
    host_config: Limits,
    mounts: Option<Vec<Mount>>,
    network_settings: NetworkSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    paused: bool,
    pid: u32,
    exit_code: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    labels: Option<BTreeMap<String, String>>,
    working_dir: Option<String>,
    cmd: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    networks: Option<BTreeMap<String, Network>>,
    ports: Option<BTreeMap<String, Option<Vec<Binding>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    aliases: Option<Vec<String>>,
    #[serde(rename = "IPAddress", default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(default)]
    host_ip: String,
    host_port: String,
}

/// Makes sense of what `docker inspect` prints.
fn parse(text: &str) -> Result<Vec<Container>, String> {
    let found: Vec<Inspected> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(found.into_iter().map(container).collect())
}

fn container(found: Inspected) -> Container {
    let label = |name: &str| {
        let labels = found.config.labels.as_ref();
        labels.and_then(|labels| labels.get(name)).cloned()
    };
    let networks = found.network_settings.networks.into_iter().flatten();
    let ports = found.network_settings.ports.into_iter().flatten();
    Container {
        service: label(SERVICE_LABEL).unwrap_or_default(),
        number: label(NUMBER_LABEL)
            .and_then(|number| number.parse().ok())
            .unwrap_or(0),
        id: found.id,
        name: found.name.trim_start_matches('/').to_owned(),
        working_dir: found.config.working_dir.unwrap_or_default(),
        arguments: found.config.cmd.unwrap_or_default(),
        mounts: found.mounts.unwrap_or_default(),
        limits: found.host_config,
        is_running: found.state.running,
        is_paused: found.state.paused,
        pid: Some(found.state.pid).filter(|pid| *pid > 0),
        exit_code: found.state.exit_code,
        networks: networks
            .map(|(network, attached)| Attached {
                network,
                aliases: attached.aliases.unwrap_or_default(),
                address: attached.address,
            })
            .collect(),
        published: ports
            .filter_map(|(port, bindings)| published(&port, bindings?))
            .collect(),
    }
}

/// A TCP port of a container with where this machine reaches it; the two families may have different ports,
/// and devices dial the older.
fn published(port: &str, bindings: Vec<Binding>) -> Option<(u16, String)> {
    let port = port.strip_suffix("/tcp")?.parse().ok()?;
    let binding = bindings
        .into_iter()
        .find(|binding| !binding.host_ip.contains(':'))?;
    let host = match binding.host_ip.as_str() {
        "" | "0.0.0.0" => "127.0.0.1",
        host => host,
    };
    let host_port: u16 = binding.host_port.parse().ok().filter(|port| *port > 0)?;
    Some((port, format!("{host}:{host_port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = r#"[{
        "Id": "0a1b2c", "Name": "/dunlin-chaos-1_gateway_2", "RestartCount": 0,
        "State": {"Status": "paused", "Running": true, "Paused": true, "Pid": 4711, "ExitCode": 0},
        "HostConfig": {"CpuQuota": -1, "CpuPeriod": 100000, "Memory": 0, "MemorySwap": 0, "NanoCpus": 0},
        "Mounts": [{"Type": "volume", "Name": "v", "Source": "/docker/v/_data", "Destination": "/var/lib/dunlin"},
            {"Type": "volume", "Name": "w", "Source": "/docker/w/_data", "Destination": "/var/lib/dunlin/deep"}],
        "Config": {"WorkingDir": "/var/lib/dunlin", "Cmd": ["serve", "--expect=3"], "Labels": {
            "com.docker.compose.project": "dunlin-chaos-1", "com.docker.compose.service": "gateway",
            "com.docker.compose.container-number": "2"}},
        "NetworkSettings": {
            "Ports": {"8443/tcp": [{"HostIp": "::", "HostPort": "8445"}, {"HostIp": "0.0.0.0", "HostPort": "8444"}],
                "8883/tcp": [{"HostIp": "192.0.2.7", "HostPort": "8884"}], "8900/udp": null, "1/tcp": []},
            "Networks": {"dunlin-chaos-1_default": {"Aliases": ["gateway", "0a1b2c"], "IPAddress": "172.18.0.5"}}}}]"#;

    #[test]
    fn a_container_is_read_with_its_networks_and_its_ports() {
        let found = parse(GATEWAY).unwrap();
        let [container] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(
            (
                container.name.as_str(),
                container.service.as_str(),
                container.number
            ),
            ("dunlin-chaos-1_gateway_2", "gateway", 2)
        );
        assert_eq!((container.is_running, container.is_paused), (true, true));
        assert_eq!((container.pid, container.exit_code), (Some(4711), 0));
        assert_eq!(container.working_dir, "/var/lib/dunlin");
        assert_eq!(container.arguments, ["serve", "--expect=3"]);
        assert_eq!((container.limits.cpu_quota, container.limits.memory), (-1, 0));
        let attached = Attached {
            network: "dunlin-chaos-1_default".into(),
            aliases: vec!["gateway".into(), "0a1b2c".into()],
            address: "172.18.0.5".into(),
        };
        assert_eq!(container.networks, [attached]);
        // Not the port of the other family, which may be another's in this one.
        let expected = [
            (8443, "127.0.0.1:8444".to_owned()),
            (8883, "192.0.2.7:8884".to_owned()),
        ];
        assert_eq!(container.published, BTreeMap::from(expected));
    }

    #[test]
    fn a_file_in_a_volume_is_found_outside_and_no_other() {
        let found = parse(GATEWAY).unwrap();
        let outside = |inside: &str| found[0].outside(Path::new(inside));
        assert_eq!(outside("/var/lib/dunlin/a/b"), Some("/docker/v/_data/a/b".into()));
        assert_eq!(
            outside("/var/lib/dunlin/deep/b"),
            Some("/docker/w/_data/b".into())
        );
        assert_eq!(outside("/var/lib/dunlin-pki/a"), None);
        assert_eq!(found[0].address(), Some("172.18.0.5"));
    }

    #[test]
    fn one_that_has_ended_has_no_process_no_ports_and_maybe_no_network() {
        let text = r#"[{"Id": "a", "Name": "/b", "State": {"Running": false, "Paused": false, "Pid": 0, "ExitCode": 137},
            "Config": {"Labels": null, "WorkingDir": ""},
            "NetworkSettings": {"Ports": {}, "Networks": null}}]"#;
        let found = parse(text).unwrap();
        assert_eq!((found[0].pid, found[0].exit_code), (None, 137));
        assert!(found[0].networks.is_empty() && found[0].published.is_empty());
        assert_eq!((found[0].service.as_str(), found[0].number), ("", 0));
        assert_eq!((found[0].address(), found[0].limits), (None, Limits::default()));
    }

    #[test]
    fn what_is_no_answer_is_told_and_never_trusted() {
        assert_eq!(parse("[]").unwrap(), []);
        for text in ["", "Error: No such container", "{}", "[{\"Id\": 3}]"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_call_ends_with_what_it_said_or_in_time() {
        let wait = Duration::from_secs(30);
        assert_eq!(call(&["echo", "well"], wait).await.unwrap(), "well\n");
        let error = call(&["sh", "-c", "echo no use >&2; exit 3"], wait)
            .await
            .unwrap_err();
        assert!(error.to_string().ends_with("failed: no use"), "{error}");
        let error = call(&["no-such-program"], wait).await.unwrap_err();
        assert!(matches!(error, DockerError::Run { .. }), "{error}");
        let error = call(&["sleep", "60"], Duration::from_millis(1))
            .await
            .unwrap_err();
        assert!(matches!(error, DockerError::Late { .. }), "{error}");
    }
}
