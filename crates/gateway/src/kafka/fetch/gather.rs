//! What a fetch reads, and what becomes of it.
//!
//! Decides whom to ask for how much, within the bounds that the reader and we ourselves have set; what each partition is
//! answered with; and when it is enough. Asks nobody itself and knows no time.

use std::collections::BTreeSet;

use bytes::BytesMut;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};

use super::super::backend::{Bounds, Page, ReadError};
use super::super::batch::{self, signed};
use super::super::code::Code;
use super::super::door::Door;
use super::super::limits::{FETCH_BYTES_MAX, FETCH_PARTITION_BYTES_MAX, FETCH_WAKE_BYTES};

/// What a turn of asking is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Everybody, for what is there.
    There,
    /// Everybody, for what comes.
    Wait,
    /// Those whose end seemed to be before the reader's offset, whether it is so.
    Ahead,
}

/// A question to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// For events, and for the bounds.
    Read {
        partition: u32,
        from: u64,
        bytes_max: usize,
        is_waiting: bool,
    },
    /// For the bounds alone: there is no room left for events.
    Look { partition: u32 },
}

/// One partition that a reader names.
#[derive(Debug)]
struct Slot {
    /// As the reader calls it.
    name: i32,
    partition: u32,
    log_epoch: i32,
    /// The offset that is read next.
    next: u64,
    /// Bytes that may still be written.
    room: usize,
    batches: BytesMut,
    bounds: Option<Bounds>,
    code: Code,
    /// Whether it was asked in this pass, and has no more to say in it.
    is_asked: bool,
    /// What the question under way may bring.
    reserved: Option<usize>,
    /// Whether the partition seems to end before `next`.
    is_ahead: bool,
}

/// See the file. Order: [`begin`](Self::begin), then [`poll_ask`](Self::poll_ask) until it has no more to ask, and again
/// after each answer.
#[derive(Debug)]
pub(super) struct Gather {
    slots: Vec<Slot>,
    /// The topics as they were named, each with the places of its slots.
    topics: Vec<(TopicName, Vec<usize>)>,
    pass: Pass,
    bytes: usize,
    bytes_max: usize,
    bytes_min: usize,
}

impl Gather {
    pub(super) fn new(request: &FetchRequest, door: &Door) -> Self {
        let limit = |asked: i32, bytes_max: usize| (asked.max(1) as usize).min(bytes_max);
        let bytes_max = limit(request.max_bytes, FETCH_BYTES_MAX);
        let mut gather = Self {
            slots: Vec::new(),
            topics: Vec::new(),
            pass: Pass::There,
            bytes: 0,
            bytes_max,
            bytes_min: (request.min_bytes.max(0) as usize).min(bytes_max),
        };
        let mut named = BTreeSet::new();
        for topic in &request.topics {
            let first = gather.slots.len();
            for asked in &topic.partitions {
                let known = door.partition(&topic.topic, asked.partition);
                let log_epoch = known.map_or(-1, |partition| door.backend.log_epoch(partition));
                let is_twice = known.is_some_and(|partition| !named.insert(partition));
                let code = match (known, u64::try_from(asked.fetch_offset)) {
                    (None, _) => Code::UNKNOWN_TOPIC_OR_PARTITION,
                    (Some(_), Err(_)) => Code::OFFSET_OUT_OF_RANGE,
                    _ if is_twice => Code::INVALID_REQUEST,
                    _ => epoch_code(asked.current_leader_epoch, log_epoch),
                };
                gather.slots.push(Slot {
                    name: asked.partition,
                    partition: known.unwrap_or_default(),
                    log_epoch,
                    next: asked.fetch_offset.max(0) as u64,
                    room: limit(asked.partition_max_bytes, FETCH_PARTITION_BYTES_MAX),
                    batches: BytesMut::new(),
                    bounds: None,
                    code,
                    is_asked: false,
                    reserved: None,
                    is_ahead: false,
                });
            }
            let slots = (first..gather.slots.len()).collect();
            gather.topics.push((topic.topic.clone(), slots));
        }
        gather
    }

    /// Partitions that are read at all.
    pub(super) fn partition_count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_good()).count()
    }

    /// Bytes of events that there may be.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Bytes of events that there are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is something to answer with. An error is told at once, as Kafka does.
    pub(super) fn is_enough(&self) -> bool {
        self.bytes >= self.bytes_min || self.slots.iter().any(|slot| !slot.is_good())
    }

    /// Whether [`Pass::Ahead`] has anybody to ask.
    pub(super) fn has_aheads(&self) -> bool {
        self.slots.iter().any(|slot| slot.is_good() && slot.is_ahead)
    }

    /// A new turn. What was asked before and not answered is no longer waited for.
    pub(super) fn begin(&mut self, pass: Pass) {
        self.pass = pass;
        for slot in &mut self.slots {
            (slot.is_asked, slot.reserved) = (false, None);
        }
    }

    /// Whom to ask now, and what; the number is to come back with the answer.
    pub(super) fn poll_ask(&mut self) -> Option<(usize, Ask)> {
        let left = self.left();
        let is_quiet = self.slots.iter().all(|slot| slot.reserved.is_none());
        let pass = self.pass;
        let is_due = |slot: &&mut Slot| {
            slot.is_good()
                && slot.reserved.is_none()
                && match pass {
                    Pass::There => !slot.is_asked,
                    Pass::Wait => !slot.is_asked && slot.room > 0,
                    Pass::Ahead => slot.is_ahead && !slot.is_asked,
                }
        };
        let (place, slot) = self.slots.iter_mut().enumerate().find(|(_, slot)| is_due(slot))?;
        let partition = slot.partition;
        let (reserved, ask) = match pass {
            Pass::Ahead => (0, Ask::Look { partition }),
            Pass::Wait => {
                let bytes_max = slot.room.min(FETCH_WAKE_BYTES);
                (0, slot.read(bytes_max, true))
            }
            Pass::There if left > 0 => {
                let bytes_max = slot.room.min(left);
                (bytes_max, slot.read(bytes_max, false))
            }
            Pass::There if is_quiet => (0, Ask::Look { partition }),
            // What is under way may bring less than it might, and leave room.
            Pass::There => return None,
        };
        slot.reserved = Some(reserved);
        slot.is_asked = true;
        Some((place, ask))
    }

    /// Bytes that nobody has filled or may yet fill.
    fn left(&self) -> usize {
        let reserved: usize = self.slots.iter().filter_map(|slot| slot.reserved).sum();
        self.bytes_max.saturating_sub(self.bytes + reserved)
    }

    /// Takes the answer to [`Ask::Read`].
    pub(super) fn handle_page(&mut self, place: usize, page: Result<Page, ReadError>) {
        let is_one_due = self.bytes == 0;
        self.slots[place].reserved = None;
        let left = self.left();
        let slot = &mut self.slots[place];
        let page = match page {
            Ok(page) => page,
            Err(error) => return slot.fail(error),
        };
        slot.see(Bounds {
            first_offset: page.first_offset,
            next_offset: page.next_offset,
        });
        if !slot.is_good() {
            return;
        }
        let begin = page.events.partition_point(|event| event.offset < slot.next);
        let events = &page.events[begin..];
        let before = slot.batches.len();
        let room = slot.room.min(left);
        let written = batch::put(&mut slot.batches, slot.log_epoch, events, room, is_one_due);
        if let Some(last) = events[..written].last() {
            slot.next = last.offset + 1;
        }
        if written == events.len() && slot.next < page.next {
            // Without being told, a reader would ask for what it does not get for ever.
            batch::put_gap(&mut slot.batches, slot.log_epoch, slot.next, page.next);
            slot.next = page.next;
        }
        // Whoever is waited for and brought something may bring more.
        slot.is_asked &= self.pass != Pass::Wait || written == 0;
        let more = slot.batches.len() - before;
        slot.room = slot.room.saturating_sub(more);
        if written < events.len() {
            // It is full, though not to the last byte.
            slot.room = 0;
        }
        self.bytes += more;
    }

    /// Takes the answer to [`Ask::Look`].
    pub(super) fn handle_bounds(&mut self, place: usize, bounds: Result<Bounds, ReadError>) {
        let pass = self.pass;
        let slot = &mut self.slots[place];
        slot.reserved = None;
        match bounds {
            Ok(bounds) => slot.see(bounds),
            Err(error) => return slot.fail(error),
        }
        if pass == Pass::Ahead && slot.is_ahead {
            slot.code = Code::OFFSET_OUT_OF_RANGE;
        }
    }

    /// Nobody waits any longer: who was asked and has said nothing cannot be reached. To have waited in vain, or not to
    /// have been asked at all, is no such thing.
    pub(super) fn give_up(&mut self) {
        for slot in self.slots.iter_mut().filter(|_| self.pass != Pass::Wait) {
            if slot.is_good() && slot.is_asked && slot.bounds.is_none() {
                slot.code = Code::NOT_LEADER_OR_FOLLOWER;
            }
        }
    }

    /// What the reader is told.
    pub(super) fn into_response(mut self) -> FetchResponse {
        let topics = std::mem::take(&mut self.topics).into_iter();
        let responses = topics.map(|(name, slots)| {
            let partitions = slots.into_iter().map(|place| self.slots[place].answer());
            FetchableTopicResponse::default()
                .with_topic(name)
                .with_partitions(partitions.collect())
        });
        FetchResponse::default().with_responses(responses.collect())
    }
}

impl Slot {
    fn is_good(&self) -> bool {
        self.code == Code::NONE
    }

    fn read(&self, bytes_max: usize, is_waiting: bool) -> Ask {
        Ask::Read {
            partition: self.partition,
            from: self.next,
            bytes_max,
            is_waiting,
        }
    }

    /// Learns where the partition begins and ends. That the end is before the reader's offset is not believed at once: a
    /// reader is sent elsewhere for it, and loses its place.
    fn see(&mut self, bounds: Bounds) {
        self.bounds = Some(bounds);
        if self.next < bounds.first_offset && self.batches.is_empty() {
            self.code = Code::OFFSET_OUT_OF_RANGE;
        }
        self.is_ahead = self.next > bounds.next_offset && self.batches.is_empty();
    }

    fn fail(&mut self, error: ReadError) {
        // What was read before stands.
        if self.batches.is_empty() {
            self.code = read_code(error);
        }
    }

    fn answer(&mut self) -> PartitionData {
        let offset = |of: fn(&Bounds) -> u64| self.bounds.as_ref().map_or(-1, |bounds| signed(of(bounds)));
        let (first, next) = (
            offset(|bounds| bounds.first_offset),
            offset(|bounds| bounds.next_offset),
        );
        PartitionData::default()
            .with_partition_index(self.name)
            .with_error_code(self.code.0)
            .with_high_watermark(next)
            .with_last_stable_offset(next)
            .with_log_start_offset(first)
            .with_aborted_transactions(None)
            .with_records(Some(std::mem::take(&mut self.batches).freeze()))
    }
}

/// What a reader is told that takes the log to be in the life `asked`, or does not say (-1).
pub(crate) fn epoch_code(asked: i32, log_epoch: i32) -> Code {
    match asked {
        ..0 => Code::NONE,
        asked if asked < log_epoch => Code::FENCED_LEADER_EPOCH,
        asked if asked > log_epoch => Code::UNKNOWN_LEADER_EPOCH,
        _ => Code::NONE,
    }
}

/// What a reader is told of a partition that has no answer.
pub(crate) fn read_code(error: ReadError) -> Code {
    match error {
        ReadError::Unavailable => Code::NOT_LEADER_OR_FOLLOWER,
        ReadError::OffsetGone => Code::OFFSET_OUT_OF_RANGE,
        ReadError::Other => Code::UNKNOWN_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests;
