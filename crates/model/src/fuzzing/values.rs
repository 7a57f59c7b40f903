//! What a shard keeps of devices, twins, messages, jobs, groups and enrolments, and the keys that it stands under.

use std::fmt::Debug;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::configuration::plan::plan;
use crate::configuration::{Configuration, ConfigurationSpec};
use crate::group::Group;
use crate::group::request::{CommitRequest, JoinRequest, MemberIdentity, OffsetCommit, Protocol};
use crate::id::{DeviceId, NodeId, SLOT_BYTES, StreamId};
use crate::identity::{Authentication, DeviceRecord, DeviceSpec, SessionRecord, SymmetricKeys};
use crate::job::rows::JobRows;
use crate::job::state::{JobPlan, JobState};
use crate::job::{Job, JobCursor, JobId, JobKind, JobOrder, JobSpec, JobWork};
use crate::messages::feedback::FeedbackRecord;
use crate::messages::queue::{Moment, Queue};
use crate::messages::{AckWanted, MessageContent, MessageEnd, NewMessage};
use crate::owed::{OwedList, OwedLock};
use crate::provisioning::{
    Attestation, Enrollment, EnrollmentSpec, ProofKind, Registration, RegistrationSpec, Substatus,
};
use crate::quota::Rate;
use crate::quota::keeper::Day;
use crate::quota::window::Window;
use crate::shard::keys::{self, Listed};
use crate::shard::messages;
use crate::twin::{Object, Twin};
use crate::upload::{FileNotice, NewFileNotice, Upload, Uploads};

const LISTS: [Listed; 7] = [
    Listed::Records,
    Listed::Enrollments,
    Listed::Registrations,
    Listed::Groups,
    Listed::Configurations,
    Listed::Jobs,
    Listed::JobRows,
];

/// The first byte says which.
pub fn shard_values(data: &[u8]) {
    is_read(data);
}

fn is_read(data: &[u8]) -> bool {
    let Some((kind, rest)) = data.split_first() else {
        return false;
    };
    match kind % 15 {
        0 => content(rest),
        1 => key(rest),
        2 => twin(rest),
        3 => configuration(rest),
        4 => same_again::<SessionRecord>(rest),
        5 => same_again::<DeviceRecord>(rest),
        6 => same_again::<Queue>(rest),
        7 => same_again::<Group>(rest),
        8 => same_again::<Job>(rest),
        9 => same_again::<JobRows>(rest),
        10 => same_again::<OwedList>(rest),
        11 => same_again::<FeedbackRecord>(rest) || same_again::<FileNotice>(rest),
        12 => same_again::<Uploads>(rest),
        13 => same_again::<Enrollment>(rest) || same_again::<Registration>(rest),
        _ => same_again::<Window>(rest) || same_again::<Day>(rest),
    }
}

/// What is read is written, and then read as the same.
fn same_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else {
        return false;
    };
    let written = serde_json::to_vec(&value).expect("state values are plain data");
    assert_eq!(serde_json::from_slice::<T>(&written).ok(), Some(value));
    true
}

/// What a message carries.
fn content(bytes: &[u8]) -> bool {
    let Ok(read) = messages::decode(Bytes::copy_from_slice(bytes)) else {
        return false;
    };
    let written = messages::encode(&read);
    assert!(bytes.starts_with(&written));
    assert_eq!(messages::decode(written).ok(), Some(read));
    true
}

/// Numbers in documents may come back with another last digit; everything else stays.
fn twin(bytes: &[u8]) -> bool {
    let Ok(twin) = serde_json::from_slice::<Twin>(bytes) else {
        return false;
    };
    let written = serde_json::to_vec(&twin).expect("state values are plain data");
    let again: Twin = serde_json::from_slice(&written).expect("what was written is read");
    assert_eq!((again.version, again.etag), (twin.version, twin.etag));
    assert_eq!(
        (again.recent, again.configurations),
        (twin.recent, twin.configurations)
    );
    assert!(again.tags.keys().eq(twin.tags.keys()));
    for (again, section) in [(&again.desired, &twin.desired), (&again.reported, &twin.reported)] {
        assert_eq!(
            (again.version, &again.updated),
            (section.version, &section.updated)
        );
        assert!(again.content.keys().eq(section.content.keys()));
    }
    true
}

/// A configuration marks a twin, whatever its content says.
fn configuration(bytes: &[u8]) -> bool {
    let Ok(one) = serde_json::from_slice::<Configuration>(bytes) else {
        return false;
    };
    let plan = plan([&one]);
    assert!(plan.marks.len() == 1 && plan.marks.contains_key(&one.id));
    same_again::<Configuration>(bytes)
}

/// Keys as they stand in the store, and as places to go on from that somebody outside has kept.
fn key(key: &[u8]) -> bool {
    let stamp = key.get(2..10).map_or(0, |stamp| {
        u64::from_be_bytes(stamp.try_into().expect("eight bytes"))
    });
    let (device, group) = (keys::parse_device(key), keys::parse_group(key));
    let (outcome, held) = (keys::parse_outcome(key), keys::parse_held(key));
    let (due, due_group) = (keys::parse_due(key), keys::parse_due_group(key));
    let job = keys::parse_indexed_job(key);
    if let Some(device) = &device {
        assert_eq!(device.as_str().as_bytes(), &key[SLOT_BYTES + 1..]);
        assert_eq!(keys::parse_module(key).as_ref(), Some(device));
    }
    if let Some(group) = &group {
        assert_eq!(group.as_bytes(), &key[SLOT_BYTES + 1..]);
    }
    if let Some((stream, place)) = outcome {
        assert_eq!(keys::outcome(stream, place), key);
    }
    if let Some(held) = &held {
        assert_eq!(held.as_str().as_bytes(), &key[2 + 16..]);
    }
    if let Some(due) = &due {
        assert_eq!(keys::due(stamp, due.as_str().as_bytes())[2..], key[2..]);
    }
    if let Some(due) = &due_group {
        assert_eq!(keys::due_group(stamp, due)[2..], key[2..]);
    }
    if let Some(job) = &job {
        assert_eq!(keys::due_job(stamp, job)[2..], key[2..]);
        assert_eq!(keys::ended_job(stamp, job)[2..], key[2..]);
    }
    for listed in LISTS {
        let (from, _) = keys::listed_from(listed, key);
        assert!(from[..] >= *key, "a listing goes on, never back");
    }
    assert!(keys::next_slot(key) >= keys::slot_start(key));
    let _ = keys::is_module_record(key);
    device.is_some() || outcome.is_some() || held.is_some() || due.is_some() || job.is_some()
}

fn device() -> DeviceId {
    DeviceId::parse("dev-1").expect("a device id")
}

fn job_id() -> JobId {
    JobId::parse("job-1").expect("a job id")
}

fn key_seeds() -> Vec<Vec<u8>> {
    let stream = StreamId {
        gateway: NodeId(2),
        incarnation: 3,
    };
    vec![
        keys::record(b"dev-1/mod-1"),
        keys::outcome(stream, 3),
        keys::held(stream, &device()),
        keys::due(1_000, b"dev-1"),
        keys::due_group(1_000, "g"),
        keys::due_job(1_000, &job_id()),
        keys::ended_job(1_000, &job_id()),
    ]
}

fn a_twin() -> Twin {
    let object = |text: &str| serde_json::from_str::<Object>(text).expect("an object");
    let mut twin = Twin::default();
    let (tags, desired) = (object(r#"{"floor":3}"#), object(r#"{"a":{"b":[1,"c"]}}"#));
    assert!(twin.change((Some(&tags), Some(&desired)), false, 7, 1_000));
    assert!(twin.report(&object(r#"{"t":2.5}"#), 2_000));
    twin
}

fn queue() -> Queue {
    let moment = Moment {
        ms: 1_000,
        session: None,
    };
    let message = NewMessage {
        id: "m-1".to_owned(),
        ack: AckWanted::Full,
        expires_ms: None,
        content: MessageContent::default(),
    };
    let mut queue = Queue::default();
    queue.push(&message, moment).expect("an empty queue has room");
    queue.push(&message, moment).expect("an empty queue has room");
    queue.lock(7, None, moment).0.expect("a message waits");
    queue.set_due(moment);
    queue
}

fn group() -> Group {
    let mut group = Group::default();
    let offset = OffsetCommit {
        topic: "messages".to_owned(),
        partition: 3,
        offset: 7,
        leader_epoch: Some(1),
        metadata: "x".to_owned(),
    };
    let commit = CommitRequest {
        member: MemberIdentity::default(),
        generation: -1,
        offsets: vec![offset],
    };
    group.commit(&commit, 1_000).expect("a group without members");
    let protocol = Protocol {
        name: "range".to_owned(),
        metadata: vec![0_u8, 1, 2].into(),
    };
    let join = JoinRequest {
        member: MemberIdentity::default(),
        drawn_id: "client-1".to_owned(),
        id_required: false,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol],
    };
    group.join(join, 2_000).expect("the first member");
    group
}

fn job() -> Job {
    let spec = JobSpec {
        id: job_id(),
        work: JobWork::TwinUpdate {
            tags: Some(r#"{"a":1}"#.to_owned()),
            desired: None,
        },
        condition: "*".to_owned(),
        start_ms: 0,
        time_max_s: 60,
    };
    let cursor = JobCursor {
        shard: 1,
        after: Bytes::from_static(b"after"),
    };
    Job {
        state: JobState::new(&spec, 5, 1_000),
        plan: JobPlan {
            cursor: Some(cursor),
            page: vec![device()],
        },
        spec,
    }
}

fn job_rows() -> JobRows {
    let order = JobOrder {
        id: job_id(),
        generation: 5,
        kind: JobKind::TwinUpdate,
        created_ms: 1_000,
        until_ms: 61_000,
    };
    let mut rows = JobRows::default();
    rows.begin(&order, 9, 2_000).expect("the first job");
    rows.end(&order, 9, None, 3_000).expect("it has begun");
    rows
}

fn owed_list() -> OwedList {
    let mut list = OwedList::default();
    (0..5).for_each(|number| assert_eq!(list.push(), number));
    let lock = OwedLock {
        token: 7,
        lock_ms: 60_000,
    };
    list.take(lock, 3, 2_000, 1_000).expect("there are five");
    list
}

fn uploads() -> Uploads {
    let upload = Upload {
        id: "0123".to_owned(),
        blob: "a folder/x".to_owned(),
        secret_digest: "AAAA".to_owned(),
        expires_ms: 60_000,
        has_ended: false,
    };
    Uploads { known: vec![upload] }
}

fn file_notice() -> FileNotice {
    FileNotice {
        device: device(),
        file: NewFileNotice {
            uri: "https://hub.example/uploads/dev-1/x".to_owned(),
            blob: "dev-1/x".to_owned(),
            modified_ms: 1_000,
            bytes: 5,
        },
        enqueued_ms: 2_000,
    }
}

fn registration() -> Registration {
    let spec = RegistrationSpec {
        name: "Sn-1".to_owned(),
        group: Some("plant".to_owned()),
        proof: ProofKind::X509,
        storage_root_key: None,
        hub: "hub.example".to_owned(),
        device: device(),
        leaving: Some(("old.example".to_owned(), device())),
        substatus: Substatus::DeviceDataMigrated,
        payload: Some("{}".to_owned()),
        operation: "5.x.y".to_owned(),
    };
    Registration {
        spec,
        version: 3,
        created_ms: 1_000,
        updated_ms: 2_000,
    }
}

fn enrollment() -> Enrollment {
    Enrollment {
        name: "Sn-1".to_owned(),
        spec: EnrollmentSpec::enabled(Attestation::SymmetricKey(SymmetricKeys::default())),
        version: 3,
        created_ms: 1_000,
        updated_ms: 2_000,
    }
}

fn a_configuration() -> Configuration {
    let content = r#"{"modulesContent":{"$edgeAgent":{"properties.desired.a":{"b":1}}}}"#;
    Configuration {
        id: "c".to_owned(),
        spec: ConfigurationSpec {
            schema_version: "1.0".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            content: content.to_owned(),
            target: "*".to_owned(),
            priority: 3,
            metrics: Default::default(),
        },
        version: 1,
        created_ms: 1_000,
        updated_ms: 2_000,
    }
}

fn session() -> SessionRecord {
    SessionRecord {
        epoch: 7,
        held_by: Some(StreamId {
            gateway: NodeId(2),
            incarnation: 3,
        }),
        changed_ms: 1_000,
        persistent: true,
        subscriptions: [("$iothub/methods/POST/#".to_owned(), 1)].into(),
    }
}

fn record() -> DeviceRecord {
    DeviceRecord {
        device: device(),
        spec: DeviceSpec::enabled(Authentication::Sas(SymmetricKeys::default())),
        version: 2,
        generation: 1,
        created_ms: 1_000,
        status_changed_ms: 1_000,
    }
}

fn window() -> Window {
    let mut window = Window::default();
    let rate = Rate {
        count: 10,
        per_ms: 1_000,
    };
    assert_eq!(window.room(5_000, rate), 10);
    window.count(5_000, 3);
    window
}

fn feedback() -> FeedbackRecord {
    FeedbackRecord {
        device: device(),
        device_generation: 1,
        message_id: "m-1".to_owned(),
        end: MessageEnd::Expired,
        ended_ms: 1_000,
    }
}

fn json<T: Serialize>(tag: u8, value: &T) -> Vec<u8> {
    let written = serde_json::to_vec(value).expect("state values are plain data");
    [&[tag], &written[..]].concat()
}

/// Seeds of [`shard_values`].
pub fn shard_values_seeds() -> Vec<Vec<u8>> {
    let content = MessageContent {
        bag: "%24.mid=m-1&a=b".to_owned(),
        payload: Bytes::from_static(b"21.5"),
    };
    let mut seeds = vec![
        [&[0], &messages::encode(&content)[..]].concat(),
        json(2, &a_twin()),
        json(3, &a_configuration()),
        json(4, &session()),
        json(5, &record()),
        json(6, &queue()),
        json(7, &group()),
        json(8, &job()),
        json(9, &job_rows()),
        json(10, &owed_list()),
        json(11, &feedback()),
        json(11, &file_notice()),
        json(12, &uploads()),
        json(13, &enrollment()),
        json(13, &registration()),
        json(14, &window()),
        json(14, &Day::default()),
    ];
    seeds.extend(key_seeds().iter().map(|key| [&[1], &key[..]].concat()));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read() {
        for seed in shard_values_seeds() {
            assert!(is_read(&seed), "{:?}", String::from_utf8_lossy(&seed));
        }
    }
}
