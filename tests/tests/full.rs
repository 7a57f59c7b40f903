//! A node on a disk that really runs full, a file system in memory of its own: writes are refused and
//! nothing of them is stored, reads are served, and it goes on by itself when there is room again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use dunlin_gateway::client::{Client, Event};
use dunlin_tests::hub::Hub;
use dunlin_tests::program::Serve;
use dunlin_tests::{PATIENCE, eventually};
use reqwest::{Method, StatusCode};

/// Room for the journal's first segments, the state, and something to fill.
const SIZE: &str = "size=1g";
/// What stays free: less than a node keeps in reserve, more than it uses of that.
const FREE_BYTES: u64 = 64 << 20;

/// What the node's metrics say when all of its shards have noticed, and when none has anything to notice.
const SHARDS_FULL: &str = "dunlin_shards_full 4";
const NONE_FULL: &str = "dunlin_shards_full 0";

/// A file system that is gone with this.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounts one. Panics if that is not permitted, unless doing without was asked for.
    fn new(at: &Path) -> Option<Mounted> {
        fs::create_dir_all(at).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(at);
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Mounted(at.to_owned()));
        }
        let without = std::env::var("DUNLIN_TEST_WITHOUT_MOUNT").is_ok_and(|value| value == "1");
        assert!(
            without,
            "no file system can be mounted here. Run as root, or set DUNLIN_TEST_WITHOUT_MOUNT=1 to leave \
             a really full disk untested."
        );
        dunlin_tests::untested("no file system can be mounted here");
        None
    }

    fn free_bytes(&self) -> u64 {
        let stat = Command::new("stat")
            .args(["--file-system", "--format=%a %S"])
            .arg(&self.0)
            .output()
            .expect("stat runs");
        let text = String::from_utf8(stat.stdout).expect("text");
        text.split_whitespace()
            .map(|number| number.parse::<u64>().expect("a number"))
            .product()
    }

    /// Fills it with one file, whose name is returned.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("something-else");
        let mut file = File::create(&path).expect("a file");
        let step = vec![0; 1 << 20];
        while self.free_bytes() > FREE_BYTES {
            file.write_all(&step).expect("room for one more step");
        }
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, since the node may be on its way out.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_really_full_disk_refuses_writes_serves_reads_and_recovers() {
    let serve = Serve::new(&[]);
    let Some(disk) = Mounted::new(&serve.data()) else {
        return;
    };
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    let device = hub.create("room-1").await;
    let mut client = Client::connect(&hub.doors[0].options(&device))
        .await
        .expect("the device is let in");
    let topic = format!("devices/{}/messages/events/", device.id);
    let mut publish = async |body: &[u8]| {
        let id = client.publish(&topic, body).await.expect("a connection");
        match tokio::time::timeout(PATIENCE, client.next_event()).await {
            Ok(Event::Puback { id: acked, .. }) if acked == id => Ok(()),
            Ok(Event::Refused { id: refused, reason }) if refused == id => Err(reason),
            other => panic!("{other:?}"),
        }
    };
    publish(b"before").await.expect("there is room");

    let something_else = disk.fill();
    eventually("every shard has noticed", PATIENCE, || async {
        let shown = hub.request(0, Method::GET, "/metrics").send().await.ok()?;
        let text = shown.text().await.ok()?;
        text.lines().any(|line| line == SHARDS_FULL).then_some(())
    })
    .await;
    assert_eq!(publish(b"refused").await, Err(0x97));
    let post = hub
        .request(
            0,
            Method::POST,
            &format!("/devices/{}/messages/events", device.id),
        )
        .header("Authorization", device.token())
        .body("refused");
    let answer = post.send().await.expect("an answer");
    let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(text.contains("StorageFull"), "{text}");
    assert_eq!(hub.read_device(&device.id).await, [b"before"]);

    fs::remove_file(something_else).expect("the file is ours");
    eventually("no shard is full", PATIENCE, || async {
        let shown = hub.request(0, Method::GET, "/metrics").send().await.ok()?;
        let text = shown.text().await.ok()?;
        text.lines().any(|line| line == NONE_FULL).then_some(())
    })
    .await;
    publish(b"after").await.expect("there is room again");
    assert_eq!(hub.read_device(&device.id).await, [&b"before"[..], b"after"]);
}
