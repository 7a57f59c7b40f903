//! I7 — jobs and queries: a job changes each twin once, and a query sees every change that was acknowledged before it was
//! asked, of every device.
//!
//! Source: `docs/invariants.md` I7. Of these twins nobody else changes anything, so each has version 2 and the number of
//! its last job: a change that is done twice, or for a job that was not asked for, has another version. Jobs follow on
//! each other: a query that is asked after one has ended shows nobody before it.

use super::{Findings, Violation};
use crate::workload::sight::{JobRun, Seen, Sight};

/// The version of a twin that no job has changed.
const VERSION_FIRST: u64 = 2;

/// Jobs that did not succeed everywhere, and queries that show what cannot be.
pub fn check(sights: &[Sight]) -> Findings {
    let mut findings = Findings::default();
    let ready = sights.iter().find_map(|sight| match sight {
        Sight::Ready { devices } => Some(*devices),
        _ => None,
    });
    let Some(devices) = ready else {
        return findings;
    };
    let jobs: Vec<&JobRun> = sights
        .iter()
        .filter_map(|sight| match sight {
            Sight::Job(job) => Some(job),
            _ => None,
        })
        .collect();
    for job in jobs.iter().filter(|job| job.ended_us.is_some()) {
        if (job.status.as_str(), job.succeeded, job.failed) != ("completed", devices, 0) {
            findings.add(|| {
                Violation::of(format!(
                    "job {} ended as {} with {} of {devices} devices done and {} failed",
                    job.round, job.status, job.succeeded, job.failed
                ))
            });
        }
    }
    for sight in sights {
        if let Sight::Seen(seen) = sight {
            check_seen(&mut findings, &jobs, devices, seen);
        }
    }
    findings
}

fn check_seen(findings: &mut Findings, jobs: &[&JobRun], devices: u64, seen: &Seen) {
    let mut wrong = |what: String| {
        findings.add(|| Violation::of(format!("a query at {} ms shows {what}", seen.invoked_us / 1000)));
    };
    let count: u64 = seen.found.iter().map(|alike| alike.count).sum();
    if count != devices {
        wrong(format!("{count} of {devices} devices"));
    }
    let ended_before = |job: &&&JobRun| job.ended_us.is_some_and(|ended| ended < seen.invoked_us);
    let least = jobs
        .iter()
        .filter(ended_before)
        .map(|job| job.round)
        .max()
        .unwrap_or(0);
    let begun = |job: &&&JobRun| job.invoked_us <= seen.completed_us;
    let most = jobs.iter().filter(begun).map(|job| job.round).max().unwrap_or(0);
    for alike in &seen.found {
        if !(least..=most).contains(&alike.round) {
            wrong(format!(
                "job {} where {least} had ended and {most} begun",
                alike.round
            ));
        }
        if alike.version != alike.round.saturating_add(VERSION_FIRST) {
            wrong(format!("version {} after job {}", alike.version, alike.round));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::sight::Alike;

    fn job(round: u64, invoked_us: u64, ended_us: Option<u64>) -> Sight {
        Sight::Job(JobRun {
            round,
            invoked_us,
            ended_us,
            status: "completed".into(),
            succeeded: 3,
            failed: 0,
        })
    }

    fn seen(invoked_us: u64, found: &[(u64, u64, u64)]) -> Sight {
        let alike = |(round, version, count): &(u64, u64, u64)| Alike {
            round: *round,
            version: *version,
            count: *count,
        };
        Sight::Seen(Seen {
            invoked_us,
            completed_us: invoked_us + 10,
            found: found.iter().map(alike).collect(),
        })
    }

    /// Of three devices, of which two jobs changed each; the third job was never seen to end.
    fn run(more: Sight) -> u64 {
        let sights = vec![
            Sight::Ready { devices: 3 },
            job(1, 100, Some(200)),
            job(2, 300, Some(400)),
            job(3, 500, None),
            more,
        ];
        check(&sights).count
    }

    #[test]
    fn what_can_be_is_right() {
        for good in [
            seen(50, &[(0, 2, 3)]),
            seen(95, &[(0, 2, 1), (1, 3, 2)]),
            seen(210, &[(1, 3, 3)]),
            seen(350, &[(1, 3, 1), (2, 4, 2)]),
            seen(600, &[(2, 4, 2), (3, 5, 1)]),
        ] {
            assert_eq!(run(good.clone()), 0, "{good:?}");
        }
        assert_eq!(
            check(&[seen(1, &[])]).count,
            0,
            "nothing is known before all is ready"
        );
    }

    #[test]
    fn what_cannot_be_is_found() {
        for bad in [
            seen(210, &[(0, 2, 1), (1, 3, 2)]),
            seen(50, &[(0, 2, 2), (1, 3, 1)]),
            seen(210, &[(1, 4, 3)]),
            seen(210, &[(1, 3, 2)]),
            seen(210, &[(1, 3, 4)]),
        ] {
            assert_eq!(run(bad.clone()), 1, "{bad:?}");
        }
        for (status, succeeded, failed) in [("failed", 3, 0), ("completed", 2, 0), ("completed", 3, 1)] {
            let bad = Sight::Job(JobRun {
                round: 4,
                invoked_us: 700,
                ended_us: Some(800),
                status: status.into(),
                succeeded,
                failed,
            });
            assert_eq!(run(bad), 1, "{status} {succeeded} {failed}");
        }
    }
}
