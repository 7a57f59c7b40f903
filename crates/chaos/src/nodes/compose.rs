//! A compose project of a run's own: brought up before it, taken down after it, whatever came between.
//!
//! Decides which tool is used (`docker-compose`, or else `docker compose`) and which of the project's
//! containers has which place: gateways come first, as everywhere. What a node is told is the compose
//! file's business. What is done to a container is in [`super::containers`].

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::docker::{self, CALL_TIMEOUT, Container, DockerError};

/// Time for the image to be built and the containers to be created.
const UP_TIMEOUT: Duration = Duration::from_secs(3600);
/// Time for them to be taken down.
const DOWN_TIMEOUT: Duration = Duration::from_secs(180);
/// Times that it is tried.
const DOWN_ATTEMPTS: u32 = 3;
/// Seconds for a container to end by itself then.
const DOWN_GRACE_S: &str = "20";
/// Time to copy the log of a container.
const LOG_TIMEOUT: Duration = Duration::from_secs(60);
/// The service whose containers keep messages.
const SHARD: &str = "shard";
/// The service whose containers devices connect to.
const GATEWAY: &str = "gateway";

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// There is no such file.
    #[error("read {}: there is no such file", .0.display())]
    NoFile(PathBuf),
    /// The daemon does not answer.
    #[error("reach the Docker daemon: {0}")]
    NoDocker(#[source] DockerError),
    /// Neither tool is there.
    #[error("find compose: there is neither `docker-compose` nor `docker compose`")]
    NoCompose,
    /// An earlier run of the same seed has left its containers.
    #[error("begin project {name}: it has containers already; `{by_hand}` takes them down")]
    Taken {
        /// The project.
        name: String,
        /// What takes them down.
        by_hand: String,
    },
    /// There are not as many containers as were asked for.
    #[error("bring up {wanted} containers of service '{service}': there are {found}")]
    Count {
        /// Which service.
        service: &'static str,
        /// How many there should be.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// A node does not serve.
    #[error("start {name}: {why}")]
    NotReady {
        /// Which container.
        name: String,
        /// Why.
        why: String,
    },
    /// What a node says of itself cannot be read.
    #[error("read {what} of {name}: {why}")]
    Unread {
        /// What.
        what: &'static str,
        /// Of which container.
        name: String,
        /// Why.
        why: String,
    },
    /// A call failed.
    #[error(transparent)]
    Docker(#[from] DockerError),
}

/// A project.
#[derive(Debug)]
pub struct Project {
    /// The tool, with the project and its file.
    compose: Vec<String>,
    name: String,
    /// Whether there may be containers.
    is_begun: Cell<bool>,
}

impl Project {
    /// The project of this name over a compose file, once it is known that it can be brought up.
    pub async fn open(file: &Path, name: &str) -> Result<Project, ComposeError> {
        if !file.is_file() {
            return Err(ComposeError::NoFile(file.to_owned()));
        }
        let version = ["docker", "version", "--format", "{{.Server.Version}}"];
        docker::call(&version, CALL_TIMEOUT)
            .await
            .map_err(ComposeError::NoDocker)?;
        let tool = tool().await.ok_or(ComposeError::NoCompose)?;
        let path = file.display().to_string();
        let told = ["--project-name", name, "--file", &path];
        let project = Project {
            compose: tool.iter().chain(&told).map(|word| (*word).to_owned()).collect(),
            name: name.to_owned(),
            is_begun: Cell::new(false),
        };
        match project.ids().await?.is_empty() {
            true => Ok(project),
            false => Err(ComposeError::Taken {
                by_hand: project.down_by_hand(),
                name: project.name,
            }),
        }
    }

    /// The project's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn compose(&self, arguments: &[&str], wait: Duration) -> Result<String, DockerError> {
        let words = self.compose.iter().map(String::as_str);
        let line: Vec<&str> = words.chain(arguments.iter().copied()).collect();
        docker::call(&line, wait).await
    }

    /// Builds the image as the file says and creates the containers; returns them by place.
    pub async fn up(&self, shards: usize, gateways: usize) -> Result<Vec<Container>, ComposeError> {
        let scale = [format!("{SHARD}={shards}"), format!("{GATEWAY}={gateways}")];
        let arguments = [
            "up", "--build", "--detach", "--scale", &scale[0], "--scale", &scale[1],
        ];
        self.is_begun.set(true);
        self.compose(&arguments, UP_TIMEOUT).await?;
        let found = self.containers().await?;
        for (service, wanted) in [(GATEWAY, gateways), (SHARD, shards)] {
            let count = found.iter().filter(|one| one.service == service).count();
            if count != wanted {
                return Err(ComposeError::Count {
                    service,
                    wanted,
                    found: count,
                });
            }
        }
        Ok(found)
    }

    /// Ids of everything that the project has.
    async fn ids(&self) -> Result<Vec<String>, DockerError> {
        let label = format!("label=com.docker.compose.project={}", self.name);
        let line = [
            "docker",
            "ps",
            "--all",
            "--quiet",
            "--no-trunc",
            "--filter",
            &label,
        ];
        let text = docker::call(&line, CALL_TIMEOUT).await?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// The containers that are nodes, by place.
    async fn containers(&self) -> Result<Vec<Container>, DockerError> {
        let ids = self.ids().await?;
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        match ids.is_empty() {
            true => Ok(Vec::new()),
            false => Ok(in_places(docker::inspect(&ids).await?)),
        }
    }

    /// Copies what the nodes have logged into a folder, as `node-N.log`.
    pub async fn keep_logs(&self, folder: &Path) -> Result<(), DockerError> {
        if !self.is_begun.get() {
            return Ok(());
        }
        for (place, container) in self.containers().await?.iter().enumerate() {
            let line = ["docker", "logs", &container.id];
            docker::call_into(&line, &log_file(folder, place), LOG_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Takes everything down that was brought up, volumes too.
    pub async fn down(&self) -> Result<(), DockerError> {
        if !self.is_begun.get() {
            return Ok(());
        }
        let arguments = ["down", "--volumes", "--timeout", DOWN_GRACE_S];
        for _ in 0..DOWN_ATTEMPTS {
            self.compose(&arguments, DOWN_TIMEOUT).await?;
            // Where coming up was cut short, a container may have been made meanwhile.
            if self.ids().await?.is_empty() {
                break;
            }
        }
        self.is_begun.set(false);
        Ok(())
    }

    /// What takes it down by hand.
    pub fn down_by_hand(&self) -> String {
        format!("{} down --volumes", self.compose.join(" "))
    }
}

/// Where the log of the node in a place goes.
pub(super) fn log_file(folder: &Path, place: usize) -> PathBuf {
    folder.join(format!("node-{}.log", place + 1))
}

/// The compose tool of this machine.
async fn tool() -> Option<&'static [&'static str]> {
    const TOOLS: [&[&str]; 2] = [&["docker-compose"], &["docker", "compose"]];
    for tool in TOOLS {
        let line = [tool, &["version"]].concat();
        if docker::call(&line, CALL_TIMEOUT).await.is_ok() {
            return Some(tool);
        }
    }
    None
}

/// Those that are nodes, in the order of their places.
fn in_places(mut containers: Vec<Container>) -> Vec<Container> {
    containers.retain(|one| one.service == SHARD || one.service == GATEWAY);
    containers.sort_by_key(|one| (one.service == SHARD, one.number));
    containers
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn gateways_come_first_and_what_is_no_node_has_no_place() {
        let container = |service: &str, number| Container {
            id: String::new(),
            name: format!("{service}-{number}"),
            service: service.into(),
            number,
            working_dir: String::new(),
            is_running: true,
            is_paused: false,
            pid: None,
            exit_code: 0,
            networks: Vec::new(),
            published: BTreeMap::new(),
        };
        let found = vec![
            container("shard", 10),
            container("gateway", 2),
            container("pki", 1),
            container("shard", 9),
            container("gateway", 1),
        ];
        let names: Vec<String> = in_places(found).into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["gateway-1", "gateway-2", "shard-9", "shard-10"]);
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_told_before_anything_else() {
        let error = Project::open(Path::new("no/such.yml"), "p").await.unwrap_err();
        assert_eq!(error.to_string(), "read no/such.yml: there is no such file");
    }
}
