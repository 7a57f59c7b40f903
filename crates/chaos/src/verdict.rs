//! What came of a run: the figures, what was violated, and whether the hub kept its word.
//!
//! A run passes only if every promise holds *and* it tried what it set out to try: messages were
//! acked, every planned kill happened, everything was read back. Figures of speed decide nothing.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::invariants::{Findings, Violation, connections, duplicates, no_loss, no_phantom, offsets, order};
use crate::oracle::{History, Stored};

/// Violations of one promise that the text shows; the JSON holds all that were kept.
const SHOWN_MAX: usize = 5;

/// Percentiles of the time from when a message should have been sent to its ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LatencyUs {
    /// Median.
    pub p50: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
}

impl From<&Histogram<u64>> for LatencyUs {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
        }
    }
}

/// Percentiles of few spans, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SpanMs {
    /// Median.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// How many were measured.
    pub count: usize,
}

impl SpanMs {
    /// Of spans in microseconds; `None` without any.
    pub fn of_us(mut spans_us: Vec<u64>) -> Option<Self> {
        spans_us.sort_unstable();
        let at = |percent: usize| {
            // Nearest rank: a value that was measured, never one between two.
            let rank = (spans_us.len() * percent).div_ceil(100).max(1);
            spans_us.get(rank - 1).map(|span| *span as f64 / 1000.0)
        };
        Some(Self {
            p50: at(50)?,
            p99: at(99)?,
            max: at(100)?,
            count: spans_us.len(),
        })
    }
}

/// A kill, for the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KillLine {
    /// Which node, from 1.
    pub node: usize,
    /// When, in seconds after the load began.
    pub at_s: f64,
    /// Shards that it led just before.
    pub shards_led: usize,
    /// Seconds until its process was ready again.
    pub away_s: Option<f64>,
}

/// Everything that is known once the run is over.
#[derive(Debug)]
pub struct Evidence {
    /// Draws everything that is random.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Shards.
    pub shards: u32,
    /// Devices of the load.
    pub devices: usize,
    /// Seconds of load.
    pub load_s: f64,
    /// What was attempted and acked.
    pub history: History,
    /// What was read back.
    pub stored: Vec<Stored>,
    /// Messages of the load that were acked.
    pub load_acked: u64,
    /// Latencies of the load.
    pub latency_us: Histogram<u64>,
    /// Gaps of the probes of shards that a killed node led.
    pub gaps_us: Vec<u64>,
    /// Kills that were planned.
    pub kills_planned: usize,
    /// Kills that happened.
    pub kills: Vec<KillLine>,
}

/// A run's outcome. Its JSON is what `dunlin demo --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// `PASS` or `FAIL`.
    pub verdict: &'static str,
    /// Why it is `FAIL`.
    pub reasons: Vec<String>,
    /// Draws everything that is random.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Shards.
    pub shards: u32,
    /// Devices of the load; probes come on top.
    pub devices: usize,
    /// Seconds of load.
    pub load_s: f64,
    /// Messages that were sent, probes' included.
    pub sent: u64,
    /// Those that were acked.
    pub acked: u64,
    /// Those that were not; must be 0, since the run waits for the cluster to be whole again (I15).
    pub unknown: u64,
    /// Records that were read back, second copies included.
    pub read_back: u64,
    /// Acked and not read back (I1); must be 0.
    pub lost: u64,
    /// Read back and never sent, or with another content (I2); must be 0.
    pub phantom: u64,
    /// Behind a later message of their device (I3); must be 0.
    pub reordered: u64,
    /// Second copies (I4).
    pub duplicated: u64,
    /// Those of them that no re-send after a kill explains (I4); must be 0.
    pub duplicated_unexplained: u64,
    /// Offsets that are missing or repeated (I5); must be 0.
    pub offset_gaps: u64,
    /// Connections that were lost although their node lived; must be 0.
    pub dropped_connections: u64,
    /// From the intended send time to the ack, over the whole run.
    pub ack_latency_us: LatencyUs,
    /// The longest pause between two acks around a kill, per shard that the killed node led, seen
    /// through a gateway that lived.
    pub ack_gap_ms: Option<SpanMs>,
    /// From the loss of a connection to a killed node to the next connection.
    pub reconnect_ms: Option<SpanMs>,
    /// Acked messages of the load per second of load.
    pub msgs_per_s: f64,
    /// The kills.
    pub kills: Vec<KillLine>,
    /// Violations with the records involved; a bounded number of each kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// Where data and logs of the nodes are kept, after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
}

impl Report {
    /// Compares what was acked with what was read back.
    pub fn judge(evidence: &Evidence) -> Report {
        let Evidence { history, stored, .. } = evidence;
        let lost = no_loss::check(history, stored);
        let phantom = no_phantom::check(history, stored);
        let reordered = order::check(history, stored);
        let duplicates::Duplicates {
            count: duplicated,
            unexplained,
        } = duplicates::check(history, stored);
        let offset_gaps = offsets::check(stored);
        let dropped = connections::check(history);
        let (sent, acked) = history.sent_and_acked();
        let mut report = Report {
            verdict: "FAIL",
            reasons: Vec::new(),
            seed: evidence.seed,
            nodes: evidence.nodes,
            shards: evidence.shards,
            devices: evidence.devices,
            load_s: rounded(evidence.load_s),
            sent,
            acked,
            unknown: history.never_acked().count() as u64,
            read_back: stored.len() as u64,
            lost: lost.count,
            phantom: phantom.count,
            reordered: reordered.count,
            duplicated,
            duplicated_unexplained: unexplained.count,
            offset_gaps: offset_gaps.count,
            dropped_connections: dropped.count,
            ack_latency_us: LatencyUs::from(&evidence.latency_us),
            ack_gap_ms: SpanMs::of_us(evidence.gaps_us.clone()),
            reconnect_ms: SpanMs::of_us(history.reconnects_us()),
            msgs_per_s: rounded(evidence.load_acked as f64 / evidence.load_s.max(0.001)),
            kills: evidence.kills.clone(),
            violations: Vec::new(),
            data_dir: None,
        };
        report.accuse(
            [lost, phantom, reordered, unexplained, offset_gaps, dropped],
            evidence.kills_planned,
        );
        report
    }

    fn accuse(&mut self, findings: [Findings; 6], kills_planned: usize) {
        let mut must = |holds: bool, reason: String| {
            if !holds {
                self.reasons.push(reason);
            }
        };
        must(self.lost == 0, format!("{} acked messages lost (I1)", self.lost));
        must(
            self.phantom == 0,
            format!("{} records that nobody sent so (I2)", self.phantom),
        );
        must(
            self.reordered == 0,
            format!("{} messages out of order (I3)", self.reordered),
        );
        must(
            self.duplicated_unexplained == 0,
            format!(
                "{} second copies that no re-send explains (I4)",
                self.duplicated_unexplained
            ),
        );
        must(
            self.offset_gaps == 0,
            format!("{} offsets missing or repeated (I5)", self.offset_gaps),
        );
        must(
            self.dropped_connections == 0,
            format!(
                "{} connections lost at nodes that lived",
                self.dropped_connections
            ),
        );
        must(
            self.unknown == 0,
            format!(
                "{} messages still without an ack when all was over (I15)",
                self.unknown
            ),
        );
        must(self.acked > 0, "nothing was acked, so nothing was tried".into());
        must(
            self.kills.len() == kills_planned,
            format!("{} of {kills_planned} kills happened", self.kills.len()),
        );
        must(
            kills_planned == 0 || self.ack_gap_ms.is_some(),
            "no shard that a killed node led was watched".into(),
        );
        if self.reasons.is_empty() {
            self.verdict = "PASS";
        }
        self.violations = findings
            .into_iter()
            .flat_map(|findings| findings.examples)
            .collect();
    }

    /// Whether everything holds.
    pub fn is_pass(&self) -> bool {
        self.reasons.is_empty()
    }
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// For people: each figure with the promise it belongs to; the last line is the verdict.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "  {name:<22} {value}");
        let ms = |span: &Option<SpanMs>| match span {
            Some(span) => {
                format!(
                    "p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms ({} seen)",
                    span.p50, span.p99, span.max, span.count
                )
            }
            None => "none".into(),
        };
        line(
            "load",
            format!(
                "{} devices, {} shards, {} nodes, {:.1} s",
                self.devices, self.shards, self.nodes, self.load_s
            ),
        )?;
        line(
            "acked",
            format!(
                "{} of {} sent, {:.0} per second",
                self.acked, self.sent, self.msgs_per_s
            ),
        )?;
        let latency = &self.ack_latency_us;
        let in_ms = |us: u64| us as f64 / 1000.0;
        line(
            "ack latency",
            format!(
                "p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms",
                in_ms(latency.p50),
                in_ms(latency.p99),
                in_ms(latency.p999)
            ),
        )?;
        for kill in &self.kills {
            let back = kill
                .away_s
                .map_or("never back".into(), |away_s| format!("back after {away_s:.1} s"));
            line(
                "killed",
                format!(
                    "node {} at {:.1} s, led {} shards, {back}",
                    kill.node, kill.at_s, kill.shards_led
                ),
            )?;
        }
        if !self.kills.is_empty() {
            line("ack gap", ms(&self.ack_gap_ms))?;
            line("reconnect", ms(&self.reconnect_ms))?;
        }
        line("read back", format!("{}", self.read_back))?;
        line("I1  lost", format!("{}", self.lost))?;
        line("I2  phantom", format!("{}", self.phantom))?;
        line("I3  reordered", format!("{}", self.reordered))?;
        line(
            "I4  duplicated",
            format!(
                "{}, of which no re-send explains {}",
                self.duplicated, self.duplicated_unexplained
            ),
        )?;
        line("I5  offset gaps", format!("{}", self.offset_gaps))?;
        line("I15 never acked", format!("{}", self.unknown))?;
        line(
            "I15 dropped",
            format!("{} connections of nodes that lived", self.dropped_connections),
        )?;
        let mut shown: Vec<(&str, usize)> = Vec::new();
        for violation in &self.violations {
            let kind = match shown.iter_mut().find(|(what, _)| *what == violation.what) {
                Some(kind) => kind,
                None => {
                    shown.push((&violation.what, 0));
                    shown.last_mut().expect("just pushed")
                }
            };
            kind.1 += 1;
            if kind.1 <= SHOWN_MAX {
                line("!", violation.to_string())?;
            }
        }
        if let Some(data_dir) = &self.data_dir {
            line("kept", format!("data and node-*.log in {}", data_dir.display()))?;
        }
        let mut verdict = String::new();
        if self.is_pass() {
            let _ = write!(
                verdict,
                "all {} acked messages read back, each in its place",
                self.acked
            );
        } else {
            verdict.push_str(&self.reasons.join("; "));
        }
        write!(f, "verdict: {} {verdict}", self.verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::histogram;
    use crate::oracle::tests::{history, stored};

    fn evidence() -> Evidence {
        Evidence {
            seed: 1,
            nodes: 3,
            shards: 16,
            devices: 2,
            load_s: 2.0,
            history: history(&[2, 1]),
            stored: stored(&[(0, 0), (1, 0), (0, 1)]),
            load_acked: 3,
            latency_us: histogram(),
            gaps_us: Vec::new(),
            kills_planned: 0,
            kills: Vec::new(),
        }
    }

    #[test]
    fn a_good_run_passes_and_its_json_has_the_figures() {
        let report = Report::judge(&evidence());
        assert!(report.is_pass(), "{report}");
        assert!(
            report
                .to_string()
                .lines()
                .last()
                .is_some_and(|line| line.starts_with("verdict: PASS"))
        );
        let json = serde_json::to_value(&report).unwrap();
        for name in [
            "nodes",
            "shards",
            "devices",
            "acked",
            "read_back",
            "lost",
            "duplicated",
            "reordered",
            "phantom",
            "dropped_connections",
            "ack_latency_us",
            "ack_gap_ms",
            "msgs_per_s",
            "verdict",
            "duplicated_unexplained",
        ] {
            assert!(json.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_loss_a_missing_ack_and_a_missing_kill_fail() {
        let mut bad = evidence();
        bad.stored.pop();
        bad.history.devices[1].messages[0].acked_us = None;
        bad.kills_planned = 1;
        let report = Report::judge(&bad);
        assert_eq!((report.verdict, report.lost, report.unknown), ("FAIL", 1, 1));
        assert_eq!(report.reasons.len(), 4);
        assert!(
            report
                .to_string()
                .lines()
                .last()
                .is_some_and(|line| line.starts_with("verdict: FAIL"))
        );
    }

    #[test]
    fn spans_are_ranked() {
        let span = SpanMs::of_us((1..=200).map(|ms| ms * 1000).collect()).unwrap();
        assert_eq!(
            (span.p50, span.p99, span.max, span.count),
            (100.0, 198.0, 200.0, 200)
        );
        assert_eq!(SpanMs::of_us(Vec::new()), None);
        assert_eq!(SpanMs::of_us(vec![7000]).unwrap().p99, 7.0);
    }
}
