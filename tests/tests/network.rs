//! Three nodes that reach each other through a relay: one is cut off, lets nobody in and comes back, the network loses,
//! repeats, reorders and spoils packets, source addresses change; nothing that was acked is lost.

use dunlin_chaos::relay::faults::{Cause, DoorFaults, LinkFaults};
use dunlin_chaos::relay::{Relay, relay_host};
use dunlin_gateway::client::{Client, ClientError};
use dunlin_tests::field::Field;
use dunlin_tests::hub::{Device, Door};
use dunlin_tests::judge::assert_kept;
use dunlin_tests::load::Load;
use dunlin_tests::{PATIENCE, eventually};
use serde_json::Value;

const NODES: usize = 3;

/// MQTT 5: "the server is not available".
const SERVER_UNAVAILABLE: u8 = 0x88;

/// All directed links between different nodes.
fn links() -> impl Iterator<Item = (usize, usize)> {
    let pairs = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
    pairs.filter(|(from, to)| from != to)
}

/// What a survivor says of the node with this id.
fn is_alive(status: &Value, id: &str) -> Option<bool> {
    let nodes = status["nodes"].as_array()?;
    nodes.iter().find(|node| node["node"] == id)?["alive"].as_bool()
}

async fn wait_alive(field: &Field, place: usize, wanted: bool) {
    let id = field.id(place);
    let witnesses = (0..NODES).filter(|other| *other != place);
    let hub = field
        .hub
        .through(witnesses.filter_map(|other| field.cluster.node(other)));
    eventually(&format!("{id} alive: {wanted}"), PATIENCE, || async {
        let status = hub.status().await;
        match is_alive(&status, &id) == Some(wanted) {
            true => Ok(()),
            false => Err(status),
        }
    })
    .await;
}

/// Returns when the node in place `place`, which is cut off, turns the device away for the time being. At no moment may
/// it be let in.
async fn wait_turned_away(field: &Field, place: usize, device: &Device) {
    let what = format!("{} turned away by node {}", device.id, place + 1);
    eventually(&what, PATIENCE, || async {
        match Client::connect(&field.hub.doors[place].options(device)).await {
            Err(ClientError::Refused(SERVER_UNAVAILABLE)) => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => panic!("{} is let in by a node that is cut off", device.id),
        }
    })
    .await;
}

fn tell_all(relay: &Relay, faults: LinkFaults) {
    for (from, to) in links() {
        relay.set(from, to, faults).expect("faults within bounds");
    }
}

#[tokio::test]
async fn a_node_that_is_cut_off_is_done_without_and_comes_back() {
    let (field, relay) = Field::relayed(NODES, &[]).await;
    field.settled("the cluster healthy", |_| true).await;
    for (from, to) in links() {
        assert!(
            relay.counters(from, to).passed > 0,
            "{from} to {to} goes another way"
        );
    }
    let mut all = Vec::new();
    for cut_off in 0..NODES {
        let devices = field.hub.create_many(&format!("without-{cut_off}-"), 6).await;
        let late = field.hub.create(&format!("late-{cut_off}")).await;
        let others: Vec<usize> = (0..NODES).filter(|place| *place != cut_off).collect();
        let doors: Vec<_> = others
            .iter()
            .map(|place| field.hub.doors[*place].clone())
            .collect();
        let load = Load::start(&doors, &devices);
        load.wait_acked(200).await;
        relay.partition(&[others, vec![cut_off]]);
        wait_alive(&field, cut_off, false).await;
        wait_turned_away(&field, cut_off, &late).await;
        load.wait_acked(300).await;
        wait_turned_away(&field, cut_off, &late).await;
        relay.heal_all();
        field.settled("the node back", |_| true).await;
        wait_alive(&field, cut_off, true).await;
        load.wait_acked(200).await;
        let logs = load.finish().await;
        let lost: u32 = logs.iter().map(|log| log.connections_lost).sum();
        assert_eq!(lost, 0, "gateways on the side of the majority drop nobody");
        all.extend(logs);
        let back = Load::start(&field.hub.doors[cut_off..=cut_off], &[late]);
        back.wait_acked(20).await;
        all.extend(back.finish().await);
        for (from, to) in links() {
            let dropped = relay.counters(from, to).dropped(Cause::Cut);
            let is_felt = from == cut_off || to == cut_off;
            assert!(
                dropped > 0 || !is_felt,
                "the cut from {from} to {to} was not felt"
            );
        }
    }
    assert_kept(&all, &field.hub.read_all().await);
    field.stop().await;
}

#[tokio::test]
async fn a_network_that_loses_repeats_reorders_and_spoils_packets_costs_nothing_that_was_acked() {
    let (field, relay) = Field::relayed(NODES, &[]).await;
    field.settled("the cluster healthy", |_| true).await;
    let devices = field.hub.create_many("d", 6).await;
    let load = Load::start(&field.hub.doors, &devices);
    load.wait_acked(200).await;
    tell_all(
        &relay,
        LinkFaults {
            loss: 0.02,
            corrupt: 0.02,
            delay_ms: 2,
            jitter_ms: 4,
            reorder: 0.05,
            duplicate: 0.05,
            replay: 0.02,
            replay_after_ms: 500,
            ..LinkFaults::default()
        },
    );
    for (from, to) in links() {
        relay.rebind(from, to);
    }
    load.wait_acked(500).await;
    relay.heal_all();
    load.wait_acked(200).await;
    for (from, to) in links() {
        let felt = relay.counters(from, to);
        for (what, count) in [
            ("lost", felt.dropped(Cause::Loss)),
            ("corrupted", felt.corrupted),
            ("reordered", felt.reordered),
            ("duplicated", felt.duplicated),
            ("replayed", felt.replayed),
            ("rebound", felt.rebound),
        ] {
            assert!(count > 0, "nothing was {what} from {from} to {to}: {felt:?}");
        }
    }
    let logs = load.finish().await;
    assert_kept(&logs, &field.hub.read_all().await);
    field.stop().await;
}

#[tokio::test]
async fn devices_whose_connections_are_reset_closed_halfway_or_swallowed_lose_nothing_that_was_acked() {
    let (field, relay) = Field::relayed(NODES, &[]).await;
    field.settled("the cluster healthy", |_| true).await;
    let through_relay = |(place, door): (usize, &Door)| {
        let (_, port) = door.mqtts.rsplit_once(':').expect("host:port");
        Door {
            mqtts: format!("{}:{port}", relay_host(place)),
            ..door.clone()
        }
    };
    let doors: Vec<Door> = field.hub.doors.iter().enumerate().map(through_relay).collect();
    let devices = field.hub.create_many("d", 9).await;
    let load = Load::start(&doors, &devices);
    load.wait_acked(200).await;
    for place in 0..NODES {
        relay.reset_connections(place);
    }
    load.wait_acked(200).await;
    for place in 0..NODES {
        relay.finish_connections(place);
    }
    load.wait_acked(200).await;
    let all = |faults| (0..NODES).for_each(|place| relay.set_door(place, faults).expect("within bounds"));
    all(DoorFaults {
        stall: true,
        ..DoorFaults::default()
    });
    let swallowed = || (0..NODES).all(|place| relay.door_counters(place).swallowed_bytes > 0);
    eventually("something swallowed at each door", PATIENCE, || async {
        swallowed().then_some(())
    })
    .await;
    all(DoorFaults {
        delay_ms: 20,
        rate_bits_per_s: Some(2_000_000),
        ..DoorFaults::default()
    });
    load.wait_acked(200).await;
    relay.heal_all();
    let logs = load.finish().await;
    assert_kept(&logs, &field.hub.read_all().await);
    for place in 0..NODES {
        let felt = relay.door_counters(place);
        assert!(felt.resets > 0 && felt.half_closed > 0, "{felt:?}");
    }
    field.stop().await;
}
