//! Message routing: which events go to which endpoints, as the directory keeps it and as it is decided for an event.
//!
//! A [`Routing`] is what somebody asked for, with its bounds; [`Routes`](routes::Routes) is the same with its conditions
//! read. Routes are views over the logs of shards: every event stays where it was acknowledged, whatever becomes of the
//! routes, and who reads for an endpoint decides for each event. Where events are read, and how they leave, is for
//! callers; which events the hub makes of changes is decided in `shard::announce`.
//!
//! Semantics: IoT Hub, "Use IoT Hub message routing", with the names of its `routing` properties.

pub mod enrichment;
pub mod routes;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::directory::is_plain_name;
use crate::query_language::Condition;
use crate::telemetry::Source;

/// Routes that a hub may have (IoT Hub: 100).
pub const ROUTES_MAX: usize = 100;
/// Endpoints beside the built-in one (IoT Hub: 10).
pub const ENDPOINTS_MAX: usize = 10;
/// Enrichments (IoT Hub: 10).
pub const ENRICHMENTS_MAX: usize = 10;
/// Bytes of the name of a route, an endpoint or an enrichment (IoT Hub: 64).
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a condition (IoT Hub's conditions are no longer either).
pub const CONDITION_BYTES_MAX: usize = 2 * 1024;
/// Bytes of the value of an enrichment.
pub const ENRICHMENT_BYTES_MAX: usize = 1024;
/// Bytes of a webhook's address, and of a header that it is sent.
pub const ADDRESS_BYTES_MAX: usize = 2 * 1024;
/// The endpoint that every hub has, which is read over AMQP, Kafka and HTTPS.
pub const BUILT_IN: &str = "events";

/// Where an event comes from, as routes name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventSource {
    /// What devices and modules send.
    DeviceMessages,
    /// Changes of twins.
    TwinChangeEvents,
    /// Devices and modules that are created or deleted.
    DeviceLifecycleEvents,
    /// Sessions that begin and end.
    DeviceConnectionStateEvents,
}

impl EventSource {
    /// All of them.
    pub const ALL: [EventSource; 4] = [
        EventSource::DeviceMessages,
        EventSource::TwinChangeEvents,
        EventSource::DeviceLifecycleEvents,
        EventSource::DeviceConnectionStateEvents,
    ];

    /// Where a record comes from; `None` for one that was erased, which goes nowhere.
    pub fn of(record: Source) -> Option<EventSource> {
        Some(match record {
            Source::Mqtt | Source::MqttRetain | Source::Will | Source::Http => EventSource::DeviceMessages,
            Source::TwinChange => EventSource::TwinChangeEvents,
            Source::Lifecycle => EventSource::DeviceLifecycleEvents,
            Source::Connection => EventSource::DeviceConnectionStateEvents,
            Source::Erased => return None,
        })
    }

    /// As events themselves say it, in `iothub-message-source`.
    pub fn message_source(self) -> &'static str {
        match self {
            EventSource::DeviceMessages => "Telemetry",
            EventSource::TwinChangeEvents => "twinChangeEvents",
            EventSource::DeviceLifecycleEvents => "deviceLifecycleEvents",
            EventSource::DeviceConnectionStateEvents => "deviceConnectionStateEvents",
        }
    }
}

/// A set of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventSources(u8);

impl EventSources {
    /// From its bits; what no source is known for is left out.
    pub fn from_bits(bits: u8) -> Self {
        let known = EventSource::ALL
            .iter()
            .fold(0, |bits, source| bits | 1 << *source as u8);
        Self(bits & known)
    }

    /// One bit for each source.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// With `source` too.
    #[must_use]
    pub fn and(self, source: EventSource) -> Self {
        Self(self.0 | 1 << source as u8)
    }

    /// Whether `source` is in it.
    pub fn has(self, source: EventSource) -> bool {
        self.0 & (1 << source as u8) != 0
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Rises by one with each change: conditions of changes compare it.
    pub version: u64,
    /// The endpoints beside the built-in one, by name.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// The routes, by name.
    pub routes: BTreeMap<String, Route>,
    /// Whether messages of devices that no route takes go to the built-in endpoint.
    pub has_fallback: bool,
    /// What events are given before they leave.
    pub enrichments: Vec<Enrichment>,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            version: 1,
            endpoints: BTreeMap::new(),
            routes: BTreeMap::new(),
            has_fallback: true,
            enrichments: Vec::new(),
        }
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Whose events it looks at.
    pub source: EventSource,
    /// Which of them it takes; text of a [`Condition`].
    pub condition: String,
    /// Where it sends them: names of endpoints, at least one.
    pub endpoints: BTreeSet<String>,
    /// Whether it does.
    pub is_enabled: bool,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Drawn when it was made: another endpoint of the same name begins where the logs end by then.
    pub id: String,
    /// What it is.
    pub kind: EndpointKind,
}

/// What an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointKind {
    /// Somebody who takes events over HTTPS.
    Webhook {
        /// Where.
        url: String,
        /// Value of the `authorization` header that it is sent.
        authorization: Option<String>,
        /// Certificates (PEM) of who vouches for it, if not those whom the system trusts.
        authority: Option<String>,
    },
    /// Files of the hub's object store.
    Storage {
        /// The folder that they lie in.
        container: String,
    },
}

/// What events get on their way to some endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrichment {
    /// Name of the property.
    pub key: String,
    /// Its value: text, `$iothubname`, or a path of the twin (`$twin.tags.floor`).
    pub value: String,
    /// On the way where.
    pub endpoints: BTreeSet<String>,
}

/// Why a routing is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RoutingError {
    /// There is too much of something.
    #[error("at most {max} {what}")]
    TooMany {
        /// What.
        what: String,
        /// How much there may be.
        max: u64,
    },
    /// A name is not one.
    #[error("'{0}' is no name: 1 to {NAME_BYTES_MAX} letters, digits, '-', '.', '_'")]
    Name(String),
    /// A condition cannot be read.
    #[error("the condition of route '{route}': {error}")]
    Condition {
        /// Whose.
        route: String,
        /// Why not.
        error: String,
    },
    /// It goes to an endpoint that there is none of.
    #[error("'{of}' goes to '{endpoint}', and there is no such endpoint")]
    NoSuchEndpoint {
        /// What goes there.
        of: String,
        /// Where.
        endpoint: String,
    },
    /// It goes nowhere.
    #[error("'{0}' goes to no endpoint")]
    Nowhere(String),
    /// An endpoint makes no sense.
    #[error("endpoint '{0}': {1}")]
    Endpoint(String, String),
    /// The value of an enrichment cannot be read.
    #[error("enrichment '{0}': {1}")]
    Enrichment(String, String),
}

impl Routing {
    /// Checks every bound, name, condition and address in it.
    pub fn check(&self) -> Result<(), RoutingError> {
        at_most(self.routes.len(), ROUTES_MAX, "routes")?;
        at_most(self.endpoints.len(), ENDPOINTS_MAX, "endpoints")?;
        at_most(self.enrichments.len(), ENRICHMENTS_MAX, "enrichments")?;
        for (name, endpoint) in &self.endpoints {
            check_name(name)?;
            if name == BUILT_IN {
                return Err(RoutingError::Endpoint(
                    name.clone(),
                    "it is the built-in one".to_owned(),
                ));
            }
            endpoint
                .kind
                .check()
                .map_err(|why| RoutingError::Endpoint(name.clone(), why.to_owned()))?;
        }
        for (name, route) in &self.routes {
            check_name(name)?;
            self.check_targets(name, &route.endpoints)?;
            let refused = |error: String| RoutingError::Condition {
                route: name.clone(),
                error,
            };
            if route.condition.len() > CONDITION_BYTES_MAX {
                return Err(refused(format!("it has more than {CONDITION_BYTES_MAX} bytes")));
            }
            Condition::parse(&route.condition).map_err(|error| refused(error.to_string()))?;
        }
        let mut keys = BTreeSet::new();
        for one in &self.enrichments {
            check_name(&one.key)?;
            self.check_targets(&one.key, &one.endpoints)?;
            let refused = |why: &str| RoutingError::Enrichment(one.key.clone(), why.to_owned());
            if one.value.is_empty() || one.value.len() > ENRICHMENT_BYTES_MAX {
                return Err(refused("its value has 1 to 1024 bytes"));
            }
            enrichment::Value::parse(&one.value).map_err(refused)?;
            if one
                .endpoints
                .iter()
                .any(|endpoint| !keys.insert((&one.key, endpoint)))
            {
                return Err(refused("another one has the same key and endpoint"));
            }
        }
        Ok(())
    }

    fn check_targets(&self, of: &str, endpoints: &BTreeSet<String>) -> Result<(), RoutingError> {
        if endpoints.is_empty() {
            return Err(RoutingError::Nowhere(of.to_owned()));
        }
        let is_known = |name: &&String| *name == BUILT_IN || self.endpoints.contains_key(*name);
        match endpoints.iter().find(|name| !is_known(name)) {
            Some(endpoint) => Err(RoutingError::NoSuchEndpoint {
                of: of.to_owned(),
                endpoint: endpoint.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The events that the hub is to make, since a route takes them.
    pub fn announced(&self) -> EventSources {
        let enabled = self.routes.values().filter(|route| route.is_enabled);
        let made = enabled.filter(|route| route.source != EventSource::DeviceMessages);
        made.fold(EventSources::default(), |sources, route| {
            sources.and(route.source)
        })
    }
}

impl EndpointKind {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            EndpointKind::Webhook {
                url,
                authorization,
                authority,
            } => {
                let is_long = |text: &Option<String>, max| text.as_ref().is_some_and(|text| text.len() > max);
                if !url.starts_with("https://") || url.len() > ADDRESS_BYTES_MAX {
                    return Err("its url begins with https:// and has at most 2048 bytes");
                }
                if is_long(authorization, ADDRESS_BYTES_MAX) {
                    return Err("its authorization has at most 2048 bytes");
                }
                let is_header = |text: &String| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
                if !authorization.as_ref().is_none_or(is_header) {
                    return Err("its authorization is a line of printable ASCII");
                }
                match is_long(authority, crate::directory::AUTHORITY_BYTES_MAX) {
                    true => Err("its authority has at most 8192 bytes"),
                    false => Ok(()),
                }
            }
            EndpointKind::Storage { container } => match is_name(container) {
                true => Ok(()),
                false => Err("its container is no name"),
            },
        }
    }
}

fn at_most(count: usize, max: usize, what: &str) -> Result<(), RoutingError> {
    match count > max {
        true => Err(RoutingError::TooMany {
            what: what.to_owned(),
            max: max as u64,
        }),
        false => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), RoutingError> {
    match is_name(name) {
        true => Ok(()),
        false => Err(RoutingError::Name(name.to_owned())),
    }
}

fn is_name(name: &str) -> bool {
    is_plain_name(name, NAME_BYTES_MAX) && !name.starts_with('.')
}

#[cfg(test)]
mod tests;
