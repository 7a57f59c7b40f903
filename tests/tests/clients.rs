//! Clients that others wrote, unmodified: each sends a message that is read back.
//!
//! A client that is not installed fails its test, which says what to install; with
//! `DUNLIN_TEST_WITHOUT_CLIENTS=1` these tests say that they did nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use dunlin_tests::field::Field;
use dunlin_tests::hub::{HOST, Hub};
use dunlin_tests::program::{Serve, run, workspace};
use dunlin_tests::{PATIENCE, eventually};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// The port that the device SDKs dial, whatever they are told.
pub(crate) const SDK_PORT: u16 = 8883;

/// The port that AMQP clients of Azure dial, whatever they are told.
pub(crate) const AMQPS_PORT: u16 = 5671;

/// The port that the device SDKs dial over WebSocket, whatever they are told.
pub(crate) const HTTPS_PORT: u16 = 443;

pub(crate) fn python() -> String {
    std::env::var("DUNLIN_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

pub(crate) fn script(name: &str) -> PathBuf {
    workspace().join("tests/tests/clients").join(name)
}

/// Whether a client can be run. Panics if it cannot, unless doing without was asked for.
pub(crate) async fn is_there(program: &str, arguments: &[&str], install: &str) -> bool {
    let mut command = Command::new(program);
    command.args(arguments);
    let is_there = command.output().await.is_ok_and(|output| output.status.success());
    if !is_there {
        let without = std::env::var("DUNLIN_TEST_WITHOUT_CLIENTS").is_ok_and(|value| value == "1");
        assert!(
            without,
            "{program} {arguments:?} does not run. Install it ({install}), or set \
             DUNLIN_TEST_WITHOUT_CLIENTS=1 to leave this client untested."
        );
        eprintln!("NOT TESTED: {program} {arguments:?} is not installed");
    }
    is_there
}

pub(crate) async fn must_succeed(command: Command) {
    let shown = format!("{:?}", command.as_std().get_program());
    let (status, text) = run(command).await;
    assert!(status.success(), "{shown} ends with {status}:\n{text}");
}

/// The right to the port that the device SDKs dial, until it is dropped.
pub(crate) async fn sdk_port() -> File {
    port_of_its_own(SDK_PORT).await
}

/// The right to a port that clients dial whatever they are told: tests on one machine take turns.
pub(crate) async fn port_of_its_own(port: u16) -> File {
    let turn = tokio::task::spawn_blocking(move || {
        let path = std::env::temp_dir().join(format!("dunlin-test-port-{port}.lock"));
        let file = File::create(path).expect("a lock file");
        file.lock().expect("our turn");
        file
    });
    let turn = turn.await.expect("waiting does not panic");
    let what = format!("port {port} of 127.0.0.1 free; the SDK dials no other");
    eventually(&what, PATIENCE, || async {
        TcpListener::bind(("127.0.0.1", port)).ok()
    })
    .await;
    turn
}

/// A cluster of three nodes where both Azure SDKs find it, and the right to its ports; `None` if they are to be left
/// untested.
pub(crate) async fn azure_field() -> Option<([File; 2], Field)> {
    let imports = "import azure.iot.device, azure.iot.hub";
    let install = "pip install azure-iot-device azure-iot-hub six";
    if !is_there(&python(), &["-c", imports], install).await {
        return None;
    }
    let turns = [port_of_its_own(SDK_PORT).await, port_of_its_own(AMQPS_PORT).await];
    Some((turns, Field::at_ports(3, (SDK_PORT, AMQPS_PORT)).await))
}

/// The same, where the device SDK finds it over WebSocket as well, if that port may be bound here; and whether it may.
pub(crate) async fn azure_field_with_https() -> Option<([File; 3], bool, Field)> {
    if !is_there(
        &python(),
        &["-c", "import azure.iot.device"],
        "pip install azure-iot-device",
    )
    .await
    {
        return None;
    }
    let turns = [port_of_its_own(SDK_PORT).await, port_of_its_own(AMQPS_PORT).await];
    let turn = File::create(std::env::temp_dir().join("dunlin-test-port-443.lock")).expect("a lock file");
    let may_bind = TcpListener::bind(("127.0.0.1", HTTPS_PORT)).is_ok();
    if !may_bind {
        eprintln!("NOT TESTED: WebSocket with the device SDK, which dials port 443; it cannot be bound here");
        let field = Field::at_ports(3, (SDK_PORT, AMQPS_PORT)).await;
        let [mqtts, amqps] = turns;
        return Some(([mqtts, amqps, turn], false, field));
    }
    let field = Field::at_sdk_ports(3, (SDK_PORT, AMQPS_PORT, HTTPS_PORT)).await;
    let [mqtts, amqps] = turns;
    Some(([mqtts, amqps, turn], true, field))
}

/// A device with the device SDK, in a process of its own that says what has happened to it.
pub(crate) struct SdkDevice {
    child: Child,
    input: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl SdkDevice {
    /// Runs the script `name` with these arguments.
    pub(crate) fn start(name: &str, arguments: &[&OsStr]) -> SdkDevice {
        let mut child = Command::new(python())
            .arg(script(name))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python can be started");
        let said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let input = child.stdin.take().expect("it is piped");
        SdkDevice { child, input, said }
    }

    /// Tells it what to do.
    pub(crate) async fn say(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.input.write_all(line.as_bytes()).await.expect("it listens");
    }

    /// What it says next: a word, and a value.
    pub(crate) async fn hear_any(&mut self) -> (String, Value) {
        let line = timeout(PATIENCE, self.said.next_line()).await;
        let line = line
            .expect("it says something")
            .expect("it can be read")
            .expect("it has not ended");
        let (said, text) = line.split_once(' ').expect("a word and a value");
        (said.to_owned(), serde_json::from_str(text).expect("JSON"))
    }

    /// What it says next, which is of this kind.
    pub(crate) async fn hear(&mut self, kind: &str) -> Value {
        let (said, value) = self.hear_any().await;
        assert_eq!(said, kind, "{value}");
        value
    }

    /// Has it end, and sees that it does so well.
    pub(crate) async fn end(mut self) {
        self.say("end").await;
        self.hear("ended").await;
        assert!(self.child.wait().await.expect("it ends").success());
    }
}

#[tokio::test]
async fn mosquitto_pub_sends_a_message() {
    if !is_there(
        "sh",
        &["-c", "command -v mosquitto_pub"],
        "apt-get install mosquitto-clients",
    )
    .await
    {
        return;
    }
    let serve = Serve::new(&[]);
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    let device = hub.create("mosquitto").await;
    let mut command = Command::new("mosquitto_pub");
    command
        .args(["--host", HOST, "--port", &serve.ports.mqtts.to_string()])
        .arg("--cafile")
        .arg(&serving.ready.ca_file)
        .args(["--id", &device.id, "--qos", "1", "--protocol-version", "mqttv311"])
        .args([
            "--username",
            &format!("{HOST}/{}/?api-version=2021-04-12", device.id),
        ])
        .args(["--pw", &device.token()])
        .args(["--topic", "devices/mosquitto/messages/events/"])
        .args(["--message", "from mosquitto"]);
    must_succeed(command).await;
    assert_eq!(hub.read_device("mosquitto").await, [b"from mosquitto"]);
}

#[tokio::test]
async fn paho_sends_a_message() {
    let python = python();
    if !is_there(
        &python,
        &["-c", "import paho.mqtt.client"],
        "pip install paho-mqtt",
    )
    .await
    {
        return;
    }
    let serve = Serve::new(&[]);
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    let device = hub.create("paho").await;
    let mut command = Command::new(python);
    command
        .arg(script("paho_send.py"))
        .args([HOST, &serve.ports.mqtts.to_string()])
        .arg(&serving.ready.ca_file)
        .args([&device.id, &device.token(), "from paho"]);
    must_succeed(command).await;
    assert_eq!(hub.read_device("paho").await, [b"from paho"]);
}

#[tokio::test]
async fn the_azure_device_sdk_sends_a_message() {
    let python = python();
    if !is_there(
        &python,
        &["-c", "import azure.iot.device"],
        "pip install azure-iot-device",
    )
    .await
    {
        return;
    }
    let turn = sdk_port().await;
    let mut serve = Serve::new(&[]);
    serve.ports.mqtts = SDK_PORT;
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    let device = hub.create("azure").await;
    let mut command = Command::new(python);
    command
        .arg(script("azure_send.py"))
        .arg(format!(
            "HostName={HOST};DeviceId={};SharedAccessKey={}",
            device.id, device.key
        ))
        .arg(&serving.ready.ca_file)
        .arg("from the SDK");
    must_succeed(command).await;
    assert_eq!(hub.read_device("azure").await, [b"from the SDK"]);
    serving.kill().await;
    drop(turn);
}
