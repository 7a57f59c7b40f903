//! Gateways: given up when silent, kept while they show life, told what became of their sessions.

use dunlin_model::command::Consistency;
use dunlin_model::command::{Query, View};
use dunlin_model::port::{
    AppliedSink, DownlinkKind, FrameResult, ProposeError, ServeError, SessionEnd, ShardServer,
};
use dunlin_model::shard::Part;

use crate::support::{
    Answer, Field, Gateway, SHARD, applied, device, epoch, generation, open, pass, put, stream, until,
};

const LEASE_MS: u64 = 10_000;

fn gone(field: &Field) -> usize {
    field.replication.gone()
}

async fn connected_count(field: &Field) -> u64 {
    match field
        .host
        .query(SHARD, Query::Shard(SHARD), Consistency::Leader)
        .await
        .unwrap()
    {
        View::Shard(view) => view.connected_count,
        other => panic!("{other:?}"),
    }
}

/// A device with a session through `gateway`; returns its epoch.
async fn connect_device(gateway: &mut Gateway<'_>, name: &str) -> u64 {
    let created = applied(gateway.send(&[], vec![put(name)]).await);
    let command = open(name, generation(&created.outcomes[0]), gateway.stream);
    epoch(&applied(gateway.send(&[], vec![command]).await).outcomes[0])
}

#[tokio::test(start_paused = true)]
async fn a_silent_gateway_is_given_up_and_its_sessions_end() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let epoch = connect_device(&mut gateway, "a").await;
    assert_eq!(connected_count(&field).await, 1);
    pass(LEASE_MS - 100).await;
    assert_eq!(gone(&field), 0);
    field.host.keep_alive(SHARD, gateway.stream);
    pass(LEASE_MS - 100).await;
    assert_eq!(gone(&field), 0);
    pass(200).await;
    assert_eq!((gone(&field), connected_count(&field).await), (1, 0));
    until("the end of the session", || !gateway.downlinks().is_empty()).await;
    let (term, downlink) = gateway.downlinks().remove(0);
    assert_eq!((term, downlink.epoch), (1, epoch));
    assert_eq!(downlink.kind, DownlinkKind::SessionEnded(SessionEnd::GatewayLost));
    assert_eq!(
        gateway.send(&[], vec![]).await,
        FrameResult::StreamUnknown,
        "it was only slow"
    );
    pass(2 * LEASE_MS).await;
    assert_eq!(
        (gone(&field), field.stats().streams),
        (1, 0),
        "and then it is forgotten"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_gives_every_known_gateway_a_full_lease() {
    let field = Field::leading();
    let known = Gateway::connected(&field, 1).await;
    Gateway::connected(&field, 2).await;
    pass(LEASE_MS / 2).await;
    field.host.on_follower(SHARD, None);
    field.lead();
    known.connect(1, &[]).await.unwrap();
    pass(LEASE_MS - 1_000).await;
    assert_eq!((gone(&field), field.stats().streams), (0, 2));
    field.host.keep_alive(SHARD, known.stream);
    pass(2_000).await;
    let proposed: Vec<_> = field
        .replication
        .proposed()
        .into_iter()
        .flat_map(|batch| batch.parts)
        .collect();
    assert_eq!(proposed.last(), Some(&Part::GatewayGone(stream(2))));
    assert_eq!(gone(&field), 1);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_with_very_many_sessions_is_given_up_in_pieces() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let names: Vec<_> = (0..1100).map(|i| format!("d{i}")).collect();
    for some in names.chunks(100) {
        let created = applied(
            gateway
                .send(&[], some.iter().map(|name| put(name)).collect())
                .await,
        );
        let opens = some.iter().zip(&created.outcomes);
        let opens = opens
            .map(|(name, outcome)| open(name, generation(outcome), gateway.stream))
            .collect();
        gateway.send(&[], opens).await;
    }
    assert_eq!(connected_count(&field).await, 1100);
    pass(LEASE_MS + 100).await;
    assert_eq!(gone(&field), 2);
    until("all ends", || gateway.downlinks().len() == 1100).await;
    assert_eq!(connected_count(&field).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_takeover_is_told_to_the_old_gateway_in_the_name_of_the_term() {
    let field = Field::leading();
    field.host.on_follower(SHARD, None);
    assert_eq!(field.lead(), 2);
    let mut old = Gateway::connected(&field, 1).await;
    let epoch_old = connect_device(&mut old, "a").await;
    let mut new = Gateway::connected(&field, 2).await;
    let epoch_new = connect_device(&mut new, "a").await;
    assert!(epoch_new > epoch_old);
    until("the downlink", || old.downlinks().len() == 1).await;
    let (term, downlink) = old.downlinks().remove(0);
    assert_eq!(
        (term, downlink.device, downlink.epoch),
        (2, device("a"), epoch_old)
    );
    assert_eq!(downlink.kind, DownlinkKind::SessionEnded(SessionEnd::TakenOver));
    assert_eq!(new.downlinks(), []);
}

#[tokio::test(start_paused = true)]
async fn sessions_that_are_not_current_end_when_a_gateway_connects_again() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let current = connect_device(&mut gateway, "current").await;
    let mut other = Gateway::connected(&field, 2).await;
    let taken = connect_device(&mut gateway, "taken").await;
    field.host.on_follower(SHARD, None); // so that nobody is told of what comes now
    until("the loss", || gateway.lost() + other.lost() == 2).await;
    field.lead();
    other.connect(1, &[]).await.unwrap();
    connect_device(&mut other, "taken").await;
    let sessions = [
        ("current", current),
        ("taken", taken),
        ("never", 5),
        ("current", current + 100),
    ];
    gateway.connect(4, &sessions).await.unwrap();
    until("three ends", || gateway.downlinks().len() == 3).await;
    pass(5).await;
    let ends = gateway
        .downlinks()
        .into_iter()
        .map(|(term, down)| (term, down.device, down.epoch, down.kind));
    let ended = DownlinkKind::SessionEnded;
    assert_eq!(
        ends.collect::<Vec<_>>(),
        [
            (2, device("taken"), taken, ended(SessionEnd::TakenOver)),
            (2, device("never"), 5, ended(SessionEnd::Deleted)),
            (2, device("current"), current + 100, ended(SessionEnd::TakenOver)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn opening_a_stream_waits_for_the_log_and_not_for_ever() {
    let field = Field::leading();
    field.replication.set_answer(Answer::Fail(ProposeError::Full));
    let gateway = Gateway::new(&field, 1);
    let refused = gateway.connect(0, &[]).await;
    assert!(matches!(refused, Err(ServeError::Refused(_))), "{refused:?}");

    let field = Field::leading();
    field.replication.set_answer(Answer::Fail(ProposeError::Unknown));
    let lost = Gateway::new(&field, 1).connect(0, &[]).await;
    assert_eq!(lost, Err(ServeError::NotLeader { hint: None }));
}
