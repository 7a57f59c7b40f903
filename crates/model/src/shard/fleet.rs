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
    let mut rows = Rows::new(store, &statement);
    let mut groups = Groups::new();
    let mut has_overflown = false;
    let next = walk(store, Listed::Records, after, FLEET_STEP_MAX, |key, value| {
        if keys::is_module_record(key) != (statement.source == Source::Modules) {
            return Ok(true);
        }
        let Some(row) = rows.find(value)? else {
            return Ok(true);
        };
        if statement.is_aggregate() {
            has_overflown = groups.add(&statement, &row.brief).is_err();
            return Ok(!has_overflown);
        }
        rows.take(row);
        Ok(rows.found.len() < count_max.min(FLEET_PAGE_MAX) && rows.bytes < READ_BYTES_MAX)
    })?;
    if has_overflown {
        return refused(TooManyGroups.to_string());
    }
    let found = if statement.is_aggregate() {
        Found::Groups(groups)
    } else {
        Found::Rows(rows.found)
    };
    Ok(View::Fleet { found, next })
}

/// What `statement` makes of one twin, if it admits it: the way of a query that names its devices.
pub fn row(statement: &Statement, view: &DeviceView, twin: &Twin) -> Option<String> {
    let is_module = view.record.device.module_part().is_some();
    let row = Row::of(statement, view.clone(), twin.clone());
    (is_module == (statement.source == Source::Modules) && statement.admits(&row.brief))
        .then(|| row.text(statement))
}

/// A twin that is looked at.
struct Row {
    view: DeviceView,
    twin: Twin,
    /// The twin with as much as the statement needs to judge it.
    brief: Value,
}

impl Row {
    fn of(statement: &Statement, view: DeviceView, twin: Twin) -> Row {
        let needs_times = match &statement.select {
            // It is judged without, and shown with them.
            Select::All => {
                let filter = statement.filter.as_ref();
                filter.is_some_and(|filter| filter.mentions(METADATA))
            }
            Select::Columns(_) => ["desired", "reported"]
                .iter()
                .any(|section| statement.reads(&["properties", section, METADATA])),
        };
        let brief = document(&view, &twin, needs_times);
        Row { view, twin, brief }
    }

    fn text(&self, statement: &Statement) -> String {
        if statement.select == Select::All {
            let whole = document(&self.view, &self.twin, true).to_string();
            if whole.len() <= FLEET_ROW_BYTES_MAX {
                return whole;
            }
        }
        statement.project(&self.brief).to_string()
    }
}

struct Rows<'a> {
    store: &'a dyn ShardStore,
    statement: &'a Statement,
    found: Vec<String>,
    bytes: usize,
}

impl<'a> Rows<'a> {
    fn new(store: &'a dyn ShardStore, statement: &'a Statement) -> Self {
        Self {
            store,
            statement,
            found: Vec::new(),
            bytes: 0,
        }
    }

    /// The twin of the registry record `value`, if the statement admits it.
    fn find(&self, value: &[u8]) -> Result<Option<Row>, StoreError> {
        let record: DeviceRecord = parse_json(value)?;
        let twin = json(self.store, &keys::twin(record.device.as_str().as_bytes()))?;
        let view = with_session(self.store, record)?;
        let row = Row::of(self.statement, view, twin.unwrap_or_default());
        Ok(self.statement.admits(&row.brief).then_some(row))
    }

    fn take(&mut self, row: Row) {
        let text = row.text(self.statement);
        self.bytes += text.len();
        self.found.push(text);
    }
}
