//! The disk as the kernel asks for it. Translates, and decides nothing.
//!
//! Nothing is cached by the kernel, neither bytes nor names: every read, write and sync of the node
//! comes through here. Links, symbolic ones too, and devices are not offered; a node makes none.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::backing::Backing;
use super::names::Place;

/// How long the kernel may believe what it was told.
const NOTHING: Duration = Duration::ZERO;
/// The data of a write, and what is needed to read it back, are to be durable when it returns.
const O_DSYNC: i32 = 0o10000;
const BLOCK_BYTES: u32 = 4096;

pub(super) struct Fuse {
    pub(super) backing: Arc<Backing>,
}

fn place(folder: INodeNo, name: &OsStr) -> Place {
    Place {
        folder: folder.0,
        name: name.to_owned(),
    }
}

fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let since = Duration::new(
        u64::try_from(seconds).unwrap_or(0),
        u32::try_from(nanoseconds).unwrap_or(0),
    );
    UNIX_EPOCH + since
}

fn attributes(id: u64, found: &Metadata) -> FileAttr {
    let kind = FileType::from_std(found.file_type()).unwrap_or(FileType::RegularFile);
    let modified = time(found.mtime(), found.mtime_nsec());
    FileAttr {
        ino: INodeNo(id),
        size: found.len(),
        blocks: found.blocks(),
        atime: time(found.atime(), found.atime_nsec()),
        mtime: modified,
        ctime: time(found.ctime(), found.ctime_nsec()),
        crtime: modified,
        kind,
        perm: (found.mode() & 0o7777) as u16,
        nlink: found.nlink() as u32,
        uid: found.uid(),
        gid: found.gid(),
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn done(result: io::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

fn opened(result: io::Result<u64>, flags: FopenFlags, reply: ReplyOpen) {
    match result {
        Ok(handle) => reply.opened(FileHandle(handle), flags),
        Err(error) => reply.error(error.into()),
    }
}

fn entered(result: io::Result<(u64, Metadata)>, reply: ReplyEntry) {
    match result {
        Ok((id, found)) => reply.entry(&NOTHING, &attributes(id, &found), Generation(0)),
        Err(error) => reply.error(error.into()),
    }
}

/// A file is read and written past the kernel's cache, and its close needs no call.
fn file_flags() -> FopenFlags {
    FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH
}

impl Filesystem for Fuse {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Where the kernel cannot do these, mapped files are refused; a node has none.
        let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entered(self.backing.lookup(&place(parent, name)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.backing.metadata(ino.0, handle.map(|handle| handle.0)) {
            Ok(found) => reply.attr(&NOTHING, &attributes(ino.0, &found)),
            Err(error) => reply.error(error.into()),
        }
    }

    /// Lengths and modes; owners and times are left as they are.
    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let handle = handle.map(|handle| handle.0);
        let set = || {
            if let Some(len) = size {
                self.backing.set_len(ino.0, handle, len)?;
            }
            if let Some(mode) = mode {
                self.backing.set_mode(ino.0, mode)?;
            }
            self.backing.metadata(ino.0, handle)
        };
        match set() {
            Ok(found) => reply.attr(&NOTHING, &attributes(ino.0, &found)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        entered(
            self.backing.make_folder(&place(parent, name), mode & !umask),
            reply,
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.backing.remove(&place(parent, name)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.backing.remove_folder(&place(parent, name)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !RenameFlags::RENAME_NOREPLACE.contains(flags) {
            return reply.error(Errno::EINVAL);
        }
        let (from, to) = (place(parent, name), place(new_parent, new_name));
        done(self.backing.rename(&from, &to, flags.is_empty()), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        opened(self.backing.open_file(ino.0), file_flags(), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.backing.create(&place(parent, name), mode & !umask) {
            Ok((id, found, handle)) => reply.created(
                &NOTHING,
                &attributes(id, &found),
                Generation(0),
                FileHandle(handle),
                file_flags(),
            ),
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.backing.read(handle.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut result = self.backing.write(handle.0, offset, data);
        if result.is_ok() && flags.0 & O_DSYNC != 0 {
            result = self.backing.sync(handle.0);
        }
        match result {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.backing.release(handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.backing.sync(handle.0), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let range = (offset, length);
        done(self.backing.allocate(handle.0, range, mode as u32), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        opened(self.backing.open_folder(ino.0), FopenFlags::empty(), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let handle = match self.backing.handle(handle.0) {
            Ok(handle) => handle,
            Err(error) => return reply.error(error.into()),
        };
        let dots = [".", ".."].map(|name| (ino.0, FileType::Directory, OsStr::new(name)));
        let files = handle.listing.iter().filter_map(|listed| {
            let kind = FileType::from_std(listed.kind)?;
            Some((listed.id, kind, listed.name.as_os_str()))
        });
        let lines = (1..).zip(dots.into_iter().chain(files));
        for (next, (id, kind, name)) in lines.skip(offset as usize) {
            if reply.add(INodeNo(id), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.backing.release(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.backing.sync_folder(ino.0), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match rustix::fs::statvfs(self.backing.root()) {
            Ok(found) => {
                let (free, available) = match self.backing.faults().full {
                    true => (0, 0),
                    false => (found.f_bfree, found.f_bavail),
                };
                reply.statfs(
                    found.f_blocks,
                    free,
                    available,
                    found.f_files,
                    found.f_ffree,
                    found.f_bsize as u32,
                    found.f_namemax as u32,
                    found.f_frsize as u32,
                );
            }
            Err(error) => reply.error(io::Error::from(error).into()),
        }
    }
}
