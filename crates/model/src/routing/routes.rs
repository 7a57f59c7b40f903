//! Routes with their conditions read: where an event goes, and what it is given on the way.
//!
//! A row is what conditions look at: the properties of the event by their names, those of the system with a `$` in
//! front, `$body` if it can be read, and `$twin`. What of it is needed at all, callers ask first, since bodies have to
//! be read and twins to be fetched.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::enrichment::Value;
use super::{BUILT_IN, EventSource, Routing, RoutingError};
use crate::query_language::{Condition, Expr};

/// What conditions and enrichments look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Looks {
    /// Whether a row is looked at at all.
    pub at_row: bool,
    /// Whether `$body` is looked at.
    pub at_body: bool,
    /// Whether `$twin` is looked at.
    pub at_twin: bool,
}

/// See the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    version: u64,
    /// Enabled routes, by their source.
    routes: BTreeMap<EventSource, Vec<Route>>,
    has_fallback: bool,
    enrichments: Vec<(String, Value, BTreeSet<String>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    name: String,
    condition: Condition,
    endpoints: BTreeSet<String>,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            version: 1,
            routes: BTreeMap::new(),
            has_fallback: true,
            enrichments: Vec::new(),
        }
    }
}

impl Routes {
    /// Reads what stands in `routing`.
    pub fn read(routing: &Routing) -> Result<Self, RoutingError> {
        routing.check()?;
        let mut read = Routes {
            version: routing.version,
            has_fallback: routing.has_fallback,
            ..Routes::default()
        };
        for (name, route) in routing.routes.iter().filter(|(_, route)| route.is_enabled) {
            let condition = Condition::parse(&route.condition).map_err(|error| RoutingError::Condition {
                route: name.clone(),
                error: error.to_string(),
            })?;
            let of_source = read.routes.entry(route.source).or_default();
            of_source.push(Route {
                name: name.clone(),
                condition,
                endpoints: route.endpoints.clone(),
            });
        }
        for one in &routing.enrichments {
            let value = Value::parse(&one.value)
                .map_err(|why| RoutingError::Enrichment(one.key.clone(), why.to_owned()))?;
            read.enrichments
                .push((one.key.clone(), value, one.endpoints.clone()));
        }
        Ok(read)
    }

    /// The version of the routing that was read.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether any event of `source` may go to `endpoint`.
    pub fn may_lead(&self, source: EventSource, endpoint: &str) -> bool {
        let leads_there = |route: &Route| route.endpoints.contains(endpoint);
        self.is_fallback(source, endpoint) || self.of(source).iter().any(leads_there)
    }

    /// The routes that take an event: the name of each, and where it leads.
    pub fn taking<'a>(
        &'a self,
        source: EventSource,
        row: &'a Json,
    ) -> impl Iterator<Item = (&'a str, &'a BTreeSet<String>)> {
        let taking = self.of(source).iter().filter(|route| route.condition.admits(row));
        taking.map(|route| (route.name.as_str(), &route.endpoints))
    }

    /// What is looked at to find out whether events of `source` go to `endpoint`, and what they are given then.
    pub fn looks(&self, source: EventSource, endpoint: &str) -> Looks {
        let mut looks = Looks::default();
        let is_fallback = self.is_fallback(source, endpoint);
        for route in self.of(source) {
            // Of the fallback it matters whether any route takes the event.
            if is_fallback || route.endpoints.contains(endpoint) {
                looks.at_row |= *route.condition.expression() != Expr::TRUE;
                looks.at_body |= route.condition.mentions("$body");
                looks.at_twin |= route.condition.mentions("$twin");
            }
        }
        let is_twin = |value: &Value| matches!(value, Value::Twin(_));
        looks.at_twin |= self.given(endpoint).any(|(_, value)| is_twin(value));
        looks.at_row |= looks.at_twin;
        looks
    }

    /// Whether an event goes to `endpoint`.
    pub fn leads(&self, source: EventSource, endpoint: &str, row: &Json) -> bool {
        let mut is_taken = false;
        for route in self.of(source) {
            let is_here = route.endpoints.contains(endpoint);
            if (is_here || !is_taken) && route.condition.admits(row) {
                if is_here {
                    return true;
                }
                is_taken = true;
            }
        }
        !is_taken && self.is_fallback(source, endpoint)
    }

    /// What an event is given on its way to `endpoint`.
    pub fn enrich(&self, endpoint: &str, hub_name: &str, row: &Json) -> Vec<(String, String)> {
        let given = self.given(endpoint);
        given
            .filter_map(|(key, value)| Some((key.to_owned(), value.resolve(hub_name, row)?)))
            .collect()
    }

    fn of(&self, source: EventSource) -> &[Route] {
        self.routes.get(&source).map_or(&[], Vec::as_slice)
    }

    fn given(&self, endpoint: &str) -> impl Iterator<Item = (&str, &Value)> {
        let here = move |given: &&(String, Value, BTreeSet<String>)| given.2.contains(endpoint);
        let given = self.enrichments.iter().filter(here);
        given.map(|(key, value, _)| (key.as_str(), value))
    }

    fn is_fallback(&self, source: EventSource, endpoint: &str) -> bool {
        self.has_fallback && source == EventSource::DeviceMessages && endpoint == BUILT_IN
    }
}
