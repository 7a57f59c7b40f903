//! A run's figures in words for a terminal, and as a page.

use std::fmt::{self, Write as _};

use super::engine::Row;
use super::figures::{CEILING_SHARE_WARNED, Figures, Floor, Latency, Loop};
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

/// The words of a kind of load.
struct Words {
    /// One of what it is about.
    thing: &'static str,
    /// What is done with these, and what comes of it.
    sent: &'static str,
    done: &'static str,
    /// What latencies are counted from if there is no schedule.
    since: &'static str,
}

fn words(kind: &str) -> Words {
    let (thing, sent, done, since) = match kind {
        "sub" => ("message", "", "received", "when a message was due to its arrival"),
        "conn" => (
            "message",
            "sent",
            "acked",
            "the intended beginning of a connect to its answer",
        ),
        "method" => ("call", "called", "answered", "when a call was made"),
        "service" => ("request", "asked", "done", "when a request was made"),
        "provision" => ("device", "begun", "assigned", "a device's first packet"),
        "kafka" => (
            "event",
            "",
            "read",
            "when the hub took an event in until it was read, by two clocks",
        ),
        _ => ("message", "sent", "acked", "when a message was sent"),
    };
    Words {
        thing,
        sent,
        done,
        since,
    }
}

/// One interval in one line, while the run goes on.
pub fn live(row: &Row, kind: &str) -> String {
    let mut line = format!("{:5.1} s  ", row.to_s);
    let done = words(kind).done;
    let _ = match kind {
        "sub" | "kafka" => write!(line, "{:>9.0} {done}/s", row.received_per_s),
        "conn" => write!(line, "{:>7} connections", row.connections),
        _ => write!(line, "{:>9.0} {done}/s", row.acked_per_s),
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
fn counted_from(figures: &Figures) -> String {
    let words = words(&figures.kind);
    match figures.pacing {
        Some(Loop::Open) => format!("from when a {} was due", words.thing),
        _ => format!("from {}", words.since),
    }
}

/// What should be known before a figure is believed.
fn warnings(figures: &Figures) -> Vec<String> {
    let mut found = Vec::new();
    let counts = &figures.counts;
    let Words { thing, sent, .. } = words(&figures.kind);
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
            "{} {thing}s were due and never {sent}, since the server answers too slowly for this rate; they count with their age",
            counts.unsent
        ));
    }
    if counts.unacked > 0 {
        found.push(format!(
            "{} {thing}s have no answer; their fate is unknown",
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
    let words = words(&figures.kind);
    match figures.kind.as_str() {
        "conn" => {}
        "sub" | "kafka" => fact(words.done, received(figures)),
        _ => {
            let resent = if counts.resent > 0 {
                format!(", {} of them again", counts.resent)
            } else {
                String::new()
            };
            fact(words.sent, format!("{}{resent}", counts.sent + counts.resent));
            let pace = match figures.scheduled_per_s {
                Some(scheduled_per_s) => format!(", scheduled {}", per_s(scheduled_per_s)),
                None => ", at full windows".into(),
            };
            fact(
                words.done,
                format!(
                    "{}; {} over {:.1} s{pace}",
                    counts.acked,
                    per_s(figures.acked_per_s),
                    figures.window_s
                ),
            );
        }
    }
    if counts.refused > 0 {
        fact("refused", counts.refused.to_string());
    }
    match &figures.latency_us {
        Some(latency) if figures.kind != "conn" => fact(
            "latency",
            format!("{}  ({})", percentiles(latency), counted_from(figures)),
        ),
        None if figures.kind == "kafka" => fact(
            "latency",
            "not known of events that were there before; see --from latest".into(),
        ),
        _ => {}
    }
    if let Some(corrected) = &figures.corrected_us {
        fact(
            "latency, corrected",
            format!("{}  (as if sent at even times)", percentiles(corrected)),
        );
    }
    if counts.connected > 0 {
        let connects = figures.connect_us.as_ref().map(percentiles).unwrap_or_default();
        fact(
            "connected",
            format!(
                "{}, {}  {connects}",
                counts.connected,
                per_s(figures.connects_per_s)
            ),
        );
    }
    if let Some(ceiling) = ceiling_of(figures.ceiling_per_s, figures.ceiling_note.as_deref()) {
        let share = figures.ceiling_share();
        let used = share.map_or(String::new(), |share| {
            format!("; this run used {:.1} %", share * 100.0)
        });
        fact("generator ceiling", ceiling + &used);
    }
    if let (Some(floor), Some(share)) = (&figures.floor, figures.floor_share()) {
        fact(
            "durable floor",
            format!(
                "{}; this run came to {:.1} % of it",
                floor_of(floor),
                share * 100.0
            ),
        );
    }
    facts
}

/// What came without having been asked for one by one.
fn received(figures: &Figures) -> String {
    let mut text = format!(
        "{}; {} over {:.1} s",
        figures.counts.received,
        per_s(figures.received_per_s),
        figures.window_s
    );
    if let Some(reading) = &figures.reading {
        let _ = write!(
            text,
            ", {:.1} MB/s, shared out {} times",
            reading.mb_per_s, reading.rebalances
        );
    }
    text
}

/// The generator's own ceiling, or why there is none.
pub(super) fn ceiling_of(ceiling_per_s: Option<f64>, note: Option<&str>) -> Option<String> {
    let parts = [ceiling_per_s.map(per_s), note.map(str::to_owned)];
    parts
        .into_iter()
        .flatten()
        .reduce(|ceiling, note| format!("{ceiling}, {note}"))
}

/// What a sink comes to that syncs logs.
pub(super) fn floor_of(floor: &Floor) -> String {
    let logs = if floor.logs == 1 { "log" } else { "logs" };
    format!(
        "{} with {} synced {logs} in {}",
        per_s(floor.per_s),
        floor.logs,
        floor.folder
    )
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
    charts(&mut page, &figures.kind, &figures.intervals)?;
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
            .chart(&counted_from(figures), &percentiles.draw()?);
    }
    if let Some(verification) = &figures.verification {
        page.section("What was compared")
            .preformatted(&verification.to_string());
    }
    page.section("How to repeat it").preformatted(command);
    Ok(page)
}

/// Throughput and latency over time.
fn charts(page: &mut Page, kind: &str, rows: &[Row]) -> Result<(), ChartError> {
    let line = |name: &str, value: &dyn Fn(&Row) -> f64| {
        Series::new(name, rows.iter().map(|row| (row.to_s, value(row))).collect())
    };
    let Words { thing, done, .. } = words(kind);
    let mut series = match kind {
        "sub" | "kafka" => Vec::new(),
        _ => vec![line(done, &|row| row.acked_per_s)],
    };
    if series.is_empty() || rows.iter().any(|row| row.received_per_s > 0.0) {
        series.push(line("received", &|row| row.received_per_s));
    }
    let throughput = Lines {
        title: format!("{thing}s per second over time"),
        y_label: format!("{thing}s/s"),
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
        .chart(
            &format!("{thing}s per second, second by second"),
            &throughput.draw()?,
        )
        .chart("latency, second by second", &latency.draw()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::histogram;
    use crate::load::figures::Reading;
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
            ceiling_note: None,
            floor: None,
            reading: None,
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
    fn ceiling_and_floor_stand_beside_the_figures() {
        let beside = Figures {
            ceiling_note: Some("measured without WebSocket".into()),
            floor: Some(Floor {
                logs: 3,
                folder: "/tmp".into(),
                per_s: 1000.0,
            }),
            ..figures()
        };
        let text = beside.to_string();
        for part in [
            "600/s, measured without WebSocket; this run used 83.3 %",
            "durable floor        1000/s with 3 synced logs in /tmp; this run came to 50.0 % of it",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let none = Figures {
            ceiling_per_s: None,
            ceiling_note: Some("none: nobody to measure against".into()),
            ..figures()
        };
        let text = none.to_string();
        assert!(
            text.contains("generator ceiling    none: nobody to measure against"),
            "{text}"
        );
        assert!(!text.contains("this run used"), "{text}");
    }

    #[test]
    fn each_kind_of_load_has_its_own_words() {
        let of_kind = |kind: &str| Figures {
            kind: kind.into(),
            scheduled_per_s: Some(40.0),
            pacing: Some(Loop::Open),
            ..figures()
        };
        let method = of_kind("method").to_string();
        for part in [
            "called               1000",
            "answered             1000; 500/s over 2.0 s, scheduled 40.0/s",
            "from when a call was due",
            "2 calls were due and never called",
        ] {
            assert!(method.contains(part), "{part} in\n{method}");
        }
        let read = Figures {
            received_per_s: 70.0,
            latency_us: None,
            corrected_us: None,
            reading: Some(Reading {
                bytes: 3_000_000,
                mb_per_s: 1.5,
                rebalances: 2,
            }),
            counts: Tally {
                received: 140,
                ..Tally::default()
            },
            ..of_kind("kafka")
        };
        let text = read.to_string();
        assert!(
            text.contains("140; 70.0/s over 2.0 s, 1.5 MB/s, shared out 2 times"),
            "{text}"
        );
        assert!(
            text.contains("see --from latest") && !text.contains("acked"),
            "{text}"
        );
        let row = |kind| {
            let row = Row {
                from_s: 0.0,
                to_s: 1.0,
                acked_per_s: 12.0,
                received_per_s: 34.0,
                p50_us: 0,
                p99_us: 0,
                max_us: 0,
                lost: 0,
                connections: 5,
            };
            live(&row, kind)
        };
        assert!(row("method").ends_with("12 answered/s") && row("kafka").ends_with("34 read/s"));
        assert!(row("pub").ends_with("12 acked/s") && row("sub").ends_with("34 received/s"));
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
