//! How large a stored group is, and how it looks.

use serde_json::json;

use super::super::request::JoinRequest;
use super::super::{
    ASSIGNMENTS_BYTES_MAX, CLIENT_BYTES_MAX, HEAD_BYTES_MAX, INSTANCE_ID_BYTES_MAX, MEMBER_ID_BYTES_MAX,
    MEMBERS_MAX, METADATA_BYTES_MAX, OFFSET_METADATA_BYTES_MAX, OFFSETS_MAX, PENDING_MEMBERS_MAX,
    PROTOCOL_BYTES_MAX, TOPIC_BYTES_MAX,
};
use super::*;

fn json_bytes(group: &Group) -> usize {
    serde_json::to_vec(group).expect("text").len()
}

/// An id of the greatest length, all of which JSON must escape but the number at its end.
fn worst(n: usize, bytes: usize) -> String {
    format!("{}{n:04}", "\"".repeat(bytes - 4))
}

fn worst_request(n: usize, metadata_bytes: usize) -> JoinRequest {
    let mut member = who("");
    member.instance_id = Some(worst(n, INSTANCE_ID_BYTES_MAX));
    let names = (0..super::super::PROTOCOLS_MAX).map(|n| worst(n, PROTOCOL_BYTES_MAX));
    JoinRequest {
        member,
        drawn_id: worst(n, MEMBER_ID_BYTES_MAX),
        id_required: true,
        client_id: "\\".repeat(CLIENT_BYTES_MAX),
        client_host: "\\".repeat(CLIENT_BYTES_MAX),
        session_timeout_ms: super::super::SESSION_TIMEOUT_MS_MAX,
        rebalance_timeout_ms: super::super::REBALANCE_TIMEOUT_MS_MAX,
        protocol_type: "\\".repeat(PROTOCOL_BYTES_MAX),
        protocols: names
            .map(|name| Protocol {
                name,
                metadata: vec![0xff; metadata_bytes / super::super::PROTOCOLS_MAX].into(),
            })
            .collect(),
    }
}

/// The desk itself checks the bound, too.
#[test]
fn a_group_that_is_filled_with_the_worst_stays_in_its_bound() {
    let mut desk = Desk::new();
    desk.now_ms = 1_700_000_000_000;
    for topic in 0..OFFSETS_MAX {
        let request = CommitRequest {
            member: who(""),
            generation: -1,
            offsets: vec![OffsetCommit {
                leader_epoch: Some(i32::MIN),
                metadata: "\u{1}".repeat(if topic % 8 == 0 {
                    OFFSET_METADATA_BYTES_MAX
                } else {
                    0
                }),
                ..commit_of(&worst(topic, TOPIC_BYTES_MAX), i32::MIN, i64::MIN)
            }],
        };
        let _ = desk.apply(|group, now_ms| group.commit(&request, now_ms));
    }
    let mut count = 0;
    for (n, metadata_bytes) in (0..MEMBERS_MAX).zip([METADATA_BYTES_MAX, 0, 0, 100].into_iter().cycle()) {
        let answer = desk.join(worst_request(n, metadata_bytes));
        count += usize::from(answer.is_ok());
        assert!(
            answer.is_ok() || answer == Err(GroupError::GroupMaxSizeReached),
            "{answer:?}"
        );
    }
    assert!((10..MEMBERS_MAX).contains(&count), "{count} members");
    for n in 0..PENDING_MEMBERS_MAX {
        let mut request = worst_request(MEMBERS_MAX + n, 0);
        request.member.instance_id = None;
        let _ = desk.join(request);
    }
    desk.wait(11_000);
    let leader = desk.group.leader.clone().expect("a leader");
    assert_eq!(desk.word(), "CompletingRebalance");
    let mut request = sync_request(&leader, 1, &[(&leader, "")]);
    request.assignments[0].assignment = vec![0xff; ASSIGNMENTS_BYTES_MAX / 4 * 3].into();
    let synced = desk.apply(|group, now_ms| group.sync(&request, now_ms));
    assert_eq!(synced, Ok(()));
    let bytes = json_bytes(&desk.group);
    assert!(
        bytes > GROUP_BYTES_MAX * 9 / 10,
        "{bytes} bytes: the bound is not idle"
    );
    desk.apply(Group::tick);
}

#[test]
fn what_is_counted_for_no_part_fits_the_head() {
    let mut desk = Desk::stable(&["a"]);
    let long = |bytes: usize| Some("\"".repeat(bytes));
    desk.group.protocol_type = long(PROTOCOL_BYTES_MAX);
    desk.group.protocol = long(PROTOCOL_BYTES_MAX);
    desk.group.leader = long(MEMBER_ID_BYTES_MAX);
    desk.group.generation = i32::MIN;
    desk.group.turn = u64::MAX;
    assert!(json_bytes(&desk.group) < HEAD_BYTES_MAX);
}

/// As a deployment of librdkafka's consumers is: uuids in its ids, two protocols, 1024 partitions.
#[test]
fn a_full_group_of_usual_members_fits_with_room_to_spare() {
    let mut desk = Desk::new();
    let id = |n: usize| format!("rdkafka-01234567-89ab-cdef-0123-{n:012}");
    for n in 0..MEMBERS_MAX {
        let request = JoinRequest {
            id_required: false,
            protocols: ["range", "roundrobin"]
                .map(|name| protocol(name, &"m".repeat(100)))
                .into(),
            ..first_request(&id(n))
        };
        assert_eq!(desk.join(request), Ok(1));
    }
    let members_bytes = json_bytes(&desk.group);
    assert!(
        (100_000..150 * 1024).contains(&members_bytes),
        "{members_bytes} bytes"
    );
    desk.wait(1_000);
    let ids: Vec<String> = (0..MEMBERS_MAX).map(id).collect();
    let part = "p".repeat(60);
    let parts: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), part.as_str())).collect();
    assert_eq!(desk.sync(&ids[0], 1, &parts), Ok(()));
    let request = CommitRequest {
        member: who(&ids[0]),
        generation: 1,
        offsets: (0..OFFSETS_MAX as i32)
            .map(|n| commit_of("events", n, 1 << 40))
            .collect(),
    };
    let kept = desk.apply(|group, now_ms| group.commit(&request, now_ms));
    assert_eq!(kept, Ok(vec![Ok(()); OFFSETS_MAX]));
    let bytes = json_bytes(&desk.group);
    assert!(bytes < 300 * 1024, "{bytes} bytes");
}

/// What rests on disks is not to change by accident.
#[test]
fn a_stored_group_looks_like_this() {
    let mut desk = Desk::new();
    desk.now_ms = 1_000;
    desk.come("i1/a");
    assert!(desk.join(first_request("p")).is_err());
    desk.wait(1_000);
    assert_eq!(desk.sync("i1/a", 1, &[("a", "all")]), Ok(()));
    assert_eq!(desk.join(first_request("i1/a2")), Ok(1));
    let mut commit = CommitRequest {
        member: who("i1/a2"),
        generation: 1,
        offsets: vec![commit_of("topic", 0, 5)],
    };
    commit.offsets[0].leader_epoch = Some(3);
    commit.offsets[0].metadata = "note".into();
    commit.offsets.push(commit_of("topic", 1, 7));
    let kept = desk.apply(|group, now_ms| group.commit(&commit, now_ms));
    assert_eq!(kept, Ok(vec![Ok(()), Ok(())]));
    let stored = json!({
        "generation": 1,
        "turn": 3,
        "phase": {"Stable": {"until_ms": 32_000}},
        "protocol_type": "consumer",
        "protocol": "range",
        "leader": "a2",
        "members": [{
            "id": "a2",
            "instance_id": "i1",
            "former_id": "a",
            "client_id": "rdkafka",
            "client_host": "/10.0.0.1",
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 30_000,
            "protocols": [
                {"name": "range", "metadata": "dG9waWM="},
                {"name": "roundrobin", "metadata": "dG9waWM="},
            ],
            "assignment": "YWxs",
            "standing": "Synced",
            "deadline_ms": 12_000,
        }],
        "pending": [{"id": "p", "until_ms": 11_000}],
        "offsets": {"topic": {
            "0": {"offset": 5, "leader_epoch": 3, "metadata": "note", "commit_ms": 2_000},
            "1": {"offset": 7, "leader_epoch": null, "metadata": "", "commit_ms": 2_000},
        }},
    });
    assert_eq!(serde_json::to_value(&desk.group).expect("a value"), stored);
    let group: Group = serde_json::from_value(stored).expect("a group");
    assert_eq!(group, desk.group);
    let empty = serde_json::to_value(Group::default()).expect("a value");
    assert_eq!(empty["phase"], json!({"Empty": {"since_ms": 0}}));
}
