//! What a node's `/metrics` shows: how its replicas stand in their groups (I13), and alarms (I19).
//!
//! Decides nothing: what is wrong with either is for [`crate::invariants`]. Who does not answer soon is not waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use dunlin_model::alarm::Alarm;
use dunlin_model::iso_time::iso_utc;
use reqwest::{Method, StatusCode};

use crate::hub::Hub;
use crate::invariants::raft::Sight;

/// Time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);
/// Characters of a time to the millisecond, with which each line of a log begins.
const TIME_CHARS: usize = "2026-11-23T00:37:38.123".len();

/// Words of a node's log beside which an alarm is counted. A node that ends over what it has found has only its log.
const COUNTED: &[(&str, Alarm)] = &[
    ("journal is damaged", Alarm::JournalDamaged),
    ("event segments are missing", Alarm::SegmentDamaged),
    ("an actor of the shard failed", Alarm::ShardActorFailed),
    ("this machine's clock is wrong", Alarm::ClockWrong),
    ("the disk is full", Alarm::DiskFull),
];

/// What one answer says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scrape {
    started_ms: u64,
    /// By group, and name without what all have in common.
    groups: BTreeMap<u32, BTreeMap<String, u64>>,
    alarms: BTreeMap<String, u64>,
}

/// Asks a node.
pub(super) async fn ask(hub: &Hub, node: usize) -> Option<Scrape> {
    if hub.address(node).is_empty() {
        return None;
    }
    let answer = hub.attempt(node, (Method::GET, "/metrics"), None, None, None);
    let (status, body) = tokio::time::timeout(ANSWER_TIMEOUT, answer).await.ok()?.ok()?;
    (status == StatusCode::OK).then(|| Scrape::read(&String::from_utf8_lossy(&body)))
}

/// Whether the node has counted what these lines of its log tell of. Nothing where no metric goes with them, the node
/// does not answer, or those who logged them are gone.
pub(super) async fn is_counted(hub: &Hub, node: usize, lines: &[&str]) -> Option<bool> {
    let is_of_some = |(words, _): &&(&str, Alarm)| lines.iter().any(|line| line.contains(words));
    let (words, alarm) = COUNTED.iter().find(is_of_some)?;
    let scrape = ask(hub, node).await?;
    scrape.has_counted(*alarm, lines.iter().filter(|line| line.contains(words)))
}

impl Scrape {
    fn read(text: &str) -> Scrape {
        let mut scrape = Scrape::default();
        for line in text.lines() {
            scrape.take(line);
        }
        scrape
    }

    /// A line such as `dunlin_group_term{group="1"} 5`; others are of no interest here.
    fn take(&mut self, line: &str) -> Option<()> {
        let (name, value) = line.strip_prefix("dunlin_")?.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        if name == "started_ms" {
            self.started_ms = value;
        } else if let Some(kind) = label(name, "alarms_total", "kind") {
            self.alarms.insert(kind.to_owned(), value);
        } else {
            let (family, _) = name.strip_prefix("group_")?.split_once('{')?;
            let group = label(name, &format!("group_{family}"), "group")?.parse().ok()?;
            let of_group = self.groups.entry(group).or_default();
            of_group.insert(family.to_owned(), value);
        }
        Some(())
    }

    /// How the node's replicas stand, as it was asked at this time.
    pub(super) fn sights(&self, us: u64, node: usize) -> Vec<Sight> {
        let sight = |(group, of_group): (&u32, &BTreeMap<String, u64>)| {
            let get = |family: &str| of_group.get(family).copied();
            Some(Sight {
                us,
                node,
                life: self.started_ms,
                run: get("run")?,
                group: *group,
                replica: get("replica")?,
                term: get("term")?,
                leads: get("leads")? == 1,
                vote: get("vote_term").map(|term| (term, 0)),
                committed: get("committed"),
                applied: get("applied"),
            })
        };
        self.groups.iter().filter_map(sight).collect()
    }

    /// Beside each line stands one alarm; of an earlier life nothing is known.
    fn has_counted<'a>(&self, alarm: Alarm, lines: impl Iterator<Item = &'a &'a str>) -> Option<bool> {
        let begun = iso_utc(self.started_ms);
        let is_of_this_life = |line: &&&str| line.get(..TIME_CHARS) >= begun.get(..TIME_CHARS);
        let told = lines.filter(is_of_this_life).count() as u64;
        let counted = self.alarms.get(alarm.name()).copied().unwrap_or(0);
        (told > 0).then_some(counted >= told)
    }
}

/// The value of the one label of a metric of this name.
fn label<'a>(text: &'a str, name: &str, label: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(name)?.strip_prefix('{')?.strip_prefix(label)?;
    rest.strip_prefix("=\"")?.strip_suffix("\"}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP dunlin_group_term Raft term.
# TYPE dunlin_group_term gauge
dunlin_group_term{group="3"} 5
dunlin_group_leads{group="3"} 1
dunlin_group_apply_lag{group="3"} 0
dunlin_group_replica{group="3"} 7
dunlin_group_run{group="3"} 2
dunlin_group_vote_term{group="3"} 5
dunlin_group_committed{group="3"} 90
dunlin_group_applied{group="3"} 89
dunlin_group_term{group="4"} 1
dunlin_started_ms 1800000000000
dunlin_alarms_total{kind="journal-damaged"} 2
dunlin_alarms_total{kind="clock-wrong"} 0
dunlin_gateway_connections_now 12
# EOF
"#;

    #[test]
    fn a_replica_is_read_whole_or_not_at_all() {
        let sights = Scrape::read(TEXT).sights(17, 2);
        let expected = Sight {
            us: 17,
            node: 2,
            life: 1_800_000_000_000,
            run: 2,
            group: 3,
            replica: 7,
            term: 5,
            leads: true,
            vote: Some((5, 0)),
            committed: Some(90),
            applied: Some(89),
        };
        assert_eq!(sights, [expected], "group 4 has not begun");
    }

    #[test]
    fn an_alarm_is_counted_for_each_line_of_this_life() {
        let scrape = Scrape::read(TEXT);
        let begun = &iso_utc(1_800_000_000_000)[..19];
        let line = |time: &str| format!("{time}Z ERROR dunlin: journal is damaged");
        let (before, after) = (
            line("2020-01-01T00:00:00.000000"),
            line(&format!("{begun}.100000")),
        );
        let has = |alarm, lines: &[&str]| scrape.has_counted(alarm, lines.iter());
        assert_eq!(has(Alarm::JournalDamaged, &[&before, &after, &after]), Some(true));
        assert_eq!(has(Alarm::JournalDamaged, &[&after, &after, &after]), Some(false));
        assert_eq!(has(Alarm::ClockWrong, &[&after]), Some(false));
        assert_eq!(has(Alarm::ClockWrong, &[&before]), None, "another life's");
    }
}
