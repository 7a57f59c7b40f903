//! A node, and three, on disks that lose their power, tear what was being written, refuse to sync, and lie
//! about it.
//!
//! The disk is `dunlin_chaos::chaosfs`, mounted at the node's data directory. That it can catch a node
//! that trusts its disk too much is shown by the disk that lies: with it, what was acked is lost.

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use dunlin_chaos::chaosfs::faults::{DiskError, DiskFaults, Failure, Operation};
use dunlin_chaos::chaosfs::pages::Tear;
use dunlin_chaos::chaosfs::{ChaosFs, ChaosFsError};
use dunlin_tests::field::Field;
use dunlin_tests::hub::Hub;
use dunlin_tests::judge::{DeviceLog, acked_count, assert_kept, problems};
use dunlin_tests::load::Load;
use dunlin_tests::program::{Serve, Serving, dunlin};
use dunlin_tests::{PATIENCE, eventually};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// Every seed draws other sectors; the one of a failure is in its message.
const SEED: u64 = 7;

/// Power cuts of a whole cluster, and the variable that asks for another number of them.
const CUTS: usize = 4;
const CUTS_VARIABLE: &str = "DUNLIN_TEST_POWER_CUTS";

/// Panics where nothing can be mounted, unless doing without was asked for.
fn must_mount<T>(mounted: Result<T, ChaosFsError>) -> Option<T> {
    mounted
        .inspect_err(|error| {
            let without = std::env::var("DUNLIN_TEST_WITHOUT_MOUNT").is_ok_and(|value| value == "1");
            assert!(
                without,
                "{error}. Run as root with /dev/fuse and fusermount3, or set DUNLIN_TEST_WITHOUT_MOUNT=1 to \
                 leave disk faults untested."
            );
            dunlin_tests::untested(error);
        })
        .ok()
}

/// A node on such a disk. Fields are dropped in order: the mount goes before what is behind it.
struct World {
    serve: Serve,
    disk: ChaosFs,
    _backing: TempDir,
}

impl World {
    fn new() -> Option<World> {
        let serve = Serve::new(&[]);
        fs::create_dir_all(serve.data()).expect("a folder");
        let backing = TempDir::new().expect("a folder for temporary files");
        let disk = must_mount(ChaosFs::mount(backing.path(), &serve.data(), SEED))?;
        Some(World {
            serve,
            disk,
            _backing: backing,
        })
    }

    /// Sends until `count` messages are acknowledged, kills the node while it is at it, and cuts the power.
    async fn load_and_cut(
        &self,
        serving: Serving,
        devices: &str,
        count: usize,
        tear: Tear,
    ) -> Vec<DeviceLog> {
        let hub = Hub::new(&serving.ready);
        let devices = hub.create_many(devices, 8).await;
        let load = Load::start(&hub.doors, &devices);
        load.wait_acked(count).await;
        serving.kill().await;
        let logs = load.abandon().await;
        self.disk.lose_power(tear).expect("the power cut");
        logs
    }
}

#[tokio::test]
async fn a_node_loses_nothing_that_was_acked_when_the_power_fails() {
    let Some(world) = World::new() else { return };
    let mut serving = world.serve.start().await;
    let mut logs = Vec::new();
    for (life, tear) in [
        Tear::Nothing,
        Tear::Prefix,
        Tear::Suffix,
        Tear::Middle,
        Tear::Scattered,
        Tear::Nothing,
    ]
    .into_iter()
    .enumerate()
    {
        let before = world.disk.counters();
        let prefix = format!("life-{life}-");
        logs.extend(world.load_and_cut(serving, &prefix, 300, tear).await);
        let after = world.disk.counters();
        assert!(
            after.sectors_lost + after.sectors_kept > before.sectors_lost + before.sectors_kept,
            "the cut hit nothing that was under way: {after:?}"
        );
        serving = world.serve.start().await;
        assert_kept(&logs, &Hub::new(&serving.ready).read_all().await);
    }
    assert!(acked_count(&logs) >= 1_800);
    let counters = world.disk.counters();
    assert!(counters.torn_files > 0, "nothing was torn: {counters:?}");
}

#[tokio::test]
async fn a_disk_that_lies_about_syncs_is_found_out_by_what_is_lost() {
    let Some(world) = World::new() else { return };
    let serving = world.serve.start().await;
    let honest = world.load_and_cut(serving, "honest-", 200, Tear::Nothing).await;
    let serving = world.serve.start().await;
    let lying_sync = DiskFaults {
        lying_sync: true,
        ..DiskFaults::default()
    };
    let hub = Hub::new(&serving.ready);
    let devices = hub.create_many("fooled-", 8).await;
    world.disk.set(lying_sync).expect("faults within bounds");
    let load = Load::start(&hub.doors, &devices);
    load.wait_acked(200).await;
    serving.kill().await;
    let fooled = load.abandon().await;
    world.disk.lose_power(Tear::Nothing).expect("the power cut");
    world.disk.set(DiskFaults::default()).expect("no faults");
    let serving = world.serve.start().await;
    let stored = Hub::new(&serving.ready).read_all().await;
    assert_kept(&honest, &stored);
    let lost = problems(&fooled, &stored);
    let lost = lost.iter().filter(|problem| problem.starts_with("LOST")).count();
    assert_eq!(
        lost,
        acked_count(&fooled),
        "the disk kept nothing, so nothing can be there"
    );
}

#[tokio::test]
async fn a_node_that_cannot_sync_ends_and_has_acked_nothing_that_was_not_durable() {
    let Some(world) = World::new() else { return };
    let mut logs = Vec::new();
    for (life, on) in [Operation::Sync, Operation::Write].into_iter().enumerate() {
        let serving = world.serve.start().await;
        let hub = Hub::new(&serving.ready);
        let devices = hub.create_many(&format!("life-{life}-"), 8).await;
        let load = Load::start(&hub.doors, &devices);
        load.wait_acked(200).await;
        let failed = world.disk.counters().failed;
        let failure = Failure {
            on,
            error: DiskError::Io,
            after: 0,
            times: Some(1),
            path: Some("journal".into()),
        };
        let faults = DiskFaults {
            fail: vec![failure],
            ..DiskFaults::default()
        };
        world.disk.set(faults).expect("faults within bounds");
        let pid = serving.ready.nodes[0].pid;
        eventually("the node gone by itself", PATIENCE, || async {
            is_gone(pid).then_some(())
        })
        .await;
        serving.kill().await;
        logs.extend(load.abandon().await);
        assert_eq!(world.disk.counters().failed, failed + 1, "{on:?}");
        world.disk.lose_power(Tear::Nothing).expect("the power cut");
        let serving = world.serve.start().await;
        assert_kept(&logs, &Hub::new(&serving.ready).read_all().await);
        serving.kill().await;
    }
}

#[tokio::test]
async fn a_cluster_that_loses_its_power_as_a_whole_starts_by_itself_and_has_what_was_acked() {
    let Some((disks, mut field)) = must_mount(Field::on_disks(3, &[]).await) else {
        return;
    };
    let cuts = std::env::var(CUTS_VARIABLE).map_or(CUTS, |cuts| cuts.parse().expect("a number"));
    let mut random = StdRng::seed_from_u64(SEED);
    let mut logs = Vec::new();
    for cut in 0..cuts {
        field.settled("the cluster healthy", |_| true).await;
        let devices = field.hub.create_many(&format!("cut-{cut}-"), 6).await;
        let load = Load::start(&field.hub.doors, &devices);
        load.wait_acked(random.random_range(50..600)).await;
        let tears = [
            Tear::Nothing,
            Tear::Prefix,
            Tear::Suffix,
            Tear::Middle,
            Tear::Scattered,
        ];
        let tear = tears[random.random_range(0..tears.len())];
        let cut_power = || {
            for disk in &disks {
                disk.lose_power(tear).expect("the power cut");
            }
        };
        field.kill_all_and(cut_power).await;
        logs.extend(load.abandon().await);
        field.settled("the cluster healthy by itself", |_| true).await;
        assert_kept(&logs, &field.hub.read_all().await);
    }
    for disk in &disks {
        let counters = disk.counters();
        assert_eq!(counters.power_cuts, cuts as u64);
        assert!(counters.sectors_lost > 0, "the cuts hit nothing: {counters:?}");
    }
    eprintln!("{cuts} power cuts, {} acked", acked_count(&logs));
    field.stop().await;
}

#[tokio::test]
async fn the_command_mounts_obeys_its_socket_and_leaves_no_mount_however_it_ends() {
    // Whether anything can be mounted here at all.
    if World::new().is_none() {
        return;
    }
    for signal in [Signal::TERM, Signal::KILL] {
        let folder = TempDir::new().expect("a folder for temporary files");
        let [at, backing] = ["at", "backing"].map(|name| folder.path().join(name));
        let socket = folder.path().join("control");
        for folder in [&at, &backing] {
            fs::create_dir(folder).expect("a folder");
        }
        let mut command = Command::new(dunlin());
        command.args(["chaos", "fs"]).args([&at, &backing]);
        command.arg("--control").arg(&socket);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the program starts");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = output.next_line().await.expect("a line").expect("a line");
        assert!(line.contains(&*socket.to_string_lossy()), "{line}");
        fs::write(at.join("unsynced"), b"x").expect("a file");
        let mut switches = UnixStream::connect(&socket).expect("the socket");
        let mut answers = std::io::BufReader::new(switches.try_clone().expect("a handle"));
        let mut ask = |request: &str| {
            writeln!(switches, "{request}").expect("the socket takes it");
            let mut answer = String::new();
            answers.read_line(&mut answer).expect("an answer");
            serde_json::from_str::<Value>(&answer).expect("JSON")
        };
        assert_eq!(ask(r#"{"lose_power":"nothing"}"#), "done");
        assert!(!at.join("unsynced").exists());
        assert_eq!(ask(r#""counters""#)["counters"]["names_lost"], 1);
        assert_eq!(ask(r#"{"set":{"read_only":true}}"#), "done");
        assert!(fs::write(at.join("more"), b"x").is_err());
        assert!(ask(r#"{"set":{"flip_read":2}}"#)["error"].is_string());
        let pid = child
            .id()
            .and_then(|pid| Pid::from_raw(pid as i32))
            .expect("it runs");
        kill_process(pid, signal).expect("it is ours to kill");
        child.wait().await.expect("it ends");
        let point = at.to_string_lossy().into_owned();
        eventually("the mount gone", PATIENCE, || async {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or(point.clone());
            (!mounts.contains(&point)).then_some(())
        })
        .await;
    }
}

/// Whether a process has ended, though nobody may have asked for its end yet.
fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| {
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
    })
}
