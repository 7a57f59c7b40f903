//! The scenarios that ship. Each is a file in `crates/chaos/scenarios`, built into the program.

/// A scenario's text under its name.
macro_rules! shipped {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),+]
    };
}

/// Name and text of each, in the order in which one may want to try them.
pub const SCENARIOS: &[(&str, &str)] = shipped![
    "failover",
    "rolling-stop",
    "pause",
    "crash-loop",
    "kill-all",
    "starve",
    "inside",
    "scarce",
    "membership",
    "making-replicas",
    "lost-disk",
    "partitions",
    "sides",
    "lossy-network",
    "namespaces",
    "disk",
    "disk-errors",
    "power",
    "churn",
    "hostile",
    "containers",
    "containers-all",
    "composed",
];

/// The text of a shipped scenario.
pub fn find(name: &str) -> Option<&'static str> {
    let found = SCENARIOS.iter().find(|(shipped, _)| *shipped == name);
    found.map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::read::parse;

    #[test]
    fn each_is_sound_and_promises_something() {
        for (name, text) in SCENARIOS {
            let scenario = parse(name, text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(scenario.name, *name);
            assert!(!scenario.must_reach.is_empty(), "{name} promises nothing");
        }
        assert!(find("failover").is_some());
        assert!(find("no-such").is_none());
    }
}
