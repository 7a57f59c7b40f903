//! A compose project of a run's own: brought up before it, taken down after it, whatever came between.
//!
//! Decides which tool is used (`docker-compose`, or else `docker compose`), which of the project's containers
//! has which place (gateways come first, as everywhere), and how an [`Outfit`] stands over the compose file,
//! whose business it is otherwise what a node is told. What is done to a container is in [`super::containers`].

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::docker::{self, CALL_TIMEOUT, Container, DockerError};
use crate::namespaces::NamespaceError;
use crate::namespaces::gates::Gates;

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
/// The file that stands over the project's own.
const OUTFIT_FILE: &str = "outfit.json";

/// What containers are given beyond what their compose file says.
#[derive(Default)]
pub struct Outfit {
    /// Further arguments of those that keep messages.
    pub arguments: Vec<String>,
    /// Containers of them that do not run yet, for nodes that join.
    pub spares: usize,
    /// What stands before the network of each.
    pub gates: Option<Arc<Gates>>,
}

/// The containers of a project that is up.
pub struct Brought {
    /// Those that run, by place.
    pub running: Vec<Container>,
    /// Those that are there and have never run.
    pub spare: Vec<Container>,
}

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
    /// The outfit cannot be written down.
    #[error("write {}: {source}", .path.display())]
    Outfit {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A container's network namespace has no gate.
    #[error("enter the network namespace of a container: {0}")]
    Gates(#[from] NamespaceError),
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
    /// The file that stands over the project's own, if there is one.
    outfit: RefCell<Option<String>>,
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
            outfit: RefCell::default(),
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

    /// The tool, with the project and all of its files.
    fn words(&self) -> Vec<String> {
        let outfit = self.outfit.borrow().clone();
        let outfit = outfit.into_iter().flat_map(|path| ["--file".to_owned(), path]);
        self.compose.iter().cloned().chain(outfit).collect()
    }

    async fn compose(&self, arguments: &[&str], wait: Duration) -> Result<String, DockerError> {
        let words = self.words();
        let words = words.iter().map(String::as_str);
        let line: Vec<&str> = words.chain(arguments.iter().copied()).collect();
        docker::call(&line, wait).await
    }

    /// Builds the image as the file says and creates the containers. `folder` is for what stands over the file.
    pub async fn up(
        &self,
        (shards, gateways): (usize, usize),
        outfit: &Outfit,
        folder: &Path,
    ) -> Result<Brought, ComposeError> {
        self.is_begun.set(true);
        if !outfit.arguments.is_empty() {
            self.dress(&outfit.arguments, folder).await?;
        }
        let scale = [format!("{SHARD}={shards}"), format!("{GATEWAY}={gateways}")];
        let arguments = [
            "up", "--build", "--detach", "--scale", &scale[0], "--scale", &scale[1],
        ];
        self.compose(&arguments, UP_TIMEOUT).await?;
        let running = self.containers().await?;
        count(&running, GATEWAY, gateways)?;
        count(&running, SHARD, shards)?;
        let spare = match outfit.spares {
            0 => Vec::new(),
            spares => self.create(shards + spares, &running).await?,
        };
        Ok(Brought { running, spare })
    }

    /// Has the nodes that keep messages get further arguments. A compose file cannot add to a command, only
    /// replace it, so what they are told already is asked of a container that never runs.
    async fn dress(&self, arguments: &[String], folder: &Path) -> Result<(), ComposeError> {
        for container in self.create(1, &[]).await? {
            let path = folder.join(OUTFIT_FILE);
            let text = outfit_text(&container.arguments, arguments);
            std::fs::write(&path, text).map_err(|source| ComposeError::Outfit {
                path: path.clone(),
                source,
            })?;
            // One that is made anew would leave its volume behind for good.
            let line = ["docker", "rm", "--force", "--volumes", &container.id];
            docker::call(&line, CALL_TIMEOUT).await?;
            *self.outfit.borrow_mut() = Some(path.display().to_string());
        }
        Ok(())
    }

    /// Creates containers that keep messages until there are so many, and starts none; returns those that are
    /// not `known`.
    async fn create(&self, shards: usize, known: &[Container]) -> Result<Vec<Container>, ComposeError> {
        let scale = format!("{SHARD}={shards}");
        let arguments = [
            "up",
            "--no-start",
            // The tool would wait for those to be done which it does not start.
            "--no-deps",
            "--no-recreate",
            "--scale",
            &scale,
            SHARD,
        ];
        self.compose(&arguments, UP_TIMEOUT).await?;
        let mut found = self.containers().await?;
        count(&found, SHARD, shards)?;
        found.retain(|one| known.iter().all(|other| other.id != one.id));
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
        format!("{} down --volumes", self.words().join(" "))
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

/// Whether there are as many containers of a service as there should be.
fn count(containers: &[Container], service: &'static str, wanted: usize) -> Result<(), ComposeError> {
    let found = containers.iter().filter(|one| one.service == service).count();
    match found == wanted {
        true => Ok(()),
        false => Err(ComposeError::Count {
            service,
            wanted,
            found,
        }),
    }
}

/// A compose file (JSON is YAML) that has nodes get further arguments beside those that they are told.
fn outfit_text(told: &[String], further: &[String]) -> String {
    // Compose puts variables in where it reads `$`.
    let words = told.iter().chain(further).map(|word| word.replace('$', "$$"));
    let command: Vec<String> = words.collect();
    serde_json::json!({ "services": { SHARD: { "command": command } } }).to_string()
}

/// Those that are nodes, in the order of their places.
fn in_places(mut containers: Vec<Container>) -> Vec<Container> {
    containers.retain(|one| one.service == SHARD || one.service == GATEWAY);
    containers.sort_by_key(|one| (one.service == SHARD, one.number));
    containers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_come_first_and_what_is_no_node_has_no_place() {
        let container = |service: &str, number| Container {
            name: format!("{service}-{number}"),
            service: service.into(),
            number,
            ..Container::default()
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

    #[test]
    fn too_few_containers_and_too_many_are_told() {
        let found = [Container {
            service: SHARD.into(),
            ..Container::default()
        }];
        assert!(count(&found, SHARD, 1).is_ok() && count(&found, GATEWAY, 0).is_ok());
        let error = count(&found, SHARD, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bring up 2 containers of service 'shard': there are 1"
        );
        assert!(count(&found, SHARD, 0).is_err());
    }

    #[test]
    fn an_outfit_adds_to_what_nodes_are_told_and_its_dollars_stay() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let text = outfit_text(&words("serve --host-name=$x"), &words("--allow-faults"));
        assert_eq!(
            text,
            r#"{"services":{"shard":{"command":["serve","--host-name=$$x","--allow-faults"]}}}"#
        );
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_told_before_anything_else() {
        let error = Project::open(Path::new("no/such.yml"), "p").await.unwrap_err();
        assert_eq!(error.to_string(), "read no/such.yml: there is no such file");
    }
}
