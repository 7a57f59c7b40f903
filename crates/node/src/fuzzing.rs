//! What a node reads from files that an operator or a disk may have spoiled, under mutation.
//!
//! Tests only: libFuzzer would need the whole node, so `fuzz/` has the targets of the crates below alone.

#[path = "../../../fuzz/mutate.rs"]
mod mutate;

use dunlin_model::audit::AuditRecord;

use crate::NodeConfig;
use crate::audit::{chain_appended, verify};

/// The configuration file: read, or refused with every problem named.
fn node_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match NodeConfig::parse("dunlin.toml", &text) {
        Ok(config) => assert_eq!(config.problems(), []),
        Err(error) => {
            assert!(!error.0.is_empty() && error.0.iter().all(|line| line.starts_with("dunlin.toml:")));
        }
    }
}

fn node_config_seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../../config/dunlin.toml");
    // The example's settings are comments, since they are the defaults.
    let plain: Vec<&str> = example
        .lines()
        .map(|line| line.trim_start_matches("# "))
        .collect();
    vec![
        example.as_bytes().to_vec(),
        plain.join("\n").into_bytes(),
        b"workers = 2\nroles = [\"shard\"]\nseeds = [\"a:1\"]\n".to_vec(),
        b"expect = 3\ntiming = \"wan\"\ntrace_ratio = 0.5\notlp_endpoint = \"http://h:1/x\"\n".to_vec(),
    ]
}

/// An audit's file: it goes on with a record more, or says why not; what holds goes on holding.
fn audit_file(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.log");
    std::fs::write(&path, data).expect("a file");
    let held = verify(&path);
    let record = AuditRecord::done("device.create", "admin", "dev-1");
    if chain_appended(&path, &record, "0000000000000001").is_ok()
        && let Ok(count) = held
        && data.ends_with(b"\n")
    {
        assert_eq!(verify(&path).ok(), Some(count + 1));
    }
}

fn audit_file_seeds() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.log");
    for what in ["a", "b"] {
        let record = AuditRecord::done("device.create", "admin", what);
        chain_appended(&path, &record, "0000000000000001").expect("a fresh audit");
    }
    let whole = std::fs::read(&path).expect("it was written");
    let last = String::from_utf8_lossy(&whole).replace("\"seq\":2", &format!("\"seq\":{}", u64::MAX));
    vec![whole, last.into_bytes()]
}

#[test]
fn configurations_keep_their_word_under_mutation() {
    mutate::exercise("node_config", node_config, node_config_seeds(), 5_000);
}

#[test]
fn audits_keep_their_word_under_mutation() {
    mutate::exercise("audit_file", audit_file, audit_file_seeds(), 500);
}
