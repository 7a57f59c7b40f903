//! Packets that are almost MQTT: each begins as a valid packet of some kind, and one of its parts goes wrong.
//!
//! Pure and seeded: the same seed gives the same packets. It never opens a socket; who sends what when is in
//! [`super::attack`].

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Bytes of one packet at the most, as sent; what it claims may be far more.
pub const PACKET_BYTES_MAX: usize = 4 * 1024;

/// Kinds of packets: the upper four bits of the first byte, all sixteen of them.
const KINDS: u8 = 16;
/// The kind of CONNECT.
const CONNECT: u8 = 1;

/// A packet in parts, so that one of them can go wrong on its own.
#[derive(Debug, Clone)]
struct Packet {
    /// Kind and flags.
    head: u8,
    fields: Vec<Vec<u8>>,
}

/// A source of packets.
pub struct Mill {
    random: StdRng,
    device: String,
    is_v5: bool,
}

impl Mill {
    /// Packets as `device` would send them, drawn from `seed`.
    pub fn new(seed: u64, device: &str) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            device: device.to_owned(),
            is_v5: false,
        }
    }

    /// Speaks MQTT 5 from now on, or 3.1.1.
    pub fn set_v5(&mut self, is_v5: bool) {
        self.is_v5 = is_v5;
    }

    /// A malformed first packet: usually a CONNECT.
    pub fn first(&mut self) -> Vec<u8> {
        let kind = if self.random.random_bool(0.8) {
            CONNECT
        } else {
            self.random.random_range(0..KINDS)
        };
        self.malformed(kind)
    }

    /// A malformed packet of any kind.
    pub fn any(&mut self) -> Vec<u8> {
        let kind = self.random.random_range(0..KINDS);
        self.malformed(kind)
    }

    /// A valid PUBLISH that asks for an acknowledgement.
    pub fn publish(&mut self) -> Vec<u8> {
        let mut packet = self.valid(3);
        packet.head = 0x32;
        encode(&packet)
    }

    /// A CONNECT of MQTT 5 that asks for receipts, which make acknowledgements long.
    pub fn connect(&mut self, host: &str, token: &str, keep_alive_s: u16) -> Vec<u8> {
        self.is_v5 = true;
        let mut packet = self.valid(CONNECT);
        packet.fields[3] = keep_alive_s.to_be_bytes().to_vec();
        let receipts = [&[0x26], &text("dunlin-receipt")[..], &text("1")].concat();
        packet.fields[4] = [varint(receipts.len() as u32), receipts].concat();
        packet.fields[6] = text(&format!("{host}/{}/?api-version=2021-04-12", self.device));
        packet.fields[7] = text(token);
        encode(&packet)
    }

    /// A PUBLISH that is well-formed and goes to the limits: of topic, property bag, or count of properties. Or a
    /// SUBSCRIBE with wildcards at all levels of more filters than anybody has.
    pub fn bomb(&mut self) -> Vec<u8> {
        let bag = match self.random.random_range(0..5) {
            4 => return self.wildcards(),
            0 => "a=1&".repeat(2_000),
            1 => "x".repeat(60_000),
            2 => "/".repeat(4_000),
            _ => format!("%24.ct={}", "%00".repeat(2_500)),
        };
        let mut fields = vec![text(&format!("devices/{}/messages/events/{bag}", self.device))];
        fields.push(vec![0, 1]);
        if self.is_v5 {
            let mut properties = Vec::new();
            for _ in 0..self.random.random_range(0..2_000) {
                properties.push(0x26);
                properties.extend(text("k"));
                properties.extend(text("v"));
            }
            fields.push(varint(properties.len() as u32));
            fields.push(properties);
        }
        encode(&Packet { head: 0x32, fields })
    }

    fn wildcards(&mut self) -> Vec<u8> {
        let mut packet = self.valid(8);
        packet.fields.truncate(if self.is_v5 { 2 } else { 1 });
        let (count, levels) = match self.random.random_range(0..3) {
            0 => (1_000, 8),
            1 => (50, 1_000),
            _ => (1, 30_000),
        };
        for _ in 0..count {
            packet
                .fields
                .extend([text(&format!("{}#", "+/".repeat(levels))), vec![1]]);
        }
        encode(&packet)
    }

    /// The head of a packet that claims to be as long as MQTT allows, or longer, and does not come.
    pub fn huge(&mut self) -> Vec<u8> {
        let kind = if self.random.random_bool(0.5) { 0x30 } else { 0x10 };
        let length: &[u8] = match self.random.random_range(0..4) {
            0 => &[0xFF, 0xFF, 0xFF, 0x7F],
            1 => &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
            2 => &[0x80, 0x80, 0x80, 0x01],
            _ => &[0xFF, 0xFF, 0x0F],
        };
        [&[kind], length, b"\x00\x04MQTT\x04\xC2\x00\x3C"].concat()
    }

    /// Any number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound.max(1))
    }

    fn valid(&mut self, kind: u8) -> Packet {
        let id = self.random.random_range(1..=u16::MAX).to_be_bytes().to_vec();
        let own = format!("devices/{}/messages/events/a=b", self.device);
        let properties = || if self.is_v5 { vec![vec![0]] } else { vec![] };
        let mut fields: Vec<Vec<u8>> = Vec::new();
        let flags = match kind {
            CONNECT => {
                let level = if self.is_v5 { 5 } else { 4 };
                fields.extend([text("MQTT"), vec![level], vec![0xC2], vec![0, 60]]);
                fields.extend(properties());
                fields.push(text(&self.device));
                fields.push(text(&format!(
                    "localhost/{}/?api-version=2021-04-12",
                    self.device
                )));
                fields.push(text("SharedAccessSignature sr=localhost&sig=AAAA&se=4000000000"));
                0
            }
            3 => {
                fields.extend([text(&own), id]);
                fields.extend(properties());
                fields.push(b"21.5".to_vec());
                2
            }
            8 => {
                fields.push(id);
                fields.extend(properties());
                fields.extend([text("$iothub/methods/POST/#"), vec![1]]);
                2
            }
            10 => {
                fields.push(id);
                fields.extend(properties());
                fields.push(text("$iothub/methods/POST/#"));
                2
            }
            // What acknowledges something.
            4..=7 | 9 | 11 => {
                fields.push(id);
                if self.is_v5 {
                    fields.extend([vec![0], vec![0]]);
                }
                if kind == 6 { 2 } else { 0 }
            }
            14 | 15 if self.is_v5 => {
                fields.extend([vec![0], vec![0]]);
                0
            }
            2 => {
                fields.extend([vec![0], vec![0]]);
                fields.extend(properties());
                0
            }
            _ => 0,
        };
        Packet {
            head: kind << 4 | flags,
            fields,
        }
    }

    fn malformed(&mut self, kind: u8) -> Vec<u8> {
        let mut packet = self.valid(kind);
        let mut bytes = match self.random.random_range(0..10) {
            // Flags or kind.
            0 => {
                packet.head ^= 1 << self.random.random_range(0..8);
                encode(&packet)
            }
            // A length that is not the packet's.
            1 => {
                let body = packet.fields.concat();
                let claimed = self.wrong_length(body.len());
                [&[packet.head], &claimed[..], &body].concat()
            }
            // The length of a text.
            2 => {
                self.change_field(&mut packet, |field, random| {
                    if field.len() >= 2 {
                        field[random.random_range(0..2)] = random.random();
                    }
                });
                encode(&packet)
            }
            // Bytes that are no text: NUL, overlong, half a surrogate pair, a lone continuation.
            3 => {
                self.change_field(&mut packet, |field, random| {
                    let bad: [&[u8]; 5] = [&[0], &[0xC0, 0x80], &[0xED, 0xA0, 0x80], &[0x80], &[0xFF]];
                    let bad = bad[random.random_range(0..bad.len())];
                    if field.len() >= 2 + bad.len() {
                        let at = random.random_range(2..=field.len() - bad.len());
                        field[at..at + bad.len()].copy_from_slice(bad);
                    }
                });
                encode(&packet)
            }
            4 => {
                self.change_field(&mut packet, |field, _| field.clear());
                encode(&packet)
            }
            5 => {
                let place = self.random.random_range(0..packet.fields.len().max(1));
                if let Some(field) = packet.fields.get(place).cloned() {
                    packet.fields.insert(place, field);
                }
                encode(&packet)
            }
            // Packet id 0, or QoS 3.
            6 => {
                packet.head |= 0x06;
                self.change_field(&mut packet, |field, _| field.fill(0));
                encode(&packet)
            }
            // Properties of MQTT 5: unknown, twice, or longer than they are.
            7 => {
                let id = self.random.random();
                packet.fields.push(vec![3, id, 0, 1]);
                packet.fields.push(vec![0x23, 0, 0, 0x23, 0, 0]);
                encode(&packet)
            }
            8 => {
                let mut bytes = encode(&packet);
                let cut = self.random.random_range(1..=bytes.len());
                bytes.truncate(cut);
                bytes
            }
            _ => {
                let mut bytes = encode(&packet);
                for _ in 0..self.random.random_range(1..4) {
                    let at = self.random.random_range(0..bytes.len());
                    bytes[at] = self.random.random();
                }
                bytes
            }
        };
        bytes.truncate(PACKET_BYTES_MAX);
        bytes
    }

    fn change_field(&mut self, packet: &mut Packet, change: impl Fn(&mut Vec<u8>, &mut StdRng)) {
        if packet.fields.is_empty() {
            packet.fields.push(vec![self.random.random()]);
            return;
        }
        let place = self.random.random_range(0..packet.fields.len());
        change(&mut packet.fields[place], &mut self.random);
    }

    fn wrong_length(&mut self, length: usize) -> Vec<u8> {
        let length = length as u32;
        match self.random.random_range(0..5) {
            0 => varint(length.saturating_sub(1)),
            1 => varint(length + 1),
            2 => varint(self.random.random_range(0..2 * length + 2)),
            // The same number in more bytes than it needs.
            3 => vec![(length & 0x7F) as u8 | 0x80, (length >> 7 & 0x7F) as u8 | 0x80, 0],
            _ => vec![0xFF, 0xFF, 0xFF, 0xFF, 0x01],
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    let length = (text.len().min(usize::from(u16::MAX)) as u16).to_be_bytes();
    [&length[..], text.as_bytes()].concat()
}

fn varint(mut number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (number & 0x7F) as u8;
        number >>= 7;
        out.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return out;
        }
    }
}

fn encode(packet: &Packet) -> Vec<u8> {
    let body = packet.fields.concat();
    [&[packet.head], &varint(body.len() as u32)[..], &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_packets_and_they_are_of_every_kind() {
        let (mut one, mut other) = (Mill::new(7, "dev-1"), Mill::new(7, "dev-1"));
        let mut kinds = [false; KINDS as usize];
        for round in 0..2_000 {
            one.set_v5(round % 2 == 0);
            other.set_v5(round % 2 == 0);
            let packet = one.any();
            assert_eq!(packet, other.any());
            assert!((1..=PACKET_BYTES_MAX).contains(&packet.len()));
            kinds[usize::from(packet[0] >> 4)] = true;
        }
        assert_eq!(kinds, [true; KINDS as usize]);
    }

    #[test]
    fn few_of_the_malformed_packets_happen_to_be_valid() {
        let mut mill = Mill::new(1, "dev-1");
        let valid: Vec<Vec<u8>> = (0..KINDS).map(|kind| encode(&mill.valid(kind))).collect();
        // Apart from the packet id, which is drawn and stands first or behind the topic.
        let is_like = |packet: &[u8], valid: &[u8]| {
            let different = packet
                .iter()
                .zip(valid)
                .filter(|(one, other)| one != other)
                .count();
            packet.len() == valid.len() && packet[0] == valid[0] && different <= 2
        };
        let same = (0..1_000)
            .filter(|_| {
                let packet = mill.any();
                valid.iter().any(|valid| is_like(&packet, valid))
            })
            .count();
        assert!(same < 500, "{same} of 1000");
    }

    #[test]
    fn lengths_are_written_as_mqtt_has_them() {
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[0x7F]),
            (128, &[0x80, 1]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            assert_eq!(varint(number), bytes);
        }
        let mut mill = Mill::new(3, "dev-1");
        assert!(mill.bomb().len() > 4_000);
        assert!(mill.huge().len() < 20);
    }
}
