//! The verdict: what the folder of a run proves.
//!
//! `PASS` needs every promise to hold *and* everything reached that the scenario said it would reach.
//! Without the first it is `FAIL`; with it and without the second, `INCOMPLETE`: nothing was broken, but
//! too little was tried. Figures of speed decide nothing. Never looks at a node or a clock. The promises
//! are in [`super::promises`], the figures in [`super::figures`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::figures::{fault_lines, gaps, in_s, load_span, quiet_spans, reached, timeline};
use super::folder::{Folder, FolderError, Remains};
use super::journal::{Event, Progress};
use super::promises::promises;
use super::report;
use crate::fleet::histogram;
use crate::invariants::{Violation, duplicates, erasing};
use crate::oracle::Disturbance;
use crate::verdict::{LatencyUs, SpanMs};

/// A promise and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Promise {
    /// Its number in `docs/invariants.md`.
    pub id: &'static str,
    /// In a few words.
    pub promise: &'static str,
    /// How much was looked at, and at what.
    pub looked_at: String,
    /// Violations.
    pub violations: u64,
    /// The first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Violation>,
}

/// Something that was to be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// A fault or a state.
    pub name: String,
    /// How often it had to be.
    pub wanted: u64,
    /// How often it was.
    pub reached: u64,
}

/// A fault, for the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultLine {
    /// Its number in the run, from 1.
    pub fault: usize,
    /// The epoch, from 1.
    pub epoch: u64,
    /// Number and name of its kind.
    pub kind: String,
    /// Its nodes, from 1.
    pub nodes: Vec<usize>,
    /// Seconds after the load began.
    pub at_s: f64,
    /// Seconds until it was healed.
    pub for_s: Option<f64>,
    /// How it ended: `healed`, `skipped`, `indeterminate`.
    pub outcome: Progress,
    /// What its steps said.
    pub detail: String,
}

/// A second of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Second {
    /// Messages that were acked in it.
    pub acked: u64,
    /// Median of the time from a message's handing over to its ack, of those acked in this second.
    pub p50_us: u64,
    /// 99 % of it.
    pub p99_us: u64,
}

/// What came of a run. Its JSON is `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// `PASS`, `FAIL` or `INCOMPLETE`.
    pub verdict: &'static str,
    /// Why it is not `PASS`.
    pub reasons: Vec<String>,
    /// The scenario.
    pub scenario: String,
    /// What it shows.
    pub shows: String,
    /// Draws everything.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Shards.
    pub shards: u32,
    /// Devices of the load.
    pub devices: usize,
    /// Seconds of load.
    pub load_s: f64,
    /// Messages that were sent, all workloads together.
    pub sent: u64,
    /// Those that were acked.
    pub acked: u64,
    /// Records that were read back.
    pub read_back: u64,
    /// Second copies that devices caused by sending again.
    pub duplicated: u64,
    /// From the first handing over of a message to its ack.
    pub ack_latency_us: LatencyUs,
    /// The longest pause between two acks, per shard that a fault's node led, by kind of fault.
    pub gap_ms: BTreeMap<String, SpanMs>,
    /// From the loss of a connection at a disturbed node to the next at another.
    pub reconnect_ms: Option<SpanMs>,
    /// From the end of faults until everything was served.
    pub served_after_ms: Option<SpanMs>,
    /// From the end of faults until every shard had all its replicas.
    pub whole_after_ms: Option<SpanMs>,
    /// The faults.
    pub faults: Vec<FaultLine>,
    /// What had to be reached.
    pub must_reach: Vec<Reach>,
    /// What was reached, all of it.
    pub reached: BTreeMap<String, u64>,
    /// The promises.
    pub promises: Vec<Promise>,
    /// Acks by second of the load.
    pub timeline: Vec<Second>,
    /// The run's folder.
    pub folder: PathBuf,
}

/// Judges a folder and writes the report into it.
pub fn judge(folder: &Folder) -> Result<Verdict, FolderError> {
    let remains = folder.load()?;
    let mut verdict = judge_remains(remains);
    verdict.folder = folder.0.clone();
    if let Err(error) = report::write(&verdict, &folder.file("report.html")) {
        // The verdict stands without its page.
        tracing::warn!(%error, "there is no page");
    }
    let path = folder.file("report.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&verdict)?)
        .map_err(|source| FolderError::Io { path, source })?;
    Ok(verdict)
}

/// Judges what a run has left.
pub fn judge_remains(mut remains: Remains) -> Verdict {
    take_disturbances(&mut remains);
    erasing::forget(&mut remains.history, &remains.traces);
    let promises = promises(&remains);
    let faults = fault_lines(&remains);
    let reached = reached(&remains);
    let must_reach: Vec<Reach> = remains
        .scenario
        .must_reach
        .iter()
        .map(|(name, wanted)| Reach {
            name: name.clone(),
            wanted: *wanted,
            reached: reached.get(name).copied().unwrap_or(0),
        })
        .collect();
    let (begun_us, ended_us) = load_span(&remains);
    let (sent, acked) = remains.history.sent_and_acked();
    let mut latency = histogram();
    for message in remains.history.devices.iter().flat_map(|device| &device.messages) {
        if let Some(acked_us) = message.acked_us {
            latency.saturating_record(acked_us.saturating_sub(message.sent_us));
        }
    }
    let mut verdict = Verdict {
        verdict: "PASS",
        reasons: Vec::new(),
        scenario: remains.scenario.name.clone(),
        shows: remains.scenario.shows.trim().to_owned(),
        seed: remains.about.seed,
        nodes: remains.about.nodes,
        shards: remains.about.shards,
        devices: remains.about.devices,
        load_s: in_s(ended_us.saturating_sub(begun_us)),
        sent,
        acked,
        read_back: remains.stored.len() as u64,
        duplicated: duplicates::check(&remains.history, &remains.stored).count,
        ack_latency_us: LatencyUs::from(&latency),
        gap_ms: gaps(&remains),
        reconnect_ms: SpanMs::of_us(remains.history.reconnects_us()),
        served_after_ms: quiet_spans(&remains, |served_us, _| served_us),
        whole_after_ms: quiet_spans(&remains, |_, whole_us| whole_us),
        faults,
        must_reach,
        reached,
        promises,
        timeline: timeline(&remains, begun_us),
        folder: PathBuf::new(),
    };
    verdict.decide(&remains);
    verdict
}

/// Takes the disturbances out of the journal into the history. Where majorities are taken, every node may lose
/// its connections from the beginning of an epoch to the end of its quiet time.
fn take_disturbances(remains: &mut Remains) {
    let history = &mut remains.history;
    for entry in &remains.journal {
        if let Event::Disturbed {
            node,
            from_us,
            until_us,
        } = entry.event
        {
            history.disturbances.push(Disturbance {
                node,
                from_us,
                until_us,
            });
        }
    }
    if !remains.scenario.majority {
        return;
    }
    let connections = history.devices.iter().flat_map(|device| &device.connections);
    let nodes = connections
        .map(|connection| connection.node + 1)
        .max()
        .unwrap_or(0);
    let mut from_us = None;
    for entry in &remains.journal {
        match entry.event {
            Event::Epoch { .. } => from_us = Some(entry.us),
            Event::Quiet { .. } => {
                let Some(from_us) = from_us.take() else { continue };
                let of_node = |node| Disturbance {
                    node,
                    from_us,
                    until_us: entry.us,
                };
                history.disturbances.extend((0..nodes).map(of_node));
            }
            _ => {}
        }
    }
}

impl Verdict {
    /// Whether everything holds and everything was reached.
    pub fn is_pass(&self) -> bool {
        self.reasons.is_empty()
    }

    /// The verdict and why, as one sentence.
    pub fn sentence(&self) -> String {
        let said = match self.is_pass() {
            true => format!("all {} acked messages read back, each in its place", self.acked),
            false => self.reasons.join("; "),
        };
        format!("{} {said}", self.verdict)
    }

    fn decide(&mut self, remains: &Remains) {
        for promise in self.promises.iter().filter(|promise| promise.violations > 0) {
            self.reasons.push(format!(
                "{}: {} {}",
                promise.id, promise.violations, promise.promise
            ));
        }
        let mut is_broken = !self.reasons.is_empty();
        if remains.about.deeds_dropped > 0 {
            is_broken = true;
            self.reasons.push(format!(
                "{} lines are missing from the history, which proves nothing without them",
                remains.about.deeds_dropped
            ));
        }
        for entry in &remains.journal {
            if let Event::Ended {
                given_up: Some(reason),
            } = &entry.event
            {
                is_broken = true;
                self.reasons.push(format!("given up: {reason}"));
            }
        }
        let has_ended = |entry: &super::journal::Entry| matches!(entry.event, Event::Ended { .. });
        if !remains.journal.iter().any(has_ended) {
            self.reasons.push("the run was cut short".into());
        }
        if self.acked == 0 {
            self.reasons
                .push("nothing was acked, so nothing was tried".into());
        }
        for reach in self
            .must_reach
            .iter()
            .filter(|reach| reach.reached < reach.wanted)
        {
            self.reasons.push(format!(
                "{} was reached {} times, not {}",
                reach.name, reach.reached, reach.wanted
            ));
        }
        self.verdict = match (is_broken, self.reasons.is_empty()) {
            (true, _) => "FAIL",
            (false, false) => "INCOMPLETE",
            (false, true) => "PASS",
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::NOTICED_WITHIN_US;
    use crate::oracle::tests::{history, stored};
    use crate::run::folder::About;
    use crate::run::journal::Entry;
    use crate::scenario::read::parse;

    const SCENARIO: &str = r#"
name = "one"
shows = "something"
[[epoch]]
duration_ms = 1000
[[epoch.fault]]
kind = "kill"
[must_reach]
kill = 1
leader-killed = 1
"#;

    fn fault(us: u64, step: Progress) -> Entry {
        let event = Event::Fault {
            fault: 0,
            epoch: 0,
            kind: "kill".into(),
            number: "F01".into(),
            nodes: vec![1],
            step,
            detail: "x".into(),
        };
        Entry { us, event }
    }

    fn good() -> Remains {
        let at = |us, event| Entry { us, event };
        let journal = vec![
            at(0, Event::LoadBegun),
            at(
                0,
                Event::Epoch {
                    epoch: 0,
                    faults: vec!["kill".into()],
                },
            ),
            fault(1_000_000, Progress::Begun),
            fault(1_100_000, Progress::Installed),
            fault(1_200_000, Progress::Confirmed),
            at(
                1_200_000,
                Event::Reached {
                    state: "leader-killed".into(),
                },
            ),
            fault(3_000_000, Progress::Healed),
            at(
                4_000_000,
                Event::Quiet {
                    epoch: 0,
                    from_us: 3_000_000,
                    served_us: Some(3_500_000),
                    whole_us: Some(4_000_000),
                    missing: String::new(),
                },
            ),
            at(
                4_000_000,
                Event::Gap {
                    fault: 0,
                    shard: 3,
                    gap_us: 250_000,
                },
            ),
            at(4_000_000, Event::Ended { given_up: None }),
            at(4_000_000, Event::LoadEnded),
        ];
        Remains {
            scenario: parse("s", SCENARIO).unwrap(),
            about: About {
                scenario: "one".into(),
                seed: 1,
                nodes: 3,
                shards: 1,
                devices: 2,
                names: vec!["d0".into(), "d1".into()],
                attackers: vec!["hostile-0".into()],
                deeds_dropped: 0,
            },
            journal,
            history: history(&[2, 1]),
            operations: Vec::new(),
            accesses: Vec::new(),
            exchanges: Vec::new(),
            handlings: Vec::new(),
            grants: Vec::new(),
            enrollings: Vec::new(),
            traces: Vec::new(),
            steps: Vec::new(),
            sights: Vec::new(),
            deliveries: Vec::new(),
            ranges: Vec::new(),
            surveys: Vec::new(),
            files: Vec::new(),
            standings: Vec::new(),
            samples: Vec::new(),
            stored: stored(&[(0, 0), (1, 0), (0, 1)]),
            replicas: Vec::new(),
            audit: Vec::new(),
        }
    }

    #[test]
    fn a_good_run_passes_and_shows_its_figures() {
        let verdict = judge_remains(good());
        assert!(verdict.is_pass(), "{verdict}");
        assert_eq!((verdict.acked, verdict.load_s), (3, 4.0));
        assert_eq!(verdict.gap_ms["kill"].p50, 250.0);
        assert_eq!(verdict.served_after_ms.unwrap().max, 500.0);
        let line = &verdict.faults[0];
        assert_eq!(
            (line.outcome, line.for_s, line.at_s),
            (Progress::Healed, Some(2.0), 1.0)
        );
        let html = report::page(&verdict).unwrap().render();
        assert!(html.contains("F01 kill") && html.contains("PASS"), "{html}");
        let text = verdict.to_string();
        assert!(
            text.lines()
                .last()
                .is_some_and(|line| line.starts_with("verdict: PASS"))
        );
    }

    #[test]
    fn what_was_not_reached_makes_it_incomplete() {
        let mut remains = good();
        remains
            .journal
            .retain(|entry| !matches!(entry.event, Event::Reached { .. }));
        let verdict = judge_remains(remains);
        assert_eq!(verdict.verdict, "INCOMPLETE");
        assert_eq!(verdict.reasons, ["leader-killed was reached 0 times, not 1"]);
        let mut remains = good();
        remains.journal.retain(|entry| {
            !matches!(
                entry.event,
                Event::Fault {
                    step: Progress::Confirmed,
                    ..
                }
            )
        });
        assert_eq!(
            judge_remains(remains).verdict,
            "INCOMPLETE",
            "installed, never confirmed"
        );
        let mut remains = good();
        remains
            .journal
            .retain(|entry| !matches!(entry.event, Event::Ended { .. }));
        assert_eq!(judge_remains(remains).verdict, "INCOMPLETE", "cut short");
    }

    #[test]
    fn whatever_is_broken_makes_it_fail() {
        type Damage = fn(&mut Remains);
        let broken: [(&str, Damage); 7] = [
            ("I1", |remains| {
                remains.stored.pop();
            }),
            ("I2", |remains| remains.stored[0].digest ^= 1),
            ("I5", |remains| remains.stored[2].offset = 7),
            ("I15", |remains| {
                remains.history.devices[0].messages[1].acked_us = None
            }),
            ("I15", |remains| {
                remains.history.devices[0].connections[0].lost_us = Some(5)
            }),
            ("lines are missing", |remains| remains.about.deeds_dropped = 1),
            ("given up", |remains| {
                let given_up = Some("why".to_owned());
                remains.journal.push(Entry {
                    us: 9,
                    event: Event::Ended { given_up },
                });
            }),
        ];
        for (reason, damage) in broken {
            let mut remains = good();
            damage(&mut remains);
            let verdict = judge_remains(remains);
            assert_eq!(verdict.verdict, "FAIL", "{reason}: {verdict}");
            let found = verdict.reasons.iter().any(|found| found.contains(reason));
            assert!(found, "{reason}: {:?}", verdict.reasons);
        }
    }

    #[test]
    fn a_disturbed_node_may_lose_its_connections_and_a_majority_all() {
        let mut remains = good();
        remains.history.devices[0].connections[0].lost_us = Some(500);
        remains.journal.push(Entry {
            us: 600,
            event: Event::Disturbed {
                node: 0,
                from_us: 400,
                until_us: 600,
            },
        });
        assert!(judge_remains(remains).is_pass());
        let mut remains = good();
        remains.history.devices[0].connections[0].lost_us = Some(500);
        remains.scenario.majority = true;
        assert!(judge_remains(remains).is_pass());
        let mut remains = good();
        remains.history.devices[0].connections[0].lost_us = Some(4_000_001 + NOTICED_WITHIN_US);
        remains.scenario.majority = true;
        assert!(!judge_remains(remains).is_pass(), "long after the quiet time");
    }

    #[test]
    fn what_an_attacker_said_is_no_phantom_and_what_nobody_is_known_to_have_said_is() {
        let of = |device| {
            let mut remains = good();
            remains.stored.extend(stored(&[(9, 0)]));
            let record = &mut remains.stored[3];
            (record.device, record.offset) = (device, 3);
            judge_remains(remains)
        };
        let verdict = of(Some(2));
        assert!(verdict.is_pass(), "{verdict}");
        for nobody in [Some(3), None] {
            let reasons = of(nobody).reasons;
            assert_eq!(reasons, ["I2: 1 stored and never sent so"]);
        }
    }

    #[test]
    fn a_process_that_ended_unasked_makes_it_fail() {
        let mut remains = good();
        let event = Event::Died {
            node: 2,
            how: "it ended by itself".into(),
        };
        remains.journal.push(Entry { us: 2_000_000, event });
        let verdict = judge_remains(remains);
        assert!(
            verdict.reasons.iter().any(|reason| reason.contains("I18")),
            "{:?}",
            verdict.reasons
        );
    }
}
