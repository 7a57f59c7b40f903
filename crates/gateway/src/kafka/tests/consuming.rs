//! What readers get, and what they are told instead.

use std::time::Instant;

use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};
use kafka_protocol::records::RecordBatchDecoder;

use super::super::limits::FETCH_BYTES_MAX;
use super::*;

/// Offsets and lengths of the records of a partition.
fn records(data: &PartitionData) -> Vec<(i64, usize)> {
    let mut records = data.records.clone().unwrap_or_default();
    let sets = RecordBatchDecoder::decode_all(&mut records).unwrap();
    let records = sets.into_iter().flat_map(|set| set.records);
    records
        .map(|record| (record.offset, record.value.map_or(0, |value| value.len())))
        .collect()
}

fn bytes(data: &PartitionData) -> usize {
    data.records.as_ref().map_or(0, Bytes::len)
}

async fn fetch(talk: &mut Talk, request: FetchRequest) -> Vec<PartitionData> {
    let mut answer = talk.ask(12, request).await;
    assert_eq!((answer.error_code, answer.session_id), (0, 0));
    answer.responses.remove(0).partitions
}

#[tokio::test]
async fn everything_is_read_in_order_and_within_the_bounds() {
    let fake = hub(2, 0);
    for number in 0..300_usize {
        fake.append(0, 1_000_000, "d", &vec![0; (number * 37) % 5000]);
    }
    let mut talk = Talk::known(&fake).await;
    for (partition_max, max) in [(10_000, 1 << 20), (1 << 20, 8_000), (1, 1 << 20)] {
        let mut next = 0;
        while next < 300 {
            let mut request = testing::fetch(12, next).with_max_bytes(max);
            request.topics[0].partitions.truncate(1);
            request.topics[0].partitions[0].partition_max_bytes = partition_max;
            let partitions = fetch(&mut talk, request).await;
            let records = records(&partitions[0]);
            assert!(!records.is_empty(), "at least one");
            let is_bounded = bytes(&partitions[0]) <= partition_max.min(max) as usize;
            assert!(
                is_bounded || records.len() == 1,
                "{} {}",
                bytes(&partitions[0]),
                records.len()
            );
            for (offset, length) in records {
                assert_eq!((offset, length), (next, (next as usize * 37) % 5000));
                next += 1;
            }
            assert_eq!(
                (partitions[0].high_watermark, partitions[0].log_start_offset),
                (300, 0)
            );
        }
    }
}

#[tokio::test]
async fn a_fetch_of_everything_has_its_bound_whatever_was_asked_for() {
    let fake = hub(2, 0);
    for partition in [0, 1] {
        for _ in 0..100 {
            fake.append(partition, 1_000_000, "d", &[0; 60_000]);
        }
    }
    let mut talk = Talk::known(&fake).await;
    let mut request = testing::fetch(12, 0).with_max_bytes(i32::MAX);
    request.topics[0]
        .partitions
        .iter_mut()
        .for_each(|partition| partition.partition_max_bytes = i32::MAX);
    let partitions = fetch(&mut talk, request).await;
    let sum: usize = partitions.iter().map(bytes).sum();
    assert!(
        sum <= FETCH_BYTES_MAX && partitions.iter().all(|data| bytes(data) > 0),
        "{sum}"
    );
}

#[tokio::test]
async fn a_wait_ends_when_an_event_comes_or_when_it_is_over() {
    let fake = hub(2, 0);
    let mut talk = Talk::known(&fake).await;
    let began = Instant::now();
    let partitions = fetch(&mut talk, testing::fetch(12, 0).with_max_wait_ms(300)).await;
    assert!(
        partitions
            .iter()
            .all(|data| data.error_code == 0 && data.high_watermark == 0 && bytes(data) == 0)
    );
    assert!(
        (300..2000).contains(&began.elapsed().as_millis()),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    talk.send(12, &testing::fetch(12, 0).with_max_wait_ms(10_000))
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    fake.append(1, 5, "d", b"late");
    let answer = talk.receive::<FetchRequest>(12).await.unwrap();
    assert_eq!(records(&answer.responses[0].partitions[1]), [(0, 4)]);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_wait_for_more_goes_on_until_there_is_enough() {
    let fake = hub(2, 0);
    fake.append(0, 5, "d", b"first");
    let mut talk = Talk::known(&fake).await;
    talk.send(
        12,
        &testing::fetch(12, 0).with_max_wait_ms(10_000).with_min_bytes(800),
    )
    .await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fake.append(0, 6, "d", &[1; 100]);
        fake.append(1, 6, "d", &[1; 100]);
    }
    let answer = talk.receive::<FetchRequest>(12).await.unwrap();
    let partitions = &answer.responses[0].partitions;
    assert!(partitions.iter().map(bytes).sum::<usize>() >= 800);
    for data in partitions {
        let offsets: Vec<i64> = records(data).iter().map(|record| record.0).collect();
        assert_eq!(offsets, (0..offsets.len() as i64).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_partition_that_cannot_be_reached_says_so_and_holds_nobody_up() {
    let fake = hub(2, 3);
    fake.set_reachable(1, false);
    let mut talk = Talk::known(&fake).await;
    let partitions = fetch(&mut talk, testing::fetch(12, 0)).await;
    assert_eq!((partitions[0].error_code, records(&partitions[0]).len()), (0, 3));
    assert_eq!((partitions[1].error_code, bytes(&partitions[1])), (6, 0));
    let answer = talk.ask(6, testing::list_offsets(&[-1, -1])).await;
    let told: Vec<(i16, i64)> = answer.topics[0]
        .partitions
        .iter()
        .map(|data| (data.error_code, data.offset))
        .collect();
    assert_eq!(told, [(0, 3), (6, -1)]);
}

#[tokio::test]
async fn offsets_beyond_the_log_are_out_of_range_but_only_if_it_is_so() {
    let fake = hub(2, 10);
    fake.trim(0, 4);
    let mut talk = Talk::known(&fake).await;
    let partitions = fetch(&mut talk, testing::fetch(12, 2)).await;
    assert_eq!(partitions[0].error_code, 1, "trimmed");
    assert_eq!(records(&partitions[1]).len(), 8);
    let partitions = fetch(&mut talk, testing::fetch(12, 11)).await;
    assert_eq!(
        (partitions[0].error_code, partitions[1].error_code),
        (1, 1),
        "behind the end"
    );
    let partitions = fetch(&mut talk, testing::fetch(12, -5)).await;
    assert_eq!(partitions[0].error_code, 1);
    // A leader that has not yet all it will have: the reader keeps its place.
    fake.set_behind(1, true);
    talk.send(12, &testing::fetch(12, 10)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    fake.set_behind(1, false);
    let answer = talk.receive::<FetchRequest>(12).await.unwrap();
    assert_eq!(answer.responses[0].partitions[1].error_code, 0);
}

#[tokio::test]
async fn what_is_named_wrongly_is_told_so() {
    let fake = hub(2, 3);
    let mut talk = Talk::known(&fake).await;
    let mut request = testing::fetch(12, 0);
    request.topics[0].partitions[1].partition = 0;
    let partitions = fetch(&mut talk, request.clone()).await;
    assert_eq!(
        (partitions[0].error_code, partitions[1].error_code),
        (0, 42),
        "twice"
    );
    for partition in [-1, 2, i32::MAX] {
        request.topics[0].partitions[1].partition = partition;
        assert_eq!(
            fetch(&mut talk, request.clone()).await[1].error_code,
            3,
            "{partition}"
        );
    }
    request.topics[0].topic.0 = StrBytes::from_static_str("other");
    assert_eq!(fetch(&mut talk, request).await[0].error_code, 3);
    let answer = talk
        .ask(12, testing::fetch(12, 0).with_session_id(5).with_session_epoch(1))
        .await;
    assert_eq!(answer.error_code, 70);
}

#[tokio::test]
async fn readers_of_another_life_of_the_log_are_told() {
    let fake = hub(2, 3);
    fake.set_log_epoch(2);
    let mut talk = Talk::known(&fake).await;
    for (epoch, code) in [(-1, 0), (1, 74), (2, 0), (3, 75)] {
        let mut request = testing::fetch(12, 0);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        request.topics[0].partitions[1].current_leader_epoch = -1;
        let partitions = fetch(&mut talk, request).await;
        assert_eq!(
            (partitions[0].error_code, partitions[1].error_code),
            (code, 0),
            "{epoch}"
        );
    }
    for (epoch, wanted) in [(2, (2, 3)), (1, (1, 3)), (0, (-1, -1)), (3, (-1, -1))] {
        let mut request = OffsetForLeaderEpochRequest::default();
        request.topics = vec![Default::default()];
        request.topics[0].topic.0 = StrBytes::from_static_str(TOPIC);
        request.topics[0].partitions = vec![Default::default()];
        request.topics[0].partitions[0].leader_epoch = epoch;
        request.topics[0].partitions[0].current_leader_epoch = 2;
        let answer = talk.ask(4, request).await;
        let end = &answer.topics[0].partitions[0];
        assert_eq!(
            (end.error_code, (end.leader_epoch, end.end_offset)),
            (0, wanted),
            "{epoch}"
        );
    }
}

#[tokio::test]
async fn times_are_looked_up() {
    let mut talk = Talk::known(&hub(2, 10)).await;
    for (time, offset, found) in [
        (-2, 0, -1),
        (-1, 10, -1),
        (0, 0, 1_000_000),
        (1_003_500, 4, 1_004_000),
        (1_009_000, 9, 1_009_000),
        (1_009_001, -1, -1),
    ] {
        let answer: <ListOffsetsRequest as Request>::Response =
            talk.ask(6, testing::list_offsets(&[time])).await;
        let data = &answer.topics[0].partitions[0];
        assert_eq!(
            (data.error_code, data.offset, data.timestamp),
            (0, offset, found),
            "{time}"
        );
    }
    let answer = talk.ask(6, testing::list_offsets(&[-9])).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 35);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_keeps_its_share_only_while_it_lives() {
    let fake = hub(1, 0);
    for _ in 0..100 {
        fake.append(0, 1, "d", &[0; 60_000]);
    }
    let (stream, theirs) = duplex(PIPE);
    let gateway = Arc::new(Gateway(1, fake.clone()));
    let door = Arc::new(Door::new(
        gateway,
        TOPIC.into(),
        "hub".into(),
        CancellationToken::new(),
    ));
    let all = door.memory.available_permits();
    let serving = tokio::spawn(connection::serve(
        door.clone(),
        theirs,
        "192.0.2.1:5000".parse().unwrap(),
    ));
    let mut talk = Talk {
        stream,
        correlation: 0,
        draining: CancellationToken::new(),
    };
    assert_eq!(talk.sign_in(&Fake::connection_string()).await, Some(0));
    talk.send(12, &testing::fetch(12, 0)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let held = all - door.memory.available_permits();
    assert!(
        (400..600).contains(&held),
        "{held} KiB are held for an answer of 512"
    );
    drop(talk);
    serving.await.unwrap();
    assert_eq!(door.memory.available_permits(), all);
}
