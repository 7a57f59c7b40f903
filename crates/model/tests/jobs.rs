//! Jobs in a shard: what is stored, listed, due and forgotten, and that each device is changed once and asked once whatever
//! becomes of those who run a job.

// A panic is how a test fails; clippy knows that of test functions, not of their helpers.
#![allow(clippy::unwrap_used)]

#[path = "../../actors/tests/host/support/store.rs"]
#[allow(dead_code)]
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::command::{Command, Found, Outcome, Query, Refusal, View};
use dunlin_model::id::{DeviceId, LogPosition, NodeId, ShardId, StreamId};
use dunlin_model::identity::{Authentication, Condition, DeviceSpec};
use dunlin_model::job::rows::{RowResult, RowStatus};
use dunlin_model::job::state::JobState;
use dunlin_model::job::{
    JOB_HISTORY_MS, JOB_LEASE_MS, JOBS_PER_SHARD_MAX, Job, JobCursor, JobId, JobSpec, JobStatus, JobStep,
    JobWork,
};
use dunlin_model::port::{Frame, FrameResult};
use dunlin_model::shard::state::ShardState;
use dunlin_model::shard::{Batch, Part, read};
use dunlin_model::twin::Twin;
use proptest::prelude::*;
use serde_json::Value;
use store::MemoryStore;

const STREAM: StreamId = StreamId {
    gateway: NodeId(1),
    incarnation: 1,
};
const SHARD: ShardId = ShardId(0);
/// Devices on a page, so that there are several.
const PAGE: usize = 3;

struct Shard {
    machine: ShardState,
    index: u64,
    sequence: u64,
    now_ms: u64,
}

impl Shard {
    fn new() -> Self {
        let mut shard = Self {
            machine: ShardState::open(Arc::new(MemoryStore::default())).unwrap(),
            index: 0,
            sequence: 0,
            now_ms: 1_000_000,
        };
        shard.apply(Part::StreamOpen(STREAM));
        shard
    }

    fn apply(&mut self, part: Part) -> Option<Outcome> {
        self.index += 1;
        self.now_ms += 1;
        let position = LogPosition {
            term: 1,
            leader: 1,
            index: self.index,
        };
        let batch = Batch {
            time_ms: self.now_ms,
            parts: vec![part],
        };
        let mut applied = self.machine.apply(position, &batch).unwrap();
        match applied.outcomes.pop()?.result {
            FrameResult::Applied(mut frame) => frame.outcomes.pop(),
            other => panic!("{other:?}"),
        }
    }

    fn submit(&mut self, command: Command) -> Outcome {
        self.sequence += 1;
        let frame = Frame {
            stream: STREAM,
            sequence: self.sequence,
            records: Bytes::new(),
            record_count: 0,
            commands: vec![command],
            trace: None,
        };
        self.apply(Part::Frame(frame)).unwrap()
    }

    fn read(&self, query: &Query) -> View {
        read::read(&**self.machine.store(), query).unwrap()
    }

    fn add(&mut self, name: &str) -> DeviceId {
        let device = DeviceId::parse_identity(name).unwrap();
        self.submit(Command::DevicePut {
            device: device.clone(),
            spec: DeviceSpec::enabled(Authentication::None),
            condition: Condition::Any,
        });
        device
    }

    fn job(&self, name: &str) -> Option<Job> {
        match self.read(&Query::Job(id(name))) {
            View::Job(job) => job.map(|job| *job),
            other => panic!("{other:?}"),
        }
    }

    fn twin(&self, device: &DeviceId) -> Twin {
        match self.read(&Query::Twin(device.clone())) {
            View::Twin(Some(view)) => view.document().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Rows of a query, and where its next page begins.
    fn rows(&self, statement: &str, after: Bytes, count_max: usize) -> (Vec<Value>, Option<Bytes>) {
        let statement = statement.to_owned();
        let shard = SHARD;
        let query = Query::Fleet {
            shard,
            statement,
            after,
            count_max,
        };
        match self.read(&query) {
            View::Fleet {
                found: Found::Rows(rows),
                next,
            } => (
                rows.iter()
                    .map(|row| serde_json::from_str(row).unwrap())
                    .collect(),
                next,
            ),
            other => panic!("{other:?}"),
        }
    }

    fn due(&self) -> Vec<JobId> {
        let query = Query::DueJobs {
            shard: SHARD,
            ms: self.now_ms,
        };
        match self.read(&query) {
            View::DueJobs(due) => due,
            other => panic!("{other:?}"),
        }
    }
}

fn id(name: &str) -> JobId {
    JobId::parse(name).unwrap()
}

fn twin_job(name: &str) -> JobSpec {
    JobSpec {
        id: id(name),
        work: JobWork::TwinUpdate {
            tags: None,
            desired: Some(r#"{"on":1}"#.into()),
        },
        condition: "*".into(),
        start_ms: 0,
        time_max_s: 3600,
    }
}

fn method_job(name: &str) -> JobSpec {
    JobSpec {
        work: JobWork::Method {
            name: "m".into(),
            payload: "null".into(),
            response_s: 30,
            connect_s: 0,
        },
        ..twin_job(name)
    }
}

fn put(shard: &mut Shard, spec: JobSpec) -> Outcome {
    shard.submit(Command::JobPut(Box::new(spec)))
}

#[test]
fn a_job_is_made_once() {
    let mut shard = Shard::new();
    let Outcome::Job { state: first, .. } = put(&mut shard, twin_job("j")) else {
        panic!("it is made")
    };
    let again = put(&mut shard, twin_job("j"));
    assert!(matches!(again, Outcome::Job { state, .. } if state == first));
    let other = put(&mut shard, method_job("j"));
    assert_eq!(other, Outcome::Refused(Refusal::AlreadyExists));
    assert_eq!(shard.job("j").unwrap().spec, twin_job("j"));
    assert_eq!(shard.job("k"), None);
    assert_eq!(shard.due(), [id("j")]);
    let cancelled = shard.submit(Command::JobCancel(id("j")));
    assert!(matches!(cancelled, Outcome::Job { state, .. } if state.status == JobStatus::Cancelled));
    assert_eq!(
        shard.submit(Command::JobCancel(id("j"))),
        Outcome::Refused(Refusal::JobEnded)
    );
    assert_eq!(
        shard.submit(Command::JobCancel(id("k"))),
        Outcome::Refused(Refusal::UnknownJob)
    );
    assert!(shard.due().is_empty());
}

#[test]
fn jobs_are_listed_page_by_page() {
    let mut shard = Shard::new();
    for n in 0..25 {
        put(&mut shard, twin_job(&format!("j{n}")));
    }
    let (mut seen, mut after) = (Vec::new(), Bytes::new());
    loop {
        let query = Query::Jobs {
            shard: SHARD,
            after,
            count_max: 10,
        };
        let View::Jobs { found, next } = shard.read(&query) else {
            panic!("jobs")
        };
        assert!(found.len() <= 10);
        seen.extend(found.into_iter().map(|job| job.spec.id.to_string()));
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 25);
}

#[test]
fn jobs_that_ended_long_ago_make_room() {
    let mut shard = Shard::new();
    for n in 0..JOBS_PER_SHARD_MAX {
        put(&mut shard, twin_job(&format!("j{n}")));
    }
    let full = put(&mut shard, twin_job("more"));
    assert_eq!(full, Outcome::Refused(Refusal::LimitReached));
    shard.submit(Command::JobCancel(id("j7")));
    let full = put(&mut shard, twin_job("more"));
    assert_eq!(
        full,
        Outcome::Refused(Refusal::LimitReached),
        "it is kept for a while"
    );
    // No entry moves time by more than a day.
    shard.now_ms += JOB_HISTORY_MS;
    assert!(matches!(put(&mut shard, twin_job("more")), Outcome::Job { .. }));
    assert_eq!(shard.job("j7"), None);
    assert!(shard.job("j8").is_some(), "it has not ended");
}

#[test]
fn rows_are_queried_page_by_page_and_go_with_their_device() {
    let mut shard = Shard::new();
    let devices = ["a", "b", "b/m"].map(|name| shard.add(name));
    for name in ["j1", "j2", "j3"] {
        put(&mut shard, twin_job(name));
        run(&mut shard, name, &devices);
    }
    let all = "SELECT * FROM devices.jobs";
    for count_max in [1, 2, 4, 100] {
        let (mut seen, mut after) = (Vec::new(), Bytes::new());
        loop {
            let (rows, next) = shard.rows(all, after, count_max);
            assert!(rows.len() <= count_max);
            seen.extend(rows);
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        let name = |row: &Value| format!("{}/{}/{}", row["deviceId"], row["moduleId"], row["jobId"]);
        let mut names: Vec<String> = seen.iter().map(name).collect();
        names.sort();
        names.dedup();
        assert_eq!((seen.len(), names.len()), (9, 9), "{count_max}");
    }
    let one =
        "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'j2' AND deviceId = 'b' AND moduleId = 'm'";
    let (rows, _) = shard.rows(one, Bytes::new(), 10);
    assert_eq!((rows.len(), &rows[0]["status"]), (1, &Value::from("completed")));
    shard.submit(Command::DeviceDelete {
        device: devices[1].clone(),
        condition: Condition::Any,
    });
    assert_eq!(shard.rows(all, Bytes::new(), 100).0.len(), 3);
}

#[test]
fn what_cannot_be_done_at_a_device_is_written_there() {
    let mut shard = Shard::new();
    let device = shard.add("a");
    let mut spec = twin_job("j");
    let large: String = "x".repeat(4000);
    spec.work = JobWork::TwinUpdate {
        tags: Some(format!(r#"{{"a":"{large}","b":"{large}","c":"{large}"}}"#)),
        desired: None,
    };
    put(&mut shard, spec);
    run(&mut shard, "j", std::slice::from_ref(&device));
    assert_eq!(shard.twin(&device), Twin::default());
    let job = shard.job("j").unwrap();
    assert_eq!(
        (job.state.status, job.state.counts.failed),
        (JobStatus::Completed, 1)
    );
    let (rows, _) = shard.rows("SELECT * FROM devices.jobs", Bytes::new(), 10);
    assert_eq!(rows[0]["error"]["code"], "TwinPropertiesTooLarge");
}

/// Somebody who runs a job, as far as it knows. What it sends may be lost on the way back, and it may be forgotten.
#[derive(Debug, Clone, Default)]
struct Runner {
    number: u64,
    job: Option<Job>,
    /// Devices of the page that it has seen to, and how each went.
    ended: Vec<RowStatus>,
    /// A device that it has asked and not said so.
    asked: bool,
}

/// What runs beside the shard: how often each device was asked.
#[derive(Default)]
struct Outside {
    asked: BTreeMap<DeviceId, u32>,
    last_runner: u64,
}

impl Runner {
    /// The next command of its way, or nothing if it has none.
    fn command(&self, name: &str, devices: &[DeviceId]) -> Option<Command> {
        let Some(job) = &self.job else {
            return Some(Command::JobClaim {
                id: id(name),
                runner: self.number,
            });
        };
        if job.state.status.has_ended() {
            return None;
        }
        let (runner, order) = (self.number, Box::new(job.order()));
        if let Some(device) = job.plan.page.get(self.ended.len()).cloned() {
            return Some(match &job.spec.work {
                JobWork::TwinUpdate { tags, desired } => Command::JobTwin {
                    device,
                    order,
                    runner,
                    tags: tags.clone(),
                    desired: desired.clone(),
                },
                JobWork::Method { .. } if self.asked => Command::JobMethodEnd {
                    device,
                    order,
                    runner,
                    result: RowResult::Answered {
                        status: 200,
                        payload: None,
                    },
                },
                JobWork::Method { .. } => Command::JobMethodBegin {
                    device,
                    order,
                    runner,
                },
            });
        }
        let number = job.state.steps;
        let step = if job.plan.page.is_empty() {
            // The place of the next device stands for the cursor.
            let begin = job.plan.cursor.as_ref().map_or(0, |cursor| cursor.shard as usize);
            let end = (begin + PAGE).min(devices.len());
            let after = Bytes::new();
            let shard = end as u32;
            let next = (end < devices.len()).then_some(JobCursor { shard, after });
            let page = devices[begin..end].to_vec();
            JobStep::Plan { number, page, next }
        } else {
            let succeeded = self
                .ended
                .iter()
                .filter(|status| **status == RowStatus::Completed)
                .count();
            JobStep::Done {
                number,
                succeeded: succeeded as u32,
                failed: (self.ended.len() - succeeded) as u32,
            }
        };
        Some(Command::JobAdvance {
            id: id(name),
            runner,
            step: Box::new(step),
        })
    }

    /// Sends it, and hears the answer unless that is lost.
    fn step(
        &mut self,
        shard: &mut Shard,
        outside: &mut Outside,
        name: &str,
        devices: &[DeviceId],
        is_lost: bool,
    ) {
        let Some(command) = self.command(name, devices) else {
            return;
        };
        let outcome = shard.submit(command.clone());
        if is_lost {
            return;
        }
        match outcome {
            Outcome::Job { .. } => {
                self.job = shard.job(name);
                self.ended.clear();
                self.asked = false;
            }
            Outcome::JobRow { is_to_ask: true, .. } => {
                let Command::JobMethodBegin { device, .. } = command else {
                    panic!("only methods ask")
                };
                *outside.asked.entry(device).or_default() += 1;
                self.asked = true;
            }
            Outcome::JobRow { status, .. } => {
                self.asked = false;
                self.ended.push(status);
            }
            // Whoever is refused begins anew.
            Outcome::Refused(_) => self.die(outside),
            other => panic!("{other:?}"),
        }
    }

    fn die(&mut self, outside: &mut Outside) {
        outside.last_runner += 1;
        *self = Self {
            number: outside.last_runner,
            ..Self::default()
        };
    }
}

/// One runner that nothing happens to.
fn run(shard: &mut Shard, name: &str, devices: &[DeviceId]) {
    let mut outside = Outside {
        last_runner: 1_000_000,
        ..Outside::default()
    };
    let mut runner = Runner::default();
    runner.die(&mut outside);
    finish(shard, &mut outside, runner, name, devices);
}

fn finish(shard: &mut Shard, outside: &mut Outside, mut runner: Runner, name: &str, devices: &[DeviceId]) {
    for _ in 0..1000 {
        if shard.job(name).unwrap().state.status.has_ended() {
            return;
        }
        runner.step(shard, outside, name, devices, false);
    }
    panic!("it does not end");
}

/// What happens next: to which runner, what, and how much later.
type Happening = (usize, u8, u64);

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let pause = prop_oneof![8 => 0..500u64, 1 => JOB_LEASE_MS..2 * JOB_LEASE_MS];
    prop::collection::vec((0..3usize, 0..10u8, pause), 0..150)
}

/// Lets all that happen to a job at `count` devices, and one last runner bring it to its end.
fn live_through(
    spec: JobSpec,
    count: usize,
    happenings: &[Happening],
) -> (Shard, Vec<DeviceId>, Outside, JobState) {
    let mut shard = Shard::new();
    let devices: Vec<DeviceId> = (0..count).map(|n| shard.add(&format!("d{n}"))).collect();
    let name = spec.id.to_string();
    put(&mut shard, spec);
    let mut outside = Outside::default();
    let mut runners = [0; 3].map(|_| {
        let mut runner = Runner::default();
        runner.die(&mut outside);
        runner
    });
    for (place, what, pause_ms) in happenings {
        shard.now_ms += pause_ms;
        let runner = &mut runners[*place];
        match what {
            0 => runner.die(&mut outside),
            1 => runner.step(&mut shard, &mut outside, &name, &devices, true),
            _ => runner.step(&mut shard, &mut outside, &name, &devices, false),
        }
    }
    shard.now_ms += JOB_LEASE_MS;
    let mut last = Runner::default();
    last.die(&mut outside);
    finish(&mut shard, &mut outside, last, &name, &devices);
    let state = shard.job(&name).unwrap().state;
    (shard, devices, outside, state)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However often runners die, fall silent for a while and go on, or do not hear their answers.
    #[test]
    fn each_twin_is_changed_once(count in 0..10usize, happenings in happenings()) {
        let (shard, devices, _, state) = live_through(twin_job("j"), count, &happenings);
        for device in &devices {
            let twin = shard.twin(device);
            prop_assert_eq!((twin.version, twin.desired.version), (2, 2), "{}", device);
        }
        let counts = (state.counts.devices, state.counts.succeeded, state.counts.failed);
        prop_assert_eq!(counts, (count as u64, count as u64, 0));
        prop_assert_eq!(state.status, JobStatus::Completed);
    }

    /// The same for methods: nobody is asked twice, and every device has an end.
    #[test]
    fn each_device_is_asked_once_at_the_most(count in 0..10usize, happenings in happenings()) {
        let (shard, devices, outside, state) = live_through(method_job("j"), count, &happenings);
        prop_assert!(outside.asked.values().all(|asked| *asked == 1), "{:?}", outside.asked);
        let (rows, _) = shard.rows("SELECT * FROM devices.jobs", Bytes::new(), 100);
        prop_assert_eq!(rows.len(), devices.len());
        let completed = rows.iter().filter(|row| row["status"] == "completed").count() as u64;
        let counts = (state.counts.devices, state.counts.succeeded, state.counts.failed);
        prop_assert_eq!(counts, (count as u64, completed, count as u64 - completed));
        prop_assert!(rows.iter().all(|row| row["status"] != "running"));
    }
}
