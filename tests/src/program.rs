//! The `dunlin` program, built from this very tree, and processes of it.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

use dunlin_node::ready::Ready;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::PATIENCE;
use crate::ports::Ports;

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is a folder of the workspace")
}

/// Where the program is: what `DUNLIN_TEST_PROGRAM` names, if it is set, otherwise what cargo builds from
/// this tree. Built first if it is not there, or older than a source file.
pub fn dunlin() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(find_or_build)
}

fn find_or_build() -> PathBuf {
    if let Some(named) = std::env::var_os("DUNLIN_TEST_PROGRAM") {
        return named.into();
    }
    // This runs from `target/<profile>/deps`.
    let own = std::env::current_exe().expect("a test has a path");
    let folder = own
        .parent()
        .and_then(Path::parent)
        .expect("target/<profile>/deps");
    let program = folder.join("dunlin");
    let built = program.metadata().and_then(|found| found.modified()).ok();
    if built.is_none_or(|built| built < newest_source()) {
        build(folder);
    }
    assert!(
        program.is_file(),
        "cargo built no program at {}",
        program.display()
    );
    program
}

fn build(folder: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command
        .args(["build", "--package", "dunlin"])
        .current_dir(workspace());
    if let Some(target) = folder.parent() {
        command.arg("--target-dir").arg(target);
    }
    match folder.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    let status = command.status().expect("cargo can be run");
    assert!(status.success(), "cargo cannot build the program");
}

fn newest_source() -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut folders = vec![workspace().join("src"), workspace().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_part = path
                .extension()
                .is_some_and(|extension| extension == "rs" || extension == "toml");
            if path.is_dir() {
                // What is tested beside the sources is no part of the program.
                if !path.ends_with("tests") && !path.ends_with("benches") {
                    folders.push(path);
                }
            } else if is_part && let Ok(modified) = entry.metadata().and_then(|found| found.modified()) {
                newest = newest.max(modified);
            }
        }
    }
    newest
}

/// `dunlin serve` with everything a test wants to be its own: data, ports, shards.
pub struct Serve {
    /// Holds the data directory `data`, and `log`.
    folder: TempDir,
    /// The ports.
    pub ports: Ports,
    extra: Vec<String>,
}

impl Serve {
    /// A hub of one node in a new folder, on free ports. `extra` are further arguments.
    pub fn new(extra: &[&str]) -> Serve {
        Serve {
            folder: TempDir::new().expect("a folder for temporary files"),
            ports: Ports::take(),
            extra: extra.iter().map(|&argument| argument.to_owned()).collect(),
        }
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its command line. Where an argument comes twice the command line is refused, so tests that bring
    /// an unusual one use [`dunlin`] themselves.
    pub fn command(&self) -> Command {
        let mut command = Command::new(dunlin());
        command
            .args(["serve", "--output", "json", "--https-alt-port", "0"])
            .args(["--shards", "4"])
            .args(["--mqtts-port", &self.ports.mqtts.to_string()])
            .args(["--amqps-port", &self.ports.amqps.to_string()])
            .args(["--kafka-port", &self.ports.kafka.to_string()])
            .args(["--https-port", &self.ports.https.to_string()])
            .args(["--cluster-port", &self.ports.cluster.to_string()])
            .arg("--data")
            .arg(self.data())
            .args(&self.extra)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts it and returns when it is ready.
    pub async fn start(&self) -> Serving {
        let log_path = self.folder.path().join("log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .expect("a log file");
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let output = child.stdout.take().expect("standard output is piped");
        let mut lines = BufReader::new(output).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let ready = match line {
            Ok(Ok(Some(line))) => serde_json::from_str(&line).expect("a line that says it is ready"),
            other => {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                panic!("the hub did not become ready ({other:?}):\n{log}");
            }
        };
        Serving { child, ready }
    }
}

/// A hub that runs. Dropping it kills it.
pub struct Serving {
    child: Child,
    /// Where it is.
    pub ready: Ready,
}

impl Serving {
    /// SIGKILL; returns when it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it is ours to kill");
    }
}

/// Runs a command that must end by itself; its end and what it wrote to both outputs.
pub async fn run(mut command: Command) -> (ExitStatus, String) {
    command.kill_on_drop(true).stdin(Stdio::null());
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = ended
        .unwrap_or_else(|_| panic!("{command:?} does not end"))
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}
