//! The topics of a device: where it publishes, and what it may subscribe to.
//!
//! Whose topic it may be follows from the connection, never from a packet. Ids stand unencoded.

use dunlin_model::id::DeviceId;
use dunlin_model::shard::registry::{DESIRED_FILTER, METHODS_FILTER};

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

/// The part of `topic` behind `devices/{device}`, or `devices/{device}/modules/{module}` for a module.
fn own_part<'a>(topic: &'a str, identity: &DeviceId) -> Option<&'a str> {
    let rest = topic
        .strip_prefix("devices/")?
        .strip_prefix(identity.device_part())?;
    match identity.module_part() {
        None => Some(rest),
        Some(module) => rest.strip_prefix("/modules/")?.strip_prefix(module),
    }
}

/// The raw property bag of `devices/{device}/messages/events/{bag}`, or of a module's topic, checked against its bounds.
///
/// A leading `?` and a trailing slash are not part of the bag; the slash before it may be missing.
pub fn telemetry_bag<'a>(topic: &'a str, device: &DeviceId) -> Result<&'a str, TopicError> {
    if topic.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::NotOwn);
    }
    let rest = own_part(topic, device)
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

/// A request of a device about its own twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TwinRequest<'a> {
    /// `$iothub/twin/GET/?$rid={rid}`.
    Get {
        /// What the answer must carry.
        rid: &'a str,
    },
    /// `$iothub/twin/PATCH/properties/reported/?$rid={rid}[&$version={version}]`.
    Report {
        /// What the answer must carry; there is none without it.
        rid: Option<&'a str>,
        /// The version that `reported` must have; 0, which it never has, for one that is no number.
        version: Option<u64>,
    },
}

/// The request that `topic` names, or `None` if it is not about a twin.
pub fn twin_request<'a>(topic: &'a str) -> Option<Result<TwinRequest<'a>, TopicError>> {
    let rest = topic.strip_prefix("$iothub/twin/")?;
    if topic.len() > TOPIC_BYTES_MAX {
        return Some(Err(TopicError::NotOwn));
    }
    let request = match rest.strip_prefix("GET/") {
        Some(query) => parameter(query, "$rid").map(|rid| TwinRequest::Get { rid }),
        None => rest
            .strip_prefix("PATCH/properties/reported/")
            .map(|query| TwinRequest::Report {
                rid: parameter(query, "$rid"),
                version: parameter(query, "$version").map(|text| text.parse().unwrap_or(0)),
            }),
    };
    Some(request.ok_or(TopicError::NotOwn))
}

/// A device's answer to a direct method: `$iothub/methods/res/{status}/?$rid={rid}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodAnswer<'a> {
    /// A number of the device's own choice.
    pub status: i64,
    /// What the call carried.
    pub rid: &'a str,
}

/// The answer that `topic` names, or `None` if it is not about a method.
pub fn method_answer(topic: &str) -> Option<Result<MethodAnswer<'_>, TopicError>> {
    let rest = topic.strip_prefix("$iothub/methods/")?;
    let answer = || {
        let (status, query) = rest.strip_prefix("res/")?.split_once('/')?;
        let status = status.parse().ok()?;
        let rid = parameter(query, "$rid")?;
        Some(MethodAnswer { status, rid })
    };
    Some(
        answer()
            .filter(|_| topic.len() <= TOPIC_BYTES_MAX)
            .ok_or(TopicError::NotOwn),
    )
}

/// The value of a parameter behind a topic, with or without the question mark before it.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let query = query.strip_prefix('?').unwrap_or(query);
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Whether `filter` is one of those that `device` may subscribe to.
pub fn is_own_filter(filter: &str, device: &DeviceId) -> bool {
    matches!(filter, "$iothub/twin/res/#" | DESIRED_FILTER | METHODS_FILTER)
        || own_part(filter, device).is_some_and(|rest| match device.module_part() {
            None => rest == "/messages/devicebound/#",
            Some(_) => matches!(rest, "/#" | "/inputs/#"),
        })
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
    fn a_module_has_topics_below_its_device() {
        let module = dev().of_module("cam").unwrap();
        let own = "devices/dev-1/modules/cam/messages/events/a=b";
        assert_eq!(telemetry_bag(own, &module), Ok("a=b"));
        for other in [
            "devices/dev-1/messages/events/",
            "devices/dev-1/modules/cam2/messages/events/",
            "devices/dev-1/cam/messages/events/",
            "devices/dev-2/modules/cam/messages/events/",
        ] {
            assert_eq!(telemetry_bag(other, &module), Err(TopicError::NotOwn), "{other}");
        }
        for filter in [
            "devices/dev-1/modules/cam/#",
            "devices/dev-1/modules/cam/inputs/#",
        ] {
            assert!(
                is_own_filter(filter, &module) && !is_own_filter(filter, &dev()),
                "{filter}"
            );
        }
        assert!(!is_own_filter("devices/dev-1/messages/devicebound/#", &module));
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
    fn twin_requests_are_told_apart() {
        use TwinRequest::{Get, Report};
        let reported = |rid, version| Some(Ok(Report { rid, version }));
        for (topic, request) in [
            ("$iothub/twin/GET/?$rid=ab-1", Some(Ok(Get { rid: "ab-1" }))),
            ("$iothub/twin/GET/?$rid=", Some(Ok(Get { rid: "" }))),
            ("$iothub/twin/GET/", Some(Err(TopicError::NotOwn))),
            ("$iothub/twin/PUT/?$rid=1", Some(Err(TopicError::NotOwn))),
            (
                "$iothub/twin/PATCH/properties/desired/?$rid=1",
                Some(Err(TopicError::NotOwn)),
            ),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=1",
                reported(Some("1"), None),
            ),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=7",
                reported(Some("1"), Some(7)),
            ),
            (
                "$iothub/twin/PATCH/properties/reported/?$version=x",
                reported(None, Some(0)),
            ),
            ("devices/dev-1/messages/events/", None),
        ] {
            assert_eq!(twin_request(topic), request, "{topic}");
        }
    }

    #[test]
    fn method_answers_are_told_apart() {
        for (topic, answer) in [
            (
                "$iothub/methods/res/200/?$rid=1f-2",
                Some(Ok(MethodAnswer {
                    status: 200,
                    rid: "1f-2",
                })),
            ),
            (
                "$iothub/methods/res/-1/$rid=",
                Some(Ok(MethodAnswer { status: -1, rid: "" })),
            ),
            ("$iothub/methods/res/ok/?$rid=1", Some(Err(TopicError::NotOwn))),
            ("$iothub/methods/res/200/", Some(Err(TopicError::NotOwn))),
            ("$iothub/methods/res/200", Some(Err(TopicError::NotOwn))),
            ("$iothub/methods/POST/m/?$rid=1", Some(Err(TopicError::NotOwn))),
            ("$iothub/twin/GET/?$rid=1", None),
        ] {
            assert_eq!(method_answer(topic), answer, "{topic}");
        }
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
            let _ = twin_request(&format!("$iothub/twin/{noise}"));
            let _ = method_answer(&format!("$iothub/methods/res/{noise}"));
            let _ = is_own_filter(&noise, &dev());
        }
    }
}
