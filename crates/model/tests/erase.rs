//! Erased devices: what readers are shown of them, what replicas have to write again, and that nobody else loses anything.

// A panic is how a test fails; clippy knows that of test functions, not of their helpers.
#![allow(clippy::unwrap_used)]

#[path = "../../actors/tests/host/support/store.rs"]
#[allow(dead_code)]
mod store;

use std::sync::Arc;

use bytes::BytesMut;
use dunlin_model::command::{Command, Outcome, Query, Refusal, View};
use dunlin_model::id::{DeviceId, LogPosition, NodeId, ShardId, StreamId};
use dunlin_model::identity::{Authentication, Condition, DeviceSpec};
use dunlin_model::leftover::{LEFTOVERS_PAGE_MAX, Leftover};
use dunlin_model::port::{EventRun, Frame, FrameApplied, FrameResult, ShardStore};
use dunlin_model::provisioning::{ProofKind, RegistrationId, RegistrationSpec, Substatus};
use dunlin_model::routing::EventSources;
use dunlin_model::shard::erase::{begin_anew, hide, pending, rewritten, settle};
use dunlin_model::shard::state::ShardState;
use dunlin_model::shard::{Batch, Part, read};
use dunlin_model::telemetry::{self, AuthMethod, Source};
use store::MemoryStore;

const STREAM: StreamId = StreamId {
    gateway: NodeId(1),
    incarnation: 1,
};

struct Shard {
    machine: ShardState,
    index: u64,
    sequence: u64,
    /// The event log.
    runs: Vec<EventRun>,
}

impl Shard {
    fn new() -> Self {
        let mut shard = Self {
            machine: ShardState::open(Arc::new(MemoryStore::default())).unwrap(),
            index: 0,
            sequence: 0,
            runs: Vec::new(),
        };
        shard.apply(vec![Part::StreamOpen(STREAM)]);
        shard
    }

    fn store(&self) -> &dyn ShardStore {
        &**self.machine.store()
    }

    fn apply(&mut self, parts: Vec<Part>) -> Option<FrameApplied> {
        self.index += 1;
        let position = LogPosition {
            term: 1,
            leader: 1,
            index: self.index,
        };
        let time_ms = 1_000 + self.index;
        let mut applied = self.machine.apply(position, &Batch { time_ms, parts }).unwrap();
        self.runs.extend(applied.run);
        match applied.outcomes.pop()?.result {
            FrameResult::Applied(frame) => Some(frame),
            other => panic!("{other:?}"),
        }
    }

    fn frame(&mut self, records: &BytesMut, record_count: u32, commands: Vec<Command>) -> Part {
        self.sequence += 1;
        Part::Frame(Frame {
            stream: STREAM,
            sequence: self.sequence,
            records: records.clone().freeze(),
            record_count,
            commands,
            trace: None,
        })
    }

    fn submit(&mut self, command: Command) -> Outcome {
        let frame = self.frame(&BytesMut::new(), 0, vec![command]);
        self.apply(vec![frame]).unwrap().outcomes.pop().unwrap()
    }

    /// Its generation.
    fn add(&mut self, name: &str) -> u64 {
        let put = Command::DevicePut {
            device: id(name),
            spec: DeviceSpec::enabled(Authentication::None),
            condition: Condition::Any,
        };
        match self.submit(put) {
            Outcome::Stored(record) => record.generation,
            other => panic!("{other:?}"),
        }
    }

    /// Sends a message of each, in one entry.
    fn send(&mut self, devices: &[(&str, u64)], body: &str) {
        let mut records = BytesMut::new();
        for (name, generation) in devices {
            let content = (&b"a=b"[..], body.as_bytes());
            telemetry::encode(
                &mut records,
                Source::Http,
                AuthMethod::DeviceKey,
                *generation,
                &id(name),
                content,
            );
        }
        let frame = self.frame(&records, devices.len() as u32, Vec::new());
        let applied = self.apply(vec![frame]).unwrap();
        assert_eq!(applied.fenced, [0; 0]);
    }

    fn erase(&mut self, name: &str) -> u64 {
        match self.submit(Command::DeviceErase { device: id(name) }) {
            Outcome::Erased { upto } => upto,
            other => panic!("{other:?}"),
        }
    }

    fn begin_upload(&mut self, name: &str, generation: u64, id: &str) -> Outcome {
        self.submit(Command::UploadBegin {
            device: self::id(name),
            generation,
            id: id.to_owned(),
            blob: "x".to_owned(),
            secret_digest: String::new(),
            ttl_ms: 0,
        })
    }

    /// What erased devices have left, all pages of it.
    fn leftovers(&self) -> Vec<Leftover> {
        let (mut all, mut after) = (Vec::new(), bytes::Bytes::new());
        loop {
            let shard = ShardId(0);
            let View::Leftovers { found, next } =
                read::read(self.store(), &Query::Leftovers { shard, after }).unwrap()
            else {
                panic!("an answer of another kind");
            };
            assert!(found.len() <= LEFTOVERS_PAGE_MAX);
            all.extend(found);
            match next {
                Some(next) => after = next,
                None => return all,
            }
        }
    }

    fn gone(&mut self, name: &str, index: u64) {
        let device = id(name);
        assert_eq!(
            self.submit(Command::LeftoverGone { device, index }),
            Outcome::Done
        );
    }

    /// Device and body of each event, by offset, as readers get them.
    fn shown(&self) -> Vec<String> {
        let mut runs = self.runs.clone();
        hide(self.store(), &mut runs).unwrap();
        texts(&runs)
    }

    /// Writes the event log again.
    fn rewrite(&mut self) {
        let mut runs = self.runs.clone();
        for run in &mut runs {
            if let Some(records) = rewritten(self.store(), run).unwrap() {
                run.records = records;
            }
        }
        self.runs = runs;
    }
}

fn texts(runs: &[EventRun]) -> Vec<String> {
    let mut texts = Vec::new();
    for run in runs {
        let records: Vec<_> = telemetry::records(run.records.clone())
            .map(Result::unwrap)
            .collect();
        assert_eq!(records.len(), run.count as usize);
        texts.extend(records.iter().map(|record| match record.source {
            Source::Erased => "nothing".to_owned(),
            Source::Lifecycle => format!("life of {}", record.device_str()),
            _ => format!(
                "{} {}",
                record.device_str(),
                String::from_utf8_lossy(&record.payload)
            ),
        }));
    }
    texts
}

fn id(name: &str) -> DeviceId {
    DeviceId::parse_identity(name).unwrap()
}

#[test]
fn what_an_erased_device_sent_is_shown_to_nobody_and_all_else_is() {
    let mut shard = Shard::new();
    let (d, e) = (shard.add("d"), shard.add("e"));
    let module = shard.add("d/m");
    shard.send(&[("d", d), ("e", e), ("d/m", module), ("d", d)], "1");
    shard.send(&[("e", e)], "2");
    assert_eq!(shard.erase("d"), 5);
    let gone = ["nothing", "e 1", "nothing", "nothing", "e 2"];
    assert_eq!(shard.shown(), gone);
    for name in ["d", "d/m"] {
        let view = read::read(shard.store(), &Query::Device(id(name))).unwrap();
        assert_eq!(view, View::Device(None), "{name}");
    }
    // Another device of that name.
    let d = shard.add("d");
    shard.send(&[("d", d), ("e", e)], "3");
    let mut all = gone.to_vec();
    all.extend(["d 3", "e 3"]);
    assert_eq!(shard.shown(), all);
    shard.rewrite();
    assert_eq!(texts(&shard.runs), all, "the bytes are gone, too");
    for run in &shard.runs {
        assert_eq!(rewritten(shard.store(), run).unwrap(), None, "once is enough");
    }
    assert_eq!(shard.erase("d"), 7);
    all[5] = "nothing";
    assert_eq!(shard.shown(), all);
}

#[test]
fn what_the_hub_told_of_it_goes_with_it() {
    let mut shard = Shard::new();
    shard.add("d");
    let erase = Command::DeviceErase { device: id("d") };
    let frame = shard.frame(&BytesMut::new(), 0, vec![erase]);
    shard.apply(vec![Part::Announce(EventSources::from_bits(u8::MAX)), frame]);
    assert_eq!(texts(&shard.runs), ["life of d"]);
    assert_eq!(shard.shown(), ["nothing"]);
}

#[test]
fn one_that_is_deleted_or_was_never_there_can_be_erased() {
    let mut shard = Shard::new();
    let d = shard.add("d");
    shard.send(&[("d", d)], "1");
    shard.submit(Command::DeviceDelete {
        device: id("d"),
        condition: Condition::Any,
    });
    assert_eq!(shard.shown(), ["d 1"]);
    assert_eq!(shard.erase("d"), 1);
    assert_eq!(shard.shown(), ["nothing"]);
    assert_eq!(shard.erase("f"), 1);
}

#[test]
fn a_replica_is_done_until_something_comes_that_it_has_not_looked_at() {
    let mut shard = Shard::new();
    assert_eq!(pending(shard.store()).unwrap(), None);
    assert!(!begin_anew(shard.store()).unwrap());
    let d = shard.add("d");
    shard.send(&[("d", d)], "1");
    shard.erase("d");
    let first = pending(shard.store()).unwrap().unwrap();
    assert_eq!(first.upto, 1);
    shard.erase("e");
    settle(shard.store(), first).unwrap();
    let second = pending(shard.store())
        .unwrap()
        .expect("the second came meanwhile");
    assert!(second.index > first.index);
    settle(shard.store(), second).unwrap();
    assert_eq!(pending(shard.store()).unwrap(), None);
    assert!(begin_anew(shard.store()).unwrap());
    assert_eq!(pending(shard.store()).unwrap(), Some(second));
}

#[test]
fn what_is_left_elsewhere_is_known_until_it_is_gone() {
    let mut shard = Shard::new();
    let d = shard.add("d");
    assert!(matches!(
        shard.begin_upload("d", d, "one"),
        Outcome::UploadBegun { .. }
    ));
    assert_eq!(shard.leftovers(), []);
    shard.erase("d");
    let first = Leftover {
        device: id("d"),
        index: shard.index,
        erased_ms: 1_000 + shard.index,
        uploads: vec!["one".to_owned()],
    };
    assert_eq!(shard.leftovers(), std::slice::from_ref(&first));

    // Another device of that name uploads nothing that could be taken for the erased one's; one of another name does.
    let (d, e) = (shard.add("d"), shard.add("e"));
    let refused = Outcome::Refused(Refusal::LeftoverThere);
    assert_eq!(shard.begin_upload("d", d, "two"), refused);
    assert!(matches!(
        shard.begin_upload("e", e, "two"),
        Outcome::UploadBegun { .. }
    ));

    // Erased once more: that the first is gone says nothing of the second.
    shard.erase("d");
    let second = shard.leftovers();
    assert_eq!(second[0].uploads, first.uploads, "they may still be there");
    shard.gone("d", first.index);
    assert_eq!(shard.leftovers(), second);
    shard.gone("e", second[0].index);
    assert_eq!(shard.leftovers(), second);
    shard.gone("d", second[0].index);
    assert_eq!(shard.leftovers(), []);
    shard.gone("d", second[0].index);
    let d = shard.add("d");
    assert!(matches!(
        shard.begin_upload("d", d, "three"),
        Outcome::UploadBegun { .. }
    ));
}

#[test]
fn what_is_left_is_told_page_by_page() {
    let mut shard = Shard::new();
    let names: Vec<String> = (0..2 * LEFTOVERS_PAGE_MAX + 1)
        .map(|n| format!("d{n:04}"))
        .collect();
    for name in &names {
        shard.erase(name);
    }
    let told: Vec<String> = shard
        .leftovers()
        .iter()
        .map(|one| one.device.to_string())
        .collect();
    assert_eq!(told, names);
}

#[test]
fn registrations_are_found_by_the_device_that_they_name() {
    let mut shard = Shard::new();
    for (name, device) in [("r1", "d"), ("r2", "e"), ("r3", "d"), ("d", "f")] {
        let spec = RegistrationSpec {
            name: name.to_owned(),
            group: Some("g".to_owned()),
            proof: ProofKind::SymmetricKey,
            storage_root_key: None,
            hub: "hub".to_owned(),
            device: id(device),
            leaving: None,
            substatus: Substatus::InitialAssignment,
            payload: None,
            operation: String::new(),
        };
        let put = Command::RegistrationPut {
            id: RegistrationId::parse(name).unwrap(),
            spec: Box::new(spec),
            enrollment: None,
            condition: Condition::Absent,
        };
        assert!(matches!(shard.submit(put), Outcome::Kept { .. }));
    }
    let named = |devices: &[&str]| {
        let query = Query::RegistrationsOf {
            shard: ShardId(0),
            devices: devices.iter().map(|name| id(name)).collect(),
            after: bytes::Bytes::new(),
        };
        let View::Registrations { found, next } = read::read(shard.store(), &query).unwrap() else {
            panic!("an answer of another kind");
        };
        assert_eq!(next, None);
        let mut names: Vec<String> = found.into_iter().map(|found| found.spec.name).collect();
        names.sort();
        names
    };
    assert_eq!(named(&["d"]), ["r1", "r3"]);
    assert_eq!(named(&["e", "f"]), ["d", "r2"]);
    assert_eq!(named(&[]), [""; 0]);
}
