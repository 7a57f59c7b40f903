//! `dunlin audit`: whether the chain of a node's audit holds, and what it says.
//!
//! Reads files and asks no hub, so it works for a node that is down and for a copy elsewhere. What a chain is, and
//! when it is broken, `dunlin_node::audit` says.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};
use dunlin_node::audit::{AUDIT_FILE, Broken, Extent, Mark, files_of, in_order, verify_files};
use serde_json::{Value, json};

use super::hub::DATA_DEFAULT;
use super::table::Table;
use super::{CommandError, CommandResult, Format, say, shown};

/// Looks at a chain before its break is told: its node may be writing a record just then, or beginning a file.
const LOOKS_MAX: u32 = 3;
const LOOK_PAUSE: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    action: Action,
    /// Data directory of a node, or of `dunlin up` [default: dunlin-data]
    #[arg(long, alias = "data-dir", value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "text", global = true)]
    output: Format,
}

#[derive(Subcommand)]
enum Action {
    /// Check that no record was changed or taken out; exit code 1 if one was
    Verify {
        /// Files of one node's audit, in any order, in place of a data directory
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List records, the newest last
    Show {
        /// Files of one node's audit, in any order, in place of a data directory
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The last so many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
}

/// Where the files of one audit are.
enum Source {
    /// At this path, and older ones beside it.
    Folder(PathBuf),
    /// These.
    Files(Vec<PathBuf>),
}

impl Source {
    /// The files that there are now, oldest first.
    fn files(&self) -> Result<Vec<PathBuf>, Broken> {
        match self {
            Source::Folder(path) => Ok(files_of(path)),
            Source::Files(paths) => in_order(paths),
        }
    }

    fn name(&self) -> String {
        match self {
            Source::Folder(path) => path.display().to_string(),
            Source::Files(paths) => {
                let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                names.join(", ")
            }
        }
    }
}

impl Audit {
    pub(crate) fn run(self) -> CommandResult {
        match self.action {
            Action::Verify { files } => verify(&sources(files, self.data)?, self.output),
            Action::Show { files, limit } => show(&sources(files, self.data)?, limit, self.output),
        }
    }
}

fn sources(files: Vec<PathBuf>, data: Option<PathBuf>) -> Result<Vec<Source>, CommandError> {
    match (files.is_empty(), data) {
        (true, data) => audits_in(&data.unwrap_or_else(|| DATA_DEFAULT.into())),
        (false, None) => Ok(vec![Source::Files(files)]),
        (false, Some(_)) => Err(CommandError::Usage(
            "name files or a data directory, not both".into(),
        )),
    }
}

/// The audits in a data directory: its own, or those of the nodes in folders of it, as `dunlin up` has them.
fn audits_in(folder: &Path) -> Result<Vec<Source>, CommandError> {
    let is_there = |audit: &PathBuf| files_of(audit).iter().any(|file| file.exists());
    let own = folder.join(AUDIT_FILE);
    if is_there(&own) {
        return Ok(vec![Source::Folder(own)]);
    }
    let unread = |error: io::Error| CommandError::Failed(format!("read {}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        found.push(entry.map_err(unread)?.path().join(AUDIT_FILE));
    }
    found.retain(is_there);
    found.sort();
    if found.is_empty() {
        return Err(CommandError::Failed(format!(
            "no audit in {}: say with --data where a node keeps its data",
            folder.display()
        )));
    }
    Ok(found.into_iter().map(Source::Folder).collect())
}

/// Looks again before it says that a chain is broken.
fn look(source: &Source) -> Result<Extent, Broken> {
    let mut looks = 1;
    loop {
        match source.files().and_then(|files| verify_files(&files)) {
            Err(_) if looks < LOOKS_MAX => {
                looks += 1;
                thread::sleep(LOOK_PAUSE);
            }
            found => return found,
        }
    }
}

fn verify(sources: &[Source], output: Format) -> CommandResult {
    let mut holds = true;
    let mut lines = Vec::new();
    for source in sources {
        let found = look(source);
        holds &= found.is_ok();
        match output {
            Format::Json => lines.push(json_of(&source.name(), &found)),
            Format::Text => say(text_of(&source.name(), &found))?,
        }
    }
    if output == Format::Json {
        say(json!({ "holds": holds, "audits": lines }))?;
    }
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn text_of(name: &str, found: &Result<Extent, Broken>) -> String {
    let found = match found {
        Ok(found) => found,
        Err(broken) => return format!("{name}: the chain is broken\n  {broken}"),
    };
    let mut text = format!("{name}: the chain holds\n  records  {}", found.records);
    if let Some(first) = &found.first {
        text.push_str(&format!("\n  first    {} of {}", first.seq, shown(&first.time)));
    }
    if let Some(last) = &found.last {
        text.push_str(&format!(
            "\n  last     {} of {}\n  SHA-256  {}",
            last.seq,
            shown(&last.time),
            last.sha256
        ));
    }
    text
}

fn json_of(name: &str, found: &Result<Extent, Broken>) -> Value {
    let mark = |mark: &Mark| json!({ "seq": mark.seq, "time": mark.time, "sha256": mark.sha256 });
    match found {
        Ok(found) => json!({
            "audit": name,
            "holds": true,
            "records": found.records,
            "first": found.first.as_ref().map(mark),
            "last": found.last.as_ref().map(mark),
        }),
        Err(broken) => json!({
            "audit": name,
            "holds": false,
            "file": broken.file().display().to_string(),
            "line": broken.line(),
            "problem": broken.to_string(),
        }),
    }
}

fn show(sources: &[Source], limit: u64, output: Format) -> CommandResult {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut records, mut unread) = (Vec::new(), 0);
    for source in sources {
        for line in last_lines(source, limit)? {
            match serde_json::from_slice::<Value>(&line) {
                Ok(record) if record.is_object() => records.push(record),
                _ => unread += 1,
            }
        }
    }
    // One node's records stay in the order of their chain, whatever its clock did.
    if sources.len() > 1 {
        records.sort_by(|a, b| a["time"].as_str().cmp(&b["time"].as_str()));
    }
    let records = records.split_off(records.len().saturating_sub(limit));
    match output {
        Format::Json => say(Value::Array(records))?,
        Format::Text if records.is_empty() => say("No records.")?,
        Format::Text => say(table(&records))?,
    }
    if unread > 0 {
        eprintln!("lines that are no records: {unread}; `dunlin audit verify` says where");
    }
    Ok(ExitCode::SUCCESS)
}

/// The last lines of an audit, without their ends.
fn last_lines(source: &Source, limit: usize) -> Result<VecDeque<Vec<u8>>, CommandError> {
    let files = source.files();
    let files = files.map_err(|broken| CommandError::Failed(broken.to_string()))?;
    let mut lines = VecDeque::new();
    for path in &files {
        let unread = |error| CommandError::Failed(Broken::File(path.clone(), error).to_string());
        for line in BufReader::new(File::open(path).map_err(unread)?).split(b'\n') {
            lines.push_back(line.map_err(unread)?);
            if lines.len() > limit {
                lines.pop_front();
            }
        }
    }
    Ok(lines)
}

fn table(records: &[Value]) -> Table<8> {
    let mut table = Table::new([
        "TIME", "NODE", "RECORD", "ACTION", "WHO", "FROM", "WHAT", "OUTCOME",
    ]);
    for record in records {
        let text = |name: &str| shown(record[name].as_str().unwrap_or_default());
        let outcome = match text("detail") {
            detail if detail.is_empty() => text("outcome"),
            detail => format!("{} ({detail})", text("outcome")),
        };
        table.push([
            text("time"),
            text("node"),
            record["seq"].to_string(),
            text("action"),
            text("who"),
            text("from"),
            text("what"),
            outcome,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Result<Vec<String>, CommandError> {
        Ok(audits_in(folder)?.iter().map(Source::name).collect())
    }

    #[test]
    fn the_audit_of_a_node_and_those_of_a_cluster_on_one_machine_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let error = names(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("no audit in "), "{error}");
        for node in ["node-2", "node-1", "pki"] {
            fs::create_dir(path(node)).unwrap();
        }
        fs::write(path("node-1/audit.log"), "").unwrap();
        // A crash between two files leaves the older ones alone.
        fs::write(path("node-2/audit.log.1"), "").unwrap();
        let audits = ["node-1/audit.log", "node-2/audit.log"].map(|name| path(name).display().to_string());
        assert_eq!(names(folder.path()).unwrap(), audits);
        assert_eq!(names(&path("node-1")).unwrap(), audits[..1]);
        assert!(names(&path("nowhere")).is_err());
    }

    #[test]
    fn records_are_a_table_that_does_nothing_to_a_terminal() {
        let records = [
            json!({ "seq": 7, "time": "t", "node": "n", "action": "device.update", "who": "admin", "from": "",
                    "what": "pump\u{1b}", "outcome": "done", "detail": "disabled" }),
            json!({ "seq": 8, "time": "u", "node": "n", "action": "mqtt.connect", "who": "x", "from": "a:1",
                    "what": "session", "outcome": "refused: no", "detail": "" }),
        ];
        let expected = "TIME  NODE  RECORD  ACTION         WHO    FROM  WHAT        OUTCOME\n\
                        t     n     7       device.update  admin        pump\\u{1b}  done (disabled)\n\
                        u     n     8       mqtt.connect   x      a:1   session     refused: no";
        assert_eq!(table(&records).to_string(), expected);
    }
}
