//! Devices that nobody knows: how they register over MQTT and HTTPS, under which enrolment, and at which hub.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dunlin_gateway::auth;
use dunlin_gateway::client::{Client, ClientError, ConnectOptions, Event, Transport, device_token};
use dunlin_model::audit::AuditOutcome;
use ring::hmac;
use serde_json::{Value, json};

use crate::fake::{KEY, OTHER_KEY};
use crate::pki::{Chain, Issuer, THIS_YEAR, authority, authority_of_year, leaf, leaf_of_year, showing};
use crate::world::{HOST, NOW_S, World, next};

const SCOPE: &str = "0neFAKE";

fn token(name: &str, key: &str) -> String {
    auth::sign(&format!("{SCOPE}/registrations/{name}"), key, NOW_S + 3600, None).unwrap()
}

fn derived(key: &str, name: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(key).unwrap());
    BASE64.encode(hmac::sign(&key, name.as_bytes()))
}

fn options(transport: Transport, name: &str, token: Option<String>) -> ConnectOptions {
    ConnectOptions {
        username: format!("{SCOPE}/registrations/{name}/api-version=2019-03-31&ClientVersion=x"),
        clean: true,
        password: token,
        ..ConnectOptions::new(transport, SCOPE, name, String::new())
    }
}

/// Publishes `body` to `topic` and returns the answer's topic and body.
async fn ask(client: &mut Client, topic: &str, body: &str) -> (String, Value) {
    client.publish(topic, body.as_bytes()).await.unwrap();
    client.flush().await.unwrap();
    loop {
        match next(client).await {
            Event::Message { topic, payload, .. } => {
                return (topic, serde_json::from_slice(&payload).unwrap());
            }
            Event::Puback { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?$rid=r1";

/// Registers over MQTT as an SDK does; the answer's status and body.
async fn register_by(options: &ConnectOptions) -> Result<(u16, Value), ClientError> {
    register_with(options, Value::Null).await
}

async fn register_with(options: &ConnectOptions, payload: Value) -> Result<(u16, Value), ClientError> {
    let mut client = Client::connect(options).await?;
    client.subscribe("$dps/registrations/res/#").await.unwrap();
    assert!(matches!(next(&mut client).await, Event::Suback { codes, .. } if codes == [1]));
    let body = json!({"registrationId": options.client_id, "payload": payload}).to_string();
    let (topic, body) = ask(&mut client, REGISTER, &body).await;
    let rest = topic.strip_prefix("$dps/registrations/res/").expect("an answer");
    let (status, query) = rest.split_once('/').unwrap();
    assert!(query.starts_with("?$rid=r1"), "{topic}");
    client.disconnect().await;
    Ok((status.parse().unwrap(), body))
}

async fn register(world: &World, name: &str, key: &str) -> Value {
    let (status, body) = register_by(&options(world.tcp(), name, Some(token(name, key))))
        .await
        .unwrap();
    assert_eq!(status, 200, "{body}");
    body
}

async fn refused(world: &World, name: &str, key: &str) -> u8 {
    world
        .refusal(&options(world.tcp(), name, Some(token(name, key))))
        .await
}

async fn put(world: &World, path: &str, body: Value) {
    let answer = world.provisioning("PUT", path, &[], body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

async fn change(world: &World, path: &str, body: Value) {
    let answer = world.provisioning("PUT", path, &[("If-Match", "*")], body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

fn keyed(primary: &str) -> Value {
    json!({"type": "symmetricKey", "symmetricKey": {"primaryKey": primary, "secondaryKey": OTHER_KEY}})
}

fn enrollment(name: &str, more: Value) -> Value {
    let mut body = json!({"registrationId": name, "attestation": keyed(KEY)});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

fn group(name: &str, attestation: Value, more: Value) -> Value {
    let mut body = json!({"enrollmentGroupId": name, "attestation": attestation});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

async fn twin(world: &World, device: &str) -> Value {
    world
        .http("GET", &format!("/twins/{device}"), &[], "")
        .await
        .json()
}

#[tokio::test]
async fn a_device_with_an_enrolment_of_its_own_is_known_at_once() {
    let world = World::new().await;
    let initial = json!({"tags": {"site": "a"}, "properties": {"desired": {"fps": 5}}});
    let more = json!({"deviceId": "pump", "initialTwin": initial, "capabilities": {"iotEdge": true}});
    put(&world, "/enrollments/Sn-1", enrollment("Sn-1", more)).await;
    for wrong in [
        token("sn-1", &BASE64.encode([9; 32])),
        token("sn-2", KEY),
        "x".into(),
    ] {
        let options = options(world.tcp(), "sn-1", Some(wrong));
        assert_eq!(world.refusal(&options).await, 5);
        let record = world.audit.next("registration.refuse").await;
        assert_eq!(record.who, "sn-1");
    }
    let body = register(&world, "sn-1", OTHER_KEY).await;
    let state = &body["registrationState"];
    assert_eq!(
        (&body["status"], &state["status"]),
        (&json!("assigned"), &json!("assigned"))
    );
    assert_eq!(
        (&state["assignedHub"], &state["deviceId"]),
        (&json!(HOST), &json!("pump"))
    );
    assert_eq!(state["substatus"], "initialAssignment");
    assert_eq!(state["symmetricKey"], json!({}));
    let kept = world.audit.next("registration.assign").await;
    assert_eq!(kept.what, "sn-1");
    assert!(
        kept.detail.contains("pump") && kept.detail.contains(HOST),
        "{}",
        kept.detail
    );

    // The key that opened this door opens the hub's.
    let token = device_token(HOST, "pump", KEY, NOW_S + 3600).unwrap();
    let hub = ConnectOptions::new(world.tcp(), HOST, "pump", token);
    Client::connect(&hub).await.unwrap().disconnect().await;
    let twin = twin(&world, "pump").await;
    assert_eq!(
        (&twin["tags"]["site"], &twin["properties"]["desired"]["fps"]),
        (&json!("a"), &json!(5))
    );
    assert_eq!(twin["capabilities"]["iotEdge"], true);

    // Whoever asks again with the operation's name is told the same, and services see it.
    let mut client = Client::connect(&options(world.tcp(), "sn-1", Some(self::token("sn-1", KEY))))
        .await
        .unwrap();
    client.subscribe("$dps/registrations/res/#").await.unwrap();
    next(&mut client).await;
    let status = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=7&operationId=";
    let operation = body["operationId"].as_str().unwrap();
    let (topic, again) = ask(&mut client, &format!("{status}{operation}"), " ").await;
    assert_eq!(
        (topic.as_str(), &again),
        ("$dps/registrations/res/200/?$rid=7", &body)
    );
    let (topic, error) = ask(&mut client, &format!("{status}5.x"), " ").await;
    assert_eq!(
        (topic.as_str(), &error["errorCode"]),
        ("$dps/registrations/res/404/?$rid=7", &json!(404_000))
    );
    let seen = world
        .provisioning("GET", "/registrations/SN-1", &[], Value::Null)
        .await
        .json();
    assert_eq!(seen, body["registrationState"]);
    let own = world
        .provisioning("GET", "/enrollments/sn-1", &[], Value::Null)
        .await
        .json();
    assert_eq!(own["registrationState"], body["registrationState"]);

    // Some SDKs say nothing where others say null.
    for blank in ["", " "] {
        let (topic, body) = ask(&mut client, REGISTER, blank).await;
        assert_eq!(topic, "$dps/registrations/res/200/?$rid=r1", "{body}");
    }

    // A connection like this is for nothing else.
    client
        .publish("devices/sn-1/messages/events/", b"x")
        .await
        .unwrap();
    client.flush().await.unwrap();
    assert!(matches!(next(&mut client).await, Event::Disconnected { .. }));
}

#[tokio::test]
async fn no_group_takes_a_device_that_is_not_its_own() {
    let world = World::new().await;
    for (name, key) in [("a", KEY), ("b", OTHER_KEY)] {
        let attestation =
            json!({"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}});
        put(
            &world,
            &format!("/enrollmentGroups/{name}"),
            group(name, attestation, json!({})),
        )
        .await;
    }
    let failed = |body: &Value| {
        assert_eq!(body["status"], "failed", "{body}");
        assert_eq!(body["registrationState"]["errorCode"], 400_209);
    };
    // One that a service has made by hand, and one of another group.
    let before = world.http("GET", "/devices/dev-1", &[], "").await.json();
    failed(&register(&world, "dev-1", &derived(KEY, "dev-1")).await);
    assert_eq!(world.http("GET", "/devices/dev-1", &[], "").await.json(), before);
    register(&world, "pump", &derived(KEY, "pump")).await;
    failed(&register(&world, "pump", &derived(OTHER_KEY, "pump")).await);
    let token = device_token(HOST, "pump", &derived(KEY, "pump"), NOW_S + 3600).unwrap();
    let hub = ConnectOptions::new(world.tcp(), HOST, "pump", token);
    Client::connect(&hub).await.unwrap().disconnect().await;
    // Its own group may give it other keys; and once that is gone, another one.
    let gone = world
        .provisioning("DELETE", "/enrollmentGroups/a", &[], Value::Null)
        .await;
    assert_eq!(gone.status, 204);
    let body = register(&world, "pump", &derived(OTHER_KEY, "pump")).await;
    assert_eq!(
        body["registrationState"]["symmetricKey"],
        json!({"enrollmentGroupId": "b"})
    );
}

#[tokio::test]
async fn a_hub_under_another_name_is_no_other_hub() {
    let world = World::new().await;
    let at = |hub: &str| {
        enrollment(
            "sn-1",
            json!({"allocationPolicy": "static", "iotHubHostName": hub}),
        )
    };
    put(&world, "/enrollments/sn-1", at(HOST)).await;
    register(&world, "sn-1", KEY).await;
    let generation = world.http("GET", "/devices/sn-1", &[], "").await.json()["generationId"].clone();
    // As a registration of the time when the hub was called otherwise would have it.
    use dunlin_model::command::{Command, Query, View};
    use dunlin_model::identity::Condition;
    use dunlin_model::port::ShardClient as _;
    use dunlin_model::provisioning::RegistrationId;
    let id = RegistrationId::parse("sn-1").unwrap();
    let known = world.cluster.query(
        Query::Provisioning(id.clone()),
        dunlin_model::command::Consistency::Leader,
    );
    let View::Provisioning(known) = known.await.unwrap() else {
        panic!("another view")
    };
    let mut spec = known.registration.unwrap().spec;
    spec.hub = "localhost".into();
    let renamed = Command::RegistrationPut {
        id,
        spec: Box::new(spec),
        enrollment: known.enrollment.map(|enrollment| enrollment.version),
        condition: Condition::Present,
    };
    world.cluster.submit(renamed).await.unwrap();
    let body = register(&world, "sn-1", KEY).await;
    let state = &body["registrationState"];
    assert_eq!(
        (&state["assignedHub"], &state["substatus"]),
        (&json!(HOST), &json!("reprovisionedToInitialAssignment"))
    );
    let device = world.http("GET", "/devices/sn-1", &[], "").await.json();
    assert_eq!(device["generationId"], generation, "it is the same device");
}

#[tokio::test]
async fn devices_of_a_group_prove_themselves_with_derived_keys() {
    let world = World::new().await;
    put(
        &world,
        "/enrollmentGroups/plant",
        group("plant", keyed(KEY), json!({})),
    )
    .await;
    let body = register(&world, "Robot-1", &derived(OTHER_KEY, "Robot-1")).await;
    let state = &body["registrationState"];
    assert_eq!(state["deviceId"], "Robot-1");
    assert_eq!(state["symmetricKey"], json!({"enrollmentGroupId": "plant"}));
    for key in [derived(KEY, "Robot-1"), derived(OTHER_KEY, "Robot-1")] {
        let token = device_token(HOST, "Robot-1", &key, NOW_S + 3600).unwrap();
        let hub = ConnectOptions::new(world.tcp(), HOST, "Robot-1", token);
        Client::connect(&hub).await.unwrap().disconnect().await;
    }
    // In another spelling it is the same registration, with the keys of that spelling.
    let body = register(&world, "robot-1", &derived(KEY, "robot-1")).await;
    assert_eq!(body["registrationState"]["deviceId"], "Robot-1");
    assert_eq!(refused(&world, "robot-2", &derived(KEY, "robot-1")).await, 5);
    assert_eq!(
        refused(&world, "robot-2", KEY).await,
        5,
        "the group's key is no device's"
    );

    // An enrolment of one's own comes first, and blocks when it is disabled.
    let more = json!({"provisioningStatus": "disabled"});
    put(&world, "/enrollments/robot-3", enrollment("robot-3", more)).await;
    assert_eq!(refused(&world, "robot-3", &derived(KEY, "robot-3")).await, 5);
    let body = register(&world, "robot-3", KEY).await;
    assert_eq!(
        (&body["status"], &body["registrationState"]["status"]),
        (&json!("disabled"), &json!("disabled"))
    );
    assert_eq!(world.http("GET", "/devices/robot-3", &[], "").await.status, 404);
    change(
        &world,
        "/enrollmentGroups/plant",
        group("plant", keyed(KEY), json!({"provisioningStatus": "disabled"})),
    )
    .await;
    let body = register(&world, "robot-4", &derived(KEY, "robot-4")).await;
    assert_eq!(body["status"], "disabled");

    let found = world
        .provisioning("POST", "/registrations/Plant/query", &[], Value::Null)
        .await;
    let names: Vec<_> = found
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["registrationId"].clone())
        .collect();
    assert_eq!(names, ["Robot-1"]);
    assert_eq!(found.headers["x-ms-item-type"], "deviceRegistration");
}

async fn register_showing(world: &World, name: &str, certificate: &Chain) -> Result<Value, u8> {
    match register_by(&options(showing(world, certificate), name, None)).await {
        Ok((_, body)) => Ok(body),
        Err(ClientError::Refused(code)) => Err(code),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn certificates_open_the_door_of_the_nearest_enrolment() {
    let world = World::new().await;
    let root = authority("root", None);
    let middle = authority("middle", Some(&root));
    let stranger = authority("stranger", None);
    world.cluster.trust("plant-root", &root.pem());
    let by_name = json!({"type": "x509", "x509": {"caReferences": {"primary": "plant-root"}}});
    put(&world, "/enrollmentGroups/all", group("all", by_name, json!({}))).await;
    let shown = leaf("robot-1", &middle, &[&middle]);
    let body = register_showing(&world, "robot-1", &shown).await.unwrap();
    let state = &body["registrationState"];
    assert_eq!(state["x509"], json!({"enrollmentGroupId": "all"}));
    assert_eq!(state["deviceId"], "robot-1");
    // Known to the hub by its thumbprint.
    let hub = ConnectOptions {
        password: None,
        ..ConnectOptions::new(showing(&world, &shown), HOST, "robot-1", String::new())
    };
    Client::connect(&hub).await.unwrap().disconnect().await;

    // One that is nearer to the leaf comes first, and blocks when it is disabled.
    let signing = |issuer: &Issuer| json!({"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": issuer.pem()}}}});
    put(
        &world,
        "/enrollmentGroups/line",
        group("line", signing(&middle), json!({})),
    )
    .await;
    let body = register_showing(&world, "robot-1", &shown).await.unwrap();
    assert_eq!(
        body["registrationState"]["x509"],
        json!({"enrollmentGroupId": "line"})
    );
    // Also when the device shows nothing but its own.
    let alone = leaf("robot-2", &middle, &[]);
    assert!(register_showing(&world, "robot-2", &alone).await.is_ok());
    change(
        &world,
        "/enrollmentGroups/line",
        group(
            "line",
            signing(&middle),
            json!({"provisioningStatus": "disabled"}),
        ),
    )
    .await;
    let body = register_showing(&world, "robot-1", &shown).await.unwrap();
    assert_eq!(body["status"], "disabled");
    let direct = leaf("robot-3", &root, &[]);
    let body = register_showing(&world, "robot-3", &direct).await.unwrap();
    assert_eq!(
        body["registrationState"]["x509"],
        json!({"enrollmentGroupId": "all"})
    );

    // A group's own word is not enough: an authority of the hub must vouch for the chain.
    put(
        &world,
        "/enrollmentGroups/other",
        group("other", signing(&stranger), json!({})),
    )
    .await;
    for (name, certificate) in [
        ("robot-4", leaf("robot-4", &stranger, &[])),
        ("robot-5", leaf("robot-6", &middle, &[&middle])),
    ] {
        assert_eq!(
            register_showing(&world, name, &certificate).await,
            Err(5),
            "{name}"
        );
    }

    // An enrolment of one's own pins the certificate itself, whoever signed it.
    let own = leaf("robot-7", &stranger, &[]);
    let pem = String::from_utf8(own.0.clone()).unwrap();
    let pinned = json!({"registrationId": "robot-7", "attestation": {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": BASE64.encode(&pem)}}}}});
    put(&world, "/enrollments/robot-7", pinned).await;
    let body = register_showing(&world, "robot-7", &own).await.unwrap();
    assert_eq!(body["registrationState"]["x509"], json!({}));
    let other = leaf("robot-7", &stranger, &[]);
    assert_eq!(register_showing(&world, "robot-7", &other).await, Err(5));
    assert_eq!(
        refused(&world, "robot-7", KEY).await,
        5,
        "a token is no certificate"
    );
}

#[tokio::test]
async fn certificates_that_are_not_in_force_open_no_door() {
    let world = World::new().await;
    let root = authority("root", None);
    world.cluster.trust("plant-root", &root.pem());
    let by_name = json!({"type": "x509", "x509": {"caReferences": {"primary": "plant-root"}}});
    put(&world, "/enrollmentGroups/all", group("all", by_name, json!({}))).await;
    let good = leaf("robot-1", &root, &[]);
    assert!(register_showing(&world, "robot-1", &good).await.is_ok());
    let (past, future) = (THIS_YEAR - 1, THIS_YEAR + 1);
    let over = authority_of_year(past, "over", Some(&root));
    for (name, certificate) in [
        ("robot-2", leaf_of_year(past, "robot-2", &root, &[])),
        ("robot-3", leaf_of_year(future, "robot-3", &root, &[])),
        ("robot-4", leaf("robot-4", &over, &[&over])),
    ] {
        let refused = register_showing(&world, name, &certificate).await;
        assert_eq!(refused, Err(5), "{name}");
        let record = world.audit.next("registration.refuse").await;
        assert_eq!(record.who, name);
    }

    // An enrolment of one's own that pins the certificate does not stretch its time.
    for (name, year, is_let_in) in [
        ("own-1", past, false),
        ("own-2", future, false),
        ("own-3", THIS_YEAR, true),
    ] {
        let own = leaf_of_year(year, name, &root, &[]);
        let pem = String::from_utf8(own.0.clone()).unwrap();
        let pinned = json!({"registrationId": name, "attestation": {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": pem}}}}});
        put(&world, &format!("/enrollments/{name}"), pinned).await;
        let registered = register_showing(&world, name, &own).await;
        if is_let_in {
            assert!(registered.is_ok(), "{name}");
            continue;
        }
        assert_eq!(registered, Err(5), "{name}");
        let record = world.audit.next("registration.refuse").await;
        let why = AuditOutcome::Refused("the certificate is not in force".to_owned());
        assert_eq!((record.who.as_str(), record.outcome), (name, why));
    }
}

#[tokio::test]
async fn over_https_a_device_asks_twice() {
    let world = World::new().await;
    put(&world, "/enrollments/sn-1", enrollment("sn-1", json!({}))).await;
    let token = token("sn-1", KEY);
    let headers = [("Authorization", token.as_str())];
    let path = format!("/{SCOPE}/registrations/sn-1");
    let nobody = world.http_as("POST", &path, &headers, b"{}").await;
    assert_eq!(
        (nobody.status, &nobody.json()["errorCode"]),
        (404, &json!(404_202))
    );
    let body = br#"{"registrationId": "sn-1"}"#;
    let asked = world
        .http_as(
            "PUT",
            &format!("{path}/register?api-version=2021-06-01"),
            &headers,
            body,
        )
        .await;
    assert_eq!(
        (asked.status, &asked.json()["status"]),
        (202, &json!("assigning"))
    );
    assert!(asked.headers.contains_key("retry-after"));
    let operation = asked.json()["operationId"].as_str().unwrap().to_owned();
    let told = world
        .http_as(
            "GET",
            &format!("{path}/operations/{operation}?api-version=2021-06-01"),
            &headers,
            b"",
        )
        .await;
    assert_eq!((told.status, &told.json()["status"]), (200, &json!("assigned")));
    assert_eq!(told.json()["registrationState"]["deviceId"], "sn-1");
    change(
        &world,
        "/enrollments/sn-1",
        enrollment("sn-1", json!({"provisioningStatus": "disabled"})),
    )
    .await;
    let asked = world
        .http_as("PUT", &format!("{path}/register"), &headers, body)
        .await;
    assert_eq!(
        (asked.status, &asked.json()["status"]),
        (202, &json!("assigning"))
    );
    let operation = asked.json()["operationId"].as_str().unwrap().to_owned();
    let disabled = world
        .http_as("GET", &format!("{path}/operations/{operation}"), &headers, b"")
        .await;
    assert_eq!(
        (disabled.status, &disabled.json()["status"]),
        (200, &json!("disabled"))
    );
    let away = json!({"allocationPolicy": "static", "iotHubHostName": "gone.example"});
    change(&world, "/enrollments/sn-1", enrollment("sn-1", away)).await;
    let asked = world
        .http_as("PUT", &format!("{path}/register"), &headers, body)
        .await;
    let operation = asked.json()["operationId"].as_str().unwrap().to_owned();
    let failed = world
        .http_as("GET", &format!("{path}/operations/{operation}"), &headers, b"")
        .await
        .json();
    assert_eq!(
        (&failed["status"], &failed["registrationState"]["errorCode"]),
        (&json!("failed"), &json!(400_208))
    );
    let looked = world.http_as("POST", &path, &headers, b"{}").await;
    assert_eq!(looked.json(), told.json()["registrationState"]);
    for (path, headers, body, expected) in [
        (format!("{path}/register"), &[][..], &b"{}"[..], 401),
        (
            "/0neOTHER/registrations/sn-1/register".to_owned(),
            &headers,
            b"{}",
            401,
        ),
        (
            format!("/{SCOPE}/registrations/sn-2/register"),
            &headers,
            b"{}",
            401,
        ),
        (format!("{path}/register"), &headers, b"[", 400),
        (
            format!("{path}/register"),
            &headers,
            br#"{"registrationId": "sn-2"}"#,
            400,
        ),
        (format!("{path}/register"), &headers, &[b' '; 97 * 1024], 413),
    ] {
        let answer = world.http_as("PUT", &path, headers, body).await;
        assert_eq!(answer.status, expected, "{}", answer.body);
        assert_eq!(
            answer.json()["errorCode"].to_string(),
            answer.headers["x-ms-error-code"]
        );
    }
}

/// Another hub with one device at the most, as its service interface shows it.
fn other_hub(world: &World) -> Arc<std::sync::Mutex<(Option<Value>, Value)>> {
    let kept = Arc::new(std::sync::Mutex::new((None::<Value>, json!({}))));
    let state = kept.clone();
    world.outside.answer(move |call| {
        let mut state = state.lock().unwrap();
        let body: Value = serde_json::from_slice(&call.body).unwrap_or(Value::Null);
        let missing = Ok((404, "{}".to_owned()));
        if call.url.starts_with("https://other.example:8443/devices/") {
            return match call.method {
                "GET" => state
                    .0
                    .as_ref()
                    .map_or(missing, |device| Ok((200, device.to_string()))),
                "PUT" => {
                    let mut device = body;
                    device["etag"] = "x".into();
                    state.0 = Some(device.clone());
                    Ok((200, device.to_string()))
                }
                "DELETE" => {
                    *state = (None, json!({}));
                    Ok((204, String::new()))
                }
                other => panic!("{other}"),
            };
        }
        if call.url.starts_with("https://other.example:8443/twins/") {
            if state.0.is_none() {
                return missing;
            }
            if call.method != "GET" {
                state.1 = body;
            }
            return Ok((200, state.1.to_string()));
        }
        Err("nobody is there".to_owned())
    });
    kept
}

fn link(world: &World, host: &str) {
    use dunlin_model::port::ShardClient as _;
    use dunlin_model::provisioning::book::{BookChange, LinkedHub};
    let change = BookChange::HubPut {
        host: host.to_owned(),
        hub: LinkedHub {
            connection_string: format!(
                "HostName={host}:8443;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}"
            ),
            authority: None,
            weight: 1,
        },
    };
    drop(world.cluster.change_book(change));
}

#[tokio::test]
async fn devices_move_between_hubs_with_their_twin_or_without() {
    let world = World::new().await;
    link(&world, "other.example");
    let other = other_hub(&world);
    let at = |hub: &str, more: Value| {
        let mut body = enrollment(
            "sn-1",
            json!({"allocationPolicy": "static", "iotHubHostName": hub}),
        );
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    let initial = json!({"initialTwin": {"tags": {"site": "a"}, "properties": {"desired": {"fps": 5}}}});
    put(&world, "/enrollments/sn-1", at(HOST, initial.clone())).await;
    register(&world, "sn-1", KEY).await;
    let tags = r#"{"tags": {"site": "b"}}"#;
    assert_eq!(world.http("PATCH", "/twins/sn-1", &[], tags).await.status, 200);
    let again = register(&world, "sn-1", KEY).await;
    assert_eq!(
        again["registrationState"]["substatus"],
        "reprovisionedToInitialAssignment"
    );
    assert_eq!(
        twin(&world, "sn-1").await["tags"]["site"],
        "b",
        "nothing is undone"
    );

    // To the other one, with what it has.
    change(&world, "/enrollments/sn-1", at("other.example", initial.clone())).await;
    let moved = register(&world, "sn-1", KEY).await;
    let state = &moved["registrationState"];
    assert_eq!(
        (&state["assignedHub"], &state["substatus"]),
        (&json!("other.example"), &json!("deviceDataMigrated"))
    );
    assert_eq!(world.http("GET", "/devices/sn-1", &[], "").await.status, 404);
    {
        let other = other.lock().unwrap();
        let device = other.0.as_ref().expect("the device");
        assert_eq!(device["authentication"]["symmetricKey"]["primaryKey"], KEY);
        assert_eq!(
            other.1,
            json!({"tags": {"site": "b"}, "properties": {"desired": {"fps": 5}}})
        );
    }
    let asked = world.outside.asked();
    assert!(asked.iter().all(|call| {
        let token = &call
            .headers
            .iter()
            .find(|(name, _)| *name == "authorization")
            .unwrap()
            .1;
        token.contains("sr=other.example%3A8443&") && token.ends_with("skn=iothubowner")
    }));

    // Back again, anew.
    let anew = json!({"reprovisionPolicy": {"updateHubAssignment": true, "migrateDeviceData": false}, "initialTwin": initial["initialTwin"]});
    change(&world, "/enrollments/sn-1", at(HOST, anew.clone())).await;
    let moved = register(&world, "sn-1", KEY).await;
    assert_eq!(moved["registrationState"]["substatus"], "deviceDataReset");
    assert_eq!(twin(&world, "sn-1").await["tags"]["site"], "a");
    assert!(other.lock().unwrap().0.is_none(), "it is gone there");
    assert_eq!(world.http("PATCH", "/twins/sn-1", &[], tags).await.status, 200);
    let reset = register(&world, "sn-1", KEY).await;
    assert_eq!(reset["registrationState"]["substatus"], "deviceDataReset");
    assert_eq!(
        twin(&world, "sn-1").await["tags"]["site"],
        "a",
        "also where it is"
    );

    // Never.
    let never = json!({"reprovisionPolicy": {"updateHubAssignment": false, "migrateDeviceData": false}});
    change(&world, "/enrollments/sn-1", at("other.example", never)).await;
    let stays = register(&world, "sn-1", KEY).await;
    assert_eq!(stays["registrationState"]["assignedHub"], HOST);

    // A hub that does not answer, or says no, or is none.
    change(&world, "/enrollments/sn-1", at("other.example", json!({}))).await;
    let options = options(world.tcp(), "sn-1", Some(token("sn-1", KEY)));
    for (answer, expected) in [(Err(()), 503), (Ok(500), 503), (Ok(429), 503), (Ok(403), 200)] {
        world.outside.answer(move |_| {
            answer
                .map(|status| (status, "{}".to_owned()))
                .map_err(|()| "x".to_owned())
        });
        let (status, body) = register_by(&options).await.unwrap();
        assert_eq!(status, expected, "{answer:?} {body}");
        if status == 200 {
            assert_eq!(body["registrationState"]["status"], "failed");
            assert_eq!(body["registrationState"]["errorCode"], 400_209);
        }
    }
    change(&world, "/enrollments/sn-1", at("third.example", json!({}))).await;
    let failed = register(&world, "sn-1", KEY).await;
    assert_eq!(
        (&failed["status"], &failed["registrationState"]["errorCode"]),
        (&json!("failed"), &json!(400_208))
    );
    let stays = world
        .provisioning("GET", "/registrations/sn-1", &[], Value::Null)
        .await
        .json();
    assert_eq!(stays["assignedHub"], HOST, "what was there stays");
}

#[tokio::test]
async fn a_webhook_chooses_and_the_nearest_hub_is_measured() {
    let world = World::new().await;
    link(&world, "other.example");
    let custom = json!({
        "allocationPolicy": "custom",
        "customAllocationDefinition": {"webhookUrl": "https://fn.example/allocate?code=1", "apiVersion": "2019-03-31"},
        "initialTwin": {"tags": {"site": "enrollment"}},
    });
    put(&world, "/enrollmentGroups/g", group("g", keyed(KEY), custom)).await;
    world.outside.answer(|_| {
        let body = json!({"iotHubHostName": HOST, "initialTwin": {"tags": {"site": "webhook"}}, "payload": {"hello": [1, null]}});
        Ok((200, body.to_string()))
    });
    let own = derived(KEY, "sn-1");
    let options = options(world.tcp(), "sn-1", Some(token("sn-1", &own)));
    let (_, body) = register_with(&options, json!({"model": "x"})).await.unwrap();
    assert_eq!(body["registrationState"]["payload"], json!({"hello": [1, null]}));
    assert_eq!(twin(&world, "sn-1").await["tags"]["site"], "webhook");
    let asked = &world.outside.asked()[0];
    assert_eq!(
        (asked.method, asked.url.as_str()),
        ("POST", "https://fn.example/allocate?code=1")
    );
    let told: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(told["deviceRuntimeContext"]["registrationId"], "sn-1");
    assert_eq!(told["deviceRuntimeContext"]["payload"], json!({"model": "x"}));
    assert_eq!(told["linkedHubs"], json!([HOST, "other.example"]));
    assert_eq!(told["enrollmentGroup"]["enrollmentGroupId"], "g");
    assert!(!told.to_string().contains(KEY), "no secret is told");

    for (answer, status, code) in [
        (
            Ok((200, json!({"iotHubHostName": "third.example"}).to_string())),
            200,
            400_208,
        ),
        (Ok((200, "x".to_owned())), 200, 400_209),
        (
            Ok((
                200,
                json!({"iotHubHostName": HOST, "payload": "x".repeat(20_000)}).to_string(),
            )),
            200,
            400_209,
        ),
        (Ok((400, String::new())), 200, 400_209),
        (Ok((500, String::new())), 503, 0),
        (Err("x".to_owned()), 503, 0),
    ] {
        let answered = answer.clone();
        world.outside.answer(move |_| answered.clone());
        let (got, body) = register_by(&options).await.unwrap();
        assert_eq!(got, status, "{answer:?}");
        if got == 200 {
            assert_eq!(body["registrationState"]["errorCode"], code, "{answer:?}");
        }
    }

    // This hub is the nearest, if it takes devices.
    let near = json!({"allocationPolicy": "geoLatency"});
    put(&world, "/enrollments/near", enrollment("near", near.clone())).await;
    assert_eq!(
        register(&world, "near", KEY).await["registrationState"]["assignedHub"],
        HOST
    );
    put(
        &world,
        "/enrollments/far",
        enrollment(
            "far",
            json!({"allocationPolicy": "geoLatency", "iotHubs": ["other.example"]}),
        ),
    )
    .await;
    other_hub(&world);
    // It does not answer what it is asked first, and that counts for a while.
    let (status, _) = register_by(&self::options(world.tcp(), "far", Some(token("far", KEY))))
        .await
        .unwrap();
    assert_eq!(status, 503);
}
