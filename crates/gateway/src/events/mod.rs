//! Events as readers see them, whatever door they come by: one reading of a stored record, and which of them an endpoint
//! shows.
//!
//! [`endpoint`] decides with the hub's routes which events of a page go to an endpoint; `row` is what their conditions
//! look at. How an event is laid out is for the doors (`amqp::event`, `kafka::record`, `http::events`) and for what
//! sends it on ([`crate::dispatch`]).

pub(crate) mod endpoint;
mod row;

use bytes::Bytes;
use dunlin_model::id::identity_parts;
use dunlin_model::iso_time::iso_utc;
use dunlin_model::routing::EventSource;
use dunlin_model::telemetry::{AuthMethod, Record, Source};

use crate::auth;
use crate::bag;

/// Where and when an event stands in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) term: u64,
    pub(crate) time_ms: u64,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) place: Place,
    pub(crate) source: EventSource,
    pub(crate) device: String,
    pub(crate) module: Option<String>,
    /// What the hub says of it, and what the sender said by names of the system (`content-type`, ..), but for place and
    /// sender.
    pub(crate) system: Vec<(&'static str, String)>,
    /// What the sender added; a name may stand alone.
    pub(crate) properties: Vec<(String, Option<String>)>,
    /// The body, byte for byte.
    pub(crate) payload: Bytes,
}

impl Event {
    /// The event that a record from `source` is; `hub_name` is told by those that the hub made.
    pub(crate) fn read(place: Place, source: EventSource, record: &Record, hub_name: &str) -> Event {
        let (device, module) = identity_parts(record.device_str());
        let mut event = Event {
            place,
            source,
            device: device.to_owned(),
            module: module.map(str::to_owned),
            system: Vec::new(),
            properties: Vec::new(),
            payload: record.payload.clone(),
        };
        if record.auth != AuthMethod::Hub {
            let method = auth::method_text(record.auth);
            event.system.push(("iothub-connection-auth-method", method));
        }
        let said = source.message_source().to_owned();
        event.system.push(("iothub-message-source", said));
        if let Some(schema) = schema(source) {
            event.describe(schema, hub_name);
        }
        for (key, value) in bag::properties(&record.bag) {
            match (bag::system_name(&key), value) {
                (None, value) => {
                    let value = value.map(|value| value.into_owned());
                    event.properties.push((key.into_owned(), value));
                }
                (Some(_), None) => {}
                (Some(name), Some(value)) => event.system.push((name, value.into_owned())),
            }
        }
        if record.source == Source::MqttRetain {
            event.set("mqtt-retain", "true");
        }
        event
    }

    /// What IoT Hub adds to events of its own.
    fn describe(&mut self, schema: &'static str, hub_name: &str) {
        for (name, value) in [
            ("content-type", "application/json"),
            ("content-encoding", "utf-8"),
        ] {
            self.system.push((name, value.to_owned()));
        }
        self.set("hubName", hub_name);
        let (device, module) = (self.device.clone(), self.module.clone());
        self.set("deviceId", &device);
        if let Some(module) = module {
            self.set("moduleId", &module);
        }
        let time = iso_utc(self.place.time_ms);
        self.set("operationTimestamp", &time);
        self.set("iothub-message-schema", schema);
    }

    /// Sets a property, in place of one of the same name.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.properties.retain(|(key, _)| key != name);
        self.properties.push((name.to_owned(), Some(value.to_owned())));
    }

    /// What the system says under `name`.
    pub(crate) fn system(&self, name: &str) -> Option<&str> {
        let found = self.system.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The device, or the device with its module.
    pub(crate) fn identity(&self) -> String {
        match &self.module {
            Some(module) => format!("{}/{module}", self.device),
            None => self.device.clone(),
        }
    }
}

/// What an event of the hub's own calls its shape.
fn schema(source: EventSource) -> Option<&'static str> {
    match source {
        EventSource::DeviceMessages => None,
        EventSource::TwinChangeEvents => Some("twinChangeNotification"),
        EventSource::DeviceLifecycleEvents => Some("deviceLifecycleNotification"),
        EventSource::DeviceConnectionStateEvents => Some("deviceConnectionStateNotification"),
    }
}

/// What a hub is called for short: the first part of its host name; an address as it is.
pub(crate) fn hub_name(host: &str) -> &str {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return host;
    }
    host.split('.').next().unwrap_or(host)
}

/// For tests of doors: an event as a reader gets it.
#[cfg(test)]
pub(crate) fn sent(place: Place, source: Source, identity: &str, bag: &[u8], payload: &[u8]) -> Event {
    let mut records = bytes::BytesMut::new();
    let identity = dunlin_model::id::DeviceId::parse_identity(identity).unwrap();
    let from = EventSource::of(source).unwrap();
    let auth = match from {
        EventSource::DeviceMessages => AuthMethod::DeviceKey,
        _ => AuthMethod::Hub,
    };
    dunlin_model::telemetry::encode(&mut records, source, auth, 1, &identity, (bag, payload));
    let record = dunlin_model::telemetry::records(records.freeze())
        .next()
        .unwrap()
        .unwrap();
    Event::read(place, from, &record, "hub-1")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        offset: 7,
        term: 2,
        time_ms: 1_893_456_000_000,
    };

    fn properties(event: &Event) -> Vec<(&str, &str)> {
        event
            .properties
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or("-")))
            .collect()
    }

    #[test]
    fn what_a_device_sends_is_shown_as_it_was_sent() {
        let bag = b"%24.mid=m-1&%24.ct=application%2Fjson&a=1&alone";
        let event = sent(PLACE, Source::MqttRetain, "dev-1/mod", bag, b"{}");
        assert_eq!(
            (event.device.as_str(), event.module.as_deref()),
            ("dev-1", Some("mod"))
        );
        assert_eq!(event.identity(), "dev-1/mod");
        assert_eq!(event.system("message-id"), Some("m-1"));
        assert_eq!(event.system("iothub-message-source"), Some("Telemetry"));
        assert!(event.system("iothub-connection-auth-method").is_some());
        assert_eq!(
            properties(&event),
            [("a", "1"), ("alone", "-"), ("mqtt-retain", "true")]
        );
    }

    #[test]
    fn what_the_hub_tells_says_so() {
        let event = sent(
            PLACE,
            Source::TwinChange,
            "dev-1",
            b"opType=updateTwin",
            b"{\"version\":2}",
        );
        assert_eq!(event.system("iothub-message-source"), Some("twinChangeEvents"));
        assert_eq!(event.system("content-type"), Some("application/json"));
        assert_eq!(event.system("iothub-connection-auth-method"), None);
        assert_eq!(
            properties(&event),
            [
                ("hubName", "hub-1"),
                ("deviceId", "dev-1"),
                ("operationTimestamp", "2030-01-01T00:00:00.000Z"),
                ("iothub-message-schema", "twinChangeNotification"),
                ("opType", "updateTwin")
            ]
        );
    }

    #[test]
    fn hubs_have_short_names() {
        for (host, name) in [
            ("hub-1.example.org", "hub-1"),
            ("localhost", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
        ] {
            assert_eq!(hub_name(host), name);
        }
    }
}
