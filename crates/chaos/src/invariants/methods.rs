//! I9 — direct methods: a device is asked at most once per call; exactly once if the caller has its answer, which is the
//! one to this call; not at all if the caller was told that it was not.
//!
//! Source: `docs/invariants.md` I9. The device counts what it hears; each call has a name of its own, which is its
//! payload and its answer.

use std::collections::BTreeMap;

use super::{Findings, Violation};
use crate::workload::exchange::Exchange;
use crate::workload::operation::Outcome;

/// Calls that were carried out too often, or too seldom, or answered with something else.
pub fn check(exchanges: &[Exchange]) -> Findings {
    let mut findings = Findings::default();
    let mut executions: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for exchange in exchanges {
        if let Exchange::Execution(one) = exchange {
            *executions.entry((&one.device, &one.id)).or_default() += 1;
        }
    }
    let found = |device: &str, what: String| Violation {
        device: Some(device.to_owned()),
        ..Violation::of(what)
    };
    for exchange in exchanges {
        let Exchange::Call(call) = exchange else {
            continue;
        };
        let count = executions
            .remove(&(call.device.as_str(), call.id.as_str()))
            .unwrap_or(0);
        let is_sound = match call.outcome {
            Outcome::Ok => count == 1,
            Outcome::Fail => count == 0,
            Outcome::Unknown => count <= 1,
        };
        if !is_sound {
            findings.add(|| {
                found(
                    &call.device,
                    format!(
                        "call {} ended as {:?} ({}) and was carried out {count} times",
                        call.id, call.outcome, call.answer
                    ),
                )
            });
        }
        if call.outcome == Outcome::Ok && call.answer != call.id {
            findings.add(|| {
                found(
                    &call.device,
                    format!("call {} was answered with {}", call.id, call.answer),
                )
            });
        }
    }
    for ((device, id), count) in executions {
        findings.add(|| {
            found(
                device,
                format!("call {id} was carried out {count} times and never made"),
            )
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::exchange::{Execution, MethodCall};

    fn call(outcome: Outcome, answer: &str) -> Exchange {
        Exchange::Call(MethodCall {
            device: "d".into(),
            id: "7".into(),
            invoked_us: 1,
            completed_us: 2,
            outcome,
            answer: answer.into(),
        })
    }

    fn carried_out(id: &str) -> Exchange {
        Exchange::Execution(Execution {
            device: "d".into(),
            id: id.into(),
        })
    }

    #[test]
    fn calls_are_held_against_what_the_device_counted() {
        let sound = [
            vec![call(Outcome::Ok, "7"), carried_out("7")],
            vec![call(Outcome::Fail, "DeviceNotOnline")],
            vec![call(Outcome::Unknown, "504")],
            vec![call(Outcome::Unknown, "504"), carried_out("7")],
        ];
        for exchanges in sound {
            assert_eq!(check(&exchanges), Findings::default(), "{exchanges:?}");
        }
        for exchanges in [
            vec![call(Outcome::Ok, "7")],
            vec![call(Outcome::Ok, "8"), carried_out("7")],
            vec![call(Outcome::Ok, "7"), carried_out("7"), carried_out("7")],
            vec![call(Outcome::Fail, "DeviceNotOnline"), carried_out("7")],
            vec![call(Outcome::Unknown, "504"), carried_out("7"), carried_out("7")],
            vec![carried_out("9")],
        ] {
            assert_eq!(check(&exchanges).count, 1, "{exchanges:?}");
        }
    }
}
