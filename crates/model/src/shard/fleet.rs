//! Queries over the twins of a shard, step by step: each looks at a bounded number of twins, so that a query over a whole
//! fleet never keeps a shard from anything else.
//!
//! What a statement means is decided in [`crate::query_language`], what a row looks like in
//! [`crate::twin::document`]; how steps and shards become one answer, at the doors.

use serde_json::Value;

use super::device_jobs;
use super::keys::{self, Listed};
use super::overlay::parse_json;
use super::pages::walk;
use super::read::{json, with_session};
use crate::command::{DeviceView, Found, View};
use crate::identity::DeviceRecord;
use crate::limits::{FLEET_PAGE_MAX, FLEET_ROW_BYTES_MAX, FLEET_STEP_MAX, READ_BYTES_MAX};
use crate::port::{ShardStore, StoreError};
use crate::query_language::{Groups, Select, Source, Statement, TooManyGroups};
use crate::twin::Twin;
use crate::twin::document::{METADATA, document};

/// One step of a query, after a cursor.
pub(super) fn step(
    store: &dyn ShardStore,
    text: &str,
    after: &[u8],
    count_max: usize,
) -> Result<View, StoreError> {
    let refused = |why: String| {
        Ok(View::Fleet {
            found: Found::Refused(why),
            next: None,
        })
    };
    let statement = match Statement::parse(text) {
        Ok(statement) => statement,
        Err(error) => return refused(error.to_string()),
    };
    if statement.source == Source::Jobs {
        return device_jobs::step(store, &statement, after, count_max);
    }
    let shape = Shape::of(&statement);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let mut groups = Groups::new();
    let mut has_overflown = false;
    let next = walk(store, Listed::Records, after, FLEET_STEP_MAX, |key, value| {
        if source_of(key) != statement.source {
            return Ok(true);
        }
        let (view, twin) = load(store, value)?;
        if statement.is_aggregate() {
            // It is asked there whether the statement admits the row.
            has_overflown = groups.add(&statement, &shape.brief(&view, &twin)).is_err();
            return Ok(!has_overflown);
        }
        if let Some(row) = shape.row(&view, &twin) {
            bytes += row.len();
            rows.push(row);
        }
        Ok(rows.len() < count_max.min(FLEET_PAGE_MAX) && bytes < READ_BYTES_MAX)
    })?;
    if has_overflown {
        return refused(TooManyGroups.to_string());
    }
    let found = if statement.is_aggregate() {
        Found::Groups(groups)
    } else {
        Found::Rows(rows)
    };
    Ok(View::Fleet { found, next })
}

/// What `statement` makes of one twin, if it admits it: the way of a query that names its devices.
pub fn row(statement: &Statement, view: &DeviceView, twin: &Twin) -> Option<String> {
    let is_module = view.record.device.module_part().is_some();
    if is_module != (statement.source == Source::Modules) {
        return None;
    }
    Shape::of(statement).row(view, twin)
}

/// How rows are made for a statement.
struct Shape<'a> {
    statement: &'a Statement,
    /// Whether it looks at when properties were changed, to judge a row or to make its columns.
    needs_times: bool,
}

impl<'a> Shape<'a> {
    fn of(statement: &'a Statement) -> Self {
        let needs_times = match &statement.select {
            // A row is judged without, and shown with them.
            Select::All => {
                let filter = statement.filter.as_ref();
                filter.is_some_and(|filter| filter.mentions(METADATA))
            }
            Select::Columns(_) => ["desired", "reported"]
                .iter()
                .any(|section| statement.reads(&["properties", section, METADATA])),
        };
        Self {
            statement,
            needs_times,
        }
    }

    /// The twin with as much as the statement looks at.
    fn brief(&self, view: &DeviceView, twin: &Twin) -> Value {
        document(view, twin, self.needs_times)
    }

    /// The row as text, if the statement admits it.
    fn row(&self, view: &DeviceView, twin: &Twin) -> Option<String> {
        let brief = self.brief(view, twin);
        if !self.statement.admits(&brief) {
            return None;
        }
        if self.statement.select == Select::All {
            let whole = document(view, twin, true).to_string();
            if whole.len() <= FLEET_ROW_BYTES_MAX {
                return Some(whole);
            }
        }
        Some(self.statement.project(&brief).to_string())
    }
}

/// Whose registry record stands under `key`.
pub(super) fn source_of(key: &[u8]) -> Source {
    match keys::is_module_record(key) {
        true => Source::Modules,
        false => Source::Devices,
    }
}

/// A registry record with what belongs to it.
pub(super) fn load(store: &dyn ShardStore, record: &[u8]) -> Result<(DeviceView, Twin), StoreError> {
    let record: DeviceRecord = parse_json(record)?;
    let twin: Option<Twin> = json(store, &keys::twin(record.device.as_str().as_bytes()))?;
    Ok((with_session(store, record)?, twin.unwrap_or_default()))
}
