//! Queries over the whole fleet: the steps of all shards become one answer, page by page.
//!
//! What a statement means, and what it finds in one shard, is decided in `dunlin_model`; who may ask, and how an answer
//! is written, at the doors. Every step sees what was acknowledged before it began, so a query sees every write that
//! was acknowledged before the query came.

use bytes::Bytes;
use dunlin_model::command::{Consistency, Found, Query, View};
use dunlin_model::id::{DeviceId, ShardId};
use dunlin_model::port::{QueryError, ShardClient};
use dunlin_model::query_language::expression::{Comparison, Literal};
use dunlin_model::query_language::path::Segment;
use dunlin_model::query_language::{Expr, Groups, Path, Source, Statement};
use dunlin_model::shard::fleet;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;
use tokio::time::Instant;

use crate::limits::{QUERY_DEVICES_MAX, QUERY_SHARDS_AT_A_TIME};

/// A statement with its text, as it is sent to the shards.
pub(crate) struct Asked {
    pub(crate) statement: Statement,
    pub(crate) text: String,
}

impl Asked {
    /// One step of it over a shard.
    fn step(&self, shard: ShardId, after: Bytes, count_max: usize) -> Query {
        Query::Fleet {
            shard,
            statement: self.text.clone(),
            after,
            count_max,
        }
    }
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) shard: u32,
    /// Within that shard; opaque.
    pub(crate) after: Bytes,
    /// Rows that the whole query may still have (`TOP`).
    pub(crate) left: Option<u64>,
}

/// A page of rows, each a JSON object as text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) rows: Vec<String>,
    /// `None` at the end.
    pub(crate) next: Option<Cursor>,
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FleetError {
    /// It was understood, and there is no answer to it.
    #[error("{0}")]
    Refused(String),
    /// A shard did not answer. Asking again is safe.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Cursor {
    /// The beginning of `asked`.
    pub(crate) fn first(asked: &Asked) -> Self {
        Self {
            shard: 0,
            after: Bytes::new(),
            left: asked.statement.top,
        }
    }
}

/// The rows after `cursor`: `count_max` at most, and fewer when `deadline` comes first.
pub(crate) async fn page(
    client: &dyn ShardClient,
    asked: &Asked,
    cursor: Cursor,
    count_max: usize,
    deadline: Instant,
) -> Result<Page, FleetError> {
    let Cursor {
        mut shard,
        mut after,
        mut left,
    } = cursor;
    let count_max = left.map_or(count_max, |left| {
        count_max.min(usize::try_from(left).unwrap_or(count_max))
    });
    let mut rows: Vec<String> = Vec::new();
    if let Some(devices) = devices_named(&asked.statement) {
        return named(client, asked, &devices, Cursor { shard, after, left }, count_max).await;
    }
    let shard_count = client.directory().shard_count;
    while shard < shard_count && rows.len() < count_max && Instant::now() < deadline {
        let count_max = count_max - rows.len();
        let (found, next) = step(client, asked, ShardId(shard), after, count_max).await?;
        let Found::Rows(found) = found else {
            return Err(another_kind());
        };
        left = left.map(|left| left.saturating_sub(found.len() as u64));
        rows.extend(found);
        match next {
            Some(next) => after = next,
            None => (shard, after) = (shard + 1, Bytes::new()),
        }
    }
    let is_over = shard >= shard_count || left == Some(0);
    let next = (!is_over).then_some(Cursor { shard, after, left });
    Ok(Page { rows, next })
}

/// The rows of a statement with aggregates, from all shards.
pub(crate) async fn groups(client: &dyn ShardClient, asked: &Asked) -> Result<Vec<Value>, FleetError> {
    let shards = client.directory().shards();
    let mut gathered = stream::iter(shards)
        .map(|shard| groups_of(client, asked, shard))
        .buffer_unordered(QUERY_SHARDS_AT_A_TIME);
    let mut all = Groups::new();
    while let Some(groups) = gathered.try_next().await? {
        all.merge(groups)
            .map_err(|error| FleetError::Refused(error.to_string()))?;
    }
    Ok(all.rows(&asked.statement))
}

async fn groups_of(client: &dyn ShardClient, asked: &Asked, shard: ShardId) -> Result<Groups, FleetError> {
    let mut all = Groups::new();
    every_step(
        client,
        |after| asked.step(shard, after, 0),
        |view| {
            let (found, next) = found(view)?;
            let Found::Groups(groups) = found else {
                return Err(another_kind());
            };
            all.merge(groups)
                .map_err(|error| FleetError::Refused(error.to_string()))?;
            Ok(next)
        },
    )
    .await?;
    Ok(all)
}

/// How many twins each of `statements` finds, which have no aggregates: one look over the fleet for all of them.
pub(crate) async fn counts(client: &dyn ShardClient, statements: &[String]) -> Result<Vec<u64>, FleetError> {
    let mut all = vec![0; statements.len()];
    if statements.is_empty() {
        return Ok(all);
    }
    let shards = client.directory().shards();
    let mut gathered = stream::iter(shards)
        .map(|shard| counts_of(client, statements, shard))
        .buffer_unordered(QUERY_SHARDS_AT_A_TIME);
    while let Some(counts) = gathered.try_next().await? {
        all.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
    }
    Ok(all)
}

async fn counts_of(
    client: &dyn ShardClient,
    statements: &[String],
    shard: ShardId,
) -> Result<Vec<u64>, FleetError> {
    let mut all = vec![0; statements.len()];
    let ask = |after| Query::Counts {
        shard,
        statements: statements.to_vec(),
        after,
    };
    every_step(client, ask, |view| match view {
        View::Counts { counts, next } => {
            all.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
            Ok(next)
        }
        _ => Err(another_kind()),
    })
    .await?;
    Ok(all)
}

/// Asks one step after the other; `take` keeps what each says, and tells where the next begins.
pub(crate) async fn every_step<E: From<QueryError>>(
    client: &dyn ShardClient,
    ask: impl Fn(Bytes) -> Query,
    mut take: impl FnMut(View) -> Result<Option<Bytes>, E>,
) -> Result<(), E> {
    let mut after = Bytes::new();
    loop {
        let view = client.query(ask(after), Consistency::Linearizable).await?;
        match take(view)? {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

async fn step(
    client: &dyn ShardClient,
    asked: &Asked,
    shard: ShardId,
    after: Bytes,
    count_max: usize,
) -> Result<(Found, Option<Bytes>), FleetError> {
    let query = asked.step(shard, after, count_max);
    found(client.query(query, Consistency::Linearizable).await?)
}

fn found(view: View) -> Result<(Found, Option<Bytes>), FleetError> {
    match view {
        View::Fleet {
            found: Found::Refused(why),
            ..
        } => Err(FleetError::Refused(why)),
        View::Fleet { found, next } => Ok((found, next)),
        _ => Err(another_kind()),
    }
}

fn another_kind() -> FleetError {
    FleetError::Query(QueryError::Store("an answer of another kind".into()))
}

/// What a statement finds among devices that it names itself: no other need be looked at. Their page begins at a place
/// among them, which stands where that of a shard does otherwise.
async fn named(
    client: &dyn ShardClient,
    asked: &Asked,
    devices: &[DeviceId],
    cursor: Cursor,
    count_max: usize,
) -> Result<Page, FleetError> {
    let Cursor {
        shard: mut place,
        after,
        mut left,
    } = cursor;
    let mut rows = Vec::new();
    while let Some(device) = devices.get(place as usize)
        && rows.len() < count_max
    {
        place += 1;
        let query = Query::Twin(device.clone());
        let View::Twin(view) = client.query(query, Consistency::Linearizable).await? else {
            return Err(another_kind());
        };
        let Some(view) = view else { continue };
        let twin = view.document();
        let twin = twin.map_err(|error| QueryError::Store(error.to_string()))?;
        if let Some(row) = fleet::row(&asked.statement, &view.device, &twin) {
            left = left.map(|left| left.saturating_sub(1));
            rows.push(row);
        }
    }
    let is_over = place as usize >= devices.len() || left == Some(0);
    let next = (!is_over).then_some(Cursor {
        shard: place,
        after,
        left,
    });
    Ok(Page { rows, next })
}

/// The devices that alone can be found, when the condition says so: `deviceId = '..'`, or `deviceId IN [..]`, by itself
/// or with others by `AND`. Names that no device can have are left out.
fn devices_named(statement: &Statement) -> Option<Vec<DeviceId>> {
    if statement.source != Source::Devices || statement.is_aggregate() {
        return None;
    }
    let names = names_asked(statement.filter.as_ref()?)?;
    if names.len() > QUERY_DEVICES_MAX {
        return None;
    }
    let mut devices: Vec<DeviceId> = names
        .into_iter()
        .filter_map(|name| DeviceId::parse(name).ok())
        .collect();
    devices.sort();
    devices.dedup();
    Some(devices)
}

fn names_asked(condition: &Expr) -> Option<Vec<&str>> {
    match condition {
        Expr::And(parts) => parts.iter().find_map(names_asked),
        Expr::Compare {
            left,
            comparison: Comparison::Equal,
            right,
        } => match (&**left, &**right) {
            (Expr::Path(path), Expr::Literal(Literal::Text(name)))
            | (Expr::Literal(Literal::Text(name)), Expr::Path(path))
                if is_device_id(path) =>
            {
                Some(vec![name])
            }
            _ => None,
        },
        Expr::In {
            value,
            list,
            is_negated: false,
        } => {
            let is_it = matches!(&**value, Expr::Path(path) if is_device_id(path));
            let names = list.iter().map(|literal| match literal {
                Literal::Text(name) => Some(name.as_str()),
                _ => None,
            });
            // A name that is no text is no device's.
            is_it.then(|| names.flatten().collect())
        }
        _ => None,
    }
}

fn is_device_id(path: &Path) -> bool {
    matches!(path.segments(), [Segment::Name(name)] if name.eq_ignore_ascii_case("deviceId"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(condition: &str) -> Option<Vec<String>> {
        let statement = Statement::parse(&format!("SELECT * FROM devices WHERE {condition}")).unwrap();
        let devices = devices_named(&statement)?;
        Some(devices.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_condition_that_names_devices_is_asked_of_them_alone() {
        let some = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        for (condition, named) in [
            ("deviceId = 'a'", some(&["a"])),
            ("'a' = DEVICEID", some(&["a"])),
            ("deviceId IN ['b', 'a', 'b', 7]", some(&["a", "b"])),
            ("status = 'enabled' AND deviceId = 'a'", some(&["a"])),
            ("deviceId = 'no device has / in it'", some(&[])),
            ("deviceId = 'a' OR tags.x = 1", None),
            ("NOT deviceId = 'a'", None),
            ("deviceId != 'a'", None),
            ("deviceId NIN ['a']", None),
            ("tags.deviceId = 'a'", None),
            ("deviceId = tags.twin", None),
        ] {
            assert_eq!(asks(condition), named, "{condition}");
        }
        let statement = Statement::parse("SELECT COUNT() FROM devices WHERE deviceId = 'a'").unwrap();
        assert_eq!(devices_named(&statement), None);
        let statement = Statement::parse("SELECT * FROM devices.modules WHERE deviceId = 'a'").unwrap();
        assert_eq!(devices_named(&statement), None);
    }
}
