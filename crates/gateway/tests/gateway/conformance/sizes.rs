//! MQTT 5: the largest packet that either side takes.

use dunlin_gateway::mqtt::Version;

use super::raw::{
    Connect, Peer, packet, publish, send, send_with, stored, subscribe, text, until_queued, user,
};
use crate::world::{TOPIC, World};

fn taking(bytes: u32, more: &[u8]) -> Connect {
    let own = [&[0x27][..], &bytes.to_be_bytes(), more].concat();
    Connect::with(Version::V5, &own)
}

/// Bytes of the PUBLISH that carries this message.
async fn size_of(id: &str, bag: &str) -> usize {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    peer.listen(1).await;
    send_with(&world, id, bag, None).await;
    peer.packet().await.size
}

/// 5: MQTT-3.1.2-24
#[tokio::test]
async fn mqtt_3_1_2_24_a_client_is_sent_no_packet_that_is_too_large() {
    let bag = format!("a={}", "x".repeat(40));
    let size = size_of("m", &bag).await as u32;
    for (max, comes) in [(size - 1, false), (size, true), (size + 1, true)] {
        let world = World::new().await;
        let mut peer = Peer::connect(&world, &taking(max, &[])).await;
        peer.listen(1).await;
        send_with(&world, "m", &bag, None).await;
        if comes {
            assert_eq!(peer.packet().await.size as u32, size);
        }
        peer.quiet().await;
    }
    // Nor the answer to more filters than a packet of that size has codes.
    let world = World::new().await;
    let mut peer = Peer::connect(&world, &taking(40, &[])).await;
    peer.send(&subscribe(Version::V5, 2, &[("$iothub/x", 0); 50]))
        .await;
    peer.quiet().await;
    // And if not even a CONNACK has room, there is nothing to say.
    let connect = taking(10, &[]);
    assert_eq!(world.answer_to(&connect.bytes()).await, b"");
}

/// 5: MQTT-3.1.2-25
#[tokio::test]
async fn mqtt_3_1_2_25_what_is_too_large_is_left_out_and_done_with() {
    let world = World::new().await;
    let own = [0x21, 0, 1];
    let mut peer = Peer::connect(&world, &taking(200, &own)).await;
    peer.listen(1).await;
    let long = format!("a={}", "x".repeat(300));
    send_with(&world, "long", &long, None).await;
    send(&world, "short").await;
    // It takes one message at a time, so the first one has made room.
    let message = peer.message().await;
    assert_eq!(message.text(), "body of short");
    until_queued(&world, 1).await;
    peer.send(&super::raw::puback(message.id.unwrap())).await;
    until_queued(&world, 0).await;
}

/// 5: MQTT-3.2.2-15
#[tokio::test]
async fn mqtt_3_2_2_15_a_packet_larger_than_the_hub_takes_ends_the_connection() {
    let world = World::new().await;
    let (mut peer, connack) = Peer::admitted(&world, &Connect::new(Version::V5)).await;
    let max = connack.number(0x27).unwrap() as usize;
    // By its header alone, one byte more than there may be; and as many as there may be, under a topic of nobody.
    let larger = packet(0x30, &vec![0; max - 3]);
    assert_eq!(larger.len(), max + 1);
    peer.send(&larger[..5]).await;
    peer.ends(0x95).await;
    let mut peer = Peer::new(&world, Version::V5).await;
    let mut body = [text("x"), vec![0]].concat();
    body.resize(max - 4, 7);
    peer.send(&packet(0x30, &body)).await;
    peer.ends(0x90).await;
    // A message as large as messages may be is taken.
    let mut peer = Peer::new(&world, Version::V5).await;
    let payload = vec![7; 256 * 1024 - 3];
    let sent = publish(Version::V5, 0x32, TOPIC, 1, (&[], &payload));
    peer.expect(&sent, 0x40, &[0, 1]).await;
    assert_eq!(stored(&world)[0].len(), payload.len());
}

/// 5: MQTT-3.4.2-3
#[tokio::test]
async fn mqtt_3_4_2_3_a_receipt_that_makes_a_puback_too_large_is_left_out() {
    let receipts = user("dunlin-receipt", "1");
    let world = World::new().await;
    let mut peer = Peer::connect(&world, &taking(1000, &receipts)).await;
    let sent = publish(Version::V5, 0x32, TOPIC, 1, (&[], b"x"));
    peer.send(&sent).await;
    let whole = peer.packet().await;
    assert!(whole.body.len() > 4, "a receipt: {whole:?}");
    drop(peer);
    for (max, has_receipt) in [(whole.size, true), (whole.size - 1, false)] {
        let world = World::new().await;
        let mut peer = Peer::connect(&world, &taking(max as u32, &receipts)).await;
        peer.send(&sent).await;
        let answer = peer.packet().await;
        assert_eq!(answer.first, 0x40);
        assert_eq!(answer.body.len() > 4, has_receipt, "{answer:?}");
        assert!(answer.size <= max);
    }
}
