//! Enrolments and groups as services write, read, list and remove them, and every error that provisioning can answer.

use std::collections::BTreeMap;
use std::path::Path;

use dunlin_gateway::auth;
use dunlin_gateway::provisioning::ProvisioningCode;
use dunlin_model::port::{QueryError, SubmitError};
use serde_json::{Value, json};

use crate::fake::KEY;
use crate::world::{Answer, NOW_S, World};

fn body(kind: &str, name: &str) -> Value {
    let id = if kind == "enrollments" {
        "registrationId"
    } else {
        "enrollmentGroupId"
    };
    json!({id: name, "attestation": {"type": "symmetricKey"}})
}

fn code(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json()["errorCode"].clone())
}

#[tokio::test]
async fn both_kinds_are_written_by_their_version_and_read_without_secrets() {
    let world = World::new().await;
    for kind in ["enrollments", "enrollmentGroups"] {
        let path = format!("/{kind}/Plant-1");
        let ask = async |method: &str, path: &str, headers: &[(&str, &str)], body: Value| {
            world.provisioning(method, path, headers, body).await
        };
        let made = ask("PUT", &path, &[], body(kind, "Plant-1")).await;
        assert_eq!(made.status, 200, "{}", made.body);
        let etag = made.headers["etag"].clone();
        assert_eq!(made.json()["provisioningStatus"], "enabled");
        assert!(!made.body.contains("primaryKey"), "{}", made.body);
        let again = ask("PUT", &path, &[], body(kind, "Plant-1")).await;
        assert_eq!(code(&again), (409, json!(409_201)));
        let secrets = ask("POST", &format!("{path}/attestationmechanism"), &[], Value::Null)
            .await
            .json();
        let key = secrets["symmetricKey"]["primaryKey"].as_str().unwrap().to_owned();

        // What is read can be sent back, and keeps its keys.
        let mut changed = ask("GET", &format!("/{kind}/PLANT-1"), &[], Value::Null)
            .await
            .json();
        changed["provisioningStatus"] = "disabled".into();
        let stored = ask("PUT", &path, &[("If-Match", &etag)], changed.clone()).await;
        assert_eq!(
            (stored.status, &stored.json()["provisioningStatus"]),
            (200, &json!("disabled"))
        );
        let secrets = ask("POST", &format!("{path}/attestationmechanism"), &[], Value::Null)
            .await
            .json();
        assert_eq!(secrets["symmetricKey"]["primaryKey"], key.as_str());
        let stale = ask("PUT", &path, &[("If-Match", &etag)], changed.clone()).await;
        assert_eq!(code(&stale), (412, json!(412_001)));
        assert_eq!(
            code(&ask("DELETE", &path, &[("If-Match", &etag)], Value::Null).await),
            (412, json!(412_001))
        );
        let other = ask("PUT", &format!("/{kind}/other"), &[], changed).await;
        assert_eq!(code(&other), (400, json!(400_004)));

        for action in ["put", "put", "put", "read-keys"] {
            let name = if kind == "enrollments" {
                "enrollment"
            } else {
                "enrollment-group"
            };
            let record = world.audit.next(&format!("{name}.{action}")).await;
            assert_eq!(
                (record.who.as_str(), record.what.as_str()),
                ("provisioningserviceowner", "Plant-1")
            );
        }
        assert_eq!(ask("DELETE", &path, &[], Value::Null).await.status, 204);
        for (method, path) in [
            ("GET", path.clone()),
            ("DELETE", path.clone()),
            ("POST", format!("{path}/attestationmechanism")),
        ] {
            assert_eq!(
                code(&ask(method, &path, &[], Value::Null).await),
                (404, json!(404_201)),
                "{method} {path}"
            );
        }
        let gone = ask("PUT", &path, &[("If-Match", "*")], body(kind, "Plant-1")).await;
        assert_eq!(code(&gone), (404, json!(404_201)));
    }
}

#[tokio::test]
async fn many_are_changed_at_once_and_listed_by_pages() {
    let world = World::new().await;
    for kind in ["enrollments", "enrollmentGroups"] {
        let path = format!("/{kind}");
        let bulk = |mode: &str, names: &[String]| {
            let all: Vec<_> = names.iter().map(|name| body(kind, name)).collect();
            json!({"mode": mode, kind: all})
        };
        let names: Vec<String> = (0..10).map(|n| format!("d{n}")).collect();
        let made = world
            .provisioning("POST", &path, &[], bulk("create", &names))
            .await;
        assert_eq!(
            (made.status, &made.json()["isSuccessful"]),
            (200, &json!(true)),
            "{}",
            made.body
        );
        let again = world
            .provisioning("POST", &path, &[], bulk("create", &names[..2]))
            .await
            .json();
        assert_eq!(again["isSuccessful"], false);
        assert_eq!(again["errors"][1]["registrationId"], "d1");
        assert_eq!(again["errors"][1]["errorCode"], 409_201);
        let many: Vec<String> = (0..11).map(|n| format!("e{n}")).collect();
        for wrong in [bulk("create", &many), bulk("magic", &names)] {
            let answer = world.provisioning("POST", &path, &[], wrong).await;
            assert!(
                answer.status == 400 || answer.json()["isSuccessful"] == false,
                "{}",
                answer.body
            );
        }

        let query = json!({"query": format!("SELECT * FROM {kind}")});
        let mut seen = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut headers = vec![("x-ms-max-item-count", "3")];
            if let Some(after) = &after {
                headers.push(("x-ms-continuation", after));
            }
            let page = world
                .provisioning("POST", &format!("{path}/query"), &headers, query.clone())
                .await;
            assert_eq!(page.status, 200, "{}", page.body);
            let rows = page.json().as_array().unwrap().clone();
            assert!(rows.len() <= 3);
            let id = if kind == "enrollments" {
                "registrationId"
            } else {
                "enrollmentGroupId"
            };
            seen.extend(rows.iter().map(|row| row[id].as_str().unwrap().to_owned()));
            after = page.headers.get("x-ms-continuation").cloned();
            if after.is_none() {
                break;
            }
        }
        seen.sort();
        assert_eq!(seen, names);
        for wrong in [
            json!({"query": "SELECT * FROM devices"}),
            json!({}),
            json!({"query": format!("SELECT * FROM {kind} WHERE a = 1")}),
        ] {
            let answer = world
                .provisioning("POST", &format!("{path}/query"), &[], wrong)
                .await;
            assert_eq!(code(&answer), (400, json!(400_004)));
        }
        for headers in [("x-ms-max-item-count", "0"), ("x-ms-continuation", "x")] {
            let answer = world
                .provisioning("POST", &format!("{path}/query"), &[headers], query.clone())
                .await;
            assert_eq!(code(&answer), (400, json!(400_004)));
        }
        let gone = world
            .provisioning("POST", &path, &[], bulk("delete", &names))
            .await
            .json();
        assert_eq!(gone["isSuccessful"], true);
    }
}

#[tokio::test]
async fn policies_open_what_they_name() {
    let world = World::new().await;
    for policy in ["iothubowner", "service", "registryReadWrite"] {
        let token = world.service_token(policy);
        let headers = [("Authorization", token.as_str())];
        let answer = world.http_as("GET", "/enrollments/x", &headers, b"").await;
        assert_eq!(code(&answer), (401, json!(401_002)), "{policy}");
        assert_eq!(world.audit.next("http.request").await.who, policy);
    }
    let token = world.service_token("provisioningserviceowner");
    let headers = [("Authorization", token.as_str())];
    assert_eq!(world.http_as("GET", "/devices", &headers, b"").await.status, 401);
}

/// Number and name of each row of the list.
fn documented() -> BTreeMap<u32, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, text) = text.split_once("## Provisioning").expect("a part of its own");
    let (text, _) = text.split_once("## Files").expect("another");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
    });
    rows.collect()
}

/// An attestation by [`KEY`].
fn keyed() -> Value {
    json!({"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}})
}

/// What a device is told that registers with `key`.
async fn registered(world: &World, name: &str, key: &str) -> Value {
    let path = format!("/0neFAKE/registrations/{name}");
    let token = auth::sign(path.trim_start_matches('/'), key, NOW_S + 60, None).unwrap();
    let headers = [("Authorization", token.as_str())];
    let asked = world
        .http_as("PUT", &format!("{path}/register"), &headers, b"{}")
        .await;
    assert_eq!(asked.status, 202, "{}", asked.body);
    let operation = asked.json()["operationId"].as_str().unwrap().to_owned();
    let path = format!("{path}/operations/{operation}");
    let told = world.http_as("GET", &path, &headers, b"").await;
    assert_eq!(told.status, 200, "{}", told.body);
    told.json()
}

#[tokio::test]
async fn each_error_of_the_list_is_met() {
    let known: BTreeMap<u32, String> = ProvisioningCode::ALL
        .iter()
        .map(|(_, number, name)| (*number, (*name).to_owned()))
        .collect();
    assert_eq!(documented(), known);

    let world = World::new().await;
    let mut met: Vec<u32> = Vec::new();
    let mut meet = |answer: &Answer, number: u32| {
        assert_eq!(answer.json()["errorCode"], number, "{}", answer.body);
        assert_eq!(u32::from(answer.status), number / 1000);
        assert_eq!(answer.headers["x-ms-error-code"], number.to_string());
        assert_eq!(
            answer.headers.contains_key("retry-after"),
            matches!(answer.status, 429 | 503)
        );
        met.push(number);
    };
    let put = async |name: &str, body: Value| {
        world
            .provisioning("PUT", &format!("/enrollments/{name}"), &[], body)
            .await
    };
    let made = put("sn-1", json!({ "attestation": keyed() })).await;
    assert_eq!(made.status, 200, "{}", made.body);
    meet(&put("sn-2", json!({})).await, 400_004);
    meet(&put("sn-1", body("enrollments", "sn-1")).await, 409_201);
    let large =
        json!({"attestation": {"type": "symmetricKey"}, "optionalDeviceInformation": "x".repeat(40_000)});
    meet(&put("sn-2", large).await, 413_001);
    meet(
        &world.http_as("GET", "/enrollments/sn-1", &[], b"").await,
        401_002,
    );
    meet(
        &world
            .provisioning("GET", "/enrollments/sn-9", &[], Value::Null)
            .await,
        404_201,
    );
    meet(
        &world
            .provisioning("GET", "/registrations/sn-9", &[], Value::Null)
            .await,
        404_202,
    );
    meet(
        &world
            .provisioning("DELETE", "/enrollments/sn-1", &[("If-Match", "x")], Value::Null)
            .await,
        412_001,
    );
    let token = auth::sign("0neFAKE/registrations/sn-1", KEY, NOW_S + 60, None).unwrap();
    let headers = [("Authorization", token.as_str())];
    let operation = "/0neFAKE/registrations/sn-1/operations/5.x";
    meet(&world.http_as("GET", operation, &headers, b"").await, 404_000);
    world.cluster.fail_queries(QueryError::Store("a test".into()));
    meet(
        &world
            .provisioning("GET", "/enrollments/sn-1", &[], Value::Null)
            .await,
        500_001,
    );
    world.cluster.fail_commands(SubmitError::Busy("a test"));
    meet(&put("sn-2", body("enrollments", "sn-2")).await, 429_001);
    world.cluster.fail_commands(SubmitError::Unknown);
    meet(&put("sn-2", body("enrollments", "sn-2")).await, 503_001);
    // What is wrong with an enrolment is told to its device, within an answer: it leads to a hub that is not linked, or
    // the hub has a device of that name which a service made.
    let mut away = body("enrollments", "sn-3");
    away["attestation"] = keyed();
    away["allocationPolicy"] = "static".into();
    away["iotHubHostName"] = "gone.example".into();
    assert_eq!(put("sn-3", away).await.status, 200);
    let mut group = body("enrollmentGroups", "plant");
    group["attestation"] = keyed();
    let made = world
        .provisioning("PUT", "/enrollmentGroups/plant", &[], group)
        .await;
    assert_eq!(made.status, 200, "{}", made.body);
    let derived = auth::derive_key(KEY, "dev-1").unwrap();
    for (name, key, number) in [("sn-3", KEY, 400_208), ("dev-1", derived.as_str(), 400_209)] {
        let told = registered(&world, name, key).await;
        assert_eq!(told["status"], "failed", "{told}");
        assert_eq!(told["registrationState"]["errorCode"], number, "{told}");
        met.push(number);
    }
    met.sort_unstable();
    assert_eq!(met, documented().into_keys().collect::<Vec<_>>());
}
