//! What came of an attack, for people and programs, and whether the hub stood it.
//!
//! Judged is what a hub owes whoever behaves; how fast it was under attack is told and never judged.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::count::Counted;
use super::memory::NodeMemory;
use super::{KINDS, Kind, Options};
use crate::invariants::{Findings, no_loss, no_phantom, order};
use crate::oracle::{History, Stored};

/// Attack that somebody new must have been let in during, if it lasts that long.
const NEWCOMER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Latencies of one side of the comparison, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// 99 of 100 are below.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What attackers did.
    pub kinds: Vec<Kind>,
    /// Draws the run.
    pub seed: u64,
    /// Times that the attack was let loose.
    pub rounds: u32,
    /// Seconds of attack in all.
    pub attack_s: f64,
    /// What attackers did and saw.
    pub counted: Counted,
    /// Connections made, by what was done on them.
    pub connections: BTreeMap<Kind, u64>,
    /// Messages of good devices that were acknowledged.
    pub good_acked: u64,
    /// Connections that good devices lost.
    pub good_connections_lost: u64,
    /// Their acknowledgements while it was quiet.
    pub quiet: Latency,
    /// And under attack.
    pub attacked: Latency,
    /// 99th percentile under attack, as a multiple of the quiet one.
    pub p99_ratio: f64,
    /// Connects of further good devices while it was quiet.
    pub connects_quiet: Latency,
    /// And under attack.
    pub connects_attacked: Latency,
    /// Further good devices that were not let in.
    pub connects_failed: u64,
    /// The nodes.
    pub nodes: Vec<NodeMemory>,
    /// Why the hub did not stand it; empty when it did.
    pub reasons: Vec<String>,
}

impl Report {
    /// Whether the hub stood it.
    pub fn is_pass(&self) -> bool {
        self.reasons.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = KINDS
            .iter()
            .filter(|(_, kind)| self.kinds.contains(kind))
            .map(|(name, _)| *name)
            .collect();
        let Counted {
            packets,
            bytes,
            connections,
            held_max,
            refused,
            closed,
            answered,
        } = self.counted;
        writeln!(
            f,
            "attack      {}, {:.1} s in {} rounds, seed {}",
            names.join(", "),
            self.attack_s,
            self.rounds,
            self.seed
        )?;
        writeln!(
            f,
            "sent        {packets} packets ({bytes} bytes) on {connections} connections, {held_max} at one time"
        )?;
        writeln!(
            f,
            "seen        {closed} closed by the hub, {refused} not made, {answered} messages acknowledged"
        )?;
        writeln!(
            f,
            "good acks   {} acked, {} connections lost; p99 {:.1} ms quiet, {:.1} ms attacked, ratio {:.2}",
            self.good_acked,
            self.good_connections_lost,
            self.quiet.p99_us as f64 / 1e3,
            self.attacked.p99_us as f64 / 1e3,
            self.p99_ratio
        )?;
        writeln!(
            f,
            "newcomers   p99 {:.1} ms quiet ({}), {:.1} ms attacked ({}), {} not let in",
            self.connects_quiet.p99_us as f64 / 1e3,
            self.connects_quiet.count,
            self.connects_attacked.p99_us as f64 / 1e3,
            self.connects_attacked.count,
            self.connects_failed
        )?;
        for node in &self.nodes {
            writeln!(
                f,
                "memory      pid {}: {} MiB before, {} at the most, {} after",
                node.pid,
                node.before_kib / 1024,
                node.max_kib / 1024,
                node.after_kib / 1024
            )?;
        }
        match self.is_pass() {
            true => write!(f, "verdict     PASS"),
            false => write!(f, "verdict     FAIL: {}", self.reasons.join("; ")),
        }
    }
}

pub(super) fn lost_connections(history: &History) -> u64 {
    let connections = history.devices.iter().flat_map(|device| &device.connections);
    connections
        .filter(|connection| connection.lost_us.is_some())
        .count() as u64
}

/// Why the hub did not stand it.
pub(super) fn judge(report: &Report, options: &Options, history: &History, stored: &[Stored]) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut must = |holds: bool, reason: String| {
        if !holds {
            reasons.push(reason);
        }
    };
    for node in &report.nodes {
        must(node.is_alive, format!("process {} is gone", node.pid));
        must(
            node.max_kib <= options.memory_mib_max * 1024,
            format!("process {} came to {} MiB", node.pid, node.max_kib / 1024),
        );
    }
    let checks: BTreeMap<&str, Findings> = BTreeMap::from([
        (
            "acknowledged messages of good devices are lost",
            no_loss::check(history, stored),
        ),
        (
            "records of good devices were not sent by them",
            no_phantom::check(history, stored),
        ),
        (
            "messages of good devices are out of order",
            order::check(history, stored),
        ),
    ]);
    for (what, findings) in checks {
        must(findings.is_empty(), format!("{} {what}", findings.count));
    }
    let lost = report.good_connections_lost;
    must(lost == 0, format!("good devices lost {lost} connections"));
    must(report.good_acked > 0, "nothing was acknowledged".to_owned());
    must(
        report.quiet.count > 0,
        "nothing was acknowledged while it was quiet".to_owned(),
    );
    must(
        report.attacked.count > 0,
        "nothing was acknowledged under attack".to_owned(),
    );
    for (kind, connections) in &report.connections {
        must(
            *connections > 0,
            format!("attackers made no connection: {kind:?}"),
        );
    }
    let is_long = report.attack_s >= NEWCOMER_WAIT_MAX.as_secs_f64();
    must(
        report.connects_attacked.count > 0 || !is_long,
        format!("nobody new was let in during {:.0} s of attack", report.attack_s),
    );
    let failed = report.connects_failed;
    must(failed == 0, format!("{failed} newcomers gave up"));
    if let Some(packets) = options.packets {
        let sent = report.counted.packets;
        must(
            sent >= packets,
            format!("only {sent} of {packets} packets were sent"),
        );
    }
    reasons
}
