//! What services are owed, as any door gives it to them: a batch, its words, and its end.
//!
//! That is feedback on cloud-to-device messages, and notifications of files that devices have uploaded. Each shard keeps
//! what its devices' senders and readers are owed (`model::owed`); a service asks for all shards, and is given what the
//! first one has.

use dunlin_model::command::{Command, Consistency, Outcome, Query, View};
use dunlin_model::id::ShardId;
use dunlin_model::iso_time::iso_utc;
use dunlin_model::messages::MessageEnd;
use dunlin_model::messages::feedback::FeedbackRecord;
use dunlin_model::owed::{BATCH_LOCK_MS, OwedBatch};
use dunlin_model::port::{QueryError, ShardClient, SubmitError};
use dunlin_model::upload::FileNotice;
use serde_json::{Value, json};

/// A kind of what services are owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// How messages to devices ended.
    #[default]
    Feedback,
    /// Which files devices have uploaded.
    Files,
}

impl Kind {
    /// Where it is asked for, and what a token must cover.
    pub(crate) fn path(self) -> &'static [&'static str] {
        match self {
            Kind::Feedback => &["messages", "serviceBound", "feedback"],
            Kind::Files => &["messages", "serviceBound", "filenotifications"],
        }
    }

    /// The kind of content that a batch is.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Kind::Feedback => "application/vnd.microsoft.iothub.feedback.json",
            Kind::Files => "application/vnd.microsoft.iothub.filenotification.json",
        }
    }
}

/// A batch that is the asker's until its time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) lock: BatchLock,
    pub(crate) records: Records,
}

/// What is in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Records {
    Feedback(Vec<FeedbackRecord>),
    /// One, unless it was deleted meanwhile.
    Files(Vec<FileNotice>),
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

/// Takes the next batch, if any shard has one. `begin` says with which to begin, so that none starves; `now_ms` is
/// since 1970.
pub(crate) async fn take(
    client: &dyn ShardClient,
    kind: Kind,
    begin: u32,
    now_ms: u64,
) -> Result<Option<Batch>, FeedbackError> {
    let count = client.directory().shard_count;
    let mut trouble = None;
    for n in 0..count {
        let shard = ShardId((begin % count.max(1) + n) % count);
        match take_of(client, kind, shard, now_ms).await {
            Ok(None) => {}
            Ok(batch) => return Ok(batch),
            // Others may have some.
            Err(error) => trouble = Some(error),
        }
    }
    trouble.map_or(Ok(None), Err)
}

async fn take_of(
    client: &dyn ShardClient,
    kind: Kind,
    shard: ShardId,
    now_ms: u64,
) -> Result<Option<Batch>, FeedbackError> {
    let ask = |query, consistency| async move {
        let view = client.query(query, consistency).await;
        view.map_err(FeedbackError::Query)
    };
    let look = match kind {
        Kind::Feedback => Query::Shard(shard),
        Kind::Files => Query::FileNoticesDue(shard),
    };
    let due_ms = match ask(look, Consistency::Leader).await? {
        View::Shard(view) => view.feedback_due_ms,
        View::FileNoticesDue(due_ms) => due_ms,
        _ => return Err(FeedbackError::Odd),
    };
    // Whether it is so by the shard's own time is decided by the command; to ask costs an entry of its log.
    if due_ms.is_none_or(|due_ms| due_ms > now_ms) {
        return Ok(None);
    }
    let lock_ms = BATCH_LOCK_MS;
    let command = match kind {
        Kind::Feedback => Command::FeedbackTake { shard, lock_ms },
        Kind::Files => Command::FileNoticeTake { shard, lock_ms },
    };
    let batch = match client.submit(command).await.map_err(FeedbackError::Submit)? {
        Outcome::FeedbackTaken(Some(batch)) => batch,
        Outcome::FeedbackTaken(None) => return Ok(None),
        _ => return Err(FeedbackError::Odd),
    };
    let OwedBatch { from, to, token, .. } = batch;
    let query = match kind {
        Kind::Feedback => Query::Feedback { shard, from, to },
        Kind::Files => Query::FileNotices { shard, from, to },
    };
    let records = match ask(query, Consistency::Linearizable).await? {
        View::Feedback(records) => Records::Feedback(records),
        View::FileNotices(notices) => Records::Files(notices),
        _ => return Err(FeedbackError::Odd),
    };
    Ok(Some(Batch {
        lock: BatchLock { shard, token },
        records,
    }))
}

/// The command that settles a batch.
pub(crate) fn settling(kind: Kind, lock: BatchLock, completes: bool) -> Command {
    let BatchLock { shard, token } = lock;
    match kind {
        Kind::Feedback => Command::FeedbackSettle {
            shard,
            token,
            completes,
        },
        Kind::Files => Command::FileNoticeSettle {
            shard,
            token,
            completes,
        },
    }
}

/// A batch in the words of IoT Hub, of its kind's content type: a list of feedback, or one notification of a file.
pub(crate) fn to_json(batch: &Batch) -> Value {
    match &batch.records {
        Records::Feedback(records) => Value::Array(records.iter().map(feedback_json).collect()),
        Records::Files(notices) => notices.first().map_or(Value::Null, notice_json),
    }
}

fn feedback_json(record: &FeedbackRecord) -> Value {
    json!({
        "originalMessageId": record.message_id,
        "enqueuedTimeUtc": iso_utc(record.ended_ms),
        "statusCode": record.end.word(),
        "description": describe(record.end),
        "deviceId": record.device.device_part(),
        "deviceGenerationId": record.device_generation.to_string(),
    })
}

fn notice_json(notice: &FileNotice) -> Value {
    json!({
        "deviceId": notice.device.device_part(),
        "blobUri": notice.file.uri,
        "blobName": notice.file.blob,
        "lastUpdatedTime": iso_utc(notice.file.modified_ms),
        "blobSizeInBytes": notice.file.bytes,
        "enqueuedTimeUtc": iso_utc(notice.enqueued_ms),
    })
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
