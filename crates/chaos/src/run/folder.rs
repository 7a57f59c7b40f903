//! What lies in the folder of a run: everything that a verdict is made of, so that it can be made again.
//!
//! | file | what |
//! |---|---|
//! | `scenario.toml` | the scenario, as it was read |
//! | `run.json` | [`About`]: seed, nodes, names |
//! | `journal.jsonl` | what was done to the nodes ([`super::journal`]) |
//! | `history.jsonl` | what devices did and were told ([`crate::record`]) |
//! | `operations.jsonl` | what was asked of the registry ([`crate::workload::operation`]) |
//! | `accesses.jsonl` | reads and writes of registrations by several services at once ([`crate::workload::access`]) |
//! | `exchanges.jsonl` | what services and devices had with each other by twins and methods ([`crate::workload::exchange`]) |
//! | `policies.jsonl` | what was asked of shared access policies, and what their keys opened ([`crate::workload::grant`]) |
//! | `provisioning.jsonl` | enrolments, and what came of devices that registered ([`crate::workload::enrolling`]) |
//! | `erasing.jsonl` | what devices sent that were erased, and what was shown of it ([`crate::workload::erasure`]) |
//! | `messages.jsonl` | what was done with messages that are fetched, and what services were told of them ([`crate::workload::handling`]) |
//! | `readers.jsonl` | what members of a consumer group did and were told ([`crate::workload::step`]) |
//! | `jobs.jsonl` | jobs, and what queries showed of them ([`crate::workload::sight`]) |
//! | `deliveries.jsonl` | what routes led to the run's webhook ([`crate::workload::delivery`]) |
//! | `ranges.jsonl` | what readers were shown of ranges of past events ([`crate::workload::range`]) |
//! | `surveys.jsonl` | what configurations ask of twins, and what these say ([`crate::workload::survey`]) |
//! | `files.jsonl` | files that devices brought, and what services saw of them ([`crate::workload::file`]) |
//! | `raft.jsonl` | how replicas stood in their groups ([`crate::invariants::raft`]) |
//! | `samples.jsonl` | what the nodes used ([`crate::invariants::bounded`]) |
//! | `stored.jsonl` | what was read back at the end |
//! | `replicas.jsonl` | what was read back from other replicas, where that was asked for |
//! | `audit/` | the nodes' audits |
//! | `report.json`, `report.html` | the verdict |
//! | `nodes/` | data and logs of the nodes; kept after a failure |
//!
//! Decides nothing. What is read back in is what was written, checked line by line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::journal::{Entry, Lines, ReadLinesError, read_lines};
use crate::invariants::audit::{AuditLine, AuditSlice};
use crate::invariants::bounded::Sample;
use crate::invariants::raft;
use crate::oracle::{DeviceHistory, History, Stored};
use crate::record::Recorded;
use crate::scenario::{Scenario, ScenarioError, read};
use crate::workload::access::Access;
use crate::workload::delivery::Delivery;
use crate::workload::enrolling::Enrolling;
use crate::workload::erasure::Trace;
use crate::workload::exchange::Exchange;
use crate::workload::file;
use crate::workload::grant::Grant;
use crate::workload::handling::Handling;
use crate::workload::operation::Operation;
use crate::workload::range::Range;
use crate::workload::sight::Sight;
use crate::workload::step::Step;
use crate::workload::survey::Survey;

/// What a run is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The scenario's name.
    pub scenario: String,
    /// Draws everything.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Shards.
    pub shards: u32,
    /// Devices of the load; the first of `names`.
    pub devices: usize,
    /// All devices with a history, in its order.
    pub names: Vec<String>,
    /// Devices that attackers speak as. Nobody keeps what they say, so nothing of it is judged.
    #[serde(default)]
    pub attackers: Vec<String>,
    /// Deeds that did not get into the history; with any of them it proves nothing.
    pub deeds_dropped: u64,
}

impl About {
    /// Devices that are told apart in what is read back: those with a history first, then those of attackers.
    pub fn senders(&self) -> Vec<String> {
        [&self.names[..], &self.attackers].concat()
    }

    /// Whether the hub says that a record is an attacker's.
    pub fn is_of_attackers(&self, record: &Stored) -> bool {
        let first = self.names.len();
        let of_attackers = first..first + self.attackers.len();
        record
            .device
            .is_some_and(|device| of_attackers.contains(&(device as usize)))
    }
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

/// Everything that a run has left.
#[derive(Debug)]
pub struct Remains {
    /// The scenario.
    pub scenario: Scenario,
    /// What it is about.
    pub about: About,
    /// The journal.
    pub journal: Vec<Entry>,
    /// What devices did; the faults are in the journal.
    pub history: History,
    /// What was asked of the registry.
    pub operations: Vec<Operation>,
    /// Reads and writes of registrations by several services at once.
    pub accesses: Vec<Access>,
    /// What services and devices had with each other by twins and methods.
    pub exchanges: Vec<Exchange>,
    /// What was asked of shared access policies, and what their keys opened.
    pub grants: Vec<Grant>,
    /// Enrolments, and what came of devices that registered.
    pub enrollings: Vec<Enrolling>,
    /// What devices sent that were erased, and what was shown of it.
    pub traces: Vec<Trace>,
    /// What was done with messages that are fetched, and what services were told of them.
    pub handlings: Vec<Handling>,
    /// What members of a consumer group did and were told.
    pub steps: Vec<Step>,
    /// Jobs, and what queries showed of them.
    pub sights: Vec<Sight>,
    /// What routes led to the run's webhook.
    pub deliveries: Vec<Delivery>,
    /// What readers were shown of ranges of past events.
    pub ranges: Vec<Range>,
    /// What configurations ask of twins, and what these say.
    pub surveys: Vec<Survey>,
    /// What was done with files of devices.
    pub files: Vec<file::Deed>,
    /// How replicas stood in their groups.
    pub standings: Vec<raft::Sight>,
    /// What nodes used.
    pub samples: Vec<Sample>,
    /// What was read back.
    pub stored: Vec<Stored>,
    /// What was read back from other replicas, reading by reading.
    pub replicas: Vec<Reading>,
    /// What the nodes have recorded.
    pub audit: Vec<AuditSlice>,
}

/// One reading of everything, while a node was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The node that was stopped, from 0.
    pub without: usize,
    /// How many records were read, and their fingerprint, by shard.
    pub shards: Vec<(u32, u64, u64)>,
}

/// Why a folder cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file with lines.
    #[error(transparent)]
    Lines(#[from] ReadLinesError),
    /// Another file.
    #[error("read {}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The scenario makes no sense.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// `run.json` makes no sense.
    #[error("read run.json: {0}")]
    About(#[from] serde_json::Error),
}

impl Folder {
    /// A file of it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Begins a file of lines.
    pub fn lines(&self, name: &str) -> io::Result<Lines> {
        Lines::create(&self.file(name))
    }

    /// Writes `run.json`.
    pub fn save_about(&self, about: &About) -> io::Result<()> {
        fs::write(self.file("run.json"), serde_json::to_vec_pretty(about)?)
    }

    /// Writes what was read back.
    pub fn save_stored(&self, stored: &[Stored]) -> io::Result<()> {
        let mut lines = self.lines("stored.jsonl")?;
        for record in stored {
            lines.write(record)?;
        }
        lines.sync()
    }

    fn text(&self, name: &str) -> Result<String, FolderError> {
        let path = self.file(name);
        fs::read_to_string(&path).map_err(|source| FolderError::Io { path, source })
    }

    /// Reads a file of lines.
    pub(super) fn all<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, FolderError> {
        let mut found = Vec::new();
        read_lines(&self.file(name), |line| {
            found.push(line);
            Ok(())
        })?;
        Ok(found)
    }

    /// Reads everything.
    pub fn load(&self) -> Result<Remains, FolderError> {
        let scenario = read::parse("scenario.toml", &self.text("scenario.toml")?)?;
        let about: About = serde_json::from_str(&self.text("run.json")?)?;
        let mut history = History {
            devices: about
                .names
                .iter()
                .map(|name| DeviceHistory {
                    device: name.clone(),
                    ..DeviceHistory::default()
                })
                .collect(),
            disturbances: Vec::new(),
        };
        read_lines(&self.file("history.jsonl"), |recorded: Recorded| {
            let device = history.devices.get_mut(recorded.device as usize);
            let device = device.ok_or_else(|| format!("there is no device {}", recorded.device))?;
            device.note(recorded.deed).map_err(|error| error.to_string())
        })?;
        Ok(Remains {
            scenario,
            about,
            history,
            journal: self.all("journal.jsonl")?,
            operations: self.all("operations.jsonl")?,
            accesses: self.all("accesses.jsonl")?,
            exchanges: self.all("exchanges.jsonl")?,
            handlings: self.all("messages.jsonl")?,
            grants: self.all("policies.jsonl")?,
            enrollings: self.all("provisioning.jsonl")?,
            traces: self.all("erasing.jsonl")?,
            steps: self.all("readers.jsonl")?,
            sights: self.all("jobs.jsonl")?,
            deliveries: self.all("deliveries.jsonl")?,
            ranges: self.all("ranges.jsonl")?,
            surveys: self.all("surveys.jsonl")?,
            files: self.all("files.jsonl")?,
            standings: self.all("raft.jsonl")?,
            samples: self.all("samples.jsonl")?,
            stored: self.all("stored.jsonl")?,
            replicas: self.all("replicas.jsonl")?,
            audit: self.load_audit()?,
        })
    }

    fn load_audit(&self) -> Result<Vec<AuditSlice>, FolderError> {
        let folder = self.file("audit");
        let mut found = Vec::new();
        let Ok(entries) = fs::read_dir(&folder) else {
            return Ok(found);
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let text = fs::read_to_string(&path).map_err(|source| FolderError::Io {
                path: path.clone(),
                source,
            })?;
            let file = path
                .file_name()
                .map_or(String::new(), |name| name.to_string_lossy().into_owned());
            // A line that a crash cut short was never confirmed to anybody.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let lines = whole.lines().enumerate().map(|(place, line)| {
                serde_json::from_str(line).map_err(|error| ReadLinesError::Line {
                    path: file.clone(),
                    line: place + 1,
                    problem: error.to_string(),
                })
            });
            let lines = lines.collect::<Result<Vec<AuditLine>, _>>()?;
            found.push(AuditSlice { file, lines });
        }
        Ok(found)
    }
}

/// Makes a folder for a run, which must not be there yet.
pub fn create(path: &Path) -> io::Result<Folder> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::create_dir(path)?;
    Ok(Folder(path.to_owned()))
}
