//! Every promise of a run, each with what was looked at and what was found.
//!
//! Asks the checkers of [`crate::invariants`], one after the other, and decides nothing itself.

use super::figures::load_span;
use super::folder::Remains;
use super::journal::{Entry, Event, Progress};
use super::judge::Promise;
use super::payloads;
use crate::invariants::{
    Findings, Violation, alarms, audit, bounded, configurations, connections, deaths, duplicates, erasing,
    feedback, files as of_files, groups, identity, jobs, liveness, messages, methods, no_loss, no_phantom,
    offsets, order, policies, provisioning, raft, ranges as range_reads, registrations, replicas, routes,
    settlements, single_owner, twins,
};
use crate::oracle::Stored;
use crate::workload::enrolling::Enrolling;
use crate::workload::erasure::Trace;
use crate::workload::exchange::Exchange;
use crate::workload::grant::{Asked, Grant};
use crate::workload::handling::{Batch, Found, Handling};
use crate::workload::operation::Action;
use crate::workload::routes::Fits;
use crate::workload::sight::Sight;
use crate::workload::step::Step;

/// The kind of fault that puts a disk back to what it had been.
const RESTORE: &str = "restore";

/// All of them, in the order of their numbers.
pub(super) fn promises(remains: &Remains) -> Vec<Promise> {
    let Remains {
        scenario,
        about,
        journal,
        history,
        operations,
        accesses,
        exchanges,
        handlings,
        grants,
        enrollings,
        traces,
        steps,
        sights,
        deliveries,
        ranges,
        surveys,
        files,
        standings,
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
    let judged: Vec<Stored> = stored
        .iter()
        .filter(|record| !about.is_of_attackers(record))
        .copied()
        .collect();
    let phantoms_among = match stored.len() - judged.len() {
        0 => records(),
        others => format!("{} records, and not {others} of attackers", judged.len()),
    };
    let holes = erasing::Holes::of(traces);
    // A reader may have seen of these what is not there in the end.
    let lasting: Vec<Stored> = erasing::lasting(traces, &about.names, stored);
    let counts_of = Looked::at(remains);
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
    let clocks_us = settlements::clocks_us(scenario);
    let (mut handed, mut settled, mut told) = (0_u64, 0_u64, 0_u64);
    for handling in handlings {
        match handling {
            Handling::Fetched(fetch) => handed += u64::from(matches!(fetch.found, Found::Message(_))),
            Handling::Settled(_) => settled += 1,
            Handling::Taken(take) => {
                if let Batch::Records { records, .. } = &take.batch {
                    told += records.len() as u64;
                }
            }
            Handling::Sent(_) | Handling::BatchSettled(_) | Handling::Left(_) => {}
        }
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
    let fits = Fits::new(&about.names, payloads(scenario, about.seed));
    let (delivered, again) = routes::counts(deliveries);
    let deadline = routes::Deadline {
        over_us: history.last_acked_us().max(load_span(remains).1),
        within_us: scenario.liveness.serve_s * 1_000_000,
    };
    let shown: usize = ranges.iter().map(|range| range.events.len()).sum();
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
            phantoms_among,
            no_phantom::check(history, &judged),
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
            offsets::check_around(stored, &holes),
        ),
        promise(
            "I5",
            "ranges of the past that show what is not so",
            format!("{} ranges with {shown} events", ranges.len()),
            range_reads::check((history, &lasting), ranges),
        ),
        promise(
            "I6",
            "offsets of a group that fell, were skipped or not fenced",
            format!("{polls} polls and {commits} commits"),
            groups::check(steps, &holes),
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
            "I8",
            "messages under locks in two hands, settled wrongly, or without one end",
            format!("{handed} handed out, {settled} settlements"),
            settlements::check(handlings, clocks_us),
        ),
        promise(
            "I8",
            "feedback missing, made up, wrong, or in two hands",
            format!("{told} records"),
            feedback::check(handlings, clocks_us),
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
            "I10",
            "keys of policies judged wrongly",
            counts_of.policies,
            policies::check(grants),
        ),
        promise(
            "I10",
            "registrations granted, refused or changed wrongly",
            counts_of.provisioning,
            provisioning::check(enrollings),
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
            "I13",
            "properties of Raft that do not hold",
            format!("{} looks at replicas", standings.len()),
            raft::check(standings, &put_back(journal)),
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
        promise(
            "I20",
            "routed messages lost, late, out of order, or not to be routed",
            format!("{delivered} events at the webhook, {again} of them again"),
            routes::check(
                (history, stored),
                deliveries,
                |device, seq| fits.fits(device, seq),
                deadline,
            ),
        ),
        promise(
            "I21",
            "shown although it was erased",
            counts_of.erasing,
            erasing::check(traces, &about.names, stored),
        ),
        promise(
            "I22",
            "twins that did not follow their configurations, or metrics that did not",
            format!("{} surveys after changes", surveys.len()),
            configurations::check(surveys),
        ),
        promise(
            "I23",
            "files lost, spoiled or made up, or services not told of them so",
            format!("{} deeds with files", files.len()),
            of_files::check(files),
        ),
    ]
}

/// From when until when a disk was being put back to what it had been, and whose.
fn put_back(journal: &[Entry]) -> Vec<(u64, u64, usize)> {
    let mut spans: Vec<(usize, (u64, u64, usize))> = Vec::new();
    for entry in journal {
        let Event::Fault {
            fault,
            kind,
            nodes,
            step,
            ..
        } = &entry.event
        else {
            continue;
        };
        if kind != RESTORE {
            continue;
        }
        match step {
            Progress::Begun => {
                let span = |node: &usize| (*fault, (entry.us, u64::MAX, *node));
                spans.extend(nodes.iter().map(span));
            }
            Progress::Healed => {
                let of_fault = spans.iter_mut().filter(|(number, _)| number == fault);
                of_fault.for_each(|(_, span)| span.1 = entry.us);
            }
            _ => {}
        }
    }
    spans.into_iter().map(|(_, span)| span).collect()
}

/// How much there is of what services do to policies, enrolments and devices that are erased.
struct Looked {
    policies: String,
    provisioning: String,
    erasing: String,
}

impl Looked {
    fn at(remains: &Remains) -> Looked {
        let is_probe = |grant: &&Grant| matches!(grant.asked, Asked::Probe { .. });
        let probes = remains.grants.iter().filter(is_probe).count();
        let [
            mut changes,
            mut registrations,
            mut entries,
            mut erasures,
            mut looks,
        ] = [0_u64; 5];
        for enrolling in &remains.enrollings {
            match enrolling {
                Enrolling::Change(_) => changes += 1,
                Enrolling::Registration(_) => registrations += 1,
                Enrolling::Entry(_) => entries += 1,
                Enrolling::Look(_) => {}
            }
        }
        for trace in &remains.traces {
            match trace {
                Trace::Erasure(_) => erasures += 1,
                Trace::Look(_) => looks += 1,
                Trace::Sent(_) => {}
            }
        }
        Looked {
            policies: format!("{probes} probes, {} changes", remains.grants.len() - probes),
            provisioning: format!("{registrations} registrations, {changes} changes, {entries} connections"),
            erasing: format!("{erasures} erasures, {looks} looks"),
        }
    }
}
