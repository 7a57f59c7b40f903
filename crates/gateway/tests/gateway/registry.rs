//! The registry at the doors: modules, certificates, many changes in one request.

use dunlin_gateway::auth;
use dunlin_gateway::client::{Client, ConnectOptions, Event, Transport, sdk_username};
use dunlin_gateway::mqtt::Version;
use dunlin_model::audit::AuditOutcome;
use dunlin_model::id::DeviceId;
use dunlin_model::port::ShardClient as _;
use serde_json::{Value, json};

use crate::fake::KEY;
use crate::world::{Answer, HOST, NOW_S, World, certificate, next, puback};

async fn put(world: &World, path: &str, body: Value) -> Answer {
    world.http("PUT", path, &[], &body.to_string()).await
}

/// Devices in the listing.
async fn device_count(world: &World) -> usize {
    let answer = world.http("GET", "/devices", &[], "").await.json();
    answer.as_array().unwrap().len()
}

fn error(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.error_code())
}

fn with_key() -> Value {
    json!({"authentication": {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}})
}

/// How a module of `dev-1` connects.
fn module_options(world: &World, module: &str) -> ConnectOptions {
    let name = format!("dev-1/{module}");
    let resource = format!("{HOST}/devices/dev-1/modules/{module}");
    let token = auth::sign(&resource, KEY, NOW_S + 3600, None).unwrap();
    ConnectOptions::new(world.tcp(), HOST, &name, token)
}

#[tokio::test]
async fn a_module_lives_with_its_device() {
    let world = World::new().await;
    let path = "/devices/dev-1/modules/cam";
    let nobody = put(&world, "/devices/nobody/modules/cam", json!({})).await;
    assert_eq!(error(&nobody), (404, "DeviceNotFound"));
    let missing = world.http("GET", path, &[], "").await;
    assert_eq!(error(&missing), (404, "ModuleNotFound"));
    let mut body = with_key();
    body["managedBy"] = json!("edge");
    let made = put(&world, path, body).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let module = made.json();
    assert_eq!(
        (&module["deviceId"], &module["moduleId"], &module["managedBy"]),
        (&json!("dev-1"), &json!("cam"), &json!("edge"))
    );
    assert_eq!(module.get("status"), None, "it follows its device");
    assert_eq!(
        error(&put(&world, path, json!({})).await),
        (409, "ModuleAlreadyExistsOnDevice")
    );
    let other = put(&world, path, json!({"moduleId": "else"})).await;
    assert_eq!(error(&other), (400, "ArgumentInvalid"));

    // It connects, sends, has a twin, and can be called.
    let mut client = Client::connect(&module_options(&world, "cam")).await.unwrap();
    let id = client
        .publish("devices/dev-1/modules/cam/messages/events/a=b", b"hi")
        .await
        .unwrap();
    assert_eq!(next(&mut client).await, puback(id));
    let name = DeviceId::parse_identity("dev-1/cam").unwrap();
    assert_eq!(&world.cluster.records(&name)[0].payload[..], b"hi");
    let shard = world.cluster.shard_of(&name);
    let events = world
        .http("GET", &format!("/events/{shard}?from=0"), &[], "")
        .await
        .json();
    let event = &events["events"][0];
    assert_eq!(
        (&event["deviceId"], &event["moduleId"]),
        (&json!("dev-1"), &json!("cam"))
    );
    assert_eq!(event["systemProperties"]["iothub-connection-module-id"], "cam");
    let wanted = json!({"properties": {"desired": {"fps": 5}}});
    let twin_path = "/twins/dev-1/modules/cam";
    let twin = world.http("PATCH", twin_path, &[], &wanted.to_string()).await;
    assert_eq!((twin.status, &twin.json()["moduleId"]), (200, &json!("cam")));
    assert_eq!(twin.json()["connectionState"], "Connected");
    let of_device = world.http("GET", "/twins/dev-1", &[], "").await.json();
    assert_eq!(of_device["properties"]["desired"].get("fps"), None);
    client.subscribe("$iothub/methods/POST/#").await.unwrap();
    assert!(matches!(next(&mut client).await, Event::Suback { .. }));
    let asking = world.http(
        "POST",
        "/twins/dev-1/modules/cam/methods",
        &[],
        r#"{"methodName": "m"}"#,
    );
    let device = async {
        let Event::Message { topic, .. } = next(&mut client).await else {
            panic!("a call comes")
        };
        let rid = topic.split_once("$rid=").unwrap().1;
        let answer = format!("$iothub/methods/res/200/?$rid={rid}");
        client.publish(&answer, b"1").await.unwrap();
        client.flush().await.unwrap();
    };
    assert_eq!(
        tokio::join!(asking, device).0.json(),
        json!({"status": 200, "payload": 1})
    );
    next(&mut client).await;

    // The device's own listing and counts know nothing of it.
    put(&world, "/devices/dev-1/modules/mic", json!({})).await;
    let listed = world.http("GET", "/devices/dev-1/modules", &[], "").await.json();
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|module| &module["moduleId"])
        .collect();
    assert_eq!(names, ["cam", "mic"]);
    assert_eq!(device_count(&world).await, 1);
    let counts = world.http("GET", "/statistics/devices", &[], "").await.json();
    assert_eq!(
        counts,
        json!({"totalDeviceCount": 1, "enabledDeviceCount": 1, "disabledDeviceCount": 0})
    );
    let connected = world.http("GET", "/statistics/service", &[], "").await.json();
    assert_eq!(connected, json!({"connectedDeviceCount": 0}));

    // Disabling the device cuts it off; deleting the device takes it along.
    let disable = world
        .http(
            "PUT",
            "/devices/dev-1",
            &[("If-Match", "*")],
            r#"{"status": "disabled"}"#,
        )
        .await;
    assert_eq!(disable.status, 200);
    assert!(matches!(next(&mut client).await, Event::Disconnected { .. }));
    assert_eq!(world.refusal(&module_options(&world, "cam")).await, 5);
    let counts = world.http("GET", "/statistics/devices", &[], "").await.json();
    assert_eq!(
        (&counts["enabledDeviceCount"], &counts["disabledDeviceCount"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(
        world
            .http("DELETE", "/devices/dev-1", &[("If-Match", "*")], "")
            .await
            .status,
        204
    );
    assert_eq!(
        error(&world.http("GET", path, &[], "").await),
        (404, "ModuleNotFound")
    );
    put(&world, "/devices/dev-1", with_key()).await;
    assert_eq!(
        error(&world.http("GET", path, &[], "").await),
        (404, "ModuleNotFound")
    );
    assert_eq!(
        error(&world.http("GET", twin_path, &[], "").await),
        (404, "ModuleNotFound")
    );
}

#[tokio::test]
async fn names_of_others_open_no_door_for_a_module() {
    let world = World::new().await;
    put(&world, "/devices/dev-1/modules/cam", with_key()).await;
    let good = module_options(&world, "cam");
    for (username, client_id, code) in [
        (sdk_username(HOST, "dev-1/cam"), "dev-1", 2),
        (sdk_username(HOST, "dev-1/mic"), "dev-1/mic", 5),
        (sdk_username(HOST, "dev-2/cam"), "dev-2/cam", 5),
        // The module's token does not speak for the device.
        (sdk_username(HOST, "dev-1"), "dev-1", 5),
    ] {
        let options = ConnectOptions {
            username,
            client_id: client_id.to_owned(),
            ..good.clone()
        };
        assert_eq!(world.refusal(&options).await, code, "{client_id}");
    }
    let mut client = Client::connect(&good).await.unwrap();
    client
        .publish("devices/dev-1/messages/events/", b"x")
        .await
        .unwrap();
    assert!(matches!(next(&mut client).await, Event::Disconnected { .. }));
}

#[tokio::test]
async fn a_device_has_so_many_modules() {
    let world = World::new().await;
    for number in 0..50 {
        let made = put(&world, &format!("/devices/dev-1/modules/m{number}"), json!({})).await;
        assert_eq!(made.status, 200);
    }
    let full = put(&world, "/devices/dev-1/modules/more", json!({})).await;
    assert_eq!(error(&full), (413, "TooManyModulesOnDevice"));
    assert_eq!(
        world
            .http("DELETE", "/devices/dev-1/modules/m7", &[], "")
            .await
            .status,
        204
    );
    assert_eq!(
        put(&world, "/devices/dev-1/modules/more", json!({})).await.status,
        200
    );
}

#[tokio::test]
async fn a_certificate_opens_the_door_by_its_thumbprint() {
    let world = World::new().await;
    let (own, other) = (certificate(), certificate());
    let body = |print: &str| json!({"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": print}}});
    let made = put(&world, "/devices/x509", body(&thumbprint(&own.0))).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let authentication = &made.json()["authentication"];
    assert_eq!(authentication["type"], "selfSigned");
    assert_eq!(authentication["symmetricKey"]["primaryKey"], Value::Null);
    let options = |identity: &(Vec<u8>, Vec<u8>), websocket: bool| {
        let (server_name, config) = ("localhost".to_owned(), world.showing(identity));
        let transport = if websocket {
            Transport::WebSocket {
                address: world.gateway.https_addresses()[0].to_string(),
                server_name,
                config,
            }
        } else {
            Transport::Tls {
                address: world.gateway.mqtts_addresses()[0].to_string(),
                server_name,
                config,
            }
        };
        ConnectOptions {
            password: None,
            version: Version::V5,
            ..ConnectOptions::new(transport, HOST, "x509", String::new())
        }
    };
    for websocket in [false, true] {
        let mut client = Client::connect(&options(&own, websocket)).await.unwrap();
        let id = client
            .publish("devices/x509/messages/events/", b"x")
            .await
            .unwrap();
        assert_eq!(next(&mut client).await, puback(id));
        assert_eq!(world.refusal(&options(&other, websocket)).await, 0x87);
    }
    let without = ConnectOptions {
        transport: world.tls(),
        ..options(&own, false)
    };
    assert_eq!(world.refusal(&without).await, 0x87);
    // The same over HTTPS.
    for (identity, status) in [(&own, 204), (&other, 401)] {
        let stream = world.https_with(world.showing(identity)).await;
        let sent = World::ask(stream, ("POST", "/devices/x509/messages/events"), &[], b"x").await;
        assert_eq!(sent.status, status);
    }
    let event = &world.cluster.records(&DeviceId::parse("x509").unwrap())[0];
    assert_eq!(event.auth, dunlin_model::telemetry::AuthMethod::X509);

    // Another thumbprint ends what the first one opened.
    let mut client = Client::connect(&options(&own, false)).await.unwrap();
    let change = body(&thumbprint(&other.0)).to_string();
    let changed = world
        .http("PUT", "/devices/x509", &[("If-Match", "*")], &change)
        .await;
    assert_eq!(changed.status, 200);
    assert_eq!(
        next(&mut client).await,
        Event::Disconnected { reason: Some(0x87) }
    );
    assert_eq!(world.refusal(&options(&own, false)).await, 0x87);
    Client::connect(&options(&other, false)).await.unwrap();
}

/// SHA-256 of the first certificate, as operators copy it.
fn thumbprint(pem: &[u8]) -> String {
    use rustls::pki_types::pem::PemObject as _;
    let der = rustls::pki_types::CertificateDer::from_pem_slice(pem).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, &der);
    let hex: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.join(":")
}

#[tokio::test]
async fn a_list_of_changes_is_carried_out_as_far_as_it_goes() {
    let world = World::new().await;
    let post = async |body: Value| world.http("POST", "/devices", &[], &body.to_string()).await;
    let done = post(json!([
        {"id": "a", "importMode": "create", "tags": {"room": 1}, "properties": {"desired": {"x": 1}}},
        {"id": "b", "importMode": "create", "status": "disabled"},
        {"id": "dev-1", "importMode": "update", "status": "disabled", "statusReason": "why"},
    ]))
    .await;
    assert_eq!((done.status, &done.json()["isSuccessful"]), (200, &json!(true)));
    assert_eq!(done.error_code(), "");
    let twin = world.http("GET", "/twins/a", &[], "").await.json();
    assert_eq!(
        (&twin["tags"]["room"], &twin["properties"]["desired"]["x"]),
        (&json!(1), &json!(1))
    );
    let seen = world.http("GET", "/devices/dev-1", &[], "").await.json();
    assert_eq!(
        (&seen["status"], &seen["statusReason"]),
        (&json!("disabled"), &json!("why"))
    );
    assert_eq!(
        seen["authentication"]["symmetricKey"]["primaryKey"], KEY,
        "keys are kept"
    );

    for (action, what) in [("device.create", "a"), ("twin.update", "a")] {
        let record = world.audit.next(action).await;
        assert_eq!(
            (record.what.as_str(), &record.outcome),
            (what, &AuditOutcome::Done)
        );
        assert!(record.from.starts_with("127.0.0.1:"), "{action}");
    }
    let etag = &seen["etag"];
    let partly = post(json!([
        {"id": "a", "importMode": "create"},
        {"id": "a", "moduleId": "m", "importMode": "create"},
        {"id": "b", "importMode": "updateTwin", "tags": {"floor": 2}},
        {"id": "c", "importMode": "updateTwin", "tags": {"floor": 2}},
        {"id": "dev-1", "importMode": "updateIfMatchETag", "eTag": etag, "status": "enabled"},
        {"id": "gone", "importMode": "delete"},
    ]))
    .await;
    assert_eq!(error(&partly), (400, "BulkRegistryOperationFailure"));
    let answer = partly.json();
    assert_eq!(answer["isSuccessful"], false);
    let failed: Vec<_> = answer["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            (
                error["deviceId"].as_str().unwrap(),
                error["errorCode"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        failed,
        [
            ("a", "DeviceAlreadyExists"),
            ("c", "DeviceNotFound"),
            ("gone", "DeviceNotFound")
        ]
    );
    assert_eq!(
        world.http("GET", "/devices/a/modules/m", &[], "").await.status,
        200
    );
    let stale = post(json!([
        {"id": "dev-1", "importMode": "deleteIfMatchETag", "eTag": etag},
        {"id": "a", "importMode": "updateTwinIfMatchETag", "twinETag": "AAAAAAAAAAE=", "tags": {}},
    ]))
    .await;
    for error in stale.json()["errors"].as_array().unwrap() {
        assert_eq!(error["errorCode"], "PreconditionFailed");
    }
    assert_eq!(stale.json()["errors"].as_array().unwrap().len(), 2);
    // What cannot be read keeps its identity from coming to be as well.
    let unreadable = post(json!([{"id": "n", "importMode": "create", "tags": {"a.b": 1}}])).await;
    assert_eq!(unreadable.json()["errors"][0]["errorCode"], "ArgumentInvalid");
    assert_eq!(
        error(&world.http("GET", "/devices/n", &[], "").await),
        (404, "DeviceNotFound")
    );
    // A device and its modules are changed one after the other.
    let both = post(json!([{"id": "p"}, {"id": "p", "moduleId": "m"}])).await;
    assert_eq!(both.status, 200, "{}", both.body);
    let gone = post(json!([
        {"id": "p", "moduleId": "m", "importMode": "Delete"},
        {"id": "p", "importMode": "delete"},
        {"id": "a", "importMode": "delete"},
        {"id": "b", "importMode": "delete"},
    ]))
    .await;
    assert_eq!(gone.status, 200);
    assert_eq!(device_count(&world).await, 1);

    for (body, expected) in [
        (json!({}), (400, "ArgumentInvalid")),
        (
            json!([{"id": "a"}, {"id": "a"}]),
            (400, "DeviceDefinedMultipleTimes"),
        ),
        (
            json!(
                (0..101)
                    .map(|n| json!({"id": format!("d{n}")}))
                    .collect::<Vec<_>>()
            ),
            (413, "TooManyDevices"),
        ),
    ] {
        assert_eq!(error(&post(body).await), expected);
    }
}
