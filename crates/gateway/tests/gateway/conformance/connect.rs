//! CONNECT: what the hub looks at before it admits anybody, and what it does with what it does not admit. What it answers
//! to those that it admits is in `connack`, wills are in `will`.

use dunlin_gateway::mqtt::Version;
use dunlin_model::command::Command;

use super::raw::{
    BOTH, Connect, FILTER, Peer, Will, closes, packet, publish, refusal, stored, subscribe, text, user,
};
use crate::world::{TOPIC, World};

/// Nobody was admitted in this world.
fn nobody(world: &World) {
    let opened = |command: &Command| matches!(command, Command::SessionOpen { .. });
    assert!(!world.cluster.commands().iter().any(opened));
}

/// 3.1.1: MQTT-3.1.0-1
/// 5: MQTT-3.1.0-1
#[tokio::test]
async fn mqtt_3_1_0_1_what_comes_before_a_connect_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        let connect = Connect::new(version).bytes();
        for first in [
            publish(version, 0x32, TOPIC, 1, (&[], b"x")),
            subscribe(version, 1, &[(FILTER, 1)]),
            vec![0xC0, 0],
            vec![0xE0, 0],
        ] {
            let answer = world.answer_to(&[first.clone(), connect.clone()].concat()).await;
            assert_eq!(answer, b"", "{first:02x?}");
        }
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.0-2
/// 5: MQTT-3.1.0-2
#[tokio::test]
async fn mqtt_3_1_0_2_a_second_connect_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        let connect = Connect::new(version);
        let mut peer = Peer::connect(&world, &connect).await;
        peer.send(&connect.bytes()).await;
        peer.ends(0x82).await;
    }
}

/// 3.1.1: MQTT-3.1.2-1
/// 5: MQTT-3.1.2-1
#[tokio::test]
async fn mqtt_3_1_2_1_a_protocol_of_another_name_is_not_processed() {
    for version in BOTH {
        let world = World::new().await;
        for name in ["MQTX", "mqtt", "HTTP", "MQTT5"] {
            let connect = Connect {
                name,
                ..Connect::new(version)
            };
            closes(&world, &connect).await;
        }
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.2-2
/// 5: MQTT-3.1.2-2
#[tokio::test]
async fn mqtt_3_1_2_2_another_level_is_told_so_and_closed() {
    let world = World::new().await;
    for level in [0, 3, 6, 0x84, 0xFF] {
        let connect = Connect {
            level,
            ..Connect::new(Version::V3)
        };
        let answer = world.answer_to(&connect.bytes()).await;
        assert_eq!(answer, [0x20, 2, 0, 1], "{level}");
    }
    nobody(&world);
}

/// 3.1.1: MQTT-3.1.2-3
/// 5: MQTT-3.1.2-3
#[tokio::test]
async fn mqtt_3_1_2_3_the_reserved_flag_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        let connect = Connect {
            flip: 0x01,
            ..Connect::new(version)
        };
        closes(&world, &connect).await;
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.2-9
/// 5: MQTT-3.1.2-9
#[tokio::test]
async fn mqtt_3_1_2_9_a_will_flag_without_a_will_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        let with_name = Connect {
            flip: 0x04,
            ..Connect::new(version)
        };
        let without = Connect {
            username: None,
            password: None,
            ..with_name.clone()
        };
        let topic_alone = Connect {
            rest: [super::raw::properties(version, &[]), text(TOPIC)].concat(),
            ..without.clone()
        };
        for connect in [with_name, without, topic_alone] {
            closes(&world, &connect).await;
        }
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.2-11
#[tokio::test]
async fn mqtt_3_1_2_11_a_will_without_its_flags_ends_the_connection() {
    let world = World::new().await;
    // Flag, QoS and retain say that there is none, and a topic and a message are there.
    let connect = Connect {
        flip: 0x04 | 0x08,
        ..Connect::willing(Version::V3, Will::own())
    };
    closes(&world, &connect).await;
    nobody(&world);
}

/// 3.1.1: MQTT-3.1.2-13
/// 5: MQTT-3.1.2-11
#[tokio::test]
async fn mqtt_3_1_2_13_a_qos_of_no_will_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        for flip in [0x08, 0x10, 0x18] {
            let connect = Connect {
                flip,
                ..Connect::new(version)
            };
            closes(&world, &connect).await;
        }
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.2-15
/// 5: MQTT-3.1.2-13
#[tokio::test]
async fn mqtt_3_1_2_15_a_retain_flag_of_no_will_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        let connect = Connect {
            flip: 0x20,
            ..Connect::new(version)
        };
        closes(&world, &connect).await;
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.2-14
/// 5: MQTT-3.1.2-12
#[tokio::test]
async fn mqtt_3_1_2_14_a_will_of_qos_3_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        let will = Will {
            qos: 3,
            ..Will::own()
        };
        closes(&world, &Connect::willing(version, will)).await;
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.2-18
/// 5: MQTT-3.1.2-16
#[tokio::test]
async fn mqtt_3_1_2_18_a_user_name_without_its_flag_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        let full = Connect::new(version);
        let connect = Connect {
            rest: text(full.username.as_ref().unwrap()),
            username: None,
            password: None,
            ..full
        };
        closes(&world, &connect).await;
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.2-19
/// 5: MQTT-3.1.2-17
#[tokio::test]
async fn mqtt_3_1_2_19_a_flag_without_its_user_name_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        let connect = Connect {
            username: None,
            password: None,
            flip: 0x80,
            ..Connect::new(version)
        };
        closes(&world, &connect).await;
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.2-20
/// 5: MQTT-3.1.2-18
#[tokio::test]
async fn mqtt_3_1_2_20_a_password_without_its_flag_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        let connect = Connect {
            flip: 0x40,
            ..Connect::new(version)
        };
        closes(&world, &connect).await;
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.2-21
/// 5: MQTT-3.1.2-19
#[tokio::test]
async fn mqtt_3_1_2_21_a_flag_without_its_password_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        let connect = Connect {
            password: None,
            flip: 0x40,
            ..Connect::new(version)
        };
        closes(&world, &connect).await;
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.2-22
#[tokio::test]
async fn mqtt_3_1_2_22_a_password_of_nobody_ends_the_connection() {
    let world = World::new().await;
    let connect = Connect {
        username: None,
        ..Connect::new(Version::V3)
    };
    closes(&world, &connect).await;
    nobody(&world);
}

/// 3.1.1: MQTT-3.1.3-1
/// 5: MQTT-3.1.3-1
#[tokio::test]
async fn mqtt_3_1_3_1_fields_are_read_in_their_order() {
    for version in BOTH {
        let world = World::new().await;
        let right = Connect::willing(version, Will::own());
        let swapped = Connect {
            username: right.password.clone(),
            password: right.username.clone(),
            ..right.clone()
        };
        assert_ne!(refusal(&world, &swapped).await.code, 0);
        let peer = Peer::connect(&world, &right).await;
        peer.vanish(&world).await;
        world.cluster.until_stored(1).await;
        assert_eq!(stored(&world), [b"gone"]);
    }
}

/// 3.1.1: MQTT-3.1.3-2
/// 5: MQTT-3.1.3-2
#[tokio::test]
async fn mqtt_3_1_3_2_a_session_belongs_to_its_client_id() {
    for version in BOTH {
        let world = World::new().await;
        let other = world.cluster.add_device("dev-2");
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        let (mut second, connack) = Peer::admitted(&world, &Connect::of(version, "dev-2")).await;
        assert!(!connack.present());
        assert!(world.cluster.session(&other).subscriptions.is_empty());
        let kept = world.cluster.session(&world.device).subscriptions;
        assert_eq!(kept.get(FILTER), Some(&1));
        peer.quiet().await;
        second.quiet().await;
    }
}

/// 3.1.1: MQTT-3.1.3-3
/// 5: MQTT-3.1.3-3
#[tokio::test]
async fn mqtt_3_1_3_3_a_connect_without_a_client_id_ends_the_connection() {
    for (version, level) in [(Version::V3, 4), (Version::V5, 5)] {
        let world = World::new().await;
        let mut body = [text("MQTT"), vec![level, 0x02, 0, 60]].concat();
        body.extend_from_slice(&super::raw::properties(version, &[]));
        let answer = world.answer_to(&packet(0x10, &body)).await;
        assert_eq!(answer, b"");
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.3-4
/// 5: MQTT-3.1.3-4
#[tokio::test]
async fn mqtt_3_1_3_4_a_client_id_that_is_no_text_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        for client_id in [&b"dev-\xFF"[..], b"\xC0\x80", b"dev\x00"] {
            let connect = Connect {
                client_id: client_id.to_vec(),
                ..Connect::new(version)
            };
            closes(&world, &connect).await;
        }
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.3-5
/// 5: MQTT-3.1.3-5
#[tokio::test]
async fn mqtt_3_1_3_5_ids_of_1_to_23_letters_and_digits_are_allowed() {
    let longest = "0aZ".repeat(8)[..23].to_owned();
    for version in BOTH {
        let world = World::new().await;
        for id in ["a", "Z9", &longest] {
            world.cluster.add_device(id);
            let mut peer = Peer::connect(&world, &Connect::of(version, id)).await;
            peer.quiet().await;
        }
    }
}

/// 3.1.1: MQTT-3.1.3-8
#[tokio::test]
async fn mqtt_3_1_3_8_no_client_id_and_a_session_to_be_kept_is_refused() {
    let world = World::new().await;
    let connect = Connect {
        client_id: Vec::new(),
        ..Connect::new(Version::V3)
    };
    assert_eq!(refusal(&world, &connect).await.code, 2);
    nobody(&world);
}

/// 3.1.1: MQTT-3.1.3-9
/// 5: MQTT-3.1.3-8
#[tokio::test]
async fn mqtt_3_1_3_9_a_client_id_of_somebody_else_is_refused() {
    for (version, code) in [(Version::V3, 2), (Version::V5, 0x85)] {
        let world = World::new().await;
        for client_id in ["", "dev-2", "DEV-1"] {
            let connect = Connect {
                client_id: client_id.into(),
                ..Connect::clean(version)
            };
            assert_eq!(refusal(&world, &connect).await.code, code, "{client_id:?}");
        }
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.3-10
/// 5: MQTT-3.1.3-11
#[tokio::test]
async fn mqtt_3_1_3_10_a_will_topic_that_is_no_text_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        for end in [&b"\xFF"[..], b"\xED\xA0\x80", b"\x00"] {
            let own = Will::own();
            let topic = [&own.topic, end].concat();
            closes(&world, &Connect::willing(version, Will { topic, ..own })).await;
        }
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.3-11
/// 5: MQTT-3.1.3-12
#[tokio::test]
async fn mqtt_3_1_3_11_a_user_name_that_is_no_text_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        for end in [&b"\xFF"[..], b"\xED\xA0\x80", b"\x00"] {
            let right = Connect::new(version);
            let username = [right.username.as_ref().unwrap(), end].concat();
            let connect = Connect {
                username: Some(username),
                ..right
            };
            closes(&world, &connect).await;
        }
        nobody(&world);
    }
}

/// 3.1.1: MQTT-3.1.4-1
/// 5: MQTT-3.1.4-1
#[tokio::test]
async fn mqtt_3_1_4_1_a_connect_of_another_form_is_closed_without_an_answer() {
    for version in BOTH {
        let world = World::new().await;
        let right = Connect::new(version);
        let longer = Connect {
            rest: vec![0],
            ..right.clone()
        };
        closes(&world, &longer).await;
        // A password that is one byte longer than the packet.
        let mut shorter = right.bytes();
        let last = right.password.as_ref().unwrap().len();
        let at = shorter.len() - last - 1;
        shorter[at] += 1;
        assert_eq!(world.answer_to(&shorter).await, b"");
        if version == Version::V5 {
            for wrong in [
                // Given twice, not of CONNECT, not of MQTT, with a value that there is not.
                &b"\x21\x00\x05\x21\x00\x05"[..],
                b"\x23\x00\x01",
                b"\x7F\x00",
                b"\x21\x00\x00",
                b"\x27\x00\x00\x00\x00",
                b"\x17\x02",
                b"\x11\x00",
            ] {
                closes(&world, &Connect::with(version, wrong)).await;
            }
            let long = user(&"k".repeat(9000), "");
            closes(&world, &Connect::with(version, &long)).await;
        }
        nobody(&world);
    }
}

/// 5: MQTT-3.1.4-2
#[tokio::test]
async fn mqtt_3_1_4_2_whoever_cannot_prove_who_they_are_is_refused_and_closed() {
    let world = World::new().await;
    let right = Connect::new(Version::V5);
    let other = Connect::of(Version::V5, "dev-2");
    for (password, username) in [
        (None, right.username.clone()),
        (Some(b"nonsense".to_vec()), right.username.clone()),
        (other.password.clone(), right.username.clone()),
        (right.password.clone(), None),
        (right.password.clone(), Some(b"other.example/dev-1".to_vec())),
    ] {
        let connect = Connect {
            username,
            password,
            ..right.clone()
        };
        let connack = refusal(&world, &connect).await;
        assert_eq!((connack.code, connack.flags), (0x87, 0));
    }
    nobody(&world);
}

/// 3.1.1: MQTT-3.1.4-2
/// 5: MQTT-3.1.4-3
#[tokio::test]
async fn mqtt_3_1_4_2_the_later_connection_ends_the_earlier_one() {
    for version in BOTH {
        let world = World::new().await;
        let mut first = Peer::new(&world, version).await;
        let mut second = Peer::new(&world, version).await;
        first.ends(0x8E).await;
        second.tell(1, b"x").await;
        assert_eq!(stored(&world), [b"x"]);
    }
}

/// 3.1.1: MQTT-3.1.4-4
/// 5: MQTT-3.1.4-5
#[tokio::test]
async fn mqtt_3_1_4_4_whoever_is_admitted_is_told_so() {
    for version in BOTH {
        let world = World::new().await;
        let (mut peer, connack) = Peer::admitted(&world, &Connect::new(version)).await;
        assert_eq!((connack.code, connack.flags), (0, 0));
        let session = world.cluster.session(&world.device);
        assert!(session.held_by.is_some());
        peer.quiet().await;
    }
}

/// 3.1.1: MQTT-3.1.4-5
/// 5: MQTT-3.1.4-6
#[tokio::test]
async fn mqtt_3_1_4_5_nothing_is_done_for_a_connect_that_was_refused() {
    for version in BOTH {
        let world = World::new().await;
        let refused = Connect {
            password: Some(b"nonsense".to_vec()),
            ..Connect::new(version)
        };
        let all = [
            refused.bytes(),
            publish(version, 0x32, TOPIC, 1, (&[], b"x")),
            subscribe(version, 2, &[(FILTER, 1)]),
            vec![0xC0, 0],
        ];
        let mut peer = Peer::dial(&world, version).await;
        peer.send(&all.concat()).await;
        let first = peer.packet().await;
        assert_eq!(first.first, 0x20);
        assert_ne!(first.body[1], 0);
        assert_eq!(peer.next().await, None);
        assert_eq!(stored(&world), Vec::<Vec<u8>>::new());
        nobody(&world);
    }
}
