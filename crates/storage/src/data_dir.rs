//! The directory of one node: who owns it, which node it is, which cluster it belongs to.
//!
//! Decides that one process at a time uses a directory, that a newer program's directory is left
//! alone, and that a directory never changes node or cluster. Keeps small files for others as they
//! are, each replaced as a whole. It never looks into the folders beneath: the journal, the events
//! and the state each know their own. Start at [`DataDir::open`].

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunlin_model::id::NodeId;
use serde::{Deserialize, Serialize};

/// The layout that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

const LOCK_FILE: &str = "lock";
const FORMAT_FILE: &str = "format";
const NODE_FILE: &str = "node.json";
const TEMP_SUFFIX: &str = ".tmp";
const JOURNAL_FOLDER: &str = "journal";
const EVENTS_FOLDER: &str = "events";
const STATE_FOLDER: &str = "state";
/// The kernel makes it in the root of a fresh file system, which is a fine place for a data directory.
const LOST_AND_FOUND: &str = "lost+found";

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The file system refused.
    #[error("{action} {}: {reason}", path.display())]
    Io {
        /// Verb and object: "write file".
        action: &'static str,
        /// Which one.
        path: PathBuf,
        /// What it said.
        reason: io::Error,
    },
    /// Another process has it open.
    #[error("data directory {} is in use by {}", path.display(), owner(*pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its owner, as written in the lock file.
        pid: Option<u32>,
    },
    /// A newer program wrote it.
    #[error("data directory {} has format {found}, this program knows {FORMAT_VERSION} at most", path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// What its format file says.
        found: u32,
    },
    /// It has no format file but is not empty: somebody else's files, or a part of a directory.
    #[error("{} is no data directory: it has no file {FORMAT_FILE:?} but holds {found:?}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// One of its own files says nothing sensible.
    #[error("{} is corrupt: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It belongs to another cluster.
    #[error("data directory {} belongs to cluster {bound:?}, not to {asked:?}", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster that it belongs to.
        bound: String,
        /// The cluster that was asked for.
        asked: String,
    },
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

/// An open data directory, locked for this process until dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    node: NodeId,
    cluster: Mutex<Option<String>>,
    /// Held while a file is replaced: two writers of one name would share a temporary file.
    writing: Mutex<()>,
    /// Its lock goes when it is closed. The file stays: to remove it would let two owners in.
    _lock: File,
}

/// What `node.json` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeFile {
    /// Sixteen hexadecimal digits, because many readers of JSON round large numbers.
    node: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
}

impl DataDir {
    /// Opens the directory, or makes it with a node id of its own, and locks it.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        Self::open_as(path, || NodeId(rand::random()))
    }

    /// As [`open`](Self::open); the node of an empty directory is what `draw` says, which must never say the
    /// same twice within one cluster.
    pub fn open_as(path: &Path, draw: impl FnOnce() -> NodeId) -> Result<DataDir, DataDirError> {
        make_folder(path)?;
        let lock = take_lock(path)?;
        let file = match read_format(path)? {
            Some(FORMAT_VERSION) => {
                let file = read_node(path)?;
                file.ok_or_else(|| corrupt(path.join(NODE_FILE), "it is missing"))?
            }
            Some(found) if found > FORMAT_VERSION => {
                return Err(DataDirError::Newer {
                    path: path.into(),
                    found,
                });
            }
            Some(found) => {
                return Err(corrupt(
                    path.join(FORMAT_FILE),
                    format!("there is no format {found}"),
                ));
            }
            None => make_fresh(path, draw())?,
        };
        let node = NodeId::parse(&file.node)
            .ok_or_else(|| corrupt(path.join(NODE_FILE), format!("{:?} is no node id", file.node)))?;
        for folder in [JOURNAL_FOLDER, EVENTS_FOLDER, STATE_FOLDER] {
            make_folder(&path.join(folder))?;
        }
        remove_temporary(path)?;
        Ok(DataDir {
            path: path.into(),
            node,
            cluster: Mutex::new(file.cluster),
            writing: Mutex::new(()),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node that lives here; drawn when the directory was made.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// The cluster that the node belongs to, if it has joined one.
    pub fn cluster_id(&self) -> Option<String> {
        lock(&self.cluster).clone()
    }

    /// Says, once and for ever and durably, to which cluster this node belongs. Again with the same
    /// id does nothing; another id is refused.
    pub fn bind_cluster(&self, id: &str) -> Result<(), DataDirError> {
        let mut cluster = lock(&self.cluster);
        match cluster.as_deref() {
            Some(bound) if bound == id => return Ok(()),
            Some(bound) => {
                let (bound, asked) = (bound.to_owned(), id.to_owned());
                return Err(DataDirError::OtherCluster {
                    path: self.path.clone(),
                    bound,
                    asked,
                });
            }
            None => {}
        }
        let _one_at_a_time = lock(&self.writing);
        write_node(&self.path, self.node, Some(id))?;
        *cluster = Some(id.to_owned());
        Ok(())
    }

    /// The bytes of the file `name` in this directory, or `None` if there is none.
    ///
    /// # Panics
    /// If `name` is not a plain file name.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DataDirError> {
        assert!(is_plain(name), "{name:?} is not a plain file name");
        read_file(&self.path.join(name))
    }

    /// Replaces the content of the file `name`, durably: a crash leaves the old or the new.
    ///
    /// # Panics
    /// If `name` is not a plain file name, or one of this directory's own files.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        assert!(is_plain(name), "{name:?} is not a plain file name");
        assert!(
            ![LOCK_FILE, FORMAT_FILE, NODE_FILE].contains(&name),
            "{name:?} belongs to the data directory"
        );
        let _one_at_a_time = lock(&self.writing);
        write_file(&self.path, name, bytes)
    }

    /// The folder of the journal. It exists.
    pub fn journal_path(&self) -> PathBuf {
        self.path.join(JOURNAL_FOLDER)
    }

    /// The folder of the event segments. It exists.
    pub fn events_path(&self) -> PathBuf {
        self.path.join(EVENTS_FOLDER)
    }

    /// The folder of the state database. It exists.
    pub fn state_path(&self) -> PathBuf {
        self.path.join(STATE_FOLDER)
    }

    /// The folder `name` in this directory, made if it was not there.
    ///
    /// # Panics
    /// If `name` is not a plain file name.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf, DataDirError> {
        assert!(is_plain(name), "{name:?} is not a plain file name");
        let path = self.path.join(name);
        make_folder(&path)?;
        Ok(path)
    }
}

/// Whether `name` stays inside the directory and cannot be taken for a temporary file.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && Path::new(name).file_name() == Some(OsStr::new(name))
        && !name.contains('\0')
        && !name.ends_with(TEMP_SUFFIX)
}

fn make_folder(path: &Path) -> Result<(), DataDirError> {
    if path.is_dir() {
        return Ok(());
    }
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
    made.map_err(|reason| io_error("make folder", path, reason))?;
    for folder in missing {
        // A relative path of one name has the empty path as its parent.
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

fn take_lock(folder: &Path) -> Result<File, DataDirError> {
    let path = folder.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    // Not truncated: until the lock is ours, the content is another's.
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE);
    let mut file = options
        .open(&path)
        .map_err(|reason| io_error("open lock file", &path, reason))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Only for the message; an owner that has just begun may not have written it yet.
            let pid = file
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| text.trim().parse().ok());
            return Err(DataDirError::InUse {
                path: folder.into(),
                pid,
            });
        }
        Err(TryLockError::Error(reason)) => return Err(io_error("lock data directory", folder, reason)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|reason| io_error("write lock file", &path, reason))?;
    Ok(file)
}

fn read_format(folder: &Path) -> Result<Option<u32>, DataDirError> {
    let path = folder.join(FORMAT_FILE);
    let Some(bytes) = read_file(&path)? else {
        return Ok(None);
    };
    parse_format(&bytes)
        .map(Some)
        .ok_or_else(|| corrupt(path, "it holds no number"))
}

/// The number in a format file.
pub(crate) fn parse_format(bytes: &[u8]) -> Option<u32> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

fn read_node(folder: &Path) -> Result<Option<NodeFile>, DataDirError> {
    let path = folder.join(NODE_FILE);
    let Some(bytes) = read_file(&path)? else {
        return Ok(None);
    };
    parse_node(&bytes)
        .map(Some)
        .map_err(|error| corrupt(path, error.to_string()))
}

/// What a node file says.
pub(crate) fn parse_node(bytes: &[u8]) -> Result<NodeFile, serde_json::Error> {
    serde_json::from_slice(bytes)
}

fn write_node(folder: &Path, node: NodeId, cluster: Option<&str>) -> Result<(), DataDirError> {
    let file = NodeFile {
        node: node.to_string(),
        cluster: cluster.map(str::to_owned),
    };
    let mut bytes = serde_json::to_vec_pretty(&file).map_err(|error| {
        let reason = io::Error::other(error);
        io_error("write file", &folder.join(NODE_FILE), reason)
    })?;
    bytes.push(b'\n');
    write_file(folder, NODE_FILE, &bytes)
}

/// Makes an empty directory a data directory.
fn make_fresh(path: &Path, node: NodeId) -> Result<NodeFile, DataDirError> {
    let allowed = [LOCK_FILE, NODE_FILE, LOST_AND_FOUND];
    if let Some(found) = names(path)?
        .into_iter()
        .find(|name| !allowed.contains(&name.as_str()) && !name.ends_with(TEMP_SUFFIX))
    {
        return Err(DataDirError::Foreign {
            path: path.into(),
            found,
        });
    }
    // The format file comes last: where it is, the node id is too, so a node id that is missing then
    // was lost and is never drawn anew. Without the format file nothing has used the id yet.
    write_node(path, node, None)?;
    write_file(path, FORMAT_FILE, format!("{FORMAT_VERSION}\n").as_bytes())?;
    read_node(path)?.ok_or_else(|| corrupt(path.join(NODE_FILE), "it is missing"))
}

fn names(folder: &Path) -> Result<Vec<String>, DataDirError> {
    let failed = |reason| io_error("list folder", folder, reason);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes what a crash left of files that were being replaced.
fn remove_temporary(folder: &Path) -> Result<(), DataDirError> {
    for name in names(folder)?
        .into_iter()
        .filter(|name| name.ends_with(TEMP_SUFFIX))
    {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(|reason| io_error("remove temporary file", &path, reason))?;
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, DataDirError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(io_error("read file", path, reason)),
    }
}

fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
    let (path, temporary) = (folder.join(name), folder.join(format!("{name}{TEMP_SUFFIX}")));
    let replace = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    replace().map_err(|reason| io_error("write file", &path, reason))?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<(), DataDirError> {
    let synced = File::open(folder).and_then(|file| file.sync_all());
    synced.map_err(|reason| io_error("sync folder", folder, reason))
}

fn io_error(action: &'static str, path: &Path, reason: io::Error) -> DataDirError {
    DataDirError::Io {
        action,
        path: path.into(),
        reason,
    }
}

fn corrupt(path: PathBuf, reason: impl Into<String>) -> DataDirError {
    DataDirError::Corrupt {
        path,
        reason: reason.into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_keeps_its_node_and_its_cluster() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/data");
        let data = DataDir::open(&path).unwrap();
        let node = data.node_id();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&data.journal_path()), 0o700);
        assert_eq!(mode(&path.join(NODE_FILE)), 0o600);
        assert_eq!(data.cluster_id(), None);
        data.bind_cluster("blue").unwrap();
        data.bind_cluster("blue").unwrap();
        drop(data);

        let data = DataDir::open(&path).unwrap();
        assert_eq!(data.node_id(), node);
        assert_eq!(data.cluster_id().as_deref(), Some("blue"));
        let error = data.bind_cluster("green").unwrap_err();
        assert!(matches!(error, DataDirError::OtherCluster { .. }), "{error}");
        assert!(
            error.to_string().contains("\"blue\"") && error.to_string().contains("\"green\""),
            "{error}"
        );
        assert_eq!(data.cluster_id().as_deref(), Some("blue"));
    }

    #[test]
    fn two_directories_are_two_nodes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, two) = (
            DataDir::open(one.path()).unwrap(),
            DataDir::open(two.path()).unwrap(),
        );
        assert_ne!(one.node_id(), two.node_id());
    }

    #[test]
    fn a_second_owner_is_told_where_and_who() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path()).unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(
            matches!(error, DataDirError::InUse { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        assert!(
            error.to_string().contains(&root.path().display().to_string()),
            "{error}"
        );
        drop(data);
        DataDir::open(root.path()).unwrap();
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        drop(DataDir::open(root.path()).unwrap());
        fs::write(root.path().join(FORMAT_FILE), "2\n").unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Newer { found: 2, .. }), "{error}");
        for text in ["0", "", "one"] {
            fs::write(root.path().join(FORMAT_FILE), text).unwrap();
            assert!(
                matches!(DataDir::open(root.path()), Err(DataDirError::Corrupt { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_lost_node_id_is_not_drawn_again() {
        let root = tempfile::tempdir().unwrap();
        drop(DataDir::open(root.path()).unwrap());
        for text in ["{}", "{\"node\": \"12\"}", "{\"node\": \"00112233445566zz\"}"] {
            fs::write(root.path().join(NODE_FILE), text).unwrap();
            assert!(
                matches!(DataDir::open(root.path()), Err(DataDirError::Corrupt { .. })),
                "{text}"
            );
        }
        fs::remove_file(root.path().join(NODE_FILE)).unwrap();
        assert!(matches!(
            DataDir::open(root.path()),
            Err(DataDirError::Corrupt { .. })
        ));
    }

    #[test]
    fn a_directory_of_others_is_refused_and_an_unfinished_one_finished() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("holiday.jpg"), "").unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(
            matches!(&error, DataDirError::Foreign { found, .. } if found == "holiday.jpg"),
            "{error}"
        );
        fs::remove_file(root.path().join("holiday.jpg")).unwrap();

        fs::write(root.path().join("node.json"), "half").unwrap();
        fs::write(root.path().join("format.tmp"), "").unwrap();
        fs::create_dir(root.path().join(LOST_AND_FOUND)).unwrap();
        DataDir::open(root.path()).unwrap();
        assert!(!root.path().join("format.tmp").exists());
    }

    #[test]
    fn files_are_replaced_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path()).unwrap();
        assert_eq!(data.read("promise").unwrap(), None);
        data.write("promise", b"first, and long").unwrap();
        data.write("promise", b"second").unwrap();
        assert_eq!(data.read("promise").unwrap().unwrap(), b"second");
        assert_eq!(mode(&root.path().join("promise")), 0o600);
        let folder = data.subfolder("tls").unwrap();
        assert_eq!(
            (mode(&folder), data.subfolder("tls").unwrap()),
            (0o700, root.path().join("tls"))
        );

        std::thread::scope(|scope| {
            for writer in 0..4u8 {
                let data = &data;
                scope.spawn(move || {
                    for _ in 0..20 {
                        data.write("shared", &[writer; 100]).unwrap();
                        let bytes = data.read("shared").unwrap().unwrap();
                        assert!(bytes.len() == 100 && bytes.iter().all(|byte| *byte == bytes[0]));
                    }
                });
            }
        });
    }

    #[test]
    fn only_plain_names_are_names() {
        for name in ["", ".", "..", "a/b", "/a", "a/", "../a", "a\0b", "a.tmp"] {
            assert!(!is_plain(name), "{name:?}");
        }
        for name in ["a", ".a", "a.json", "..."] {
            assert!(is_plain(name), "{name:?}");
        }
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path()).unwrap();
        for name in ["../a", "node.json"] {
            let refused = std::panic::catch_unwind(|| data.write(name, b""));
            assert!(refused.is_err(), "{name:?}");
        }
    }
}
