//! Twins: who may write, who hears of it, and that a change is not lost with the leader that should tell.

use dunlin_model::command::{Command, Consistency, Outcome, Query, Refusal, TwinView, View};
use dunlin_model::identity::Condition;
use dunlin_model::port::{AppliedSink, DownlinkKind, ShardServer};
use dunlin_model::shard::registry::DESIRED_FILTER;

use crate::support::{Field, Gateway, SHARD, applied, device, epoch, generation, open, pass, put, until};

async fn outcome(gateway: &mut Gateway<'_>, command: Command) -> Outcome {
    applied(gateway.send(&[], vec![command]).await).outcomes.remove(0)
}

async fn connect(gateway: &mut Gateway<'_>, name: &str) -> u64 {
    let generation = generation(&outcome(gateway, put(name)).await);
    let command = open(name, generation, gateway.stream);
    epoch(&outcome(gateway, command).await)
}

async fn listen(gateway: &mut Gateway<'_>, name: &str, epoch: u64) {
    let command = Command::Subscribe {
        device: device(name),
        epoch,
        filters: vec![(DESIRED_FILTER.into(), 1)],
    };
    let kept = Outcome::Subscribed { waiting: false };
    assert_eq!(outcome(gateway, command).await, kept);
}

fn want(name: &str, desired: &str, etag: Option<u64>) -> Command {
    Command::TwinChange {
        device: device(name),
        tags: None,
        desired: Some(desired.into()),
        replaces: false,
        etag,
    }
}

fn report(name: &str, epoch: u64, patch: &str, version: Option<u64>) -> Command {
    Command::TwinReport {
        device: device(name),
        epoch,
        patch: patch.into(),
        version,
    }
}

async fn twin(field: &Field, name: &str) -> TwinView {
    let query = Query::Twin(device(name));
    match field.host.query(SHARD, query, Consistency::Leader).await.unwrap() {
        View::Twin(Some(view)) => view,
        other => panic!("{other:?}"),
    }
}

fn told(gateway: &Gateway<'_>) -> Vec<(u64, u64, String)> {
    let told = gateway
        .downlinks()
        .into_iter()
        .filter_map(|(_, downlink)| match downlink.kind {
            DownlinkKind::DesiredChanged { version, patch } => Some((downlink.epoch, version, patch)),
            DownlinkKind::SessionEnded(_) | DownlinkKind::MessagesWaiting => None,
        });
    told.collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_to_the_session_that_listens() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let epoch = connect(&mut gateway, "a").await;
    let changed = |version| Outcome::TwinChanged { version };
    assert_eq!(
        outcome(&mut gateway, want("a", r#"{"n":1}"#, None)).await,
        changed(2)
    );
    listen(&mut gateway, "a", epoch).await;
    assert_eq!(
        outcome(&mut gateway, want("a", r#"{"n":null}"#, None)).await,
        changed(3)
    );
    until("the note", || !told(&gateway).is_empty()).await;
    assert_eq!(told(&gateway), [(epoch, 3, r#"{"n":null}"#.into())]);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_tells_again_what_may_have_been_lost_with_the_old_one() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let epoch = connect(&mut gateway, "a").await;
    listen(&mut gateway, "a", epoch).await;
    outcome(&mut gateway, want("a", r#"{"n":1}"#, None)).await;
    outcome(&mut gateway, want("a", r#"{"m":1}"#, None)).await;
    until("the notes", || told(&gateway).len() == 2).await;
    field.host.on_follower(SHARD, None);
    field.lead();
    gateway.connect(1, &[("a", epoch)]).await.unwrap();
    until("the notes again", || told(&gateway).len() == 4).await;
    assert_eq!(told(&gateway)[2..], told(&gateway)[..2]);
    pass(61_000).await;
    field.host.on_follower(SHARD, None);
    field.lead();
    // One that is not current is told its end, after the one that is current was looked at.
    gateway.connect(1, &[("a", epoch), ("b", 1)]).await.unwrap();
    until("an end", || gateway.downlinks().len() > 4).await;
    assert_eq!(told(&gateway).len(), 4, "long after nobody waits for it");
}

#[tokio::test(start_paused = true)]
async fn refusals_change_nothing() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let epoch = connect(&mut gateway, "a").await;
    assert_eq!(
        outcome(&mut gateway, report("a", epoch, r#"{"x":1}"#, None)).await,
        Outcome::TwinChanged { version: 2 }
    );
    let before = twin(&field, "a").await;
    let texts = vec![format!("\"{}\"", "x".repeat(4000)); 9].join(",");
    let large = format!("{{\"t\":[{texts}]}}");
    for (command, refusal) in [
        (report("a", epoch + 1, "{}", None), Refusal::Fenced),
        (report("a", epoch, "{}", Some(1)), Refusal::VersionMismatch),
        (report("a", epoch, &large, None), Refusal::TwinTooLarge),
        (report("a", epoch, "no JSON", None), Refusal::TwinUnreadable),
        (want("a", "{}", Some(7_777)), Refusal::VersionMismatch),
        (want("a", &large, None), Refusal::TwinTooLarge),
        (want("a", "[]", None), Refusal::TwinUnreadable),
        (want("nobody", "{}", None), Refusal::UnknownDevice),
    ] {
        assert_eq!(
            outcome(&mut gateway, command.clone()).await,
            Outcome::Refused(refusal),
            "{command:?}"
        );
    }
    assert_eq!(twin(&field, "a").await, before);
}

#[tokio::test(start_paused = true)]
async fn a_twin_goes_with_its_device_and_its_etag_never_comes_again() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    connect(&mut gateway, "a").await;
    outcome(&mut gateway, want("a", r#"{"n":1}"#, None)).await;
    let old = twin(&field, "a").await.document().unwrap();
    assert_eq!((old.version, old.desired.version), (2, 2));
    let delete = Command::DeviceDelete {
        device: device("a"),
        condition: Condition::Any,
    };
    outcome(&mut gateway, delete).await;
    connect(&mut gateway, "a").await;
    assert_eq!(twin(&field, "a").await.twin, None, "it begins anew");
    outcome(&mut gateway, want("a", r#"{"n":1}"#, Some(1))).await;
    let new = twin(&field, "a").await.document().unwrap();
    assert_eq!((new.version, new.desired.version), (2, 2));
    assert!(new.etag > old.etag);
    assert_eq!(
        outcome(&mut gateway, want("a", "{}", Some(old.etag))).await,
        Outcome::Refused(Refusal::VersionMismatch)
    );
}
