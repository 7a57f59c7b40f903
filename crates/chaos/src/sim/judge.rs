//! What a run must have kept: the promises of [`crate::invariants`] over what the hub has when all is well
//! again, and what only a simulation can see: every receipt names the message's place, and all replicas are
//! alike (I12, [`alike`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_model::command::ReadFrom;
use dunlin_model::id::ShardId;
use dunlin_model::limits::READ_BYTES_MAX;
use dunlin_model::port::{EventRun, ShardClient};
use dunlin_model::routing::EventSource;
use dunlin_model::telemetry::{self, Source};

use super::services::Service;
use super::world::World;
use super::{alike, messages};
use crate::invariants::{
    self, Findings, duplicates, no_loss, no_phantom, offsets, order, registrations, twins,
};
use crate::oracle::{Disturbance, History, Stored, digest};
use crate::payload::claimed_seq;
use crate::workload::exchange::{Exchange, Leftover};

/// Time for all devices to have everything acked when all is well again (I15), in milliseconds.
const LIVENESS_MS: u64 = 20_000;
/// Time for all replicas to have applied the same, in milliseconds.
const EQUAL_MS: u64 = 10_000;
/// Time for reading everything.
const READ_MS: u64 = 20_000;
/// Pause before a page is asked for again.
const PAGE_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Looks at a world whose faults are over. Returns what is wrong, invariant by invariant.
pub(super) fn judge(world: &mut World) -> Vec<String> {
    let mut found = Vec::new();
    if !world.until(LIVENESS_MS, |world| world.devices.iter().all(is_served)) {
        found.push(format!(
            "I15: {} s after the faults, {}",
            LIVENESS_MS / 1000,
            unserved(world)
        ));
        return found;
    }
    if !world.until(EQUAL_MS, |world| have_applied_the_same(world)) {
        found.push(format!(
            "I15: replicas do not meet: {}",
            nodes(world).collect::<Vec<_>>().join("; ")
        ));
        return found;
    }
    let messages = match messages(world) {
        Ok(messages) => messages,
        Err(waiting) => {
            found.push(format!("I15: messages wait for devices that listen: {waiting}"));
            return found;
        }
    };
    let history = history(world);
    let Some(runs) = read_all(world) else {
        found.push("I15: what is stored cannot be read".into());
        return found;
    };
    let (everything, stored) = as_stored(&runs, &history);
    for (name, findings) in [
        ("I1", no_loss::check(&history, &stored)),
        ("I2", no_phantom::check(&history, &stored)),
        ("I3", order::check(&history, &stored)),
        ("I4", duplicates::check(&history, &stored).unexplained),
        ("I5", offsets::check(&everything)),
    ] {
        tell(&mut found, name, &findings);
    }
    let accesses: Vec<_> = world.services.iter().flat_map(Service::accesses).collect();
    tell(&mut found, "I7", &registrations::check(&accesses));
    let exchanges: Vec<_> = world.services.iter().flat_map(Service::exchanges).collect();
    tell(&mut found, "I7", &twins::check(&exchanges));
    tell(&mut found, "I8", &invariants::messages::check(&messages));
    check_owners(&runs, &mut found);
    check_receipts(world, &history, &stored, &mut found);
    // Once more, since the leader may have had its events cut meanwhile.
    if world.until(EQUAL_MS, |world| have_applied_the_same(world)) {
        alike::check(world, &mut found);
    } else {
        found.push(format!(
            "I15: replicas do not meet: {}",
            nodes(world).collect::<Vec<_>>().join("; ")
        ));
    }
    found
}

pub(super) fn tell(found: &mut Vec<String>, name: &str, findings: &Findings) {
    if !findings.is_empty() {
        let examples: Vec<String> = findings
            .examples
            .iter()
            .take(3)
            .map(ToString::to_string)
            .collect();
        found.push(format!(
            "{name}: {} times: {}",
            findings.count,
            examples.join("; ")
        ));
    }
}

fn is_served(device: &super::fleet::Device) -> bool {
    let told = device.told();
    told.is_connected && told.pending.is_empty()
}

fn unserved(world: &World) -> String {
    let lines = world
        .devices
        .iter()
        .filter(|device| !is_served(device))
        .map(|device| {
            let told = device.told();
            format!(
                "{} at node {} is {} with {} unanswered",
                device.id,
                device.place + 1,
                if told.is_connected {
                    "connected"
                } else {
                    "not connected"
                },
                told.pending.len()
            )
        });
    lines.chain(nodes(world)).collect::<Vec<_>>().join("; ")
}

/// How each node is, for whoever looks for the reason.
fn nodes(world: &World) -> impl Iterator<Item = String> + '_ {
    world.machines.iter().map(|machine| {
        let Some(life) = &machine.life else {
            return format!("node {} does not run", machine.place + 1);
        };
        let status = life.cluster.status();
        let groups = status.groups.iter().map(|(group, at)| {
            format!(
                "{group}{} term {} applied {} of {}",
                if at.leads { "*" } else { "" },
                at.term,
                at.applied,
                at.last
            )
        });
        format!(
            "node {}: {}; damaged {:?}, journal holds {} segments for {:?}",
            machine.place + 1,
            groups.collect::<Vec<_>>().join(", "),
            status.damaged,
            life.journal.segments_needed(),
            life.journal.pinning()
        )
    })
}

/// The last entry that each replica has applied, by group.
fn applied(world: &World) -> BTreeMap<u32, Vec<u64>> {
    let mut found: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for life in world.machines.iter().filter_map(|machine| machine.life.as_ref()) {
        for (group, status) in life.cluster.status().groups {
            found.entry(group).or_default().push(status.applied);
        }
    }
    found
}

/// Whether every replica that the directory names runs, and has applied what the others of its group have.
fn have_applied_the_same(world: &World) -> bool {
    let Some(life) = &world.machines[0].life else {
        return false;
    };
    if !alike::stand_at_one_entry(world) {
        return false;
    }
    let found = applied(world);
    life.client.directory().groups.iter().all(|(group, entry)| {
        let of = found.get(&group.0).map_or(&[][..], Vec::as_slice);
        of.len() == entry.replicas.len() && of.iter().all(|applied| *applied == of[0])
    })
}

/// What was sent to devices and what they received, once no message waits any more; what does, if some do for too long.
fn messages(world: &mut World) -> Result<Vec<Exchange>, String> {
    if !world.plan.messages {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = world.devices.iter().map(|device| device.id.clone()).collect();
    let Some(client) = world.machines[0].life.as_ref().map(|life| life.client.clone()) else {
        return Err("the first node does not run".into());
    };
    // What is queued after a queue was counted is in no count.
    if !world.until(LIVENESS_MS, |world| world.services.iter().all(Service::is_idle)) {
        return Err("a service waits for an answer".into());
    }
    let asked = ids.clone();
    let waiting = world.ask(0, LIVENESS_MS, async move {
        loop {
            let counts = messages::count_waiting(&*client, &asked).await;
            if counts.iter().all(|count| *count == 0) {
                return counts;
            }
            tokio::time::sleep(PAGE_PAUSE).await;
        }
    });
    let waiting = waiting.ok_or_else(|| nodes(world).collect::<Vec<_>>().join("; "))?;
    let left = ids.iter().zip(waiting).map(|(device, waiting)| {
        Exchange::Leftover(Leftover {
            device: device.as_str().to_owned(),
            waiting,
        })
    });
    let sent = world.services.iter().flat_map(Service::sendings);
    let received = world.devices.iter().flat_map(|device| {
        let received = device.told().received.clone();
        received.into_iter().map(Exchange::Receipt)
    });
    Ok(sent.chain(received).chain(left).collect())
}

/// What the devices did, with every loss of a connection excused: each has its reason in the plan.
fn history(world: &World) -> History {
    let devices: Vec<_> = world
        .devices
        .iter()
        .map(|device| device.told().history.clone())
        .collect();
    let lost = devices.iter().flat_map(|device| &device.connections);
    let disturbances = lost.filter_map(|connection| {
        let lost_us = connection.lost_us?;
        Some(Disturbance {
            node: connection.node,
            from_us: lost_us,
            until_us: lost_us,
        })
    });
    History {
        disturbances: disturbances.collect(),
        devices,
    }
}

type Runs = Vec<(ShardId, Vec<EventRun>)>;

/// Everything that the hub has, asked of the first node.
fn read_all(world: &mut World) -> Option<Runs> {
    let client = world.machines[0].life.as_ref()?.client.clone();
    let shards = world.plan.shards;
    world.ask(0, READ_MS, async move {
        let mut found = Vec::new();
        for shard in (0..shards).map(ShardId) {
            found.push((shard, read_shard(&client, shard).await));
        }
        found
    })
}

/// Everything that is stored, and of that what devices sent.
fn as_stored(runs: &Runs, history: &History) -> (Vec<Stored>, Vec<Stored>) {
    let names: BTreeMap<&str, u32> = (0..)
        .zip(&history.devices)
        .map(|(index, device)| (device.device.as_str(), index))
        .collect();
    let (mut everything, mut sent) = (Vec::new(), Vec::new());
    for (shard, runs) in runs {
        take((&mut everything, &mut sent), *shard, runs, &names);
    }
    (everything, sent)
}

async fn read_shard(client: &Arc<dyn ShardClient>, shard: ShardId) -> Vec<EventRun> {
    let (mut found, mut next) = (Vec::new(), 0);
    loop {
        let from = ReadFrom::Offset(next);
        let Ok(page) = client.read_events(shard, from, READ_BYTES_MAX, 0).await else {
            tokio::time::sleep(PAGE_PAUSE).await;
            continue;
        };
        if page.runs.is_empty() {
            return found;
        }
        next = page
            .runs
            .iter()
            .map(EventRun::next_offset)
            .max()
            .unwrap_or(next)
            .max(next + 1);
        found.extend(page.runs);
    }
}

fn take(
    (everything, sent): (&mut Vec<Stored>, &mut Vec<Stored>),
    shard: ShardId,
    runs: &[EventRun],
    names: &BTreeMap<&str, u32>,
) {
    let mut next = 0;
    for run in runs {
        for (offset, record) in (run.first_offset..).zip(telemetry::records(run.records.clone())) {
            if offset < next {
                continue;
            }
            // What cannot be read was never sent so.
            let record = record.ok();
            let payload = record.as_ref().map_or(&b""[..], |record| &record.payload[..]);
            let stored = Stored {
                shard: shard.0,
                offset,
                device: record
                    .as_ref()
                    .and_then(|record| names.get(record.device_str()).copied()),
                seq: claimed_seq(payload),
                digest: digest(payload),
            };
            if record.is_none_or(|record| !is_made(record.source)) {
                sent.push(stored);
            }
            everything.push(stored);
        }
        next = run.next_offset().max(next);
    }
}

/// Whether the hub made a record itself. Replicas must agree on these as on all others; no device sent them.
fn is_made(source: Source) -> bool {
    EventSource::of(source) != Some(EventSource::DeviceMessages)
}

/// I11: a device's records stand under session epochs that never go back.
fn check_owners(runs: &Runs, found: &mut Vec<String>) {
    let mut latest: BTreeMap<String, u64> = BTreeMap::new();
    for run in runs.iter().flat_map(|(_, runs)| runs) {
        for record in telemetry::records(run.records.clone()).flatten() {
            if is_made(record.source) {
                continue;
            }
            let device = record.device_str().to_owned();
            let before = latest.entry(device.clone()).or_default();
            if record.fence < *before {
                found.push(format!(
                    "I11: {device} wrote under session {} after {before}",
                    record.fence
                ));
                return;
            }
            *before = record.fence;
        }
    }
}

/// Whatever a receipt says about a message's place is true.
fn check_receipts(world: &World, history: &History, stored: &[Stored], found: &mut Vec<String>) {
    let at: BTreeMap<(u32, u64), &Stored> = stored
        .iter()
        .map(|stored| ((stored.shard, stored.offset), stored))
        .collect();
    for (index, device) in world.devices.iter().enumerate() {
        for (seq, receipt) in &device.told().receipts {
            let there = at.get(&(receipt.shard.0, receipt.offset));
            let is_there = there
                .and_then(|there| history.message_of(there))
                .is_some_and(|message| message == (index, *seq as usize));
            if !is_there {
                found.push(format!(
                    "I5: message {seq} of {} is not at {receipt}, as its receipt says",
                    device.id
                ));
            }
        }
    }
}
