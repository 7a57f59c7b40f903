//! A verdict as text for people: figures, faults, promises; the last line is the verdict.

use std::collections::BTreeMap;
use std::fmt;

use super::journal::Progress;
use super::judge::Verdict;
use crate::verdict::SpanMs;

/// Violations of one promise that the text shows; the JSON holds all that were kept.
const SHOWN_MAX: usize = 5;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "  {name:<18} {value}");
        let span = |span: &SpanMs| {
            format!(
                "p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms ({} seen)",
                span.p50, span.p99, span.max, span.count
            )
        };
        line(
            "run",
            format!(
                "{}, seed {}, {} nodes, {} shards, {} devices, {:.0} s",
                self.scenario, self.seed, self.nodes, self.shards, self.devices, self.load_s
            ),
        )?;
        line("acked", format!("{} of {} sent", self.acked, self.sent))?;
        let ms = |us: u64| us as f64 / 1000.0;
        let latency = &self.ack_latency_us;
        line(
            "ack latency",
            format!(
                "p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms",
                ms(latency.p50),
                ms(latency.p99),
                ms(latency.p999)
            ),
        )?;
        for (kind, gap) in &self.gap_ms {
            line("ack gap", format!("{kind}: {}", span(gap)))?;
        }
        for (name, value) in [
            ("reconnect", &self.reconnect_ms),
            ("served again", &self.served_after_ms),
            ("replicas again", &self.whole_after_ms),
        ] {
            if let Some(value) = value {
                line(name, span(value))?;
            }
        }
        let mut outcomes: BTreeMap<(&str, Progress), u64> = BTreeMap::new();
        for fault in &self.faults {
            *outcomes.entry((&fault.kind, fault.outcome)).or_default() += 1;
        }
        for ((kind, outcome), count) in outcomes {
            let outcome = format!("{outcome:?}").to_lowercase();
            line("fault", format!("{kind}: {count} {outcome}"))?;
        }
        for reach in &self.must_reach {
            let mark = if reach.reached < reach.wanted {
                "  too few"
            } else {
                ""
            };
            line(
                "reached",
                format!("{}: {} of {}{mark}", reach.name, reach.reached, reach.wanted),
            )?;
        }
        for promise in &self.promises {
            line(
                &format!(
                    "{:<4} {}",
                    promise.id,
                    if promise.violations == 0 {
                        "holds"
                    } else {
                        "BROKEN"
                    }
                ),
                format!(
                    "{} {} (of {})",
                    promise.violations, promise.promise, promise.looked_at
                ),
            )?;
            for example in promise.examples.iter().take(SHOWN_MAX) {
                line("", format!("! {example}"))?;
            }
        }
        line("report", self.folder.join("report.html").display().to_string())?;
        write!(f, "verdict: {}", self.sentence())
    }
}
