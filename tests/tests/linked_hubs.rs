//! Two hubs, of which one provisions devices for both: what it assigns to the other is known there, connects there, moves
//! from one to the other, and waits while either is away.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dunlin_gateway::client::{Client, ConnectOptions, Event, Transport, device_token};
use dunlin_gateway::mqtt::Version;
use dunlin_tests::field::Field;
use dunlin_tests::registering::register;
use dunlin_tests::{PATIENCE, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// What the other hub is called: a name that leads to it, and that the first one has not.
const OTHER: &str = "127.0.1.1";
const OTHER_NET: [u8; 3] = [127, 0, 1];

/// Both hubs, the first linked with the other.
struct Hubs {
    first: Field,
    other: Field,
    scope: String,
}

/// What an operator asks of a hub, which must say yes.
async fn must(field: &Field, method: Method, path: &str, body: Value) -> Value {
    let (status, answer) = field.hub.call(method, path, Some(body)).await;
    assert!(status.is_success(), "{path}: {status} {answer}");
    answer
}

impl Hubs {
    async fn start() -> Hubs {
        let first = Field::start(3, &[]).await;
        let other = Field::on_subnet(1, OTHER_NET, &["--host-name", OTHER]).await;
        let ready = other.cluster.ready();
        let authority = std::fs::read_to_string(&ready.ca_file).expect("the authority's certificate");
        let link = json!({ "connectionString": ready.connection_string, "authority": authority });
        let path = format!("/provisioning/linkedHubs/{OTHER}");
        let shown = must(&first, Method::PUT, &path, link).await;
        let scope = shown["idScope"].as_str().expect("an id scope").to_owned();
        Hubs { first, other, scope }
    }

    /// Enrols `name` with a key of its own, to be sent to `hub`.
    async fn enrol(&self, name: &str, hub: &str) -> String {
        let key = BASE64.encode([7; 32]);
        let keys = json!({ "primaryKey": key, "secondaryKey": BASE64.encode([8; 32]) });
        let body = json!({
            "registrationId": name,
            "attestation": { "type": "symmetricKey", "symmetricKey": keys },
            "allocationPolicy": "static",
            "iotHubHostName": hub,
            "initialTwin": { "tags": { "site": "a" }, "properties": { "desired": { "fps": 5 } } },
        });
        must(&self.first, Method::PUT, &format!("/enrollments/{name}"), body).await;
        key
    }

    /// Registers at one of the first hub's gateways until it is told something that is not "later"; where it was assigned.
    async fn assigned(&self, name: &str, key: &str) -> String {
        let mut door = 0;
        let body = eventually("a registration answered", PATIENCE, || {
            let at = &self.first.hub.doors[door % self.first.hub.doors.len()];
            door += 1;
            async move {
                match register(at, &self.scope, name, key).await {
                    Ok((200, body)) => Ok(body),
                    other => Err(format!("{other:?}")),
                }
            }
        })
        .await;
        let state = &body["registrationState"];
        assert_eq!(
            (&body["status"], &state["deviceId"]),
            (&json!("assigned"), &json!(name)),
            "{body}"
        );
        state["assignedHub"].as_str().expect("a hub").to_owned()
    }

    /// Connects to the other hub by the name that was assigned, and has a message stored there.
    async fn send(&self, name: &str, key: &str, body: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let expiry_s = now.map_or(0, |since| since.as_secs()) + 3600;
        let transport = Transport::Tls {
            address: self.other.hub.doors[0].mqtts.clone(),
            server_name: OTHER.to_owned(),
            config: self.other.hub.doors[0].tls.clone(),
        };
        let token = device_token(OTHER, name, key, expiry_s).expect("the key is one of ours");
        let options = ConnectOptions {
            version: Version::V5,
            ..ConnectOptions::new(transport, OTHER, name, token)
        };
        let mut client = Client::connect(&options).await.expect("a session");
        let topic = format!("devices/{name}/messages/events/");
        let sent = client.publish(&topic, body).await.expect("it is sent");
        loop {
            match client.next_event().await {
                Event::Puback { id, .. } if id == sent => return,
                Event::Disconnected { reason } => panic!("sent away: {reason:?}"),
                _ => {}
            }
        }
    }
}

async fn status(field: &Field, path: &str) -> StatusCode {
    field.hub.call(Method::GET, path, None).await.0
}

#[tokio::test]
async fn a_device_is_assigned_to_another_hub_and_connects_there() {
    let mut hubs = Hubs::start().await;
    let key = hubs.enrol("pump", OTHER).await;
    assert_eq!(hubs.assigned("pump", &key).await, OTHER);
    assert_eq!(status(&hubs.first, "/devices/pump").await, StatusCode::NOT_FOUND);
    let (_, twin) = hubs.other.hub.call(Method::GET, "/twins/pump", None).await;
    assert_eq!(
        (&twin["tags"]["site"], &twin["properties"]["desired"]["fps"]),
        (&json!("a"), &json!(5)),
        "{twin}"
    );
    hubs.send("pump", &key, b"one").await;
    assert_eq!(hubs.other.hub.read_device("pump").await, [b"one"]);
    assert!(hubs.first.hub.read_all().await.is_empty());

    // A node of the hub that provisions dies, and then the other hub; whoever comes meanwhile is told to come again.
    hubs.first.kill(1).await;
    assert_eq!(hubs.assigned("pump", &key).await, OTHER, "it stays where it is");
    hubs.other.kill(0).await;
    let late = hubs.enrol("late", OTHER).await;
    let told = register(&hubs.first.hub.doors[0], &hubs.scope, "late", &late).await;
    assert!(matches!(told, Ok((503, _))), "{told:?}");
    assert_eq!(
        status(&hubs.first, "/registrations/late").await,
        StatusCode::NOT_FOUND,
        "nobody says that it is assigned"
    );
    hubs.other.restart(0).await;
    assert_eq!(hubs.assigned("late", &late).await, OTHER);
    hubs.send("late", &late, b"two").await;

    // It is wanted at the first hub from now on, and what is known of it goes along.
    let path = "/enrollments/pump";
    let (_, mut enrollment) = hubs.first.hub.call(Method::GET, path, None).await;
    let etag = enrollment["etag"].as_str().expect("an etag").to_owned();
    enrollment["iotHubHostName"] = json!("localhost");
    let change = hubs.first.hub.request_as_admin(0, Method::PUT, path);
    let changed = change.header("If-Match", etag).json(&enrollment).send().await;
    let changed = changed.expect("an answer");
    assert!(changed.status().is_success(), "{}", changed.status());
    must(
        &hubs.other,
        Method::PATCH,
        "/twins/pump",
        json!({ "tags": { "room": 9 } }),
    )
    .await;
    assert_eq!(hubs.assigned("pump", &key).await, "localhost");
    assert_eq!(status(&hubs.other, "/devices/pump").await, StatusCode::NOT_FOUND);
    let (_, twin) = hubs.first.hub.call(Method::GET, "/twins/pump", None).await;
    assert_eq!(twin["tags"], json!({ "site": "a", "room": 9 }));
    assert_eq!(status(&hubs.other, "/devices/late").await, StatusCode::OK);
    hubs.first.stop().await;
    hubs.other.stop().await;
}
