//! Which events routes lead where, what is looked at for that, and which routings are refused.

use serde_json::json;

use super::routes::{Looks, Routes};
use super::*;

fn route(source: EventSource, condition: &str, endpoints: &[&str]) -> Route {
    Route {
        source,
        condition: condition.to_owned(),
        endpoints: endpoints.iter().map(|name| (*name).to_owned()).collect(),
        is_enabled: true,
    }
}

fn routing(routes: &[(&str, Route)]) -> Routing {
    let webhook = EndpointKind::Webhook {
        url: "https://example.org/hook".to_owned(),
        authorization: None,
        authority: None,
    };
    let endpoint = |id: &str, kind| Endpoint {
        id: id.to_owned(),
        kind,
    };
    let storage = EndpointKind::Storage {
        container: "cold".to_owned(),
    };
    Routing {
        endpoints: BTreeMap::from([
            ("hook".to_owned(), endpoint("1", webhook)),
            ("store".to_owned(), endpoint("2", storage)),
        ]),
        routes: routes
            .iter()
            .map(|(name, route)| ((*name).to_owned(), route.clone()))
            .collect(),
        ..Routing::default()
    }
}

const MESSAGES: EventSource = EventSource::DeviceMessages;
const TWINS: EventSource = EventSource::TwinChangeEvents;

#[test]
fn without_routes_messages_go_to_the_built_in_endpoint_and_nothing_else_does() {
    let routes = Routes::default();
    assert_eq!(Routes::read(&Routing::default()), Ok(routes.clone()));
    for source in EventSource::ALL {
        assert_eq!(
            routes.leads(source, BUILT_IN, &json!({})),
            source == MESSAGES,
            "{source:?}"
        );
        assert!(!routes.leads(source, "hook", &json!({})));
        assert_eq!(routes.looks(source, BUILT_IN), Looks::default());
    }
}

#[test]
fn the_fallback_takes_what_no_route_takes() {
    let mut routing = routing(&[
        ("hot", route(MESSAGES, "level = 'hot'", &["hook"])),
        ("both", route(MESSAGES, "level = 'both'", &["hook", "events"])),
        ("twins", route(TWINS, "true", &["store"])),
    ]);
    let cases = [
        (json!({"level": "hot"}), true, false),
        (json!({"level": "both"}), true, true),
        (json!({"level": "cold"}), false, true),
        (json!({}), false, true),
    ];
    for has_fallback in [true, false] {
        routing.has_fallback = has_fallback;
        let routes = Routes::read(&routing).unwrap();
        for (row, hook, events) in &cases {
            assert_eq!(routes.leads(MESSAGES, "hook", row), *hook, "{row}");
            let is_routed = *row == json!({"level": "both"});
            let expected = *events && (has_fallback || is_routed);
            assert_eq!(routes.leads(MESSAGES, BUILT_IN, row), expected, "{row}");
        }
        assert!(routes.leads(TWINS, "store", &json!({})));
        assert!(
            !routes.leads(TWINS, BUILT_IN, &json!({})),
            "the fallback is for messages alone"
        );
    }
}

#[test]
fn it_is_known_who_takes_an_event_and_what_can_go_nowhere() {
    let mut routing = routing(&[
        ("hot", route(MESSAGES, "level = 'hot'", &["hook"])),
        ("all", route(MESSAGES, "true", &["store"])),
    ]);
    let routes = Routes::read(&routing).unwrap();
    let row = json!({"level": "hot"});
    let taking: Vec<&str> = routes.taking(MESSAGES, &row).map(|(name, _)| name).collect();
    assert_eq!(taking, ["all", "hot"]);
    assert_eq!(routes.taking(TWINS, &row).count(), 0);
    for (source, endpoint, may_lead) in [
        (MESSAGES, "hook", true),
        (MESSAGES, BUILT_IN, true),
        (TWINS, "hook", false),
        (TWINS, BUILT_IN, false),
    ] {
        assert_eq!(
            routes.may_lead(source, endpoint),
            may_lead,
            "{source:?} {endpoint}"
        );
    }
    routing.has_fallback = false;
    assert!(!Routes::read(&routing).unwrap().may_lead(MESSAGES, BUILT_IN));
}

#[test]
fn routes_that_are_off_do_nothing() {
    let mut off = route(TWINS, "true", &["events"]);
    assert_eq!(
        routing(&[("a", off.clone())]).announced(),
        EventSources::default().and(TWINS)
    );
    off.is_enabled = false;
    let routing = routing(&[("a", off)]);
    assert_eq!(routing.announced(), EventSources::default());
    assert!(!Routes::read(&routing).unwrap().leads(TWINS, BUILT_IN, &json!({})));
}

#[test]
fn only_what_is_looked_at_is_asked_for() {
    let mut routing = routing(&[
        ("body", route(MESSAGES, "$body.t > 30", &["hook"])),
        ("twin", route(TWINS, "$twin.tags.floor = 3", &["hook"])),
        ("all", route(TWINS, "true", &["events"])),
    ]);
    let looks = |at_row, at_body, at_twin| Looks {
        at_row,
        at_body,
        at_twin,
    };
    let routes = Routes::read(&routing).unwrap();
    assert_eq!(routes.looks(MESSAGES, "hook"), looks(true, true, false));
    assert_eq!(
        routes.looks(MESSAGES, BUILT_IN),
        looks(true, true, false),
        "for the fallback"
    );
    assert_eq!(routes.looks(MESSAGES, "store"), Looks::default());
    assert_eq!(routes.looks(TWINS, "hook"), looks(true, false, true));
    assert_eq!(routes.looks(TWINS, BUILT_IN), Looks::default());
    routing.has_fallback = false;
    let routes = Routes::read(&routing).unwrap();
    assert_eq!(routes.looks(MESSAGES, BUILT_IN), Looks::default());
}

#[test]
fn enrichments_are_text_the_hub_or_the_twin() {
    let mut routing = routing(&[]);
    for (key, value, endpoint) in [
        ("plain", "a text", "events"),
        ("hub", "$iothubname", "events"),
        ("floor", "$twin.tags.floor", "events"),
        ("none", "$twin.tags.none", "events"),
        ("elsewhere", "x", "hook"),
    ] {
        routing.enrichments.push(Enrichment {
            key: key.to_owned(),
            value: value.to_owned(),
            endpoints: BTreeSet::from([endpoint.to_owned()]),
        });
    }
    let routes = Routes::read(&routing).unwrap();
    let row = json!({"$twin": {"tags": {"floor": 3}}});
    let given = routes.enrich(BUILT_IN, "hub-1", &row);
    let expected = [("plain", "a text"), ("hub", "hub-1"), ("floor", "3")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(given, expected);
    assert!(routes.looks(MESSAGES, BUILT_IN).at_twin);
    assert!(!routes.looks(MESSAGES, "hook").at_twin);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let good = routing(&[("a", route(MESSAGES, "a = 1", &["hook"]))]);
    assert_eq!(good.check(), Ok(()));
    let refused = |change: &dyn Fn(&mut Routing)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed.check().unwrap_err().to_string()
    };
    let with = |route: Route| {
        refused(&move |routing: &mut Routing| {
            routing.routes.insert("b".to_owned(), route.clone());
        })
    };
    assert!(with(route(MESSAGES, "a = ", &["hook"])).starts_with("the condition of route 'b': at character"));
    assert!(with(route(MESSAGES, "true", &["x"])).contains("no such endpoint"));
    assert!(with(route(MESSAGES, "true", &[])).contains("goes to no endpoint"));
    assert!(with(route(MESSAGES, &"a".repeat(CONDITION_BYTES_MAX + 1), &["hook"])).contains("2048 bytes"));
    let many = refused(&|routing| {
        for n in 0..ROUTES_MAX {
            routing
                .routes
                .insert(format!("r{n}"), route(MESSAGES, "true", &["hook"]));
        }
    });
    assert_eq!(many, "at most 100 routes");
    for (name, kind, why) in [
        (
            "events",
            EndpointKind::Storage {
                container: "c".to_owned(),
            },
            "built-in",
        ),
        (
            "a b",
            EndpointKind::Storage {
                container: "c".to_owned(),
            },
            "is no name",
        ),
        (
            "c",
            EndpointKind::Storage {
                container: "../c".to_owned(),
            },
            "is no name",
        ),
        (
            "d",
            EndpointKind::Webhook {
                url: "http://x".to_owned(),
                authorization: None,
                authority: None,
            },
            "https://",
        ),
        (
            "e",
            EndpointKind::Webhook {
                url: "https://x".to_owned(),
                authorization: Some("a\r\nb: c".to_owned()),
                authority: None,
            },
            "printable",
        ),
    ] {
        let said = refused(&|routing| {
            let endpoint = Endpoint {
                id: "9".to_owned(),
                kind: kind.clone(),
            };
            routing.endpoints.insert(name.to_owned(), endpoint);
        });
        assert!(said.contains(why), "{said}");
    }
    for (value, why) in [
        ("$else", "$iothubname"),
        ("$twin.a = 1", "no path"),
        ("", "1 to 1024"),
    ] {
        let said = refused(&|routing| {
            routing.enrichments.push(Enrichment {
                key: "k".to_owned(),
                value: value.to_owned(),
                endpoints: BTreeSet::from(["hook".to_owned()]),
            });
        });
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn sets_of_sources_are_bits_that_stay() {
    let all = EventSource::ALL
        .iter()
        .fold(EventSources::default(), |set, source| set.and(*source));
    // These stand in logs.
    assert_eq!(all.bits(), 0b1111);
    assert_eq!(EventSources::default().and(TWINS).bits(), 0b10);
    assert_eq!(EventSources::from_bits(0xff), all);
    assert!(all.has(TWINS) && !EventSources::default().has(TWINS));
}
