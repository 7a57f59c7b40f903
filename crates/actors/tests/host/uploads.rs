//! Uploads of devices in their shard: who may begin and end one, what ends them all, and what services are told.

use dunlin_model::command::{Command, Consistency, Outcome, Query, Refusal, View};
use dunlin_model::identity::{Condition, DeviceStatus};
use dunlin_model::port::ShardServer;
use dunlin_model::upload::{
    FileNotice, NewFileNotice, UPLOAD_TTL_MS_MAX, UPLOAD_TTL_MS_MIN, UPLOADS_ALIVE_MAX,
};

use crate::support::{Field, Gateway, SHARD, applied, device, generation, pass, put, spec};

/// When the clock of these tests begins.
const BEGIN_MS: u64 = 1_700_000_000_000;
const TTL_MS: u64 = 120_000;

async fn outcome(gateway: &mut Gateway<'_>, command: Command) -> Outcome {
    applied(gateway.send(&[], vec![command]).await).outcomes.remove(0)
}

fn begin(id: &str, generation: u64, ttl_ms: u64) -> Command {
    Command::UploadBegin {
        device: device("a"),
        generation,
        id: id.into(),
        blob: "x/y".into(),
        secret_digest: "digest".into(),
        ttl_ms,
    }
}

fn end(id: &str, generation: u64, bytes: Option<u64>) -> Command {
    let notice = bytes.map(|bytes| {
        Box::new(NewFileNotice {
            uri: "https://hub/uploads/a/x/y".into(),
            blob: "a/x/y".into(),
            modified_ms: BEGIN_MS,
            bytes,
        })
    });
    Command::UploadEnd {
        device: device("a"),
        generation,
        id: id.into(),
        notice,
    }
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

fn expires_ms(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::UploadBegun { expires_ms } => *expires_ms,
        other => panic!("{other:?}"),
    }
}

async fn read(field: &Field, query: Query) -> View {
    let answer = field.host.query(SHARD, query, Consistency::Leader).await;
    answer.unwrap()
}

async fn known(field: &Field) -> Vec<String> {
    match read(field, Query::Uploads(device("a"))).await {
        View::Uploads(uploads) => uploads.known.into_iter().map(|upload| upload.id).collect(),
        other => panic!("{other:?}"),
    }
}

/// Takes the next notification under a lock of a minute: what it says, and what settles it.
async fn notified(field: &Field, gateway: &mut Gateway<'_>) -> Option<(Vec<FileNotice>, u64)> {
    let command = Command::FileNoticeTake {
        shard: SHARD,
        lock_ms: 60_000,
    };
    let batch = match outcome(gateway, command).await {
        Outcome::FeedbackTaken(batch) => batch?,
        other => panic!("{other:?}"),
    };
    let (shard, from, to) = (SHARD, batch.from, batch.to);
    match read(field, Query::FileNotices { shard, from, to }).await {
        View::FileNotices(notices) => Some((notices, batch.token)),
        other => panic!("{other:?}"),
    }
}

async fn due_ms(field: &Field) -> Option<u64> {
    match read(field, Query::FileNoticesDue(SHARD)).await {
        View::FileNoticesDue(due_ms) => due_ms,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_eleventh_waits_until_one_is_over_by_its_end_or_by_time() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let mine = generation(&outcome(&mut gateway, put("a")).await);
    for n in 0..UPLOADS_ALIVE_MAX {
        let begun = outcome(&mut gateway, begin(&format!("u{n}"), mine, TTL_MS)).await;
        assert!(expires_ms(&begun) >= BEGIN_MS + TTL_MS);
    }
    let more = || begin("more", mine, TTL_MS);
    assert_eq!(
        outcome(&mut gateway, more()).await,
        refused(Refusal::TooManyUploads)
    );
    assert_eq!(outcome(&mut gateway, end("u0", mine, None)).await, Outcome::Done);
    expires_ms(&outcome(&mut gateway, more()).await);
    let most = begin("most", mine, TTL_MS);
    assert_eq!(
        outcome(&mut gateway, most.clone()).await,
        refused(Refusal::TooManyUploads)
    );
    pass(TTL_MS + 100).await;
    // Stamps run ahead of the clock a little. The first gateway is not waited for so long.
    let mut gateway = Gateway::connected(&field, 2).await;
    expires_ms(&outcome(&mut gateway, most).await);
    assert_eq!(
        outcome(&mut gateway, end("u1", mine, None)).await,
        refused(Refusal::UploadLapsed)
    );
    assert_eq!(
        due_ms(&field).await,
        None,
        "those that failed are nobody's business"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_said_twice_happens_once() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let mine = generation(&outcome(&mut gateway, put("a")).await);
    let first = outcome(&mut gateway, begin("u", mine, TTL_MS)).await;
    pass(1_000).await;
    assert_eq!(outcome(&mut gateway, begin("u", mine, TTL_MS)).await, first);
    assert_eq!(known(&field).await, ["u"]);
    for _ in 0..2 {
        assert_eq!(
            outcome(&mut gateway, end("u", mine, Some(7))).await,
            Outcome::Done
        );
        assert_eq!(due_ms(&field).await, Some(0));
    }
    let (notices, token) = notified(&field, &mut gateway).await.expect("one");
    assert_eq!((notices.len(), notices[0].file.bytes), (1, 7));
    assert_eq!(notices[0].device, device("a"));
    assert!(notices[0].enqueued_ms >= BEGIN_MS);
    assert!(notified(&field, &mut gateway).await.is_none(), "it is somebody's");
    let settle = Command::FileNoticeSettle {
        shard: SHARD,
        token,
        completes: true,
    };
    assert_eq!(outcome(&mut gateway, settle.clone()).await, Outcome::Done);
    assert_eq!(outcome(&mut gateway, settle).await, refused(Refusal::LockLost));
    pass(120_000).await;
    let mut gateway = Gateway::connected(&field, 2).await;
    assert!(notified(&field, &mut gateway).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn notifications_come_one_at_a_time_and_again_where_nobody_settles_them() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let mine = generation(&outcome(&mut gateway, put("a")).await);
    for n in 0..3 {
        outcome(&mut gateway, begin(&format!("u{n}"), mine, TTL_MS)).await;
        outcome(&mut gateway, end(&format!("u{n}"), mine, Some(n))).await;
    }
    let mut sizes = Vec::new();
    while let Some((notices, _)) = notified(&field, &mut gateway).await {
        assert_eq!(notices.len(), 1);
        sizes.push(notices[0].file.bytes);
    }
    assert_eq!(sizes, [0, 1, 2]);
    pass(60_100).await;
    let mut gateway = Gateway::connected(&field, 2).await;
    let (again, token) = notified(&field, &mut gateway).await.expect("its time is over");
    assert_eq!(again[0].file.bytes, 0);
    let settle = Command::FileNoticeSettle {
        shard: SHARD,
        token,
        completes: false,
    };
    assert_eq!(outcome(&mut gateway, settle).await, Outcome::Done);
    let (again, _) = notified(&field, &mut gateway).await.expect("it was given back");
    assert_eq!(again[0].file.bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_cut_off_has_no_uploads_any_more() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let changed = |status, key: &str| Command::DevicePut {
        device: device("a"),
        spec: spec(status, key),
        condition: Condition::Any,
    };
    let deleted = || Command::DeviceDelete {
        device: device("a"),
        condition: Condition::Any,
    };
    for cut in [
        changed(DeviceStatus::Disabled, "key"),
        changed(DeviceStatus::Enabled, "another key"),
        deleted(),
    ] {
        outcome(&mut gateway, deleted()).await;
        let mine = generation(&outcome(&mut gateway, put("a")).await);
        expires_ms(&outcome(&mut gateway, begin("u", mine, TTL_MS)).await);
        // The same once more changes nothing.
        outcome(&mut gateway, put("a")).await;
        assert_eq!(known(&field).await, ["u"]);
        outcome(&mut gateway, cut).await;
        assert_eq!(known(&field).await, [""; 0]);
        for late in [begin("v", mine, TTL_MS), end("u", mine, Some(1))] {
            let refusal = outcome(&mut gateway, late).await;
            let expected = [refused(Refusal::StaleGeneration), refused(Refusal::UnknownDevice)];
            assert!(expected.contains(&refusal), "{refusal:?}");
        }
    }
    assert_eq!(due_ms(&field).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_module_is_cut_off_with_its_device() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    outcome(&mut gateway, put("a")).await;
    let module = device("a").of_module("m").expect("a name");
    let put_module = Command::DevicePut {
        device: module.clone(),
        spec: spec(DeviceStatus::Enabled, "key"),
        condition: Condition::Any,
    };
    let mine = generation(&outcome(&mut gateway, put_module).await);
    let begin = |id: &str| Command::UploadBegin {
        device: module.clone(),
        generation: mine,
        id: id.into(),
        blob: "x".into(),
        secret_digest: "digest".into(),
        ttl_ms: TTL_MS,
    };
    expires_ms(&outcome(&mut gateway, begin("u")).await);
    let disable = Command::DevicePut {
        device: device("a"),
        spec: spec(DeviceStatus::Disabled, "key"),
        condition: Condition::Any,
    };
    outcome(&mut gateway, disable).await;
    let View::Uploads(left) = read(&field, Query::Uploads(module.clone())).await else {
        panic!("an answer of another kind");
    };
    assert_eq!(left.known, []);
    let lock = Command::MessageLock {
        device: module.clone(),
        generation: mine,
        lock_ms: None,
    };
    for late in [begin("v"), lock] {
        assert_eq!(outcome(&mut gateway, late).await, refused(Refusal::Disabled));
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_disabled_begins_nothing_and_no_time_is_out_of_bounds() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let command = Command::DevicePut {
        device: device("a"),
        spec: spec(DeviceStatus::Disabled, "key"),
        condition: Condition::Any,
    };
    let mine = generation(&outcome(&mut gateway, command).await);
    assert_eq!(
        outcome(&mut gateway, begin("u", mine, TTL_MS)).await,
        refused(Refusal::Disabled)
    );
    outcome(&mut gateway, put("a")).await;
    let short = expires_ms(&outcome(&mut gateway, begin("short", mine, 0)).await);
    let long = expires_ms(&outcome(&mut gateway, begin("long", mine, u64::MAX)).await);
    let between = long - short - (UPLOAD_TTL_MS_MAX - UPLOAD_TTL_MS_MIN);
    assert!(between < 1_000, "{between}");
    assert_eq!(
        outcome(&mut gateway, end("other", mine, None)).await,
        refused(Refusal::UnknownUpload)
    );
}
