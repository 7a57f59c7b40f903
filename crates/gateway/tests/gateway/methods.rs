//! Direct methods at the doors: a service calls over HTTPS, a device answers over MQTT.

use dunlin_gateway::client::{Client, Event};
use dunlin_gateway::mqtt::Version;
use dunlin_model::audit::AuditOutcome;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::world::{Answer, HOST, World, next, puback};

const FILTER: &str = "$iothub/methods/POST/#";
const PATH: &str = "/twins/dev-1/methods?api-version=2021-04-12";

async fn listen(client: &mut Client) {
    let id = client.subscribe(FILTER).await.unwrap();
    assert!(matches!(next(client).await, Event::Suback { id: acked, .. } if acked == id));
}

/// The call that comes next: its method, its number and its payload.
async fn called(client: &mut Client) -> (String, String, Value) {
    let Event::Message { topic, payload, .. } = next(client).await else {
        panic!("a call comes")
    };
    let rest = topic.strip_prefix("$iothub/methods/POST/").unwrap();
    let (name, rid) = rest.split_once("/?$rid=").unwrap();
    let payload = serde_json::from_slice(&payload).unwrap();
    (name.to_owned(), rid.to_owned(), payload)
}

async fn answer(client: &mut Client, status: &str, rid: &str, payload: &str) {
    let topic = format!("$iothub/methods/res/{status}/?$rid={rid}");
    let id = client.publish(&topic, payload.as_bytes()).await.unwrap();
    assert_eq!(next(client).await, puback(id));
}

async fn call(world: &World, body: Value) -> Answer {
    world.http("POST", PATH, &[], &body.to_string()).await
}

fn error(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.error_code())
}

#[tokio::test]
async fn an_answer_comes_back_with_its_status() {
    for version in [Version::V3, Version::V5] {
        let world = World::new().await;
        let mut client = world.connect(version).await;
        listen(&mut client).await;
        for (status, said, payload) in [
            ("200", r#"{"ok": true}"#, json!({"ok": true})),
            ("-3", "", Value::Null),
            ("404", "null", Value::Null),
            ("0", "[1, \"two\"]", json!([1, "two"])),
        ] {
            let asking = call(&world, json!({"methodName": "reboot", "payload": {"in": 5}}));
            let device = async {
                let (name, rid, payload) = called(&mut client).await;
                assert_eq!((name.as_str(), payload), ("reboot", json!({"in": 5})));
                answer(&mut client, status, &rid, said).await;
            };
            let (seen, ()) = tokio::join!(asking, device);
            let expected = json!({"status": status.parse::<i64>().unwrap(), "payload": payload});
            assert_eq!((seen.status, seen.json()), (200, expected));
        }
        assert_eq!(
            world
                .gateway
                .metrics()
                .methods_sent
                .load(std::sync::atomic::Ordering::Relaxed),
            4
        );
        client
            .publish("$iothub/methods/res/ok/?$rid=1", b"")
            .await
            .unwrap();
        let reason = (version == Version::V5).then_some(0x90);
        assert_eq!(next(&mut client).await, Event::Disconnected { reason });
    }
}

#[tokio::test]
async fn calls_cross_and_each_gets_its_own_answer() {
    let world = World::new().await;
    let mut client = world.connect(Version::V3).await;
    listen(&mut client).await;
    let first = call(&world, json!({"methodName": "a", "payload": 1}));
    let second = call(&world, json!({"methodName": "b", "payload": 2}));
    let device = async {
        let calls = [called(&mut client).await, called(&mut client).await];
        assert_ne!(calls[0].1, calls[1].1);
        for (name, rid, payload) in calls.iter().rev() {
            answer(&mut client, "200", rid, &json!([name, payload]).to_string()).await;
        }
        // One that was answered is over, and one that never was is nobody's.
        answer(&mut client, "500", &calls[0].1, "").await;
        answer(&mut client, "500", "ff-1", "").await;
    };
    let (first, second, ()) = tokio::join!(first, second, device);
    assert_eq!(first.json()["payload"], json!(["a", 1]));
    assert_eq!(second.json()["payload"], json!(["b", 2]));
}

#[tokio::test]
async fn a_device_that_cannot_be_called_is_told_apart() {
    let world = World::new().await;
    let body = json!({"methodName": "m"});
    assert_eq!(error(&call(&world, body.clone()).await), (404, "DeviceNotOnline"));
    let path = "/twins/nobody/methods";
    let unknown = world.http("POST", path, &[], &body.to_string()).await;
    assert_eq!(error(&unknown), (404, "DeviceNotFound"));
    let mut client = world.connect(Version::V3).await;
    let deaf = call(&world, body.clone()).await;
    assert_eq!(error(&deaf), (404, "DeviceNotOnline"), "it does not listen");
    listen(&mut client).await;
    for (body, expected) in [
        (json!({"methodName": "a/b"}), (400, "ArgumentInvalid")),
        (
            json!({"methodName": "m", "payload": "x".repeat(200_000)}),
            (413, "MessageTooLarge"),
        ),
    ] {
        assert_eq!(error(&call(&world, body).await), expected);
    }
    let device = world.service_token("device");
    let headers = [("Authorization", device.as_str())];
    let refused = world.http_as("POST", PATH, &headers, b"{}").await;
    assert_eq!(error(&refused), (401, "IotHubUnauthorizedAccess"));

    // The answer is no JSON.
    let asking = call(&world, body.clone());
    let device = async {
        let (_, rid, _) = called(&mut client).await;
        answer(&mut client, "200", &rid, "{").await;
    };
    assert_eq!(error(&tokio::join!(asking, device).0), (500, "ServerError"));
    // There is none in time.
    world.cluster.hurry_methods(true);
    let (silent, (_, rid, _)) = tokio::join!(call(&world, body.clone()), called(&mut client));
    assert_eq!(error(&silent), (504, "GatewayTimeout"));
    answer(&mut client, "200", &rid, "1").await;
    world.cluster.hurry_methods(false);
    // The device goes away over it.
    let asking = call(&world, body.clone());
    let device = async {
        called(&mut client).await;
        drop(client);
    };
    let gone = tokio::join!(asking, device).0;
    assert_eq!(error(&gone), (404, "DeviceConnectionClosedRemotely"));
}

#[tokio::test]
async fn a_call_waits_for_its_device_if_it_may() {
    let world = World::new().await;
    let asking = call(&world, json!({"methodName": "m", "connectTimeoutInSeconds": 60}));
    let device = async {
        world.cluster.until_looked_for(3).await;
        let mut client = world.connect(Version::V3).await;
        listen(&mut client).await;
        let (_, rid, _) = called(&mut client).await;
        answer(&mut client, "200", &rid, "7").await;
    };
    let (seen, ()) = tokio::join!(asking, device);
    assert_eq!(seen.json(), json!({"status": 200, "payload": 7}));
}

#[tokio::test]
async fn a_session_that_is_elsewhere_is_looked_for_again() {
    let world = World::new().await;
    let mut client = world.connect(Version::V3).await;
    listen(&mut client).await;
    world.cluster.misdirect_methods(2);
    let asking = call(&world, json!({"methodName": "m"}));
    let device = async {
        let (_, rid, _) = called(&mut client).await;
        answer(&mut client, "200", &rid, "").await;
    };
    assert_eq!(tokio::join!(asking, device).0.status, 200);
    world.cluster.misdirect_methods(1_000_000);
    let never = call(&world, json!({"methodName": "m"})).await;
    assert_eq!(error(&never), (404, "DeviceNotOnline"));
}

#[tokio::test]
async fn each_call_is_kept_in_the_audit_as_it_ended() {
    let world = World::new().await;
    call(&world, json!({"methodName": "early"})).await;
    let early = world.audit.next("method.invoke").await;
    assert_eq!(early.outcome, AuditOutcome::Refused("DeviceNotOnline".into()));
    assert_eq!(
        (early.who.as_str(), early.what.as_str()),
        ("iothubowner", "dev-1")
    );
    assert!(early.detail == "early" && early.from.starts_with("127.0.0.1:"));

    let mut client = world.connect(Version::V3).await;
    listen(&mut client).await;
    for (said, kept) in [("1", AuditOutcome::Done), ("{", AuditOutcome::Done)] {
        let asking = call(&world, json!({"methodName": "m"}));
        let device = async {
            let (_, rid, _) = called(&mut client).await;
            answer(&mut client, "200", &rid, said).await;
        };
        tokio::join!(asking, device);
        assert_eq!(world.audit.next("method.invoke").await.outcome, kept, "{said}");
    }
    world.cluster.hurry_methods(true);
    tokio::join!(call(&world, json!({"methodName": "m"})), called(&mut client));
    assert_eq!(
        world.audit.next("method.invoke").await.outcome,
        AuditOutcome::Unknown
    );
    world.cluster.hurry_methods(false);

    // The caller hangs up once the device is asked.
    let mut stream = world.https().await;
    let token = world.service_token("iothubowner");
    let body = r#"{"methodName": "late"}"#;
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (_, rid, _) = called(&mut client).await;
    drop(stream);
    answer(&mut client, "200", &rid, "1").await;
    let late = world.audit.next("method.invoke").await;
    assert_eq!((late.detail.as_str(), late.outcome), ("late", AuditOutcome::Done));
}
