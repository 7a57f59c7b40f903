//! The machine that every replica applies, over random histories: equal replicas, fences, repetitions,
//! and events that come out the same when they are made a second time.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use dunlin_model::command::{Command, Outcome, Refusal};
use dunlin_model::id::{LogPosition, StreamId};
use dunlin_model::identity::{Condition, DeviceStatus};
use dunlin_model::messages::{AckWanted, DeadLetterDeed, Holder, MessageContent, NewMessage, Settlement};
use dunlin_model::port::{EventRun, Frame, FrameResult};
use dunlin_model::routing::EventSources;
use dunlin_model::shard::registry::messages_filter;
use dunlin_model::shard::state::{Applied, ShardState};
use dunlin_model::shard::{Batch, Part, verdict};
use dunlin_model::telemetry::{AuthMethod, Source, encode};
use dunlin_model::upload::NewFileNotice;
use proptest::prelude::*;

use crate::support::{
    MemoryStore, SHARD, applied, device, epoch, generation, open, put, record, spec, stream,
};

/// One replica with its log.
struct Replica {
    state: ShardState,
    store: Arc<MemoryStore>,
    index: u64,
}

impl Replica {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        Self {
            state: ShardState::open(store.clone()).unwrap(),
            store,
            index: 0,
        }
    }

    fn apply(&mut self, batch: &Batch) -> (LogPosition, Applied) {
        self.index += 1;
        let position = LogPosition {
            term: 1,
            leader: 1,
            index: self.index,
        };
        (position, self.state.apply(position, batch).unwrap())
    }

    fn frame(&mut self, sequence: u64, records: &[BytesMut], commands: Vec<Command>) -> FrameResult {
        let part = Part::Frame(frame(stream(1), sequence, records, commands));
        self.apply(&Batch {
            time_ms: self.index + 1,
            parts: vec![part],
        })
        .1
        .outcomes
        .remove(0)
        .result
    }

    /// Everything but notes that are a replica's own.
    fn shared(&self) -> BTreeMap<Vec<u8>, bytes::Bytes> {
        let content = self.store.content().into_iter();
        content.filter(|(key, _)| !verdict::is_local(key)).collect()
    }
}

fn frame(stream: StreamId, sequence: u64, records: &[BytesMut], commands: Vec<Command>) -> Frame {
    let mut joined = BytesMut::new();
    records.iter().for_each(|record| joined.extend_from_slice(record));
    Frame {
        stream,
        sequence,
        records: joined.freeze(),
        record_count: records.len() as u32,
        commands,
        trace: None,
    }
}

fn by_generation(name: &str, generation: u64) -> BytesMut {
    let mut out = BytesMut::new();
    encode(
        &mut out,
        Source::Http,
        AuthMethod::DeviceKey,
        generation,
        &device(name),
        (b"", b"h"),
    );
    out
}

#[test]
fn records_are_fenced_by_epoch_and_by_generation() {
    let mut replica = Replica::new();
    replica.apply(&Batch {
        time_ms: 1,
        parts: vec![Part::StreamOpen(stream(1))],
    });
    let created = applied(replica.frame(1, &[], vec![put("a")]));
    let generation_1 = generation(&created.outcomes[0]);
    let opened = applied(replica.frame(2, &[], vec![open("a", generation_1, stream(1))]));
    let epoch_1 = epoch(&opened.outcomes[0]);
    let both = [
        record("a", epoch_1, b"x"),
        by_generation("a", generation_1),
        record("b", epoch_1, b"x"),
    ];
    assert_eq!(
        applied(replica.frame(3, &both, vec![])).fenced,
        [2],
        "no such device"
    );

    let opened = applied(replica.frame(4, &both, vec![open("a", generation_1, stream(1))]));
    assert_eq!(opened.fenced, [2], "commands take effect after the records");
    let epoch_2 = epoch(&opened.outcomes[0]);
    let sent = [
        record("a", epoch_1, b"x"),
        record("a", epoch_2, b"x"),
        record("a", epoch_2 + 1, b"x"),
    ];
    assert_eq!(applied(replica.frame(5, &sent, vec![])).fenced, [0, 2]);

    let disable = Command::DevicePut {
        device: device("a"),
        spec: spec(DeviceStatus::Disabled, "key"),
        condition: Condition::Present,
    };
    let disabled = applied(replica.frame(6, &[], vec![disable]));
    let generation_2 = generation(&disabled.outcomes[0]);
    assert!(generation_2 > generation_1);
    let sent = [
        record("a", epoch_2, b"x"),
        by_generation("a", generation_1),
        by_generation("a", generation_2),
    ];
    assert_eq!(applied(replica.frame(7, &sent, vec![])).fenced, [0, 1, 2]);
    let refused = applied(replica.frame(8, &[], vec![open("a", generation_1, stream(1))]));
    assert_eq!(refused.outcomes, [Outcome::Refused(Refusal::StaleGeneration)]);

    let delete = Command::DeviceDelete {
        device: device("a"),
        condition: Condition::Any,
    };
    let again = applied(replica.frame(9, &[], vec![delete, put("a")]));
    assert!(
        generation(&again.outcomes[1]) > generation_2,
        "a device made again never meets an old credential"
    );
    let version = |outcome: &Outcome| match outcome {
        Outcome::Stored(record) => record.version,
        other => panic!("not stored but {other:?}"),
    };
    assert!(
        version(&again.outcomes[1]) > version(&disabled.outcomes[0]),
        "nor an old ETag"
    );
    let sent = [record("a", epoch_2, b"x"), by_generation("a", generation_2)];
    assert_eq!(applied(replica.frame(10, &sent, vec![])).fenced, [0, 1]);
}

#[test]
fn a_repetition_gets_the_stored_outcome_as_long_as_it_is_kept() {
    let mut replica = Replica::new();
    assert_eq!(replica.frame(1, &[], vec![put("a")]), FrameResult::StreamUnknown);
    replica.apply(&Batch {
        time_ms: 1,
        parts: vec![Part::StreamOpen(stream(1))],
    });
    let first = replica.frame(1, &[], vec![put("a")]);
    assert_eq!(replica.frame(1, &[], vec![put("a")]), first);
    assert_eq!(replica.frame(3, &[], vec![]), FrameResult::Gap { expected: 2 });
    for sequence in 2..=64 {
        replica.frame(sequence, &[], vec![]);
        assert_eq!(replica.frame(1, &[], vec![put("a")]), first);
    }
    replica.frame(65, &[], vec![]);
    assert_eq!(replica.frame(1, &[], vec![put("a")]), FrameResult::Forgotten);
    replica.apply(&Batch {
        time_ms: 900,
        parts: vec![Part::GatewayGone(stream(1))],
    });
    assert_eq!(replica.frame(66, &[], vec![]), FrameResult::StreamUnknown);
}

/// What a random history is made of. Fences are drawn low, so that they are often right.
#[derive(Debug, Clone)]
enum Step {
    Frame {
        gateway: u64,
        ahead: i64,
        records: Vec<(u8, u64, bool)>,
        commands: Vec<(u8, u64, u8)>,
    },
    Open(u64),
    Gone(u64),
    Seal,
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let records = prop::collection::vec((0..4u8, 0..12u64, any::<bool>()), 0..6);
    let commands = prop::collection::vec((0..4u8, 0..12u64, 0..20u8), 0..4);
    let step = prop_oneof![
        8 => (1..3u64, -1..2i64, records, commands)
            .prop_map(|(gateway, ahead, records, commands)| Step::Frame { gateway, ahead, records, commands }),
        2 => (1..3u64).prop_map(Step::Open),
        1 => (1..3u64).prop_map(Step::Gone),
        1 => Just(Step::Seal),
    ];
    prop::collection::vec(prop::collection::vec(step, 1..5), 1..25)
}

fn command((name, fence, kind): &(u8, u64, u8), held_by: StreamId) -> Command {
    let name = format!("d{name}");
    let device = device(&name);
    match kind {
        0 | 1 => put(&name),
        2 | 3 => open(&name, *fence, held_by),
        4 => Command::SessionClose {
            device,
            epoch: *fence,
        },
        5 => Command::Subscribe {
            filters: vec![(messages_filter(&device), 1)],
            device,
            epoch: *fence,
        },
        6 | 7 => Command::MessageSend {
            device,
            message: NewMessage {
                id: fence.to_string(),
                ack: AckWanted::Full,
                // Some are over at once.
                expires_ms: fence.is_multiple_of(3).then_some(1),
                content: MessageContent {
                    bag: String::new(),
                    payload: vec![7; *fence as usize].into(),
                },
            },
        },
        8 => Command::MessageTake {
            device,
            epoch: *fence,
            holds: Vec::new(),
            count_max: 2,
        },
        9 => Command::MessageLock {
            device,
            generation: *fence,
            lock_ms: Some(3),
        },
        10 => Command::MessageSettle {
            device,
            numbers: vec![1, 2, 3],
            holder: match fence.is_multiple_of(2) {
                true => Holder::Session { epoch: *fence },
                false => Holder::Token { token: *fence },
            },
            settlement: [Settlement::Complete, Settlement::Reject, Settlement::Abandon][*fence as usize % 3],
        },
        11 => Command::DeadLetter {
            device,
            number: *fence,
            deed: DeadLetterDeed::Resubmit,
        },
        12 => Command::MessagesExpire { device },
        13 => Command::FeedbackTake {
            shard: SHARD,
            lock_ms: 2,
        },
        16 | 17 => Command::UploadBegin {
            device,
            generation: *fence,
            id: format!("u{}", fence % 3),
            blob: "x".into(),
            secret_digest: String::new(),
            ttl_ms: 1,
        },
        18 => Command::UploadEnd {
            device,
            generation: *fence,
            id: format!("u{}", fence % 3),
            notice: Some(Box::new(NewFileNotice {
                uri: "https://hub/x".into(),
                blob: "x".into(),
                modified_ms: 1,
                bytes: *fence,
            })),
        },
        19 => Command::FileNoticeTake {
            shard: SHARD,
            lock_ms: 2,
        },
        _ => Command::DeviceDelete {
            device,
            condition: Condition::Any,
        },
    }
}

/// The batches of a history. Sequence numbers are mostly the next ones, since gateways count.
fn batches(history: &[Vec<Step>]) -> Vec<Batch> {
    let mut next: BTreeMap<u64, i64> = BTreeMap::new();
    let mut time_ms = 0;
    let mut batches = Vec::new();
    for steps in history {
        time_ms += 10;
        let mut parts = Vec::new();
        for step in steps {
            parts.push(match step {
                Step::Open(gateway) => Part::StreamOpen(stream(*gateway)),
                Step::Gone(gateway) => {
                    next.remove(gateway);
                    Part::GatewayGone(stream(*gateway))
                }
                Step::Seal => Part::Seal,
                Step::Frame {
                    gateway,
                    ahead,
                    records,
                    commands,
                } => {
                    let next = next.entry(*gateway).or_insert(1);
                    let sequence = (*next + ahead).max(1);
                    *next += i64::from(*ahead == 0);
                    let records: Vec<_> = records
                        .iter()
                        .map(|(name, fence, http)| match http {
                            true => by_generation(&format!("d{name}"), *fence),
                            false => record(&format!("d{name}"), *fence, b"payload"),
                        })
                        .collect();
                    let commands = commands.iter().map(|c| command(c, stream(*gateway))).collect();
                    Part::Frame(frame(stream(*gateway), sequence as u64, &records, commands))
                }
            });
        }
        let mut batch = Batch { time_ms, parts };
        if batches.len() % 2 == 0 {
            batch.announce(|| EventSources::from_bits(u8::MAX));
        }
        batches.push(batch);
    }
    batches
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn replicas_agree_also_when_one_starts_again_in_between(history in steps(), restart in 0..25usize) {
        let (mut one, mut two) = (Replica::new(), Replica::new());
        for (i, batch) in batches(&history).iter().enumerate() {
            if i == restart {
                two.state = ShardState::open(two.store.clone()).unwrap();
            }
            prop_assert_eq!(one.apply(batch), two.apply(batch));
            prop_assert_eq!(one.state.meta(), two.state.meta());
            prop_assert_eq!(one.state.streams(), two.state.streams());
        }
        prop_assert_eq!(one.shared(), two.shared());
    }

    #[test]
    fn events_made_a_second_time_are_the_same(history in steps()) {
        let mut replica = Replica::new();
        let mut made: Vec<(LogPosition, Batch, Option<EventRun>)> = Vec::new();
        for batch in batches(&history) {
            let (position, applied) = replica.apply(&batch);
            made.push((position, batch, applied.run));
        }
        let mut offset = 0;
        for (position, batch, run) in &made {
            let again = replica.state.replay_run(*position, batch, offset).unwrap();
            prop_assert_eq!(&again, run);
            offset = again.map_or(offset, |run| run.next_offset());
        }
        prop_assert_eq!(offset, replica.state.meta().next_offset);
        replica.state.forget_verdicts(u64::MAX).unwrap();
        let local = replica.store.content().len() - replica.shared().len();
        let forgotten = replica.state.verdicts_forgotten_upto().unwrap();
        prop_assert_eq!(local, usize::from(forgotten.is_some()), "no note is left, but how far there were any");
        prop_assert!(forgotten.is_none_or(|upto| made.iter().any(|(at, ..)| at.index == upto)));
    }

    #[test]
    fn counters_match_what_is_stored(history in steps()) {
        let mut replica = Replica::new();
        batches(&history).iter().for_each(|batch| drop(replica.apply(batch)));
        let query = dunlin_model::command::Query::Devices {
            shard: SHARD,
            after: bytes::Bytes::new(),
            count_max: 100,
        };
        let view = dunlin_model::shard::read::read(&*replica.store, &query).unwrap();
        let dunlin_model::command::View::Devices { devices, .. } = view else { unreachable!() };
        let held = devices.iter().filter(|device| device.session.held_by.is_some()).count() as u64;
        let meta = replica.state.meta();
        prop_assert_eq!((meta.device_count, meta.connected_count), (devices.len() as u64, held));
    }
}
