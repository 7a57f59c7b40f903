//! A disk in memory that loses power, tears sectors, runs full, fails and stalls on demand.
//!
//! Every file has a volatile layer (what reads see) and a durable one (what a power cut leaves);
//! every name too. It decides what a cut keeps from a seed alone, so a run can be repeated. It is as
//! unkind as Linux may be: a failed sync forgets the dirty sectors and calls them clean. It never
//! touches a real file. Used by tests here and by simulations elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, DiskFile, folder_of};

/// The unit that a power cut keeps or loses, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// What a power cut does to bytes and names that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerCut {
    /// All of them are lost.
    LoseAll,
    /// A random subset of sectors survives, one may be torn in the middle, and of the changes to
    /// names a prefix survives.
    KeepSome {
        /// Decides which.
        seed: u64,
    },
}

/// The operations that can be made to fail or wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`DiskFile::read_at`].
    Read,
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::sync_data`].
    Sync,
    /// [`Disk::sync_dir`].
    SyncDir,
}

/// A handle to the disk. Clones share it. A power cut makes all older handles and files fail, as
/// the processes that held them are gone; it returns the handle of the next life.
#[derive(Clone)]
pub struct FaultyDisk {
    shared: Arc<Shared>,
    life: u64,
}

struct Shared {
    state: Mutex<State>,
    gate_moved: Condvar,
}

#[derive(Default)]
struct State {
    life: u64,
    next_inode: u64,
    inodes: HashMap<u64, Inode>,
    names: BTreeMap<String, Node>,
    durable_names: BTreeMap<String, Node>,
    pending: Vec<NameChange>,
    faults: HashMap<Operation, Fault>,
    counts: HashMap<Operation, u64>,
    stalled: HashMap<Operation, u64>,
    capacity_bytes: Option<u64>,
    /// Syncs that still succeed before the power goes.
    dark_after: Option<u64>,
    is_dark: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(u64),
}

enum NameChange {
    Set(String, Node),
    Remove(String),
    Rename(String, String, Node),
}

#[derive(Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    length_dirty: bool,
}

struct Fault {
    after: u64,
    sticky: bool,
    kind: io::ErrorKind,
}

impl Default for FaultyDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl FaultyDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::default()),
                gate_moved: Condvar::new(),
            }),
            life: 0,
        }
    }

    /// Cuts the power. Returns the disk as the next process finds it, without faults or stalls.
    pub fn power_cut(&self, cut: PowerCut) -> FaultyDisk {
        let mut state = self.state();
        let mut rng = match cut {
            PowerCut::LoseAll => None,
            PowerCut::KeepSome { seed } => Some(StdRng::seed_from_u64(seed)),
        };
        let kept_changes = rng
            .as_mut()
            .map_or(0, |rng| rng.random_range(0..=state.pending.len()));
        let pending = std::mem::take(&mut state.pending);
        for change in pending.into_iter().take(kept_changes) {
            change.apply(&mut state.durable_names);
        }
        // A name survives only with the folders above it.
        let names = state.durable_names.clone();
        state.durable_names.retain(|path, _| {
            let folder = folder_of(path);
            folder.is_empty() || names.get(folder) == Some(&Node::Folder)
        });
        state.names = state.durable_names.clone();
        let mut ids: Vec<u64> = state.inodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(inode) = state.inodes.get_mut(&id) {
                inode.lose_power(rng.as_mut());
            }
        }
        state.faults.clear();
        state.stalled.clear();
        state.dark_after = None;
        state.is_dark = false;
        state.life += 1;
        let life = state.life;
        drop(state);
        self.shared.gate_moved.notify_all();
        FaultyDisk {
            shared: Arc::clone(&self.shared),
            life,
        }
    }

    /// Makes one `operation` fail with an input/output error, after `after` more have succeeded;
    /// `sticky` makes all later ones fail as well.
    pub fn fail(&self, operation: Operation, after: u64, sticky: bool) {
        let kind = io::ErrorKind::Other;
        let fault = Fault { after, sticky, kind };
        self.state().faults.insert(operation, fault);
    }

    /// Makes the next `operation` fail for want of room, as a sync may where room is only found when it is written to.
    pub fn fail_for_room(&self, operation: Operation) {
        let fault = Fault {
            after: 0,
            sticky: false,
            kind: io::ErrorKind::StorageFull,
        };
        self.state().faults.insert(operation, fault);
    }

    /// Makes the power go in the middle of a sync, after `after` more have succeeded: from then on everything
    /// fails, and what was written and not synced is there for [`power_cut`](Self::power_cut) to keep or lose.
    pub fn go_dark_in_sync(&self, after: u64) {
        self.state().dark_after = Some(after);
    }

    /// Paths of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        let state = self.state();
        let files = state.names.iter().filter(|(_, node)| **node != Node::Folder);
        files.map(|(path, _)| path.clone()).collect()
    }

    /// Whether the power went in a sync, as [`go_dark_in_sync`](Self::go_dark_in_sync) had it.
    pub fn is_dark(&self) -> bool {
        self.state().is_dark
    }

    /// Forgets all faults that were asked for.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.dark_after = None;
    }

    /// Limits the bytes of all files together; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// Bytes of all files that have a name.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Flips one bit at rest. Panics when the file has no such bit: a test asked for nonsense.
    pub fn flip_bit(&self, path: &str, offset_bits: u64) {
        let mut state = self.state();
        let Some(Node::File(id)) = state.names.get(path).copied() else {
            panic!("no file {path}")
        };
        let inode = state.inodes.get_mut(&id).expect("a named file has an inode");
        let (byte, mask) = ((offset_bits / 8) as usize, 1u8 << (offset_bits % 8));
        inode.bytes[byte] ^= mask;
        if let Some(durable) = inode.durable.get_mut(byte) {
            *durable ^= mask;
        }
    }

    /// The bytes of a file as reads see them, or `None` without such a file.
    pub fn bytes_of(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state();
        match state.names.get(path) {
            Some(Node::File(id)) => state.inodes.get(id).map(|inode| inode.bytes.clone()),
            _ => None,
        }
    }

    /// Whether a power cut that loses all it can would leave these bytes of a file, under this name.
    pub fn is_durable(&self, path: &str, offset: u64, bytes: u64) -> bool {
        let state = self.state();
        let Some(Node::File(id)) = state.durable_names.get(path) else {
            return false;
        };
        let (from, to) = (offset as usize, (offset + bytes) as usize);
        state.inodes.get(id).is_some_and(|inode| {
            let kept = inode.durable.get(from..to);
            kept.is_some() && kept == inode.bytes.get(from..to)
        })
    }

    /// Makes every `operation` wait until the gate is opened or the power is cut.
    pub fn stall(&self, operation: Operation) -> Gate {
        self.state().stalled.insert(operation, 0);
        Gate {
            disk: self.clone(),
            operation,
        }
    }

    /// How many operations of this kind were begun, over all lives.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts.get(&operation).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.life == self.life && !state.is_dark {
            Ok(state)
        } else {
            Err(io::Error::other("power was cut"))
        }
    }

    fn begin(&self, operation: Operation) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.alive()?;
        *state.counts.entry(operation).or_default() += 1;
        if let Some(waiting) = state.stalled.get_mut(&operation) {
            *waiting += 1;
            self.shared.gate_moved.notify_all();
            while state.life == self.life && state.stalled.contains_key(&operation) {
                state = self
                    .shared
                    .gate_moved
                    .wait(state)
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            drop(state);
            state = self.alive()?;
        }
        if operation == Operation::Sync {
            match state.dark_after {
                Some(0) => {
                    state.is_dark = true;
                    return Err(io::Error::other("power was cut"));
                }
                Some(after) => state.dark_after = Some(after - 1),
                None => {}
            }
        }
        let hit = match state.faults.get_mut(&operation) {
            Some(fault) if fault.after == 0 => Some((fault.sticky, fault.kind)),
            Some(fault) => {
                fault.after -= 1;
                None
            }
            None => None,
        };
        match hit {
            None => Ok(state),
            Some((sticky, kind)) => {
                if !sticky {
                    state.faults.remove(&operation);
                }
                // A failed sync drops the pages: they read as written and are never written.
                Err(io::Error::new(kind, InjectedFault(operation)))
            }
        }
    }

    fn file(&self, id: u64) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile {
            disk: self.clone(),
            id,
        })
    }
}

/// The error of an injected fault.
#[derive(Debug, thiserror::Error)]
#[error("injected {0:?} fault")]
pub struct InjectedFault(pub Operation);

/// Holds back one kind of operation, see [`FaultyDisk::stall`].
pub struct Gate {
    disk: FaultyDisk,
    operation: Operation,
}

impl Gate {
    /// Returns when an operation stands at the gate.
    pub fn wait_reached(&self) {
        let mut state = self.disk.state();
        while state.stalled.get(&self.operation) == Some(&0) {
            state = self
                .disk
                .shared
                .gate_moved
                .wait(state)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Lets all pass, now and later.
    pub fn open(self) {
        self.disk.state().stalled.remove(&self.operation);
        self.disk.shared.gate_moved.notify_all();
    }
}

impl NameChange {
    fn concerns(&self, folder: &str) -> bool {
        match self {
            NameChange::Set(path, _) | NameChange::Remove(path) => folder_of(path) == folder,
            NameChange::Rename(from, to, _) => folder_of(from) == folder || folder_of(to) == folder,
        }
    }

    fn apply(self, names: &mut BTreeMap<String, Node>) {
        match self {
            NameChange::Set(path, node) => {
                names.insert(path, node);
            }
            NameChange::Remove(path) => {
                names.remove(&path);
            }
            NameChange::Rename(from, to, node) => {
                names.remove(&from);
                names.insert(to, node);
            }
        }
    }
}

impl Inode {
    fn lose_power(&mut self, mut rng: Option<&mut StdRng>) {
        let mut after = self.durable.clone();
        if let Some(rng) = rng.as_mut() {
            if self.length_dirty && rng.random_bool(0.5) {
                after.resize(self.bytes.len(), 0);
            }
            let keep = rng.random_range(0.0..=1.0);
            let torn = rng.random_range(0..=self.dirty.len());
            for (number, sector) in self.dirty.iter().enumerate() {
                if !rng.random_bool(keep) {
                    continue;
                }
                let start = sector * SECTOR_BYTES;
                let mut end = (start + SECTOR_BYTES).min(after.len()).min(self.bytes.len());
                if number == torn && start < end {
                    end = start + rng.random_range(0..end - start);
                }
                if start < end {
                    after[start..end].copy_from_slice(&self.bytes[start..end]);
                }
            }
        }
        self.bytes.clone_from(&after);
        self.durable = after;
        self.dirty.clear();
        self.length_dirty = false;
    }

    fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(self.bytes.len());
            if start < end {
                self.durable[start..end].copy_from_slice(&self.bytes[start..end]);
            }
        }
        self.length_dirty = false;
    }

    fn resize(&mut self, bytes: usize) {
        if bytes < self.bytes.len() {
            // What lies beyond a cut must not come back when the file grows again.
            self.mark_dirty(bytes, self.bytes.len());
        }
        self.length_dirty |= bytes != self.bytes.len();
        self.bytes.resize(bytes, 0);
    }

    fn mark_dirty(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
    }
}

impl State {
    fn used_bytes(&self) -> u64 {
        let named = self.names.values().filter_map(|node| match node {
            Node::File(id) => self.inodes.get(id),
            Node::Folder => None,
        });
        named.map(|inode| inode.bytes.len() as u64).sum()
    }

    fn check_room(&self, more_bytes: usize) -> io::Result<()> {
        match self.capacity_bytes {
            Some(capacity) if more_bytes > 0 && self.used_bytes() + more_bytes as u64 > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn file(&self, path: &str) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: NameChange) {
        match &change {
            NameChange::Set(path, node) => {
                self.names.insert(path.clone(), *node);
            }
            NameChange::Remove(path) => {
                self.names.remove(path);
            }
            NameChange::Rename(from, to, node) => {
                self.names.remove(from);
                self.names.insert(to.clone(), *node);
            }
        }
        self.pending.push(change);
    }

    fn has_folder(&self, folder: &str) -> bool {
        folder.is_empty() || self.names.get(folder) == Some(&Node::Folder)
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.alive()?;
        if !state.has_folder(folder_of(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let id = match state.file(path) {
            Ok(id) => {
                if let Some(inode) = state.inodes.get_mut(&id) {
                    inode.resize(0);
                }
                id
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(id, Inode::default());
                state.change(NameChange::Set(path.to_owned(), Node::File(id)));
                id
            }
            Err(error) => return Err(error),
        };
        drop(state);
        Ok(self.file(id))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.alive()?.file(path)?;
        Ok(self.file(id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.alive()?;
        let id = state.file(from)?;
        if !state.has_folder(folder_of(to)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(NameChange::Rename(from.to_owned(), to.to_owned(), Node::File(id)));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.alive()?;
        state.file(path)?;
        state.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        if !self.list(path)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.alive()?.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.alive()?;
        if !state.has_folder(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|path| folder_of(path) == folder);
        Ok(inside
            .map(|path| path.rsplit('/').next().unwrap_or(path).to_owned())
            .collect())
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        let mut made = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let parent = made.clone();
            if !made.is_empty() {
                made.push('/');
            }
            made.push_str(part);
            let mut state = self.alive()?;
            match state.names.get(&made) {
                Some(Node::Folder) => {}
                Some(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => {
                    state.change(NameChange::Set(made.clone(), Node::Folder));
                    drop(state);
                    self.sync_dir(&parent)?;
                }
            }
        }
        Ok(())
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        let mut state = self.begin(Operation::SyncDir)?;
        if !state.has_folder(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|change| change.concerns(folder));
        state.pending = later;
        for change in now {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        let capacity = state.capacity_bytes.unwrap_or(u64::MAX);
        Ok(capacity.saturating_sub(state.used_bytes()))
    }

    fn exists(&self, path: &str) -> bool {
        self.alive()
            .is_ok_and(|state| state.has_folder(path) || state.names.contains_key(path))
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    id: u64,
}

impl FaultyFile {
    fn with<T>(&self, mut state: MutexGuard<'_, State>, work: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        match state.inodes.get_mut(&self.id) {
            Some(inode) => Ok(work(inode)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn grown_bytes(&self, state: &State, end: usize) -> usize {
        end.saturating_sub(state.inodes.get(&self.id).map_or(0, |inode| inode.bytes.len()))
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(self.disk.begin(Operation::Read)?, |inode| {
            let start = (offset as usize).min(inode.bytes.len());
            let count = buffer.len().min(inode.bytes.len() - start);
            buffer[..count].copy_from_slice(&inode.bytes[start..start + count]);
            count
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let state = self.disk.begin(Operation::Write)?;
        let start = offset as usize;
        let end = start + bytes.len();
        state.check_room(self.grown_bytes(&state, end))?;
        self.with(state, |inode| {
            if end > inode.bytes.len() {
                inode.resize(end);
            }
            inode.bytes[start..end].copy_from_slice(bytes);
            inode.mark_dirty(start, end);
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.disk.begin(Operation::Sync) {
            Ok(state) => self.with(state, Inode::sync),
            Err(error) => {
                if let Ok(state) = self.disk.alive() {
                    self.with(state, |inode| inode.dirty.clear())?;
                }
                Err(error)
            }
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let state = self.disk.alive()?;
        state.check_room(self.grown_bytes(&state, bytes as usize))?;
        self.with(state, |inode| inode.resize(bytes as usize))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(self.disk.alive()?, |inode| inode.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::read_exact_at;

    fn file_with(disk: &FaultyDisk, synced: &[u8], unsynced: &[u8]) {
        let file = disk.create("f").unwrap();
        file.write_at(synced, 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(unsynced, synced.len() as u64).unwrap();
    }

    #[test]
    fn bytes_are_durable_once_they_and_their_name_are_synced() {
        let disk = FaultyDisk::new();
        let file = disk.create("a").unwrap();
        file.write_at(b"word", 0).unwrap();
        file.sync_data().unwrap();
        assert!(!disk.is_durable("a", 0, 4), "nobody would find it");
        disk.sync_dir("").unwrap();
        assert!(disk.is_durable("a", 0, 4));
        assert!(!disk.is_durable("a", 2, 4), "there is no more");
        file.write_at(b"W", 0).unwrap();
        assert!(!disk.is_durable("a", 0, 4) && disk.is_durable("a", 1, 3));
    }

    #[test]
    fn a_disk_that_goes_dark_in_a_sync_has_written_and_not_synced() {
        let disk = FaultyDisk::new();
        let file = disk.create("a").unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(b"one", 0).unwrap();
        disk.go_dark_in_sync(1);
        file.sync_data().unwrap();
        file.write_at(b"two", 0).unwrap();
        assert!(file.sync_data().is_err());
        assert!(file.write_at(b"three", 0).is_err(), "it stays dark");
        assert!(disk.create("b").is_err());
        let kept: BTreeSet<Vec<u8>> = (0..20)
            .map(|seed| {
                let disk = FaultyDisk::new();
                let file = disk.create("a").unwrap();
                disk.sync_dir("").unwrap();
                file.write_at(b"one", 0).unwrap();
                file.sync_data().unwrap();
                disk.go_dark_in_sync(0);
                file.write_at(b"two", 0).unwrap();
                assert!(file.sync_data().is_err());
                let after = disk.power_cut(PowerCut::KeepSome { seed });
                assert!(after.create("b").is_ok(), "the power is back");
                after.bytes_of("a").unwrap()
            })
            .collect();
        assert!(
            kept.contains(&b"one"[..]) && kept.contains(&b"two"[..]),
            "{kept:?}"
        );
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_loses_the_rest() {
        let disk = FaultyDisk::new();
        file_with(&disk, b"kept", b"lost");
        disk.create("unnamed").unwrap().sync_data().unwrap();
        let old = disk.open("f").unwrap();
        let disk = disk.power_cut(PowerCut::LoseAll);
        assert_eq!(disk.bytes_of("f").unwrap(), b"kept");
        assert!(!disk.exists("unnamed"), "a name without a synced folder is lost");
        assert!(
            old.write_at(b"x", 0).is_err(),
            "a file of an earlier life is gone"
        );
    }

    #[test]
    fn the_same_seed_keeps_the_same_sectors() {
        let cut = |seed| {
            let disk = FaultyDisk::new();
            file_with(&disk, &[1; 512], &[2; 512 * 20]);
            disk.power_cut(PowerCut::KeepSome { seed }).bytes_of("f").unwrap()
        };
        assert_eq!(cut(7), cut(7));
        assert!(
            (0..20).any(|seed| cut(seed) != cut(7)),
            "another seed keeps others"
        );
        assert!((0..20).all(|seed| cut(seed)[..512] == [1; 512]));
    }

    #[test]
    fn a_failed_sync_reads_as_written_and_is_lost() {
        let disk = FaultyDisk::new();
        file_with(&disk, b"kept", b"lost");
        let file = disk.open("f").unwrap();
        disk.fail(Operation::Sync, 0, false);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        let mut read = [0; 8];
        read_exact_at(&*file, &mut read, 0).unwrap();
        assert_eq!(&read, b"keptlost");
        let after = disk.power_cut(PowerCut::LoseAll).bytes_of("f").unwrap();
        assert_eq!(after[..4], *b"kept");
        assert_ne!(after, b"keptlost");
    }

    #[test]
    fn a_full_disk_refuses_growth_only() {
        let disk = FaultyDisk::new();
        file_with(&disk, b"1234", b"");
        disk.set_capacity(Some(4));
        let file = disk.open("f").unwrap();
        file.write_at(b"5678", 0).unwrap();
        assert!(crate::disk::is_full(&file.write_at(b"9", 4).unwrap_err()));
        disk.set_capacity(None);
        file.write_at(b"9", 4).unwrap();
    }
}
