//! W8 and W10: a service has one job after the other change the twins of a few devices, and another asks by queries what
//! they say, both through all gateways.
//!
//! Nobody else changes these twins, so the version of each tells how often jobs have. What is right is for
//! [`crate::invariants::jobs`] to say.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Bench;
use super::sight::{Alike, JobRun, Seen, Sight};

/// Pause before something that was not answered is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a job may take. A device takes a hundred jobs whose time is not over, so they may not be too many either.
const JOB_S_MAX: u64 = 120;
/// A job begins after so many queries.
const QUERIES_PER_JOB: u32 = 4;
/// Between two looks at a job that has not ended.
const LOOK_PAUSE: Duration = Duration::from_millis(300);

/// Makes the devices, and then jobs and queries until it is told to stop: a query every `period`, and a job for each
/// [`QUERIES_PER_JOB`] of them, unless one is under way.
pub async fn run(bench: Bench, devices: usize, period: Duration) {
    let mut desk = Desk { bench, node: 0 };
    for number in 0..devices {
        if !desk.make(number).await {
            return;
        }
    }
    let ready = Sight::Ready {
        devices: devices as u64,
    };
    desk.bench.shelf.sights.note(ready);
    let looker = Desk {
        bench: desk.bench.clone(),
        node: 1,
    };
    tokio::join!(desk.run_jobs(period), looker.look(period));
}

/// Whoever asks, and which node is asked next.
struct Desk {
    bench: Bench,
    node: usize,
}

impl Desk {
    /// One attempt, at the next node.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Option<(StatusCode, Value)> {
        let node = self.bench.turn(&mut self.node);
        self.bench.ask_json(node, (method, path), body, etag).await
    }

    /// Waits a moment; `false` once nothing new is to begin.
    async fn pause(&mut self, pause: Duration) -> bool {
        self.bench.wait_until(Instant::now() + pause).await
    }

    /// Makes a device, and changes its twin once. `false` if there is no time for it any more.
    async fn make(&mut self, number: usize) -> bool {
        let device = format!("/devices/surveyed-{number}?api-version=2021-04-12");
        let twin = format!("/twins/surveyed-{number}?api-version=2021-04-12");
        loop {
            if let Some((StatusCode::OK, found)) = self.ask(Method::GET, &twin, None, None).await {
                if found["tags"]["survey"] == true {
                    return true;
                }
                // Under its ETag: however often it is asked for, it happens once.
                let change = json!({ "tags": { "survey": true, "round": 0 } });
                let etag = format!("\"{}\"", found["etag"].as_str().unwrap_or_default());
                self.ask(Method::PATCH, &twin, Some(&change), Some(&etag)).await;
            } else {
                self.ask(Method::PUT, &device, Some(&json!({})), None).await;
            }
            if !self.pause(PAUSE).await {
                return false;
            }
        }
    }

    async fn run_jobs(mut self, period: Duration) {
        for round in 1.. {
            let begun = Instant::now();
            let job = self.run_job(round).await;
            let has_ended = job.ended_us.is_some();
            self.bench.shelf.sights.note(Sight::Job(job));
            if !has_ended || !self.bench.wait_until(begun + period * QUERIES_PER_JOB).await {
                return;
            }
        }
    }

    /// One job, from the first time that it is asked for until it has ended.
    async fn run_job(&mut self, round: u64) -> JobRun {
        let path = format!("/jobs/v2/survey-{round}?api-version=2021-04-12");
        let wanted = json!({
            "type": "scheduleUpdateTwin",
            "queryCondition": "tags.survey = true",
            "updateTwin": { "tags": { "round": round } },
            "maxExecutionTimeInSeconds": JOB_S_MAX,
        });
        let mut job = JobRun {
            round,
            invoked_us: self.bench.now_us(),
            ended_us: None,
            status: String::new(),
            succeeded: 0,
            failed: 0,
        };
        // The same job again is the same job.
        let mut is_made = false;
        loop {
            let answer = match is_made {
                false => self.ask(Method::PUT, &path, Some(&wanted), None).await,
                true => self.ask(Method::GET, &path, None, None).await,
            };
            if let Some((StatusCode::OK, found)) = answer {
                is_made = true;
                job.status = found["status"].as_str().unwrap_or_default().to_owned();
                if matches!(job.status.as_str(), "completed" | "failed" | "cancelled") {
                    let count = |name: &str| found["deviceJobStatistics"][name].as_u64().unwrap_or_default();
                    (job.succeeded, job.failed) = (count("succeededCount"), count("failedCount"));
                    job.ended_us = Some(self.bench.now_us());
                    return job;
                }
            }
            if !self.pause(LOOK_PAUSE).await {
                return job;
            }
        }
    }

    /// Asks again and again what the twins say.
    async fn look(mut self, period: Duration) {
        let query = json!({
            "query": "SELECT tags.round AS round, version AS version, COUNT() AS count FROM devices \
                      WHERE tags.survey = true GROUP BY tags.round, version",
        });
        while self.pause(period).await {
            let invoked_us = self.bench.now_us();
            let path = "/devices/query?api-version=2021-04-12";
            let answer = self.ask(Method::POST, path, Some(&query), None).await;
            let completed_us = self.bench.now_us();
            let Some((StatusCode::OK, Value::Array(rows))) = answer else {
                continue;
            };
            let number = |row: &Value, name: &str| row[name].as_u64().unwrap_or(u64::MAX);
            let alike = |row: &Value| Alike {
                round: number(row, "round"),
                version: number(row, "version"),
                count: number(row, "count"),
            };
            self.bench.shelf.sights.note(Sight::Seen(Seen {
                invoked_us,
                completed_us,
                found: rows.iter().map(alike).collect(),
            }));
        }
    }
}
