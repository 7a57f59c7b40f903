//! The journal of a run: what was done to the nodes and what they reached, a line of JSON each, in a
//! file that no node can touch.
//!
//! Times are microseconds of this process's monotonic clock since the run began. The file is synced at
//! the end of every epoch; a run that is cut short leaves a journal that ends, and no verdict. Decides
//! nothing: [`crate::run::judge`] reads it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Bytes of a line that is read.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// How far a fault has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// It is about to be done.
    Begun,
    /// It was done.
    Installed,
    /// It has taken effect.
    Confirmed,
    /// It is undone, and the nodes run.
    Healed,
    /// It was not done, and nothing was changed.
    Skipped,
    /// It is not known how far a step came.
    Indeterminate,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The load began.
    LoadBegun,
    /// No more load was to come.
    LoadEnded,
    /// An epoch began.
    Epoch {
        /// Which.
        epoch: u64,
        /// Faults that it is to have.
        faults: Vec<String>,
    },
    /// A fault took a step.
    Fault {
        /// Its number in the run, from 0.
        fault: usize,
        /// The epoch.
        epoch: u64,
        /// Its kind.
        kind: String,
        /// The kind's number.
        number: String,
        /// The nodes, from 0.
        nodes: Vec<usize>,
        /// Which step.
        step: Progress,
        /// What was done, or why not.
        detail: String,
    },
    /// A node was disturbed so that it may have lost its connections.
    Disturbed {
        /// Which, from 0.
        node: usize,
        /// Since when.
        from_us: u64,
        /// Until when.
        until_us: u64,
    },
    /// Shards were watched around a fault: those that its node led.
    Watched {
        /// The fault.
        fault: usize,
        /// The shards.
        shards: Vec<u32>,
    },
    /// The longest time between two acks around a fault.
    Gap {
        /// The fault.
        fault: usize,
        /// The shard.
        shard: u32,
        /// How long.
        gap_us: u64,
    },
    /// A state was reached.
    Reached {
        /// Its name.
        state: String,
    },
    /// A node told of a fault that must not pass in silence.
    Alarm {
        /// The fault.
        fault: usize,
        /// What it logged; nothing if it passed in silence.
        line: Option<String>,
        /// Whether its `/metrics` counts that. Nothing where none has to, or nobody is left who could.
        #[serde(default)]
        counted: Option<bool>,
    },
    /// A process ended, or ended in a way, that nothing asked of it.
    Died {
        /// Whose, from 0.
        node: usize,
        /// How.
        how: String,
    },
    /// A quiet time ended.
    Quiet {
        /// The epoch before it.
        epoch: u64,
        /// When the last fault was healed.
        from_us: u64,
        /// When everything was served again, if it was.
        served_us: Option<u64>,
        /// When every shard had all its replicas again, if it had.
        whole_us: Option<u64>,
        /// What was missing last.
        missing: String,
    },
    /// All epochs are over, or the run was given up for a reason.
    Ended {
        /// Why it was given up.
        given_up: Option<String>,
    },
}

/// A line with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub us: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Writes a journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    failed: Option<io::Error>,
}

impl Journal {
    /// A new one; there must be none at this path.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::create_new(path)?,
            failed: None,
        })
    }

    /// Writes a line. What fails is told by the next [`sync`](Self::sync).
    pub fn write(&mut self, us: u64, event: Event) {
        let mut line = serde_json::to_vec(&Entry { us, event }).expect("an entry is plain data");
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            self.failed.get_or_insert(error);
        }
    }

    /// Returns when all lines are on disk.
    pub fn sync(&mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.file.sync_data(),
        }
    }
}

/// Writes values as lines of JSON, in batches.
#[derive(Debug)]
pub struct Lines {
    file: BufWriter<File>,
}

impl Lines {
    /// A new file.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::new(File::create_new(path)?),
        })
    }

    /// Adds a line.
    pub fn write(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, value)?;
        self.file.write_all(b"\n")
    }

    /// Returns when all lines are on disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_data()
    }
}

/// Why a file of a run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadLinesError {
    /// The file.
    #[error("read {path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A line.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads lines of JSON, one after the other into `take`, which may refuse one.
pub fn read_lines<T: serde::de::DeserializeOwned>(
    path: &Path,
    mut take: impl FnMut(T) -> Result<(), String>,
) -> Result<(), ReadLinesError> {
    let shown = || path.display().to_string();
    let failed = |source| ReadLinesError::Io {
        path: shown(),
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let (mut text, mut line) = (String::new(), 0);
    loop {
        text.clear();
        if reader.read_line(&mut text).map_err(failed)? == 0 {
            return Ok(());
        }
        line += 1;
        let wrong = |problem| ReadLinesError::Line {
            path: shown(),
            line,
            problem,
        };
        if text.len() > LINE_BYTES_MAX {
            return Err(wrong("the line is too long".into()));
        }
        let value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        take(value).map_err(wrong)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        let events = [
            Event::Epoch {
                epoch: 0,
                faults: vec!["kill".into()],
            },
            Event::Fault {
                fault: 0,
                epoch: 0,
                kind: "kill".into(),
                number: "F01".into(),
                nodes: vec![2],
                step: Progress::Installed,
                detail: "SIGKILL".into(),
            },
            Event::Quiet {
                epoch: 0,
                from_us: 5,
                served_us: None,
                whole_us: Some(9),
                missing: "a leader".into(),
            },
        ];
        for (us, event) in (1..).zip(&events) {
            journal.write(us, event.clone());
        }
        journal.sync().unwrap();
        let mut read = Vec::new();
        read_lines(&path, |entry: Entry| {
            read.push(entry);
            Ok(())
        })
        .unwrap();
        let expected = (1..).zip(events).map(|(us, event)| Entry { us, event });
        assert_eq!(read, expected.collect::<Vec<_>>());
        assert!(Journal::create(&path).is_err(), "a journal is never written over");
    }

    #[test]
    fn a_broken_line_is_told_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        std::fs::write(&path, "1\n2\nx\n").unwrap();
        let error = read_lines(&path, |_: u64| Ok(())).unwrap_err().to_string();
        assert!(error.contains("lines:3"), "{error}");
        let error = read_lines(&path, |number: u64| match number {
            1 => Ok(()),
            _ => Err("not one".into()),
        });
        assert!(error.unwrap_err().to_string().contains("lines:2: not one"));
    }
}
