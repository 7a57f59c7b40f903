//! The topics of a device: where it publishes, and what it may subscribe to.
//!
//! Whose topic it may be follows from the connection, never from a packet. Ids stand unencoded.

use dunlin_model::id::DeviceId;

use crate::bag::{self, BagError};
use crate::limits::TOPIC_BYTES_MAX;

/// Why a PUBLISH cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It is not the device's own topic for events.
    #[error("not a topic that this device may publish to")]
    NotOwn,
    /// Its bag is beyond the bounds.
    #[error(transparent)]
    Bag(#[from] BagError),
}

/// The raw property bag of `devices/{device}/messages/events/{bag}`, checked against its bounds.
///
/// A leading `?` and a trailing slash are not part of the bag; the slash before it may be missing.
pub fn telemetry_bag<'a>(topic: &'a str, device: &DeviceId) -> Result<&'a str, TopicError> {
    if topic.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::NotOwn);
    }
    let rest = topic
        .strip_prefix("devices/")
        .and_then(|rest| rest.strip_prefix(device.as_str()))
        .and_then(|rest| rest.strip_prefix("/messages/events"))
        .ok_or(TopicError::NotOwn)?;
    if rest.is_empty() {
        return Ok("");
    }
    let bag = rest.strip_prefix('/').ok_or(TopicError::NotOwn)?;
    let bag = bag.strip_prefix('?').unwrap_or(bag);
    let bag = bag.strip_suffix('/').unwrap_or(bag);
    bag::check(bag.as_bytes())?;
    Ok(bag)
}

/// Whether `filter` is one of those that `device` may subscribe to.
pub fn is_own_filter(filter: &str, device: &DeviceId) -> bool {
    matches!(
        filter,
        "$iothub/twin/res/#" | "$iothub/twin/PATCH/properties/desired/#" | "$iothub/methods/POST/#"
    ) || filter
        .strip_prefix("devices/")
        .and_then(|rest| rest.strip_prefix(device.as_str()))
        .is_some_and(|rest| rest == "/messages/devicebound/#")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dev() -> DeviceId {
        DeviceId::parse("dev-1").unwrap()
    }

    #[test]
    fn the_bag_is_found_in_every_spelling() {
        for (topic, bag) in [
            ("devices/dev-1/messages/events/", ""),
            ("devices/dev-1/messages/events", ""),
            ("devices/dev-1/messages/events/a=b&c=d", "a=b&c=d"),
            ("devices/dev-1/messages/events/a=b/", "a=b"),
            ("devices/dev-1/messages/events/?a=b", "a=b"),
            (
                "devices/dev-1/messages/events/%24.mid=1&raw=100%+/x",
                "%24.mid=1&raw=100%+/x",
            ),
        ] {
            assert_eq!(telemetry_bag(topic, &dev()), Ok(bag), "{topic}");
        }
    }

    #[test]
    fn other_topics_are_not_own() {
        for topic in [
            "",
            "devices/dev-2/messages/events/",
            "devices/dev-10/messages/events/",
            "devices/dev-1/messages/eventsx",
            "devices/dev-1/messages/devicebound/",
            "devices/dev-1/modules/m/messages/events/",
            "$iothub/twin/GET/?$rid=1",
            "x/devices/dev-1/messages/events/",
        ] {
            assert_eq!(telemetry_bag(topic, &dev()), Err(TopicError::NotOwn), "{topic}");
        }
        let many = format!("devices/dev-1/messages/events/{}", "a=1&".repeat(200));
        assert_eq!(
            telemetry_bag(&many, &dev()),
            Err(TopicError::Bag(BagError::TooMany))
        );
    }

    #[test]
    fn only_own_filters_pass() {
        for filter in [
            "devices/dev-1/messages/devicebound/#",
            "$iothub/twin/res/#",
            "$iothub/methods/POST/#",
        ] {
            assert!(is_own_filter(filter, &dev()), "{filter}");
        }
        for filter in [
            "#",
            "devices/dev-2/messages/devicebound/#",
            "devices/+/messages/devicebound/#",
            "$iothub/#",
            "+/#",
        ] {
            assert!(!is_own_filter(filter, &dev()), "{filter}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in ".{0,200}") {
            let _ = telemetry_bag(&noise, &dev());
            let _ = telemetry_bag(&format!("devices/dev-1/messages/events{noise}"), &dev());
            let _ = is_own_filter(&noise, &dev());
        }
    }
}
