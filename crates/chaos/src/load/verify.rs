//! Whether a server kept what it acknowledged: what was sent and acked against what is there.
//!
//! For Dunlin what is there is read back through its own interface ([`crate::readback`]); for another
//! server it is what a subscriber was given while the load ran. The same checkers judge both. A load
//! knows of no fault: a message that it sent again after a lost connection may be there twice.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::engine::Outcome;
use crate::invariants::{Violation, duplicates, no_loss, no_phantom, order};
use crate::oracle::{Disturbance, History, Stored};

/// Violations that the text shows; the JSON holds all that were kept.
const SHOWN_MAX: usize = 10;

/// What came of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// `PASS` or `FAIL`.
    pub verdict: String,
    /// Why it is `FAIL`.
    pub reasons: Vec<String>,
    /// Messages that were sent.
    pub sent: u64,
    /// Those of them that were acknowledged.
    pub acked: u64,
    /// Records that were found, second copies included.
    pub found: u64,
    /// Acked and not found; must be 0.
    pub lost: u64,
    /// Not acked and not found, which nobody promised.
    pub absent: u64,
    /// Found and never sent so; must be 0.
    pub phantom: u64,
    /// Behind a later message of their client; must be 0.
    pub reordered: u64,
    /// Second copies.
    pub duplicated: u64,
    /// Those of them that were sent once; must be 0.
    pub duplicated_unexplained: u64,
    /// Some violations, with what is involved.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub violations: Vec<String>,
}

impl Verification {
    /// Compares what was sent and acked with what was found.
    pub fn judge(mut history: History, found: &[Stored]) -> Self {
        excuse_resends(&mut history);
        let lost = no_loss::check(&history, found);
        let phantom = no_phantom::check(&history, found);
        let reordered = order::check(&history, found);
        let duplicates = duplicates::check(&history, found);
        let (sent, acked) = history.sent_and_acked();
        let copies = history.copies(found);
        let distinct = copies.iter().flatten().filter(|copies| **copies > 0).count() as u64;
        let mut reasons = Vec::new();
        for (count, what) in [
            (lost.count, "acked messages lost"),
            (phantom.count, "records that nobody sent so"),
            (reordered.count, "messages out of order"),
            (
                duplicates.unexplained.count,
                "second copies of messages that were sent once",
            ),
        ] {
            if count > 0 {
                reasons.push(format!("{count} {what}"));
            }
        }
        if acked == 0 {
            reasons.push("nothing was acked, so nothing was tried".into());
        }
        let findings = [&lost, &phantom, &reordered, &duplicates.unexplained];
        let examples = findings.into_iter().flat_map(|findings| &findings.examples);
        Self {
            verdict: if reasons.is_empty() { "PASS" } else { "FAIL" }.to_owned(),
            reasons,
            sent,
            acked,
            found: found.len() as u64,
            lost: lost.count,
            absent: sent.saturating_sub(distinct).saturating_sub(lost.count),
            phantom: phantom.count,
            reordered: reordered.count,
            duplicated: duplicates.count,
            duplicated_unexplained: duplicates.unexplained.count,
            violations: examples.map(Violation::to_string).collect(),
        }
    }

    /// A comparison that could not be made.
    pub fn impossible(why: String) -> Self {
        Self {
            verdict: "FAIL".into(),
            reasons: vec![why],
            sent: 0,
            acked: 0,
            found: 0,
            lost: 0,
            absent: 0,
            phantom: 0,
            reordered: 0,
            duplicated: 0,
            duplicated_unexplained: 0,
            violations: Vec::new(),
        }
    }

    /// Whether everything holds.
    pub fn is_pass(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// With each lost connection its node counts as disturbed, so that what was sent again explains a copy.
fn excuse_resends(history: &mut History) {
    let losses = history.devices.iter().flat_map(|device| &device.connections);
    let disturbances = losses.filter_map(|connection| {
        let lost_us = connection.lost_us?;
        Some(Disturbance {
            node: connection.node,
            from_us: lost_us,
            until_us: lost_us,
        })
    });
    let disturbances: Vec<Disturbance> = disturbances.collect();
    history.disturbances.extend(disturbances);
}

/// Judges a run by what its own subscriber was given.
pub fn by_listener(outcome: &mut Outcome) -> Verification {
    let (heard, is_all) = std::mem::take(&mut outcome.heard);
    if !is_all {
        return Verification::impossible("more messages than can be compared; use a smaller --count".into());
    }
    let history = history(outcome);
    let places: HashMap<&str, u32> = (0..)
        .zip(&history.devices)
        .map(|(place, device)| (device.device.as_str(), place))
        .collect();
    let found: Vec<Stored> = (0..)
        .zip(&heard)
        .map(|(offset, heard)| Stored {
            shard: 0,
            offset,
            device: places.get(heard.device.as_str()).copied(),
            seq: Some(heard.seq),
            digest: heard.digest,
        })
        .collect();
    Verification::judge(history, &found)
}

/// Takes out what the run sent and heard.
pub fn history(outcome: &mut Outcome) -> History {
    History {
        devices: std::mem::take(&mut outcome.devices),
        disturbances: Vec::new(),
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "  {name:<20} {value}");
        line(
            "found",
            format!("{} of {} sent, {} acked", self.found, self.sent, self.acked),
        )?;
        line("lost", self.lost.to_string())?;
        line("phantom", self.phantom.to_string())?;
        line("reordered", self.reordered.to_string())?;
        line(
            "duplicated",
            format!(
                "{}, of which {} were sent once",
                self.duplicated, self.duplicated_unexplained
            ),
        )?;
        if self.absent > 0 {
            line("not acked, absent", self.absent.to_string())?;
        }
        for violation in self.violations.iter().take(SHOWN_MAX) {
            line("!", violation.clone())?;
        }
        let why = if self.is_pass() {
            format!("all {} acked messages are there, each in its place", self.acked)
        } else {
            self.reasons.join("; ")
        };
        write!(f, "verdict: {} {why}", self.verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Connection;
    use crate::oracle::tests::{history, stored};

    #[test]
    fn a_server_that_kept_everything_passes() {
        let verification = Verification::judge(history(&[2, 1]), &stored(&[(0, 0), (1, 0), (0, 1)]));
        assert!(verification.is_pass(), "{verification}");
        assert_eq!(
            (verification.sent, verification.acked, verification.found),
            (3, 3, 3)
        );
        assert!(verification.to_string().contains("verdict: PASS"));
    }

    #[test]
    fn each_way_to_break_it_is_found() {
        for (found, broken) in [
            (vec![(0, 0)], "1 acked messages lost"),
            (vec![(0, 0), (0, 1), (0, 7)], "1 records that nobody sent"),
            (vec![(0, 1), (0, 0)], "1 messages out of order"),
            (vec![(0, 0), (0, 1), (0, 1)], "1 second copies"),
        ] {
            let verification = Verification::judge(history(&[2]), &stored(&found));
            assert!(
                !verification.is_pass() && verification.reasons.len() == 1,
                "{verification}"
            );
            assert!(verification.reasons[0].starts_with(broken), "{verification}");
            assert_eq!(verification.violations.len(), 1);
        }
        assert!(!Verification::judge(history(&[0]), &[]).is_pass());
    }

    #[test]
    fn what_was_not_acked_may_be_absent_and_what_was_sent_again_may_be_there_twice() {
        let mut run = history(&[2]);
        run.devices[0].messages[1].acked_us = None;
        let verification = Verification::judge(run.clone(), &stored(&[(0, 0)]));
        assert!(
            verification.is_pass() && verification.absent == 1,
            "{verification}"
        );
        run.devices[0].messages[1].last_connection = 1;
        run.devices[0].connections[0].lost_us = Some(5);
        run.devices[0].connections.push(Connection::opened(0, 9));
        let twice = Verification::judge(run, &stored(&[(0, 0), (0, 1), (0, 1)]));
        assert!(twice.is_pass() && twice.duplicated == 1, "{twice}");
    }
}
