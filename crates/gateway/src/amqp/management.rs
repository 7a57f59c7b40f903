//! `$management`: what readers ask before they read, of the hub and of its partitions.
//!
//! Decides how a request is read and what the answer's map has. A partition is a shard: its number is the name, and
//! offset and sequence number are the event's offset in it.

use std::sync::Arc;

use dunlin_model::command::ReadFrom;
use dunlin_model::id::ShardId;
use dunlin_model::port::{QueryError, ShardClient};

use super::event::signed;
use super::message::{Answer, Request};
use super::performative::condition;
use super::value::Value;

/// What a request asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// How many partitions there are.
    Hub { name: String },
    /// Where one begins and ends.
    Partition { name: String, partition: String },
}

impl Question {
    /// Reads a request, or says what is wrong with it.
    pub(crate) fn read(request: &Request) -> Result<Self, Answer> {
        let invalid = |what: &str| Answer::new(400, what, Some(condition::INVALID_FIELD));
        if request.application_text("operation") != Some("READ") {
            return Err(Answer::new(
                501,
                "the operation is READ",
                Some(condition::NOT_IMPLEMENTED),
            ));
        }
        let name = request
            .application_text("name")
            .ok_or_else(|| invalid("the name is missing"))?;
        let name = name.to_owned();
        match request.application_text("type") {
            Some("com.microsoft:eventhub") => Ok(Self::Hub { name }),
            Some("com.microsoft:partition") => {
                let partition = request.application_text("partition");
                let partition = partition
                    .ok_or_else(|| invalid("the partition is missing"))?
                    .to_owned();
                Ok(Self::Partition { name, partition })
            }
            _ => Err(invalid(
                "the type is com.microsoft:eventhub or com.microsoft:partition",
            )),
        }
    }

    /// The hub that is asked about: what a token must cover.
    pub(crate) fn hub(&self) -> &str {
        match self {
            Self::Hub { name } | Self::Partition { name, .. } => name,
        }
    }
}

/// The number of a partition that there is.
pub(crate) fn shard(text: &str, shard_count: u32) -> Option<ShardId> {
    let number: u32 = text.parse().ok()?;
    // One spelling only: readers keep their places by it.
    (number < shard_count && number.to_string() == text).then_some(ShardId(number))
}

/// Finds the answer.
pub(crate) async fn answer(client: Arc<dyn ShardClient>, question: Question) -> Answer {
    let shard_count = client.directory().shard_count;
    let body = match &question {
        Question::Hub { name } => hub(name, shard_count),
        Question::Partition { name, partition } => {
            let Some(found) = shard(partition, shard_count) else {
                return Answer::new(404, "there is no such partition", Some(condition::NOT_FOUND));
            };
            match ends(&*client, found).await {
                Ok(ends) => partition_body(name, partition, ends),
                Err(error) => return Answer::new(503, error.to_string(), Some(condition::TIMEOUT)),
            }
        }
    };
    Answer {
        body,
        ..Answer::new(200, "OK", None)
    }
}

/// Where a partition begins and ends, and when its last event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    first: u64,
    next: u64,
    last_ms: u64,
}

async fn ends(client: &dyn ShardClient, shard: ShardId) -> Result<Ends, QueryError> {
    let end = client.read_events(shard, ReadFrom::End, 1, 0).await?;
    let mut ends = Ends {
        first: end.first_offset,
        next: end.next_offset,
        last_ms: 0,
    };
    if ends.next > ends.first {
        let page = client
            .read_events(shard, ReadFrom::Offset(ends.next - 1), 1, 0)
            .await?;
        ends.last_ms = page.runs.last().map_or(0, |run| run.time_ms);
    }
    Ok(ends)
}

fn map(entries: Vec<(&str, Value)>) -> Value {
    let entries = entries
        .into_iter()
        .map(|(name, value)| (Value::string(name), value));
    Value::Map(entries.collect())
}

fn hub(name: &str, shard_count: u32) -> Value {
    let ids = (0..shard_count)
        .map(|number| Value::string(number.to_string()))
        .collect();
    map(vec![
        ("name", Value::string(name)),
        ("type", Value::string("com.microsoft:eventhub")),
        // When the cluster was formed is written nowhere.
        ("created_at", Value::Timestamp(0)),
        ("partition_count", Value::Int(shard_count as i32)),
        ("partition_ids", Value::Array(ids)),
    ])
}

fn partition_body(name: &str, partition: &str, ends: Ends) -> Value {
    let is_empty = ends.next <= ends.first;
    let last = if is_empty { -1 } else { signed(ends.next - 1) };
    map(vec![
        ("name", Value::string(name)),
        ("type", Value::string("com.microsoft:partition")),
        ("partition", Value::string(partition)),
        ("begin_sequence_number", Value::Long(signed(ends.first))),
        ("last_enqueued_sequence_number", Value::Long(last)),
        ("last_enqueued_offset", Value::string(last.to_string())),
        ("last_enqueued_time_utc", Value::Timestamp(signed(ends.last_ms))),
        ("is_partition_empty", Value::Bool(is_empty)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_has_one_spelling() {
        assert_eq!(shard("0", 4), Some(ShardId(0)));
        assert_eq!(shard("3", 4), Some(ShardId(3)));
        for text in ["4", "03", "+3", "", "-1", "x", "99999999999"] {
            assert_eq!(shard(text, 4), None, "{text}");
        }
    }

    #[test]
    fn an_empty_partition_has_no_last_event() {
        let last = |first, next| {
            let body = partition_body(
                "eh",
                "0",
                Ends {
                    first,
                    next,
                    last_ms: 5,
                },
            );
            let entry = |at: usize| body.entries()[at].1.clone();
            (entry(4), entry(5), entry(7))
        };
        assert_eq!(
            last(0, 0),
            (Value::Long(-1), Value::string("-1"), Value::Bool(true))
        );
        assert_eq!(
            last(2, 9),
            (Value::Long(8), Value::string("8"), Value::Bool(false))
        );
    }
}
