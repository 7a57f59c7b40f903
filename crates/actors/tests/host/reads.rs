//! Reads: proved when they must be, waiting when there is nothing, never from one who does not lead.

use bytes::Bytes;
use dunlin_actors::HostConfig;
use dunlin_model::command::{Consistency, Query, ReadFrom, View};
use dunlin_model::id::NodeId;
use dunlin_model::port::{AppliedSink, ProposeError, ReadError, ShardServer};

use crate::support::{Field, Gateway, SHARD, applied, device, epoch, generation, open, pass, put, record};

#[tokio::test(start_paused = true)]
async fn a_linearizable_read_needs_the_proof_and_a_leader_read_does_not() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    gateway.send(&[], vec![put("a")]).await;
    let query = || Query::Device(device("a"));
    for consistency in [Consistency::Leader, Consistency::Linearizable] {
        let view = field.host.query(SHARD, query(), consistency).await.unwrap();
        assert!(matches!(view, View::Device(Some(_))));
    }
    field.replication.set_barrier(Err(ProposeError::NotLeader {
        hint: Some(NodeId(5)),
    }));
    let refused = field.host.query(SHARD, query(), Consistency::Linearizable).await;
    assert_eq!(
        refused,
        Err(ReadError::NotLeader {
            hint: Some(NodeId(5))
        })
    );
    assert!(
        field
            .host
            .query(SHARD, query(), Consistency::Leader)
            .await
            .is_ok()
    );
    let list = Query::Devices {
        shard: SHARD,
        after: Bytes::new(),
        count_max: 10,
    };
    let view = field.host.query(SHARD, list, Consistency::Leader).await.unwrap();
    assert!(matches!(view, View::Devices { devices, next: None } if devices.len() == 1));
    let view = field
        .host
        .query(SHARD, Query::Shard(SHARD), Consistency::Leader)
        .await
        .unwrap();
    assert!(matches!(view, View::Shard(view) if (view.term, view.device_count) == (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_follower_reads_nothing_to_anybody() {
    let field = Field::start(HostConfig::default());
    field.host.on_follower(SHARD, Some(NodeId(8)));
    let not_leader = ReadError::NotLeader {
        hint: Some(NodeId(8)),
    };
    for consistency in [Consistency::Leader, Consistency::Linearizable] {
        let answer = field
            .host
            .query(SHARD, Query::Device(device("a")), consistency)
            .await;
        assert_eq!(answer, Err(not_leader.clone()));
    }
    assert_eq!(
        field.host.read_events(SHARD, ReadFrom::End, 1, 1_000).await,
        Err(not_leader)
    );
}

#[tokio::test(start_paused = true)]
async fn a_reader_at_the_end_waits_for_the_next_event_and_misses_none() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let created = applied(gateway.send(&[], vec![put("a")]).await);
    let command = open("a", generation(&created.outcomes[0]), gateway.stream);
    let opened = applied(gateway.send(&[], vec![command]).await);
    let epoch = epoch(&opened.outcomes[0]);
    gateway.send(&[record("a", epoch, b"0")], vec![]).await;

    let page = field
        .host
        .read_events(SHARD, ReadFrom::Offset(0), 1000, 5_000)
        .await
        .unwrap();
    assert_eq!((page.runs.len(), page.next_offset), (1, 1));
    let page = field
        .host
        .read_events(SHARD, ReadFrom::End, 1000, 50)
        .await
        .unwrap();
    assert_eq!((page.runs.len(), page.from), (0, 1));

    let host = field.host.clone();
    let waiting = tokio::spawn(async move { host.read_events(SHARD, ReadFrom::End, 1000, 60_000).await });
    pass(5).await;
    gateway.send(&[], vec![put("a")]).await; // no event
    gateway.send(&[record("a", epoch, b"1")], vec![]).await;
    let page = waiting.await.unwrap().unwrap();
    assert_eq!(
        (page.from, page.runs[0].first_offset, page.runs[0].count),
        (1, 1, 1)
    );

    let host = field.host.clone();
    let waiting = tokio::spawn(async move { host.read_events(SHARD, ReadFrom::End, 1000, 60_000).await });
    pass(5).await;
    field.host.on_follower(SHARD, Some(NodeId(2)));
    assert_eq!(
        waiting.await.unwrap(),
        Err(ReadError::NotLeader {
            hint: Some(NodeId(2))
        })
    );
}
