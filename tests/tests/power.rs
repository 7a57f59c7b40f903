//! Three nodes in one process over real QUIC, on disks that lose power: whatever was acknowledged is
//! there when the power is back, and so it is when one node's disk refuses to sync.
//!
//! Nodes are put together here as `node` does it, with `FaultyDisk` and `MemStore` for the real ones. A
//! cut takes away at one instant what was not synced, by a seed, and ends the node without a goodbye. That
//! a failed journal ends the process is decided in `node`; here the test ends the node in its place.

mod field;
mod node;

use std::time::Duration;

use dunlin_model::command::TelemetryAck;
use dunlin_model::id::DeviceId;
use dunlin_model::port::SubmitError;
use dunlin_tests::judge::{DeviceLog, Stored, acked_count, assert_kept, problems};
use dunlin_tests::{PATIENCE, eventually};

use field::{Field, Load, offer, send_under, session_of};
use node::Cut;

/// Acknowledgements that a life collects before something happens to it.
const ACKS: usize = 300;

/// Some checkpoints fall into each life.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(300);
/// None does.
const NO_CHECKPOINT: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn acked_messages_outlive_a_power_cut_of_all_nodes() {
    let mut field = Field::new(CHECKPOINT_EVERY);
    let mut logs: Vec<DeviceLog> = Vec::new();
    field.start_all().await;
    for seed in 0..4 {
        let load = Load::start(&field, &format!("life-{seed}-"), &[0, 1, 2]).await;
        load.wait_acked(ACKS).await;
        field.cut_power(&[0, 1, 2], Cut::KeepSome(seed));
        logs.extend(load.abandon().await);
        field.start_all().await;
        assert!(acked_count(&logs) >= ACKS * (seed as usize + 1));
        assert_kept(&logs, &field.read_all(0).await);
    }
    // The harshest cut of all: not one byte more than was synced.
    let load = Load::start(&field, "last-life-", &[0, 1, 2]).await;
    load.wait_acked(ACKS).await;
    field.cut_power(&[0, 1, 2], Cut::LoseAll);
    logs.extend(load.abandon().await);
    field.start_all().await;
    field.wait_equal().await;
    for node in 0..3 {
        assert_kept(&logs, &field.read_all(node).await);
        assert_kept(&logs, &field.read_own(node));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acked_messages_outlive_a_power_cut_of_each_node_in_turn() {
    let mut field = Field::new(CHECKPOINT_EVERY);
    let mut logs: Vec<DeviceLog> = Vec::new();
    field.start_all().await;
    for (node, others) in [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])] {
        let doomed = Load::start(&field, &format!("doomed-{node}-"), &[node]).await;
        let staying = Load::start(&field, &format!("staying-{node}-"), &others).await;
        doomed.wait_acked(ACKS / 3).await;
        staying.wait_acked(ACKS).await;
        field.cut_power(&[node], Cut::KeepSome(node as u64));
        // The two others are a majority and go on.
        staying.wait_acked(ACKS).await;
        logs.extend(doomed.abandon().await);
        assert_kept_so_far(&logs, &field.read_all(others[0]).await);
        field.start(node).await;
        staying.wait_acked(ACKS).await;
        logs.extend(staying.finish().await);
        assert_kept(&logs, &field.read_all(node).await);
        field.wait_equal().await;
    }
    // Each node has been away once. Whoever is left with one other must have everything.
    field.cut_power(&[0], Cut::KeepSome(7));
    assert_kept(&logs, &field.read_all(1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_to_sync_costs_its_node_and_nothing_else() {
    let mut field = Field::new(CHECKPOINT_EVERY);
    field.start_all().await;
    let doomed = Load::start(&field, "doomed-", &[1]).await;
    let staying = Load::start(&field, "staying-", &[0, 2]).await;
    doomed.wait_acked(ACKS / 3).await;
    staying.wait_acked(ACKS).await;
    field.refuse_syncs(1);
    eventually("the journal of node 2 failed", PATIENCE, || async {
        field.journal_has_failed(1).then_some(())
    })
    .await;
    // What it had not synced is gone for good, as the kernel drops pages that it could not write.
    field.cut_power(&[1], Cut::LoseAll);
    staying.wait_acked(ACKS).await;
    let mut logs = doomed.abandon().await;
    assert_kept_so_far(&logs, &field.read_all(0).await);
    // With a disk that works again the node finds its place, and is needed when another one goes.
    field.start(1).await;
    field.wait_equal_within_load().await;
    field.cut_power(&[2], Cut::KeepSome(3));
    logs.extend(staying.abandon().await);
    assert_kept(&logs, &field.read_all(1).await);
}

/// The state may reach the disk by itself, while the last events wait in memory for their block to fill:
/// after a cut they are made from the log again. What a later session had fenced out must stay out then,
/// or every offset behind it is another message's.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_outlived_its_events_gets_the_same_events_again() {
    let mut field = Field::new(NO_CHECKPOINT);
    field.start_all().await;
    let device = DeviceId::parse("torn-between").expect("a device id");
    let old = session_of(&field, 0, &device).await;
    let first = send_under(&field, 0, &device, &[(old, "first")]).await;
    let new = session_of(&field, 0, &device).await;
    let records = [
        (new, "second"),
        (old, "too late"),
        (new, "third"),
        (old, "far too late"),
    ];
    let ends = [first, send_under(&field, 0, &device, &records).await].concat();
    let is_stored = |ack: &TelemetryAck| matches!(ack, TelemetryAck::Stored(_));
    assert_eq!(
        ends.iter().map(is_stored).collect::<Vec<_>>(),
        [true, true, false, true, false],
        "{ends:?}"
    );
    field.wait_equal().await;
    let before = field.read_all(0).await;
    assert_eq!(before.len(), 3);
    field.cut_power(&[0, 1, 2], Cut::KeepState);
    field.start_all().await;
    field.wait_equal().await;
    for node in 0..3 {
        assert_eq!(field.read_own(node), before, "node {}", node + 1);
    }
    assert_eq!(field.read_all(0).await, before);

    // A record behind them has the offset that everybody expects.
    let epoch = session_of(&field, 1, &device).await;
    let ends = send_under(&field, 1, &device, &[(epoch, "fourth")]).await;
    let Some(TelemetryAck::Stored(receipt)) = ends.first() else {
        panic!("{ends:?}")
    };
    assert_eq!(receipt.offset, 3);
    let after = field.read_all(2).await;
    assert_eq!((&after[..3], &after[3].body[..]), (&before[..], &b"fourth"[..]));
}

/// A node that was away for longer than the others' journals reach back is filled with a snapshot; what
/// it took in then is its own as much as what it applied itself. Meanwhile the journals of the others are
/// pressed for room, and must go on: a shard without load keeps no segment from being used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_filled_with_a_snapshot_keeps_it_through_a_power_cut() {
    let mut field = Field::new(CHECKPOINT_EVERY);
    // Many small entries: under pressure a journal keeps a number of them, whatever their size.
    field.body_bytes = 512;
    field.start_all().await;
    let load = Load::start(&field, "d", &[0, 1]).await;
    load.wait_acked(ACKS).await;
    let had = field.applied(2);
    field.cut_power(&[2], Cut::LoseAll);
    field.wait_purged([0, 1], &had).await;
    let logs = load.finish().await;
    field.start(2).await;
    field.wait_equal().await;
    let stored = field.read_all(0).await;
    assert_kept(&logs, &stored);
    assert!(field.read_own(2) == stored, "what the snapshot brought differs");
    field.cut_power(&[2], Cut::LoseAll);
    field.start(2).await;
    field.wait_equal().await;
    assert!(field.read_own(2) == stored, "the power cut took something");

    // It applies what comes next as the others do.
    let load = Load::start(&field, "e", &[2]).await;
    load.wait_acked(ACKS / 10).await;
    let more = load.finish().await;
    field.wait_equal().await;
    let stored = field.read_all(0).await;
    assert_kept(&[logs, more].concat(), &stored);
    for node in 0..3 {
        assert!(
            field.read_own(node) == stored,
            "node {} has other events",
            node + 1
        );
    }
}

/// Disks that run full: writes are refused with nothing done, reads go on, and when there is room again
/// everything goes on by itself. Devices enough that every shard has some.
#[tokio::test(flavor = "multi_thread")]
async fn full_disks_refuse_writes_serve_reads_and_recover_by_themselves() {
    let mut field = Field::new(CHECKPOINT_EVERY);
    field.start_all().await;
    let mut devices = Vec::new();
    for number in 0..8 {
        let device = DeviceId::parse(&format!("full-{number}")).expect("a device id");
        let epoch = session_of(&field, number % 3, &device).await;
        let ends = send_under(&field, number % 3, &device, &[(epoch, "before")]).await;
        assert!(matches!(ends[..], [TelemetryAck::Stored(_)]), "{ends:?}");
        devices.push((number % 3, device, epoch));
    }
    field.wait_equal().await;
    let before = field.read_all(0).await;
    assert_eq!(before.len(), devices.len());

    // Less than the reserve of a node, and far more than what is under way.
    (0..3).for_each(|node| field.leave_free(node, Some(64 << 20)));
    let mut taken = Vec::new();
    for (node, device, epoch) in &devices {
        // What a node takes before all have noticed waits for room.
        eventually("a refusal", PATIENCE, || {
            let refused = match offer(&field, *node, (device, *epoch, "full")) {
                Err(SubmitError::StorageFull) => Ok(()),
                Err(other) => Err(other.to_string()),
                Ok(offered) => {
                    taken.push(offered);
                    Err("taken".to_owned())
                }
            };
            std::future::ready(refused)
        })
        .await;
    }
    // Reads go on, and what was refused is nowhere.
    let full = field.read_all(1).await;
    for (node, device, epoch) in &devices {
        let again = offer(&field, *node, (device, *epoch, "refused"));
        assert!(matches!(again, Err(SubmitError::StorageFull)));
    }

    (0..3).for_each(|node| field.leave_free(node, None));
    for offered in &taken {
        let end = offered.end().await;
        assert!(matches!(end, TelemetryAck::Stored(_)), "{end:?}");
    }
    for (node, device, epoch) in &devices {
        let offered = eventually("room again", PATIENCE, || {
            std::future::ready(offer(&field, *node, (device, *epoch, "after")))
        });
        let end = offered.await.end().await;
        assert!(matches!(end, TelemetryAck::Stored(_)), "{end:?}");
    }
    let after = field.read_all(2).await;
    let count = |wanted: &str| after.iter().filter(|m| m.body == wanted.as_bytes()).count();
    assert_eq!((count("before"), count("after")), (devices.len(), devices.len()));
    assert_eq!((count("full"), count("refused")), (taken.len(), 0));
    assert!(full.iter().all(|message| after.contains(message)));
}

/// The proof that these tests can fail: with disks that lie, acked messages are lost, and it is seen.
#[tokio::test(flavor = "multi_thread")]
async fn disks_that_lie_about_syncing_are_found_out() {
    let mut field = Field::new(NO_CHECKPOINT);
    field.start_all().await;
    (0..3).for_each(|node| field.lie(node));
    let load = Load::start(&field, "d", &[0, 1, 2]).await;
    load.wait_acked(ACKS).await;
    field.cut_power(&[0, 1, 2], Cut::LoseAll);
    let logs = load.abandon().await;
    field.start_all().await;
    let found = problems(&logs, &field.read_all(0).await);
    let lost = found.iter().filter(|problem| problem.starts_with("LOST")).count();
    assert_eq!(lost, acked_count(&logs), "nothing was synced after the start");
}

/// As [`assert_kept`], while devices that are not in `logs` still send.
fn assert_kept_so_far(logs: &[DeviceLog], stored: &[Stored]) {
    let places: std::collections::HashSet<_> = logs
        .iter()
        .flat_map(|log| {
            log.acked
                .iter()
                .map(|(seq, place)| (*place, log.device.as_str(), &log.sent[*seq][..]))
        })
        .collect();
    let found: std::collections::HashSet<_> = stored
        .iter()
        .map(|message| (message.place, message.device.as_str(), &message.body[..]))
        .collect();
    let lost: Vec<_> = places.difference(&found).collect();
    assert!(lost.is_empty(), "LOST: {lost:?}");
}
