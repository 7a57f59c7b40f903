//! Cloud-to-device messages at the doors: services send and look after them over HTTPS, devices take them over MQTT and
//! HTTPS.

use dunlin_gateway::client::{Client, ConnectOptions, Event, device_token};
use dunlin_gateway::mqtt::Version;
use dunlin_model::messages::QUEUE_MESSAGES_MAX;
use dunlin_model::owed::BATCH_LOCK_MS;
use serde_json::{Value, json};

use crate::fake::KEY;
use crate::world::{Answer, HOST, NOW_S, World, next};

const FILTER: &str = "devices/dev-1/messages/devicebound/#";
const QUEUE: &str = "/devices/dev-1/messages/devicebound?api-version=2021-04-12";
const LETTERS: &str = "/devices/dev-1/messages/deadletters";
const FEEDBACK: &str = "/messages/serviceBound/feedback";

async fn send(world: &World, id: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("IoTHub-MessageId", id), ("iothub-app-n", id)];
    all.extend_from_slice(headers);
    world.http("POST", QUEUE, &all, &format!("body of {id}")).await
}

async fn sent(world: &World, id: &str, headers: &[(&str, &str)]) -> u64 {
    let answer = send(world, id, headers).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.json()["messageId"], id);
    answer.json()["sequenceNumber"].as_u64().unwrap()
}

async fn listen(client: &mut Client) {
    let id = client.subscribe(FILTER).await.unwrap();
    assert!(matches!(next(client).await, Event::Suback { id: acked, codes } if acked == id && codes == [1]));
}

/// A message as it came: its id by the sender, its packet id, and whether it came before.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    id: String,
    packet_id: Option<u16>,
    dup: bool,
}

async fn came(client: &mut Client) -> Came {
    let event = next(client).await;
    let Event::Message { payload, id, dup, .. } = event else {
        panic!("a message comes, not {event:?}")
    };
    let text = String::from_utf8(payload.to_vec()).unwrap();
    Came {
        id: text.strip_prefix("body of ").unwrap().to_owned(),
        packet_id: id,
        dup,
    }
}

fn first(id: &str, packet_id: u16) -> Came {
    Came {
        id: id.to_owned(),
        packet_id: Some(packet_id),
        dup: false,
    }
}

async fn queued(world: &World) -> u64 {
    let device = world.http("GET", "/devices/dev-1", &[], "").await;
    device.json()["cloudToDeviceMessageCount"].as_u64().unwrap()
}

/// Waits until so many messages are left in the queue.
async fn until_queued(world: &World, count: u32) {
    let device = world.device.clone();
    world.cluster.until_queued(&device, count).await;
}

fn manual(world: &World, version: Version) -> ConnectOptions {
    ConnectOptions {
        acknowledges: false,
        ..world.options(version)
    }
}

#[tokio::test]
async fn a_message_waits_for_its_device_and_arrives_with_its_properties() {
    for version in [Version::V3, Version::V5] {
        let world = World::new().await;
        let headers = [("iothub-contenttype", "text/plain")];
        assert_eq!(sent(&world, "m/1", &headers).await, 1);
        assert_eq!(queued(&world).await, 1);
        let mut client = world.connect(version).await;
        listen(&mut client).await;
        let Event::Message {
            topic,
            payload,
            properties,
            ..
        } = next(&mut client).await
        else {
            panic!("it comes")
        };
        assert_eq!(&payload[..], b"body of m/1");
        let prefix = "devices/dev-1/messages/devicebound/";
        let bag = topic.strip_prefix(prefix).unwrap();
        let to = "/devices/dev-1/messages/devicebound";
        match version {
            Version::V3 => {
                let pairs: Vec<&str> = bag.split('&').collect();
                assert!(pairs.contains(&"%24.mid=m%2F1"), "{bag}");
                assert!(pairs.contains(&"%24.ct=text%2Fplain"), "{bag}");
                assert!(
                    pairs.contains(&"%24.to=%2Fdevices%2Fdev-1%2Fmessages%2Fdevicebound"),
                    "{bag}"
                );
                assert!(pairs.contains(&"n=m%2F1"), "{bag}");
            }
            Version::V5 => {
                let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
                assert_eq!(bag, "");
                for expected in [
                    pair("$.ct", "text/plain"),
                    pair("$.mid", "m/1"),
                    pair("$.to", to),
                    pair("n", "m/1"),
                ] {
                    assert!(properties.contains(&expected), "{properties:?}");
                }
            }
        }
        client.flush().await.unwrap();
        until_queued(&world, 0).await;
        // One that comes while the device listens.
        assert_eq!(sent(&world, "m2", &[]).await, 2);
        assert_eq!(came(&mut client).await, first("m2", 2));
        client.flush().await.unwrap();
        until_queued(&world, 0).await;
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_to_the_next_session_without_a_subscription() {
    let world = World::new().await;
    for id in ["a", "b", "c"] {
        sent(&world, id, &[("iothub-ack", "full")]).await;
    }
    let mut client = Client::connect(&manual(&world, Version::V3)).await.unwrap();
    listen(&mut client).await;
    for (id, packet_id) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(came(&mut client).await, first(id, packet_id));
    }
    client.acknowledge(2);
    client.ping().await.unwrap();
    assert_eq!(next(&mut client).await, Event::Pong);
    until_queued(&world, 2).await;
    drop(client);
    let mut client = Client::connect(&manual(&world, Version::V3)).await.unwrap();
    assert!(client.session_present());
    for (id, packet_id) in [("a", 1), ("c", 3)] {
        let expected = Came {
            dup: true,
            ..first(id, packet_id)
        };
        assert_eq!(came(&mut client).await, expected);
        client.acknowledge(packet_id);
    }
    client.flush().await.unwrap();
    until_queued(&world, 0).await;
    let feedback = all_feedback(&world).await;
    assert_eq!(
        feedback,
        [("b", "Success"), ("a", "Success"), ("c", "Success")].map(owned)
    );
}

fn owned((id, end): (&str, &str)) -> (String, String) {
    (id.to_owned(), end.to_owned())
}

/// Takes and completes all feedback there is: ids and ends.
async fn all_feedback(world: &World) -> Vec<(String, String)> {
    let mut all = Vec::new();
    loop {
        let answer = world.http("GET", FEEDBACK, &[], "").await;
        if answer.status == 204 {
            return all;
        }
        assert_eq!(answer.status, 200, "{}", answer.body);
        let kind = "application/vnd.microsoft.iothub.feedback.json";
        assert_eq!(answer.headers["content-type"], kind);
        for record in answer.json().as_array().unwrap() {
            assert_eq!(record["deviceId"], "dev-1");
            let text = |key: &str| record[key].as_str().unwrap().to_owned();
            all.push((text("originalMessageId"), text("statusCode")));
        }
        let lock = answer.headers["etag"].trim_matches('"').to_owned();
        let path = format!("{FEEDBACK}/{lock}");
        assert_eq!(world.http("DELETE", &path, &[], "").await.status, 204);
        let again = world.http("DELETE", &path, &[], "").await;
        assert_eq!(again.error_code(), "DeviceMessageLockLost");
    }
}

#[tokio::test]
async fn feedback_whose_taker_is_gone_comes_again_although_nothing_else_happens() {
    let world = World::new().await;
    sent(&world, "a", &[("iothub-ack", "negative")]).await;
    let purged = world.http("DELETE", "/devices/dev-1/commands", &[], "").await;
    assert_eq!(purged.status, 200, "{}", purged.body);
    let taken = world.http("GET", FEEDBACK, &[], "").await;
    assert_eq!(taken.status, 200, "{}", taken.body);
    assert_eq!(
        world.http("GET", FEEDBACK, &[], "").await.status,
        204,
        "it is another's"
    );
    // No entry has a stamp from after that time.
    world.cluster.pass_ms(BATCH_LOCK_MS);
    assert_eq!(all_feedback(&world).await, [owned(("a", "Purged"))]);
}

#[tokio::test]
async fn what_a_device_acknowledges_before_it_leaves_is_done_with() {
    let world = World::new().await;
    for id in ["a", "b"] {
        sent(&world, id, &[]).await;
    }
    let mut client = world.connect(Version::V3).await;
    listen(&mut client).await;
    came(&mut client).await;
    came(&mut client).await;
    client.disconnect().await;
    until_queued(&world, 0).await;
    let mut client = world.connect(Version::V3).await;
    sent(&world, "c", &[]).await;
    assert_eq!(came(&mut client).await, first("c", 3));
}

#[tokio::test]
async fn a_client_is_given_no_more_than_it_takes() {
    let world = World::new().await;
    for n in 1..=4 {
        sent(&world, &n.to_string(), &[]).await;
    }
    let options = ConnectOptions {
        receive_max: Some(2),
        ..manual(&world, Version::V5)
    };
    let mut client = Client::connect(&options).await.unwrap();
    listen(&mut client).await;
    assert_eq!(came(&mut client).await, first("1", 1));
    assert_eq!(came(&mut client).await, first("2", 2));
    client.ping().await.unwrap();
    assert_eq!(next(&mut client).await, Event::Pong, "no third one");
    client.acknowledge(2);
    assert_eq!(came(&mut client).await, first("3", 3));
    client.acknowledge(1);
    assert_eq!(came(&mut client).await, first("4", 4));
}

#[tokio::test]
async fn what_a_device_refuses_becomes_a_dead_letter_that_can_be_read_and_sent_again() {
    let world = World::new().await;
    let options = ConnectOptions {
        packet_bytes_max: Some(512),
        ..manual(&world, Version::V5)
    };
    let mut client = Client::connect(&options).await.unwrap();
    listen(&mut client).await;
    sent(&world, "bad", &[("iothub-ack", "negative")]).await;
    assert_eq!(came(&mut client).await, first("bad", 1));
    client.refuse(1, 0x83);
    client.flush().await.unwrap();
    until_queued(&world, 0).await;
    // Larger than the client takes.
    let long = "x".repeat(600);
    sent(&world, "long", &[("iothub-app-long", &long)]).await;
    until_queued(&world, 0).await;
    let letters = world.http("GET", LETTERS, &[], "").await.json();
    let reasons: Vec<(&str, &str)> = letters
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| {
            (
                letter["messageId"].as_str().unwrap(),
                letter["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(reasons, [("bad", "Rejected"), ("long", "Rejected")]);
    assert_eq!(letters[0]["ack"], "negative");
    let letter = world.http("GET", &format!("{LETTERS}/1"), &[], "").await;
    assert_eq!((letter.status, letter.body.as_str()), (200, "body of bad"));
    assert_eq!(letter.headers["iothub-messageid"], "bad");
    let again = world
        .http("POST", &format!("{LETTERS}/1/resubmit"), &[], "")
        .await;
    assert_eq!(
        (again.status, again.json()["sequenceNumber"].as_u64()),
        (201, Some(3))
    );
    assert_eq!(came(&mut client).await, first("bad", 3));
    client.acknowledge(3);
    client.flush().await.unwrap();
    until_queued(&world, 0).await;
    assert_eq!(
        world
            .http("DELETE", &format!("{LETTERS}/2"), &[], "")
            .await
            .status,
        204
    );
    for (method, path) in [
        ("DELETE", format!("{LETTERS}/2")),
        ("GET", format!("{LETTERS}/1")),
        ("POST", format!("{LETTERS}/1/resubmit")),
    ] {
        assert_eq!(
            world.http(method, &path, &[], "").await.error_code(),
            "NotFound",
            "{method} {path}"
        );
    }
    assert_eq!(world.http("GET", LETTERS, &[], "").await.json(), json!([]));
    assert_eq!(
        all_feedback(&world).await,
        [owned(("bad", "Rejected"))],
        "once, as asked"
    );
}

/// A request by the device itself.
async fn by_device(world: &World, method: &str, path: &str) -> Answer {
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 60).unwrap();
    world
        .http_as(method, path, &[("Authorization", &token)], b"")
        .await
}

#[tokio::test]
async fn a_device_fetches_and_settles_over_https() {
    let world = World::new().await;
    assert_eq!(by_device(&world, "GET", QUEUE).await.status, 204);
    sent(
        &world,
        "a",
        &[("iothub-ack", "full"), ("iothub-correlationid", "c")],
    )
    .await;
    sent(&world, "b", &[]).await;
    let fetched = by_device(&world, "GET", QUEUE).await;
    assert_eq!((fetched.status, fetched.body.as_str()), (200, "body of a"));
    for (name, value) in [
        ("iothub-messageid", "a"),
        ("iothub-correlationid", "c"),
        ("iothub-ack", "full"),
        ("iothub-app-n", "a"),
        ("iothub-sequencenumber", "1"),
        ("iothub-deliverycount", "0"),
        ("iothub-to", "/devices/dev-1/messages/devicebound"),
    ] {
        assert_eq!(
            fetched.headers.get(name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
    let path = |answer: &Answer, rest: &str| {
        let lock = answer.headers["etag"].trim_matches('"').to_owned();
        format!("/devices/dev-1/messages/devicebound/{lock}{rest}")
    };
    let other = by_device(&world, "GET", QUEUE).await;
    assert_eq!(other.body, "body of b", "the first is locked");
    assert_eq!(by_device(&world, "GET", QUEUE).await.status, 204);
    let abandoned = by_device(&world, "POST", &path(&fetched, "/abandon")).await;
    assert_eq!(abandoned.status, 204);
    let late = by_device(&world, "DELETE", &path(&fetched, "?api-version=1")).await;
    assert_eq!((late.status, late.error_code()), (412, "DeviceMessageLockLost"));
    let again = by_device(&world, "GET", QUEUE).await;
    assert_eq!(
        (
            again.body.as_str(),
            again.headers["iothub-deliverycount"].as_str()
        ),
        ("body of a", "1")
    );
    let done = by_device(&world, "DELETE", &path(&again, "?api-version=2021-04-12")).await;
    assert_eq!(done.status, 204);
    let rejected = by_device(&world, "DELETE", &path(&other, "?reject&api-version=1")).await;
    assert_eq!(rejected.status, 204);
    assert_eq!(all_feedback(&world).await, [owned(("a", "Success"))]);
    assert_eq!(
        world.http("GET", LETTERS, &[], "").await.json()[0]["messageId"],
        "b"
    );
    let odd = by_device(&world, "DELETE", "/devices/dev-1/messages/devicebound/what").await;
    assert_eq!(odd.error_code(), "DeviceMessageLockLost");
    let token = world.service_token("service");
    let service = world
        .http_as("GET", QUEUE, &[("Authorization", &token)], b"")
        .await;
    assert_eq!(
        service.status, 401,
        "who may not speak for devices gets none of their messages"
    );
}

#[tokio::test]
async fn what_cannot_be_queued_is_refused() {
    let world = World::new().await;
    for n in 1..=QUEUE_MESSAGES_MAX {
        sent(&world, &n.to_string(), &[("iothub-ack", "negative")]).await;
    }
    let full = send(&world, "more", &[]).await;
    assert_eq!(
        (full.status, full.error_code()),
        (403, "DeviceMaximumQueueDepthExceeded")
    );
    let purged = world.http("DELETE", "/devices/dev-1/commands", &[], "").await;
    let expected = json!({"totalMessagesPurged": 50, "deviceId": "dev-1", "moduleId": Value::Null});
    assert_eq!((purged.status, purged.json()), (200, expected));
    let feedback = all_feedback(&world).await;
    assert_eq!(feedback.len(), QUEUE_MESSAGES_MAX);
    assert!(feedback.iter().all(|(_, end)| end == "Purged"));

    let large = "x".repeat(64 * 1024);
    let answer = world.http("POST", QUEUE, &[], &large).await;
    assert_eq!((answer.status, answer.error_code()), (413, "MessageTooLarge"));
    for headers in [("iothub-ack", "perhaps"), ("iothub-expiry", "tomorrow")] {
        let answer = world.http("POST", QUEUE, &[headers], "").await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (400, "ArgumentInvalid"),
            "{headers:?}"
        );
    }
    let nobody = world
        .http("POST", "/devices/nobody/messages/devicebound", &[], "x")
        .await;
    assert_eq!((nobody.status, nobody.error_code()), (404, "DeviceNotFound"));
    for path in ["/devices/nobody/messages/deadletters", "/devices/nobody/commands"] {
        let method = if path.ends_with("commands") {
            "DELETE"
        } else {
            "GET"
        };
        assert_eq!(
            world.http(method, path, &[], "").await.error_code(),
            "DeviceNotFound",
            "{path}"
        );
    }
    let token = world.service_token("registryReadWrite");
    let headers = [("Authorization", token.as_str())];
    let unable = world.http_as("POST", QUEUE, &headers, b"x").await;
    assert_eq!(unable.status, 401);
}

#[tokio::test]
async fn a_message_whose_time_is_over_is_not_delivered() {
    let world = World::new().await;
    let over = [("iothub-expiry", "1970-01-02T00:00:00Z"), ("iothub-ack", "full")];
    sent(
        &world,
        "late",
        &[("iothub-expiry", "1970-01-01T00:00:00Z"), over[1]],
    )
    .await;
    sent(&world, "soon enough", &[over[1]]).await;
    let mut client = world.connect(Version::V3).await;
    listen(&mut client).await;
    assert_eq!(came(&mut client).await, first("soon enough", 2));
    client.flush().await.unwrap();
    until_queued(&world, 0).await;
    let feedback = all_feedback(&world).await;
    assert_eq!(
        feedback,
        [("late", "Expired"), ("soon enough", "Success")].map(owned)
    );
}

#[tokio::test]
async fn deleting_a_device_ends_its_messages() {
    let world = World::new().await;
    sent(&world, "a", &[("iothub-ack", "full")]).await;
    let any = [("If-Match", "*")];
    assert_eq!(world.http("DELETE", "/devices/dev-1", &any, "").await.status, 204);
    assert_eq!(all_feedback(&world).await, [owned(("a", "Purged"))]);
    world.cluster.add_device("dev-1");
    assert_eq!(queued(&world).await, 0);
    assert_eq!(sent(&world, "b", &[]).await, 1);
}
