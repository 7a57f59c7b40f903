//! What commands on cloud-to-device messages do to a shard: where queues and contents lie, and who has to hear.
//!
//! Which message may be given to whom is decided in [`crate::messages::queue`]; what senders are owed is kept by
//! [`owed`].

use bytes::{BufMut, Bytes, BytesMut};

use super::state::Entry;
use super::{Notice, keys, owed, registry};
use crate::command::{Outcome, Refusal};
use crate::id::DeviceId;
use crate::identity::SessionRecord;
use crate::messages::feedback::FeedbackRecord;
use crate::messages::queue::{Ended, Moment, Queue};
use crate::messages::{
    DeadLetterDeed, Holder, MessageContent, NewMessage, QUEUE_MESSAGES_MAX, SESSION_MESSAGES_MAX, Settlement,
    TakenMessage,
};
use crate::mutant::{self, Mutant};
use crate::port::StoreError;
use crate::wire::{Reader, WireError, put_bytes};

const CONTENT_VERSION: u8 = 1;

pub(crate) fn encode(content: &MessageContent) -> Bytes {
    let mut out = BytesMut::with_capacity(content.bytes() + 16);
    out.put_u8(CONTENT_VERSION);
    put_bytes(&mut out, content.bag.as_bytes());
    put_bytes(&mut out, &content.payload);
    out.freeze()
}

pub(crate) fn decode(bytes: Bytes) -> Result<MessageContent, StoreError> {
    let read = |bytes| {
        let mut reader = Reader::new(bytes);
        if reader.u8("message version")? != CONTENT_VERSION {
            return Err(WireError::Invalid("message version"));
        }
        let bag = String::from_utf8(reader.bytes("message bag")?.into());
        Ok(MessageContent {
            bag: bag.map_err(|_| WireError::Invalid("message bag"))?,
            payload: reader.bytes("message payload")?,
        })
    };
    read(bytes).map_err(|error| StoreError::Corrupt {
        what: "message to a device".into(),
        reason: error.to_string(),
    })
}

/// The queue of one device, taken out of the state for one command.
struct Work {
    queue: Queue,
    moment: Moment,
    session: SessionRecord,
}

impl Work {
    fn open(entry: &Entry<'_>, device: &DeviceId) -> Result<Self, StoreError> {
        let stored = entry.overlay.get_json(&keys::queue(device.as_str().as_bytes()))?;
        let queue: Queue = stored.unwrap_or_default();
        let session = registry::session(entry, device)?.unwrap_or_default();
        Ok(Self {
            queue,
            moment: Moment {
                ms: entry.meta.time_ms,
                session: session.held_by.map(|_| session.epoch),
            },
            session,
        })
    }

    /// Puts the queue back, with what follows from it: contents that nobody needs, feedback for `ended`.
    fn close(mut self, entry: &mut Entry<'_>, device: &DeviceId, ended: &[Ended]) -> Result<(), StoreError> {
        owe(entry, device, ended)?;
        let id = device.as_str().as_bytes();
        while let Some(number) = self.queue.poll_dropped() {
            entry.overlay.delete(keys::message(id, number));
        }
        let (before, due) = self.queue.set_due(self.moment);
        if before != due {
            if let Some(ms) = before {
                entry.overlay.delete(keys::due(ms, id));
            }
            if let Some(ms) = due {
                entry.overlay.put(keys::due(ms, id), Bytes::new());
            }
        }
        entry.overlay.put_json(keys::queue(id), &self.queue);
        Ok(())
    }
}

/// Writes down how messages of `device` ended, for those who wanted to hear of it.
fn owe(entry: &mut Entry<'_>, device: &DeviceId, ended: &[Ended]) -> Result<(), StoreError> {
    let wanted: Vec<&Ended> = ended.iter().filter(|ended| ended.ack.wants(ended.end)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let device_generation = registry::record(entry, device)?.map_or(0, |record| record.generation);
    let ended_ms = entry.meta.time_ms;
    let records = wanted.into_iter().map(|ended| FeedbackRecord {
        device: device.clone(),
        device_generation,
        message_id: ended.id.clone(),
        end: ended.end,
        ended_ms,
    });
    let records: Vec<FeedbackRecord> = records.collect();
    owed::push(entry, records)
}

/// Tells a session that listens, if there is something for it now.
fn tell_waiting(entry: &mut Entry<'_>, device: &DeviceId, work: &Work) {
    let session = &work.session;
    if let Some(held_by) = session.held_by
        && session
            .subscriptions
            .contains_key(&registry::messages_filter(device))
        && work.queue.has_free(work.moment)
    {
        entry.notices.push(Notice::MessagesWaiting {
            device: device.clone(),
            epoch: session.epoch,
            held_by,
        });
    }
}

/// Whether messages wait that somebody could be given.
pub(super) fn any_waits(entry: &Entry<'_>, device: &DeviceId) -> Result<bool, StoreError> {
    let work = Work::open(entry, device)?;
    Ok(work.queue.has_free(work.moment))
}

pub(super) fn send(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    message: &NewMessage,
) -> Result<Outcome, StoreError> {
    if registry::record(entry, device)?.is_none() {
        return Ok(Outcome::Refused(registry::absent(entry, device)?));
    }
    let mut work = Work::open(entry, device)?;
    let ended = work.queue.expire(work.moment);
    let Some(number) = work.queue.push(message, work.moment) else {
        work.close(entry, device, &ended)?;
        return Ok(Outcome::Refused(Refusal::QueueFull));
    };
    if mutant::is_on(Mutant::LoseMessage) {
        return Ok(Outcome::MessageQueued { number });
    }
    let key = keys::message(device.as_str().as_bytes(), number);
    entry.overlay.put(key, encode(&message.content));
    tell_waiting(entry, device, &work);
    work.close(entry, device, &ended)?;
    Ok(Outcome::MessageQueued { number })
}

pub(super) fn take(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    epoch: u64,
    holds: &[u64],
    count_max: u32,
) -> Result<Outcome, StoreError> {
    let mut work = Work::open(entry, device)?;
    if work.moment.session != Some(epoch) {
        return Ok(Outcome::Refused(Refusal::Fenced));
    }
    let Some(&qos) = work.session.subscriptions.get(&registry::messages_filter(device)) else {
        return Ok(Outcome::Refused(Refusal::NotListening));
    };
    let count_max = count_max.min(SESSION_MESSAGES_MAX);
    let (messages, ended) = work.queue.take(epoch, holds, count_max, work.moment);
    let more = work.queue.has_free(work.moment);
    work.close(entry, device, &ended)?;
    Ok(Outcome::MessagesTaken { qos, messages, more })
}

pub(super) fn lock(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    generation: u64,
    lock_ms: Option<u64>,
) -> Result<Outcome, StoreError> {
    if let Some(refusal) = registry::turned_away(entry, device, generation)? {
        return Ok(Outcome::Refused(refusal));
    }
    let token = registry::next_fence(entry);
    let mut work = Work::open(entry, device)?;
    let (taken, ended): (Option<TakenMessage>, _) = work.queue.lock(token, lock_ms, work.moment);
    let more = work.queue.has_free(work.moment);
    work.close(entry, device, &ended)?;
    Ok(Outcome::MessagesTaken {
        qos: 1,
        messages: taken.into_iter().collect(),
        more,
    })
}

/// Refused only if none of the messages was the holder's.
pub(super) fn settle(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    numbers: &[u64],
    holder: Holder,
    settlement: Settlement,
) -> Result<Outcome, StoreError> {
    let mut work = Work::open(entry, device)?;
    let numbers = numbers.iter().take(QUEUE_MESSAGES_MAX);
    let settled =
        numbers.filter_map(|number| work.queue.settle(*number, holder, settlement, work.moment).ok());
    let settled: Vec<Option<Ended>> = settled.collect();
    if settled.is_empty() {
        return Ok(Outcome::Refused(Refusal::LockLost));
    }
    let ended: Vec<Ended> = settled.into_iter().flatten().collect();
    if settlement == Settlement::Abandon {
        tell_waiting(entry, device, &work);
    }
    work.close(entry, device, &ended)?;
    Ok(Outcome::Done)
}

/// Looks at a queue whose due time has come: messages may be over, and what somebody fetched may be free again.
pub(super) fn expire(entry: &mut Entry<'_>, device: &DeviceId) -> Result<Outcome, StoreError> {
    let mut work = Work::open(entry, device)?;
    let ended = work.queue.expire(work.moment);
    tell_waiting(entry, device, &work);
    work.close(entry, device, &ended)?;
    Ok(Outcome::Done)
}

pub(super) fn purge(entry: &mut Entry<'_>, device: &DeviceId) -> Result<Outcome, StoreError> {
    if registry::record(entry, device)?.is_none() {
        return Ok(Outcome::Refused(registry::absent(entry, device)?));
    }
    let mut work = Work::open(entry, device)?;
    let ended = work.queue.purge(work.moment);
    let count = ended.len() as u32;
    work.close(entry, device, &ended)?;
    Ok(Outcome::MessagesPurged { count })
}

pub(super) fn dead_letter(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    number: u64,
    deed: DeadLetterDeed,
) -> Result<Outcome, StoreError> {
    if registry::record(entry, device)?.is_none() {
        return Ok(Outcome::Refused(registry::absent(entry, device)?));
    }
    let mut work = Work::open(entry, device)?;
    let outcome = match deed {
        DeadLetterDeed::Drop if work.queue.drop_dead(number) => Outcome::Done,
        DeadLetterDeed::Drop => Outcome::Refused(Refusal::NoSuchLetter),
        DeadLetterDeed::Resubmit => match work.queue.resubmit(number, work.moment) {
            Err(_) => Outcome::Refused(Refusal::QueueFull),
            Ok(None) => Outcome::Refused(Refusal::NoSuchLetter),
            Ok(Some((old, new))) => {
                let id = device.as_str().as_bytes();
                if let Some(content) = entry.overlay.get(&keys::message(id, old))? {
                    entry.overlay.put(keys::message(id, new), content);
                }
                tell_waiting(entry, device, &work);
                Outcome::MessageQueued { number: new }
            }
        },
    };
    work.close(entry, device, &[])?;
    Ok(outcome)
}

/// The device is being deleted: its messages end, and nothing is left of them.
pub(super) fn remove(entry: &mut Entry<'_>, device: &DeviceId) -> Result<(), StoreError> {
    let id = device.as_str().as_bytes();
    if entry.overlay.get(&keys::queue(id))?.is_none() {
        return Ok(());
    }
    let mut work = Work::open(entry, device)?;
    let numbers: Vec<u64> = work.queue.numbers().collect();
    let ended = work.queue.purge(work.moment);
    work.close(entry, device, &ended)?;
    for number in numbers {
        entry.overlay.delete(keys::message(id, number));
    }
    entry.overlay.delete(keys::queue(id));
    Ok(())
}
