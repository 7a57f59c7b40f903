//! What one sees of a load while it runs, and the interval log that grows meanwhile.

use std::path::Path;
use std::time::SystemTime;

use super::engine::{Observer, Row};
use super::hdr::{HdrError, Log};
use super::recorder::Interval;
use super::report;
use crate::view::{Progress, View};

/// A shorter interval is no line: a rate over a few milliseconds says nothing.
const SHOWN_S_MIN: f64 = 0.2;

/// A line per second, rewritten on a terminal.
#[derive(Debug)]
pub struct Live {
    view: View,
    kind: &'static str,
    log: Option<Log>,
    problem: Option<HdrError>,
}

impl Live {
    /// Shows a run of this kind (as in [`super::figures::Figures::kind`]), and logs it if told where.
    pub fn new(progress: Progress, kind: &'static str, log: Option<&Path>) -> Result<Self, HdrError> {
        Ok(Self {
            view: View::new(progress),
            kind,
            log: log.map(Log::create).transpose()?,
            problem: None,
        })
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        self.view.say(text);
    }

    /// Takes the line away, and says whether the log is whole.
    pub fn finish(self) -> Result<(), HdrError> {
        self.view.clear();
        self.problem.map_or(Ok(()), Err)
    }

    /// The run goes on without its log; that it is not whole is told at the end.
    fn keep(&mut self, result: Result<(), HdrError>) {
        if let Err(problem) = result {
            self.log = None;
            self.problem = Some(problem);
        }
    }
}

impl Observer for Live {
    fn starting(&mut self, at: SystemTime) {
        if let Some(log) = &mut self.log {
            let begun = log.begin(at);
            self.keep(begun);
        }
    }

    fn interval(&mut self, row: &Row, interval: &Interval) {
        if row.to_s - row.from_s >= SHOWN_S_MIN {
            self.view.refresh(report::live(row, self.kind));
        }
        if let Some(log) = &mut self.log {
            let written = log.write(row, &interval.latency_us);
            self.keep(written);
        }
    }
}
