//! Bytes that only the clients of a group understand: subscriptions and assignments.
//!
//! Nothing here looks into them. As text (JSON) they are Base64 (RFC 4648, 4, padded), a third longer than they are; as
//! JSON's own arrays of numbers they would be four times as long. On a wire that is no text they are themselves.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes without a meaning to the hub.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Opaque(pub Bytes);

impl Opaque {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of its text, quotes not counted.
    pub(super) fn text_bytes(&self) -> usize {
        text_bytes(self.len())
    }
}

/// Bytes of the Base64 of `bytes` bytes.
pub(super) const fn text_bytes(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

impl From<&[u8]> for Opaque {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<Vec<u8>> for Opaque {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opaque({} bytes)", self.len())
    }
}

impl Serialize for Opaque {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(&self.0))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Bytes::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(&text);
        let bytes = bytes.map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"Base64"))?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_not_written_here_is_refused() {
        for text in [
            "Z", "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm 9", "Zm9v\n", "Zg=v",
        ] {
            assert!(serde_json::from_value::<Opaque>(text.into()).is_err(), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn bytes_come_back_from_their_text(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let opaque = Opaque::from(bytes);
            let text = serde_json::to_string(&opaque).expect("text");
            prop_assert_eq!(text.len(), opaque.text_bytes() + 2);
            prop_assert_eq!(serde_json::from_str::<Opaque>(&text).expect("bytes"), opaque);
        }
    }
}
