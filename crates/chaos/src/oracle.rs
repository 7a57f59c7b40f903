//! What the fleet attempted and what it was told: plain data, the one side of every comparison.
//!
//! A message is *acked* or *unknown*. A message without an acknowledgement may or may not be stored;
//! nothing here ever calls it absent. Filled by [`crate::fleet`], judged by [`crate::invariants`].
//! Times are microseconds since the run's own beginning, so that a history is the same data in a test.

use std::hash::{DefaultHasher, Hasher};

use serde::{Deserialize, Serialize};

/// The road that a message took, which decides what may be expected of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Road {
    /// MQTT, QoS 1: sent again until it is acknowledged.
    #[default]
    Qos1,
    /// MQTT, QoS 0: never acknowledged.
    Qos0,
    /// MQTT, QoS 1, handed to one connection only: acknowledged or unknown.
    Once,
    /// HTTPS, one attempt: acknowledged, refused or unknown, and in the last case stored at any time.
    Https,
}

/// One message that a device has handed to its connection, at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// [`digest`] of what was sent.
    pub digest: u64,
    /// When it was handed over first.
    pub sent_us: u64,
    /// When the acknowledgement came. Without one the message's fate is unknown.
    pub acked_us: Option<u64>,
    /// The device's connection that carried it first.
    pub first_connection: u16,
    /// The one that carried it last; those between carried it too.
    pub last_connection: u16,
    /// How it went.
    pub road: Road,
}

impl Message {
    /// Whether an acknowledgement came.
    pub fn is_acked(&self) -> bool {
        self.acked_us.is_some()
    }
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
    /// When the device closed it to connect elsewhere.
    pub closed_us: Option<u64>,
    /// When an attempt of its own device was last given up without an answer, before it or beside it. The hub
    /// may open that one's session late, and whoever connects later wins: then this connection is taken over.
    pub contested_us: Option<u64>,
}

impl Connection {
    /// One that was accepted just now.
    pub fn opened(node: usize, opened_us: u64) -> Self {
        Self {
            node,
            opened_us,
            lost_us: None,
            closed_us: None,
            contested_us: None,
        }
    }

    /// Whether it was neither lost nor closed, as far as its device knows.
    pub fn is_held(&self) -> bool {
        self.lost_us.is_none() && self.closed_us.is_none()
    }
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
    /// When the last attempt to connect was given up without an answer, if it was.
    pub gave_up_us: Option<u64>,
}

/// Something that a device did or was told. A history is these, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Deed {
    /// A connection was accepted.
    Opened {
        /// By which node.
        node: usize,
        /// When.
        us: u64,
    },
    /// An attempt to connect was given up without an answer: its outcome is unknown.
    GaveUp {
        /// At which node.
        node: usize,
        /// When.
        us: u64,
    },
    /// The newest connection was lost.
    Lost {
        /// When.
        us: u64,
    },
    /// The newest connection was closed by its device, which goes elsewhere.
    Closed {
        /// When.
        us: u64,
    },
    /// The next message was handed to the newest connection.
    Sent {
        /// When.
        us: u64,
        /// [`digest`] of its payload.
        digest: u64,
        /// How.
        #[serde(default)]
        road: Road,
        /// Whether it went to the connection before the newest, which the newest has taken over.
        #[serde(default, skip_serializing_if = "is_not")]
        former: bool,
    },
    /// A message was handed to the newest connection as well.
    Resent {
        /// Which.
        seq: u32,
    },
    /// A message was acknowledged.
    Acked {
        /// Which.
        seq: u32,
        /// When.
        us: u64,
    },
}

fn is_not(flag: &bool) -> bool {
    !flag
}

/// A deed that cannot follow on those before it: the history is not one that was written so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not follow on what is before it")]
pub struct OutOfPlace(pub Deed);

impl DeviceHistory {
    /// Takes in what happened next.
    ///
    /// # Errors
    /// [`OutOfPlace`] when it speaks of a message or connection that is not there.
    pub fn note(&mut self, deed: Deed) -> Result<(), OutOfPlace> {
        let newest = || {
            (self.connections.len() as u16)
                .checked_sub(1)
                .ok_or(OutOfPlace(deed))
        };
        match deed {
            Deed::Opened { node, us } => self.connections.push(Connection {
                contested_us: self.gave_up_us.take(),
                ..Connection::opened(node, us)
            }),
            Deed::GaveUp { us, .. } => {
                self.gave_up_us = Some(us);
                if let Some(held) = self.connections.last_mut().filter(|held| held.is_held()) {
                    held.contested_us = Some(us);
                }
            }
            Deed::Lost { us } => {
                self.connections.last_mut().ok_or(OutOfPlace(deed))?.lost_us = Some(us);
            }
            Deed::Closed { us } => {
                self.connections.last_mut().ok_or(OutOfPlace(deed))?.closed_us = Some(us);
            }
            Deed::Sent {
                us,
                digest,
                road,
                former,
            } => {
                let connection = newest()?;
                let connection = connection
                    .checked_sub(u16::from(former))
                    .ok_or(OutOfPlace(deed))?;
                self.messages.push(Message {
                    digest,
                    sent_us: us,
                    acked_us: None,
                    first_connection: connection,
                    last_connection: connection,
                    road,
                });
            }
            Deed::Resent { seq } => {
                let connection = newest()?;
                let message = self.messages.get_mut(seq as usize).ok_or(OutOfPlace(deed))?;
                message.last_connection = connection;
            }
            Deed::Acked { seq, us } => {
                let message = self.messages.get_mut(seq as usize).ok_or(OutOfPlace(deed))?;
                message.acked_us = Some(us);
            }
        }
        Ok(())
    }
}

/// A node that was disturbed on purpose so that it may lose its connections: killed, stopped, paused,
/// starved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disturbance {
    /// Which.
    pub node: usize,
    /// Just before it began.
    pub from_us: u64,
    /// When it was over; for a kill, when the process was gone. A connection that was open until then
    /// may be found lost at any time later.
    pub until_us: u64,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// The devices, probes included.
    pub devices: Vec<DeviceHistory>,
    /// The faults.
    pub disturbances: Vec<Disturbance>,
}

/// A record that was read back. What it claims is not believed before [`History::message_of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// How long after a disturbance its consequence for a connection may show: a device's own time-outs (8 s to
/// connect, 10 s to write), and the lease after which a shard gives a silent gateway up and ends its sessions.
pub const NOTICED_WITHIN_US: u64 = 30_000_000;

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

    /// Whether a connection was lost because its node was disturbed, or may have been to an attempt of its
    /// own device; for as long after that as [`NOTICED_WITHIN_US`].
    pub fn is_excused(&self, connection: &Connection) -> bool {
        let in_time = |at_us: u64, lost_us: u64| lost_us <= at_us.saturating_add(NOTICED_WITHIN_US);
        connection.lost_us.is_some_and(|lost_us| {
            connection
                .contested_us
                .is_some_and(|at_us| in_time(at_us, lost_us))
                || self.disturbances.iter().any(|fault| {
                    fault.node == connection.node
                        && connection.opened_us <= fault.until_us
                        && lost_us >= fault.from_us
                        && in_time(fault.until_us, lost_us)
                })
        })
    }

    /// Messages, and those of them that were acknowledged.
    pub fn sent_and_acked(&self) -> (u64, u64) {
        let messages = || self.devices.iter().flat_map(|device| &device.messages);
        (
            messages().count() as u64,
            messages().filter(|message| message.is_acked()).count() as u64,
        )
    }

    /// When the last acknowledgement came; 0 if there is none.
    pub fn last_acked_us(&self) -> u64 {
        let messages = self.devices.iter().flat_map(|device| &device.messages);
        messages.filter_map(|message| message.acked_us).max().unwrap_or(0)
    }

    /// Messages of QoS 1 without an acknowledgement: device and sequence number.
    pub fn never_acked(&self) -> impl Iterator<Item = (&str, u64)> {
        self.devices.iter().flat_map(|device| {
            let numbered = (0..).zip(&device.messages);
            let open = numbered.filter(|(_, message)| message.road == Road::Qos1 && !message.is_acked());
            open.map(|(seq, _)| (device.device.as_str(), seq))
        })
    }

    /// Microseconds from each loss that a fault excuses to the device's connection to another node. A probe
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
                    sent_us: seq as u64 * 10,
                    acked_us: Some(seq as u64 * 10 + 5),
                    first_connection: 0,
                    last_connection: 0,
                    road: Road::Qos1,
                })
                .collect(),
            connections: vec![Connection::opened(0, 0)],
            gave_up_us: None,
        });
        History {
            devices: devices.collect(),
            disturbances: Vec::new(),
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
    fn only_a_loss_that_a_fault_explains_is_excused() {
        let disturbances = vec![Disturbance {
            node: 1,
            from_us: 100,
            until_us: 110,
        }];
        let history = History {
            disturbances,
            ..History::default()
        };
        let connection = |node, opened_us, lost_us| Connection {
            lost_us,
            ..Connection::opened(node, opened_us)
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
        assert!(history.is_excused(&connection(1, 0, Some(110 + NOTICED_WITHIN_US))));
        assert!(
            !history.is_excused(&connection(1, 0, Some(111 + NOTICED_WITHIN_US))),
            "long after it"
        );
        let contested = |lost_us| Connection {
            contested_us: Some(50),
            ..connection(0, 0, Some(lost_us))
        };
        assert!(history.is_excused(&contested(60)));
        assert!(!history.is_excused(&contested(51 + NOTICED_WITHIN_US)));
    }

    #[test]
    fn deeds_make_a_history_and_what_does_not_follow_is_refused() {
        let mut device = DeviceHistory::default();
        let sent = Deed::Sent {
            us: 5,
            digest: 7,
            road: Road::Qos1,
            former: false,
        };
        assert_eq!(device.note(sent), Err(OutOfPlace(sent)), "before any connection");
        for deed in [
            Deed::Opened { node: 0, us: 1 },
            sent,
            Deed::Lost { us: 6 },
            Deed::GaveUp { node: 2, us: 7 },
            Deed::Opened { node: 1, us: 8 },
            Deed::Resent { seq: 0 },
            Deed::Acked { seq: 0, us: 9 },
        ] {
            device.note(deed).unwrap();
            let text = serde_json::to_string(&deed).unwrap();
            assert_eq!(serde_json::from_str::<Deed>(&text).unwrap(), deed, "{text}");
        }
        let contested: Vec<_> = device.connections.iter().map(|one| one.contested_us).collect();
        assert_eq!(contested, [None, Some(7)]);
        device.note(Deed::GaveUp { node: 0, us: 10 }).unwrap();
        assert_eq!(device.connections[1].contested_us, Some(10), "it is still held");
        let message = device.messages[0];
        assert_eq!((message.first_connection, message.last_connection), (0, 1));
        assert_eq!(
            (message.acked_us, device.connections[0].lost_us),
            (Some(9), Some(6))
        );
        device.note(Deed::Closed { us: 11 }).unwrap();
        assert!(!device.connections[1].is_held());
        device.note(Deed::GaveUp { node: 0, us: 12 }).unwrap();
        assert_eq!(
            device.connections[1].contested_us,
            Some(10),
            "it was closed before"
        );
        assert!(device.note(Deed::Acked { seq: 1, us: 9 }).is_err());
        assert!(device.note(Deed::Resent { seq: 1 }).is_err());
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
