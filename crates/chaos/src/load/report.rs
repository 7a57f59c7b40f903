//! A run's figures in words for a terminal, and as a page.

use std::fmt::{self, Write as _};

use super::engine::Row;
use super::figures::{CEILING_SHARE_WARNED, Figures, Latency, Loop};
use super::hdr;
use crate::page::chart::{ChartError, Lines, Percentiles, Series, quantiles};
use crate::page::{Page, Tone};

/// Microseconds as milliseconds, with as many digits as they deserve.
pub fn ms(us: u64) -> String {
    let ms = us as f64 / 1000.0;
    match us {
        0..10_000 => format!("{ms:.2} ms"),
        10_000..1_000_000 => format!("{ms:.1} ms"),
        _ => format!("{ms:.0} ms"),
    }
}

/// A rate, rounded.
pub fn per_s(rate: f64) -> String {
    if rate < 100.0 {
        format!("{rate:.1}/s")
    } else {
        format!("{rate:.0}/s")
    }
}

/// Percentiles in one line.
pub fn percentiles(latency: &Latency) -> String {
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        ms(latency.p50),
        ms(latency.p90),
        ms(latency.p99),
        ms(latency.p999),
        ms(latency.max)
    )
}

/// One interval in one line, while the run goes on.
pub fn live(row: &Row, kind: &str) -> String {
    let mut line = format!("{:5.1} s  ", row.to_s);
    let _ = match kind {
        "sub" => write!(line, "{:>9.0} received/s", row.received_per_s),
        "conn" => write!(line, "{:>7} connections", row.connections),
        _ => write!(line, "{:>9.0} acked/s", row.acked_per_s),
    };
    if row.max_us > 0 {
        let _ = write!(
            line,
            "  p50 {:>8}  p99 {:>8}  max {:>8}",
            ms(row.p50_us),
            ms(row.p99_us),
            ms(row.max_us)
        );
    }
    if row.lost > 0 {
        let _ = write!(line, "  lost {}", row.lost);
    }
    line
}

/// What the latencies are counted from.
fn counted_from(figures: &Figures) -> &'static str {
    match (figures.kind.as_str(), figures.pacing) {
        ("sub", _) => "from when a message was due to its arrival",
        ("conn", _) => "from the intended beginning of a connect to its answer",
        (_, Some(Loop::Open)) => "from when a message was due",
        _ => "from when a message was sent",
    }
}

/// What should be known before a figure is believed.
fn warnings(figures: &Figures) -> Vec<String> {
    let mut found = Vec::new();
    let counts = &figures.counts;
    if let Some(share) = figures.ceiling_share()
        && share > CEILING_SHARE_WARNED
    {
        found.push(format!(
            "this run used {:.0} % of what the generator can do: the figure may be its own, not the server's",
            share * 100.0
        ));
    }
    if counts.unsent > 0 {
        found.push(format!(
            "{} messages were due and never sent, since the server answers too slowly for this rate; they count with their age",
            counts.unsent
        ));
    }
    if counts.unacked > 0 {
        found.push(format!(
            "{} messages have no answer; their fate is unknown",
            counts.unacked
        ));
    }
    if counts.lost > 0 {
        found.push(format!("{} connections were lost", counts.lost));
    }
    if counts.connects_failed > 0 {
        found.push(format!("{} connects failed", counts.connects_failed));
    }
    found
}

/// Names and values, in the order in which they are read.
fn facts(figures: &Figures) -> Vec<(String, String)> {
    let mut facts: Vec<(String, String)> = Vec::new();
    let mut fact = |name: &str, value: String| facts.push((name.to_owned(), value));
    let counts = &figures.counts;
    if figures.kind == "pub" {
        let resent = if counts.resent > 0 {
            format!(", {} of them again", counts.resent)
        } else {
            String::new()
        };
        fact("sent", format!("{}{resent}", counts.sent + counts.resent));
        let pace = match figures.scheduled_per_s {
            Some(scheduled_per_s) => format!(", scheduled {}", per_s(scheduled_per_s)),
            None => ", at full windows".into(),
        };
        fact(
            "acked",
            format!(
                "{}; {} over {:.1} s{pace}",
                counts.acked,
                per_s(figures.acked_per_s),
                figures.window_s
            ),
        );
    }
    if counts.refused > 0 {
        fact("refused", counts.refused.to_string());
    }
    if figures.kind == "sub" {
        fact(
            "received",
            format!(
                "{}; {} over {:.1} s",
                counts.received,
                per_s(figures.received_per_s),
                figures.window_s
            ),
        );
    }
    if let Some(latency) = &figures.latency_us
        && figures.kind != "conn"
    {
        fact(
            "latency",
            format!("{}  ({})", percentiles(latency), counted_from(figures)),
        );
    }
    if let Some(corrected) = &figures.corrected_us {
        fact(
            "latency, corrected",
            format!("{}  (as if sent at even times)", percentiles(corrected)),
        );
    }
    let connects = figures.connect_us.as_ref().map(percentiles).unwrap_or_default();
    fact(
        "connected",
        format!(
            "{}, {}  {connects}",
            counts.connected,
            per_s(figures.connects_per_s)
        ),
    );
    if let (Some(ceiling_per_s), Some(share)) = (figures.ceiling_per_s, figures.ceiling_share()) {
        fact(
            "generator ceiling",
            format!("{}; this run used {:.1} %", per_s(ceiling_per_s), share * 100.0),
        );
    }
    facts
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<String> = facts(self)
            .iter()
            .map(|(name, value)| format!("  {name:<20} {value}"))
            .collect();
        lines.extend(warnings(self).iter().map(|warning| format!("  !  {warning}")));
        lines.extend(
            self.reasons
                .iter()
                .map(|(reason, count)| format!("  !  {reason}: {count}")),
        );
        if let Some(verification) = &self.verification {
            lines.push(verification.to_string());
        }
        f.write_str(&lines.join("\n"))
    }
}

/// Why a page cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A chart.
    #[error(transparent)]
    Chart(#[from] ChartError),
    /// The histogram.
    #[error(transparent)]
    Hdr(#[from] hdr::HdrError),
}

/// The figures as a page, with latency over time and percentiles. `command` is what reproduces them.
pub fn page(figures: &Figures, command: &str) -> Result<Page, PageError> {
    let mut page = Page::new(&format!("dunlin load {}: {}", figures.kind, figures.target));
    if let Some(verification) = &figures.verification {
        let tone = if verification.is_pass() {
            Tone::Good
        } else {
            Tone::Bad
        };
        let last = verification.to_string();
        page.verdict(tone, last.lines().last().unwrap_or_default());
    }
    page.facts(facts(figures));
    for warning in warnings(figures) {
        page.verdict(Tone::Plain, &warning);
    }
    if !figures.reasons.is_empty() {
        let rows: Vec<Vec<String>> = figures
            .reasons
            .iter()
            .map(|(reason, count)| vec![reason.clone(), count.to_string()])
            .collect();
        page.section("Refusals and losses")
            .table(&["why", "how often"], &rows);
    }
    charts(&mut page, &figures.intervals)?;
    let latency_us = hdr::from_text(&figures.histogram)?;
    if !latency_us.is_empty() {
        let mut series = vec![("as measured".to_owned(), quantiles(&latency_us, 1000.0))];
        if let Some(corrected) = &figures.corrected_histogram {
            let corrected = hdr::from_text(corrected)?;
            series.push((
                "as if sent at even times".to_owned(),
                quantiles(&corrected, 1000.0),
            ));
        }
        let percentiles = Percentiles {
            title: "latency by percentile".into(),
            y_label: "ms".into(),
            series,
        };
        page.section("Percentiles")
            .chart(counted_from(figures), &percentiles.draw()?);
    }
    if let Some(verification) = &figures.verification {
        page.section("What was compared")
            .preformatted(&verification.to_string());
    }
    page.section("How to repeat it").preformatted(command);
    Ok(page)
}

/// Throughput and latency over time.
pub(super) fn charts(page: &mut Page, rows: &[Row]) -> Result<(), ChartError> {
    let line = |name: &str, value: &dyn Fn(&Row) -> f64| {
        Series::new(name, rows.iter().map(|row| (row.to_s, value(row))).collect())
    };
    let mut series = vec![line("acked", &|row| row.acked_per_s)];
    if rows.iter().any(|row| row.received_per_s > 0.0) {
        series.push(line("received", &|row| row.received_per_s));
    }
    let throughput = Lines {
        title: "messages per second over time".into(),
        y_label: "messages/s".into(),
        is_log: false,
        series,
        spans: Vec::new(),
    };
    let in_ms = |us: u64| us as f64 / 1000.0;
    let latency = Lines {
        title: "latency over time".into(),
        y_label: "ms".into(),
        is_log: true,
        series: vec![
            line("p50", &|row| in_ms(row.p50_us)),
            line("p99", &|row| in_ms(row.p99_us)),
            line("max", &|row| in_ms(row.max_us)),
        ],
        spans: Vec::new(),
    };
    page.section("Over time")
        .chart("messages per second, second by second", &throughput.draw()?)
        .chart("latency, second by second", &latency.draw()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::histogram;
    use crate::load::recorder::Tally;

    fn figures() -> Figures {
        let mut latency_us = histogram();
        latency_us.record_n(1500, 999).unwrap();
        latency_us.record(90_000).unwrap();
        Figures {
            kind: "pub".into(),
            target: "broker:1883 <x>".into(),
            pacing: Some(Loop::Closed),
            scheduled_per_s: None,
            clients: 3,
            started_ms: 1,
            window_s: 2.0,
            acked_per_s: 500.0,
            received_per_s: 0.0,
            connects_per_s: 30.0,
            counts: Tally {
                sent: 1000,
                acked: 1000,
                lost: 1,
                unsent: 2,
                ..Tally::default()
            },
            reasons: [("lost: closed".to_owned(), 1)].into(),
            latency_us: Latency::of(&latency_us),
            corrected_us: Latency::of(&latency_us),
            connect_us: None,
            ceiling_per_s: Some(600.0),
            verification: None,
            histogram: hdr::to_text(&latency_us).unwrap(),
            corrected_histogram: Some(hdr::to_text(&latency_us).unwrap()),
            intervals: Vec::new(),
        }
    }

    #[test]
    fn text_says_the_figures_and_what_to_think_of_them() {
        let text = figures().to_string();
        for part in [
            "500/s over 2.0 s",
            "p50 1.50 ms",
            "max 90.",
            "corrected",
            "600/s; this run used 83.3 %",
            "may be its own",
            "2 messages were due and never sent",
            "lost: closed: 1",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn json_is_read_back_and_a_page_is_made() {
        let figures = figures();
        let json = serde_json::to_string(&figures).unwrap();
        assert_eq!(serde_json::from_str::<Figures>(&json).unwrap(), figures);
        let html = page(&figures, "dunlin load pub -t '<t>'").unwrap().render();
        assert!(
            html.contains("broker:1883 &lt;x&gt;") && html.contains("99.9 %") && html.contains("&lt;t&gt;")
        );
    }
}
