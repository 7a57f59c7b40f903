//! The mounted file system, used as anybody uses one. Needs what a mount needs; see [`mounted`].

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::faults::{DiskError, DiskFaults, Failure, Operation, Slowness};
use super::pages::Tear;
use super::*;

struct World {
    disk: ChaosFs,
    at: PathBuf,
    /// Removed after the mount is gone: fields are dropped in order.
    folder: TempDir,
}

/// A fresh mount. Panics where none can be made, unless doing without was asked for.
fn mounted(seed: u64) -> Option<World> {
    let folder = TempDir::new().unwrap();
    let (backing, at) = (folder.path().join("backing"), folder.path().join("mount"));
    fs::create_dir_all(&backing).unwrap();
    fs::create_dir_all(&at).unwrap();
    match ChaosFs::mount(&backing, &at, seed) {
        Ok(disk) => Some(World { disk, at, folder }),
        Err(error) => {
            let without = std::env::var("DUNLIN_TEST_WITHOUT_MOUNT").is_ok_and(|value| value == "1");
            assert!(
                without,
                "{error}. Run as root with /dev/fuse and fusermount3, or set DUNLIN_TEST_WITHOUT_MOUNT=1."
            );
            eprintln!("NOT TESTED: {error}");
            None
        }
    }
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    fn write_synced(&self, name: &str, bytes: &[u8]) -> File {
        let mut file = self.open(name);
        file.write_all(bytes).unwrap();
        file.sync_all().unwrap();
        self.sync_folder(".");
        file
    }

    fn open(&self, name: &str) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        options.open(self.path(name)).unwrap()
    }

    fn sync_folder(&self, name: &str) {
        File::open(self.path(name)).unwrap().sync_all().unwrap();
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)).ok()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn cut(&self) {
        self.disk.lose_power(Tear::Nothing).unwrap();
    }

    fn tell(&self, faults: DiskFaults) {
        self.disk.set(faults).unwrap();
    }
}

#[test]
fn files_and_folders_are_used_as_on_any_disk() {
    let Some(world) = mounted(1) else { return };
    fs::create_dir_all(world.path("a/b")).unwrap();
    let mut file = world.open("a/b/f");
    file.write_all(&vec![7; 3_000_000]).unwrap();
    file.seek(SeekFrom::Start(10)).unwrap();
    file.write_all(b"hello").unwrap();
    file.set_len(2_000_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2_000_000);
    let mut found = [0; 7];
    file.read_exact_at(&mut found, 9).unwrap();
    assert_eq!(&found, b"\x07hello\x07");
    fs::rename(world.path("a/b/f"), world.path("g")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    fs::remove_dir(world.path("a/b")).unwrap();
    assert_eq!(
        (world.names("."), world.names("a")),
        (vec!["a".into(), "g".into()], vec![])
    );
    fs::remove_file(world.path("g")).unwrap();
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut rest).unwrap();
    assert_eq!(
        (rest.len(), rest[0]),
        (2_000_000, b'x'),
        "an open file outlives its name"
    );
    let mut options = OpenOptions::new();
    let mut appended = options.append(true).create(true).open(world.path("log")).unwrap();
    appended.write_all(b"one").unwrap();
    appended.write_all(b"two").unwrap();
    fs::write(world.path("cut"), b"long").unwrap();
    fs::write(world.path("cut"), b"s").unwrap();
    assert_eq!(world.bytes("log").as_deref(), Some(&b"onetwo"[..]));
    assert_eq!(world.bytes("cut").as_deref(), Some(&b"s"[..]));
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 3_000_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3_000_000);
    assert!(fs::remove_dir(world.path("nothing")).is_err());
}

#[test]
fn a_power_cut_takes_bytes_lengths_and_names_that_were_not_synced() {
    let Some(world) = mounted(1) else { return };
    let file = world.write_synced("f", &[1; 10_000]);
    world.write_synced("removed", b"still there");
    world.write_synced("old", b"moved");
    world.write_synced("target", b"replaced");
    file.write_all_at(&[2; 20_000], 100).unwrap();
    world.open("unsynced name").sync_all().unwrap();
    fs::remove_file(world.path("removed")).unwrap();
    fs::rename(world.path("old"), world.path("target")).unwrap();
    fs::create_dir_all(world.path("folder/below")).unwrap();
    world.sync_folder("folder");
    world.cut();
    assert_eq!(world.names("."), ["f", "old", "removed", "target"]);
    assert_eq!(world.bytes("f"), Some(vec![1; 10_000]));
    for (name, wanted) in [
        ("removed", "still there"),
        ("old", "moved"),
        ("target", "replaced"),
    ] {
        assert_eq!(world.bytes(name).as_deref(), Some(wanted.as_bytes()), "{name}");
    }
    assert!(
        file.write_all_at(b"x", 0).is_err(),
        "the process that had it open is gone"
    );
    let counters = world.disk.counters();
    assert_eq!((counters.power_cuts, counters.names_lost), (1, 4));
    assert_eq!(counters.sectors_lost, 20_100_u64.div_ceil(512));
}

#[test]
fn a_power_cut_leaves_what_was_synced() {
    let Some(world) = mounted(1) else { return };
    world.write_synced("a", b"first");
    world.write_synced("b", b"second");
    fs::rename(world.path("a"), world.path("b")).unwrap();
    fs::create_dir(world.path("folder")).unwrap();
    world.write_synced("folder/c", b"third");
    world.sync_folder("folder");
    world.cut();
    assert_eq!(world.names("."), ["b", "folder"]);
    assert_eq!(world.bytes("b").as_deref(), Some(&b"first"[..]));
    assert_eq!(world.bytes("folder/c").as_deref(), Some(&b"third"[..]));
    world.cut();
    assert_eq!(world.names("."), ["b", "folder"]);
    let backing = world.folder.path().join("backing");
    assert_eq!(
        fs::read(backing.join("b")).unwrap(),
        b"first",
        "what is durable is in the folder"
    );
    assert_eq!(fs::read_dir(backing.join(backing::ASIDE)).unwrap().count(), 0);
}

#[test]
fn a_torn_cut_leaves_a_mixture_and_the_same_one_for_the_same_seed() {
    let torn = |seed| {
        let world = mounted(seed)?;
        let file = world.write_synced("f", &[1; 40_960]);
        file.write_all_at(&[2; 40_960], 0).unwrap();
        world.disk.lose_power(Tear::Scattered).unwrap();
        let counters = world.disk.counters();
        assert_eq!(counters.sectors_kept + counters.sectors_lost, 80);
        world.bytes("f")
    };
    let Some(first) = torn(5) else { return };
    assert_eq!(Some(&first), torn(5).as_ref());
    assert!(
        first.contains(&1) && first.contains(&2),
        "seed 5 keeps some and loses some"
    );
}

#[test]
fn a_disk_that_lies_about_syncs_loses_what_it_confirmed() {
    let Some(world) = mounted(1) else { return };
    let file = world.write_synced("f", b"true");
    world.tell(DiskFaults {
        lying_sync: true,
        ..DiskFaults::default()
    });
    file.write_all_at(b"lies", 0).unwrap();
    file.sync_all().unwrap();
    world.write_synced("g", b"lies");
    world.cut();
    assert_eq!(world.names("."), ["f"]);
    assert_eq!(world.bytes("f").as_deref(), Some(&b"true"[..]));
    assert_eq!(world.disk.counters().lied, 3);
}

#[test]
fn a_failed_sync_drops_what_it_should_have_made_durable() {
    let Some(world) = mounted(1) else { return };
    let file = world.write_synced("f", &[1; 512]);
    world.tell(DiskFaults {
        fail: vec![Failure {
            on: Operation::Sync,
            error: DiskError::Io,
            after: 0,
            times: Some(1),
            path: None,
        }],
        ..DiskFaults::default()
    });
    file.write_all_at(&[2; 512], 0).unwrap();
    let error = file.sync_all().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    file.sync_all().expect("the second one says that all is well");
    assert_eq!(
        world.bytes("f"),
        Some(vec![2; 512]),
        "and the bytes read as written"
    );
    world.cut();
    assert_eq!(world.bytes("f"), Some(vec![1; 512]));
}

#[test]
fn each_operation_fails_when_told_and_a_full_disk_says_that_it_is() {
    let Some(world) = mounted(1) else { return };
    let file = world.write_synced("f", &[1; 4096]);
    let fails = |on, work: &dyn Fn() -> io::Result<()>| {
        world.tell(DiskFaults {
            fail: vec![Failure {
                on,
                error: DiskError::Quota,
                after: 0,
                times: None,
                path: None,
            }],
            ..DiskFaults::default()
        });
        let error = work().expect_err("a failure");
        assert_eq!(
            error.raw_os_error(),
            Some(rustix::io::Errno::DQUOT.raw_os_error()),
            "{on:?}"
        );
        world.tell(DiskFaults::default());
        work().unwrap_or_else(|error| panic!("{on:?} after it was healed: {error}"));
    };
    fails(Operation::Read, &|| file.read_exact_at(&mut [0; 9], 0));
    fails(Operation::Write, &|| file.write_all_at(&[0; 9], 0));
    fails(Operation::Sync, &|| file.sync_data());
    fails(Operation::SetLen, &|| file.set_len(9_000));
    fails(Operation::SyncFolder, &|| File::open(&world.at)?.sync_all());
    fails(Operation::Create, &|| fs::create_dir(world.path("d")));
    fails(Operation::Rename, &|| {
        fs::rename(world.path("d"), world.path("e"))
    });
    fails(Operation::Remove, &|| fs::remove_dir(world.path("e")));
    world.tell(DiskFaults {
        full: true,
        ..DiskFaults::default()
    });
    let errors = [
        file.write_all_at(&[0; 9], 8_999).unwrap_err(),
        fs::write(world.path("more"), b"x").unwrap_err(),
    ];
    assert!(
        errors
            .iter()
            .all(|error| error.kind() == io::ErrorKind::StorageFull)
    );
    file.write_all_at(&[3; 9], 0).expect("what has its room");
    assert_eq!(rustix::fs::statvfs(&world.at).unwrap().f_bavail, 0);
    world.tell(DiskFaults {
        over_quota: true,
        ..DiskFaults::default()
    });
    let error = file.write_all_at(&[0; 9], 8_999).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    file.write_all_at(&[3; 9], 0).expect("what has its room");
    assert_ne!(rustix::fs::statvfs(&world.at).unwrap().f_bavail, 0);
    world.tell(DiskFaults {
        read_only: true,
        ..DiskFaults::default()
    });
    let error = file.write_all_at(&[0; 9], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn bytes_are_spoiled_on_the_way_and_the_disk_is_not() {
    let Some(world) = mounted(1) else { return };
    let bytes: Vec<u8> = (0..8_192u32).map(|place| (place / 4_096 + 1) as u8).collect();
    let file = world.write_synced("f", &bytes);
    let read = || {
        let mut page = vec![0; 4_096];
        file.read_exact_at(&mut page, 0).unwrap();
        page
    };
    world.tell(DiskFaults {
        flip_read: 1.0,
        ..DiskFaults::default()
    });
    let flipped: u32 = read().iter().map(|byte| (byte ^ 1).count_ones()).sum();
    assert_eq!(flipped, 1);
    world.tell(DiskFaults {
        misdirect_read: 1.0,
        ..DiskFaults::default()
    });
    assert_eq!(read(), vec![2; 4_096]);
    world.tell(DiskFaults {
        stale_read: 1.0,
        lose_write: 1.0,
        spoil_path: Some("f".into()),
        ..DiskFaults::default()
    });
    file.write_all_at(&[9; 10], 0).unwrap();
    assert_eq!(read(), vec![1; 4_096], "the write is lost");
    world.tell(DiskFaults {
        stale_read: 1.0,
        ..DiskFaults::default()
    });
    file.write_all_at(&[9; 10], 0).unwrap();
    assert_eq!(read(), vec![1; 4_096], "the page is the one before");
    world.tell(DiskFaults {
        misdirect_write: 1.0,
        ..DiskFaults::default()
    });
    file.write_all_at(&[8; 10], 0).unwrap();
    world.tell(DiskFaults::default());
    assert_eq!(world.bytes("f").unwrap()[4_096..4_106], [8; 10]);
    let counters = world.disk.counters();
    assert_eq!((counters.flipped_reads, counters.misdirected_reads), (1, 1));
    assert_eq!(
        (
            counters.lost_writes,
            counters.misdirected_writes,
            counters.stale_reads
        ),
        (1, 1, 1)
    );
}

#[test]
fn a_stalled_operation_goes_on_when_the_stall_ends() {
    let Some(world) = mounted(1) else { return };
    let file = world.write_synced("f", b"x");
    world.tell(DiskFaults {
        slow: vec![Slowness {
            on: Operation::Sync,
            delay_ms: 60_000,
            jitter_ms: 0,
            share: 1.0,
            path: None,
        }],
        ..DiskFaults::default()
    });
    let syncs = world.disk.counters().syncs;
    let stalled = std::thread::spawn(move || file.sync_all());
    while world.disk.counters().syncs == syncs {
        std::thread::yield_now();
    }
    fs::write(world.path("g"), b"others go on").unwrap();
    assert!(!stalled.is_finished());
    world.tell(DiskFaults::default());
    stalled.join().unwrap().unwrap();
}

#[test]
fn the_mount_goes_with_its_handle_also_in_a_panic() {
    let Some(world) = mounted(1) else { return };
    let World { disk, at, folder } = world;
    fs::write(at.join("f"), b"x").unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _disk = disk;
        panic!("an end that nobody planned");
    }));
    assert!(ended.is_err());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*at.to_string_lossy()));
    assert_eq!(fs::read(folder.path().join("backing/f")).unwrap(), b"x");
}
