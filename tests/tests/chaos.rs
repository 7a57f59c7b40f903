//! `dunlin chaos` through the program itself: scenarios pass, and a verdict can fail.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use dunlin_tests::ports::Ports;
use dunlin_tests::program::dunlin;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// Kills twice, with few devices: a verdict, not a measurement. The deadlines are those of a machine that
/// runs other tests beside it.
const FAILOVER: &str = r#"
name = "short-failover"
shows = "A short failover."
compare_replicas = true
[cluster]
shards = 4
[load]
devices = 24
rate = 120
[registry]
devices = 1
period_ms = 200
[liveness]
serve_s = 60
whole_s = 60
[[epoch]]
repeat = 2
duration_ms = 3000
[[epoch.fault]]
kind = "kill"
target = "most-leaders"
at_ms = 1200
for_ms = 1000
[must_reach]
kill = 2
leader-killed = 2
epochs = 2
"#;

const COMPOSED: &str = r#"
name = "short-composed"
shows = "A short composed run."
[cluster]
shards = 4
[load]
devices = 24
rate = 120
qos0_percent = 20
padding_bytes = [1, 4000]
[https]
devices = 2
period_ms = 200
[churn]
devices = 2
period_ms = 1200
[liveness]
serve_s = 60
whole_s = 60
[composed]
epochs = 3
duration_ms = 4000
faults_max = 3
quiet_percent = 0
[[composed.fault]]
kind = "kill"
for_ms = [500, 1500]
[[composed.fault]]
kind = "pause"
for_ms = [50, 1500]
[[composed.fault]]
kind = "stop"
for_ms = [200, 1000]
[must_reach]
faults = 3
epochs = 3
"#;

/// Where a test's runs lie.
struct Runs {
    folder: TempDir,
}

impl Runs {
    fn new() -> Runs {
        Runs {
            folder: TempDir::new().expect("a folder for temporary files"),
        }
    }

    fn run_folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Runs a scenario; its exit code, its verdict, and all that it printed besides.
    async fn run(&self, scenario: &str, more: &[&str]) -> (Option<i32>, Value, String) {
        let file = self.folder.path().join("scenario.toml");
        std::fs::write(&file, scenario).expect("the folder can be written to");
        let ports = Ports::take();
        let mut command = Command::new(dunlin());
        command
            .args(["chaos", "run", "--json", "--seed", "11"])
            .arg(&file)
            .arg("--folder")
            .arg(self.run_folder())
            .args(["--mqtts-port", &ports.mqtts.to_string()])
            .args(["--amqps-port", &ports.amqps.to_string()])
            .args(["--kafka-port", &ports.kafka.to_string()])
            .args(["--https-port", &ports.https.to_string()])
            .args(["--cluster-port", &ports.cluster.to_string()])
            .args(more);
        ended(command).await
    }

    async fn judge(&self) -> (Option<i32>, Value, String) {
        let mut command = Command::new(dunlin());
        command.args(["chaos", "judge", "--json"]).arg(self.run_folder());
        ended(command).await
    }
}

async fn ended(mut command: Command) -> (Option<i32>, Value, String) {
    command.kill_on_drop(true).stdin(Stdio::null());
    let output = command.output().await.expect("the program runs");
    let progress = String::from_utf8_lossy(&output.stderr).into_owned();
    let verdict = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), verdict, progress)
}

fn assert_passed((code, verdict, progress): &(Option<i32>, Value, String)) {
    assert_eq!(
        (*code, verdict["verdict"].as_str()),
        (Some(0), Some("PASS")),
        "{:#}\n{progress}",
        verdict["reasons"]
    );
    assert!(verdict["acked"].as_u64() > Some(0), "{verdict:#}");
}

/// Takes the lines out of a file of a run for which that is wanted.
fn tamper(file: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let text = std::fs::read_to_string(file).expect("the run has left this file");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    std::fs::write(file, lines.join("\n") + "\n").expect("the file can be written to");
}

#[tokio::test]
async fn a_short_failover_passes_and_its_folder_is_judged_by_what_is_in_it() {
    let runs = Runs::new();
    let run = runs.run(FAILOVER, &[]).await;
    assert_passed(&run);
    let (_, verdict, _) = &run;
    assert_eq!(verdict["reached"]["kill"], 2);
    assert!(
        verdict["gap_ms"]["kill"]["count"].as_u64() > Some(0),
        "{verdict:#}"
    );
    assert!(
        !runs.run_folder().join("nodes").exists(),
        "a good run keeps no data of nodes"
    );
    let html = std::fs::read_to_string(runs.run_folder().join("report.html"));
    assert!(html.is_ok_and(|html| html.contains("PASS") && html.contains("F01 kill")));

    let again = runs.judge().await;
    assert_passed(&again);
    assert_eq!(again.1["acked"], verdict["acked"]);

    // A record that was stored and acked is gone; one of which there is no second copy.
    let stored = runs.run_folder().join("stored.jsonl");
    let before = std::fs::read(&stored).expect("the run has left this file");
    tamper(&stored, |lines| {
        let message_of = |line: &String| {
            let record: Value = serde_json::from_str(line).expect("a line is a record");
            (record["device"].clone(), record["seq"].clone())
        };
        let messages: Vec<_> = lines.iter().map(message_of).collect();
        let is_alone = |message| messages.iter().filter(|other| *other == message).count() == 1;
        let place = messages.iter().rposition(is_alone);
        lines.remove(place.expect("not every message is stored twice"));
    });
    let (code, verdict, _) = runs.judge().await;
    assert_eq!((code, &verdict["verdict"]), (Some(1), &"FAIL".into()));
    let reasons = verdict["reasons"].to_string();
    assert!(reasons.contains("I1: 1 "), "{reasons}");
    assert!(reasons.contains("I12: "), "other replicas have it: {reasons}");
    std::fs::write(&stored, before).expect("the file can be written to");
    assert_passed(&runs.judge().await);

    // A message that was stored was never sent: its deed is gone, and so is that of its ack.
    let history = runs.run_folder().join("history.jsonl");
    tamper(&history, |lines| {
        let device_of = |line: &String| {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            format!("{{\"d\":{},", line["d"])
        };
        // One that went out once: what was sent again is told of again.
        let went_once = |place: &usize| {
            let device = device_of(&lines[*place]);
            let mut later = lines[*place..].iter();
            !later.any(|line| line.starts_with(&device) && line.contains("\"resent\""))
        };
        let mut sent = (0..lines.len())
            .rev()
            .filter(|place| lines[*place].contains("\"sent\""));
        let sent = sent.find(went_once).expect("not everything was sent again");
        let device = device_of(&lines.remove(sent));
        let acked = lines
            .iter()
            .rposition(|line| line.starts_with(&device) && line.contains("\"acked\""));
        lines.remove(acked.expect("it was acked"));
    });
    let (code, verdict, _) = runs.judge().await;
    assert_eq!((code, &verdict["verdict"]), (Some(1), &"FAIL".into()));
    assert!(
        verdict["reasons"].to_string().contains("I2: 1 "),
        "{:#}",
        verdict["reasons"]
    );

    // A run whose faults were never installed proves nothing, though nothing was broken.
    let journal = runs.run_folder().join("journal.jsonl");
    tamper(&journal, |lines| {
        lines.retain(|line| !line.contains("\"confirmed\""))
    });
    let (_, verdict, _) = runs.judge().await;
    assert!(
        verdict["reasons"]
            .to_string()
            .contains("kill was reached 0 times")
    );
}

#[tokio::test]
async fn a_short_composed_run_passes() {
    let runs = Runs::new();
    let run = runs.run(COMPOSED, &["--local", "3"]).await;
    assert_passed(&run);
    let (_, verdict, progress) = &run;
    assert!(progress.contains("epoch 3"), "{progress}");
    assert_eq!(verdict["reached"]["epochs"], 3);
    assert!(
        verdict["reached"]["taken-over"].as_u64() > Some(0),
        "{:#}",
        verdict["reached"]
    );
}

#[tokio::test]
async fn a_scenario_that_makes_no_sense_is_told_with_its_line_and_nothing_is_started() {
    let runs = Runs::new();
    let (code, _, said) = runs.run(&FAILOVER.replace("most-leaders", "nobody"), &[]).await;
    assert_eq!(code, Some(2));
    assert!(
        said.contains("scenario.toml:20: fault.target: 'nobody'"),
        "{said}"
    );
    assert!(!runs.run_folder().exists());
    // Two nodes cannot do without one.
    let (code, _, said) = runs.run(FAILOVER, &["--local", "2"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("takes more than the 0 nodes"), "{said}");
}
