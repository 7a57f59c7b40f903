//! The OpenAPI document: it has every route and nothing else, it holds together, the hub's answers fit it, and the page
//! that shows it needs no other host.
//!
//! Routes are read from the sources in [`routes`], bodies held against schemas in [`schema`], and operations carried out
//! in [`trial`].

mod routes;
mod schema;
mod trial;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use dunlin_gateway::uploads::TAKEN;
use serde_json::{Value, json};

use routes::routes;
use schema::{follow, problems};

use crate::world::World;

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// A method and the template of a path.
type Route = (String, String);

async fn document(world: &World) -> Value {
    let answer = world.http_as("GET", "/openapi.json", &[], b"").await;
    assert_eq!(
        (answer.status, answer.headers["content-type"].as_str()),
        (200, "application/json")
    );
    answer.json()
}

/// Each operation of a document with the paths that lead to it.
fn operations(document: &Value) -> Vec<(Route, &Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{method} {path}");
            let also = operation["x-dunlin-other-spellings"].as_array();
            let also = also.into_iter().flatten().map(|path| path.as_str().unwrap());
            for path in also.chain([path.as_str()]) {
                found.push(((method.clone(), path.to_owned()), operation));
            }
        }
    }
    found
}

/// `path` with an example, or what `ids` says, for each name in it.
fn filled(document: &Value, path: &str, operation: &Value, ids: &[(&str, &str)]) -> String {
    let mut path = path.to_owned();
    for parameter in operation["parameters"].as_array().unwrap() {
        let parameter = follow(document, parameter);
        let name = parameter["name"].as_str().unwrap();
        if parameter["in"] == "path" {
            let said = ids.iter().find(|(of, _)| *of == name);
            let example = parameter["example"].to_string();
            let value = said.map_or(example.trim_matches('"'), |(_, value)| *value);
            path = path.replace(&format!("{{{name}}}"), value);
        }
    }
    path
}

#[tokio::test]
async fn the_document_has_every_route_and_nothing_else() {
    let world = World::new().await;
    let document = document(&world).await;
    let documented: BTreeSet<Route> = operations(&document)
        .into_iter()
        .map(|(route, _)| route)
        .collect();
    let served = routes();
    assert!(
        served.len() > 70,
        "only {} routes: they are read wrongly",
        served.len()
    );
    let missing: Vec<_> = served.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&served).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not in the document: {missing:?}; not served: {invented:?}"
    );
}

#[test]
fn no_container_of_files_has_the_name_that_a_route_begins_with() {
    for (_, path) in routes() {
        let first = path.trim_start_matches('/').split('/').next().unwrap();
        // The container itself, and the scope of provisioning, which is `0ne` and digits.
        if first != "uploads" && !first.starts_with('{') {
            assert!(TAKEN.contains(&first), "{first}");
        }
    }
}

#[tokio::test]
async fn what_is_documented_is_served_and_asks_for_a_credential() {
    for world in [World::new().await, World::for_operators().await] {
        let document = document(&world).await;
        let mut methods: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((method, path), operation) in operations(&document) {
            let path = filled(&document, &path, operation, &[]);
            let answer = world.http_as(&method.to_uppercase(), &path, &[], b"").await;
            let is_open = operation["security"].as_array().unwrap().is_empty();
            let expected = match operation["operationId"].as_str().unwrap() {
                "join" | "mqttOverWebSocket" => 400,
                _ if is_open => 200,
                _ => 401,
            };
            assert_eq!(answer.status, expected, "{method} {path}: {}", answer.body);
            methods.entry(path).or_default().push(method);
        }
        for (path, known) in methods {
            let other = METHODS
                .iter()
                .find(|method| !known.iter().any(|known| known == *method));
            let method = other.unwrap().to_uppercase();
            let answer = world.http_as(&method, &path, &[], b"").await;
            assert_eq!(answer.status, 405, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_node_for_operators_documents_what_it_serves() {
    let (world, other) = (World::for_operators().await, World::new().await);
    let (document, whole) = (document(&world).await, document(&other).await);
    let paths: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert!(paths.contains(&"/cluster/admin") && paths.contains(&"/openapi.json"));
    assert!(!paths.contains(&"/devices"), "{paths:?}");
    for (path, item) in whole["paths"].as_object().unwrap() {
        let mine = &document["paths"][path];
        assert!(mine.is_null() || mine == item, "{path}");
        let is_mine = item
            .as_object()
            .unwrap()
            .values()
            .any(|operation| operation["tags"][0] == "Cluster");
        assert_eq!(!mine.is_null(), is_mine, "{path}");
    }
    assert!(document["components"]["schemas"].get("Twin").is_none());
    assert_eq!(world.http_as("GET", "/docs", &[], b"").await.status, 200);
}

/// Calls `see` with every value of the document, and where it stands.
fn walk(value: &Value, at: &str, see: &mut impl FnMut(&Value, &str)) {
    see(value, at);
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(key, member)| walk(member, &format!("{at}/{key}"), see)),
        Value::Array(members) => {
            (0..)
                .zip(members)
                .for_each(|(place, member)| walk(member, &format!("{at}/{place}"), see));
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_document_holds_together() {
    let world = World::new().await;
    let document = document(&world).await;
    assert_eq!(
        (&document["openapi"], &document["servers"]),
        (&json!("3.1.0"), &json!([{"url": "/"}]))
    );
    let mut used = BTreeSet::new();
    walk(&document, "", &mut |value, at| {
        if let Some(name) = value.get("$ref").and_then(Value::as_str) {
            follow(&document, value);
            used.insert(name.to_owned());
        }
        // A property may be called `properties`, and then is no list of names.
        if let (Some(required), Some(properties)) = (
            value.get("required").and_then(Value::as_array),
            value.get("properties").and_then(Value::as_object),
        ) {
            for name in required {
                assert!(properties.contains_key(name.as_str().unwrap()), "{at}: {name}");
            }
        }
    });
    for kind in ["schemas", "responses", "parameters"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(
                used.contains(&format!("#/components/{kind}/{name}")),
                "nothing uses {kind}/{name}"
            );
        }
    }
    let tags: Vec<&Value> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| &tag["name"])
        .collect();
    let mut ids = BTreeMap::new();
    for ((method, path), operation) in operations(&document) {
        let at = format!("{method} {path}");
        let id = operation["operationId"].as_str().unwrap().to_owned();
        // Spellings of one path share their operation.
        let first = ids.entry(id).or_insert(operation);
        assert!(
            std::ptr::eq(*first, operation),
            "{at} has the name of another operation"
        );
        assert!(tags.contains(&&operation["tags"][0]), "{at}");
        let parameters = operation["parameters"].as_array().unwrap();
        let parameters: Vec<&Value> = parameters.iter().map(|one| follow(&document, one)).collect();
        let declared: BTreeSet<&str> = parameters
            .iter()
            .filter(|one| one["in"] == "path")
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        let in_path = path
            .split('{')
            .skip(1)
            .map(|rest| rest.split('}').next().unwrap());
        assert_eq!(declared, in_path.collect(), "{at}");
        for one in parameters {
            assert_eq!(one["required"] == true, one["in"] == "path", "{at}: {one}");
        }
        if let Some(content) = operation["requestBody"]["content"].as_object() {
            for media in content.values() {
                let found = problems(&document, &media["schema"], &media["example"], "example");
                assert!(found.is_empty(), "{at}: {found:?}");
            }
        }
        let responses = operation["responses"].as_object().unwrap();
        assert!(
            responses
                .keys()
                .any(|status| status.starts_with('2') || status == "101"),
            "{at}"
        );
        for (status, reply) in responses {
            let reply = follow(&document, reply);
            assert!(
                !reply["description"].as_str().unwrap().is_empty(),
                "{at}: {status}"
            );
            for media in reply["content"]
                .as_object()
                .into_iter()
                .flat_map(|content| content.values())
            {
                assert!(media["schema"].is_object(), "{at}: {status}");
            }
        }
    }
}

#[tokio::test]
async fn the_page_asks_nobody_else_and_may_do_nothing_else() {
    let world = World::new().await;
    let page = world.http_as("GET", "/docs", &[], b"").await;
    assert_eq!(
        (page.status, page.headers["content-type"].as_str()),
        (200, "text/html; charset=utf-8")
    );
    for wrong in [
        "http://",
        "https://",
        "innerHTML",
        "localStorage",
        "sessionStorage",
        "cookie",
        "style=\"",
    ] {
        assert!(!page.body.contains(wrong), "{wrong}");
    }
    let policy = &page.headers["content-security-policy"];
    let parts: BTreeSet<&str> = policy.split(';').map(str::trim).collect();
    for part in [
        "default-src 'none'",
        "connect-src 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(parts.contains(part), "{part} is not in {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    for (name, open, close) in [
        ("style-src", "<style>", "</style>"),
        ("script-src", "<script>", "</script>"),
    ] {
        let (_, rest) = page.body.split_once(open).unwrap();
        let (inner, rest) = rest.split_once(close).unwrap();
        assert!(!rest.contains(open), "one {open} alone");
        let hash = ring::digest::digest(&ring::digest::SHA256, inner.as_bytes());
        let hash = base64::engine::general_purpose::STANDARD.encode(hash);
        assert!(
            parts.contains(format!("{name} 'sha256-{hash}'").as_str()),
            "{policy}"
        );
    }
    for path in ["/docs", "/openapi.json"] {
        let tag = world.http_as("GET", path, &[], b"").await.headers["etag"].clone();
        let again = world.http_as("GET", path, &[("If-None-Match", &tag)], b"").await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        let other = world
            .http_as("GET", path, &[("If-None-Match", "\"x\"")], b"")
            .await;
        assert_eq!(other.status, 200, "{path}");
    }
}
