//! What one sees of a run while it runs: a small block on a terminal, a line each second elsewhere.
//!
//! Progress goes to standard error when standard output is for a program, and nowhere in tests.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_cluster::admin::ClusterStatus;
use dunlin_node::ready::Ready;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::fleet::{Live, WINDOW, histogram};
use crate::hub::Hub;

/// Between two refreshes on a terminal.
const REFRESH_TERMINAL: Duration = Duration::from_millis(250);
/// Between two lines elsewhere.
const REFRESH_LINES: Duration = Duration::from_secs(1);

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nowhere.
    Silent,
    /// Standard output, or the terminal on standard error if there is one.
    People,
    /// Standard error: standard output is for the report alone.
    Program,
}

/// Shows progress.
#[derive(Debug, Clone)]
pub(crate) struct View {
    progress: Progress,
    bar: Option<ProgressBar>,
}

impl View {
    pub(crate) fn new(progress: Progress) -> Self {
        let on_terminal = progress != Progress::Silent && std::io::stderr().is_terminal();
        let bar = on_terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { progress, bar }
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.println(text);
            return;
        }
        // Nobody reads any more: the run goes on all the same.
        let _ = match self.progress {
            Progress::Silent => Ok(()),
            Progress::People => writeln!(std::io::stdout().lock(), "{text}"),
            Progress::Program => writeln!(std::io::stderr().lock(), "{text}"),
        };
    }

    /// The line of the moment.
    pub(crate) fn refresh(&self, text: String) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.tick();
            }
            None => self.say(&text),
        }
    }

    /// Takes the block away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn period(&self) -> Duration {
        if self.bar.is_some() {
            REFRESH_TERMINAL
        } else {
            REFRESH_LINES
        }
    }
}

/// Shards that each node leads, and shards without a leader, as one text.
fn leaders(status: &ClusterStatus, ready: &Ready, hub: &Hub) -> String {
    let mut text = String::new();
    for (index, node) in ready.nodes.iter().enumerate() {
        let count = status
            .groups
            .iter()
            .filter(|group| group.group > 0 && group.leader.as_ref() == Some(&node.id))
            .count();
        let shown = if hub.is_down(index) {
            "down".to_owned()
        } else {
            count.to_string()
        };
        text.push_str(&format!("{}{shown}", if index > 0 { "/" } else { "" }));
    }
    let without = status
        .groups
        .iter()
        .filter(|group| group.group > 0 && group.leader.is_none())
        .count();
    if without > 0 {
        text.push_str(&format!(" ({without} without)"));
    }
    text
}

/// What is shown of a run.
#[derive(Clone)]
pub(crate) struct Shown {
    /// Where.
    pub(crate) view: View,
    /// The fleet's figures.
    pub(crate) live: Arc<Live>,
    /// Asked for who leads what.
    pub(crate) hub: Arc<Hub>,
    /// The nodes.
    pub(crate) ready: Ready,
    /// Where latencies are added up.
    pub(crate) total: Arc<Mutex<Histogram<u64>>>,
    /// When the load began.
    pub(crate) begun: Instant,
}

/// Ends a task with whatever owns it.
pub(crate) struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Shows the run until the answer is dropped.
pub(crate) fn watch(shown: Shown) -> Abort {
    Abort(tokio::spawn(show(shown)))
}

/// All latencies of a run that was watched.
pub(crate) fn take_all(live: &Live, total: &Mutex<Histogram<u64>>) -> Histogram<u64> {
    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
    live.take_latency_us(&mut total);
    total.clone()
}

async fn show(shown: Shown) {
    let Shown {
        view,
        live,
        hub,
        ready,
        total,
        begun,
    } = shown;
    let asked: Arc<Mutex<String>> = Arc::default();
    // Asked apart, so that a slow answer does not hold up the figures.
    let asking = async {
        loop {
            if let Ok(status) = hub.status().await {
                *asked.lock().unwrap_or_else(PoisonError::into_inner) = leaders(&status, &ready, &hub);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let showing = async {
        let mut ticks = tokio::time::interval(view.period());
        let (mut acked_before, mut before) = (0, begun);
        // On a terminal the figures are those of about a second, so that they can be read.
        let mut window: Vec<(Instant, u64, Histogram<u64>)> = Vec::new();
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let latency = live.take_latency_us(&mut total.lock().unwrap_or_else(PoisonError::into_inner));
            let acked = live.acked_count.load(Ordering::Relaxed);
            window.push((before, acked - acked_before, latency));
            (acked_before, before) = (acked, now);
            window.retain(|(from, ..)| now - *from <= Duration::from_millis(1100));
            let mut recent = histogram();
            for (.., latency) in &window {
                let _ = recent.add(latency);
            }
            let count: u64 = window.iter().map(|(_, count, _)| count).sum();
            let span = window
                .first()
                .map_or(1.0, |(from, ..)| (now - *from).as_secs_f64())
                .max(0.001);
            if now - begun < view.period() / 2 {
                continue;
            }
            view.refresh(format!(
                "{:5.1} s  {:6.0} acked/s  p50 {:5.1} ms  p99 {:6.1} ms  leaders {}  connected {}",
                (now - begun).as_secs_f64(),
                count as f64 / span,
                recent.value_at_quantile(0.5) as f64 / 1000.0,
                recent.value_at_quantile(0.99) as f64 / 1000.0,
                asked.lock().unwrap_or_else(PoisonError::into_inner),
                live.connected_count.load(Ordering::Relaxed),
            ));
        }
    };
    tokio::join!(asking, showing);
}

/// What the fleet may hold at most, for the first lines.
pub(crate) fn describe_rate(rate: u32) -> String {
    if rate == 0 {
        format!("as fast as windows of {WINDOW} allow")
    } else {
        format!("{rate} messages per second")
    }
}
