//! The command line as a script sees it: exit codes, help, and clear words for what makes no sense.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn dunlin(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_dunlin");
    Command::new(program)
        .args(arguments)
        .output()
        .expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_names_every_command_and_succeeds() {
    let output = dunlin(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for command in [
        "serve",
        "up",
        "demo",
        "load",
        "chaos",
        "device",
        "c2d",
        "query",
        "job",
        "monitor",
        "cluster",
        "health",
        "cert",
        "audit",
        "completions",
    ] {
        assert!(help.contains(command), "{command} in:\n{help}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_exits_with_2() {
    for arguments in [
        &["fly"][..],
        &["serve", "--bind", "nowhere"],
        &["device", "create"],
        &[],
    ] {
        let output = dunlin(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(!output.stderr.is_empty(), "{arguments:?} says what is wrong");
    }
}

#[test]
fn a_hub_that_is_not_there_exits_with_1_and_one_clear_line() {
    let folder = std::env::temp_dir().join("dunlin-there-is-no-hub-here");
    let output = dunlin(&["health", "--data", &folder.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(!said.trim().is_empty() && !said.contains("panicked"), "{said}");
}

#[test]
fn completions_are_made_for_a_shell() {
    let output = dunlin(&["completions", "bash"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("dunlin"));
}

/// Lines of an audit as a node writes them, numbered from 1, each with the hash of the one before.
fn audit(whats: &[&str]) -> Vec<String> {
    let mut prev = "0".repeat(64);
    let mut lines = Vec::new();
    for (seq, what) in (1..).zip(whats) {
        let line = format!(
            r#"{{"seq":{seq},"time":"2030-01-01T00:00:0{seq}.000Z","node":"032c1f1c2b03b610","action":"device.create","who":"admin","from":"127.0.0.1:5","what":"{what}","outcome":"done","detail":"","prev":"{prev}"}}"#
        );
        let digest = ring::digest::digest(&ring::digest::SHA256, line.as_bytes());
        prev = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        lines.push(format!("{line}\n"));
    }
    lines
}

/// The exit code, and what was said to a program.
fn audit_command(action: &str, arguments: &[&Path]) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    command.args(["audit", action, "-o", "json"]).args(arguments);
    let output = command.output().expect("the program runs");
    let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), said)
}

#[test]
fn an_audit_is_checked_and_a_break_is_told_with_its_file_and_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let (newest, older) = (folder.path().join("audit.log"), folder.path().join("audit.log.1"));
    let data = folder.path();
    let lines = audit(&["a", "b", "c", "d"]);
    fs::write(&older, lines[..2].concat()).expect("a file");
    fs::write(&newest, lines[2..].concat()).expect("a file");
    let in_data = || audit_command("verify", &[Path::new("--data"), data]);

    let (code, said) = in_data();
    let audit = &said["audits"][0];
    assert_eq!((code, &said["holds"]), (Some(0), &Value::Bool(true)), "{said}");
    assert_eq!(
        (audit["records"].as_u64(), audit["first"]["seq"].as_u64()),
        (Some(4), Some(1))
    );
    assert_eq!(audit["last"]["time"], "2030-01-01T00:00:04.000Z");
    let (code, said) = audit_command("verify", &[newest.as_path(), older.as_path()]);
    assert_eq!(
        (code, said["audits"][0]["records"].as_u64()),
        (Some(0), Some(4)),
        "newest first"
    );

    let broken = |file: &Path, text: &str, at: &Path, line: u64, problem: &str| {
        let whole = fs::read(file).expect("a file");
        fs::write(file, text).expect("a file");
        let (code, said) = in_data();
        let audit = &said["audits"][0];
        assert_eq!((code, &said["holds"]), (Some(1), &Value::Bool(false)), "{said}");
        assert_eq!(audit["file"], at.display().to_string(), "{said}");
        assert_eq!(audit["line"].as_u64(), Some(line), "{said}");
        let told = audit["problem"].as_str().unwrap_or_default();
        assert!(told.contains(problem), "{told}");
        fs::write(file, whole).expect("a file");
    };
    let changed = lines[..2].concat().replace("\"what\":\"b\"", "\"what\":\"x\"");
    broken(&older, &changed, &newest, 1, "record 3 does not have the hash");
    broken(&older, &lines[0], &newest, 1, "record 3 stands after record 1");
    broken(
        &newest,
        &lines[2..].concat()[..lines[2].len() + 20],
        &newest,
        2,
        "cut short",
    );
    broken(&older, "nothing of ours\n", &older, 1, "not an audit record");
    assert_eq!(in_data().0, Some(0), "all is as it was");
}

#[test]
fn the_last_records_of_an_audit_are_listed_newest_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.log");
    fs::write(&path, audit(&["a", "b", "c"]).concat()).expect("a file");
    let (code, said) = audit_command("show", &[Path::new("--limit"), Path::new("2"), &path]);
    let whats: Vec<&str> = said
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|record| record["what"].as_str())
        .collect();
    assert_eq!((code, whats), (Some(0), vec!["b", "c"]), "{said}");
}

#[test]
fn an_audit_that_is_not_there_is_told_and_two_places_at_once_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, _) = audit_command("verify", &[Path::new("--data"), folder.path()]);
    assert_eq!(code, Some(1));
    let (code, _) = audit_command(
        "verify",
        &[Path::new("--data"), folder.path(), Path::new("audit.log")],
    );
    assert_eq!(code, Some(2));
}
