//! Devices over MQTT: admission, acknowledgement, takeover, and everything that closes a connection.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dunlin_gateway::auth;
use dunlin_gateway::client::{Client, ConnectOptions, Event, device_token};
use dunlin_gateway::mqtt::Version;
use dunlin_model::command::{Command, TelemetryAck};
use dunlin_model::telemetry::{AuthMethod, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fake::{KEY, OTHER_KEY};
use crate::world::{HOST, NOW_S, TOPIC, World, certificate, next, puback};

const BOTH: [Version; 2] = [Version::V3, Version::V5];

#[tokio::test]
async fn the_bytes_of_the_python_sdk_are_admitted() {
    let world = World::new().await;
    let user_agent = "azure-iot-device-iothub-py%2F2.14.0%283.11.7%3BLinux%206.1%3Bx86_64%29MyProd%2F1.0";
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 3600).unwrap();
    for username in [
        format!("{HOST}/dev-1/?api-version=2019-10-01&DeviceClientType={user_agent}"),
        format!(
            "{HOST}/dev-1/?api-version=2020-09-30&DeviceClientType=py&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1"
        ),
        format!("{HOST}/dev-1/api-version=2017-11-08-preview&DeviceClientType=iothubclient/1.1"),
        "HUB.EXAMPLE:8883/dev-1/?api-version=2021-04-12".to_owned(),
        "localhost/dev-1".to_owned(),
    ] {
        let mut body = b"\x00\x04MQTT\x04\xC0\x00\x3C".to_vec();
        for field in ["dev-1", &username, &token] {
            body.extend_from_slice(&(field.len() as u16).to_be_bytes());
            body.extend_from_slice(field.as_bytes());
        }
        let mut packet = vec![0x10, (body.len() & 0x7F) as u8 | 0x80, (body.len() >> 7) as u8];
        packet.extend_from_slice(&body);
        packet.extend_from_slice(&[0xE0, 0]);
        let answer = world.answer_to(&packet).await;
        assert_eq!(
            (answer.len(), answer[0], answer[1], answer[3]),
            (4, 0x20, 2, 0),
            "{username}"
        );
    }
}

#[tokio::test]
async fn an_ack_leaves_only_after_its_record_is_stored() {
    for version in BOTH {
        let world = World::new().await;
        let mut client = world.connect(version).await;
        world.cluster.hold(true);
        let ids = [
            client.publish(TOPIC, b"1").await.unwrap(),
            client.publish(TOPIC, b"2").await.unwrap(),
        ];
        client.flush().await.unwrap();
        world.cluster.until_held(2).await;
        client.ping().await.unwrap();
        assert_eq!(next(&mut client).await, Event::Pong);
        world.cluster.release();
        assert_eq!(next(&mut client).await, puback(ids[0]));
        client.ping().await.unwrap();
        assert_eq!(next(&mut client).await, Event::Pong);
        world.cluster.release();
        assert_eq!(next(&mut client).await, puback(ids[1]));
        let records = world.cluster.records(&world.device);
        assert_eq!(
            records.iter().map(|r| &r.payload[..]).collect::<Vec<_>>(),
            [b"1", b"2"]
        );
        assert_eq!(
            (&records[0].bag[..], records[0].source, records[0].auth),
            (&b"a=b"[..], Source::Mqtt, AuthMethod::DeviceKey)
        );
    }
}

#[tokio::test]
async fn unknown_and_fenced_close_without_an_ack() {
    for (ack, version, reason) in [
        (TelemetryAck::Unknown, Version::V3, None),
        (TelemetryAck::Unknown, Version::V5, Some(0x89)),
        (TelemetryAck::Fenced, Version::V3, None),
        (TelemetryAck::Fenced, Version::V5, Some(0x8E)),
    ] {
        let world = World::new().await;
        let mut client = world.connect(version).await;
        world.cluster.hold(true);
        client.publish(TOPIC, b"1").await.unwrap();
        client.flush().await.unwrap();
        world.cluster.until_held(1).await;
        world.cluster.release_as(ack);
        assert_eq!(next(&mut client).await, Event::Disconnected { reason });
        assert!(world.cluster.records(&world.device).is_empty());
        world.cluster.until_disconnected(&world.device).await;
    }
}

#[tokio::test]
async fn receipts_come_to_those_who_ask() {
    let world = World::new().await;
    let options = ConnectOptions {
        receipts: true,
        ..world.options(Version::V5)
    };
    let mut client = Client::connect(&options).await.unwrap();
    let shard = dunlin_model::port::ShardClient::shard_of(&*world.cluster, &world.device);
    for offset in 0..3 {
        let id = client.publish(TOPIC, b"x").await.unwrap();
        assert_eq!(
            next(&mut client).await,
            Event::Puback {
                id,
                receipt: Some(format!("{shard}/{offset}/7"))
            }
        );
    }
}

#[tokio::test]
async fn a_thousand_messages_are_acknowledged_in_order() {
    for transport in 0..3 {
        let world = World::new().await;
        let transport = [world.tcp(), world.tls(), world.websocket()]
            .into_iter()
            .nth(transport)
            .unwrap();
        let options = ConnectOptions {
            transport,
            window: 300,
            ..world.options(Version::V3)
        };
        let mut client = Client::connect(&options).await.unwrap();
        let (mut sent, mut acked) = (Vec::new(), Vec::new());
        for i in 0..1000u32 {
            sent.push(client.publish(TOPIC, &i.to_be_bytes()).await.unwrap());
        }
        while acked.len() < sent.len() {
            match next(&mut client).await {
                Event::Puback { id, .. } => acked.push(id),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(sent, acked);
        let payloads = world
            .cluster
            .records(&world.device)
            .into_iter()
            .map(|r| r.payload.to_vec());
        assert!(payloads.eq((0..1000u32).map(|i| i.to_be_bytes().to_vec())));
        client.disconnect().await;
        world.cluster.until_disconnected(&world.device).await;
        assert_eq!(world.gateway.metrics().acks.load(Ordering::Relaxed), 1000);
    }
}

#[tokio::test]
async fn a_large_message_passes_and_a_larger_one_closes() {
    let world = World::new().await;
    let mut client = world.connect(Version::V3).await;
    let id = client
        .publish("devices/dev-1/messages/events/", &vec![7; 256 * 1024])
        .await
        .unwrap();
    assert_eq!(next(&mut client).await, puback(id));
    client.publish(TOPIC, &vec![7; 256 * 1024]).await.unwrap();
    assert!(matches!(next(&mut client).await, Event::Disconnected { .. }));
    assert_eq!(world.cluster.records(&world.device).len(), 1);
}

#[tokio::test]
async fn a_busy_cluster_delays_and_loses_nothing() {
    let world = World::new().await;
    let mut client = world.connect(Version::V3).await;
    world.cluster.set_busy(true);
    let ids = [
        client.publish(TOPIC, b"1").await.unwrap(),
        client.publish(TOPIC, b"2").await.unwrap(),
    ];
    client.flush().await.unwrap();
    while world.gateway.metrics().busy_pauses.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    world.cluster.set_busy(false);
    assert_eq!(next(&mut client).await, puback(ids[0]));
    assert_eq!(next(&mut client).await, puback(ids[1]));
    world.cluster.set_storage_full(true);
    client.publish(TOPIC, b"3").await.unwrap();
    assert!(matches!(next(&mut client).await, Event::Disconnected { .. }));
    assert_eq!(world.cluster.records(&world.device).len(), 2);
}

#[tokio::test]
async fn full_storage_is_told_to_mqtt_5_in_a_puback_and_the_connection_goes_on() {
    let world = World::new().await;
    let mut client = world.connect(Version::V5).await;
    world.cluster.set_storage_full(true);
    let id = client.publish(TOPIC, b"1").await.unwrap();
    assert_eq!(next(&mut client).await, Event::Refused { id, reason: 0x97 });
    world.cluster.set_storage_full(false);
    let id = client.publish(TOPIC, b"2").await.unwrap();
    assert!(matches!(next(&mut client).await, Event::Puback { id: acked, .. } if acked == id));
    assert_eq!(world.cluster.records(&world.device).len(), 1);
}

#[tokio::test]
async fn what_is_no_connect_is_closed_in_silence() {
    let world = World::new().await;
    let mut too_long = vec![0x10, 0x80, 0x80, 0x01];
    too_long.extend_from_slice(b"\x00\x04MQTT\x04\xC0\x00\x3C");
    for bytes in [
        &b"\xC0\x00"[..],
        b"\x30\x05\x00\x01aXX",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\xFF\xFF\xFF\xFF\x7F",
        b"\x10\x0C\x00\x04HTTP\x04\xC0\x00\x3C\x00\x00",
        // Reserved flag set; truncated strings; a will without its flag.
        b"\x10\x0C\x00\x04MQTT\x04\xC1\x00\x3C\x00\x00",
        b"\x10\x0E\x00\x04MQTT\x04\xC0\x00\x3C\x00\xFFab",
        b"\x10\x0C\x00\x04MQTT\x05\xC0\x00\x3C\xFF\xFF",
        &too_long,
    ] {
        assert_eq!(world.answer_to(bytes).await, b"", "{bytes:02x?}");
    }
    assert!(world.gateway.metrics().protocol_errors.load(Ordering::Relaxed) >= 9);
}

#[tokio::test]
async fn other_protocol_levels_are_told_so() {
    let world = World::new().await;
    assert_eq!(
        world
            .answer_to(b"\x10\x0F\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01d")
            .await,
        b"\x20\x02\x00\x01"
    );
    assert_eq!(
        world
            .answer_to(b"\x10\x0D\x00\x04MQTT\x06\x02\x00\x3C\x00\x01d")
            .await,
        b"\x20\x02\x00\x01"
    );
}

#[tokio::test]
async fn packets_against_the_rules_close_the_connection() {
    let connack = 0x90;
    for (bytes, reason) in [
        // A second CONNECT, one that only servers send, QoS 2 and 3, damaged length, too large.
        (&b"\x10\x0D\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x00"[..], 0x82),
        (b"\xD0\x00", 0x82),
        (b"\x34\x06\x00\x01a\x00\x01\x00", 0x9B),
        (b"\x36\x06\x00\x01a\x00\x01\x00", 0x81),
        (b"\x30\xFF\xFF\xFF\xFF\x7F", 0x81),
        (b"\x30\xFF\xFF\xFF\x7F", 0x95),
        (b"\x32\x08\x00\x03a/b\x00\x01\x00", connack),
        (b"\x00\x00", 0x83),
    ] {
        let world = World::new().await;
        let mut client = world.connect(Version::V5).await;
        client.send_raw(bytes).await.unwrap();
        match next(&mut client).await {
            Event::Disconnected { reason: Some(told) } => assert_eq!(told, reason, "{bytes:02x?}"),
            other => panic!("{bytes:02x?}: {other:?}"),
        }
        let mut client = world.connect(Version::V3).await;
        client.send_raw(bytes).await.unwrap();
        assert_eq!(next(&mut client).await, Event::Disconnected { reason: None });
        assert!(world.cluster.records(&world.device).is_empty());
    }
}

#[tokio::test]
async fn topics_of_other_devices_close_the_connection() {
    let world = World::new().await;
    world.cluster.add_device("dev-2");
    for topic in [
        "devices/dev-2/messages/events/",
        "devices/dev-1/messages/other",
        "$iothub/x",
    ] {
        let mut client = world.connect(Version::V5).await;
        client.publish(topic, b"x").await.unwrap();
        assert_eq!(
            next(&mut client).await,
            Event::Disconnected { reason: Some(0x90) },
            "{topic}"
        );
    }
}

#[tokio::test]
async fn wrong_credentials_are_refused_alike() {
    let world = World::new().await;
    let good = world.options(Version::V3).password.unwrap();
    let disabled = world.cluster.add_device("off");
    world.cluster.disable(&disabled);
    let stranger = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let token = |device: &str, key: &str, expiry: u64| device_token(HOST, device, key, expiry).unwrap();
    let service = auth::sign(HOST, KEY, NOW_S + 60, Some("service")).unwrap();
    let cases = [
        ("dev-1", Some(token("dev-1", stranger, NOW_S + 60))),
        ("dev-1", Some(token("dev-1", KEY, NOW_S))),
        ("dev-1", Some(token("dev-2", KEY, NOW_S + 60))),
        ("dev-1", Some(good[..good.len() - 20].to_owned())),
        ("dev-1", Some("nonsense".into())),
        ("dev-1", Some(String::new())),
        ("dev-1", Some(service)),
        ("dev-1", None),
        ("nobody", Some(token("nobody", KEY, NOW_S + 60))),
        ("off", Some(token("off", KEY, NOW_S + 60))),
    ];
    for (version, code) in [(Version::V3, 5), (Version::V5, 0x87)] {
        for (device, password) in &cases {
            let base = ConnectOptions::new(world.tcp(), HOST, device, String::new());
            let options = ConnectOptions {
                version,
                password: password.clone(),
                ..base
            };
            assert_eq!(world.refusal(&options).await, code, "{device} {password:?}");
        }
    }
    let refused = world
        .gateway
        .metrics()
        .connects_refused_credential
        .load(Ordering::Relaxed);
    assert_eq!(refused, 2 * cases.len() as u64);
    assert!(
        !world
            .cluster
            .commands()
            .iter()
            .any(|command| matches!(command, Command::SessionOpen { .. }))
    );
}

#[tokio::test]
async fn other_refusals_have_their_own_codes() {
    let world = World::new().await;
    for (version, client_id, cluster) in [(Version::V3, 2, 3), (Version::V5, 0x85, 0x88)] {
        let options = ConnectOptions {
            client_id: "dev-2".into(),
            ..world.options(version)
        };
        assert_eq!(world.refusal(&options).await, client_id);
        world.cluster.set_cut_off(true);
        assert_eq!(world.refusal(&world.options(version)).await, cluster);
        world.cluster.set_cut_off(false);
        world.cluster.set_silent(true);
        assert_eq!(world.refusal(&world.options(version)).await, cluster);
        world.cluster.set_silent(false);
        let username = format!("{HOST}/dev-1/module/?api-version=1");
        let module = ConnectOptions {
            username,
            client_id: "dev-1/module".into(),
            ..world.options(version)
        };
        assert!(matches!(world.refusal(&module).await, 5 | 0x87));
        let elsewhere = ConnectOptions {
            username: "other.example/dev-1".into(),
            ..world.options(version)
        };
        assert!(matches!(world.refusal(&elsewhere).await, 5 | 0x87));
    }
}

#[tokio::test]
async fn second_keys_and_policies_open_the_door_too() {
    let world = World::new().await;
    let second = device_token(HOST, "dev-1", OTHER_KEY, NOW_S + 60).unwrap();
    let policy = auth::sign(HOST, KEY, NOW_S + 60, Some("device")).unwrap();
    for (token, method) in [(second, AuthMethod::DeviceKey), (policy, AuthMethod::HubPolicy)] {
        let options = ConnectOptions {
            password: Some(token),
            ..world.options(Version::V3)
        };
        let mut client = Client::connect(&options).await.unwrap();
        let id = client.publish(TOPIC, b"x").await.unwrap();
        assert_eq!(next(&mut client).await, puback(id));
        assert_eq!(world.cluster.records(&world.device).last().unwrap().auth, method);
    }
}

#[tokio::test]
async fn the_later_of_two_clients_wins() {
    for (version, reason) in [(Version::V3, None), (Version::V5, Some(0x8E))] {
        let world = World::new().await;
        let mut first = world.connect(version).await;
        assert!(!first.session_present());
        let earlier = world.cluster.session(&world.device).epoch;
        let mut second = world.connect(version).await;
        assert!(second.session_present());
        assert_eq!(next(&mut first).await, Event::Disconnected { reason });
        let id = second.publish(TOPIC, b"x").await.unwrap();
        assert_eq!(next(&mut second).await, puback(id));
        let session = world.cluster.session(&world.device);
        assert!(session.epoch > earlier && session.held_by.is_some());
        assert_eq!(world.cluster.records(&world.device)[0].fence, session.epoch);
    }
}

#[tokio::test]
async fn a_disabled_device_is_closed_at_once() {
    let world = World::new().await;
    let mut client = world.connect(Version::V5).await;
    world.cluster.disable(&world.device);
    assert_eq!(
        next(&mut client).await,
        Event::Disconnected { reason: Some(0x87) }
    );
    assert_eq!(world.refusal(&world.options(Version::V5)).await, 0x87);
}

#[tokio::test]
async fn subscriptions_are_kept_for_the_next_connection() {
    let world = World::new().await;
    let own = "devices/dev-1/messages/devicebound/#";
    for (version, wrong) in [(Version::V3, 0x80), (Version::V5, 0x8F)] {
        let mut client = world.connect(version).await;
        let id = client.subscribe(own).await.unwrap();
        assert_eq!(next(&mut client).await, Event::Suback { id, codes: vec![1] });
        let id = client.subscribe("devices/+/messages/#").await.unwrap();
        assert_eq!(
            next(&mut client).await,
            Event::Suback {
                id,
                codes: vec![wrong]
            }
        );
        client.disconnect().await;
        world.cluster.until_disconnected(&world.device).await;
        assert_eq!(
            world.cluster.session(&world.device).subscriptions.get(own),
            Some(&1)
        );
        let mut client = world.connect(version).await;
        assert!(client.session_present());
        let id = client.unsubscribe(own).await.unwrap();
        assert_eq!(next(&mut client).await, Event::Unsuback { id });
        assert!(world.cluster.session(&world.device).subscriptions.is_empty());
    }
    let mut client = world.connect(Version::V3).await;
    client.subscribe(own).await.unwrap();
    next(&mut client).await;
    let clean = Client::connect(&ConnectOptions {
        clean: true,
        ..world.options(Version::V3)
    })
    .await
    .unwrap();
    assert!(!clean.session_present() && world.cluster.session(&world.device).subscriptions.is_empty());
}

#[tokio::test]
async fn the_will_speaks_for_those_who_vanish() {
    for version in BOTH {
        let world = World::new().await;
        let will = ("devices/dev-1/messages/events/x=1".to_owned(), b"gone".to_vec());
        let options = ConnectOptions {
            will: Some(will),
            ..world.options(version)
        };
        let client = Client::connect(&options).await.unwrap();
        client.disconnect().await;
        world.cluster.until_disconnected(&world.device).await;
        assert!(world.cluster.records(&world.device).is_empty());
        drop(Client::connect(&options).await.unwrap());
        world.cluster.until_stored(1).await;
        world.cluster.until_disconnected(&world.device).await;
        let record = &world.cluster.records(&world.device)[0];
        assert_eq!((record.source, &record.payload[..]), (Source::Will, &b"gone"[..]));
        assert_eq!(&record.bag[..], b"x=1&iothub-MessageType=Will");
        let foreign = ("devices/dev-2/messages/events/".to_owned(), vec![]);
        let refused = ConnectOptions {
            will: Some(foreign),
            ..world.options(version)
        };
        assert!(matches!(world.refusal(&refused).await, 5 | 0x87));
    }
}

#[tokio::test]
async fn retained_and_unacknowledged_messages_are_stored() {
    let world = World::new().await;
    let mut client = world.connect(Version::V3).await;
    client.publish_unacknowledged(TOPIC, b"0").await.unwrap();
    // RETAIN and DUP set.
    let mut packet = vec![0x3B, (2 + TOPIC.len() + 2 + 1) as u8, 0, TOPIC.len() as u8];
    packet.extend_from_slice(TOPIC.as_bytes());
    packet.extend_from_slice(&[0, 9, b'1']);
    client.send_raw(&packet).await.unwrap();
    assert_eq!(next(&mut client).await, puback(9));
    let sources: Vec<_> = world
        .cluster
        .records(&world.device)
        .iter()
        .map(|r| r.source)
        .collect();
    assert_eq!(sources, [Source::Mqtt, Source::MqttRetain]);
}

#[tokio::test]
async fn draining_ends_every_session() {
    let world = World::new().await;
    let mut client = world.connect(Version::V5).await;
    assert!(world.gateway.drain(Duration::from_secs(20)).await);
    assert_eq!(
        next(&mut client).await,
        Event::Disconnected { reason: Some(0x8B) }
    );
    assert!(world.cluster.session(&world.device).held_by.is_none());
    assert!(Client::connect(&world.options(Version::V5)).await.is_err());
}

#[tokio::test]
async fn connections_over_the_bound_are_closed() {
    let world = World::with_connections_max(1).await;
    let _one = world.connect(Version::V3).await;
    assert!(Client::connect(&world.options(Version::V3)).await.is_err());
    assert_eq!(
        world
            .gateway
            .metrics()
            .connections_refused_full
            .load(Ordering::Relaxed),
        1
    );
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections_and_keeps_old_ones() {
    let mut world = World::new().await;
    let options = ConnectOptions {
        transport: world.tls(),
        ..world.options(Version::V3)
    };
    let mut old = Client::connect(&options).await.unwrap();
    let (chain, key) = certificate();
    world.identity.reload(&chain, &key).unwrap();
    assert!(world.identity.reload(b"nonsense", &key).is_err());
    world.cluster.add_device("dev-2");
    let token = device_token(HOST, "dev-2", KEY, NOW_S + 60).unwrap();
    assert!(
        Client::connect(&ConnectOptions::new(world.tls(), HOST, "dev-2", token.clone()))
            .await
            .is_err()
    );
    world.roots = chain;
    Client::connect(&ConnectOptions::new(world.tls(), HOST, "dev-2", token))
        .await
        .unwrap();
    let id = old.publish(TOPIC, b"x").await.unwrap();
    assert_eq!(next(&mut old).await, puback(id));
}

#[tokio::test]
async fn a_handshake_that_is_none_is_closed() {
    let world = World::new().await;
    let mut stream = tokio::net::TcpStream::connect(world.gateway.mqtts_addresses()[0])
        .await
        .unwrap();
    stream
        .write_all(b"\x10\x20\x00\x04MQTT\x04 and no TLS at all, for long enough")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"\x20"));
}

#[tokio::test]
async fn many_that_come_at_once_do_not_keep_others_from_their_turn() {
    const COUNT: u64 = 60;
    let world = World::new().await;
    let address = world.gateway.mqtt_plain_address().unwrap();
    // As a runtime of one thread does nothing else meanwhile, all of them wait before the first is taken.
    let comers: Vec<_> = (0..COUNT)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    let taken = || world.gateway.metrics().connections.load(Ordering::Relaxed);
    let (mut before, mut most) = (taken(), 0);
    while before < COUNT {
        tokio::task::yield_now().await;
        let now = taken();
        most = most.max(now - before);
        before = now;
    }
    assert!(
        most <= dunlin_gateway::limits::ACCEPTS_AT_A_TIME as u64,
        "{most} between two turns"
    );
    drop(comers);
}
