//! What a run's folder shows besides its promises: faults with their steps, what was reached, gaps, the time
//! line. Plain data in, plain data out; nothing here decides whether a run is good.

use std::collections::BTreeMap;

use dunlin_model::messages::{MessageEnd, Settlement};

use super::folder::Remains;
use super::journal::{Event, Progress};
use super::judge::{FaultLine, Second};
use crate::invariants::configurations;
use crate::oracle::{DeviceHistory, History, Message};
use crate::verdict::SpanMs;
use crate::workload::delivery::Delivery;
use crate::workload::enrolling::{Enrolling, Told};
use crate::workload::erasure::Trace;
use crate::workload::exchange::Exchange;
use crate::workload::file::What;
use crate::workload::grant::Asked;
use crate::workload::handling::{Batch, Handling};
use crate::workload::operation::{Action, Outcome};
use crate::workload::sight::Sight;
use crate::workload::step::Step;

/// Seconds of the time line.
const TIMELINE_S_MAX: usize = 100_000;

pub(super) fn in_s(us: u64) -> f64 {
    (us as f64 / 1e5).round() / 10.0
}

pub(super) fn load_span(remains: &Remains) -> (u64, u64) {
    let at = |wanted: &Event| {
        let found = remains.journal.iter().find(|entry| entry.event == *wanted);
        found.map(|entry| entry.us)
    };
    let begun_us = at(&Event::LoadBegun).unwrap_or(0);
    let last_us = remains.journal.last().map_or(0, |entry| entry.us);
    (begun_us, at(&Event::LoadEnded).unwrap_or(last_us))
}

pub(super) fn fault_lines(remains: &Remains) -> Vec<FaultLine> {
    let (begun_us, _) = load_span(remains);
    let mut lines: BTreeMap<usize, (FaultLine, u64)> = BTreeMap::new();
    for entry in &remains.journal {
        let Event::Fault {
            fault,
            epoch,
            kind,
            number,
            nodes,
            step,
            detail,
        } = &entry.event
        else {
            continue;
        };
        let (line, since_us) = lines.entry(*fault).or_insert_with(|| {
            let line = FaultLine {
                fault: fault + 1,
                epoch: epoch + 1,
                kind: format!("{number} {kind}"),
                nodes: Vec::new(),
                at_s: in_s(entry.us.saturating_sub(begun_us)),
                for_s: None,
                outcome: Progress::Begun,
                detail: String::new(),
            };
            (line, entry.us)
        });
        line.nodes = nodes.iter().map(|node| node + 1).collect();
        if *step == Progress::Healed {
            line.for_s = Some(in_s(entry.us.saturating_sub(*since_us)));
        }
        // What became unclear does not become clear by being healed.
        let is_settled = matches!(line.outcome, Progress::Skipped | Progress::Indeterminate);
        if !is_settled {
            line.outcome = *step;
        }
        if !detail.is_empty() {
            line.detail
                .push_str(if line.detail.is_empty() { "" } else { "; " });
            line.detail.push_str(detail);
        }
    }
    lines.into_values().map(|(line, _)| line).collect()
}

/// Faults that were confirmed, by kind, and states.
pub(super) fn reached(remains: &Remains) -> BTreeMap<String, u64> {
    let mut reached: BTreeMap<String, u64> = BTreeMap::new();
    let mut count = |name: &str, times: u64| {
        if times > 0 {
            *reached.entry(name.to_owned()).or_default() += times;
        }
    };
    for entry in &remains.journal {
        match &entry.event {
            Event::Fault {
                kind,
                step: Progress::Confirmed,
                ..
            } => {
                count(kind, 1);
                count("faults", 1);
            }
            Event::Reached { state } => count(state, 1),
            Event::Quiet {
                whole_us: Some(_), ..
            } => count("epochs", 1),
            _ => {}
        }
    }
    count("redelivered", redelivered(&remains.history));
    // A connection that was neither lost nor closed before its device opened another was taken over.
    let devices = remains.history.devices.iter();
    let taken_over = devices.flat_map(|device| device.connections.windows(2));
    let taken_over = taken_over.filter(|pair| pair[0].is_held());
    count("taken-over", taken_over.count() as u64);
    let revoked = remains.operations.iter();
    let revoked =
        revoked.filter(|operation| operation.action == Action::Probe && operation.outcome == Outcome::Fail);
    count("revoked", revoked.count() as u64);
    for grant in &remains.grants {
        if matches!(grant.asked, Asked::Probe { .. }) && grant.outcome == Outcome::Fail {
            count("key-refused", 1);
        }
    }
    for enrolling in &remains.enrollings {
        if let Enrolling::Registration(one) = enrolling {
            match one.told {
                Told::Assigned(_) => count("assigned", 1),
                Told::Disabled | Told::Refused => count("turned-away", 1),
                Told::Failed { .. } | Told::Unknown { .. } => {}
            }
        }
    }
    for trace in &remains.traces {
        if let Trace::Erasure(erasure) = trace
            && erasure.outcome == Outcome::Ok
        {
            count("erased", 1);
        }
    }
    for exchange in &remains.exchanges {
        match exchange {
            Exchange::Note(note) if !note.asked => count("told", 1),
            Exchange::Call(call) if call.outcome == Outcome::Ok => count("called", 1),
            Exchange::Receipt(_) => count("received", 1),
            _ => {}
        }
    }
    for handling in &remains.handlings {
        match handling {
            Handling::Settled(settling) => match (settling.outcome, settling.deed) {
                (Outcome::Ok, Settlement::Complete | Settlement::Reject) => count("settled", 1),
                (Outcome::Fail, _) => count("lock-lost", 1),
                _ => {}
            },
            Handling::Taken(take) => {
                if let Batch::Records { records, .. } = &take.batch {
                    count("feedback-fetched", records.len() as u64);
                }
            }
            Handling::Left(account) => {
                count("dead-lettered", account.letters.len() as u64);
                for letter in &account.letters {
                    match letter.reason {
                        Some(MessageEnd::Expired) => count("expired", 1),
                        Some(MessageEnd::DeliveryCountExceeded) => count("worn-out", 1),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    for sight in &remains.sights {
        match sight {
            Sight::Job(job) if job.ended_us.is_some() => count("job-done", 1),
            Sight::Seen(_) => count("queried", 1),
            _ => {}
        }
    }
    for delivery in &remains.deliveries {
        match delivery {
            Delivery::Parcel(parcel) if parcel.reply.is_taken() => {
                count("routed", parcel.events.len() as u64);
            }
            Delivery::Parcel(_) => count("turned-down", 1),
            Delivery::Led { .. } => {}
        }
    }
    let ranges = remains.ranges.iter().filter(|range| !range.events.is_empty());
    count("looked-back", ranges.count() as u64);
    let surveys = remains.surveys.iter();
    let followed = surveys.filter(|survey| configurations::wrong(survey).is_empty());
    count("configured", followed.count() as u64);
    for deed in &remains.files {
        match deed.what {
            What::Ended(Outcome::Ok) => count("uploaded", 1),
            What::Told { .. } => count("file-told", 1),
            What::HeardOut => count("heard-out", 1),
            What::Read(Some(_)) => count("file-read", 1),
            _ => {}
        }
    }
    for step in &remains.steps {
        match step {
            Step::Poll(poll) => count("read", poll.runs.iter().map(|(from, until)| until - from).sum()),
            Step::Commit(commit) if commit.outcome == Outcome::Ok => count("committed", 1),
            Step::Commit(commit) if commit.outcome == Outcome::Fail => count("fenced", 1),
            Step::Told(told) if told.taken_up.is_some() && told.committed.is_some() => count("resumed", 1),
            _ => {}
        }
    }
    reached
}

/// Messages that went out again on another connection because the one that carried them was lost.
fn redelivered(history: &History) -> u64 {
    let of_device = |device: &DeviceHistory| {
        let was_lost = |message: &&Message| {
            let carrier = device.connections.get(usize::from(message.first_connection));
            message.first_connection != message.last_connection
                && carrier.is_some_and(|connection| connection.lost_us.is_some())
        };
        device.messages.iter().filter(was_lost).count() as u64
    };
    history.devices.iter().map(of_device).sum()
}

pub(super) fn gaps(remains: &Remains) -> BTreeMap<String, SpanMs> {
    let mut kinds: BTreeMap<usize, &str> = BTreeMap::new();
    let mut spans: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for entry in &remains.journal {
        match &entry.event {
            Event::Fault { fault, kind, .. } => {
                kinds.insert(*fault, kind);
            }
            Event::Gap { fault, gap_us, .. } => {
                if let Some(kind) = kinds.get(fault) {
                    spans.entry((*kind).to_owned()).or_default().push(*gap_us);
                }
            }
            _ => {}
        }
    }
    let of = |(kind, spans_us)| Some((kind, SpanMs::of_us(spans_us)?));
    spans.into_iter().filter_map(of).collect()
}

pub(super) fn quiet_spans(
    remains: &Remains,
    which: impl Fn(Option<u64>, Option<u64>) -> Option<u64>,
) -> Option<SpanMs> {
    let span = |event: &Event| match event {
        Event::Quiet {
            from_us,
            served_us,
            whole_us,
            ..
        } => Some(which(*served_us, *whole_us)?.saturating_sub(*from_us)),
        _ => None,
    };
    let journal = remains.journal.iter();
    SpanMs::of_us(journal.filter_map(|entry| span(&entry.event)).collect())
}

pub(super) fn timeline(remains: &Remains, begun_us: u64) -> Vec<Second> {
    let mut seconds: Vec<Vec<u64>> = Vec::new();
    for message in remains.history.devices.iter().flat_map(|device| &device.messages) {
        let Some(acked_us) = message.acked_us else {
            continue;
        };
        let second = (acked_us.saturating_sub(begun_us) / 1_000_000) as usize;
        if second < TIMELINE_S_MAX {
            seconds.resize_with(seconds.len().max(second + 1), Vec::new);
            seconds[second].push(acked_us.saturating_sub(message.sent_us));
        }
    }
    let of = |mut latencies: Vec<u64>| {
        latencies.sort_unstable();
        let at = |percent: usize| {
            let rank = (latencies.len() * percent).div_ceil(100).max(1);
            latencies.get(rank - 1).copied().unwrap_or(0)
        };
        Second {
            acked: latencies.len() as u64,
            p50_us: at(50),
            p99_us: at(99),
        }
    };
    seconds.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::redelivered;
    use crate::oracle::tests::history;

    #[test]
    fn only_a_lost_connection_makes_a_message_redelivered() {
        let mut history = history(&[3]);
        let device = &mut history.devices[0];
        let mut second = device.connections[0];
        second.opened_us = 50;
        device.connections.push(second);
        device.messages[2].last_connection = 1;
        device.connections[0].closed_us = Some(40);
        assert_eq!(redelivered(&history), 0, "its device went elsewhere by itself");
        history.devices[0].connections[0].lost_us = Some(40);
        assert_eq!(redelivered(&history), 1);
    }
}
