//! What answers of the hub say, as it is written down: outcomes of commits, runs of offsets.

use dunlin_gateway::client::kafka::{Code, Event};

use crate::workload::operation::Outcome;

/// What an answer to a commit says of it. A group that could not be asked may have been asked all the same.
pub(super) fn outcome(code: Code) -> Outcome {
    match code {
        Code::NONE => Outcome::Ok,
        Code::ILLEGAL_GENERATION | Code::UNKNOWN_MEMBER_ID | Code::REBALANCE_IN_PROGRESS => Outcome::Fail,
        _ => Outcome::Unknown,
    }
}

/// Offsets that follow on each other, as they came.
pub(super) fn runs(events: &[Event]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for event in events {
        match runs.last_mut() {
            Some((_, until)) if *until == event.offset => *until += 1,
            _ => runs.push((event.offset, event.offset + 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_put_together_as_they_come_and_not_as_they_should() {
        let event = |offset| Event {
            offset,
            time_ms: 0,
            device: Default::default(),
            payload: Default::default(),
        };
        let of = |offsets: &[u64]| runs(&offsets.iter().map(|offset| event(*offset)).collect::<Vec<_>>());
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[7, 8, 9]), [(7, 10)]);
        assert_eq!(of(&[7, 9, 8, 8]), [(7, 8), (9, 10), (8, 9), (8, 9)]);
    }

    #[test]
    fn what_may_have_been_done_is_no_failure() {
        assert_eq!(outcome(Code::NONE), Outcome::Ok);
        assert_eq!(outcome(Code::ILLEGAL_GENERATION), Outcome::Fail);
        for code in [
            Code::COORDINATOR_NOT_AVAILABLE,
            Code::COORDINATOR_LOAD_IN_PROGRESS,
            Code::UNKNOWN_SERVER_ERROR,
        ] {
            assert_eq!(outcome(code), Outcome::Unknown, "{code}");
        }
    }
}
