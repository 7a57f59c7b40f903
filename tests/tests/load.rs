//! `dunlin load` as its users run it: against a cluster that keeps its word, a sink, and a broker that
//! breaks its word in every way that a comparison must notice.

use std::path::PathBuf;
use std::process::Stdio;

use dunlin_tests::PATIENCE;
use dunlin_tests::field::Field;
use dunlin_tests::forgetful::{Forgetful, Misdeed};
use dunlin_tests::ports::free_port;
use dunlin_tests::program::{Serve, dunlin};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How a run ended: its exit code, standard output and standard error.
struct Ended {
    code: Option<i32>,
    output: String,
    errors: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.output)
            .unwrap_or_else(|error| panic!("{error}:\n{}\n{}", self.output, self.errors))
    }
}

/// `dunlin load` with these words.
fn load(words: &str) -> Command {
    let mut command = Command::new(dunlin());
    command.arg("load").args(words.split_whitespace());
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn ended(mut command: Command) -> Ended {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{command:?} does not end"))
        .expect("the program runs");
    Ended {
        code: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A null sink as a process, with the port that it took.
async fn null_sink(words: &str) -> (Child, u64) {
    let mut command = load(&format!("null-sink -o json --port 0 {words}"));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    let line = line.expect("in time").expect("it can be read").expect("a line");
    let ready: Value = serde_json::from_str(&line).expect("JSON");
    let address = ready["mqtt"].as_str().expect("an address").to_owned();
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    (child, port.expect("a port"))
}

fn file(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

/// Three healthy nodes, and the folder that all of theirs lie in.
async fn healthy_cluster(arguments: &[&str]) -> (Field, PathBuf) {
    let field = Field::start(3, arguments).await;
    field.settled("the cluster healthy", |_| true).await;
    let data = field
        .data(0)
        .parent()
        .expect("the cluster's own folder")
        .to_owned();
    (field, data)
}

#[tokio::test]
async fn a_cluster_that_keeps_its_word_passes_and_the_run_is_on_paper() {
    let folder = TempDir::new().expect("a folder");
    let (field, data) = healthy_cluster(&["--mqtt-port", &free_port().to_string()]).await;
    let (log, page) = (file(&folder, "a.hdr"), file(&folder, "a.html"));
    // Fewer messages each than a window holds, so that none waits for a busy machine's answers.
    let words = "pub -c 9 --rate 250 --duration 1 --warm-up 0 --verify -o json";
    let mut command = load(words);
    command.arg("--data").arg(&data);
    command.arg("--hdr").arg(&log).arg("--report").arg(&page);
    let judged = ended(command).await;
    assert_eq!(judged.code, Some(0), "{}{}", judged.output, judged.errors);
    let figures = judged.json();
    assert_eq!(figures["loop"], "open");
    // A judged run has its ceiling beside it as any other.
    assert!(
        figures["ceiling_per_s"].as_f64().is_some_and(|per_s| per_s > 0.0)
            && figures["ceiling_note"].is_null(),
        "{}",
        judged.output
    );
    assert_eq!(figures["counts"]["sent"], 250);
    assert_eq!(figures["latency_us"]["count"], 250, "{}", judged.output);
    let verification = &figures["verification"];
    assert_eq!(
        (&verification["verdict"], &verification["acked"]),
        (&"PASS".into(), &250.into())
    );
    let distinct = |verification: &Value| {
        let number = |name: &str| verification[name].as_u64().expect("a number");
        number("found") - number("duplicated")
    };
    assert_eq!(distinct(verification), 250, "{verification}");

    // A second run on the same devices is judged by itself, through the other doors.
    for door in ["--plain", "--ws"] {
        let mut command = load(&format!(
            "pub {door} -c 9 --count 200 --closed --verify -V 5 -o json"
        ));
        command.arg("--data").arg(&data);
        let judged = ended(command).await;
        assert_eq!(judged.code, Some(0), "{}{}", judged.output, judged.errors);
        let figures = judged.json();
        let verification = &figures["verification"];
        assert_eq!(distinct(verification), 200, "{verification}");
        let note = match door {
            "--ws" => Value::from("measured without WebSocket"),
            _ => Value::Null,
        };
        assert_eq!(figures["ceiling_note"], note, "{door}");
    }
    field.stop().await;

    let html = std::fs::read_to_string(&page).expect("a page");
    assert!(html.contains("<svg") && html.contains("verdict: PASS") && !html.contains("<script"));
    let merged = ended({
        let mut command = load("merge -o json");
        command.arg(&log);
        command
    });
    assert_eq!(merged.await.json()["latency_us"]["count"], 250);
}

#[tokio::test]
async fn each_way_to_break_ones_word_is_found_and_an_honest_broker_passes() {
    for (misdeed, broken) in [
        (Misdeed::None, None),
        (Misdeed::Forget, Some("lost")),
        (Misdeed::Repeat, Some("duplicated_unexplained")),
        (Misdeed::Alter, Some("phantom")),
        (Misdeed::Delay, Some("reordered")),
        (Misdeed::HangUp, None),
    ] {
        let broker = Forgetful::start(misdeed).await;
        let port = broker.address.port();
        let words = format!(
            "pub -h 127.0.0.1 -p {port} -t t/%i -c 5 --count 1000 --closed --no-ceiling --verify -o json"
        );
        let judged = ended(load(&words)).await;
        let figures = judged.json();
        let verification = &figures["verification"];
        assert_eq!(verification["sent"], 1000, "{misdeed:?}");
        assert_eq!(verification["acked"], 1000, "{misdeed:?}");
        match broken {
            None => {
                assert_eq!(judged.code, Some(0), "{misdeed:?}: {verification}");
                assert_eq!(verification["verdict"], "PASS");
            }
            Some(broken) => {
                assert_eq!(judged.code, Some(1), "{misdeed:?}: {verification}");
                assert_eq!(verification["verdict"], "FAIL");
                assert_eq!(verification[broken], 1, "{misdeed:?}: {verification}");
            }
        }
        if misdeed == Misdeed::HangUp {
            assert_eq!(figures["counts"]["lost"], 1);
            assert_ne!(figures["counts"]["resent"], 0);
            assert!(
                figures["reasons"].to_string().contains("lost: "),
                "{}",
                figures["reasons"]
            );
        }
    }
}

#[tokio::test]
async fn a_sink_acknowledges_everything_and_two_generators_make_one_load() {
    let folder = TempDir::new().expect("a folder");
    let logs = file(&folder, "logs");
    let (mut sink, port) = null_sink(&format!("--wal 2 --log-mib 1 --folder {}", logs.display())).await;
    let mut files = Vec::new();
    for generator in ["1/2", "2/2"] {
        let words = format!(
            "pub -h 127.0.0.1 -p {port} -t t/%i -c 7 -s 900 --count 3001 --closed --generator {generator} -o json"
        );
        let figures = ended(load(&words)).await;
        let json = figures.json();
        let count = if generator == "1/2" { 1715 } else { 1286 };
        assert_eq!(
            json["counts"]["acked"], count,
            "{generator}: clients 0, 2, 4, 6 or 1, 3, 5"
        );
        assert_eq!(
            (&json["loop"], json["corrected_us"].is_object()),
            (&"closed".into(), true)
        );
        let path = file(&folder, &format!("{}.json", files.len()));
        std::fs::write(&path, figures.output).expect("a file");
        files.push(path);
    }
    let mut merge = load("merge -o json");
    merge.args(&files);
    let merged = ended(merge).await.json();
    assert_eq!(
        (&merged["generators"], &merged["latency_us"]["count"]),
        (&2.into(), &3001.into())
    );
    let corrected = merged["corrected_us"]["count"].as_u64();
    assert!(
        merged["corrected"] == 2 && corrected.is_some_and(|count| count >= 3001),
        "{merged}"
    );
    assert_eq!(merged["ceilings_per_s"].as_array().map(Vec::len), Some(2));
    assert!(
        logs.join("log-1")
            .metadata()
            .is_ok_and(|log| log.len() >= 1024 * 1024)
    );

    let targets = format!("a=mqtt://127.0.0.1:{port},b=mqtt://127.0.0.1:{port}");
    let words = format!(
        "compare --targets {targets} -t t/%i -c 3 --count 300 --closed --rounds 2 --rest 0 --no-ceiling -o json"
    );
    let compared = ended(load(&words)).await;
    assert_eq!(compared.code, Some(0), "{}", compared.errors);
    let json = compared.json();
    let order: Vec<&Value> = json["samples"].as_array().expect("samples").iter().collect();
    let order: Vec<u64> = order
        .iter()
        .filter_map(|sample| sample["target"].as_u64())
        .collect();
    assert_eq!(order, [0, 1, 1, 0]);
    assert_eq!(json["targets"][0]["rate_ratio"]["median"], 1.0);
    assert_eq!(json["targets"][1]["runs"], 2);
    sink.kill().await.expect("it is ours");
}

#[tokio::test]
async fn a_load_is_open_and_slow_unless_it_is_told_otherwise_and_has_a_floor_on_request() {
    let (mut sink, port) = null_sink("").await;
    let base = format!("pub -h 127.0.0.1 -p {port} -t t -o json");
    let open = ended(load(&format!("{base} -c 3 --count 3 --no-ceiling"))).await;
    let json = open.json();
    assert_eq!(
        (&json["loop"], &json["scheduled_per_s"], &json["counts"]["acked"]),
        (&"open".into(), &3.0.into(), &3.into()),
        "each client once a second: {}",
        open.errors
    );
    assert!(
        json["ceiling_per_s"].is_null() && json["floor"].is_null(),
        "{json}"
    );
    let closed = ended(load(&format!("{base} -c 3 --count 30 --closed --floor 1"))).await;
    let json = closed.json();
    assert_eq!(
        (&json["loop"], &json["floor"]["logs"]),
        (&"closed".into(), &1.into())
    );
    let positive = |value: &Value| value.as_f64().is_some_and(|value| value > 0.0);
    assert!(
        positive(&json["floor"]["per_s"]) && positive(&json["ceiling_per_s"]),
        "{json}"
    );
    let told = ended(load(&format!(
        "sub -h 127.0.0.1 -p {port} -t t -c 1 --duration 0"
    )))
    .await;
    assert!(
        told.output
            .contains("generator ceiling    none: a null sink has nothing to send"),
        "{}",
        told.output
    );
    sink.kill().await.expect("it is ours");
}

#[tokio::test]
async fn every_door_of_a_hub_has_the_same_figures() {
    let folder = TempDir::new().expect("a folder");
    let (field, data) = healthy_cluster(&[]).await;
    for (words, done, note) in [
        (
            "method -c 3 --rate 20 --duration 1 --warm-up 0",
            Some(20),
            "none: a null sink calls no methods",
        ),
        (
            "provision -c 6 -F 2",
            Some(6),
            "none: a null sink assigns no devices",
        ),
        (
            "service query -c 2 -F 2 --duration 1 --warm-up 0",
            None,
            "none: a null sink speaks no HTTPS",
        ),
    ] {
        let kind = words.split(' ').next().expect("a word");
        let (log, page) = (
            file(&folder, &format!("{kind}.hdr")),
            file(&folder, &format!("{kind}.html")),
        );
        let mut command = load(&format!("{words} -o json"));
        command.arg("--data").arg(&data);
        command.arg("--hdr").arg(&log).arg("--report").arg(&page);
        let ran = ended(command).await;
        assert_eq!(ran.code, Some(0), "{}{}", ran.output, ran.errors);
        let json = ran.json();
        let acked = json["counts"]["acked"].as_u64().expect("a number");
        assert!(
            acked > 0 && done.is_none_or(|done| done == acked),
            "{words}: {json}"
        );
        assert_eq!(
            (&json["kind"], &json["ceiling_note"]),
            (&kind.into(), &note.into())
        );
        let measured = &json["latency_us"]["count"];
        let is_open = json["loop"] == "open";
        assert_eq!(is_open, json["corrected_us"].is_null(), "{words}: {json}");
        let html = std::fs::read_to_string(&page).expect("a page");
        assert!(html.contains("<svg") && html.contains(note), "{words}");
        let mut merge = load("merge -o json");
        merge.arg(&log);
        assert_eq!(
            &ended(merge).await.json()["latency_us"]["count"],
            measured,
            "{words}: the log has what the figures have"
        );
    }
    let mut connects = load("service connect -c 2 -F 2 --duration 1 --warm-up 0 -o json");
    connects.arg("--data").arg(&data);
    let json = ended(connects).await.json();
    assert!(
        json["ceiling_per_s"].as_f64().is_some_and(|per_s| per_s > 0.0) && json["ceiling_note"].is_null(),
        "{json}"
    );
    field.stop().await;
}

#[tokio::test]
async fn who_is_not_let_in_or_finds_nobody_is_told_why() {
    let nobody = free_port();
    let words = format!("conn -h 127.0.0.1 -p {nobody} -c 2 --no-ceiling --duration 0");
    let refused = ended(load(&words)).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.errors.contains("connection refused"),
        "{}",
        refused.errors
    );

    let serve = Serve::new(&[]);
    let serving = serve.start().await;
    let words = format!(
        "conn -h localhost -p {} --tls -u nobody -P nothing -c 2 --no-ceiling --duration 0",
        serve.ports.mqtts
    );
    let mut command = load(&words);
    command.arg("--cafile").arg(&serving.ready.ca_file);
    let refused = ended(command).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.errors.contains("no client is connected"),
        "{}",
        refused.errors
    );
    assert!(
        refused.errors.contains("(0x0"),
        "a CONNACK's code in {}",
        refused.errors
    );
    serving.kill().await;
}

#[tokio::test]
async fn a_group_of_consumers_reads_everything_once_and_leaves_nothing_behind() {
    let (field, data) = healthy_cluster(&[]).await;
    let mut publish = load("pub -c 9 --count 900 --closed --no-ceiling -o json");
    publish.arg("--data").arg(&data);
    assert_eq!(ended(publish).await.json()["counts"]["acked"], 900);
    let mut read = load("kafka -c 3 --duration 3 -o json");
    read.arg("--data").arg(&data);
    let figures = ended(read).await;
    assert_eq!(figures.code, Some(0), "{}{}", figures.output, figures.errors);
    let json = figures.json();
    // Nobody was disturbed, so that nothing was read twice.
    assert_eq!(json["counts"]["received"], 900, "{json}");
    let positive = |value: &Value| value.as_f64().is_some_and(|value| value > 0.0);
    let reading = &json["reading"];
    assert!(
        positive(&json["received_per_s"])
            && positive(&reading["mb_per_s"])
            && positive(&reading["rebalances"]),
        "{json}"
    );
    assert!(
        json["latency_us"].is_null() && json["ceiling_note"] == "none: a null sink speaks no Kafka",
        "{json}"
    );

    // What was there before is not read from the next event on, and what comes has a time on the way.
    let mut latest = load("kafka -c 2 --from latest --duration 8 -o json");
    latest.arg("--data").arg(&data);
    let mut publish = load("pub -c 9 --rate 50 --duration 12 --warm-up 0 --no-ceiling -o json");
    publish.arg("--data").arg(&data);
    let (figures, published) = tokio::join!(ended(latest), ended(publish));
    assert_eq!(published.code, Some(0), "{}", published.errors);
    let json = figures.json();
    let events = json["counts"]["received"].as_u64().expect("a number");
    assert!((1..=600).contains(&events), "{json}");
    assert_eq!(json["latency_us"]["count"], events, "{json}");
    field.stop().await;
}
