//! The command line as a script sees it: exit codes, help, and clear words for what makes no sense.

use std::process::{Command, Output};

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
