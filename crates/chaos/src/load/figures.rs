//! A run in figures: what is printed, written as JSON, put on a page, and merged with other runs.
//!
//! Decides what a figure means: rates are those of the measured window, latencies those of
//! [`super::recorder`], and a load without a schedule has its latencies twice, as measured and corrected.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::ceiling::Ceiling;
use super::engine::{Outcome, Row};
use super::hdr::{self, HdrError};
use super::plan::{Action, Plan};
use super::recorder::Tally;
use super::verify::Verification;

/// A generator that works harder than this measures itself.
pub const CEILING_SHARE_WARNED: f64 = 0.7;

/// A distribution of times, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Latency {
    /// Of a histogram in microseconds; `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        Some(Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        })
    }
}

/// How a load was paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loop {
    /// On a schedule.
    Open,
    /// Full windows.
    Closed,
}

impl Loop {
    /// Open if there is a schedule.
    pub(super) fn of(is_scheduled: bool) -> Self {
        if is_scheduled { Loop::Open } else { Loop::Closed }
    }
}

/// What a server comes to that does nothing but sync logs: the least that durable messages cost here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Logs that each message is synced to before it is acknowledged.
    pub logs: usize,
    /// Where they are, since every disk has its own floor.
    pub folder: String,
    /// Acknowledged messages per second.
    pub per_s: f64,
}

/// What consumers of a group saw beside events.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Bytes of the batches that were read.
    pub bytes: u64,
    /// Megabytes per second.
    pub mb_per_s: f64,
    /// Generations that the group has had.
    pub rebalances: u64,
}

/// What a load was, as far as its figures ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// See [`Figures::kind`].
    pub(super) kind: &'static str,
    /// How it was paced, if it was.
    pub(super) pacing: Option<Loop>,
    /// What was scheduled for this generator.
    pub(super) scheduled_per_s: Option<f64>,
    /// Clients of this generator.
    pub(super) clients: u64,
    /// Places that were used again and again in a closed loop, where latencies are to be corrected.
    pub(super) slots: Option<u64>,
}

impl Shape {
    fn of(plan: &Plan) -> Self {
        let clients = plan.clients.len() as u64;
        let (kind, pacing, scheduled_per_s, slots) = match &plan.action {
            Action::Publish {
                schedule,
                window,
                qos,
                clients: all,
                ..
            } => {
                let pacing = Loop::of(schedule.is_some());
                // With QoS 0 nothing is answered, so there is nothing to correct.
                let is_corrected = pacing == Loop::Closed && *qos > 0;
                let share = clients as f64 / (*all).max(1) as f64;
                (
                    "pub",
                    Some(pacing),
                    schedule.map(|schedule| schedule.per_s() * share),
                    is_corrected.then_some(clients * u64::from(*window)),
                )
            }
            Action::Subscribe { .. } => ("sub", None, None, None),
            Action::Connect => ("conn", None, None, None),
        };
        Self {
            kind,
            pacing,
            scheduled_per_s,
            clients,
            slots,
        }
    }
}

/// What a run came to. Its JSON is what `dunlin load -o json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// `pub`, `sub`, `conn`, `method`, `service`, `provision` or `kafka`.
    pub kind: String,
    /// The server, as it was named.
    pub target: String,
    /// How messages were paced, if there were any.
    #[serde(rename = "loop", skip_serializing_if = "Option::is_none")]
    pub pacing: Option<Loop>,
    /// Messages per second that were scheduled for this generator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_per_s: Option<f64>,
    /// Clients of this generator.
    pub clients: u64,
    /// Milliseconds since 1970 at the start of the load.
    pub started_ms: u64,
    /// Seconds of the measured window.
    pub window_s: f64,
    /// Acknowledged messages per second of the window; of what is no message, what was done.
    pub acked_per_s: f64,
    /// Received messages per second of the window.
    pub received_per_s: f64,
    /// Connections made per second, from the first connect to the last.
    pub connects_per_s: f64,
    /// Counts of the whole run.
    pub counts: Tally,
    /// Why connects failed, connections were lost and messages were refused.
    pub reasons: BTreeMap<String, u64>,
    /// From when a message was due (open loop) or sent (closed) to its acknowledgement; of a
    /// subscription, to its arrival; of connections, see `connect_us`. What is no message counts alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Latency>,
    /// Closed loop: as if each place in a window had been due at even times; see [`corrected`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected_us: Option<Latency>,
    /// From the intended beginning of a connect to its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<Latency>,
    /// What this generator reaches against a server that does nothing, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling_per_s: Option<f64>,
    /// Why there is no such figure, or what it leaves out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling_note: Option<String>,
    /// What a server comes to that only syncs, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    /// What consumers of a group saw beside events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
    /// What came of the comparison, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// All latencies, in HdrHistogram's own form (V2, compressed, Base64).
    pub histogram: String,
    /// Closed loop: the corrected ones, in the same form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected_histogram: Option<String>,
    /// Interval by interval.
    pub intervals: Vec<Row>,
}

impl Figures {
    /// Of a run of `plan` against `target`.
    pub fn new(plan: &Plan, target: &str, outcome: &Outcome) -> Result<Self, HdrError> {
        Self::of(&Shape::of(plan), target, outcome)
    }

    /// Of a run of this shape against `target`.
    pub(super) fn of(shape: &Shape, target: &str, outcome: &Outcome) -> Result<Self, HdrError> {
        let window_s = outcome.window_s.max(1e-3);
        let tally = &outcome.total.tally;
        let latency_us = match shape.kind {
            "conn" => &outcome.total.connect_us,
            _ => &outcome.total.latency_us,
        };
        let corrected = shape.slots.map(|slots| corrected(latency_us, slots, window_s));
        Ok(Self {
            kind: shape.kind.to_owned(),
            target: target.to_owned(),
            pacing: shape.pacing,
            scheduled_per_s: shape.scheduled_per_s,
            clients: shape.clients,
            started_ms: outcome
                .started
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            window_s: outcome.window_s,
            acked_per_s: tally.acked_in_window as f64 / window_s,
            received_per_s: tally.received_in_window as f64 / window_s,
            connects_per_s: outcome.connects_per_s,
            counts: *tally,
            reasons: outcome.total.reasons.clone(),
            latency_us: Latency::of(latency_us),
            corrected_us: corrected.as_ref().and_then(Latency::of),
            connect_us: Latency::of(&outcome.total.connect_us),
            ceiling_per_s: None,
            ceiling_note: None,
            floor: None,
            reading: None,
            verification: None,
            histogram: hdr::to_text(latency_us)?,
            corrected_histogram: corrected.as_ref().map(hdr::to_text).transpose()?,
            intervals: outcome.rows.clone(),
        })
    }

    /// Puts the generator's own ceiling beside it.
    pub fn with_ceiling(self, ceiling: Ceiling) -> Self {
        Self {
            ceiling_per_s: ceiling.per_s,
            ceiling_note: ceiling.note,
            ..self
        }
    }

    /// The rate that matters for this kind of run.
    pub fn per_s(&self) -> f64 {
        match self.kind.as_str() {
            "sub" | "kafka" => self.received_per_s,
            "conn" => self.connects_per_s,
            _ => self.acked_per_s,
        }
    }

    /// How much of its ceiling the generator used.
    pub fn ceiling_share(&self) -> Option<f64> {
        let ceiling_per_s = self.ceiling_per_s?;
        Some(self.per_s() / ceiling_per_s.max(1e-3))
    }

    /// How much of the floor the server came to.
    pub fn floor_share(&self) -> Option<f64> {
        let floor = self.floor.as_ref()?;
        Some(self.per_s() / floor.per_s.max(1e-3))
    }

    /// Whether everything that was asked for was done, as far as is known.
    pub fn is_whole(&self) -> bool {
        self.counts.refused + self.counts.unacked == 0
    }

    /// Whether nothing was found that a server must not do.
    pub fn is_pass(&self) -> bool {
        self.verification.as_ref().is_none_or(Verification::is_pass)
    }
}

/// The latencies of a closed loop corrected for what it did not try while it waited: `slots` places, each
/// of which would have been used at even times had the server been even. A stall of `s` adds what
/// would have been due in it, as HdrHistogram's correction does.
pub fn corrected(latency_us: &Histogram<u64>, slots: u64, window_s: f64) -> Histogram<u64> {
    let per_slot = latency_us.len() as f64 / slots.max(1) as f64;
    let interval_us = window_s * 1e6 / per_slot.max(1e-9);
    latency_us.clone_correct((interval_us as u64).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::histogram;

    #[test]
    fn a_stall_counts_as_often_as_it_would_have_been_met() {
        // One place, 1 ms an answer for a second, and one stall of a second.
        let mut latency_us = histogram();
        latency_us.record_n(1000, 999).unwrap();
        latency_us.record(1_000_000).unwrap();
        let raw = Latency::of(&latency_us).unwrap();
        assert_eq!((raw.p99, raw.max), (1000, 1_000_447));
        let corrected = Latency::of(&corrected(&latency_us, 1, 2.0)).unwrap();
        // 500 more would have been due in the stall, every 2 ms, and waited 500 ms in the mean.
        assert!((1490..=1510).contains(&corrected.count), "{corrected:?}");
        assert!((960_000..=990_000).contains(&corrected.p99), "{corrected:?}");
        assert!((corrected.p50, raw.p50) == (1000, 1000));
    }

    #[test]
    fn an_even_server_needs_no_correction() {
        let mut latency_us = histogram();
        latency_us.record_n(2000, 1000).unwrap();
        let corrected = corrected(&latency_us, 4, 0.5);
        assert_eq!(corrected.len(), 1000);
        assert_eq!(Latency::of(&histogram()), None);
    }
}
