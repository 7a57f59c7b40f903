//! When tasks begin, for loads that are no clients of this program's own engine: on a schedule, or whenever one has ended.
//!
//! On a schedule the load is open: what is late is counted from when it was due, and what could not begin is counted, too.
//! Otherwise it is closed: each worker goes on with the next as soon as one has ended. What is done is the caller's, how it
//! counts is [`super::meter`]'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use super::meter::{End, Meter};
use super::schedule::Schedule;

/// Time after the load in which what was due and could not begin still does.
const BACKLOG_WAIT: Duration = Duration::from_secs(2);
/// Time for the last answers.
const DRAIN: Duration = Duration::from_secs(20);

/// Begins one whenever one is due, `in_flight` at a time at the most. `act` is told which, from 0.
pub(super) async fn on_schedule<F>(
    meter: &Arc<Meter>,
    schedule: Schedule,
    in_flight: usize,
    act: impl Fn(u64) -> F,
) where
    F: Future<Output = End> + Send + 'static,
{
    let Some(ends) = meter.ends() else {
        return;
    };
    let places = Arc::new(Semaphore::new(in_flight));
    let mut tasks = JoinSet::new();
    let mut number = 0;
    while let Some(due_ns) = meter.due_ns(&schedule, number) {
        sleep_until(meter.at(due_ns)).await;
        let place = timeout_at(ends + BACKLOG_WAIT, Arc::clone(&places).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            break;
        };
        let (ticket, acting) = (meter.begin(due_ns), act(number));
        let meter = Arc::clone(meter);
        tasks.spawn(async move {
            let end = acting.await;
            meter.end(ticket, end);
            drop(place);
        });
        while tasks.try_join_next().is_some() {}
        number += 1;
    }
    meter.skip_from(&schedule, number);
    drain(meter, tasks).await;
}

/// So many workers, each of which begins the next as soon as one has ended, `count_max` in all at the most. `act` is told
/// which, from 0.
pub(super) async fn in_turn<A, F>(meter: &Arc<Meter>, workers: usize, count_max: u64, act: A)
where
    A: Fn(u64) -> F + Clone + Send + 'static,
    F: Future<Output = End> + Send + 'static,
{
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let (meter, next, act) = (Arc::clone(meter), Arc::clone(&next), act.clone());
        tasks.spawn(async move {
            while !meter.is_over() {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count_max {
                    return;
                }
                let ticket = meter.begin(meter.now_ns());
                let acting = act(number);
                let end = acting.await;
                meter.end(ticket, end);
            }
        });
    }
    drain(meter, tasks).await;
}

/// Waits for the last answers. What has none then is given up.
async fn drain(meter: &Meter, mut tasks: JoinSet<()>) {
    let drained = async { while tasks.join_next().await.is_some() {} };
    match meter.ends() {
        // Whether all of them came is seen by what is still open.
        Some(ends) => timeout_at(ends + DRAIN, drained).await.unwrap_or_default(),
        None => drained.await,
    }
    tasks.shutdown().await;
    meter.give_up();
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;
    use crate::load::engine::Unseen;

    fn meter(seconds: u64, by_due: bool) -> Arc<Meter> {
        let duration = Duration::from_secs(seconds);
        Arc::new(Meter::start(Duration::ZERO, Some(duration), by_due))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_answered_and_what_could_not_begin_are_counted_with_their_age() {
        // Ten a second, two at a time, and nobody ever answers.
        let meter = meter(1, true);
        let schedule = Schedule::of_rate(10, 1, None);
        let working = on_schedule(&meter, schedule, 2, |_| pending::<End>());
        let outcome = meter.watch(&mut Unseen, pending(), working).await;
        let tally = outcome.total.tally;
        assert_eq!(
            (tally.sent, tally.acked, tally.unacked, tally.unsent),
            (2, 0, 2, 8)
        );
        let latency_us = &outcome.total.latency_us;
        assert_eq!(latency_us.len(), 10);
        // Until the backlog was given up, and until the last answers were.
        let (min, max) = (latency_us.min(), latency_us.max());
        assert!((2_000_000..3_100_000).contains(&min), "{min}");
        assert!((20_800_000..21_200_000).contains(&max), "{max}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_had_to_wait_counts_from_when_it_was_due() {
        // Ten are due within a second, and each takes 200 ms: the last ends a second late.
        let meter = meter(1, true);
        let schedule = Schedule::of_rate(10, 1, None);
        let act = |_| async {
            sleep(Duration::from_millis(200)).await;
            End::Done
        };
        let working = on_schedule(&meter, schedule, 1, act);
        let outcome = meter.watch(&mut Unseen, pending(), working).await;
        let tally = outcome.total.tally;
        assert_eq!((tally.sent, tally.acked, tally.unsent), (10, 10, 0));
        let latency_us = &outcome.total.latency_us;
        let (min, max) = (latency_us.min(), latency_us.max());
        assert!((199_000..220_000).contains(&min), "{min}");
        assert!(max >= 1_099_000, "{max}");
    }

    #[tokio::test(start_paused = true)]
    async fn workers_go_on_until_the_time_or_the_count_is_over() {
        let act = |_| async {
            sleep(Duration::from_millis(100)).await;
            End::Done
        };
        let timed = meter(1, false);
        let working = in_turn(&timed, 3, u64::MAX, act);
        let outcome = timed.watch(&mut Unseen, pending(), working).await;
        assert!(
            (27..=33).contains(&outcome.total.tally.acked),
            "{:?}",
            outcome.total.tally
        );

        let counted = Arc::new(Meter::start(Duration::ZERO, None, false));
        let working = in_turn(&counted, 3, 7, act);
        let outcome = counted.watch(&mut Unseen, pending(), working).await;
        assert_eq!((outcome.total.tally.sent, outcome.total.tally.acked), (7, 7));
        assert!((0.29..0.4).contains(&outcome.window_s), "{}", outcome.window_s);
    }
}
