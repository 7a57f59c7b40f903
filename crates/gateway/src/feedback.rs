//! Feedback on cloud-to-device messages as any door gives it to a service: a batch, its words, and its end.
//!
//! Each shard keeps what senders of messages to its devices are owed (`model::messages::feedback`); a service asks for all
//! shards, and is given what the first one has.

use dunlin_model::command::{Command, Consistency, Outcome, Query, View};
use dunlin_model::id::ShardId;
use dunlin_model::messages::MessageEnd;
use dunlin_model::messages::feedback::{BATCH_LOCK_MS, FeedbackBatch, FeedbackRecord};
use dunlin_model::port::{QueryError, ShardClient, SubmitError};
use serde_json::{Value, json};

use dunlin_model::iso_time::iso_utc;

/// Where it is asked for, and what a token must cover.
pub(crate) const PATH: &[&str] = &["messages", "serviceBound", "feedback"];

/// The kind of content that a batch is.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.microsoft.iothub.feedback.json";

/// A batch that is the asker's until its time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) lock: BatchLock,
    pub(crate) records: Vec<FeedbackRecord>,
}

/// What settles a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchLock {
    pub(crate) shard: ShardId,
    pub(crate) token: u64,
}

impl BatchLock {
    /// As it stands in paths.
    pub(crate) fn text(self) -> String {
        format!("{:x}-{:x}", self.shard.0, self.token)
    }

    /// Reads what [`text`](Self::text) wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (shard, token) = text.trim_matches('"').split_once('-')?;
        Some(Self {
            shard: ShardId(u32::from_str_radix(shard, 16).ok()?),
            token: u64::from_str_radix(token, 16).ok()?,
        })
    }
}

/// Why there is no batch.
#[derive(Debug)]
pub(crate) enum FeedbackError {
    /// A shard could not be read.
    Query(QueryError),
    /// It is not known whether a batch was given out; it will be given out again.
    Submit(SubmitError),
    /// An answer of another kind.
    Odd,
}

/// Takes the next batch, if any shard has one. `begin` says with which to begin, so that none starves.
pub(crate) async fn take(client: &dyn ShardClient, begin: u32) -> Result<Option<Batch>, FeedbackError> {
    let count = client.directory().shard_count;
    let mut trouble = None;
    for n in 0..count {
        let shard = ShardId((begin % count.max(1) + n) % count);
        match take_of(client, shard).await {
            Ok(None) => {}
            Ok(batch) => return Ok(batch),
            // Others may have some.
            Err(error) => trouble = Some(error),
        }
    }
    trouble.map_or(Ok(None), Err)
}

async fn take_of(client: &dyn ShardClient, shard: ShardId) -> Result<Option<Batch>, FeedbackError> {
    let view = client.query(Query::Shard(shard), Consistency::Leader).await;
    match view.map_err(FeedbackError::Query)? {
        View::Shard(view) if view.feedback_count == 0 => return Ok(None),
        View::Shard(_) => {}
        _ => return Err(FeedbackError::Odd),
    }
    let command = Command::FeedbackTake {
        shard,
        lock_ms: BATCH_LOCK_MS,
    };
    let batch = match client.submit(command).await.map_err(FeedbackError::Submit)? {
        Outcome::FeedbackTaken(Some(batch)) => batch,
        Outcome::FeedbackTaken(None) => return Ok(None),
        _ => return Err(FeedbackError::Odd),
    };
    let FeedbackBatch { from, to, token, .. } = batch;
    let query = Query::Feedback { shard, from, to };
    match client
        .query(query, Consistency::Linearizable)
        .await
        .map_err(FeedbackError::Query)?
    {
        View::Feedback(records) => Ok(Some(Batch {
            lock: BatchLock { shard, token },
            records,
        })),
        _ => Err(FeedbackError::Odd),
    }
}

/// The command that settles a batch.
pub(crate) fn settling(lock: BatchLock, completes: bool) -> Command {
    Command::FeedbackSettle {
        shard: lock.shard,
        token: lock.token,
        completes,
    }
}

/// A batch in the words of IoT Hub, of [`CONTENT_TYPE`].
pub(crate) fn to_json(batch: &Batch) -> Value {
    let records = batch.records.iter().map(|record| {
        json!({
            "originalMessageId": record.message_id,
            "enqueuedTimeUtc": iso_utc(record.ended_ms),
            "statusCode": record.end.word(),
            "description": describe(record.end),
            "deviceId": record.device.device_part(),
            "deviceGenerationId": record.device_generation.to_string(),
        })
    });
    Value::Array(records.collect())
}

fn describe(end: MessageEnd) -> &'static str {
    match end {
        MessageEnd::Success => "The device has completed the message",
        MessageEnd::Expired => "The time of the message was over before the device completed it",
        MessageEnd::DeliveryCountExceeded => "The message was given to the device too often",
        MessageEnd::Rejected => "The device has rejected the message",
        MessageEnd::Purged => "The queue of the device was emptied, or the device deleted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let lock = BatchLock {
            shard: ShardId(17),
            token: u64::MAX,
        };
        assert_eq!(BatchLock::parse(&lock.text()), Some(lock));
        for wrong in ["", "1", "-1", "1-", "x-1", "100000000-1"] {
            assert_eq!(BatchLock::parse(wrong), None, "{wrong}");
        }
    }
}
