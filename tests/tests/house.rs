//! The house rules of `ARCHITECTURE.md`, held against the manifests and the sources.
//!
//! Rules are functions over data and return what breaks them, so that each can be shown a bad example.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use dunlin_tests::program::workspace;
use serde_json::Value;

/// Which crates of the workspace a crate may name. Siblings never name each other.
const LAYERS: &[(&str, &[&str])] = &[
    ("dunlin-model", &[]),
    ("dunlin-storage", &["dunlin-model"]),
    ("dunlin-actors", &["dunlin-model"]),
    ("dunlin-gateway", &["dunlin-model"]),
    ("dunlin-cluster", &["dunlin-model", "dunlin-storage"]),
    ("dunlin-node", BELOW_NODE),
    ("dunlin-chaos", UP_TO_NODE),
    ("dunlin", UP_TO_CHAOS),
    ("dunlin-tests", UP_TO_CHAOS),
];
const BELOW_NODE: &[&str] = &[
    "dunlin-model",
    "dunlin-storage",
    "dunlin-actors",
    "dunlin-gateway",
    "dunlin-cluster",
];
const UP_TO_NODE: &[&str] = &[
    "dunlin-model",
    "dunlin-storage",
    "dunlin-actors",
    "dunlin-gateway",
    "dunlin-cluster",
    "dunlin-node",
];
const UP_TO_CHAOS: &[&str] = &[
    "dunlin-model",
    "dunlin-storage",
    "dunlin-actors",
    "dunlin-gateway",
    "dunlin-cluster",
    "dunlin-node",
    "dunlin-chaos",
];

/// Libraries that one room, or two, know by name. What a crate needs for its own tests does not count.
const ONLY_NAMED_BY: &[(&str, &[&str])] = &[
    ("fjall", &["dunlin-storage"]),
    ("ractor", &["dunlin-actors"]),
    ("rmqtt-codec", &["dunlin-gateway"]),
    ("kafka-protocol", &["dunlin-gateway"]),
    ("axum", &["dunlin-gateway"]),
    ("openraft", &["dunlin-cluster"]),
    ("quinn", &["dunlin-cluster"]),
    ("bincode", &["dunlin-cluster"]),
    ("rcgen", &["dunlin-node"]),
    ("object_store", &["dunlin-node"]),
    ("prometheus-client", &["dunlin-node"]),
    ("opentelemetry", &["dunlin-node"]),
    ("opentelemetry_sdk", &["dunlin-node"]),
    ("tracing-opentelemetry", &["dunlin-node"]),
    ("hdrhistogram", &["dunlin-chaos", "dunlin-node"]),
    ("fuser", &["dunlin-chaos"]),
    ("plotters", &["dunlin-chaos"]),
];

/// All that the pure crate may name: no runtime, no clock, no randomness, no files.
const MODEL_MAY_NAME: &[&str] = &[
    "base64",
    "bytes",
    "serde",
    "serde_json",
    "thiserror",
    "xxhash-rust",
];

/// Lines of a file.
const LINES_MAX: usize = 900;

/// Words that have no place in code that is finished, with the reason. Halves, so that this file has none.
const BANNED: &[(&str, &str, &str)] = &[
    ("todo", "!(", "unfinished"),
    ("unimplemented", "!(", "unfinished"),
    ("dbg", "!(", "left over from debugging"),
    ("unbounded", "_channel", "every queue has a bound with a name"),
];

/// Ways to ask for the time, which the pure crate is told instead.
const CLOCKS: &[(&str, &str)] = &[("SystemTime::", "now"), ("Instant::", "now")];

/// A crate of the workspace, as far as the rules look.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Package {
    name: String,
    /// Name of the dependency, and whether only tests have it.
    dependencies: Vec<(String, bool)>,
}

fn packages(metadata: &Value) -> Vec<Package> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    list(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: name(package),
            dependencies: list(&package["dependencies"])
                .iter()
                .map(|dependency| (name(dependency), dependency["kind"] == "dev"))
                .collect(),
        })
        .collect()
}

/// Crates without a place in the house, and dependencies that go up or sideways.
fn layer_problems(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let Some((_, may_name)) = LAYERS.iter().find(|(name, _)| *name == package.name) else {
            found.push(format!("{} has no place in the layers", package.name));
            continue;
        };
        for (dependency, _) in &package.dependencies {
            let is_ours = LAYERS.iter().any(|(name, _)| name == dependency);
            if is_ours && !may_name.contains(&dependency.as_str()) {
                found.push(format!("{} must not name {dependency}", package.name));
            }
        }
    }
    found
}

/// Libraries that are named outside of their room.
fn room_problems(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        for (dependency, is_dev) in &package.dependencies {
            let rooms = ONLY_NAMED_BY.iter().find(|(name, _)| name == dependency);
            if let Some((_, rooms)) = rooms
                && !is_dev
                && !rooms.contains(&package.name.as_str())
            {
                found.push(format!(
                    "{} names {dependency}, which belongs to {rooms:?}",
                    package.name
                ));
            }
            if package.name == "dunlin-model" && !is_dev && !MODEL_MAY_NAME.contains(&dependency.as_str()) {
                found.push(format!("dunlin-model names {dependency}"));
            }
        }
    }
    found
}

/// Lints that forbid unsafe code, in the workspace and inherited by each crate.
fn lint_problems(root: &str, manifests: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    let table = |text: &str| text.parse::<toml::Table>().unwrap_or_default();
    let at = |table: &toml::Table, path: &[&str]| {
        let mut value = toml::Value::Table(table.clone());
        for part in path {
            value = value.get(part).cloned()?;
        }
        Some(value)
    };
    let unsafe_code = at(&table(root), &["workspace", "lints", "rust", "unsafe_code"]);
    if unsafe_code != Some("forbid".into()) {
        found.push("the workspace does not forbid unsafe code".to_owned());
    }
    for (path, text) in manifests {
        if at(&table(text), &["lints", "workspace"]) != Some(true.into()) {
            found.push(format!("{path} does not take the workspace's lints"));
        }
    }
    found
}

/// What is wrong with the text of one source file. `path` is relative to the workspace.
fn source_problems(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(format!("{path} does not say on top what it is"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{path} has {lines} lines, {LINES_MAX} at most"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        for (head, tail, why) in BANNED {
            if code.contains(&format!("{head}{tail}")) {
                found.push(format!("{path}:{number}: {head}{tail}: {why}"));
            }
        }
        for (head, tail) in CLOCKS {
            if path.starts_with("crates/model/src/") && code.contains(&format!("{head}{tail}")) {
                found.push(format!("{path}:{number}: the model is told the time"));
            }
        }
    }
    found
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .expect("cargo can be run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo answers in JSON")
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                files(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// Path (relative to the workspace) and text of every Rust file.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["crates", "src", "tests", "benches"] {
        files(&workspace().join(folder), "rs", &mut found);
    }
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a source file is text");
        let path = path.strip_prefix(workspace()).expect("a file of the workspace");
        (path.display().to_string(), text)
    };
    found.into_iter().map(read).collect()
}

fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn crates_name_only_what_lies_below_them() {
    let packages = packages(&metadata());
    assert_eq!(
        packages.len(),
        LAYERS.len(),
        "a crate without a place, or a place without a crate"
    );
    assert_none(layer_problems(&packages));
}

#[test]
fn libraries_are_named_in_their_rooms_only() {
    let packages = packages(&metadata());
    assert_none(room_problems(&packages));
    // A library that nobody names any more needs no rule.
    for (library, rooms) in ONLY_NAMED_BY {
        let is_named = packages.iter().any(|package| {
            rooms.contains(&package.name.as_str())
                && package.dependencies.iter().any(|(name, _)| name == library)
        });
        assert!(is_named, "nobody names {library}");
    }
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    let read = |path: &Path| std::fs::read_to_string(path).expect("a manifest");
    let mut manifests = vec![
        workspace().join("Cargo.toml"),
        workspace().join("tests/Cargo.toml"),
    ];
    files(&workspace().join("crates"), "toml", &mut manifests);
    // Scenarios of the chaos crate are TOML as well.
    manifests.retain(|path| path.ends_with("Cargo.toml"));
    let manifests: BTreeMap<String, String> = manifests
        .iter()
        .map(|path| (path.display().to_string(), read(path)))
        .collect();
    assert!(manifests.len() >= LAYERS.len());
    assert_none(lint_problems(&read(&workspace().join("Cargo.toml")), &manifests));
}

#[test]
fn sources_keep_the_rules() {
    let sources = sources();
    assert!(
        sources.len() > 100,
        "only {} sources: the search is wrong",
        sources.len()
    );
    assert_none(
        sources
            .iter()
            .flat_map(|(path, text)| source_problems(path, text))
            .collect(),
    );
}

fn package(name: &str, dependencies: &[(&str, bool)]) -> Package {
    Package {
        name: name.to_owned(),
        dependencies: dependencies
            .iter()
            .map(|(name, is_dev)| ((*name).to_owned(), *is_dev))
            .collect(),
    }
}

#[test]
fn a_dependency_that_goes_up_or_sideways_is_found() {
    let cases = [
        ("dunlin-model", "dunlin-storage"),
        ("dunlin-storage", "dunlin-actors"),
        ("dunlin-gateway", "dunlin-cluster"),
        ("dunlin-cluster", "dunlin-gateway"),
        ("dunlin-node", "dunlin-chaos"),
        ("dunlin-chaos", "dunlin"),
    ];
    for (from, to) in cases {
        // Tests may not reach around a wall either.
        for is_dev in [false, true] {
            let found = layer_problems(&[package(from, &[("serde", false), (to, is_dev)])]);
            assert_eq!(found, [format!("{from} must not name {to}")]);
        }
    }
    assert_eq!(
        layer_problems(&[package("dunlin-insights", &[])]),
        ["dunlin-insights has no place in the layers"]
    );
    assert_none(layer_problems(&[package(
        "dunlin-cluster",
        &[("dunlin-storage", false)],
    )]));
}

#[test]
fn a_library_outside_its_room_is_found() {
    for (library, rooms) in ONLY_NAMED_BY {
        assert_eq!(
            room_problems(&[package("dunlin", &[(library, false)])]).len(),
            1,
            "{library}"
        );
        assert_none(room_problems(&[package(rooms[0], &[(library, false)])]));
        assert_none(room_problems(&[package("dunlin", &[(library, true)])]));
    }
    assert_eq!(
        room_problems(&[package("dunlin-model", &[("tokio", false)])]),
        ["dunlin-model names tokio"]
    );
}

#[test]
fn metadata_is_read() {
    let metadata = serde_json::json!({ "packages": [{ "name": "a", "dependencies": [
        { "name": "b", "kind": null }, { "name": "c", "kind": "dev" },
    ]}]});
    assert_eq!(packages(&metadata), [package("a", &[("b", false), ("c", true)])]);
}

#[test]
fn a_crate_that_may_be_unsafe_is_found() {
    let good_root = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n";
    let manifests = |text: &str| BTreeMap::from([("x/Cargo.toml".to_owned(), text.to_owned())]);
    let good = manifests("[lints]\nworkspace = true\n");
    assert_none(lint_problems(good_root, &good));
    assert_eq!(
        lint_problems("[workspace.lints.rust]\nunsafe_code = \"warn\"\n", &good).len(),
        1
    );
    assert_eq!(lint_problems("", &good).len(), 1);
    assert_eq!(
        lint_problems(good_root, &manifests("[package]\nname = \"x\"\n")),
        ["x/Cargo.toml does not take the workspace's lints"]
    );
}

#[test]
fn a_source_that_breaks_a_rule_is_found() {
    let good = "//! What it is.\n\nfn f() {}\n";
    assert_none(source_problems("crates/a/src/b.rs", good));
    let found = |path: &str, text: &str| source_problems(path, text).len();
    assert_eq!(found("src/a.rs", "fn f() {}\n"), 1);
    assert_eq!(found("src/a.rs", &format!("{good}{}", "\n".repeat(LINES_MAX))), 1);
    for (head, tail, _) in BANNED {
        assert_eq!(
            found("src/a.rs", &format!("{good}    {head}{tail}\"x\");\n")),
            1,
            "{head}"
        );
        assert_eq!(
            found("src/a.rs", &format!("{good}    // no {head}{tail} here\n")),
            0,
            "{head} in a comment"
        );
    }
    for (head, tail) in CLOCKS {
        let asks = format!("{good}let now = std::time::{head}{tail}();\n");
        assert_eq!(found("crates/model/src/a.rs", &asks), 1);
        assert_eq!(found("crates/node/src/clock.rs", &asks), 0);
    }
}
