//! Cloud-to-device messages on one connection: which the device has, and what the shard is to be asked next.
//!
//! Pure. A message is the session's when its shard has given it; it is published under a packet id that follows from its
//! number, and settled when the device has acknowledged it. How many may be unsettled is the window. The errands are
//! run one at a time by [`super::courier`].

use std::collections::BTreeMap;

use dunlin_model::messages::{SESSION_MESSAGES_MAX, Settlement, TakenMessage};

/// What the shard is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Errand {
    /// To settle these.
    Settle {
        numbers: Vec<u64>,
        settlement: Settlement,
    },
    /// For more, beside those that the device has.
    Take { holds: Vec<u64>, count_max: u32 },
}

/// What one connection has of its device's messages.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    window: u32,
    /// Whether messages may wait.
    waiting: bool,
    /// Published and not acknowledged: packet id and number.
    unacknowledged: BTreeMap<u16, u64>,
    completed: Vec<u64>,
    rejected: Vec<u64>,
}

impl Deliveries {
    /// For a client that takes `receive_max` unacknowledged messages.
    pub(crate) fn new(receive_max: Option<u16>, waiting: bool) -> Self {
        Self {
            window: receive_max.map_or(SESSION_MESSAGES_MAX, |max| SESSION_MESSAGES_MAX.min(max.into())),
            waiting,
            ..Self::default()
        }
    }

    /// Messages may wait.
    pub(crate) fn handle_waiting(&mut self) {
        self.waiting = true;
    }

    /// The next errand, when none is being run. `can_write` says whether messages could be written.
    pub(crate) fn poll_errand(&mut self, can_write: bool) -> Option<Errand> {
        for (numbers, settlement) in [
            (&mut self.completed, Settlement::Complete),
            (&mut self.rejected, Settlement::Reject),
        ] {
            if !numbers.is_empty() {
                let numbers = std::mem::take(numbers);
                return Some(Errand::Settle { numbers, settlement });
            }
        }
        let room = self.window.saturating_sub(self.unacknowledged.len() as u32);
        if !self.waiting || room == 0 || !can_write {
            return None;
        }
        self.waiting = false;
        Some(Errand::Take {
            holds: self.unacknowledged.values().copied().collect(),
            count_max: room,
        })
    }

    /// A message was written with quality 1.
    pub(crate) fn handle_sent(&mut self, message: &TakenMessage) {
        self.unacknowledged.insert(message.packet_id(), message.number);
    }

    /// A message was written with quality 0: nobody will acknowledge it.
    pub(crate) fn handle_sent_unacknowledged(&mut self, message: &TakenMessage) {
        self.completed.push(message.number);
    }

    /// A message cannot be written to this client, being larger than it takes.
    pub(crate) fn handle_too_large(&mut self, message: &TakenMessage) {
        self.rejected.push(message.number);
    }

    /// The device has acknowledged a packet. One that it was not sent is nobody's.
    pub(crate) fn handle_ack(&mut self, packet_id: u16, accepted: bool) {
        let settled = match accepted {
            true => &mut self.completed,
            false => &mut self.rejected,
        };
        settled.extend(self.unacknowledged.remove(&packet_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_model::messages::{AckWanted, Holder};

    fn message(number: u64) -> TakenMessage {
        TakenMessage {
            number,
            holder: Holder::Session { epoch: 1 },
            delivery_count: 0,
            enqueued_ms: 0,
            expires_ms: 0,
            ack: AckWanted::None,
        }
    }

    fn take(holds: &[u64], count_max: u32) -> Option<Errand> {
        let holds = holds.to_vec();
        Some(Errand::Take { holds, count_max })
    }

    #[test]
    fn no_more_is_taken_than_the_client_takes() {
        let mut deliveries = Deliveries::new(Some(2), true);
        assert_eq!(deliveries.poll_errand(false), None);
        assert_eq!(deliveries.poll_errand(true), take(&[], 2));
        assert_eq!(deliveries.poll_errand(true), None, "until it is told of more");
        deliveries.handle_sent(&message(7));
        deliveries.handle_waiting();
        assert_eq!(deliveries.poll_errand(true), take(&[7], 1));
        deliveries.handle_sent(&message(8));
        deliveries.handle_waiting();
        assert_eq!(deliveries.poll_errand(true), None, "its window is full");
        deliveries.handle_ack(7, true);
        deliveries.handle_ack(7, true);
        let settle = |numbers: &[u64], settlement| {
            let numbers = numbers.to_vec();
            Some(Errand::Settle { numbers, settlement })
        };
        assert_eq!(deliveries.poll_errand(true), settle(&[7], Settlement::Complete));
        assert_eq!(deliveries.poll_errand(true), take(&[8], 1));
        deliveries.handle_ack(8, false);
        deliveries.handle_too_large(&message(9));
        deliveries.handle_sent_unacknowledged(&message(10));
        assert_eq!(deliveries.poll_errand(true), settle(&[10], Settlement::Complete));
        assert_eq!(deliveries.poll_errand(true), settle(&[8, 9], Settlement::Reject));
        assert_eq!(deliveries.poll_errand(true), None);
    }
}
