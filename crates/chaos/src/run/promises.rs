//! Every promise of a run, each with what was looked at and what was found.
//!
//! Asks the checkers of [`crate::invariants`], one after the other, and decides nothing itself.

use super::folder::Remains;
use super::journal::Event;
use super::judge::Promise;
use crate::invariants::{
    Findings, Violation, alarms, audit, bounded, connections, deaths, duplicates, groups, identity, jobs,
    liveness, messages, methods, no_loss, no_phantom, offsets, order, registrations, replicas, single_owner,
    twins,
};
use crate::workload::exchange::Exchange;
use crate::workload::operation::Action;
use crate::workload::sight::Sight;
use crate::workload::step::Step;

/// All of them, in the order of their numbers.
pub(super) fn promises(remains: &Remains) -> Vec<Promise> {
    let Remains {
        scenario,
        journal,
        history,
        operations,
        accesses,
        exchanges,
        steps,
        sights,
        samples,
        stored,
        replicas: readings,
        audit: audits,
        ..
    } = remains;
    let promise = |id, promise, looked_at: String, findings: Findings| Promise {
        id,
        promise,
        looked_at,
        violations: findings.count,
        examples: findings.examples,
    };
    let acked = history.sent_and_acked().1;
    let records = || format!("{} records", stored.len());
    let probes = operations
        .iter()
        .filter(|operation| operation.action == Action::Probe);
    let (probes, actions) = (probes.clone().count(), operations.len() - probes.count());
    let quiet = journal
        .iter()
        .filter(|entry| matches!(entry.event, Event::Quiet { .. }));
    let alarms_due = journal
        .iter()
        .filter(|entry| matches!(entry.event, Event::Alarm { .. }));
    let connected: usize = history
        .devices
        .iter()
        .map(|device| device.connections.len())
        .sum();
    let mut counts = [0_u64; 6];
    for exchange in exchanges {
        counts[match exchange {
            Exchange::Leftover(_) => continue,
            Exchange::Access(_) => 0,
            Exchange::Note(_) => 1,
            Exchange::Call(_) => 2,
            Exchange::Execution(_) => 3,
            Exchange::Sending(_) => 4,
            Exchange::Receipt(_) => 5,
        }] += 1;
    }
    let (mut polls, mut commits) = (0_u64, 0_u64);
    for step in steps {
        match step {
            Step::Poll(_) => polls += 1,
            Step::Commit(_) => commits += 1,
            Step::Share(_) | Step::Told(_) | Step::Left(_) => {}
        }
    }
    let jobs_run = sights
        .iter()
        .filter(|sight| matches!(sight, Sight::Job(_)))
        .count();
    let queries = sights
        .iter()
        .filter(|sight| matches!(sight, Sight::Seen(_)))
        .count();
    let mut never_acked = Findings::default();
    for (device, seq) in history.never_acked() {
        never_acked.add(|| Violation {
            device: Some(device.to_owned()),
            seq: Some(seq),
            ..Violation::of("no ack when all was over".into())
        });
    }
    vec![
        promise(
            "I1",
            "acked and lost",
            format!("{acked} acked messages"),
            no_loss::check(history, stored),
        ),
        promise(
            "I2",
            "stored and never sent so",
            records(),
            no_phantom::check(history, stored),
        ),
        promise("I3", "out of order", records(), order::check(history, stored)),
        promise(
            "I4",
            "copies that no re-send explains",
            records(),
            duplicates::check(history, stored).unexplained,
        ),
        promise(
            "I5",
            "offsets missing or repeated",
            records(),
            offsets::check(stored),
        ),
        promise(
            "I6",
            "offsets of a group that fell, were skipped or not fenced",
            format!("{polls} polls and {commits} commits"),
            groups::check(steps),
        ),
        promise(
            "I7",
            "registrations that no order explains",
            format!("{} accesses by several services at once", accesses.len()),
            registrations::check(accesses),
        ),
        promise(
            "I7",
            "twins that no order explains",
            format!("{} accesses and {} notes", counts[0], counts[1]),
            twins::check(exchanges),
        ),
        promise(
            "I7",
            "twins that jobs changed too often, or queries that missed it",
            format!("{jobs_run} jobs and {queries} queries"),
            jobs::check(sights),
        ),
        promise(
            "I8",
            "messages to devices lost, made up, repeated or reordered",
            format!("{} sent, {} received", counts[4], counts[5]),
            messages::check(exchanges),
        ),
        promise(
            "I9",
            "methods carried out too often, or not",
            format!("{} calls, {} carried out", counts[2], counts[3]),
            methods::check(exchanges),
        ),
        promise(
            "I10",
            "credentials judged wrongly",
            format!("{probes} probes, {actions} actions"),
            identity::check(operations),
        ),
        promise(
            "I11",
            "stored after a take-over",
            format!("{connected} connections"),
            single_owner::check(history, stored),
        ),
        promise(
            "I12",
            "replicas that differ",
            format!("{} readings", readings.len()),
            replicas::check(stored, readings),
        ),
        promise(
            "I15",
            "deadlines missed after faults",
            format!("{} quiet times", quiet.count()),
            liveness::check(journal, &scenario.liveness),
        ),
        promise(
            "I15",
            "never acked",
            format!("{} sent", history.sent_and_acked().0),
            never_acked,
        ),
        promise(
            "I15",
            "connections lost at nodes that lived",
            format!("{connected} connections"),
            connections::check(history),
        ),
        promise(
            "I16",
            "caps exceeded",
            format!("{} samples", samples.len()),
            bounded::check(samples, &scenario.caps),
        ),
        promise(
            "I17",
            "actions without one audit record",
            format!("{actions} actions"),
            audit::check(operations, audits),
        ),
        promise(
            "I18",
            "processes that ended unasked",
            "the whole run".to_owned(),
            deaths::check(journal),
        ),
        promise(
            "I19",
            "faults that passed in silence",
            format!("{} faults that must be told of", alarms_due.count()),
            alarms::check(journal),
        ),
    ]
}
