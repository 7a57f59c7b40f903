//! What a fetch asks for and answers, step by step.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::super::super::backend::Event;
use super::super::super::limits::FETCH_READS_AT_A_TIME;
use super::super::super::testing;
use super::*;
use crate::kafka::fake::{Fake, Gateway, TOPIC};

/// A fetch of all of so many partitions from offset 0.
fn gather(partition_count: u32, change: impl Fn(&mut FetchRequest)) -> Gather {
    let gateway = Arc::new(Gateway(1, Fake::new(partition_count)));
    let door = Door::new(gateway, TOPIC.into(), "hub".into(), CancellationToken::new());
    let mut request = testing::fetch(12, 0);
    let partition = request.topics[0].partitions[0].clone();
    let partitions = (0..partition_count).map(|number| partition.clone().with_partition(number as i32));
    request.topics[0].partitions = partitions.collect();
    change(&mut request);
    Gather::new(&request, &door)
}

fn page(from: u64, count: u64, bytes: usize) -> Result<Page, ReadError> {
    let event = |offset| Event {
        offset,
        time_ms: 1,
        device: "d".into(),
        system: Vec::new(),
        properties: Vec::new(),
        payload: Bytes::from(vec![0; bytes]),
    };
    Ok(Page {
        events: (from..from + count).map(event).collect(),
        next: from + count,
        first_offset: 0,
        next_offset: from + count,
    })
}

/// All that is asked at once.
fn asks(gather: &mut Gather) -> Vec<(usize, Ask)> {
    std::iter::from_fn(|| gather.poll_ask()).collect()
}

fn codes(gather: Gather) -> Vec<i16> {
    let response = gather.into_response();
    response.responses[0]
        .partitions
        .iter()
        .map(|data| data.error_code)
        .collect()
}

#[test]
fn no_more_is_asked_for_than_there_is_room_and_what_was_not_used_is_asked_of_others() {
    let mut gather = gather(8, |_| {});
    gather.begin(Pass::There);
    let first = asks(&mut gather);
    assert_eq!(first.len(), FETCH_BYTES_MAX / FETCH_PARTITION_BYTES_MAX);
    assert!(first.len() < FETCH_READS_AT_A_TIME, "room is what counts here");
    for (place, ask) in first {
        let Ask::Read {
            from: 0,
            bytes_max,
            is_waiting: false,
            ..
        } = ask
        else {
            panic!("{ask:?}");
        };
        assert_eq!(bytes_max, FETCH_PARTITION_BYTES_MAX);
        gather.handle_page(place, page(0, 1, 10));
    }
    // Nearly all of it is left for the others.
    let rest = asks(&mut gather);
    assert_eq!(rest.len(), 4);
    for (place, _) in rest {
        gather.handle_page(place, page(0, 1, 10));
    }
    assert_eq!(asks(&mut gather), []);
    assert!(gather.is_enough());
}

#[test]
fn whoever_there_is_no_room_for_is_still_asked_where_it_ends() {
    let mut gather = gather(2, |request| request.max_bytes = 1000);
    gather.begin(Pass::There);
    let first = asks(&mut gather);
    assert_eq!(first.len(), 1);
    gather.handle_page(0, page(0, 3, 5000));
    // One event came though it is larger than all there is room for.
    assert!((5000..6000).contains(&gather.bytes()), "{}", gather.bytes());
    assert_eq!(asks(&mut gather), [(1, Ask::Look { partition: 1 })]);
    gather.handle_bounds(
        1,
        Ok(Bounds {
            first_offset: 0,
            next_offset: 9,
        }),
    );
    let response = gather.into_response();
    let told: Vec<_> = response.responses[0]
        .partitions
        .iter()
        .map(|data| (data.error_code, data.high_watermark))
        .collect();
    assert_eq!(told, [(0, 3), (0, 9)]);
}

#[test]
fn only_those_that_were_asked_can_have_failed_to_answer() {
    let mut gather = gather(8, |_| {});
    gather.begin(Pass::There);
    let asked = asks(&mut gather);
    gather.handle_page(asked[0].0, page(0, 1, 10));
    gather.give_up();
    assert_eq!(codes(gather), [0, 6, 6, 6, 0, 0, 0, 0]);
}

#[test]
fn to_wait_in_vain_is_no_error() {
    let mut gather = gather(2, |_| {});
    for pass in [Pass::There, Pass::Wait] {
        gather.begin(pass);
        for (place, _) in asks(&mut gather)
            .into_iter()
            .take(if pass == Pass::Wait { 0 } else { 2 })
        {
            gather.handle_page(place, page(0, 0, 0));
        }
    }
    gather.give_up();
    assert!(!gather.is_enough());
    assert_eq!(codes(gather), [0, 0]);
}

#[test]
fn whoever_brings_something_while_it_is_waited_for_is_asked_for_more() {
    let mut gather = gather(2, |request| request.min_bytes = 10_000);
    gather.begin(Pass::Wait);
    assert_eq!(asks(&mut gather).len(), 2);
    gather.handle_page(0, page(0, 2, 10));
    let again = asks(&mut gather);
    assert!(
        matches!(
            again[..],
            [(
                0,
                Ask::Read {
                    from: 2,
                    is_waiting: true,
                    ..
                }
            )]
        ),
        "{again:?}"
    );
    gather.handle_page(1, page(0, 0, 0));
    assert_eq!(asks(&mut gather), [], "nothing came of it, though it was to wait");
}

#[test]
fn an_error_is_enough_and_what_was_read_before_stands() {
    let mut gather = gather(2, |request| request.min_bytes = 10_000);
    gather.begin(Pass::There);
    asks(&mut gather);
    gather.handle_page(0, page(0, 2, 10));
    gather.handle_page(1, page(0, 0, 0));
    assert!(!gather.is_enough());
    gather.begin(Pass::Wait);
    asks(&mut gather);
    gather.handle_page(0, Err(ReadError::Unavailable));
    assert!(!gather.is_enough(), "it has brought something");
    gather.handle_page(1, Err(ReadError::Unavailable));
    assert!(gather.is_enough());
    assert_eq!(codes(gather), [0, 6]);
}

#[test]
fn the_end_is_believed_to_be_before_the_reader_only_when_it_is_told_twice() {
    let mut gather = gather(2, |request| {
        request.topics[0]
            .partitions
            .iter_mut()
            .for_each(|partition| partition.fetch_offset = 5);
    });
    gather.begin(Pass::There);
    asks(&mut gather);
    gather.handle_page(0, page(3, 0, 0));
    gather.handle_page(1, page(3, 0, 0));
    assert!(gather.has_aheads());
    gather.begin(Pass::Ahead);
    assert_eq!(asks(&mut gather).len(), 2);
    let bounds = |next_offset| {
        Ok(Bounds {
            first_offset: 0,
            next_offset,
        })
    };
    gather.handle_bounds(0, bounds(3));
    gather.handle_bounds(1, bounds(5));
    assert_eq!(codes(gather), [1, 0]);
}

#[test]
fn a_reader_comes_past_what_is_led_elsewhere() {
    let mut gather = gather(1, |_| {});
    gather.begin(Pass::There);
    let (place, _) = asks(&mut gather)[0];
    let elsewhere = Page {
        events: Vec::new(),
        next: 500,
        first_offset: 0,
        next_offset: 600,
    };
    gather.handle_page(place, Ok(elsewhere));
    gather.begin(Pass::Wait);
    let (place, ask) = asks(&mut gather)[0];
    assert!(matches!(ask, Ask::Read { from: 500, .. }), "{ask:?}");
    gather.handle_page(place, page(500, 2, 10));
    let response = gather.into_response();
    let mut records = response.responses[0].partitions[0].records.clone().unwrap();
    let read = kafka_protocol::records::RecordBatchDecoder::decode_all(&mut records).unwrap();
    let read: Vec<(i64, bool)> = read
        .into_iter()
        .flat_map(|set| set.records)
        .map(|record| (record.offset, record.control))
        .collect();
    assert_eq!(read, [(499, true), (500, false), (501, false)]);
}
