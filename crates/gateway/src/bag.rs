//! The property bag: `key=value&..`, percent-encoded, as it stands in topics and records.
//!
//! On the way in it is counted and bounded, never parsed; readers of events take it apart here. A
//! stray `%` is kept as it is, since the C SDK leaves values unencoded.

use std::borrow::Cow;

use dunlin_model::limits::PROPERTY_BAG_BYTES_MAX;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use crate::limits::PROPERTIES_MAX;

/// Everything that could be taken for structure is encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A bag beyond its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BagError {
    /// More than [`PROPERTY_BAG_BYTES_MAX`] bytes.
    #[error("the properties have more than {PROPERTY_BAG_BYTES_MAX} bytes")]
    TooLarge,
    /// More than [`PROPERTIES_MAX`] properties.
    #[error("there are more than {PROPERTIES_MAX} properties")]
    TooMany,
}

/// Checks the bounds of a bag.
pub fn check(bag: &[u8]) -> Result<(), BagError> {
    if bag.len() > PROPERTY_BAG_BYTES_MAX {
        return Err(BagError::TooLarge);
    }
    let separators = bag.iter().filter(|b| **b == b'&').count();
    if separators >= PROPERTIES_MAX {
        Err(BagError::TooMany)
    } else {
        Ok(())
    }
}

/// Adds a property at the end. The caller checks the whole afterwards.
pub fn append(bag: &mut Vec<u8>, key: &str, value: &str) {
    if !bag.is_empty() {
        bag.push(b'&');
    }
    for piece in utf8_percent_encode(key, ENCODED) {
        bag.extend_from_slice(piece.as_bytes());
    }
    bag.push(b'=');
    for piece in utf8_percent_encode(value, ENCODED) {
        bag.extend_from_slice(piece.as_bytes());
    }
}

/// The properties in order. A key without `=` has no value; `key=` has an empty one.
pub fn properties(bag: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Option<Cow<'_, str>>)> {
    bag.split(|b| *b == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut halves = pair.splitn(2, |b| *b == b'=');
            let key = percent_decode(halves.next().unwrap_or_default()).decode_utf8_lossy();
            (
                key,
                halves
                    .next()
                    .map(|value| percent_decode(value).decode_utf8_lossy()),
            )
        })
}

/// The name that readers of events know a system key by, or `None` for an application's own key.
pub fn system_name(key: &str) -> Option<&'static str> {
    Some(match key {
        "$.mid" => "message-id",
        "$.cid" => "correlation-id",
        "$.uid" => "user-id",
        "$.ct" => "content-type",
        "$.ce" => "content-encoding",
        "$.exp" => "absolute-expiry-time",
        "$.to" => "to",
        "$.on" => "iothub-outputname",
        "$.ifid" => "iothub-interface-id",
        "$.sub" => "dt-subject",
        "$.schema" => "iothub-message-schema",
        "$.ctime" => "iothub-creation-time-utc",
        "$.cdid" => "iothub-connection-device-id-original",
        "$.cmid" => "iothub-connection-module-id-original",
        "$.diagid" => "diagnostic-id",
        "$.diagctx" => "diagnostic-context",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_captured_bag_is_read() {
        let bag = b"%24.mid=id%2F1%262%3D&%24.cid=corr%20id&%24.uid=u&%24.ct=application%2Fjson&%24x=1&a%20b=c%2Fd%2B%C3%A9&n&e=&100%=+";
        let read: Vec<_> = properties(bag)
            .map(|(k, v)| (k.into_owned(), v.map(Cow::into_owned)))
            .collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read[0], ("$.mid".into(), some("id/1&2=")));
        assert_eq!(read[4], ("$x".into(), some("1")));
        assert_eq!(read[5], ("a b".into(), some("c/d+é")));
        assert_eq!(read[6], ("n".into(), None));
        assert_eq!(read[7], ("e".into(), some("")));
        assert_eq!(read[8], ("100%".into(), some("+")));
        assert_eq!(system_name(&read[0].0), Some("message-id"));
    }

    #[test]
    fn bounds_hold() {
        assert_eq!(check(&[b'x'; PROPERTY_BAG_BYTES_MAX]), Ok(()));
        assert_eq!(
            check(&[b'x'; PROPERTY_BAG_BYTES_MAX + 1]),
            Err(BagError::TooLarge)
        );
        assert_eq!(check("a=1&".repeat(99).as_bytes()), Ok(()));
        assert_eq!(check("a=1&".repeat(100).as_bytes()), Err(BagError::TooMany));
    }

    proptest! {
        #[test]
        fn what_is_appended_is_read(pairs in prop::collection::vec((".{1,8}", ".{0,8}"), 0..6)) {
            let mut bag = Vec::new();
            for (key, value) in &pairs { append(&mut bag, key, value); }
            let read: Vec<_> = properties(&bag).map(|(k, v)| (k.into_owned(), v.unwrap_or_default().into_owned())).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&noise);
            for pair in properties(&noise) { let _ = pair; }
        }
    }
}
