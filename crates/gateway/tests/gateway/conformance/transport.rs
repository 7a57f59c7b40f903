//! What MQTT runs over: TCP, TLS, and WebSocket inside TLS, whose frames are not packets.

use dunlin_gateway::client::{Client, ConnectOptions};
use dunlin_gateway::tls::client_config;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Response};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::raw::{BOTH, Connect, publish, stored};
use crate::world::{TOPIC, World, next, puback};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// A WebSocket to the hub that offers this subprotocol, and the answer to that.
async fn websocket(world: &World, offers: Option<&'static str>) -> Result<(Socket, Response<()>), Error> {
    let stream = world.https_with(client_config(&world.roots).unwrap()).await;
    let mut request = "wss://localhost/$iothub/websocket".into_client_request().unwrap();
    if let Some(offers) = offers {
        let value = HeaderValue::from_static(offers);
        request.headers_mut().insert("Sec-WebSocket-Protocol", value);
    }
    let (socket, answer) = tokio_tungstenite::client_async(request, stream).await?;
    Ok((socket, answer.map(|_| ())))
}

/// Bytes of MQTT that have come, in binary frames, until there are so many.
async fn bytes(socket: &mut Socket, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(part) => all.extend_from_slice(&part),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
    all
}

/// The hub ends the connection without a word of MQTT.
async fn ends(mut socket: Socket) {
    while let Some(Ok(message)) = socket.next().await {
        assert!(!matches!(message, Message::Binary(_) | Message::Text(_)));
    }
}

/// 3.1.1: MQTT-7.1.1-1
/// 5: MQTT-4.2.0-1
#[tokio::test]
async fn mqtt_7_1_1_1_each_transport_is_an_ordered_stream_of_bytes() {
    for version in BOTH {
        let world = World::new().await;
        for (n, transport) in [world.tcp(), world.tls(), world.websocket()]
            .into_iter()
            .enumerate()
        {
            let options = ConnectOptions {
                transport,
                ..world.options(version)
            };
            let mut client = Client::connect(&options).await.unwrap();
            let before = stored(&world).len();
            for part in 0..40u8 {
                let id = client.publish(TOPIC, &[n as u8, part]).await.unwrap();
                assert_eq!(next(&mut client).await, puback(id));
            }
            let expected: Vec<Vec<u8>> = (0..40).map(|part| vec![n as u8, part]).collect();
            assert_eq!(stored(&world)[before..], expected);
        }
    }
}

/// 3.1.1: MQTT-6.0.0-1
/// 5: MQTT-6.0.0-1
#[tokio::test]
async fn mqtt_6_0_0_1_packets_come_in_binary_frames_or_not_at_all() {
    for version in BOTH {
        let world = World::new().await;
        let (mut socket, _) = websocket(&world, Some("mqtt")).await.unwrap();
        let connect = Connect::new(version).bytes();
        socket.send(Message::Binary(connect.into())).await.unwrap();
        assert_eq!(bytes(&mut socket, 4).await[0], 0x20);
        let ping = "\u{40}\u{0}".to_owned();
        socket.send(Message::Text(ping.into())).await.unwrap();
        ends(socket).await;
        world.cluster.until_disconnected(&world.device).await;
    }
}

/// 3.1.1: MQTT-6.0.0-2
/// 5: MQTT-6.0.0-2
#[tokio::test]
async fn mqtt_6_0_0_2_packets_need_not_fit_frames() {
    for version in BOTH {
        let world = World::new().await;
        let (mut socket, _) = websocket(&world, Some("mqtt")).await.unwrap();
        let mut all = Connect::new(version).bytes();
        for id in 1..=3 {
            all.extend_from_slice(&publish(version, 0x32, TOPIC, id, (&[], b"x")));
        }
        // Seven bytes at a time, and the rest of three packets at once.
        let (first, rest) = all.split_at(all.len() - 100);
        for part in first.chunks(7).chain([rest]) {
            let part = part.to_vec();
            socket.send(Message::Binary(part.into())).await.unwrap();
        }
        world.cluster.until_stored(3).await;
        assert_eq!(stored(&world), [b"x", b"x", b"x"]);
        let answers = [[0x40, 2, 0, 1], [0x40, 2, 0, 2], [0x40, 2, 0, 3]].concat();
        let mut seen = bytes(&mut socket, 4 + answers.len()).await;
        while !seen.ends_with(&answers) {
            seen.extend_from_slice(&bytes(&mut socket, 1).await);
        }
    }
}

/// 3.1.1: MQTT-6.0.0-3
/// 5: MQTT-6.0.0-3
#[tokio::test]
async fn mqtt_6_0_0_3_whoever_does_not_offer_mqtt_is_refused() {
    let world = World::new().await;
    for offers in [None, Some("amqp"), Some("MQTT5")] {
        match websocket(&world, offers).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), 400),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{offers:?} is taken"),
        }
    }
}

/// 3.1.1: MQTT-6.0.0-4
/// 5: MQTT-6.0.0-4
#[tokio::test]
async fn mqtt_6_0_0_4_the_subprotocol_is_mqtt() {
    let world = World::new().await;
    for offers in ["mqtt", "amqp, mqtt"] {
        let (_, answer) = websocket(&world, Some(offers)).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "mqtt");
    }
}
