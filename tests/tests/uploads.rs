//! Files of devices with the SDKs that others wrote: the device SDK begins and ends uploads, Python's HTTP client and
//! Azure's client of blobs bring them, through nodes of which one is killed in the middle, and services hear of them.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_node::ready::Ready;
use dunlin_tests::field::Field;
use dunlin_tests::program::{dunlin, run};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::clients::{
    AMQPS_PORT, HTTPS_PORT, SDK_PORT, SdkDevice, is_there, port_of_its_own, python, script,
};

/// What the script brings.
fn content(size: usize) -> Vec<u8> {
    (0..size).map(|n| ((n * n + size) % 251) as u8).collect()
}

struct Uploader(SdkDevice);

impl Uploader {
    async fn begin(&mut self, name: &str) -> Value {
        self.0
            .say(&json!({ "do": "begin", "name": name }).to_string())
            .await;
        self.0.hear("begun").await
    }

    /// Through `host`, or the one that the hub named.
    async fn put(&mut self, info: &Value, host: Option<&str>, query: &str, size: usize) -> Value {
        let order = json!({ "do": "put", "info": info, "host": host, "query": query, "size": size });
        self.0.say(&order.to_string()).await;
        self.0.hear("put").await
    }

    async fn put_list(&mut self, info: &Value, ids: &[&str]) -> Value {
        let items = ids.iter().map(|id| format!("<Latest>{id}</Latest>"));
        let text = format!("<BlockList>{}</BlockList>", items.collect::<String>());
        let order =
            json!({ "do": "put", "info": info, "host": null, "query": "&comp=blocklist", "text": text });
        self.0.say(&order.to_string()).await;
        self.0.hear("put").await
    }

    async fn end(&mut self, info: &Value) {
        let order = json!({ "do": "end", "id": info["correlationId"], "ok": true });
        self.0.say(&order.to_string()).await;
        self.0.hear("notified").await;
    }
}

fn stored(store: &Path, name: &str) -> Vec<u8> {
    let path = store.join("uploads/sdk").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file as a service reads it through the node in place `door`.
async fn read(field: &Field, ready: &Ready, door: usize, name: &str) -> Vec<u8> {
    let path = format!("/uploads/sdk/{name}");
    let request = field.hub.request(door, Method::GET, &path);
    let answer = request.bearer_auth(&ready.admin_token).send().await;
    let answer = answer.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.bytes().await.expect("the file").to_vec()
}

/// The notifications that a program printed.
fn notices(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn files_come_through_a_cluster_whose_nodes_die() {
    let imports = "import azure.iot.device, azure.iot.hub, azure.storage.blob";
    let install = "pip install azure-iot-device azure-iot-hub six azure-storage-blob";
    if !is_there(&python(), &["-c", imports], install).await {
        return;
    }
    let _turns = [port_of_its_own(SDK_PORT).await, port_of_its_own(AMQPS_PORT).await];
    if TcpListener::bind(("127.0.0.1", HTTPS_PORT)).is_err() {
        dunlin_tests::untested("uploads with the device SDK, which dials port 443; it cannot be bound here");
        return;
    }
    let _turn = port_of_its_own(HTTPS_PORT).await;
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store");
    let config = folder.path().join("dunlin.toml");
    let text = format!("object_store = \"file://{}\"\n", store.display());
    std::fs::write(&config, text).expect("it is written");
    let arguments = ["--config", config.to_str().expect("a path that is text")];
    let ports = (SDK_PORT, AMQPS_PORT, HTTPS_PORT);
    let mut field = Field::at_sdk_ports_with(3, ports, &arguments).await;
    let device = field.hub.create("sdk").await;
    let ready = field.cluster.ready().clone();
    let connection = format!("HostName=localhost;DeviceId=sdk;SharedAccessKey={}", device.key);
    let mut sdk = Uploader(SdkDevice::start(
        "azure_upload.py",
        &[connection.as_ref(), ready.ca_file.as_os_str()],
    ));
    sdk.0.hear("connected").await;

    // Begun before a node dies, brought and ended after.
    let info = sdk.begin("a dir/first.bin").await;
    assert_eq!(info["hostName"], "localhost");
    assert_eq!(info["blobName"], "sdk/a dir/first.bin");
    field.kill(1).await;
    assert_eq!(sdk.put(&info, None, "", 300_000).await, 201);
    sdk.end(&info).await;
    assert!(stored(&store, "a dir/first.bin") == content(300_000));
    field.restart(1).await;

    // In blocks, by the client that Azure's users have; a node dies between two of them.
    let info = sdk.begin("second.bin").await;
    let size = 3_000_000;
    let order = json!({ "do": "sdk", "info": info, "size": size });
    sdk.0.say(&order.to_string()).await;
    sdk.0.hear("half").await;
    field.kill(2).await;
    sdk.0.say("go on").await;
    assert_eq!(sdk.0.hear("uploaded").await, true);
    assert_eq!(sdk.0.hear("again").await, "ResourceExistsError");
    assert_eq!(sdk.0.hear("size").await, "ClientAuthenticationError");
    sdk.end(&info).await;
    assert!(stored(&store, "second.bin") == content(size));
    field.restart(2).await;

    // Blocks through two gateways, of which the second dies; the other makes a file of them.
    let info = sdk.begin("third.bin").await;
    let ids = ["one", "two"].map(|id| STANDARD.encode(id));
    let query = |id: &str| format!("&comp=block&blockid={id}");
    assert_eq!(sdk.put(&info, None, &query(&ids[0]), 1_000).await, 201);
    assert_eq!(
        sdk.put(&info, Some("127.0.0.2"), &query(&ids[1]), 2_000).await,
        201
    );
    field.kill(1).await;
    for _ in 0..2 {
        assert_eq!(sdk.put_list(&info, &[&ids[1], &ids[0]]).await, 201);
    }
    sdk.end(&info).await;
    let third = [content(2_000), content(1_000)].concat();
    assert!(stored(&store, "third.bin") == third);
    // Nothing waits any more, as soon as it is removed.
    let begun = Instant::now();
    while store.join(".uploads").exists() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Its time is over: nothing comes under its token.
    assert_eq!(sdk.put(&info, None, "", 10).await, 403);
    sdk.0.end().await;

    // Services hear of each, by the command line and over AMQP, and read it through any gateway.
    let mut monitor = Command::new(dunlin());
    monitor
        .args(["monitor", "file-notifications", "--count", "2", "-o", "json"])
        .args(["--connection-string", &ready.connection_string])
        .arg("--ca")
        .arg(&ready.ca_file);
    let (status, text) = run(monitor).await;
    assert!(status.success(), "{text}");
    let mut heard = notices(&text);
    let mut reader = Command::new(python());
    reader
        .arg(script("azure_feedback.py"))
        .arg(&ready.connection_string)
        .arg(&ready.ca_file)
        .args(["1", "filenotifications"]);
    let (status, text) = run(reader).await;
    assert!(status.success(), "{text}");
    heard.extend(notices(&text));
    let said: Vec<_> = heard
        .iter()
        .map(|notice| (notice["blobName"].as_str(), notice["blobSizeInBytes"].as_u64()))
        .collect();
    assert_eq!(
        said,
        [
            (Some("sdk/a dir/first.bin"), Some(300_000)),
            (Some("sdk/second.bin"), Some(size as u64)),
            (Some("sdk/third.bin"), Some(3_000)),
        ]
    );
    assert!(heard.iter().all(|notice| notice["deviceId"] == "sdk"));
    assert_eq!(
        heard[0]["blobUri"],
        "https://localhost/uploads/sdk/a%20dir/first.bin"
    );
    assert!(read(&field, &ready, 2, "second.bin").await == content(size));
    assert!(read(&field, &ready, 0, "a%20dir/first.bin").await == content(300_000));
    field.stop().await;
}
