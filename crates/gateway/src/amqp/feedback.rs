//! `/messages/serviceBound/feedback`: how messages to devices ended, for services that asked. And beside it
//! `/messages/serviceBound/filenotifications`: which files devices have uploaded.
//!
//! Decides what a batch looks like and how many a reader may have unsettled. Where batches come from, and what settles
//! one, is [`crate::feedback`]'s. A batch that its reader does not settle is given again when its lock is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dunlin_model::port::ShardClient;

use super::message::{property, put, section};
use super::performative::{Tag, Word};
use super::value::Value;
use crate::feedback::{self, Batch, BatchLock, FeedbackError, Kind};
use crate::limits::{AMQP_FEEDBACK_PAUSE, AMQP_FEEDBACK_UNSETTLED_MAX};
use crate::shared::Shared;

/// One reader.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) kind: Kind,
    waiting: Option<Batch>,
    is_asking: bool,
    /// The last question was in vain, and nothing has come since.
    found_none: bool,
    /// What the reader has not settled, by delivery number.
    given: BTreeMap<u32, BatchLock>,
}

impl Reader {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    /// How long to wait before the next question, if one is due.
    pub(crate) fn poll_ask(&mut self) -> Option<Duration> {
        let is_full = self.given.len() >= AMQP_FEEDBACK_UNSETTLED_MAX;
        if self.is_asking || self.waiting.is_some() || is_full {
            return None;
        }
        self.is_asking = true;
        Some(match self.found_none {
            true => AMQP_FEEDBACK_PAUSE,
            false => Duration::ZERO,
        })
    }

    /// Whether there was nothing when it was last asked for.
    pub(crate) fn found_none(&self) -> bool {
        self.found_none
    }

    /// What a question came to.
    pub(crate) fn handle_answer(&mut self, answer: Result<Option<Batch>, FeedbackError>) {
        self.is_asking = false;
        self.waiting = answer.unwrap_or_else(|error| {
            tracing::debug!(?error, "feedback is asked for again");
            None
        });
        self.found_none = self.waiting.is_none();
    }

    /// The next batch to be sent.
    pub(crate) fn pop(&mut self) -> Option<Batch> {
        self.waiting.take()
    }

    /// A batch was sent under this number.
    pub(crate) fn handle_sent(&mut self, number: u32, lock: BatchLock) {
        self.given.insert(number, lock);
    }

    /// The reader has settled a batch. Returns what is to be told to its shard: a batch that it rejects is of no use to
    /// anybody, and done with.
    pub(crate) fn handle_settled(&mut self, number: u32, word: Word) -> Option<(BatchLock, bool)> {
        let lock = self.given.remove(&number)?;
        Some((lock, word != Word::Released))
    }
}

/// Asks for a batch after a while.
pub(crate) async fn ask(
    shared: Arc<Shared>,
    kind: Kind,
    pause: Duration,
) -> Result<Option<Batch>, FeedbackError> {
    tokio::time::sleep(pause).await;
    feedback::take(&*shared.client, kind, rand::random(), shared.now_ms()).await
}

/// Tells a shard that a batch is settled. Where it does not hear of it, the batch is given again.
pub(crate) async fn settle(client: Arc<dyn ShardClient>, kind: Kind, (lock, completes): (BatchLock, bool)) {
    if let Err(error) = client.submit(feedback::settling(kind, lock, completes)).await {
        tracing::debug!(%error, "a batch of feedback stays unsettled");
    }
}

/// A batch as a message, and the tag that names its lock.
pub(crate) fn to_message(kind: Kind, batch: &Batch, hub: &str, now_ms: u64) -> (Bytes, Tag) {
    let mut properties = vec![Value::Null; property::COUNT];
    properties[property::USER_ID] = Value::Binary(hub.as_bytes().to_vec());
    properties[property::CONTENT_TYPE] = Value::symbol(kind.content_type());
    let enqueued = (
        Value::symbol("iothub-enqueuedtime"),
        Value::Timestamp(now_ms as i64),
    );
    let body = feedback::to_json(batch).to_string().into_bytes();
    let mut out = BytesMut::new();
    put(&mut out, section::ANNOTATIONS, Value::Map(vec![enqueued]));
    put(&mut out, section::PROPERTIES, Value::List(properties));
    put(&mut out, section::DATA, Value::Binary(body));
    let mut tag = [0; 16];
    tag[..4].copy_from_slice(&batch.lock.shard.0.to_be_bytes());
    tag[8..].copy_from_slice(&batch.lock.token.to_be_bytes());
    (out.freeze(), tag)
}

#[cfg(test)]
mod tests {
    use super::super::message::Request;
    use super::*;
    use crate::feedback::Records;
    use dunlin_model::id::ShardId;

    fn batch(token: u64) -> Batch {
        Batch {
            lock: BatchLock {
                shard: ShardId(3),
                token,
            },
            records: Records::Feedback(Vec::new()),
        }
    }

    #[test]
    fn a_reader_has_no_more_than_it_may_and_waits_where_there_is_nothing() {
        let mut reader = Reader::default();
        assert_eq!(reader.poll_ask(), Some(Duration::ZERO));
        assert_eq!(reader.poll_ask(), None, "one question at a time");
        reader.handle_answer(Ok(None));
        assert_eq!(reader.poll_ask(), Some(AMQP_FEEDBACK_PAUSE));
        for number in 0..AMQP_FEEDBACK_UNSETTLED_MAX as u32 {
            reader.handle_answer(Ok(Some(batch(number.into()))));
            assert_eq!(reader.poll_ask(), None, "the one that waits comes first");
            let lock = reader.pop().expect("a batch").lock;
            reader.handle_sent(number, lock);
            reader.is_asking = true;
        }
        reader.handle_answer(Ok(None));
        assert_eq!(reader.poll_ask(), None, "as many as it may have");
        assert_eq!(
            reader.handle_settled(5, Word::Released),
            Some((batch(5).lock, false))
        );
        assert_eq!(reader.handle_settled(5, Word::Accepted), None);
        assert_eq!(
            reader.handle_settled(6, Word::Accepted),
            Some((batch(6).lock, true))
        );
        assert_eq!(
            reader.handle_settled(7, Word::Rejected),
            Some((batch(7).lock, true))
        );
        assert!(reader.poll_ask().is_some());
    }

    #[test]
    fn a_batch_is_a_message_with_its_lock_for_a_tag() {
        let (message, tag) = to_message(Kind::Feedback, &batch(0x0102), "hub", 5);
        assert_eq!(tag, [0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        let read = Request::read(&message).expect("a message");
        assert_eq!(
            read.property(property::CONTENT_TYPE).text(),
            Some(Kind::Feedback.content_type())
        );
        assert_eq!(&read.data[..], b"[]");
    }
}
