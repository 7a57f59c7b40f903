//! A verdict as one HTML file: the time line of faults over throughput and latency, gaps, promises, and each
//! violation with what it involves.
//!
//! Shows what [`super::judge`] has decided, and decides nothing.

use std::path::Path;

use super::journal::Progress;
use super::judge::{FaultLine, Second, Verdict};
use crate::page::chart::{ChartError, Lines, Series, Span};
use crate::page::{Page, Tone};
use crate::verdict::SpanMs;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A chart.
    #[error(transparent)]
    Chart(#[from] ChartError),
    /// The file.
    #[error("write the report: {0}")]
    Io(#[from] std::io::Error),
}

/// Writes the page.
pub fn write(verdict: &Verdict, path: &Path) -> Result<(), ReportError> {
    Ok(page(verdict)?.save(path)?)
}

/// The page of a verdict.
pub fn page(verdict: &Verdict) -> Result<Page, ChartError> {
    let mut page = Page::new(&format!("Dunlin chaos: {}", verdict.scenario));
    let tone = if verdict.is_pass() { Tone::Good } else { Tone::Bad };
    page.verdict(tone, &verdict.sentence());
    page.paragraph(&verdict.shows);
    page.facts([
        ("seed", verdict.seed.to_string()),
        ("nodes", verdict.nodes.to_string()),
        ("shards", verdict.shards.to_string()),
        ("devices", verdict.devices.to_string()),
        ("seconds of load", format!("{:.1}", verdict.load_s)),
        ("acked of sent", format!("{} of {}", verdict.acked, verdict.sent)),
        ("read back", verdict.read_back.to_string()),
    ]);
    time_line(&mut page, verdict)?;
    page.section("Promises");
    let promises = verdict.promises.iter().map(|promise| {
        vec![
            promise.id.to_owned(),
            promise.promise.to_owned(),
            promise.violations.to_string(),
            promise.looked_at.clone(),
        ]
    });
    page.table(
        &["id", "violation", "found", "among"],
        &promises.collect::<Vec<_>>(),
    );
    for promise in verdict
        .promises
        .iter()
        .filter(|promise| !promise.examples.is_empty())
    {
        page.section(&format!("{}: {}", promise.id, promise.promise));
        let examples: Vec<String> = promise.examples.iter().map(ToString::to_string).collect();
        page.preformatted(&examples.join("\n"));
    }
    spans(&mut page, verdict);
    page.section("Reached");
    let reaches = verdict.must_reach.iter();
    let rows = reaches.map(|reach| {
        vec![
            reach.name.clone(),
            reach.wanted.to_string(),
            reach.reached.to_string(),
        ]
    });
    page.table(&["what", "promised", "reached"], &rows.collect::<Vec<_>>());
    page.section("Faults");
    page.table(
        &[
            "no.",
            "epoch",
            "kind",
            "nodes",
            "at s",
            "for s",
            "outcome",
            "what happened",
        ],
        &verdict.faults.iter().map(row).collect::<Vec<_>>(),
    );
    Ok(page)
}

fn row(line: &FaultLine) -> Vec<String> {
    let nodes: Vec<String> = line.nodes.iter().map(ToString::to_string).collect();
    vec![
        line.fault.to_string(),
        line.epoch.to_string(),
        line.kind.clone(),
        nodes.join(" "),
        format!("{:.1}", line.at_s),
        line.for_s.map_or(String::new(), |for_s| format!("{for_s:.1}")),
        format!("{:?}", line.outcome).to_lowercase(),
        line.detail.clone(),
    ]
}

fn time_line(page: &mut Page, verdict: &Verdict) -> Result<(), ChartError> {
    page.section("Time line");
    let faults = verdict.faults.iter();
    let faults = faults
        .filter(|line| line.outcome != Progress::Skipped)
        .map(|line| Span {
            label: line.kind.clone(),
            from_s: line.at_s,
            to_s: line.at_s + line.for_s.unwrap_or(0.5).max(0.1),
        });
    let faults: Vec<Span> = faults.collect();
    let series = |name: &str, value: fn(&Second) -> f64, with_empty: bool| {
        let seconds = verdict.timeline.iter().enumerate();
        let points = seconds.filter(|(_, second)| with_empty || second.acked > 0);
        Series::new(
            name,
            points
                .map(|(at_s, second)| (at_s as f64, value(second)))
                .collect(),
        )
    };
    let throughput = Lines {
        title: "Messages acked per second".into(),
        y_label: "acked per second".into(),
        is_log: false,
        series: vec![series("acked", |second| second.acked as f64, true)],
        spans: faults.clone(),
    };
    page.chart(
        "Messages acked in each second, with the faults.",
        &throughput.draw()?,
    );
    let latency = Lines {
        title: "Ack latency by second".into(),
        y_label: "ms".into(),
        is_log: true,
        series: vec![
            series("p50", |second| second.p50_us as f64 / 1000.0, false),
            series("p99", |second| second.p99_us as f64 / 1000.0, false),
        ],
        spans: faults,
    };
    page.chart(
        "From a message's first handing over to its ack, of those acked in each second.",
        &latency.draw()?,
    );
    Ok(())
}

fn spans(page: &mut Page, verdict: &Verdict) {
    page.section("Gaps and recovery");
    let row = |name: String, span: &SpanMs| {
        let ms = |value: f64| format!("{value:.0}");
        vec![
            name,
            ms(span.p50),
            ms(span.p99),
            ms(span.max),
            span.count.to_string(),
        ]
    };
    let gaps = verdict
        .gap_ms
        .iter()
        .map(|(kind, span)| row(format!("ack gap, {kind}"), span));
    let others = [
        ("reconnect", &verdict.reconnect_ms),
        ("served again after faults", &verdict.served_after_ms),
        ("all replicas again after faults", &verdict.whole_after_ms),
    ];
    let others = others
        .into_iter()
        .filter_map(|(name, span)| Some(row(name.to_owned(), span.as_ref()?)));
    page.table(
        &["what", "p50 ms", "p99 ms", "max ms", "seen"],
        &gaps.chain(others).collect::<Vec<_>>(),
    );
}
