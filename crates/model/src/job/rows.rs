//! What jobs have done at one device: one row for each job, so that each happens at the device once.
//!
//! Whoever begins finds the row of another that began before it, and leaves the device alone. A row stays at least until
//! the time of its job is over, since until then somebody may come for it again; beyond the last [`ROWS_SHOWN_MAX`] it
//! keeps only what that needs. Nothing is begun for a job whose time is over, so what is forgotten is never done again.

use serde::{Deserialize, Serialize};

use super::{JobId, JobKind, JobOrder};

/// Jobs that are shown of a device.
pub const ROWS_SHOWN_MAX: usize = 10;
/// Jobs whose time is not over that may have come to one device. One more fails at it.
pub const ROWS_MAX: usize = 100;
/// Bytes of an answer of the device that are kept; of a longer one only its status is.
pub const RESPONSE_BYTES_MAX: usize = 8 * 1024;
/// Bytes of why something failed.
pub const ERROR_BYTES_MAX: usize = 512;

/// The jobs of one device, the latest last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobRows {
    rows: Vec<JobRow>,
}

/// A job at one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// Which job.
    pub job: JobId,
    /// Of those that had this name, which.
    pub generation: u64,
    /// What it does.
    pub kind: JobKind,
    /// How it went.
    pub status: RowStatus,
    /// When the job was made, milliseconds since 1970.
    pub created_ms: u64,
    /// Stamp of the entry that began it here.
    pub begun_ms: u64,
    /// Stamp of the entry that changed it last; once it has ended, of its end.
    pub updated_ms: u64,
    /// Until when it must be remembered.
    pub until_ms: u64,
    /// Who began it.
    pub runner: u64,
    /// What the device answered, or why it failed.
    pub result: Option<RowResult>,
}

/// How a job is at one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowStatus {
    /// The device may have been asked, and there is no answer yet.
    Running,
    /// It was done.
    Completed,
    /// It was not, or nobody knows.
    Failed,
}

impl RowStatus {
    /// IoT Hub's word for it.
    pub fn word(self) -> &'static str {
        match self {
            RowStatus::Running => "running",
            RowStatus::Completed => "completed",
            RowStatus::Failed => "failed",
        }
    }
}

/// How a job ended at one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowResult {
    /// It answered.
    Answered {
        /// A number of the device's own choice.
        status: i64,
        /// JSON text, [`RESPONSE_BYTES_MAX`] at most; `None` for a longer one, and for none.
        payload: Option<String>,
    },
    /// It failed.
    Failed {
        /// Name of an error, as over HTTPS.
        code: String,
        /// In words, [`ERROR_BYTES_MAX`] at most.
        text: String,
    },
}

impl RowResult {
    /// Bytes that it counts for in budgets and batches.
    pub fn bytes(&self) -> usize {
        match self {
            RowResult::Answered { payload, .. } => payload.as_ref().map_or(0, String::len),
            RowResult::Failed { code, text } => code.len() + text.len(),
        }
    }

    fn status(&self) -> RowStatus {
        match self {
            RowResult::Answered { .. } => RowStatus::Completed,
            RowResult::Failed { .. } => RowStatus::Failed,
        }
    }

    /// Why nobody knows what a device did that an earlier runner may have asked.
    fn lost() -> Self {
        RowResult::Failed {
            code: "GatewayTimeout".to_owned(),
            text: "whoever asked the device was lost; the outcome is unknown".to_owned(),
        }
    }
}

/// Why nothing is begun at a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFault {
    /// The time of the job is over.
    Over,
    /// Too many jobs come to this device.
    Full,
}

impl JobRows {
    /// The row of a job, if it has come here.
    pub fn find(&self, order: &JobOrder) -> Option<&JobRow> {
        self.rows.iter().find(|row| row.is_of(order))
    }

    /// Those that are shown, the latest first.
    pub fn shown(&self) -> impl Iterator<Item = &JobRow> {
        self.rows.iter().rev().take(ROWS_SHOWN_MAX)
    }

    /// `runner` wants to begin a job here. Returns the row, which may be another's; one that another left running ends
    /// by it, for the device may have been asked.
    pub fn begin(&mut self, order: &JobOrder, runner: u64, now_ms: u64) -> Result<&JobRow, RowFault> {
        if let Some(place) = self.rows.iter().position(|row| row.is_of(order)) {
            let row = &mut self.rows[place];
            if row.status == RowStatus::Running && row.runner != runner {
                row.end(RowResult::lost(), now_ms);
            }
            return Ok(&self.rows[place]);
        }
        if now_ms >= order.until_ms {
            return Err(RowFault::Over);
        }
        self.forget(now_ms);
        if self.rows.len() >= ROWS_MAX {
            return Err(RowFault::Full);
        }
        self.rows.push(JobRow {
            job: order.id.clone(),
            generation: order.generation,
            kind: order.kind,
            status: RowStatus::Running,
            created_ms: order.created_ms,
            begun_ms: now_ms,
            updated_ms: now_ms,
            until_ms: order.until_ms,
            runner,
            result: None,
        });
        let last = self.rows.len() - 1;
        Ok(&self.rows[last])
    }

    /// A job that `runner` has begun here has ended; with no result, well. Returns the row as it is now: a row that has
    /// ended before, or that another has begun, stays as it is.
    pub fn end(
        &mut self,
        order: &JobOrder,
        runner: u64,
        result: Option<RowResult>,
        now_ms: u64,
    ) -> Option<&JobRow> {
        let row = self.rows.iter_mut().find(|row| row.is_of(order))?;
        if row.status == RowStatus::Running && row.runner == runner {
            match result {
                Some(result) => row.end(result, now_ms),
                None => (row.status, row.updated_ms) = (RowStatus::Completed, now_ms),
            }
        }
        Some(row)
    }

    /// Makes room for one more that is shown.
    fn forget(&mut self, now_ms: u64) {
        let old = (self.rows.len() + 1).saturating_sub(ROWS_SHOWN_MAX);
        for row in &mut self.rows[..old] {
            if let Some(RowResult::Answered { payload, .. }) = &mut row.result {
                *payload = None;
            }
        }
        let mut place = 0;
        self.rows.retain(|row| {
            place += 1;
            place > old || row.until_ms > now_ms
        });
    }
}

impl JobRow {
    fn is_of(&self, order: &JobOrder) -> bool {
        self.job == order.id && self.generation == order.generation
    }

    fn end(&mut self, result: RowResult, now_ms: u64) {
        self.status = result.status();
        self.updated_ms = now_ms;
        self.result = Some(result);
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
