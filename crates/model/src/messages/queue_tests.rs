//! The queue, message by message.

use super::super::{MESSAGE_TTL_MS_DEFAULT, MessageContent};
use super::*;

const SESSION: u64 = 7;

fn at(ms: u64) -> Moment {
    Moment {
        ms,
        session: Some(SESSION),
    }
}

fn message(id: usize) -> NewMessage {
    NewMessage {
        id: format!("m-{id}"),
        ack: AckWanted::Full,
        expires_ms: None,
        content: MessageContent {
            bag: String::new(),
            payload: vec![0; 10].into(),
        },
    }
}

fn filled(count: usize) -> Queue {
    let mut queue = Queue::default();
    for id in 1..=count {
        assert_eq!(queue.push(&message(id), at(0)), Some(id as u64));
    }
    queue
}

fn numbers(taken: &[TakenMessage]) -> Vec<u64> {
    taken.iter().map(|message| message.number).collect()
}

fn take(queue: &mut Queue, holds: &[u64], count_max: u32, ms: u64) -> Vec<u64> {
    let (taken, ended) = queue.take(SESSION, holds, count_max, at(ms));
    assert_eq!(ended, []);
    numbers(&taken)
}

fn settle(queue: &mut Queue, number: u64, settlement: Settlement) -> Option<MessageEnd> {
    let holder = Holder::Session { epoch: SESSION };
    let ended = queue
        .settle(number, holder, settlement, at(1))
        .expect("its holder");
    ended.map(|ended| ended.end)
}

#[test]
fn a_session_is_given_each_message_once_and_in_order() {
    let mut queue = filled(5);
    assert_eq!(take(&mut queue, &[], 2, 1), [1, 2]);
    assert_eq!(take(&mut queue, &[1, 2], 2, 1), [3, 4]);
    assert_eq!(
        settle(&mut queue, 2, Settlement::Complete),
        Some(MessageEnd::Success)
    );
    assert_eq!(settle(&mut queue, 1, Settlement::Abandon), None);
    assert_eq!(take(&mut queue, &[3, 4], 9, 1), [1, 5]);
    assert_eq!(
        (queue.len(), queue.poll_dropped(), queue.poll_dropped()),
        (4, Some(2), None)
    );
}

#[test]
fn what_a_session_was_given_without_knowing_is_given_again() {
    let mut queue = filled(3);
    assert_eq!(
        take(&mut queue, &[], 2, 1),
        [1, 2],
        "the answer is lost on its way"
    );
    let (taken, _) = queue.take(SESSION, &[], 9, at(2));
    assert_eq!(numbers(&taken), [1, 2, 3]);
    assert!(
        taken.iter().all(|message| message.delivery_count == 0),
        "none was sent before"
    );
}

#[test]
fn the_next_session_is_given_what_the_last_one_left() {
    let mut queue = filled(2);
    take(&mut queue, &[], 9, 1);
    let none = Moment { ms: 2, session: None };
    assert!(queue.has_free(none) && !queue.has_free(at(2)));
    let next = Moment {
        ms: 3,
        session: Some(SESSION + 1),
    };
    let lost = Holder::Session { epoch: SESSION };
    assert_eq!(queue.settle(1, lost, Settlement::Complete, next), Err(LockLost));
    let (taken, _) = queue.take(SESSION + 1, &[], 9, next);
    assert_eq!(numbers(&taken), [1, 2]);
    assert!(taken.iter().all(|message| message.delivery_count == 1));
}

#[test]
fn a_message_that_is_given_too_often_becomes_a_dead_letter() {
    let mut queue = filled(1);
    for _ in 0..DELIVERY_COUNT_MAX {
        assert_eq!(take(&mut queue, &[], 9, 1), [1]);
        settle(&mut queue, 1, Settlement::Abandon);
    }
    let (taken, ended) = queue.take(SESSION, &[], 9, at(5));
    assert_eq!((taken.len(), ended.len(), queue.len()), (0, 1, 0));
    assert_eq!(ended[0].end, MessageEnd::DeliveryCountExceeded);
    let letter = &queue.dead_letters()[0];
    assert_eq!(
        (letter.number, letter.dead_ms, letter.delivery_count),
        (1, 5, DELIVERY_COUNT_MAX)
    );
    assert_eq!(queue.resubmit(9, at(6)), Ok(None));
    assert_eq!(queue.resubmit(1, at(6)), Ok(Some((1, 2))));
    assert_eq!(
        (queue.poll_dropped(), take(&mut queue, &[], 9, 7)),
        (Some(1), vec![2])
    );
}

#[test]
fn whoever_fetches_has_a_message_for_a_while() {
    let mut queue = filled(2);
    let (first, _) = queue.lock(70, Some(100), at(10));
    let first = first.expect("a message");
    assert_eq!(first.number, 1);
    let (second, _) = queue.lock(71, Some(100), at(20));
    assert_eq!(second.map(|message| message.number), Some(2));
    assert_eq!(queue.next_due_ms(at(20)), Some(110));
    assert_eq!(queue.lock(72, Some(100), at(109)).0, None);
    assert_eq!(take(&mut queue, &[], 9, 109), [0; 0], "a session has to wait too");
    let (again, _) = queue.lock(73, Some(100), at(110));
    assert_eq!(
        again.map(|message| (message.number, message.delivery_count)),
        Some((1, 1))
    );
    assert_eq!(
        queue.settle(1, first.holder, Settlement::Complete, at(111)),
        Err(LockLost)
    );
    let holder = Holder::Token { token: 73 };
    let ended = queue
        .settle(1, holder, Settlement::Reject, at(111))
        .expect("the holder");
    assert_eq!(ended.map(|ended| ended.end), Some(MessageEnd::Rejected));
}

#[test]
fn time_ends_what_nobody_holds() {
    let mut queue = filled(2);
    let late = NewMessage {
        expires_ms: Some(u64::MAX),
        ..message(3)
    };
    queue.push(&late, at(0));
    assert_eq!(queue.set_due(at(0)), (None, Some(MESSAGE_TTL_MS_DEFAULT)));
    assert_eq!(take(&mut queue, &[], 1, 1), [1]);
    let ended = queue.expire(at(MESSAGE_TTL_MS_DEFAULT));
    assert_eq!(
        ended
            .iter()
            .map(|ended| (ended.number, ended.end))
            .collect::<Vec<_>>(),
        [(2, MessageEnd::Expired)]
    );
    assert_eq!(
        queue.expire(at(MESSAGE_TTL_MS_MAX)).len(),
        1,
        "nothing lives longer"
    );
    assert_eq!(queue.len(), 1, "a session keeps what it has");
    let later = MESSAGE_TTL_MS_MAX + LOCK_MS;
    assert_eq!(
        queue.next_due_ms(at(MESSAGE_TTL_MS_MAX)),
        Some(later),
        "and is looked at again"
    );
}

#[test]
fn a_message_that_comes_too_late_is_looked_at_at_once() {
    let mut queue = Queue::default();
    let late = NewMessage {
        expires_ms: Some(1),
        ..message(1)
    };
    queue.push(&late, at(1_000));
    assert_eq!(queue.next_due_ms(at(1_000)), Some(1));
    assert_eq!(queue.expire(at(1_001)).len(), 1);
    assert_eq!(queue.next_due_ms(at(1_001)), None);
}

#[test]
fn a_queue_is_full_with_fifty_and_never_shares_a_packet_id() {
    let mut queue = filled(QUEUE_MESSAGES_MAX);
    assert_eq!(queue.push(&message(51), at(0)), None);
    let holder = Holder::Session { epoch: SESSION };
    take(&mut queue, &[], 1, 0);
    queue.last = u64::from(u16::MAX);
    assert!(queue.settle(1, holder, Settlement::Reject, at(0)).is_ok());
    // 65536 would be packet 1, which is free again; 65537 would be packet 2, which waits.
    assert_eq!(queue.push(&message(52), at(0)), Some(65_536));
    assert_eq!(queue.resubmit(1, at(0)), Err(QueueFull));
    take(&mut queue, &[], 1, 0);
    settle(&mut queue, 2, Settlement::Complete);
    take(&mut queue, &[], 1, 0);
    settle(&mut queue, 3, Settlement::Complete);
    assert_eq!(queue.resubmit(1, at(0)), Ok(Some((1, 65_537))));
    assert_eq!(queue.push(&message(53), at(0)), Some(65_538));
    assert_eq!(queue.purge(at(0)).len(), QUEUE_MESSAGES_MAX);
}

#[test]
fn dead_letters_are_bounded() {
    let mut queue = Queue::default();
    for id in 0..DEAD_LETTERS_MAX + 2 {
        let over = NewMessage {
            expires_ms: Some(1),
            ..message(id)
        };
        queue.push(&over, at(0));
        assert_eq!(queue.expire(at(1)).len(), 1);
    }
    assert_eq!(queue.dead_letters().len(), DEAD_LETTERS_MAX);
    assert_eq!(
        (queue.poll_dropped(), queue.poll_dropped(), queue.poll_dropped()),
        (Some(2), Some(1), None)
    );
    assert!(queue.drop_dead(3) && !queue.drop_dead(3));
}
