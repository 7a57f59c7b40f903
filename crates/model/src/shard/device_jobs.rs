//! Queries of `devices.jobs` in one shard: the rows of one device after the other, a bounded number at each step.
//!
//! What a row looks like is decided in [`crate::job::document`], what a statement means in [`crate::query_language`];
//! queries over twins are in [`super::fleet`].

use bytes::Bytes;

use super::keys::{self, Listed};
use super::overlay::parse_json;
use super::pages::walk;
use crate::command::{Found, View};
use crate::job::document::document;
use crate::job::rows::JobRows;
use crate::limits::{FLEET_PAGE_MAX, FLEET_STEP_MAX, READ_BYTES_MAX};
use crate::port::{ShardStore, StoreError};
use crate::query_language::{Groups, Statement, TooManyGroups};

/// Where a step goes on: at this key, after so many rows of it.
struct Place {
    seen: usize,
    key: Vec<u8>,
}

impl Place {
    fn parse(after: &[u8]) -> Self {
        match after.split_first() {
            Some((seen, key)) => Self {
                seen: usize::from(*seen),
                key: key.to_vec(),
            },
            None => Self {
                seen: 0,
                key: Vec::new(),
            },
        }
    }

    /// A device shows far fewer rows than a byte counts.
    fn bytes(&self) -> Bytes {
        [&[self.seen as u8], &self.key[..]].concat().into()
    }
}

/// One step of a query of `devices.jobs`, after a cursor.
pub(super) fn step(
    store: &dyn ShardStore,
    statement: &Statement,
    after: &[u8],
    count_max: usize,
) -> Result<View, StoreError> {
    let begin = Place::parse(after);
    let count_max = count_max.min(FLEET_PAGE_MAX);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let mut groups = Groups::new();
    let mut has_overflown = false;
    let mut within: Option<Place> = None;
    let next = walk(
        store,
        Listed::JobRows,
        &begin.key,
        FLEET_STEP_MAX,
        |key, value| {
            let Some(device) = keys::parse_device(key) else {
                return Ok(true);
            };
            let seen = if *key == begin.key[..] { begin.seen } else { 0 };
            let stored: JobRows = parse_json(value)?;
            for (place, row) in stored.shown().enumerate().skip(seen) {
                if !statement.is_aggregate() && (rows.len() >= count_max || bytes >= READ_BYTES_MAX) {
                    within = Some(Place {
                        seen: place,
                        key: key.to_vec(),
                    });
                    return Ok(false);
                }
                let row = document(&device, row);
                if !statement.admits(&row) {
                    continue;
                }
                if statement.is_aggregate() {
                    has_overflown = groups.add(statement, &row).is_err();
                    if has_overflown {
                        return Ok(false);
                    }
                } else {
                    let text = statement.project(&row).to_string();
                    bytes += text.len();
                    rows.push(text);
                }
            }
            Ok(true)
        },
    )?;
    let found = match (has_overflown, statement.is_aggregate()) {
        (true, _) => Found::Refused(TooManyGroups.to_string()),
        (false, true) => Found::Groups(groups),
        (false, false) => Found::Rows(rows),
    };
    let place = within.or_else(|| {
        next.map(|key| Place {
            seen: 0,
            key: key.to_vec(),
        })
    });
    let next = place.filter(|_| !has_overflown).map(|place| place.bytes());
    Ok(View::Fleet { found, next })
}
