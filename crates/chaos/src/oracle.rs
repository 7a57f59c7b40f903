//! What the fleet attempted and what it was told: plain data, the one side of every comparison.
//!
//! A message is *acked* or *unknown*. A message without an acknowledgement may or may not be stored;
//! nothing here ever calls it absent. Filled by [`crate::fleet`], judged by [`crate::invariants`].
//! Times are microseconds since the run's own beginning, so that a history is the same data in a test.

use std::hash::{DefaultHasher, Hasher};

/// One message that a device has handed to its connection, at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// [`digest`] of what was sent.
    pub digest: u64,
    /// The device's connection that carried it first.
    pub first_connection: u16,
    /// The one that carried it last; those between carried it too.
    pub last_connection: u16,
    /// Whether an acknowledgement came. If not, its fate is unknown.
    pub is_acked: bool,
}

/// One connection of a device, from the CONNACK on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The node whose gateway it was to.
    pub node: usize,
    /// When it was accepted.
    pub opened_us: u64,
    /// When it was lost; a connection that the device closed itself never is.
    pub lost_us: Option<u64>,
}

/// A device with all it did. Sequence numbers are places in `messages`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceHistory {
    /// Its id.
    pub device: String,
    /// What it sent, by sequence number.
    pub messages: Vec<Message>,
    /// Its connections, in order.
    pub connections: Vec<Connection>,
}

/// A node that was killed on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// Which.
    pub node: usize,
    /// Just before the signal.
    pub asked_us: u64,
    /// When the process was gone.
    pub gone_us: u64,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// The devices, probes included.
    pub devices: Vec<DeviceHistory>,
    /// The faults.
    pub kills: Vec<Kill>,
}

/// A record that was read back. What it claims is not believed before [`History::message_of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Where: the shard.
    pub shard: u32,
    /// Where: the offset in it.
    pub offset: u64,
    /// Place in [`History::devices`] of the device that the hub says it is from, if there is one.
    pub device: Option<u32>,
    /// The sequence number that its payload claims.
    pub seq: Option<u32>,
    /// [`digest`] of its payload.
    pub digest: u64,
}

/// The fingerprint by which a payload is compared. Not for secrets: nobody forges here.
pub fn digest(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(payload);
    hasher.finish()
}

impl History {
    /// The message (device, sequence number) that a record is, if it is exactly that.
    pub fn message_of(&self, stored: &Stored) -> Option<(usize, usize)> {
        let (device, seq) = (stored.device? as usize, stored.seq? as usize);
        let message = self.devices.get(device)?.messages.get(seq)?;
        (message.digest == stored.digest).then_some((device, seq))
    }

    /// How often each message was read back, by device and sequence number.
    pub fn copies(&self, stored: &[Stored]) -> Vec<Vec<u32>> {
        let mut copies: Vec<Vec<u32>> = self
            .devices
            .iter()
            .map(|device| vec![0; device.messages.len()])
            .collect();
        for (device, seq) in stored.iter().filter_map(|stored| self.message_of(stored)) {
            copies[device][seq] += 1;
        }
        copies
    }

    /// Whether a connection was lost because its node was killed.
    pub fn is_excused(&self, connection: &Connection) -> bool {
        connection.lost_us.is_some_and(|lost_us| {
            self.kills.iter().any(|kill| {
                kill.node == connection.node
                    && connection.opened_us <= kill.gone_us
                    && lost_us >= kill.asked_us
            })
        })
    }

    /// Messages, and those of them that were acknowledged.
    pub fn sent_and_acked(&self) -> (u64, u64) {
        let messages = || self.devices.iter().flat_map(|device| &device.messages);
        (
            messages().count() as u64,
            messages().filter(|message| message.is_acked).count() as u64,
        )
    }

    /// Microseconds from each loss that a kill excuses to the device's connection to another node. A probe
    /// waits for its own node and does not count.
    pub fn reconnects_us(&self) -> Vec<u64> {
        let mut found = Vec::new();
        for device in &self.devices {
            for pair in device.connections.windows(2) {
                let has_moved = pair[0].node != pair[1].node;
                if let (true, Some(lost_us)) = (has_moved && self.is_excused(&pair[0]), pair[0].lost_us) {
                    found.push(pair[1].opened_us.saturating_sub(lost_us));
                }
            }
        }
        found
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The digest that tests give to message `seq` of device `device`.
    pub(crate) fn digest_of(device: usize, seq: usize) -> u64 {
        (device * 1000 + seq) as u64
    }

    /// Devices with `counts` messages each, all acked over one connection to node 0.
    pub(crate) fn history(counts: &[usize]) -> History {
        let devices = counts.iter().enumerate().map(|(device, count)| DeviceHistory {
            device: format!("d{device}"),
            messages: (0..*count)
                .map(|seq| Message {
                    digest: digest_of(device, seq),
                    first_connection: 0,
                    last_connection: 0,
                    is_acked: true,
                })
                .collect(),
            connections: vec![Connection {
                node: 0,
                opened_us: 0,
                lost_us: None,
            }],
        });
        History {
            devices: devices.collect(),
            kills: Vec::new(),
        }
    }

    /// Records of shard 0 from offset 0 on, of these devices and sequence numbers.
    pub(crate) fn stored(messages: &[(usize, usize)]) -> Vec<Stored> {
        let place = |(offset, (device, seq)): (usize, &(usize, usize))| Stored {
            shard: 0,
            offset: offset as u64,
            device: Some(*device as u32),
            seq: Some(*seq as u32),
            digest: digest_of(*device, *seq),
        };
        messages.iter().enumerate().map(place).collect()
    }

    #[test]
    fn only_a_loss_that_a_kill_explains_is_excused() {
        let kills = vec![Kill {
            node: 1,
            asked_us: 100,
            gone_us: 110,
        }];
        let history = History {
            kills,
            ..History::default()
        };
        let connection = |node, opened_us, lost_us| Connection {
            node,
            opened_us,
            lost_us,
        };
        assert!(history.is_excused(&connection(1, 0, Some(105))));
        assert!(
            !history.is_excused(&connection(1, 0, Some(99))),
            "before the kill"
        );
        assert!(!history.is_excused(&connection(0, 0, Some(105))), "another node");
        assert!(
            !history.is_excused(&connection(1, 500, Some(600))),
            "after the node had come back"
        );
        assert!(!history.is_excused(&connection(1, 0, None)));
    }

    #[test]
    fn a_record_with_another_content_is_not_the_message() {
        let history = history(&[2]);
        let mut records = stored(&[(0, 1)]);
        assert_eq!(history.message_of(&records[0]), Some((0, 1)));
        records[0].digest += 1;
        assert_eq!(history.message_of(&records[0]), None);
    }
}
