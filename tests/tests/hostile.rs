//! Clients that misbehave, of every kind at once, before the door of a small hub: it lives, its memory stays
//! within a cap, and whoever behaves keeps the connection and every acknowledged message.

use std::time::Duration;

use dunlin_chaos::hostile::{self, KINDS, Options};
use dunlin_gateway::client::Client;
use dunlin_tests::field::Field;
use tokio::net::TcpStream;

/// Memory that the hub may come to have in this test, in MiB: several times what it needs in peace.
const MEMORY_MIB_MAX: u64 = 768;

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_stands_every_kind_of_misbehaviour() {
    let field = Field::start(1, &[]).await;
    let options = Options {
        kinds: KINDS.iter().map(|(_, kind)| *kind).collect(),
        attackers: 20 * KINDS.len(),
        packets: Some(3_000),
        rounds: 1,
        phase: Duration::from_secs(3),
        memory_mib_max: MEMORY_MIB_MAX,
        seed: 7,
        ..Options::default()
    };
    let report = hostile::run(field.cluster.ready(), &options)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    println!("{report}");
    assert_eq!(report.reasons, Vec::<String>::new(), "{report}");
    assert!(report.counted.closed > 0, "nobody was thrown out: {report}");
    field.stop().await;
}

/// Times that a newcomer may have been slower than the crowd's own time-out.
const ATTEMPTS_MAX: usize = 3;
/// Strangers before the door: more than the hub shakes hands with at a time, fewer than a process may have open.
const STRANGERS: usize = 700;

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_say_nothing_keep_no_device_out() {
    let field = Field::start(1, &[]).await;
    let devices = field.hub.create_many("d", ATTEMPTS_MAX).await;
    for device in &devices {
        let mut crowd = Vec::new();
        for _ in 0..STRANGERS {
            let stranger = TcpStream::connect(&field.hub.doors[0].mqtts).await;
            crowd.push(stranger.expect("the kernel lets strangers in"));
        }
        let client = Client::connect(&field.hub.doors[0].options(device)).await;
        let client = client.unwrap_or_else(|error| panic!("{error}"));
        // Whoever was thrown out would read as ended by now, and the device might have come in their place.
        let thrown_out = crowd
            .iter()
            .filter(|stranger| stranger.try_read(&mut [0]).is_ok())
            .count();
        client.disconnect().await;
        if thrown_out == 0 {
            return field.stop().await;
        }
    }
    panic!("devices are let in only once strangers are thrown out");
}
