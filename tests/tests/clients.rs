//! Clients that others wrote, unmodified: each sends a message that is read back. The device SDK also goes on while
//! nodes die, its token is renewed, and another client has its identity; what it does beyond that is in files of its
//! own.
//!
//! A client that is not installed fails its test, which says what to install; with
//! `DUNLIN_TEST_WITHOUT_CLIENTS=1` these tests say that they did nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use dunlin_tests::field::Field;
use dunlin_tests::hub::{Device, HOST, Hub};
use dunlin_tests::program::{Serve, Serving, run, workspace};
use dunlin_tests::{PATIENCE, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// The port that the device SDKs dial, whatever they are told.
pub(crate) const SDK_PORT: u16 = 8883;

/// The port that AMQP clients of Azure dial, whatever they are told.
pub(crate) const AMQPS_PORT: u16 = 5671;

/// The port that the device SDKs dial over WebSocket, whatever they are told.
pub(crate) const HTTPS_PORT: u16 = 443;

/// What the device SDK says of a connection that it has lost, or not got, and tries to get again. Whatever else it says
/// is for good.
const PASSING: [&str; 4] = [
    "ConnectionDroppedError",
    "ConnectionFailedError",
    "OperationCancelled",
    "OperationTimeout",
];

/// Seconds that a token of the device SDK is good for.
const TOKEN_S: u64 = 3600;
/// The same for one whose renewal is waited for: the SDK renews it two minutes before its end.
const SHORT_TOKEN_S: u64 = 130;

/// How often two clients with one identity take over from each other in a test.
const TAKE_OVERS: usize = 16;
/// Seconds that so many take at the least: those beyond ten wait, each longer than the one before. Without that they
/// take a third of a second.
const TAKE_OVERS_MIN_S: f64 = 1.5;

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
        dunlin_tests::untested(format_args!("{program} {arguments:?} is not installed"));
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

async fn has_device_sdk() -> bool {
    let install = "pip install azure-iot-device";
    is_there(&python(), &["-c", "import azure.iot.device"], install).await
}

/// One node where the device SDK finds it, and the right to its port; `None` if it is to be left untested.
async fn azure_serving() -> Option<(File, Serve, Serving)> {
    if !has_device_sdk().await {
        return None;
    }
    let turn = sdk_port().await;
    let mut serve = Serve::new(&[]);
    serve.ports.mqtts = SDK_PORT;
    let serving = serve.start().await;
    Some((turn, serve, serving))
}

/// A cluster of three nodes where the Event Hubs SDK finds it, and the right to its port; `None` if it is to be left
/// untested.
pub(crate) async fn event_hubs_field() -> Option<(File, Field)> {
    let install = "pip install azure-eventhub==5.15.1";
    if !is_there(&python(), &["-c", "import azure.eventhub"], install).await {
        return None;
    }
    let turn = port_of_its_own(AMQPS_PORT).await;
    Some((turn, Field::at_amqps_port(3, AMQPS_PORT).await))
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
    if !has_device_sdk().await {
        return None;
    }
    let turns = [port_of_its_own(SDK_PORT).await, port_of_its_own(AMQPS_PORT).await];
    let turn = File::create(std::env::temp_dir().join("dunlin-test-port-443.lock")).expect("a lock file");
    let may_bind = TcpListener::bind(("127.0.0.1", HTTPS_PORT)).is_ok();
    if !may_bind {
        dunlin_tests::untested(
            "WebSocket with the device SDK, which dials port 443; it cannot be bound here",
        );
        let field = Field::at_ports(3, (SDK_PORT, AMQPS_PORT)).await;
        let [mqtts, amqps] = turns;
        return Some(([mqtts, amqps, turn], false, field));
    }
    let field = Field::at_sdk_ports(3, (SDK_PORT, AMQPS_PORT, HTTPS_PORT)).await;
    let [mqtts, amqps] = turns;
    Some(([mqtts, amqps, turn], true, field))
}

/// How the device SDK knows a device.
pub(crate) fn device_connection(device: &Device) -> String {
    format!(
        "HostName={HOST};DeviceId={};SharedAccessKey={}",
        device.id, device.key
    )
}

/// The hub's connection string, through the node in place `place`.
fn service_connection(field: &Field, place: usize) -> String {
    let ready = field.cluster.ready();
    let host = &field.cluster.node(place).expect("the node was ready once").https;
    let (_, policy) = ready.connection_string.split_once(';').expect("a policy");
    format!("HostName={host};{policy}")
}

/// The service SDK in the script `name` at the node in place `place`, concerned with the device `sdk`.
pub(crate) async fn service_at(field: &Field, place: usize, name: &str) -> SdkDevice {
    let connection = service_connection(field, place);
    let ca_file = field.cluster.ready().ca_file.clone();
    let arguments = [connection.as_ref(), ca_file.as_os_str(), "sdk".as_ref()];
    let mut service = SdkDevice::start(name, &arguments);
    service.hear("ready").await;
    service
}

/// Sees that the device SDK has lost its connection, and not given it up.
fn assert_passing(error: &Value) {
    let name = error.as_str().unwrap_or_default();
    assert!(PASSING.contains(&name), "the SDK gives up: {error}");
}

/// A word and a value.
fn read_line(line: &str) -> Option<(String, Value)> {
    let (said, text) = line.split_once(' ')?;
    Some((said.to_owned(), serde_json::from_str(text).ok()?))
}

/// A device with the device SDK, in a process of its own that says what has happened to it.
pub(crate) struct SdkDevice {
    child: Child,
    input: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
    /// How often it has said that it lost its connection, or got none.
    losses: usize,
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
        SdkDevice {
            child,
            input,
            said,
            losses: 0,
        }
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
        read_line(&line).unwrap_or_else(|| panic!("no word and value: {line}"))
    }

    /// What it says next, which is of this kind. Losses of its connection are counted; the SDK gets it again by itself.
    pub(crate) async fn hear(&mut self, kind: &str) -> Value {
        loop {
            let (said, value) = self.hear_any().await;
            if said != "lost" {
                assert_eq!(said, kind, "{value}");
                return value;
            }
            assert_passing(&value["error"]);
            self.losses += 1;
        }
    }

    /// Kills it. Returns what it had said by then and nobody has heard.
    pub(crate) async fn kill(mut self) -> Vec<(String, Value)> {
        self.child.kill().await.expect("it is ours to kill");
        let mut rest = Vec::new();
        while let Some(line) = self.said.next_line().await.expect("it can be read") {
            rest.push(line);
        }
        // It may have died in the middle of the last one.
        rest.iter().filter_map(|line| read_line(line)).collect()
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
    let Some((turn, _serve, serving)) = azure_serving().await else {
        return;
    };
    let hub = Hub::new(&serving.ready);
    let device = hub.create("azure").await;
    let mut command = Command::new(python());
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

/// A device that sends without pause with the device SDK, in a process of its own.
struct Sender {
    sdk: SdkDevice,
    id: String,
}

impl Sender {
    async fn start(field: &Field, id: &str, token_s: u64) -> Sender {
        let device = field.hub.create(id).await;
        let (connection, token_s) = (device_connection(&device), token_s.to_string());
        let ca_file = field.cluster.ready().ca_file.clone();
        let arguments = [connection.as_ref(), ca_file.as_os_str(), token_s.as_ref()];
        let mut sdk = SdkDevice::start("azure_telemetry.py", &arguments);
        sdk.hear("connected").await;
        Sender { sdk, id: device.id }
    }

    /// Returns when `count` more of its messages are acknowledged.
    async fn more(&mut self, count: usize) {
        self.sdk.say(&format!("more {count}")).await;
        self.sdk.hear("more").await;
    }

    /// Returns when its token was renewed `count` times in all.
    async fn renewed(&mut self, count: usize) {
        self.sdk.say(&format!("renewed {count}")).await;
        self.sdk.hear("renewed").await;
    }

    /// How often the SDK has said what, that nobody has asked for.
    async fn losses(&mut self) -> Value {
        self.sdk.say("losses").await;
        self.sdk.hear("losses").await
    }

    /// Has it come to an end: every message that it began is acknowledged and stored, and the SDK has given nothing up.
    async fn finish(mut self, hub: &Hub) {
        self.sdk.say("stop").await;
        let told = self.sdk.hear("stopped").await;
        self.sdk.end().await;
        for error in told["background"].as_object().expect("counts").keys() {
            assert_passing(&json!(error));
        }
        let mut next = vec![0; told["acknowledged"].as_array().expect("a list").len()];
        for body in hub.read_device(&self.id).await {
            let text = String::from_utf8(body).expect("text");
            let (thread, number) = text.split_once('-').expect("a thread and a number");
            let thread: usize = thread.parse().expect("a thread");
            let number: u64 = number.parse().expect("a number");
            if number == next[thread] {
                next[thread] += 1;
            }
            // What was sent again stands there again.
            assert!(
                number < next[thread],
                "{}: {text} stands before {}",
                self.id,
                next[thread]
            );
        }
        assert_eq!(json!(next), told["acknowledged"], "{}: {told}", self.id);
    }
}

#[tokio::test]
async fn the_azure_device_sdk_loses_no_message_while_nodes_die_and_its_token_is_renewed() {
    let Some((_turns, mut field)) = azure_field().await else {
        return;
    };
    let mut steady = Sender::start(&field, "steady", TOKEN_S).await;
    let mut renewing = Sender::start(&field, "renewing", SHORT_TOKEN_S).await;
    for node in [1, 2] {
        steady.more(50).await;
        renewing.more(50).await;
        field.kill(node).await;
        steady.more(50).await;
        renewing.more(50).await;
        field.restart(node).await;
    }
    assert_eq!(steady.losses().await, json!({}), "its own gateway has lived");

    // The gateway of both dies. Calls that were under way end well when it is back.
    field.kill(0).await;
    field.restart(0).await;
    steady.more(50).await;
    renewing.more(50).await;
    let losses = steady.losses().await;
    assert!(
        losses["ConnectionDroppedError"]
            .as_u64()
            .is_some_and(|count| count > 0),
        "the kill was not felt: {losses}"
    );
    renewing.renewed(2).await;
    renewing.more(50).await;
    steady.finish(&field.hub).await;
    renewing.finish(&field.hub).await;
    field.stop().await;
}

#[tokio::test]
async fn two_azure_device_sdks_with_one_identity_are_slowed_down_and_neither_gives_up() {
    let Some((turn, _serve, serving)) = azure_serving().await else {
        return;
    };
    let hub = Hub::new(&serving.ready);
    let connection = device_connection(&hub.create("one").await);
    let arguments = [connection.as_ref(), serving.ready.ca_file.as_os_str()];
    let mut first = SdkDevice::start("azure_rival.py", &arguments);
    let mut second = SdkDevice::start("azure_rival.py", &arguments);
    // When each of them was thrown out.
    let mut thrown_out: [Vec<f64>; 2] = Default::default();
    while thrown_out.iter().map(Vec::len).sum::<usize>() < TAKE_OVERS {
        let (rival, (said, value)) = tokio::select! {
            heard = first.hear_any() => (0, heard),
            heard = second.hear_any() => (1, heard),
        };
        if said == "lost" {
            assert_passing(&value["error"]);
            if value["error"] == "ConnectionDroppedError" {
                thrown_out[rival].push(value["at_s"].as_f64().expect("a time"));
            }
        } else {
            assert_eq!(said, "connected", "{value}");
        }
    }
    assert!(
        thrown_out.iter().all(|times| times.len() >= TAKE_OVERS / 4),
        "they do not take turns: {thrown_out:?}"
    );
    let mut times = thrown_out.concat();
    times.sort_by(f64::total_cmp);
    let took_s = times[times.len() - 1] - times[0];
    assert!(took_s >= TAKE_OVERS_MIN_S, "nobody is slowed down: {took_s} s");

    // The other one comes back by itself.
    first.end().await;
    second.say("send last").await;
    second.hear("sent").await;
    second.end().await;
    let stored = hub.read_device("one").await;
    assert!(!stored.is_empty() && stored.iter().all(|body| body == b"last"));
    serving.kill().await;
    drop(turn);
}

/// A message to the device, a call, and a message from it.
async fn to_and_fro(hub: &Hub, sdk: &mut SdkDevice, what: &str) {
    let path = "/devices/sdk/messages/devicebound";
    let (status, answer) = hub.call(Method::POST, path, Some(json!(what))).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(sdk.hear("message").await, json!(what).to_string());
    let asked = json!({ "methodName": "echo", "payload": what, "connectTimeoutInSeconds": 60 });
    let (status, answer) = hub.call(Method::POST, "/twins/sdk/methods", Some(asked)).await;
    assert_eq!(
        (status, answer),
        (StatusCode::OK, json!({ "status": 200, "payload": what }))
    );
    assert_eq!(sdk.hear("called").await, what);
    sdk.say(&format!("send {what}")).await;
    assert_eq!(sdk.hear("sent").await, what);
}

#[tokio::test]
async fn the_azure_device_sdk_is_reached_over_websocket_while_nodes_die() {
    let Some((_turns, has_443, mut field)) = azure_field_with_https().await else {
        return;
    };
    if !has_443 {
        return;
    }
    let connection = device_connection(&field.hub.create("sdk").await);
    let ca_file = field.cluster.ready().ca_file.clone();
    let mut sdk = SdkDevice::start("azure_websocket.py", &[connection.as_ref(), ca_file.as_os_str()]);
    sdk.hear("listening").await;
    to_and_fro(&field.hub, &mut sdk, "before").await;
    for (node, what) in [(1, "without 1"), (2, "without 2")] {
        field.kill(node).await;
        to_and_fro(&field.hub, &mut sdk, what).await;
        field.restart(node).await;
    }
    assert_eq!(sdk.losses, 0, "its own gateway has lived");
    field.kill(0).await;
    field.restart(0).await;
    to_and_fro(&field.hub, &mut sdk, "again").await;
    assert!(sdk.losses > 0, "the kill was not felt");
    sdk.end().await;
    let sent = ["before", "without 1", "without 2", "again"].map(str::as_bytes);
    assert_eq!(field.hub.read_device("sdk").await, sent);
    field.stop().await;
}
