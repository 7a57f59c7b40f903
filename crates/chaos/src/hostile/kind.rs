//! What attackers do, by name. How each of them does it is in [`super::attack`].

use std::str::FromStr;

use serde::Serialize;

/// What attackers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Malformed packets of all kinds, before and after CONNECT.
    Malformed,
    /// TCP connections on which nothing comes.
    HalfOpen,
    /// TLS handshakes that end after their beginning.
    HalfTls,
    /// CONNECTs that come byte by byte.
    SlowConnect,
    /// Devices that publish and never read an acknowledgement.
    SlowReader,
    /// A fleet that connects, says a word, and is gone, over and over.
    Reconnect,
    /// The same few devices at many connections, each throwing out the other.
    TakeOver,
    /// Topics, property bags, properties and filters as large and as many as fit.
    Bombs,
    /// Packets that claim the length that MQTT allows, and do not come.
    HugeLength,
    /// Connections that end by RST: before a word, within the handshake, with messages under way.
    Reset,
    /// Connections whose clients have said FIN, and do not close.
    HalfClose,
    /// Devices that are not heard of again and say neither FIN nor RST.
    Vanish,
}

impl Kind {
    /// Whether those who do it stay connected as the device that they speak as.
    pub fn keeps_its_device(self) -> bool {
        matches!(self, Kind::SlowReader | Kind::Vanish)
    }
}

/// Every kind, by the name that command lines and scenarios have for it.
pub const KINDS: &[(&str, Kind)] = &[
    ("malformed", Kind::Malformed),
    ("half-open", Kind::HalfOpen),
    ("half-tls", Kind::HalfTls),
    ("slow-connect", Kind::SlowConnect),
    ("slow-reader", Kind::SlowReader),
    ("reconnect", Kind::Reconnect),
    ("take-over", Kind::TakeOver),
    ("bombs", Kind::Bombs),
    ("huge-length", Kind::HugeLength),
    ("reset", Kind::Reset),
    ("half-close", Kind::HalfClose),
    ("vanish", Kind::Vanish),
];

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = KINDS
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, kind)| *kind);
        found.ok_or_else(|| {
            let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            format!("is one of {}", names.join(", "))
        })
    }
}
