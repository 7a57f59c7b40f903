//! The events of one partition for one receiver: `{hub}/ConsumerGroups/{group}/Partitions/{n}`.
//!
//! Decides where a receiver begins, what is read ahead for it and when a read that failed is tried again. A partition
//! whose leader changes is a pause, never the end of a link. Consumer groups keep nothing here: receivers remember
//! where they are. How an event looks is decided in [`event`](super::event).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::command::ReadFrom;
use dunlin_model::id::ShardId;
use dunlin_model::port::{QueryError, ShardClient};
use dunlin_model::routing::BUILT_IN;
use tokio::sync::OwnedSemaphorePermit;

use super::event;
use super::management::shard;
use super::node::PartitionAddress;
use super::performative::{Attach, Fault, condition, field, terminus};
use super::seats::Seat;
use super::selector;
use super::value::Value;
use crate::events::Event;
use crate::events::endpoint::{self, Shown};
use crate::limits::{AMQP_READ_BYTES, AMQP_READ_PAUSE_MAX, AMQP_READ_PAUSE_MIN, EVENTS_WAIT_MS_MAX};
use crate::shared::Shared;

/// Name of the filter that says where to begin.
const SELECTOR: &str = "apache.org:selector-filter:string";
/// Property of a link that wants to be the only one.
const EPOCH: &str = "com.microsoft:epoch";
/// Place of the filters in a source.
const FILTERS: usize = 7;

/// What a receiver asks for, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) shard: ShardId,
    pub(crate) from: ReadFrom,
    pub(crate) epoch: Option<i64>,
}

/// Reads what a link asks of a partition.
pub(crate) fn read(address: &PartitionAddress, attach: &Attach, shard_count: u32) -> Result<Asked, Fault> {
    let shard = shard(&address.partition, shard_count)
        .ok_or_else(|| Fault::new(condition::NOT_FOUND, "there is no such partition"))?;
    let filters = field(terminus(&attach.source), FILTERS).entries();
    let selector = filters.iter().find(|(name, _)| name.text() == Some(SELECTOR));
    let from = match selector {
        None => ReadFrom::Offset(0),
        Some((_, filter)) => {
            let text = filter_text(filter).unwrap_or_default();
            let read = selector::parse(text);
            read.map_err(|error| Fault::new(condition::INVALID_FIELD, error.to_string()))?
        }
    };
    let properties = attach.properties.entries();
    let epoch = properties.iter().find(|(name, _)| name.text() == Some(EPOCH));
    let epoch = match epoch {
        None => None,
        Some((_, value)) => Some(
            value
                .signed()
                .ok_or_else(|| Fault::new(condition::INVALID_FIELD, "the epoch is a whole number"))?,
        ),
    };
    Ok(Asked { shard, from, epoch })
}

/// The text of a filter, which clients describe or leave bare.
fn filter_text(filter: &Value) -> Option<&str> {
    match filter {
        Value::Described(_, text) => text.text(),
        bare => bare.text(),
    }
}

/// One receiver.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) address: PartitionAddress,
    pub(crate) shard: ShardId,
    /// The offset that is read next.
    next: u64,
    /// What is read and not sent yet: a page at the most.
    pending: VecDeque<Event>,
    is_reading: bool,
    failures: u32,
    _seat: Seat,
    _permit: OwnedSemaphorePermit,
}

impl Receiver {
    pub(crate) fn new(
        address: PartitionAddress,
        shard: ShardId,
        seat: Seat,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            address,
            shard,
            next: 0,
            pending: VecDeque::new(),
            // Where it begins is still to be found.
            is_reading: true,
            failures: 0,
            _seat: seat,
            _permit: permit,
        }
    }

    /// It begins at `offset`.
    pub(crate) fn begin(&mut self, offset: u64) {
        self.next = offset;
        self.is_reading = false;
    }

    /// The next event as a message.
    pub(crate) fn pop(&mut self) -> Option<bytes::Bytes> {
        Some(event::to_message(&self.pending.pop_front()?))
    }

    /// Whether something is read and not sent yet.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The read to make now, if one is due: from where, and after which pause.
    pub(crate) fn poll_read(&mut self) -> Option<(u64, Duration)> {
        if self.is_reading || self.has_pending() {
            return None;
        }
        self.is_reading = true;
        Some((self.next, pause(self.failures)))
    }

    /// Takes what a read brought.
    pub(crate) fn handle_page(&mut self, page: Result<Shown, QueryError>) {
        self.is_reading = false;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(shard = %self.shard, %error, "a receiver waits");
                self.failures = self.failures.saturating_add(1);
                return;
            }
        };
        self.failures = 0;
        self.pending.extend(page.events);
        self.next = self.next.max(page.next);
    }
}

/// How long to wait before the next read, after so many that failed.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => AMQP_READ_PAUSE_MIN
            .saturating_mul(1 << (failures - 1).min(16))
            .min(AMQP_READ_PAUSE_MAX),
    }
}

/// Reads on from `next`, after a pause.
pub(crate) async fn read_on(
    shared: Arc<Shared>,
    shard: ShardId,
    (next, pause): (u64, Duration),
) -> Result<Shown, QueryError> {
    tokio::time::sleep(pause).await;
    let bounds = (AMQP_READ_BYTES, EVENTS_WAIT_MS_MAX);
    endpoint::read(&shared, BUILT_IN, shard, ReadFrom::Offset(next), bounds).await
}

/// The offset that `from` means just now, however often it must be asked for.
pub(crate) async fn resolve(client: Arc<dyn ShardClient>, shard: ShardId, from: ReadFrom) -> u64 {
    let mut failures = 0;
    loop {
        tokio::time::sleep(pause(failures)).await;
        match (from, client.read_events(shard, from, 1, 0).await) {
            (ReadFrom::Offset(offset), _) => return offset,
            (_, Ok(page)) => return page.from,
            (_, Err(error)) => tracing::debug!(%shard, %error, "a receiver waits to begin"),
        }
        failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::Node;
    use super::super::performative::code;
    use super::*;

    const SOURCE: u64 = 0x28;

    fn attach(filter: Option<Value>, properties: Value) -> Attach {
        let mut fields = vec![Value::Null; 8];
        if let Some(filter) = filter {
            fields[FILTERS] = Value::Map(vec![(Value::symbol(SELECTOR), filter)]);
        }
        Attach {
            name: "r".into(),
            handle: 0,
            peer_receives: true,
            source: Value::described(SOURCE, fields),
            target: Value::Null,
            initial_delivery_count: 0,
            properties,
        }
    }

    fn asked(partition: &str, attach: &Attach) -> Result<Asked, &'static str> {
        let Some(Node::Partition(address)) =
            Node::parse(&format!("eh/ConsumerGroups/g/Partitions/{partition}"))
        else {
            panic!("an address");
        };
        read(&address, attach, 4).map_err(|fault| fault.condition)
    }

    #[test]
    fn filters_and_epochs_are_read() {
        let text = Value::string("amqp.annotation.x-opt-offset > '5'");
        let described = Value::Described(Box::new(Value::symbol(SELECTOR)), Box::new(text.clone()));
        let from = |offset, epoch| Asked {
            shard: ShardId(3),
            from: ReadFrom::Offset(offset),
            epoch,
        };
        for filter in [text, described] {
            assert_eq!(asked("3", &attach(Some(filter), Value::Null)), Ok(from(6, None)));
        }
        let epoch = Value::Map(vec![(Value::symbol(EPOCH), Value::Long(9))]);
        assert_eq!(asked("3", &attach(None, epoch)), Ok(from(0, Some(9))));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(asked("4", &attach(None, Value::Null)), Err(condition::NOT_FOUND));
        let filters = [
            Value::string("x"),
            Value::Null,
            Value::described(code::OPEN, vec![]),
        ];
        for filter in filters {
            assert_eq!(
                asked("0", &attach(Some(filter), Value::Null)),
                Err(condition::INVALID_FIELD)
            );
        }
        let epoch = Value::Map(vec![(Value::symbol(EPOCH), Value::string("9"))]);
        assert_eq!(asked("0", &attach(None, epoch)), Err(condition::INVALID_FIELD));
    }

    #[test]
    fn pauses_grow_and_have_an_end() {
        assert_eq!(pause(0), Duration::ZERO);
        assert_eq!(pause(1), AMQP_READ_PAUSE_MIN);
        assert_eq!(pause(2), 2 * AMQP_READ_PAUSE_MIN);
        assert_eq!(pause(u32::MAX), AMQP_READ_PAUSE_MAX);
    }
}
