//! Connections hold: a gateway that lives keeps its devices, whatever happens to the shards behind it.
//!
//! Source: design §4 ("a backend failover never drops a device's connection"); part of I15, since a
//! device that is thrown out is not served. A connection whose device had given up an attempt just before
//! may be taken over by that one, as `docs/semantics.md` has it (whoever connects later wins).

use super::{Findings, Violation};
use crate::oracle::History;

/// Connections that were lost although their node was not killed.
pub fn check(history: &History) -> Findings {
    let mut findings = Findings::default();
    for device in &history.devices {
        for connection in &device.connections {
            let Some(lost_us) = connection.lost_us.filter(|_| !history.is_excused(connection)) else {
                continue;
            };
            findings.add(|| Violation {
                device: Some(device.device.clone()),
                ..Violation::of(format!(
                    "connection to node {}, which lived, was lost at {:.3} s",
                    connection.node + 1,
                    lost_us as f64 / 1e6
                ))
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::oracle::Disturbance;
    use crate::oracle::tests::history;

    #[test]
    fn a_loss_that_no_kill_explains_is_found() {
        let mut history = history(&[1, 1]);
        assert!(check(&history).is_empty());
        history.devices[1].connections[0].lost_us = Some(50);
        let findings = check(&history);
        assert_eq!(
            (findings.count, findings.examples[0].device.as_deref()),
            (1, Some("d1"))
        );
        history.disturbances = vec![Disturbance {
            node: 0,
            from_us: 40,
            until_us: 45,
        }];
        assert!(check(&history).is_empty());
        history.disturbances[0].node = 1;
        assert_eq!(check(&history).count, 1);
        history.devices[1].connections[0].contested_us = Some(0);
        assert!(
            check(&history).is_empty(),
            "its device had given up an attempt before"
        );
    }
}
