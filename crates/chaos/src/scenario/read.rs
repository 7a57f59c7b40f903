//! From TOML to a [`Scenario`], or to every reason why not, each with file, line and key.
//!
//! Two passes: the shape (a key that nobody knows, a value of the wrong kind), which stops at the first
//! problem, and the sense (bounds, names, tolerance), which lists all.

use crate::faults;
use crate::scenario::target::Target;
use crate::scenario::{DEVICES_MAX, EPOCHS_MAX, FAULTS_MAX, FaultSpec, Scenario};
use crate::{fleet, payload};
use dunlin_model::limits::SHARD_COUNT_MAX;
use dunlin_node::local::LOCAL_NODES_MAX;

/// Milliseconds of an epoch.
const EPOCH_MS_MAX: u64 = 3_600_000;
/// Messages per second.
const RATE_MAX: u64 = 100_000;

/// Why a text is no scenario; one line per problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ScenarioError(pub Vec<String>);

/// Reads a scenario. `name` stands before each problem.
pub fn parse(name: &str, text: &str) -> Result<Scenario, ScenarioError> {
    let scenario: Scenario = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        ScenarioError(vec![format!("{name}:{line}: {}", error.message().trim())])
    })?;
    check(name, text, &scenario)?;
    Ok(scenario)
}

/// Whether a scenario makes sense that was read from `text` and may have been changed since.
pub fn check(name: &str, text: &str, scenario: &Scenario) -> Result<(), ScenarioError> {
    let mut problems = Problems {
        name,
        text,
        found: Vec::new(),
    };
    problems.check_values(scenario);
    problems.check_faults(scenario);
    problems.check_promises(scenario);
    match problems.found.is_empty() {
        true => Ok(()),
        false => Err(ScenarioError(problems.found)),
    }
}

/// The text of the same scenario with another number in its cluster.
pub fn with_number(text: &str, key: &'static str, number: usize) -> Result<String, ScenarioError> {
    changed(text, |table| {
        if let Some(cluster) = cluster_of(table) {
            cluster.insert(key.into(), (number as i64).into());
        }
    })
}

/// The text of the same scenario for nodes that another file describes: they have no further arguments,
/// and where each node was a gateway, `gateways` others are, before them. Targets name the same nodes.
pub fn with_described_nodes(text: &str, gateways: usize) -> Result<String, ScenarioError> {
    changed(text, |table| {
        let Some(cluster) = cluster_of(table) else {
            return;
        };
        cluster.remove("arguments");
        let has_gateways = cluster
            .get("gateways")
            .and_then(toml::Value::as_integer)
            .unwrap_or(0)
            > 0;
        if has_gateways {
            return;
        }
        cluster.insert("gateways".into(), (gateways as i64).into());
        let listed = table.get_mut("epoch").and_then(toml::Value::as_array_mut);
        for epoch in listed.into_iter().flatten() {
            move_targets(epoch, gateways);
        }
        if let Some(composed) = table.get_mut("composed") {
            move_targets(composed, gateways);
        }
    })
}

/// Has the faults of a part of a scenario meet the nodes so many places further on.
fn move_targets(part: &mut toml::Value, places: usize) {
    let faults = part.get_mut("fault").and_then(toml::Value::as_array_mut);
    for fault in faults.into_iter().flatten() {
        let target = fault.get("target").and_then(toml::Value::as_str);
        if let Some(Ok(Target::Node(node))) = target.map(str::parse::<Target>)
            && let Some(fault) = fault.as_table_mut()
        {
            fault.insert("target".into(), Target::Node(node + places).to_string().into());
        }
    }
}

/// The cluster of a scenario, which is made if it is not there.
fn cluster_of(table: &mut toml::Table) -> Option<&mut toml::Table> {
    let cluster = table
        .entry("cluster")
        .or_insert_with(|| toml::Table::new().into());
    cluster.as_table_mut()
}

fn changed(text: &str, change: impl FnOnce(&mut toml::Table)) -> Result<String, ScenarioError> {
    let failed = |error: &dyn std::fmt::Display| ScenarioError(vec![format!("change the scenario: {error}")]);
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| failed(&error))?;
    change(&mut table);
    toml::to_string(&table).map_err(|error| failed(&error))
}

/// The line, from 1, of a place in a text.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

struct Problems<'a> {
    name: &'a str,
    text: &'a str,
    found: Vec<String>,
}

impl Problems<'_> {
    fn add(&mut self, line: usize, key: &str, problem: &str) {
        self.found.push(format!("{}:{line}: {key}: {problem}", self.name));
    }

    /// The line of `table.key`, or of the table, or the first.
    fn line_of_key(&self, table: &str, key: &str) -> usize {
        let mut current = String::new();
        let mut of_table = 1;
        for (place, line) in self.text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with('[') {
                current = line
                    .trim_matches(|c| c == '[' || c == ']')
                    .split(']')
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                if current == table {
                    of_table = place + 1;
                }
            } else if current == table && line.split('=').next().is_some_and(|found| found.trim() == key) {
                return place + 1;
            }
        }
        of_table
    }

    fn within(&mut self, table: &str, key: &str, value: u64, (min, max): (u64, u64)) {
        if !(min..=max).contains(&value) {
            let line = self.line_of_key(table, key);
            let path = if table.is_empty() {
                key.to_owned()
            } else {
                format!("{table}.{key}")
            };
            self.add(line, &path, &format!("is between {min} and {max}, not {value}"));
        }
    }

    fn check_values(&mut self, scenario: &Scenario) {
        if !is_name(&scenario.name) {
            let line = self.line_of_key("", "name");
            self.add(line, "name", "is small letters, digits and hyphens");
        }
        let cluster = &scenario.cluster;
        let nodes_max = LOCAL_NODES_MAX as u64;
        self.within("cluster", "nodes", cluster.nodes as u64, (1, nodes_max));
        self.within(
            "cluster",
            "gateways",
            cluster.gateways as u64,
            (0, nodes_max.saturating_sub(cluster.nodes as u64)),
        );
        self.within(
            "cluster",
            "shards",
            cluster.shards.into(),
            (1, SHARD_COUNT_MAX.into()),
        );
        self.within("cluster", "replicas", cluster.replicas as u64, (1, 7));
        let load = &scenario.load;
        self.within("load", "devices", load.devices as u64, (1, DEVICES_MAX as u64));
        self.within("load", "rate", load.rate.into(), (1, RATE_MAX));
        self.within("load", "window", load.window as u64, (1, fleet::WINDOW as u64));
        // Some must be acknowledged, or nothing is tried.
        self.within("load", "qos0_percent", load.qos0_percent.into(), (0, 90));
        if let Some((low, high)) = load.padding_bytes.map(super::Span::bounds) {
            self.within(
                "load",
                "padding_bytes",
                high,
                (low, payload::PAYLOAD_BYTES_MAX as u64),
            );
        }
        if let Some(https) = &scenario.https {
            self.within("https", "devices", https.devices as u64, (1, 100));
            self.within("https", "period_ms", https.period_ms, (1, 60_000));
        }
        if let Some(registry) = &scenario.registry {
            self.within("registry", "devices", registry.devices as u64, (1, 100));
            self.within("registry", "period_ms", registry.period_ms, (100, 60_000));
        }
        if let Some(contended) = &scenario.contended {
            self.within("contended", "devices", contended.devices as u64, (1, 20));
            self.within("contended", "period_ms", contended.period_ms, (10, 60_000));
        }
        if let Some(provisioning) = &scenario.provisioning {
            let (enrollments, period_ms) = (provisioning.enrollments as u64, provisioning.period_ms);
            self.within("provisioning", "enrollments", enrollments, (1, 20));
            self.within("provisioning", "period_ms", period_ms, (100, 60_000));
        }
        if let Some(erasing) = &scenario.erasing {
            self.within("erasing", "devices", erasing.devices as u64, (1, 20));
            self.within("erasing", "period_ms", erasing.period_ms, (100, 60_000));
        }
        if let Some(policies) = &scenario.policies {
            // The hub takes 64, its own and those that nobody knows whether they are gone among them.
            self.within("policies", "policies", policies.policies as u64, (1, 5));
            self.within("policies", "period_ms", policies.period_ms, (100, 60_000));
        }
        if let Some(dialogue) = &scenario.dialogue {
            self.within("dialogue", "devices", dialogue.devices as u64, (1, 50));
            self.within("dialogue", "period_ms", dialogue.period_ms, (10, 60_000));
        }
        if let Some(messages) = &scenario.messages {
            self.within("messages", "devices", messages.devices as u64, (1, 50));
            // Forty messages of twenty seconds are to be dealt with in their time.
            self.within("messages", "period_ms", messages.period_ms, (10, 1_000));
        }
        if let Some(readers) = &scenario.readers {
            self.within("readers", "members", readers.members as u64, (1, 20));
            self.within("readers", "period_ms", readers.period_ms, (100, 60_000));
        }
        if let Some(jobs) = &scenario.jobs {
            self.within("jobs", "devices", jobs.devices as u64, (1, 100));
            // A device takes a hundred jobs whose time is not over.
            self.within("jobs", "period_ms", jobs.period_ms, (400, 60_000));
        }
        if let Some(configurations) = &scenario.configurations {
            let devices = configurations.devices as u64;
            self.within("configurations", "devices", devices, (1, 50));
            self.within(
                "configurations",
                "period_ms",
                configurations.period_ms,
                (100, 60_000),
            );
        }
        if let Some(uploads) = &scenario.uploads {
            self.within("uploads", "devices", uploads.devices as u64, (1, 20));
            self.within("uploads", "period_ms", uploads.period_ms, (100, 60_000));
        }
        if let Some(history) = &scenario.history {
            self.within("history", "readers", history.readers as u64, (1, 20));
            self.within("history", "period_ms", history.period_ms, (50, 60_000));
        }
        if let Some(churn) = &scenario.churn {
            self.within("churn", "devices", churn.devices as u64, (1, 100));
            // More than ten connects in ten seconds are slowed down.
            self.within("churn", "period_ms", churn.period_ms, (1_000, 60_000));
        }
        self.within("liveness", "serve_s", scenario.liveness.serve_s, (1, 600));
        self.within("liveness", "whole_s", scenario.liveness.whole_s, (1, 600));
    }

    fn check_faults(&mut self, scenario: &Scenario) {
        let listed: u64 = scenario.epochs.iter().map(|epoch| epoch.repeat).sum();
        let drawn = scenario.composed.as_ref().map_or(0, |composed| composed.epochs);
        if listed + drawn == 0 || listed + drawn > EPOCHS_MAX {
            self.add(
                1,
                "epoch",
                &format!("there are between 1 and {EPOCHS_MAX} epochs"),
            );
        }
        for epoch in &scenario.epochs {
            self.within("epoch", "duration_ms", epoch.duration_ms, (100, EPOCH_MS_MAX));
            if epoch.faults.len() > FAULTS_MAX {
                let line = self.line_of_key("epoch", "fault");
                self.add(
                    line,
                    "epoch.fault",
                    &format!("an epoch has {FAULTS_MAX} faults at most"),
                );
            }
            for fault in &epoch.faults {
                self.check_fault(scenario, fault);
            }
        }
        let Some(composed) = &scenario.composed else {
            return;
        };
        self.within(
            "composed",
            "duration_ms",
            composed.duration_ms,
            (100, EPOCH_MS_MAX),
        );
        self.within(
            "composed",
            "faults_max",
            composed.faults_max as u64,
            (0, FAULTS_MAX as u64),
        );
        self.within(
            "composed",
            "quiet_percent",
            composed.quiet_percent.into(),
            (0, 100),
        );
        for fault in &composed.faults {
            self.check_fault(scenario, fault);
        }
    }

    fn check_fault(&mut self, scenario: &Scenario, fault: &FaultSpec) {
        let line = line_of(self.text, fault.kind.span().start);
        let name = fault.kind.get_ref();
        let Some(kind) = faults::kind(name) else {
            let names: Vec<&str> = faults::CATALOGUE.iter().map(|kind| kind.name).collect();
            self.add(
                line,
                "fault.kind",
                &format!("'{name}' is none of {}", names.join(", ")),
            );
            return;
        };
        let target = match &fault.target {
            None => Ok(kind.target),
            Some(target) => target.parse::<Target>(),
        };
        match target {
            Err(problem) => self.add(line, "fault.target", &problem),
            Ok(target) => {
                if (target == Target::Cluster) != (kind.target == Target::Cluster) {
                    let problem = format!("'{name}' is not about '{target}'");
                    self.add(line, "fault.target", &problem);
                }
                if let Target::Node(node) = target
                    && node >= scenario.cluster.nodes + scenario.cluster.gateways
                {
                    self.add(line, "fault.target", "there is no such node");
                }
                let tolerance = scenario.cluster.tolerance();
                if kind.damages && target.count(scenario.cluster.nodes) > tolerance && !scenario.majority {
                    let problem = format!(
                        "'{name}' of '{target}' takes more than the {tolerance} nodes that shards of {} replicas \
                         can do without; say majority = true if that is meant",
                        scenario.cluster.replicas.min(scenario.cluster.nodes)
                    );
                    self.add(line, "fault.target", &problem);
                }
            }
        }
        for (key, span) in [("at_ms", fault.at_ms), ("for_ms", fault.for_ms)] {
            let (low, high) = span.map_or((0, 0), super::Span::bounds);
            if low > high || high > EPOCH_MS_MAX {
                let problem = format!("is a span within 0 and {EPOCH_MS_MAX}");
                self.add(line, &format!("fault.{key}"), &problem);
            }
        }
        for (key, span) in &fault.with {
            let (low, high) = span.bounds();
            match kind.with.iter().find(|parameter| parameter.name == key) {
                None => self.add(
                    line,
                    &format!("fault.with.{key}"),
                    &format!("'{name}' cannot be told that"),
                ),
                Some(known) if low > high || low < known.min || high > known.max => self.add(
                    line,
                    &format!("fault.with.{key}"),
                    &format!("is within {} and {}", known.min, known.max),
                ),
                Some(_) => {}
            }
        }
    }

    fn check_promises(&mut self, scenario: &Scenario) {
        for name in scenario.must_reach.keys() {
            if faults::kind(name).is_none() && !faults::STATES.iter().any(|(state, _)| state == name) {
                let line = self.line_of_key("must_reach", name);
                self.add(
                    line,
                    &format!("must_reach.{name}"),
                    "is neither a fault nor a state",
                );
            }
        }
    }
}

/// Whether a text may name a scenario, and so a folder.
fn is_name(text: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 64 && text.chars().all(is_fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "one"
shows = "something"

[load]
devices = 10

[[epoch]]
duration_ms = 1000
[[epoch.fault]]
kind = "kill"
target = "most-leaders"
at_ms = 100
for_ms = [200, 400]

[must_reach]
kill = 1
"#;

    fn problems(text: &str) -> String {
        parse("a.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_good_one_is_read() {
        let scenario = parse("a.toml", GOOD).unwrap();
        assert_eq!((scenario.load.devices, scenario.epochs.len()), (10, 1));
        assert_eq!(scenario.must_reach["kill"], 1);
    }

    #[test]
    fn what_cannot_be_is_told_with_line_and_key() {
        for (from, to, expected) in [
            ("devices = 10", "devies = 10", "a.toml:6: unknown field `devies`"),
            (
                "devices = 10",
                "devices = 0",
                "a.toml:6: load.devices: is between 1",
            ),
            ("devices = 10", "devices = \"x\"", "a.toml:6: invalid type"),
            (
                "\"kill\"",
                "\"stroke\"",
                "a.toml:11: fault.kind: 'stroke' is none of",
            ),
            ("most-leaders", "nobody", "a.toml:11: fault.target: 'nobody'"),
            (
                "most-leaders",
                "all",
                "a.toml:11: fault.target: 'kill' of 'all' takes more",
            ),
            (
                "most-leaders",
                "node-4",
                "a.toml:11: fault.target: there is no such node",
            ),
            (
                "most-leaders",
                "cluster",
                "a.toml:11: fault.target: 'kill' is not about",
            ),
            ("[200, 400]", "[400, 200]", "a.toml:11: fault.for_ms"),
            (
                "at_ms = 100",
                "with = { speed = 3 }",
                "a.toml:11: fault.with.speed",
            ),
            ("kill = 1", "glory = 1", "a.toml:17: must_reach.glory"),
            (
                "[load]",
                "[readers]\nmembers = 3\n\n[load]",
                "a.toml:5: missing field `period_ms`",
            ),
            (
                "[load]",
                "[jobs]\ndevices = 0\nperiod_ms = 500\n\n[load]",
                "a.toml:6: jobs.devices: is between 1 and 100",
            ),
            (
                "[load]",
                "[routes]\ncondition = \"true\"\n\n[load]",
                "a.toml:6: unknown field `condition`",
            ),
            (
                "[load]",
                "[configurations]\ndevices = 0\nperiod_ms = 500\n\n[load]",
                "a.toml:6: configurations.devices: is between 1 and 50",
            ),
            (
                "[load]",
                "[uploads]\ndevices = 2\nperiod_ms = 50\n\n[load]",
                "a.toml:7: uploads.period_ms: is between 100 and 60000",
            ),
            (
                "[load]",
                "[history]\nreaders = 2\nperiod_ms = 5\n\n[load]",
                "a.toml:7: history.period_ms: is between 50 and 60000",
            ),
            (
                "[load]",
                "[messages]\ndevices = 2\nperiod_ms = 2000\n\n[load]",
                "a.toml:7: messages.period_ms: is between 10 and 1000",
            ),
            (
                "[load]",
                "[readers]\nmembers = 0\nperiod_ms = 500\n\n[load]",
                "a.toml:6: readers.members: is between 1 and 20",
            ),
            (
                "[load]",
                "[policies]\npolicies = 9\nperiod_ms = 500\n\n[load]",
                "a.toml:6: policies.policies: is between 1 and 5",
            ),
            ("\"one\"", "\"../one\"", "a.toml:2: name"),
            (
                "duration_ms = 1000",
                "duration_ms = 1",
                "a.toml:9: epoch.duration_ms",
            ),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            let found = problems(&text);
            assert!(found.contains(expected), "{from} -> {to}: {found}");
        }
        assert!(problems("name = \"x\"\nshows = \"y\"\n").contains("epochs"));
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let text = GOOD
            .replace("devices = 10", "devices = 0")
            .replace("most-leaders", "nobody");
        assert_eq!(problems(&text).lines().count(), 2);
    }

    #[test]
    fn a_scenario_for_described_nodes_has_gateways_before_the_nodes_that_it_names() {
        let text = GOOD.replace("most-leaders", "node-3").replace(
            "[load]",
            "[cluster]\narguments = [\"--fast\"]\n[composed]\nepochs = 1\nduration_ms = 1000\nfaults_max = 1\n\
             [[composed.fault]]\nkind = \"stop\"\ntarget = \"node-1\"\n[load]",
        );
        let before = parse("a.toml", &text).unwrap();
        assert_eq!(before.cluster.arguments, ["--fast"]);
        let after = with_described_nodes(&text, 2).unwrap();
        let scenario = parse("a.toml", &after).unwrap();
        assert_eq!((scenario.cluster.nodes, scenario.cluster.gateways), (3, 2));
        assert!(scenario.cluster.arguments.is_empty());
        let target = |fault: &FaultSpec| fault.target.clone().unwrap();
        assert_eq!(target(&scenario.epochs[0].faults[0]), "node-5");
        assert_eq!(target(&scenario.composed.unwrap().faults[0]), "node-3");
        // One that has gateways of its own names its nodes as they are.
        let again = with_described_nodes(&after, 7).unwrap();
        assert_eq!(again, after);
        let fewer = with_number(&after, "shards", 5).unwrap();
        assert_eq!(parse("a.toml", &fewer).unwrap().cluster.shards, 5);
    }

    #[test]
    fn a_majority_may_be_taken_where_that_is_said() {
        let text = GOOD
            .replace("most-leaders", "all")
            .replace("shows =", "majority = true\nshows =");
        assert!(parse("a.toml", &text).unwrap().majority);
    }
}
