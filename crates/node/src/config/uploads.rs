//! The table `[uploads]`: files that devices upload.

use std::time::Duration;

use dunlin_gateway::UploadConfig;
use dunlin_gateway::uploads::container_problem;
use dunlin_model::upload::{UPLOAD_TTL_MS_MAX, UPLOAD_TTL_MS_MIN};
use serde::Deserialize;

/// Keys of the table.
const KEYS: &[&str] = &[
    "container",
    "sas_ttl_s",
    "notifications",
    "file_mib_max",
    "block_mib_max",
];

const MIB: u64 = 1024 * 1024;
/// What may be configured: 64 GiB for a file, and 4000 MiB for a block, as at Azure.
const FILE_MIB_MAX: u64 = 64 * 1024;
const BLOCK_MIB_MAX: u64 = 4000;

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Table {
    container: Option<String>,
    sas_ttl_s: Option<u64>,
    notifications: Option<bool>,
    file_mib_max: Option<u64>,
    block_mib_max: Option<u64>,
}

/// Takes what a table says over `config`. Returns what is wrong with it, by key.
pub(super) fn take(config: &mut UploadConfig, table: &toml::Table) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    for (key, value) in table {
        if !KEYS.contains(&key.as_str()) {
            problems.push((key.clone(), "unknown key".to_owned()));
            continue;
        }
        let one = toml::Table::from_iter([(key.clone(), value.clone())]);
        match one.try_into::<Table>() {
            Ok(table) => set(config, table),
            Err(error) => problems.push((key.clone(), error.message().to_owned())),
        }
    }
    problems
}

fn set(config: &mut UploadConfig, table: Table) {
    if let Some(container) = table.container {
        config.container = container;
    }
    if let Some(seconds) = table.sas_ttl_s {
        config.token_life = Duration::from_secs(seconds);
    }
    if let Some(notifies) = table.notifications {
        config.notifies = notifies;
    }
    if let Some(mib) = table.file_mib_max {
        config.file_bytes_max = mib.saturating_mul(MIB);
    }
    if let Some(mib) = table.block_mib_max {
        config.block_bytes_max = mib.saturating_mul(MIB);
    }
}

/// Values that cannot be, by key.
pub(super) fn problems(config: &UploadConfig) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if let Some(problem) = container_problem(&config.container) {
        found.push(("container", problem.to_owned()));
    }
    let (from, to) = (UPLOAD_TTL_MS_MIN / 1000, UPLOAD_TTL_MS_MAX / 1000);
    if !(from..=to).contains(&config.token_life.as_secs()) {
        found.push(("sas_ttl_s", format!("is between {from} and {to}")));
    }
    for (key, bytes, mib_max) in [
        ("file_mib_max", config.file_bytes_max, FILE_MIB_MAX),
        ("block_mib_max", config.block_bytes_max, BLOCK_MIB_MAX),
    ] {
        if !(MIB..=mib_max * MIB).contains(&bytes) {
            found.push((key, format!("is between 1 and {mib_max}")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigError, NodeConfig};
    use super::*;

    #[test]
    fn a_table_stands_over_the_defaults() {
        let text = "workers = 2\n[uploads]\ncontainer = \"files\"\nsas_ttl_s = 600\nnotifications = false\nfile_mib_max = 20\nblock_mib_max = 8\n";
        let config = NodeConfig::parse("x.toml", text).expect("a sound file");
        let expected = UploadConfig {
            container: "files".to_owned(),
            token_life: Duration::from_secs(600),
            notifies: false,
            file_bytes_max: 20 * MIB,
            block_bytes_max: 8 * MIB,
            ..UploadConfig::default()
        };
        assert_eq!(config.uploads, expected);
        let config = NodeConfig::parse("x.toml", "[uploads]\n").expect("a sound file");
        assert_eq!(config, NodeConfig::default());
    }

    #[test]
    fn every_problem_of_it_has_its_line() {
        let text = "workers = 2\n[uploads]\ncontainer = \"devices\"\nsas_ttl_s = 59\nnotification = true\nnotifications = 1\nfile_mib_max = 0\nblock_mib_max = 4001\n";
        let ConfigError(problems) = NodeConfig::parse("x.toml", text).expect_err("it is not sound");
        for wanted in [
            "x.toml:3: container: ",
            "x.toml:4: sas_ttl_s: is between 60 and 86400",
            "x.toml:5: notification: unknown key",
            "x.toml:6: notifications: ",
            "x.toml:7: file_mib_max: is between 1 and 65536",
            "x.toml:8: block_mib_max: is between 1 and 4000",
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(wanted)),
                "{wanted} in {problems:?}"
            );
        }
        assert_eq!(problems.len(), 6, "{problems:?}");
        let ConfigError(problems) = NodeConfig::parse("x.toml", "uploads = 1\n").expect_err("no table");
        assert_eq!(problems, ["x.toml:1: uploads: is a table"]);
    }
}
