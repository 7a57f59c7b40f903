//! The audit's file: lines that are only appended, each with the SHA-256 of the line before, in a few
//! files of bounded size.
//!
//! A line that a crash cut short was never confirmed and is cut off; anything else that is wrong stays as it
//! is, and [`verify`] finds it. That records were taken from the end shows only to who knows of a later one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dunlin_model::audit::{AuditOutcome, AuditRecord};
use dunlin_model::iso_time::iso_utc;
use serde::{Deserialize, Serialize};

/// Bytes of one file; the next line begins another.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Files that are kept, the present one among them. The oldest is removed for a new one.
const FILES_MAX: u32 = 8;
/// Bytes at the end of a file that are searched for its last line.
const TAIL_BYTES_MAX: u64 = 64 * 1024;
/// Hash before the first line.
const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A line of the file. Fields are added at its end only, with a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    seq: u64,
    time: String,
    node: String,
    action: String,
    who: String,
    from: String,
    what: String,
    outcome: String,
    detail: String,
    prev: String,
}

/// A record as a line. Its place in the chain is filled in when it is appended.
pub(super) fn line_of(record: &AuditRecord, node: &str, time_ms: u64) -> Line {
    let outcome = match &record.outcome {
        AuditOutcome::Done => "done".to_owned(),
        AuditOutcome::Refused(why) => format!("refused: {why}"),
        AuditOutcome::Unknown => "unknown".to_owned(),
        AuditOutcome::Failed(why) => format!("failed: {why}"),
    };
    Line {
        seq: 0,
        time: iso_utc(time_ms),
        node: node.to_owned(),
        action: record.action.to_owned(),
        who: record.who.clone(),
        from: record.from.clone(),
        what: record.what.clone(),
        outcome,
        detail: record.detail.clone(),
        prev: String::new(),
    }
}

/// The end of the chain.
pub(super) struct Chain {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    seq: u64,
    prev: String,
}

impl Chain {
    /// Opens the file at `path`, or begins a chain there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = open_file(path)?;
        let bytes = file.metadata()?.len();
        let tail_at = bytes.saturating_sub(TAIL_BYTES_MAX);
        file.seek(SeekFrom::Start(tail_at))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        let whole = tail
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let bytes = tail_at + whole as u64;
        file.set_len(bytes)?;
        let last = tail[..whole]
            .split(|byte| *byte == b'\n')
            .rfind(|line| !line.is_empty())
            .map(<[u8]>::to_vec);
        let mut chain = Self {
            path: path.to_owned(),
            file,
            bytes,
            bytes_max: FILE_BYTES_MAX,
            seq: 0,
            prev: NOTHING_BEFORE.to_owned(),
        };
        let last = match last {
            Some(last) => Some(last),
            // The crash was between moving the file away and the first line of the next.
            None => fs::read(older(path, 1)).ok().and_then(|text| {
                text.split(|b| *b == b'\n')
                    .rfind(|l| !l.is_empty())
                    .map(<[u8]>::to_vec)
            }),
        };
        if let Some(last) = last {
            chain.prev = hash(&last);
            chain.seq = serde_json::from_slice::<Line>(&last).map_or(0, |line| line.seq);
        }
        Ok(chain)
    }

    /// Appends the lines in order and syncs them, all or none: what was half written is cut off again.
    pub(super) fn append(&mut self, lines: Vec<Line>) -> io::Result<()> {
        if self.bytes >= self.bytes_max {
            self.begin_file()?;
        }
        let (mut seq, mut prev) = (self.seq, self.prev.clone());
        let mut text = Vec::new();
        for line in lines {
            let next = seq.checked_add(1);
            seq = next.ok_or_else(|| io::Error::other("the last record has the last number there is"))?;
            let line = Line { seq, prev, ..line };
            let bytes = serde_json::to_vec(&line).map_err(io::Error::other)?;
            prev = hash(&bytes);
            text.extend_from_slice(&bytes);
            text.push(b'\n');
        }
        if let Err(error) = self.write(&text) {
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += text.len() as u64;
        (self.seq, self.prev) = (seq, prev);
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.bytes))?;
        self.file.write_all(text)?;
        self.file.sync_data()
    }

    fn begin_file(&mut self) -> io::Result<()> {
        for place in (1..FILES_MAX - 1).rev() {
            match fs::rename(older(&self.path, place), older(&self.path, place + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, older(&self.path, 1))?;
        self.file = open_file(&self.path)?;
        self.bytes = 0;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn older(path: &Path, place: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{place}"));
    name.into()
}

fn hash(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a chain does not hold: the file, the line in it, and what is wrong there.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A file cannot be read.
    #[error("read {0}: {1}")]
    File(PathBuf, io::Error),
    /// A line is none of ours.
    #[error("{0}:{1}: not an audit record")]
    Line(PathBuf, usize),
    /// A line has no end. A crash leaves such a one as well, of records that were never confirmed.
    #[error("{0}:{1}: cut short")]
    Cut(PathBuf, usize),
    /// A line has another number than the one before it lets expect: something was taken out, put in or moved.
    #[error("{0}:{1}: record {3} stands after record {2}: records are missing, or out of place")]
    Gap(PathBuf, usize, u64, u64),
    /// A line does not have the hash of the one before it: one of the two was changed.
    #[error("{0}:{1}: record {2} does not have the hash of the record before it: one of the two was changed")]
    Link(PathBuf, usize, u64),
}

impl Broken {
    /// The file.
    pub fn file(&self) -> &Path {
        match self {
            Broken::File(path, _)
            | Broken::Line(path, _)
            | Broken::Cut(path, _)
            | Broken::Gap(path, ..)
            | Broken::Link(path, ..) => path,
        }
    }

    /// The line in it, from 1, if the file could be read.
    pub fn line(&self) -> Option<usize> {
        match self {
            Broken::File(..) => None,
            Broken::Line(_, line)
            | Broken::Cut(_, line)
            | Broken::Gap(_, line, ..)
            | Broken::Link(_, line, _) => Some(*line),
        }
    }
}

/// A record of a chain, as far as people compare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its number in the chain, from 1.
    pub seq: u64,
    /// When it was written.
    pub time: String,
    /// SHA-256 of its line, which the next one has as `prev`.
    pub sha256: String,
}

/// What a chain is made of that holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extent {
    /// How many records there are.
    pub records: u64,
    /// The first that is kept. What was before it is not known.
    pub first: Option<Mark>,
    /// The last.
    pub last: Option<Mark>,
}

/// The files of the audit at `path`, oldest first: the older ones that are there, and `path` itself, which is not there
/// where a node died between two files.
pub fn files_of(path: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = (1..FILES_MAX)
        .rev()
        .map(|place| older(path, place))
        .filter(|older| older.exists())
        .collect();
    if paths.is_empty() || path.exists() {
        paths.push(path.to_owned());
    }
    paths
}

/// These files of one audit, oldest first: by the number of the first record of each. A file without any
/// is the last.
pub fn in_order(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Broken> {
    let mut numbered = Vec::new();
    for path in paths {
        numbered.push((first_seq(path)?, path));
    }
    numbered.sort_by_key(|(seq, _)| *seq);
    Ok(numbered.into_iter().map(|(_, path)| path.clone()).collect())
}

fn first_seq(path: &Path) -> Result<u64, Broken> {
    let unread = |error| Broken::File(path.to_owned(), error);
    let mut file = BufReader::new(File::open(path).map_err(unread)?);
    let mut text = Vec::new();
    file.read_until(b'\n', &mut text).map_err(unread)?;
    if text.is_empty() {
        return Ok(u64::MAX);
    }
    match serde_json::from_slice::<Line>(&text) {
        Ok(line) => Ok(line.seq),
        Err(_) => Err(Broken::Line(path.to_owned(), 1)),
    }
}

/// Checks every line of the audit at `path` and of the older files beside it; says how many there are.
pub fn verify(path: &Path) -> Result<u64, Broken> {
    verify_files(&files_of(path)).map(|found| found.records)
}

/// Checks every line of these files of one audit, oldest first. Of the first line nothing before it is known.
pub fn verify_files(paths: &[PathBuf]) -> Result<Extent, Broken> {
    let mut found = Extent::default();
    for path in paths {
        let unread = |error| Broken::File(path.clone(), error);
        let mut file = BufReader::new(File::open(path).map_err(unread)?);
        for number in 1.. {
            let mut text = Vec::new();
            file.read_until(b'\n', &mut text).map_err(unread)?;
            if text.is_empty() {
                break;
            }
            if text.pop() != Some(b'\n') {
                return Err(Broken::Cut(path.clone(), number));
            }
            let line: Line = serde_json::from_slice(&text).map_err(|_| Broken::Line(path.clone(), number))?;
            match &found.last {
                Some(last) if last.seq.checked_add(1) != Some(line.seq) => {
                    return Err(Broken::Gap(path.clone(), number, last.seq, line.seq));
                }
                Some(last) if last.sha256 != line.prev => {
                    return Err(Broken::Link(path.clone(), number, line.seq));
                }
                None if line.seq <= 1 && line.prev != NOTHING_BEFORE => {
                    return Err(Broken::Link(path.clone(), number, line.seq));
                }
                _ => {}
            }
            found.add(line, &text);
        }
    }
    Ok(found)
}

impl Extent {
    /// Takes the next record in; `text` is its line without the end.
    fn add(&mut self, line: Line, text: &[u8]) {
        let mark = Mark {
            seq: line.seq,
            time: line.time,
            sha256: hash(text),
        };
        if self.first.is_none() {
            self.first = Some(mark.clone());
        }
        self.last = Some(mark);
        self.records += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(what: &str) -> Line {
        line_of(
            &AuditRecord::done("device.create", "admin", what),
            "0000000000000001",
            0,
        )
    }

    #[test]
    fn a_chain_goes_on_after_a_restart_and_a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut chain = Chain::open(&path).unwrap();
        chain.append(vec![line("a"), line("b")]).unwrap();
        drop(chain);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"seq\":3,\"time"].concat()).unwrap();
        let mut chain = Chain::open(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        chain.append(vec![line("c")]).unwrap();
        assert_eq!(verify(&path).unwrap(), 3);
    }

    #[test]
    fn any_flipped_byte_and_any_missing_line_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        Chain::open(&path)
            .unwrap()
            .append(vec![line("a"), line("b"), line("c")])
            .unwrap();
        let whole = fs::read(&path).unwrap();
        let last_begins = whole[..whole.len() - 1]
            .iter()
            .rposition(|b| *b == b'\n')
            .unwrap();
        // What was done to the last line shows when the next one is there, or to whoever kept its hash.
        for at in 0..last_begins {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert!(verify(&path).is_err(), "byte {at}");
        }
        let lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
        fs::write(&path, [lines[0], lines[2]].concat()).unwrap();
        assert!(matches!(verify(&path), Err(Broken::Gap(_, 2, 1, 3))));
        fs::write(&path, whole).unwrap();
        assert_eq!(verify(&path).unwrap(), 3);
    }

    #[test]
    fn a_break_is_told_with_its_file_its_line_and_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut chain = Chain::open(&path).unwrap();
        for what in ["a", "b", "c"] {
            chain.append(vec![line(what)]).unwrap();
        }
        chain.begin_file().unwrap();
        chain.append(vec![line("d"), line("e")]).unwrap();
        let files = [older(&path, 1), path.clone()];
        assert_eq!(files_of(&path), files);
        let found = verify_files(&files).unwrap();
        let number = |mark: Option<Mark>| mark.unwrap().seq;
        assert_eq!(
            (found.records, number(found.first), number(found.last)),
            (5, 1, 5)
        );

        let whole = fs::read_to_string(&files[0]).unwrap();
        let changed = whole.replacen("\"what\":\"b\"", "\"what\":\"x\"", 1);
        assert_ne!(changed, whole);
        fs::write(&files[0], changed).unwrap();
        let broken = verify_files(&files).unwrap_err();
        assert!(matches!(broken, Broken::Link(_, 3, 3)), "{broken}");
        assert_eq!((broken.file(), broken.line()), (files[0].as_path(), Some(3)));

        // The end of the older file is gone: the newer one shows it.
        let end = whole.trim_end().rfind('\n').unwrap() + 1;
        fs::write(&files[0], &whole[..end]).unwrap();
        let broken = verify_files(&files).unwrap_err();
        assert!(matches!(broken, Broken::Gap(_, 1, 2, 4)), "{broken}");
        assert_eq!((broken.file(), broken.line()), (path.as_path(), Some(1)));

        fs::write(&files[0], &whole[..whole.len() - 5]).unwrap();
        let broken = verify_files(&files).unwrap_err();
        assert!(matches!(broken, Broken::Cut(_, 3)), "{broken}");
        assert!(
            broken.to_string().ends_with("audit.log.1:3: cut short"),
            "{broken}"
        );

        fs::remove_file(&files[0]).unwrap();
        assert_eq!(
            verify(&path).unwrap(),
            2,
            "what was before the first is not known"
        );
        fs::remove_file(&path).unwrap();
        let broken = verify(&path).unwrap_err();
        assert!(matches!(broken, Broken::File(..)) && broken.line().is_none());
    }

    #[test]
    fn files_are_put_in_order_by_their_first_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut chain = Chain::open(&path).unwrap();
        for what in ["a", "b", "c"] {
            chain.append(vec![line(what)]).unwrap();
            chain.begin_file().unwrap();
        }
        let newest_first: Vec<PathBuf> = files_of(&path).into_iter().rev().collect();
        assert_eq!(newest_first.len(), 4);
        assert!(verify_files(&newest_first).is_err());
        let ordered = in_order(&newest_first).unwrap();
        assert_eq!(ordered, files_of(&path));
        assert_eq!(verify_files(&ordered).unwrap().records, 3);
        fs::write(&path, "no record\n").unwrap();
        assert!(matches!(in_order(&newest_first), Err(Broken::Line(_, 1))));
    }

    #[test]
    fn full_files_are_moved_away_and_the_chain_goes_through_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut chain = Chain::open(&path).unwrap();
        chain.bytes_max = 1_000;
        for _ in 0..100 {
            chain.append(vec![line("d")]).unwrap();
        }
        let files = fs::read_dir(folder.path()).unwrap().count() as u32;
        assert_eq!(files, FILES_MAX);
        let kept = verify(&path).unwrap();
        assert!((20..100).contains(&kept), "{kept}");
        // A restart in the moment between two files.
        drop(chain);
        fs::rename(&path, older(&path, 1)).unwrap();
        let mut chain = Chain::open(&path).unwrap();
        chain.append(vec![line("after")]).unwrap();
        assert_eq!(chain.seq, 101);
    }
}
