//! The files behind a [`ChaosFs`](super::ChaosFs), and what may still be taken from them.
//!
//! The folder always has the newest bytes and names; beside them stand the earlier ones, in
//! [`FilePages`] and [`Names`], until they are synced. Each operation asks the [`Decider`], tells the
//! machines, and does what they say; nothing is decided here. Files that were removed, but not durably,
//! are kept in a folder beside the tree. FUSE is spoken in `fuse`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::decider::{Decider, ReadSpoil, WriteSpoil};
use super::faults::{DiskCounters, DiskError, DiskFaults, Operation};
use super::names::{Change, Names, Place};
use super::pages::{FilePages, PAGE_BYTES, Tear, page_range};
use super::tree::{ROOT, Tree};

/// The folder of removed files, in the root of the backing folder; not to be seen through the mount.
pub(super) const ASIDE: &str = ".chaosfs-aside";
/// Earlier bytes that are kept in memory; beyond it the file that is written becomes durable, as
/// happens when a machine runs short of memory.
const KEPT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Writes between two looks at how much is kept.
const LOOK_AGAIN_WRITES: u64 = 256;
/// Files and directories that may be open.
const HANDLES_MAX: usize = 64 * 1024;
/// Bytes that are read at a time of what is cut off.
const CUT_BYTES: u64 = 1024 * 1024;

/// The disk.
pub(super) struct Backing {
    root: PathBuf,
    state: Mutex<State>,
    /// Woken when faults or lives change: whoever waits looks again.
    changed: Condvar,
}

struct State {
    tree: Tree,
    files: HashMap<u64, FilePages>,
    names: Names,
    decider: Decider,
    counters: DiskCounters,
    handles: HashMap<u64, Arc<Handle>>,
    next_handle: u64,
    /// Raised with each power cut: what was opened before belongs to a process that is gone.
    life: u64,
    /// Raised whenever waiting should end early.
    orders: u64,
}

/// Something that is open.
pub(super) struct Handle {
    pub(super) id: u64,
    life: u64,
    pub(super) file: File,
    /// A directory's entries as they were when it was opened.
    pub(super) listing: Vec<Listed>,
}

/// A line of a directory.
pub(super) struct Listed {
    pub(super) id: u64,
    pub(super) name: OsString,
    pub(super) kind: fs::FileType,
}

type Guard<'a> = MutexGuard<'a, State>;

fn gone() -> io::Error {
    Errno::IO.into()
}

impl From<DiskError> for io::Error {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Io => Errno::IO,
            DiskError::NoSpace => Errno::NOSPC,
            DiskError::Quota => Errno::DQUOT,
            DiskError::ReadOnly => Errno::ROFS,
        }
        .into()
    }
}

impl Backing {
    /// The disk on a folder, which must exist. What an earlier mount has put aside is gone for good.
    pub(super) fn open(root: &Path, seed: u64) -> io::Result<Backing> {
        let aside = root.join(ASIDE);
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&aside)?,
        }
        Ok(Backing {
            root: root.to_owned(),
            state: Mutex::new(State {
                tree: Tree::default(),
                files: HashMap::new(),
                names: Names::default(),
                decider: Decider::new(seed),
                counters: DiskCounters::default(),
                handles: HashMap::new(),
                next_handle: 1,
                life: 0,
                orders: 0,
            }),
            changed: Condvar::new(),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn set(&self, faults: DiskFaults) {
        let mut state = self.state();
        state.decider.set(faults);
        state.orders += 1;
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn faults(&self) -> DiskFaults {
        self.state().decider.faults().clone()
    }

    pub(super) fn counters(&self) -> DiskCounters {
        self.state().counters
    }

    fn state(&self) -> Guard<'_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation: it waits if it has to, and fails if it has to.
    fn begin(&self, operation: Operation, path: &Path, grows: bool) -> io::Result<Guard<'_>> {
        let state = self.state();
        let (state, error) = self.decide(state, operation, path, grows);
        match error {
            Some(error) => Err(error.into()),
            None => Ok(state),
        }
    }

    fn decide<'a>(
        &'a self,
        mut state: Guard<'a>,
        operation: Operation,
        path: &Path,
        grows: bool,
    ) -> (Guard<'a>, Option<DiskError>) {
        let decision = state.decider.handle(operation, &path.to_string_lossy(), grows);
        if let Some(delay) = decision.delay {
            state.counters.delayed += 1;
            let orders = state.orders;
            let waited = self
                .changed
                .wait_timeout_while(state, delay, |state| state.orders == orders);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.counters.failed += u64::from(decision.error.is_some());
        (state, decision.error)
    }

    /// The path of what has this number, from the root.
    fn path(&self, id: u64) -> io::Result<PathBuf> {
        self.state().tree.path(id).ok_or_else(|| Errno::NOENT.into())
    }

    fn path_of(&self, place: &Place) -> io::Result<PathBuf> {
        if place.folder == ROOT && place.name == ASIDE {
            return Err(Errno::NOENT.into());
        }
        let path = self.state().tree.path_of(place);
        path.ok_or_else(|| Errno::NOENT.into())
    }

    fn aside(&self, id: u64) -> PathBuf {
        self.root.join(ASIDE).join(id.to_string())
    }

    pub(super) fn handle(&self, number: u64) -> io::Result<Arc<Handle>> {
        let handle = self.state().handles.get(&number).cloned();
        handle.ok_or_else(|| Errno::BADF.into())
    }

    fn add_handle(state: &mut State, id: u64, file: File, listing: Vec<Listed>) -> io::Result<u64> {
        if state.handles.len() >= HANDLES_MAX {
            return Err(Errno::NFILE.into());
        }
        let number = state.next_handle;
        state.next_handle += 1;
        let life = state.life;
        let handle = Handle {
            id,
            life,
            file,
            listing,
        };
        state.handles.insert(number, Arc::new(handle));
        Ok(number)
    }

    pub(super) fn release(&self, number: u64) {
        let mut state = self.state();
        if let Some(handle) = state.handles.remove(&number)
            && !state.tree.knows(handle.id)
        {
            state.files.remove(&handle.id);
        }
    }

    // Names.

    pub(super) fn lookup(&self, place: &Place) -> io::Result<(u64, Metadata)> {
        let path = self.path_of(place)?;
        let mut state = self.begin(Operation::Open, &path, false)?;
        let found = fs::symlink_metadata(self.root.join(&path))?;
        let id = state.tree.id_at(place).ok_or(Errno::NFILE)?;
        Ok((id, found))
    }

    pub(super) fn metadata(&self, id: u64, handle: Option<u64>) -> io::Result<Metadata> {
        if let Some(number) = handle {
            return self.handle(number)?.file.metadata();
        }
        if let Ok(path) = self.path(id) {
            return fs::symlink_metadata(self.root.join(path));
        }
        // A file that is still open outlives its name.
        let state = self.state();
        let open = state.handles.values().find(|handle| handle.id == id);
        open.ok_or(Errno::NOENT)?.file.metadata()
    }

    pub(super) fn set_mode(&self, id: u64, mode: u32) -> io::Result<()> {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777);
        fs::set_permissions(self.root.join(self.path(id)?), permissions)
    }

    pub(super) fn create(&self, place: &Place, mode: u32) -> io::Result<(u64, Metadata, u64)> {
        let path = self.path_of(place)?;
        let mut state = self.begin(Operation::Create, &path, true)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(self.root.join(&path))?;
        let found = file.metadata()?;
        let id = state.tree.id_at(place).ok_or(Errno::NFILE)?;
        self.changed_names(&mut state, Change::Created(place.clone()));
        let number = Self::add_handle(&mut state, id, file, Vec::new())?;
        Ok((id, found, number))
    }

    pub(super) fn make_folder(&self, place: &Place, mode: u32) -> io::Result<(u64, Metadata)> {
        let path = self.path_of(place)?;
        let mut state = self.begin(Operation::Create, &path, true)?;
        let full = self.root.join(&path);
        std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), mode).create(&full)?;
        let id = state.tree.id_at(place).ok_or(Errno::NFILE)?;
        self.changed_names(&mut state, Change::FolderMade(place.clone()));
        Ok((id, fs::symlink_metadata(full)?))
    }

    pub(super) fn remove(&self, place: &Place) -> io::Result<()> {
        let path = self.path_of(place)?;
        let mut state = self.begin(Operation::Remove, &path, false)?;
        let id = state.tree.id_at(place).ok_or(Errno::NFILE)?;
        fs::rename(self.root.join(&path), self.aside(id))?;
        state.tree.put_aside(place);
        self.changed_names(&mut state, Change::Removed(place.clone(), id));
        Ok(())
    }

    pub(super) fn remove_folder(&self, place: &Place) -> io::Result<()> {
        let path = self.path_of(place)?;
        let mut state = self.begin(Operation::Remove, &path, false)?;
        let id = state.tree.id_at(place).ok_or(Errno::NFILE)?;
        fs::remove_dir(self.root.join(&path))?;
        state.tree.put_aside(place);
        self.changed_names(&mut state, Change::FolderRemoved(place.clone(), id));
        Ok(())
    }

    pub(super) fn rename(&self, from: &Place, to: &Place, may_replace: bool) -> io::Result<()> {
        let (old, new) = (self.path_of(from)?, self.path_of(to)?);
        let mut state = self.begin(Operation::Rename, &new, false)?;
        let id = state.tree.id_at(from).ok_or(Errno::NFILE)?;
        let (old, new) = (self.root.join(old), self.root.join(new));
        fs::symlink_metadata(&old)?;
        let target = fs::symlink_metadata(&new).ok();
        if target.is_some() && !may_replace {
            return Err(Errno::EXIST.into());
        }
        if old == new {
            return Ok(());
        }
        let replaced = match target {
            None => None,
            // Dunlin replaces files only, and so does everyone who wants to be safe.
            Some(found) if found.is_dir() => return Err(Errno::NOTEMPTY.into()),
            Some(_) => {
                let replaced = state.tree.id_at(to).ok_or(Errno::NFILE)?;
                fs::rename(&new, self.aside(replaced))?;
                state.tree.put_aside(to)
            }
        };
        fs::rename(&old, &new)?;
        state.tree.put(id, to);
        self.changed_names(&mut state, Change::Renamed(from.clone(), to.clone(), replaced));
        Ok(())
    }

    pub(super) fn sync_folder(&self, id: u64) -> io::Result<()> {
        let path = self.path(id)?;
        let mut state = self.begin(Operation::SyncFolder, &path, false)?;
        state.counters.syncs += 1;
        if state.decider.faults().lying_sync {
            state.counters.lied += 1;
            return Ok(());
        }
        let durable = state.names.handle_sync(id);
        self.settle(&mut state, durable);
        drop(state);
        File::open(self.root.join(path))?.sync_all()
    }

    fn changed_names(&self, state: &mut State, change: Change) {
        let durable = state.names.handle_change(change);
        self.settle(state, durable);
    }

    /// Lets go of what was kept aside for changes that cannot be undone any more.
    fn settle(&self, state: &mut State, durable: Vec<Change>) {
        for change in durable {
            let id = match change {
                Change::Removed(_, id) | Change::Renamed(_, _, Some(id)) => {
                    if let Err(error) = fs::remove_file(self.aside(id)) {
                        tracing::warn!(%error, id, "cannot remove what was kept aside");
                    }
                    id
                }
                Change::FolderRemoved(_, id) => id,
                Change::Created(_) | Change::FolderMade(_) | Change::Renamed(..) => continue,
            };
            state.tree.forget(id);
            state.files.remove(&id);
        }
    }

    // Bytes.

    /// Opens a file to read and to write, whatever it is wanted for: before a write its bytes are read.
    pub(super) fn open_file(&self, id: u64) -> io::Result<u64> {
        let path = self.path(id)?;
        let mut state = self.begin(Operation::Open, &path, false)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.root.join(path))?;
        Self::add_handle(&mut state, id, file, Vec::new())
    }

    pub(super) fn open_folder(&self, id: u64) -> io::Result<u64> {
        let path = self.path(id)?;
        let mut state = self.begin(Operation::Open, &path, false)?;
        let full = self.root.join(path);
        let mut listing = Vec::new();
        for entry in fs::read_dir(&full)? {
            let entry = entry?;
            let name = entry.file_name();
            if id == ROOT && name == ASIDE {
                continue;
            }
            let place = Place { folder: id, name };
            listing.push(Listed {
                id: state.tree.id_at(&place).ok_or(Errno::NFILE)?,
                kind: entry.file_type()?,
                name: place.name,
            });
        }
        Self::add_handle(&mut state, id, File::open(full)?, listing)
    }

    pub(super) fn read(&self, number: u64, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let handle = self.handle(number)?;
        let path = self.path(handle.id).unwrap_or_default();
        let mut state = self.begin(Operation::Read, &path, false)?;
        if handle.life != state.life {
            return Err(gone());
        }
        state.counters.reads += 1;
        let file_len = handle.file.metadata()?.len();
        let spoil = state
            .decider
            .spoil_read(&path.to_string_lossy(), (offset, len), file_len);
        if spoil == ReadSpoil::Stale {
            return read_stale(&mut state, &handle, offset, len);
        }
        let from = match spoil {
            ReadSpoil::From(elsewhere) => elsewhere,
            _ => offset,
        };
        state.counters.misdirected_reads += u64::from(from != offset);
        drop(state);
        let mut bytes = read_at(&handle.file, from, len)?;
        if let ReadSpoil::Flip(bit) = spoil
            && let Some(byte) = bytes.get_mut(bit / 8)
        {
            *byte ^= 1 << (bit % 8);
            self.state().counters.flipped_reads += 1;
        }
        Ok(bytes)
    }

    pub(super) fn write(&self, number: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let handle = self.handle(number)?;
        let path = self.path(handle.id).unwrap_or_default();
        let len = bytes.len() as u64;
        let grows = offset + len > handle.file.metadata()?.len();
        let mut state = self.begin(Operation::Write, &path, grows)?;
        if handle.life != state.life {
            return Err(gone());
        }
        state.counters.writes += 1;
        state.counters.written_bytes += len;
        let file_len = handle.file.metadata()?.len();
        let offset = match state
            .decider
            .spoil_write(&path.to_string_lossy(), offset, file_len)
        {
            WriteSpoil::None => offset,
            WriteSpoil::To(elsewhere) => {
                state.counters.misdirected_writes += 1;
                elsewhere
            }
            WriteSpoil::Lost => {
                state.counters.lost_writes += 1;
                return Ok(());
            }
        };
        let pages = state.files.entry(handle.id).or_default();
        note_write(pages, &handle.file, (offset, len), file_len)?;
        handle.file.write_all_at(bytes, offset)?;
        if state.counters.writes % LOOK_AGAIN_WRITES == 0 {
            state.write_back_if_full(handle.id, file_len.max(offset + len));
        }
        Ok(())
    }

    pub(super) fn sync(&self, number: u64) -> io::Result<()> {
        let handle = self.handle(number)?;
        let path = self.path(handle.id).unwrap_or_default();
        let mut state = self.state();
        if handle.life != state.life {
            return Err(gone());
        }
        state.counters.syncs += 1;
        let lies = state.decider.faults().lying_sync;
        // What is written from here on is not covered, however long this takes.
        let token = match lies {
            true => None,
            false => {
                let file_len = handle.file.metadata()?.len();
                Some(state.files.entry(handle.id).or_default().begin_sync(file_len))
            }
        };
        let (mut state, error) = self.decide(state, Operation::Sync, &path, false);
        let Some(token) = token else {
            state.counters.lied += 1;
            return error.map_or(Ok(()), |error| Err(error.into()));
        };
        let error = error.map(io::Error::from);
        let result = match error {
            Some(error) => Err(error),
            None => {
                drop(state);
                let synced = handle.file.sync_data();
                state = self.state();
                synced
            }
        };
        if handle.life != state.life {
            return Err(gone());
        }
        if let Some(pages) = state.files.get_mut(&handle.id) {
            match result {
                Ok(()) => pages.end_sync(token),
                Err(_) => pages.fail_sync(token),
            }
        }
        result
    }

    pub(super) fn set_len(&self, id: u64, number: Option<u64>, len: u64) -> io::Result<()> {
        let path = self.path(id).unwrap_or_default();
        let opened;
        let handle = match number {
            Some(number) => Some(self.handle(number)?),
            None => None,
        };
        let file = match &handle {
            Some(handle) => &handle.file,
            None => {
                let full = self.root.join(&path);
                opened = OpenOptions::new().read(true).write(true).open(full)?;
                &opened
            }
        };
        let grows = len > file.metadata()?.len();
        let mut state = self.begin(Operation::SetLen, &path, grows)?;
        if handle.as_ref().is_some_and(|handle| handle.life != state.life) {
            return Err(gone());
        }
        let file_len = file.metadata()?.len();
        let pages = state.files.entry(id).or_default();
        note_range(pages, file, len, file_len)?;
        pages.handle_set_len(len, file_len, &[]);
        file.set_len(len)
    }

    /// Reserves room, and extends the file to it unless it is to keep its length.
    pub(super) fn allocate(&self, number: u64, (offset, len): (u64, u64), mode: u32) -> io::Result<()> {
        use rustix::fs::FallocateFlags;
        let flags = FallocateFlags::from_bits_retain(mode);
        let handle = self.handle(number)?;
        let path = self.path(handle.id).unwrap_or_default();
        let mut state = self.begin(Operation::SetLen, &path, true)?;
        if handle.life != state.life {
            return Err(gone());
        }
        let file_len = handle.file.metadata()?.len();
        let pages = state.files.entry(handle.id).or_default();
        let keeps_len = flags.contains(FallocateFlags::KEEP_SIZE);
        let is_plain = flags.difference(FallocateFlags::KEEP_SIZE).is_empty();
        if !is_plain {
            let zeroes = FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
            if !zeroes.contains(flags.difference(FallocateFlags::KEEP_SIZE)) {
                return Err(Errno::OPNOTSUPP.into());
            }
            note_range(pages, &handle.file, offset, file_len.min(offset + len))?;
        }
        if !keeps_len && offset + len > file_len {
            pages.handle_set_len(offset + len, file_len, &[]);
        }
        rustix::fs::fallocate(&handle.file, flags, offset, len)?;
        Ok(())
    }

    // Power.

    /// Takes away what was not synced, or some of it, and goes on as after a start of the machine.
    pub(super) fn lose_power(&self, tear: Tear) -> io::Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        state.life += 1;
        state.orders += 1;
        self.changed.notify_all();
        state.counters.power_cuts += 1;
        let (lost, kept) = state.names.lose_power(tear, state.decider.random());
        state.counters.names_lost += lost.len() as u64;
        self.settle(state, kept);
        for change in lost {
            self.undo(state, change)?;
        }
        let mut files: Vec<(u64, FilePages)> = state.files.drain().collect();
        // In a fixed order, so that a seed cuts the same way again.
        files.sort_unstable_by_key(|(id, _)| *id);
        for (id, mut pages) in files {
            let Some(path) = state.tree.path(id).filter(|_| !pages.is_clean()) else {
                continue;
            };
            let file = OpenOptions::new().write(true).open(self.root.join(path))?;
            let loss = pages.lose_power(tear, file.metadata()?.len(), state.decider.random());
            for repair in &loss.repairs {
                match repair {
                    super::pages::Repair::SetLen(len) => file.set_len(*len)?,
                    super::pages::Repair::Write(offset, bytes) => file.write_all_at(bytes, *offset)?,
                }
            }
            state.counters.sectors_lost += loss.sectors_lost;
            state.counters.sectors_kept += loss.sectors_kept;
            state.counters.torn_files += u64::from(loss.is_torn);
        }
        Ok(())
    }

    fn undo(&self, state: &mut State, change: Change) -> io::Result<()> {
        let full = |state: &State, place: &Place| {
            let path = state.tree.path_of(place).ok_or(Errno::NOENT)?;
            Ok::<PathBuf, io::Error>(self.root.join(path))
        };
        match change {
            Change::Created(place) => {
                fs::remove_file(full(state, &place)?)?;
                state.drop_entry(&place);
            }
            Change::FolderMade(place) => {
                fs::remove_dir_all(full(state, &place)?)?;
                state.drop_entry(&place);
            }
            Change::Removed(place, id) => {
                fs::rename(self.aside(id), full(state, &place)?)?;
                state.tree.put(id, &place);
            }
            Change::FolderRemoved(place, id) => {
                fs::create_dir(full(state, &place)?)?;
                state.tree.put(id, &place);
            }
            Change::Renamed(from, to, replaced) => {
                let (old, new) = (full(state, &from)?, full(state, &to)?);
                fs::rename(&new, old)?;
                if let Some(id) = state.tree.id_at(&to) {
                    state.tree.put(id, &from);
                }
                if let Some(id) = replaced {
                    fs::rename(self.aside(id), new)?;
                    state.tree.put(id, &to);
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn drop_entry(&mut self, place: &Place) {
        if let Some(id) = self.tree.put_aside(place) {
            self.tree.forget(id);
            self.files.remove(&id);
        }
    }

    fn write_back_if_full(&mut self, id: u64, file_len: u64) {
        let kept: usize = self.files.values().map(FilePages::kept_bytes).sum();
        if kept > KEPT_BYTES_MAX
            && let Some(pages) = self.files.get_mut(&id)
        {
            pages.write_back(file_len);
            self.counters.written_back += 1;
        }
    }
}

/// Tells the machine of a write, with the bytes before it where it has none.
fn note_write(
    pages: &mut FilePages,
    file: &File,
    (offset, len): (u64, u64),
    file_len: u64,
) -> io::Result<()> {
    let before = match pages.needs_before(offset, len) {
        true => {
            let (begin, count) = page_range(offset, len);
            let mut bytes = read_at(file, begin, count as usize)?;
            bytes.resize(count as usize, 0);
            bytes
        }
        false => Vec::new(),
    };
    pages.handle_write(offset, len, file_len, &before);
    Ok(())
}

/// Tells the machine that these bytes go, a piece at a time.
fn note_range(pages: &mut FilePages, file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        // Pieces end where pages do, so that no page is read twice.
        let end = ((at / CUT_BYTES + 1) * CUT_BYTES).min(to);
        note_write(pages, file, (at, end - at), to)?;
        at = end;
    }
    Ok(())
}

fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Reads as a disk does that has not done the latest writes.
fn read_stale(state: &mut State, handle: &Handle, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = read_at(&handle.file, offset, len)?;
    let Some(pages) = state.files.get(&handle.id) else {
        return Ok(bytes);
    };
    let page_bytes = PAGE_BYTES as u64;
    let end = offset + bytes.len() as u64;
    let mut is_stale = false;
    for number in offset / page_bytes..end.div_ceil(page_bytes) {
        if let Some(stale) = pages.stale_page(number) {
            let begin = (number * page_bytes).max(offset);
            let stop = ((number + 1) * page_bytes).min(end);
            let within = (begin % page_bytes) as usize;
            let count = (stop - begin) as usize;
            bytes[(begin - offset) as usize..][..count].copy_from_slice(&stale[within..][..count]);
            is_stale = true;
        }
    }
    state.counters.stale_reads += u64::from(is_stale);
    Ok(bytes)
}
