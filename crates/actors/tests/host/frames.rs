//! Frames: answered in order, once, by whoever leads; bounded while they wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dunlin_actors::{ActorHost, HostConfig};
use dunlin_model::id::{NodeId, ShardId};
use dunlin_model::limits::{ENTRIES_IN_FLIGHT_MAX, ENTRY_BYTES_MAX, STREAM_FRAMES_IN_FLIGHT_MAX};
use dunlin_model::port::{
    AppliedSink, Downlink, Frame, FrameApplied, FrameOutcome, FrameResult, FrameSink, ProposeError,
    ServeError, ShardServer, StreamOpening,
};
use dunlin_model::shard::Part;

use crate::support::{
    Answer, Field, Gateway, Heard, SHARD, applied, epoch, generation, open, pass, put, record, until,
};

#[tokio::test(start_paused = true)]
async fn frames_are_answered_in_order_and_records_have_dense_offsets() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let created = applied(gateway.send(&[], vec![put("a")]).await);
    let opened = applied(
        gateway
            .send(
                &[],
                vec![open("a", generation(&created.outcomes[0]), gateway.stream)],
            )
            .await,
    );
    let epoch = epoch(&opened.outcomes[0]);

    field.replication.set_answer(Answer::Hold);
    for i in 0..20u8 {
        let frame = gateway.frame(
            &[record("a", epoch, &[i]), record("a", epoch + 7, b"stale")],
            vec![],
        );
        gateway.submit(frame).unwrap();
    }
    until("a full pipeline", || {
        field.replication.held() == ENTRIES_IN_FLIGHT_MAX
    })
    .await;
    assert!(field.stats().credits_used_bytes > 0);
    field.replication.set_answer(Answer::Apply);
    while field.replication.held() > 0 {
        field.replication.release();
    }
    let last = applied(gateway.outcome(22).await);
    assert_eq!((last.first_offset, last.fenced), (19, vec![1]));
    assert_eq!(gateway.answered(), (1..=22).collect::<Vec<_>>());
    assert_eq!(field.stats().credits_used_bytes, 0);
    assert_eq!(field.stats().frames, 22);
    let frames_of_last = field.replication.proposed().last().unwrap().parts.len();
    assert_eq!(frames_of_last, 16, "what gathered left as one entry");
}

#[tokio::test(start_paused = true)]
async fn a_frame_under_way_when_the_leadership_is_lost_takes_effect_once() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    field.replication.set_answer(Answer::Hold);
    let frame = gateway.frame(&[], vec![put("a")]);
    gateway.submit(frame.clone()).unwrap();
    until("a proposal", || field.replication.held() == 1).await;

    field.host.on_follower(SHARD, Some(NodeId(9)));
    assert_eq!(
        gateway.submit(frame.clone()),
        Err(ServeError::NotLeader {
            hint: Some(NodeId(9))
        })
    );
    field.replication.lose(true); // the next leader has it in its log
    until("the loss", || gateway.lost() == 1).await;
    assert_eq!(gateway.outcomes(1), []);
    assert_eq!(field.stats().credits_used_bytes, 0);

    field.replication.set_answer(Answer::Apply);
    field.lead();
    assert_eq!(
        gateway.submit(frame.clone()),
        Err(ServeError::NotLeader { hint: None }),
        "not opened yet"
    );
    gateway.connect(1, &[]).await.unwrap();
    gateway.submit(frame).unwrap();
    let stored = applied(gateway.outcome(1).await);
    assert_eq!(stored.term, 1, "the outcome of the first time");
    assert_eq!(gateway.outcomes(1).len(), 1);
    assert_eq!(gateway.heard().len(), 2);
    let again = applied(gateway.send(&[], vec![put("a")]).await);
    let version = |applied: &FrameApplied| match &applied.outcomes[0] {
        dunlin_model::command::Outcome::Stored(record) => record.version,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        version(&again),
        version(&stored) + 1,
        "the first command took effect once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_opened_during_an_election_waits_for_its_end() {
    let field = Field::leading();
    let gateway = Gateway::new(&field, 1);
    let elsewhere = ServeError::NotLeader {
        hint: Some(NodeId(9)),
    };

    field.host.on_follower(SHARD, None);
    let (opened, ()) = tokio::join!(gateway.connect(0, &[]), async {
        field.lead();
    });
    assert_eq!(opened, Ok(()), "elected here");

    field.host.on_follower(SHARD, None);
    let (opened, ()) = tokio::join!(gateway.connect(1, &[]), async {
        field.host.on_follower(SHARD, Some(NodeId(9)));
    });
    assert_eq!(opened, Err(elsewhere), "elected elsewhere");

    field.host.on_follower(SHARD, None);
    let opened = gateway.connect(1, &[]).await;
    assert_eq!(opened, Err(ServeError::NotLeader { hint: None }), "nobody is");
}

#[tokio::test(start_paused = true)]
async fn a_proposal_that_fails_ends_the_leadership_and_a_new_one_begins() {
    for error in [
        ProposeError::Unknown,
        ProposeError::NotLeader {
            hint: Some(NodeId(4)),
        },
    ] {
        let field = Field::leading();
        let mut gateway = Gateway::connected(&field, 1).await;
        field.replication.set_answer(Answer::Fail(error.clone()));
        let frame = gateway.frame(&[], vec![put("a")]);
        gateway.submit(frame.clone()).unwrap();
        until("the loss", || gateway.lost() == 1).await;
        let hint = match error {
            ProposeError::NotLeader { hint } => hint,
            _ => None,
        };
        assert_eq!(gateway.heard(), [Heard::Lost { hint }]);
        assert_eq!(gateway.submit(frame.clone()), Err(ServeError::NotLeader { hint }));
        field.replication.set_answer(Answer::Apply);
        field.lead();
        gateway.connect(1, &[]).await.unwrap();
        gateway.submit(frame).unwrap();
        assert_eq!(applied(gateway.outcome(1).await).term, 2);
        field.host.on_follower(SHARD, None);
        until("the second loss", || gateway.lost() == 2).await;
    }
}

/// Sends the next frame as soon as one is answered, from within the answer.
struct Eager {
    host: Arc<ActorHost>,
    frames: Mutex<VecDeque<Frame>>,
}

impl FrameSink for Eager {
    fn on_outcome(&self, shard: ShardId, _: FrameOutcome) {
        let next = self.frames.lock().unwrap().pop_front();
        if let Some(frame) = next {
            self.host.submit(shard, frame).unwrap();
        }
    }
    fn on_lost(&self, _: ShardId, _: Option<NodeId>) {}
    fn on_storage_full(&self, _: ShardId, _: bool) {}
    fn on_downlink(&self, _: ShardId, _: u64, _: Downlink) {}
}

#[tokio::test(start_paused = true)]
async fn a_gateway_may_send_the_next_frame_from_within_an_answer() {
    let field = Field::leading();
    let mut gateway = Gateway::new(&field, 1);
    let first = gateway.frame(&[], vec![]);
    let frames = (0..100).map(|_| gateway.frame(&[], vec![])).collect();
    let eager = Arc::new(Eager {
        host: field.host.clone(),
        frames: Mutex::new(frames),
    });
    field
        .host
        .open_stream(SHARD, gateway.opening(1, 0, &[]), eager.clone())
        .await
        .unwrap();
    gateway.submit(first).unwrap();
    until("all frames", || field.stats().frames == 101).await;
    until("all answers", || field.stats().credits_used_bytes == 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_was_overtaken_takes_nobodys_answers() {
    let field = Field::leading();
    let mut gateway = Gateway::new(&field, 1);
    gateway.open(gateway.opening(2, 0, &[])).await.unwrap();
    // The try before it, given up by the gateway, waited longer for the leader.
    let nobody = Arc::new(Eager {
        host: field.host.clone(),
        frames: Mutex::default(),
    });
    let overtaken = gateway.opening(1, 0, &[]);
    let refused = field.host.open_stream(SHARD, overtaken, nobody).await;
    assert_eq!(refused, Err(ServeError::NotLeader { hint: None }));
    let result = gateway.send(&[record("a", 1, b"x")], vec![]).await;
    assert!(matches!(result, FrameResult::Applied(_)), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_frame_is_a_gap_and_an_unknown_stream_stays_unknown() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let first = gateway.frame(&[], vec![put("a")]);
    let second = gateway.frame(&[], vec![put("b")]);
    gateway.submit(second.clone()).unwrap();
    assert_eq!(gateway.outcome(2).await, FrameResult::Gap { expected: 1 });
    gateway.submit(first).unwrap();
    gateway.submit(second).unwrap();
    until("both", || gateway.answered() == [2, 1, 2]).await;

    let mut stranger = Gateway::new(&field, 2);
    let early = stranger.frame(&[], vec![]);
    assert_eq!(
        stranger.submit(early.clone()),
        Err(ServeError::NotLeader { hint: None })
    );
    stranger.connect(1, &[]).await.unwrap();
    stranger.submit(early).unwrap();
    assert_eq!(stranger.outcome(1).await, FrameResult::StreamUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_second_connection_of_a_stream_gets_what_the_first_is_owed() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    field.replication.set_answer(Answer::Hold);
    let frame = gateway.frame(&[], vec![put("a")]);
    gateway.submit(frame.clone()).unwrap();
    until("a proposal", || field.replication.held() == 1).await;
    let mut again = Gateway::new(&field, 1);
    again.connect(1, &[]).await.unwrap();
    assert_eq!(again.frame(&[], vec![put("a")]), frame);
    again.submit(frame).unwrap();
    until("the second", || field.replication.held() == 2).await;
    field.replication.release();
    field.replication.release();
    until("both answers", || again.outcomes(1).len() == 2).await;
    let ends = again.outcomes(1);
    assert_eq!(ends[0], ends[1], "the repetition gets the stored outcome");
    assert_eq!((gateway.heard(), field.stats().credits_used_bytes), (vec![], 0));
}

#[tokio::test(start_paused = true)]
async fn the_budget_of_waiting_bytes_ends_and_comes_back() {
    let config = HostConfig {
        shard_waiting_bytes_max: ENTRY_BYTES_MAX,
        ..HostConfig::default()
    };
    let field = Field::start(config);
    field.lead();
    let mut gateway = Gateway::connected(&field, 1).await;
    field.replication.set_answer(Answer::Hold);
    let payload = vec![7; 200 * 1024];
    let mut taken = 0;
    let refused = loop {
        let frame = gateway.frame(&[record("a", 1, &payload)], vec![]);
        match gateway.submit(frame.clone()) {
            Ok(()) => taken += 1,
            Err(error) => break (frame, error),
        }
    };
    assert_eq!(taken, ENTRY_BYTES_MAX / (200 * 1024));
    assert!(matches!(refused.1, ServeError::Refused(_)));
    assert_eq!(field.stats().frames_refused, 1);
    until("proposals", || field.replication.held() == ENTRIES_IN_FLIGHT_MAX).await;
    field.replication.set_answer(Answer::Apply);
    while field.replication.held() > 0 {
        field.replication.release();
    }
    until("all answers", || gateway.answered().len() == taken).await;
    assert_eq!(field.stats().credits_used_bytes, 0);
    gateway.submit(refused.0).unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_stream_cannot_have_everything() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    field.replication.set_answer(Answer::Hold);
    let frame = gateway.frame(&[], vec![]);
    for _ in 0..4 * STREAM_FRAMES_IN_FLIGHT_MAX {
        gateway.submit(frame.clone()).unwrap();
    }
    assert!(matches!(gateway.submit(frame), Err(ServeError::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_not_sound_never_enter_the_log() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let before = field.replication.proposed().len();
    let frame = gateway.frame(&[record("a", 1, b"x")], vec![]);
    for unsound in [
        Frame {
            record_count: 2,
            ..frame.clone()
        },
        Frame { sequence: 0, ..frame },
    ] {
        assert!(matches!(gateway.submit(unsound), Err(ServeError::Refused(_))));
    }
    pass(5).await;
    assert_eq!(
        (
            field.replication.proposed().len(),
            field.stats().credits_used_bytes
        ),
        (before, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_journal_keeps_frames_until_it_has_room() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    field.replication.set_answer(Answer::Fail(ProposeError::Full));
    for name in ["a", "b", "c"] {
        let frame = gateway.frame(&[], vec![put(name)]);
        gateway.submit(frame).unwrap();
    }
    until("the full journal", || field.stats().storage_full).await;
    pass(1_000).await;
    assert!(field.stats().storage_full && field.stats().credits_used_bytes > 0);
    assert_eq!(gateway.heard(), [Heard::StorageFull(true)]);
    field.replication.set_answer(Answer::Apply);
    until("all answers", || gateway.answered() == [1, 2, 3]).await;
    until("room", || !field.stats().storage_full).await;
    assert_eq!(gateway.heard().last(), Some(&Heard::StorageFull(false)));
    assert_eq!(field.stats().credits_used_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_hears_that_storage_is_full_before_it_sends_anything() {
    let field = Field::leading();
    let first = Gateway::connected(&field, 1).await;
    field.host.on_storage_full(SHARD, true);
    until("news", || first.heard() == [Heard::StorageFull(true)]).await;
    field.host.on_storage_full(SHARD, true);
    // Whoever comes later hears it as well, and nobody hears it twice.
    let second = Gateway::connected(&field, 2).await;
    assert_eq!(second.heard(), [Heard::StorageFull(true)]);
    assert_eq!(first.heard(), [Heard::StorageFull(true)]);
    field.host.on_storage_full(SHARD, false);
    let heard = [Heard::StorageFull(true), Heard::StorageFull(false)];
    until("news", || first.heard() == heard && second.heard() == heard).await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_finishes_what_was_taken_in() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    field.replication.set_answer(Answer::Hold);
    for name in ["a", "b"] {
        let frame = gateway.frame(&[], vec![put(name)]);
        gateway.submit(frame).unwrap();
    }
    until("proposals", || field.replication.held() == 2).await;
    let host = field.host.clone();
    let stopping = tokio::spawn(async move { host.stop().await });
    let late = gateway.frame(&[], vec![]);
    until("the door", || gateway.submit(late.clone()).is_err()).await;
    assert_eq!(gateway.lost(), 0);
    field.replication.release();
    field.replication.release();
    stopping.await.unwrap();
    assert_eq!(gateway.answered(), [1, 2]);
    assert!(matches!(gateway.heard().last(), Some(Heard::Lost { hint: None })));
    assert!(field.host.stats().shards.is_empty());
    let added = field.host.add_shard(SHARD, field.replication.clone());
    assert_eq!(added, Err(dunlin_actors::HostError::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_ever() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    field.replication.set_answer(Answer::Hold);
    let frame = gateway.frame(&[], vec![put("a")]);
    gateway.submit(frame).unwrap();
    until("a proposal", || field.replication.held() == 1).await;
    field.host.remove_shard(SHARD).await;
    assert_eq!(gateway.heard(), [Heard::Lost { hint: None }]);
    field.host.add_shard(SHARD, field.replication.clone()).unwrap();
    field.lead();
    assert_eq!(field.host.stats().shards_leading(), 1);
    assert_eq!(field.stats().leading_term, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_actor_fails_starts_again_under_the_same_leadership() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    applied(gateway.send(&[], vec![put("a")]).await);
    until("its device", || field.stats().device_actors == 1).await;
    gateway.break_ear();
    let frame = gateway.frame(&[], vec![put("b")]);
    gateway.submit(frame.clone()).unwrap();
    until("the failure", || field.stats().shard_restarts == 1).await;
    until("the loss", || gateway.lost() == 1).await;
    until("the return", || field.stats().leading_term == Some(1)).await;
    until("the end of the old actors", || field.stats().device_actors == 0).await;
    assert_eq!((field.stats().credits_used_bytes, field.stats().streams), (0, 1));
    gateway.connect(2, &[]).await.unwrap();
    gateway.submit(frame).unwrap();
    let stored = applied(gateway.outcome(2).await);
    assert_eq!(
        stored.outcomes.len(),
        1,
        "its outcome was stored before the failure"
    );
    field.host.on_follower(SHARD, None);
    assert_eq!(field.stats().leading_term, None);
}

#[tokio::test(start_paused = true)]
async fn a_failure_does_not_bring_back_a_leadership_that_is_over() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    gateway.break_ear();
    let frame = gateway.frame(&[], vec![put("b")]);
    gateway.submit(frame).unwrap();
    until("the failure", || field.stats().shard_restarts == 1).await;
    field.host.on_follower(SHARD, Some(NodeId(6)));
    pass(10_000).await;
    assert_eq!(field.stats().leading_term, None);
    assert_eq!(
        gateway.connect(1, &[]).await,
        Err(ServeError::NotLeader {
            hint: Some(NodeId(6))
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn leaderships_may_change_under_load_from_many_threads() {
    let field = Field::leading();
    let steps = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (1..4)
        .map(|number| {
            let (host, steps) = (field.host.clone(), steps.clone());
            let frames = {
                let mut gateway = Gateway::new(&field, number);
                (0..60)
                    .map(|_| gateway.frame(&[record("a", 1, b"x")], vec![]))
                    .collect()
            };
            tokio::spawn(async move {
                for round in 0..60u64 {
                    let frames: VecDeque<Frame> = VecDeque::clone(&frames);
                    let stream = frames[0].stream;
                    let eager = Arc::new(Eager {
                        host: host.clone(),
                        frames: Mutex::new(VecDeque::new()),
                    });
                    // Refusals and losses are what this test is made of.
                    let opening = StreamOpening {
                        stream,
                        attempt: round,
                        resume: round.min(1),
                        sessions: vec![],
                    };
                    let _ = host.open_stream(SHARD, opening, eager).await;
                    for frame in frames {
                        steps.fetch_add(1, Ordering::Relaxed);
                        let _ = host.submit(SHARD, frame);
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    while !senders.iter().all(|sender| sender.is_finished()) {
        field.host.on_follower(SHARD, None);
        tokio::task::yield_now().await;
        field.lead();
        // A leadership lasts until somebody has met it: one that ends before it has begun shows nothing, and thousands of
        // them a second are no load but their own.
        let before = steps.load(Ordering::Relaxed);
        while steps.load(Ordering::Relaxed) == before && !senders.iter().all(|sender| sender.is_finished()) {
            tokio::task::yield_now().await;
        }
    }
    let room = field.stats();
    assert_eq!((room.shard_restarts, room.device_restarts), (0, 0));
    let mut last = Gateway::connected(&field, 9).await;
    let frame = last.frame(&[], vec![put("a")]);
    last.submit(frame).unwrap();
    field.host.stop().await;
    assert_eq!(last.outcomes(1).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_follower_answers_nobody() {
    let field = Field::start(HostConfig::default());
    let mut gateway = Gateway::new(&field, 1);
    assert_eq!(
        gateway.connect(0, &[]).await,
        Err(ServeError::NotLeader { hint: None })
    );
    field.host.on_follower(SHARD, Some(NodeId(2)));
    let not_leader = ServeError::NotLeader {
        hint: Some(NodeId(2)),
    };
    assert_eq!(gateway.connect(0, &[]).await, Err(not_leader.clone()));
    let frame = gateway.frame(&[], vec![]);
    assert_eq!(gateway.submit(frame), Err(not_leader));
    field.host.keep_alive(SHARD, gateway.stream);
    field.replication.apply(&dunlin_model::shard::Batch {
        time_ms: 5,
        parts: vec![Part::Internal(put("a"))],
    });
    pass(5).await;
    assert_eq!(
        (field.stats().device_actors, field.stats().leading_term),
        (0, None)
    );
}
