//! The queue of one device: which message is given next, who may settle it, and when its time is over.
//!
//! Pure: the stamp of the entry is the time, and whether a session lives is told. What messages carry lies beside it,
//! by number, and is touched by `shard::messages`. A message is in one of four places (IoT Hub's words): enqueued,
//! invisible while a [`Holder`] has it, a dead letter, or gone.

use serde::{Deserialize, Serialize};

use super::{
    AckWanted, DEAD_LETTERS_MAX, DELIVERY_COUNT_MAX, DeadLetter, Holder, LOCK_MS, MESSAGE_TTL_MS_DEFAULT,
    MESSAGE_TTL_MS_MAX, MessageEnd, NewMessage, QUEUE_MESSAGES_MAX, Settlement, TAKE_BYTES_MAX, TakenMessage,
    packet_id,
};
use crate::mutant::{self, Mutant};

/// Who has a message, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Lock {
    holder: Holder,
    /// Of no meaning for a session.
    until_ms: u64,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    number: u64,
    id: String,
    ack: AckWanted,
    enqueued_ms: u64,
    expires_ms: u64,
    delivery_count: u32,
    bytes: u32,
    lock: Option<Lock>,
}

impl Waiting {
    fn is_held(&self, moment: Moment) -> bool {
        self.lock.is_some_and(|lock| match lock.holder {
            Holder::Session { epoch } => moment.session == Some(epoch),
            Holder::Token { .. } => lock.until_ms > moment.ms,
        })
    }

    fn taken(&self, holder: Holder) -> TakenMessage {
        TakenMessage {
            number: self.number,
            holder,
            delivery_count: self.delivery_count.saturating_sub(1),
            enqueued_ms: self.enqueued_ms,
            expires_ms: self.expires_ms,
            ack: self.ack,
        }
    }

    fn ended(&self, end: MessageEnd) -> Ended {
        Ended {
            number: self.number,
            id: self.id.clone(),
            ack: self.ack,
            end,
        }
    }
}

/// When something happens to a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Stamp of the entry.
    pub ms: u64,
    /// Epoch of the session that a gateway holds, if one does.
    pub session: Option<u64>,
}

/// A message that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: String,
    /// Which ends its sender wants to hear of.
    pub ack: AckWanted,
    /// How.
    pub end: MessageEnd,
}

/// All that is kept of one device's messages, but for what they carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Queue {
    /// The last number that was given out.
    last: u64,
    /// Those that wait, in order of their numbers.
    waiting: Vec<Waiting>,
    /// Dead letters, the oldest first.
    dead: Vec<DeadLetter>,
    /// When it is to be looked at again, as it was last remembered.
    due_ms: Option<u64>,
    /// Numbers whose content is of no use any more, since the last [`poll_dropped`](Self::poll_dropped).
    #[serde(skip)]
    dropped: Vec<u64>,
}

impl Queue {
    /// Messages that wait, those included that a device has and has not settled.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the queue is to be looked at again: the time of a message, or of whoever fetched one, is over then. What a
    /// session holds beyond its time is looked at again later.
    pub fn next_due_ms(&self, moment: Moment) -> Option<u64> {
        let due = self.waiting.iter().map(|message| match message.lock {
            Some(Lock {
                holder: Holder::Token { .. },
                until_ms,
            }) if until_ms > moment.ms => until_ms,
            Some(_) if message.is_held(moment) && message.expires_ms <= moment.ms => moment.ms + LOCK_MS,
            _ => message.expires_ms,
        });
        due.min()
    }

    /// Remembers when it is to be looked at again. Returns what was remembered before, and what is now.
    pub fn set_due(&mut self, moment: Moment) -> (Option<u64>, Option<u64>) {
        let due_ms = self.next_due_ms(moment);
        (std::mem::replace(&mut self.due_ms, due_ms), due_ms)
    }

    /// Whether a message could be given to somebody.
    pub fn has_free(&self, moment: Moment) -> bool {
        self.waiting.iter().any(|message| !message.is_held(moment))
    }

    /// The dead letters, the oldest first.
    pub fn dead_letters(&self) -> &[DeadLetter] {
        &self.dead
    }

    /// All numbers that have content.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        let dead = self.dead.iter().map(|letter| letter.number);
        self.waiting.iter().map(|message| message.number).chain(dead)
    }

    /// The next number whose content can be deleted. Call until `None`, after everything else.
    pub fn poll_dropped(&mut self) -> Option<u64> {
        self.dropped.pop()
    }

    /// Puts a message at the end. Returns its number, or `None` if there is no room.
    pub fn push(&mut self, message: &NewMessage, moment: Moment) -> Option<u64> {
        let expires_ms = message
            .expires_ms
            .unwrap_or(moment.ms + MESSAGE_TTL_MS_DEFAULT)
            .min(moment.ms + MESSAGE_TTL_MS_MAX);
        self.append(Waiting {
            number: 0,
            id: message.id.clone(),
            ack: message.ack,
            enqueued_ms: moment.ms,
            expires_ms,
            delivery_count: 0,
            bytes: message.content.bytes() as u32,
            lock: None,
        })
    }

    fn append(&mut self, mut message: Waiting) -> Option<u64> {
        if self.waiting.len() >= QUEUE_MESSAGES_MAX {
            return None;
        }
        self.last += 1;
        while self
            .waiting
            .iter()
            .any(|other| packet_id(other.number) == packet_id(self.last))
        {
            self.last += 1;
        }
        message.number = self.last;
        self.waiting.push(message);
        Some(self.last)
    }

    /// Ends the messages whose time is over; one that is held keeps the time of its holder.
    pub fn expire(&mut self, moment: Moment) -> Vec<Ended> {
        let is_over = |message: &Waiting| message.expires_ms <= moment.ms && !message.is_held(moment);
        self.end_where(moment, MessageEnd::Expired, is_over)
    }

    fn end_where(
        &mut self,
        moment: Moment,
        end: MessageEnd,
        is_over: impl Fn(&Waiting) -> bool,
    ) -> Vec<Ended> {
        let (over, rest) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(is_over);
        self.waiting = rest;
        over.into_iter()
            .map(|message| self.bury(&message, end, moment))
            .collect()
    }

    /// A message has left the queue: it becomes a dead letter or is forgotten.
    fn bury(&mut self, message: &Waiting, end: MessageEnd, moment: Moment) -> Ended {
        if end.is_dead_letter() {
            if self.dead.len() >= DEAD_LETTERS_MAX {
                self.dropped.push(self.dead.remove(0).number);
            }
            self.dead.push(DeadLetter {
                number: message.number,
                id: message.id.clone(),
                reason: end,
                dead_ms: moment.ms,
                enqueued_ms: message.enqueued_ms,
                delivery_count: message.delivery_count,
                ack: message.ack,
                bytes: message.bytes,
            });
        } else {
            self.dropped.push(message.number);
        }
        message.ended(end)
    }

    /// Gives messages to the session of `epoch`, in order, `count_max` at the most, and those again that it has without
    /// knowing: the session `holds` what it was given and has not settled. Those that were given too often end.
    pub fn take(
        &mut self,
        epoch: u64,
        holds: &[u64],
        count_max: u32,
        moment: Moment,
    ) -> (Vec<TakenMessage>, Vec<Ended>) {
        let mut ended = self.expire(moment);
        ended.extend(self.end_worn_out(moment));
        let holder = Holder::Session { epoch };
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for message in &mut self.waiting {
            let is_its_own =
                message.lock.is_some_and(|lock| lock.holder == holder) && message.is_held(moment);
            let is_known = is_its_own && holds.contains(&message.number);
            if is_known || (!is_its_own && message.is_held(moment)) {
                continue;
            }
            bytes += message.bytes;
            if taken.len() as u32 >= count_max || (bytes > TAKE_BYTES_MAX && !taken.is_empty()) {
                break;
            }
            // What it has without knowing was never sent, so it does not count again.
            message.delivery_count += u32::from(!is_its_own);
            message.lock = Some(Lock { holder, until_ms: 0 });
            taken.push(message.taken(holder));
        }
        (taken, ended)
    }

    /// Gives the next message to whoever asks, for `lock_ms`, under `token`.
    pub fn lock(
        &mut self,
        token: u64,
        lock_ms: Option<u64>,
        moment: Moment,
    ) -> (Option<TakenMessage>, Vec<Ended>) {
        let mut ended = self.expire(moment);
        ended.extend(self.end_worn_out(moment));
        let holder = Holder::Token { token };
        let next = self.waiting.iter_mut().find(|message| !message.is_held(moment));
        let taken = next.map(|message| {
            message.delivery_count += 1;
            message.lock = Some(Lock {
                holder,
                until_ms: moment.ms + lock_ms.unwrap_or(LOCK_MS),
            });
            message.taken(holder)
        });
        (taken, ended)
    }

    fn end_worn_out(&mut self, moment: Moment) -> Vec<Ended> {
        let is_worn =
            |message: &Waiting| message.delivery_count >= DELIVERY_COUNT_MAX && !message.is_held(moment);
        self.end_where(moment, MessageEnd::DeliveryCountExceeded, is_worn)
    }

    /// Settles a message in the name of its holder. `Err` if it is no longer the holder.
    pub fn settle(
        &mut self,
        number: u64,
        holder: Holder,
        settlement: Settlement,
        moment: Moment,
    ) -> Result<Option<Ended>, LockLost> {
        let is_meant = |message: &Waiting| {
            message.number == number
                && message.is_held(moment)
                && message.lock.is_some_and(|lock| lock.holder == holder)
        };
        let place = self.waiting.iter().position(is_meant).ok_or(LockLost)?;
        let end = match settlement {
            Settlement::Abandon => {
                self.waiting[place].lock = None;
                return Ok(None);
            }
            Settlement::Complete if mutant::is_on(Mutant::ForgetComplete) => {
                self.waiting[place].lock = None;
                return Ok(Some(self.waiting[place].ended(MessageEnd::Success)));
            }
            Settlement::Complete => MessageEnd::Success,
            Settlement::Reject => MessageEnd::Rejected,
        };
        let message = self.waiting.remove(place);
        Ok(Some(self.bury(&message, end, moment)))
    }

    /// Ends all messages that wait, whoever holds them.
    pub fn purge(&mut self, moment: Moment) -> Vec<Ended> {
        self.end_where(moment, MessageEnd::Purged, |_| true)
    }

    /// Puts a dead letter at the end of the queue. Returns its old and its new number, `Ok(None)` if there is no such
    /// letter.
    pub fn resubmit(&mut self, number: u64, moment: Moment) -> Result<Option<(u64, u64)>, QueueFull> {
        let Some(place) = self.dead.iter().position(|letter| letter.number == number) else {
            return Ok(None);
        };
        let letter = &self.dead[place];
        let message = Waiting {
            number: 0,
            id: letter.id.clone(),
            ack: letter.ack,
            enqueued_ms: moment.ms,
            expires_ms: moment.ms + MESSAGE_TTL_MS_DEFAULT,
            delivery_count: 0,
            bytes: letter.bytes,
            lock: None,
        };
        let new = self.append(message).ok_or(QueueFull)?;
        self.dead.remove(place);
        self.dropped.push(number);
        Ok(Some((number, new)))
    }

    /// Forgets a dead letter. Returns whether there was one.
    pub fn drop_dead(&mut self, number: u64) -> bool {
        let Some(place) = self.dead.iter().position(|letter| letter.number == number) else {
            return false;
        };
        self.dead.remove(place);
        self.dropped.push(number);
        true
    }
}

/// Whoever wants to settle a message does not hold it (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockLost;

/// [`QUEUE_MESSAGES_MAX`] messages wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
