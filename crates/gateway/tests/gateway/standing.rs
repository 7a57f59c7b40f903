//! Sessions and streams whose ground falls: a policy that is rolled or removed, an authority that is trusted no more.
//! And ground that is new: it carries at once, also at a gateway that has not heard of it.

use dunlin_gateway::auth;
use dunlin_gateway::client::{Client, ConnectOptions, Event};
use dunlin_gateway::mqtt::Version;
use dunlin_model::command::Command;
use dunlin_model::id::DeviceId;
use dunlin_model::identity::{Authentication, Condition, DeviceSpec};
use tokio::io::AsyncReadExt as _;

use crate::fake::{KEY, OTHER_KEY};
use crate::pki::{authority, leaf, showing};
use crate::world::{HOST, NOW_S, TOPIC, World, next, puback, read_until};

/// A connection of `dev-1` by a token of the policy `device`, signed with `key`.
async fn by_policy(world: &World, key: &str) -> Client {
    let resource = format!("{HOST}/devices/dev-1");
    let token = auth::sign(&resource, key, NOW_S + 3600, Some("device")).unwrap();
    let options = ConnectOptions::new(world.tcp(), HOST, "dev-1", token);
    Client::connect(&options).await.unwrap()
}

#[tokio::test]
async fn a_session_ends_with_the_policy_that_opened_it() {
    let world = World::new().await;
    let mut client = by_policy(&world, OTHER_KEY).await;
    // The key that it does not rest on.
    world.cluster.change_directory(|directory| {
        directory.policies.get_mut("device").unwrap().keys.primary = OTHER_KEY.into();
    });
    let id = client.publish(TOPIC, b"still here").await.unwrap();
    assert_eq!(next(&mut client).await, puback(id));
    world.cluster.change_directory(|directory| {
        let keys = &mut directory.policies.get_mut("device").unwrap().keys;
        (keys.primary, keys.secondary) = (KEY.into(), KEY.into());
    });
    assert!(matches!(next(&mut client).await, Event::Disconnected { .. }));
    // The shard is told: it has not ended the session itself.
    world.cluster.until_disconnected(&world.device).await;
    let mut client = by_policy(&world, KEY).await;
    world.cluster.remove_policy("device");
    assert!(matches!(next(&mut client).await, Event::Disconnected { .. }));
    world.cluster.until_disconnected(&world.device).await;
    // A device by its own key rests on no policy.
    let mut own = world.connect(Version::V5).await;
    world
        .cluster
        .change_directory(|directory| directory.policies.clear());
    let id = own.publish(TOPIC, b"own").await.unwrap();
    assert_eq!(next(&mut own).await, puback(id));
}

#[tokio::test]
async fn a_session_ends_with_the_authority_that_vouched_for_it() {
    let world = World::new().await;
    let (root, other) = (authority("root", None), authority("other", None));
    world.cluster.trust("root", &root.pem());
    world.cluster.trust("other", &other.pem());
    world.cluster.apply(Command::DevicePut {
        device: DeviceId::parse("robot").unwrap(),
        spec: DeviceSpec::enabled(Authentication::CertificateAuthority),
        condition: Condition::Absent,
    });
    let certificate = leaf("robot", &root, &[]);
    let options = ConnectOptions {
        password: None,
        ..ConnectOptions::new(showing(&world, &certificate), HOST, "robot", String::new())
    };
    let mut client = Client::connect(&options).await.unwrap();
    let forget = |name: &str| {
        world.cluster.change_directory(|directory| {
            directory.authorities.remove(name);
        });
    };
    forget("other");
    let topic = "devices/robot/messages/events/";
    let id = client.publish(topic, b"still here").await.unwrap();
    assert_eq!(next(&mut client).await, puback(id));
    forget("root");
    assert!(matches!(next(&mut client).await, Event::Disconnected { .. }));
    assert_eq!(world.refusal(&options).await, 5);
}

#[tokio::test]
async fn a_policy_or_a_key_that_a_gateway_has_not_heard_of_yet_counts_at_once() {
    let world = World::new().await;
    let read = async |policy: &str, key: &str| {
        let token = auth::sign(HOST, key, NOW_S + 3600, Some(policy)).unwrap();
        let headers = [("Authorization", token.as_str())];
        world.http_as("GET", "/devices/dev-1", &headers, b"").await.status
    };
    assert_eq!(read("made", KEY).await, 401);
    world.cluster.change_directory_elsewhere(|directory| {
        let policy = directory.policies["iothubowner"].clone();
        directory.policies.insert("made".into(), policy);
    });
    assert_eq!(read("made", KEY).await, 200);
    // A device that comes by a key that was renewed.
    let renewed = auth::draw_key();
    world.cluster.change_directory_elsewhere(|directory| {
        directory.policies.get_mut("device").unwrap().keys.primary = renewed.clone();
    });
    let mut client = by_policy(&world, &renewed).await;
    let id = client.publish(TOPIC, b"at once").await.unwrap();
    assert_eq!(next(&mut client).await, puback(id));
    // One below an authority that was added.
    let root = authority("root", None);
    world.cluster.apply(Command::DevicePut {
        device: DeviceId::parse("robot").unwrap(),
        spec: DeviceSpec::enabled(Authentication::CertificateAuthority),
        condition: Condition::Absent,
    });
    let certificate = leaf("robot", &root, &[]);
    let options = ConnectOptions {
        password: None,
        ..ConnectOptions::new(showing(&world, &certificate), HOST, "robot", String::new())
    };
    assert_eq!(world.refusal(&options).await, 5);
    world.cluster.change_directory_elsewhere(|directory| {
        directory.authorities.insert("root".to_owned(), root.pem());
    });
    Client::connect(&options).await.unwrap();
}

#[tokio::test]
async fn an_event_stream_ends_with_its_policy() {
    let world = World::new().await;
    let mut stream = world.event_stream("/events", &[]).await;
    read_until(&mut stream, "event: cursor").await;
    world.cluster.remove_policy("service");
    let mut rest = Vec::new();
    let reading = stream.read_to_end(&mut rest);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), reading).await;
    assert!(ended.is_ok(), "the stream goes on");
}
