//! Damage at rest: what rots, vanishes or comes back from a backup while a node is stopped (faults F22, F24).
//!
//! Works on the data directory of a node that does not run, from a seed, on one class of files at a time. It
//! knows the layout as far as it must tell the classes apart and find the journal's final flush, which it
//! spares: that one alone may be cut as torn, so damage to it cannot be told from a crash. It returns what it
//! did, for the journal of a run. What a hub must make of it is judged elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use dunlin_storage::journal::format::{
    BLOCK_BYTES, FlushHeader, Kind as RecordKind, SegmentHeader, align_up, decode_record,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

/// Bytes that one zeroed or copied part has.
const PAGE_BYTES: u64 = 4096;
/// Files that one look at a data directory takes in.
const FILES_MAX: usize = 100_000;

/// Files that are damaged together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The journal as far as it is written, without its final flush.
    Journal,
    /// The records of votes in it, without those of its final flush.
    Votes,
    /// Snapshots that were arriving.
    Snapshots,
    /// Segments of events.
    Segments,
    /// The database of the replicas' state.
    State,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 5] = [
        Class::Journal,
        Class::Votes,
        Class::Snapshots,
        Class::Segments,
        Class::State,
    ];
}

/// What is done to files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// One bit is flipped in each stretch of so many bytes, the last and shorter one included.
    FlipPer {
        /// Length of a stretch.
        bytes: u64,
    },
    /// A page of 4 KiB, or what the file has of one, becomes zeros.
    ZeroPage,
    /// A page is overwritten with another one of the same file.
    CopyChunk,
    /// A file ends early.
    Truncate,
    /// A file is gone.
    Delete,
    /// Files are as they were in an older copy of the directory ([`keep_copy`]); newer ones are gone.
    Restore {
        /// Where the copy is.
        copy: PathBuf,
    },
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// To which class.
    pub class: Class,
    /// To which file.
    pub path: PathBuf,
    /// What: a verb and how much.
    pub what: String,
    /// From which byte on.
    pub at: u64,
}

/// Why nothing, or not everything, was done.
#[derive(Debug, thiserror::Error)]
pub enum CorruptError {
    /// A file cannot be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// Verb and object.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A process has the directory open.
    #[error("{} is in use: stop the node first", .0.display())]
    InUse(PathBuf),
    /// More files than a node has.
    #[error("{} holds more than {FILES_MAX} files", .0.display())]
    TooManyFiles(PathBuf),
}

fn io_at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CorruptError {
    move |source| CorruptError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Part of a file that may be damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    path: PathBuf,
    bytes: Range<u64>,
}

impl Part {
    fn length(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }
}

/// Damages the files of `class` in the data directory `data` of a stopped node. An empty answer says that
/// there is nothing of that class.
pub fn damage(data: &Path, class: Class, how: &Damage, seed: u64) -> Result<Vec<Done>, CorruptError> {
    refuse_if_in_use(data)?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut done = Vec::new();
    let mut note = |path: &Path, at: u64, what: String| {
        done.push(Done {
            class,
            path: path.to_owned(),
            what,
            at,
        });
    };
    match how {
        Damage::FlipPer { bytes } => {
            for (part, at) in one_per(&parts(data, class)?, (*bytes).max(1), &mut random) {
                let bit = random.random_range(0..8);
                change(&part.path, at, 1, |byte| byte[0] ^= 1 << bit)?;
                note(&part.path, at, format!("flip bit {bit}"));
            }
        }
        Damage::ZeroPage | Damage::CopyChunk => {
            if let Some((part, at)) = draw(&parts(data, class)?, &mut random) {
                let page = page_of(part, at);
                let length = (page.end - page.start) as usize;
                let from = match how {
                    Damage::ZeroPage => vec![0; length],
                    _ => read(
                        &part.path,
                        page_of(part, draw_in(part, &mut random)).start,
                        length,
                    )?,
                };
                // What is written over itself is no damage.
                if read(&part.path, page.start, length)? != from {
                    change(&part.path, page.start, length, |bytes| {
                        bytes.copy_from_slice(&from)
                    })?;
                    let verb = match how {
                        Damage::ZeroPage => "zero",
                        _ => "overwrite",
                    };
                    note(&part.path, page.start, format!("{verb} {length} bytes"));
                }
            }
        }
        Damage::Truncate => {
            if let Some(part) = draw_to_cut(data, class, &mut random)? {
                let at = draw_in(&part, &mut random);
                open(&part.path)?
                    .set_len(at)
                    .map_err(io_at("truncate", &part.path))?;
                note(&part.path, at, format!("cut {} bytes", part.bytes.end - at));
            }
        }
        Damage::Delete => {
            if let Some(part) = draw_to_remove(data, class, &mut random)? {
                fs::remove_file(&part.path).map_err(io_at("remove", &part.path))?;
                note(&part.path, 0, format!("delete {} bytes", part.bytes.end));
            }
        }
        Damage::Restore { copy } => {
            let (now, then) = (files(data, class)?, files(copy, class)?);
            for path in now {
                fs::remove_file(&path).map_err(io_at("remove", &path))?;
                note(&path, 0, "take away".to_owned());
            }
            for old in then {
                let path = data.join(old.strip_prefix(copy).unwrap_or(&old));
                copy_file(&old, &path)?;
                note(&path, 0, "restore".to_owned());
            }
        }
    }
    Ok(done)
}

/// Copies the data directory of a stopped node, for [`Damage::Restore`].
pub fn keep_copy(data: &Path, copy: &Path) -> Result<(), CorruptError> {
    refuse_if_in_use(data)?;
    for path in walk(data)? {
        copy_file(&path, &copy.join(path.strip_prefix(data).unwrap_or(&path)))?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<(), CorruptError> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(io_at("make folder", folder))?;
    }
    fs::copy(from, to).map(drop).map_err(io_at("copy", from))
}

/// A node holds a lock on its directory as long as it runs.
fn refuse_if_in_use(data: &Path) -> Result<(), CorruptError> {
    let path = data.join("lock");
    match File::open(&path).map(|lock| lock.try_lock()) {
        Ok(Err(fs::TryLockError::WouldBlock)) => Err(CorruptError::InUse(data.to_owned())),
        Ok(Err(fs::TryLockError::Error(source))) => Err(io_at("lock", &path)(source)),
        Ok(Ok(())) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(io_at("open", &path)(source)),
    }
}

/// All files below `folder`, sorted.
fn walk(folder: &Path) -> Result<Vec<PathBuf>, CorruptError> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(io_at("list", &folder))?,
        };
        for entry in entries {
            let path = entry.map_err(io_at("list", &folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
            if found.len() > FILES_MAX {
                return Err(CorruptError::TooManyFiles(folder));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The files of a class, sorted.
fn files(data: &Path, class: Class) -> Result<Vec<PathBuf>, CorruptError> {
    let (folder, extension) = match class {
        Class::Journal | Class::Votes => ("journal", Some("log")),
        Class::Snapshots => ("spool", None),
        Class::Segments => ("events", Some("seg")),
        Class::State => ("state", None),
    };
    let mut found = walk(&data.join(folder))?;
    found.retain(|path| extension.is_none_or(|wanted| path.extension().is_some_and(|is| is == wanted)));
    Ok(found)
}

/// What of a class may be damaged in place.
fn parts(data: &Path, class: Class) -> Result<Vec<Part>, CorruptError> {
    let files = files(data, class)?;
    match class {
        Class::Journal | Class::Votes => journal_parts(&files, class),
        _ => files
            .into_iter()
            .map(|path| {
                let length = fs::metadata(&path).map_err(io_at("look at", &path))?.len();
                let bytes = 0..length;
                Ok(Part { path, bytes })
            })
            .filter(|part| part.as_ref().map_or(true, |part| part.length() > 0))
            .collect(),
    }
}

/// A flush as the journal's format has it: where it begins, where its records end, and the votes among them.
struct Flush {
    start: u64,
    end: u64,
    votes: Vec<Range<u64>>,
}

fn journal_parts(files: &[PathBuf], class: Class) -> Result<Vec<Part>, CorruptError> {
    let mut segments = Vec::new();
    for path in files {
        let bytes = fs::read(path).map_err(io_at("read", path))?;
        // What has no header any more was damaged before; it is left alone.
        if let Ok(header) = SegmentHeader::decode(&bytes[..bytes.len().min(BLOCK_BYTES as usize)]) {
            segments.push((header.number, path, flushes(&bytes, &header)));
        }
    }
    segments.sort_unstable_by_key(|(number, ..)| *number);
    // The final flush is the last one of the last segment that has one.
    let last = segments.iter().rposition(|(.., flushes)| !flushes.is_empty());
    if let Some((.., flushes)) = last.map(|last| &mut segments[last]) {
        flushes.pop();
    }
    let mut parts = Vec::new();
    for (_, path, flushes) in segments {
        let part = |bytes| Part {
            path: path.clone(),
            bytes,
        };
        match class {
            Class::Votes => parts.extend(flushes.into_iter().flat_map(|flush| flush.votes).map(part)),
            // Without the header, of which a copy is enough, and without the zeros between flushes.
            _ => parts.extend(flushes.into_iter().map(|flush| part(flush.start..flush.end))),
        }
    }
    Ok(parts)
}

/// All flushes that read, also those behind damage that was done before.
fn flushes(bytes: &[u8], header: &SegmentHeader) -> Vec<Flush> {
    let mut found = Vec::new();
    let mut start = BLOCK_BYTES;
    while (start as usize) < bytes.len() {
        match read_flush(bytes, header, start) {
            Some(flush) => {
                start = align_up(flush.end);
                found.push(flush);
            }
            None => start += BLOCK_BYTES,
        }
    }
    found
}

fn read_flush(bytes: &[u8], segment: &SegmentHeader, start: u64) -> Option<Flush> {
    let rest = bytes.get(start as usize..)?;
    let (head, body) = decode_record(rest, segment.seed(), start)?;
    if head.kind != RecordKind::Flush {
        return None;
    }
    let header = FlushHeader::decode(&rest[body.clone()])?;
    let mut flush = Flush {
        start,
        end: start + body.end as u64,
        votes: Vec::new(),
    };
    while flush.end < start + header.flush_bytes {
        let record = bytes.get(flush.end as usize..)?;
        let Some((head, body)) = decode_record(record, segment.seed(), flush.end) else {
            break;
        };
        let end = flush.end + body.end as u64;
        if head.kind == RecordKind::Vote {
            flush.votes.push(flush.end..end);
        }
        flush.end = end;
    }
    Some(flush)
}

/// A place in each stretch of `bytes` bytes over all parts together.
fn one_per<'a>(parts: &'a [Part], bytes: u64, random: &mut StdRng) -> Vec<(&'a Part, u64)> {
    let total: u64 = parts.iter().map(Part::length).sum();
    let mut places = Vec::new();
    let mut stretch = 0;
    while stretch < total {
        let end = (stretch + bytes).min(total);
        places.extend(place_of(parts, random.random_range(stretch..end)));
        stretch = end;
    }
    places
}

fn place_of(parts: &[Part], mut offset: u64) -> Option<(&Part, u64)> {
    for part in parts {
        if offset < part.length() {
            return Some((part, part.bytes.start + offset));
        }
        offset -= part.length();
    }
    None
}

fn draw<'a>(parts: &'a [Part], random: &mut StdRng) -> Option<(&'a Part, u64)> {
    let total: u64 = parts.iter().map(Part::length).sum();
    (total > 0)
        .then(|| random.random_range(0..total))
        .and_then(|offset| place_of(parts, offset))
}

fn draw_in(part: &Part, random: &mut StdRng) -> u64 {
    random.random_range(part.bytes.clone())
}

/// A file that ends early from now on, drawn. Of the journal any: a segment is made at its full length, and its
/// header is left. Of others none that nothing follows, which a crash may leave shorter.
fn draw_to_cut(data: &Path, class: Class, random: &mut StdRng) -> Result<Option<Part>, CorruptError> {
    if !matches!(class, Class::Journal | Class::Votes) {
        return draw_to_remove(data, class, random);
    }
    let segments = whole_files(&files(data, class)?)?.into_iter();
    let cuttable = segments.filter(|part| part.bytes.end > BLOCK_BYTES);
    let cuttable = cuttable.map(|part| Part {
        bytes: BLOCK_BYTES..part.bytes.end,
        ..part
    });
    Ok(draw_one(cuttable.collect(), random))
}

/// A file that is gone from now on, drawn. None that is the last in its folder: names are in order, and that
/// nothing was written behind the others cannot be told from its loss.
fn draw_to_remove(data: &Path, class: Class, random: &mut StdRng) -> Result<Option<Part>, CorruptError> {
    let whole = whole_files(&files(data, class)?)?;
    let followed = whole
        .windows(2)
        .filter(|pair| pair[0].path.parent() == pair[1].path.parent())
        .map(|pair| pair[0].clone());
    Ok(draw_one(followed.collect(), random))
}

/// Files that are not empty, each as a whole.
fn whole_files(paths: &[PathBuf]) -> Result<Vec<Part>, CorruptError> {
    let mut whole = Vec::new();
    for path in paths {
        let length = fs::metadata(path).map_err(io_at("look at", path))?.len();
        if length > 0 {
            whole.push(Part {
                path: path.clone(),
                bytes: 0..length,
            });
        }
    }
    Ok(whole)
}

fn draw_one(mut parts: Vec<Part>, random: &mut StdRng) -> Option<Part> {
    let count = parts.len();
    (count > 0).then(|| parts.swap_remove(random.random_range(0..count)))
}

/// The page that `at` is in, as far as it is in `part`.
fn page_of(part: &Part, at: u64) -> Range<u64> {
    let start = (at / PAGE_BYTES * PAGE_BYTES).max(part.bytes.start);
    start..((at / PAGE_BYTES + 1) * PAGE_BYTES).min(part.bytes.end)
}

fn open(path: &Path) -> Result<File, CorruptError> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(io_at("open", path))
}

fn read(path: &Path, at: u64, length: usize) -> Result<Vec<u8>, CorruptError> {
    let mut bytes = vec![0; length];
    // What lies beyond the end reads as zeros.
    let mut filled = 0;
    let file = open(path)?;
    while filled < length {
        match file
            .read_at(&mut bytes[filled..], at + filled as u64)
            .map_err(io_at("read", path))?
        {
            0 => break,
            count => filled += count,
        }
    }
    Ok(bytes)
}

fn change(path: &Path, at: u64, length: usize, change: impl FnOnce(&mut [u8])) -> Result<(), CorruptError> {
    let mut bytes = read(path, at, length)?;
    change(&mut bytes);
    let file = open(path)?;
    file.write_all_at(&bytes, at).map_err(io_at("write", path))?;
    file.sync_data().map_err(io_at("sync", path))
}

#[cfg(test)]
mod tests;
