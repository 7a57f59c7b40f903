//! What tasks count together, for loads that are no clients of this program's own engine: services, devices that register,
//! consumers of Kafka.
//!
//! A task says when something begins and how it ended; what that counts as is decided here, as in
//! [`super::recorder`]. What never ended is counted when all is over. When things begin is decided in [`super::pace`]. What
//! comes of it is an [`Outcome`] like that of [`super::engine`], so that the same figures are made of both.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use dunlin_gateway::client::ClientError;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::course::Course;
use super::engine::{Observer, Outcome};
use super::recorder::{Recorder, Window};
use super::schedule::Schedule;

/// Between two intervals.
const TICK: Duration = Duration::from_secs(1);
/// What is said of what never ended.
const GIVEN_UP: &str = "no answer when the load was over";

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It was done.
    Done,
    /// It was not, for somebody said no in these words.
    Refused(String),
    /// There is no answer; it may have been done all the same.
    Unknown(String),
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        let why = error.to_string();
        match error {
            ClientError::Refused(_) => End::Refused(why),
            _ => End::Unknown(why),
        }
    }
}

/// Something that has begun and not ended.
#[derive(Debug)]
#[must_use]
pub(super) struct Ticket(u64);

#[derive(Debug)]
struct Counted {
    recorder: Recorder,
    /// What has begun and not ended, with when it was intended to begin.
    open: BTreeMap<u64, u64>,
    next: u64,
}

/// See the head of this file. Times are nanoseconds since its beginning, which is that of the load.
#[derive(Debug)]
pub(super) struct Meter {
    epoch: Instant,
    started: SystemTime,
    window: Window,
    counted: Mutex<Counted>,
}

impl Meter {
    /// A load that starts now. Without a duration its measured window ends when it does; `by_due` says that there is a
    /// schedule.
    pub(super) fn start(warm_up: Duration, duration: Option<Duration>, by_due: bool) -> Self {
        let ns = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let from_ns = ns(warm_up);
        let to_ns = duration.map_or(u64::MAX, |duration| from_ns.saturating_add(ns(duration)));
        let window = Window {
            from_ns,
            to_ns,
            by_due,
        };
        let mut recorder = Recorder::default();
        recorder.set_window(window);
        Self {
            epoch: Instant::now(),
            started: SystemTime::now(),
            window,
            counted: Mutex::new(Counted {
                recorder,
                open: BTreeMap::new(),
                next: 0,
            }),
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn at(&self, ns: u64) -> Instant {
        self.epoch + Duration::from_nanos(ns)
    }

    /// When nothing begins any more, if that is known.
    pub(super) fn ends(&self) -> Option<Instant> {
        (self.window.to_ns != u64::MAX).then(|| self.at(self.window.to_ns))
    }

    /// Whether nothing is to begin any more.
    pub(super) fn is_over(&self) -> bool {
        self.now_ns() >= self.window.to_ns
    }

    /// When the load's `number`th (from 0) is due; `None` behind its end.
    pub(super) fn due_ns(&self, schedule: &Schedule, number: u64) -> Option<u64> {
        schedule
            .at_ns(number)
            .filter(|due_ns| *due_ns < self.window.to_ns)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something begins that was intended for `intended_ns`.
    pub(super) fn begin(&self, intended_ns: u64) -> Ticket {
        let mut counted = self.counted();
        let number = counted.next;
        counted.next += 1;
        counted.open.insert(number, intended_ns);
        counted.recorder.sent(1);
        Ticket(number)
    }

    /// It has ended. What was given up before is counted already.
    pub(super) fn end(&self, ticket: Ticket, end: End) {
        let now_ns = self.now_ns();
        let mut counted = self.counted();
        let Some(intended_ns) = counted.open.remove(&ticket.0) else {
            return;
        };
        match end {
            End::Done => counted.recorder.acked(now_ns, intended_ns),
            End::Refused(why) => counted.recorder.refused(&why),
            End::Unknown(why) => counted.recorder.unanswered(now_ns, intended_ns, &why),
        }
    }

    /// Counts with its age what has not ended by now.
    pub(super) fn give_up(&self) {
        let now_ns = self.now_ns();
        let mut counted = self.counted();
        for intended_ns in std::mem::take(&mut counted.open).into_values() {
            counted.recorder.unanswered(now_ns, intended_ns, GIVEN_UP);
        }
    }

    /// Counts with its age what was due from the `number`th on, and will not begin.
    pub(super) fn skip_from(&self, schedule: &Schedule, number: u64) {
        let now_ns = self.now_ns();
        let mut counted = self.counted();
        for due_ns in (number..).map_while(|number| self.due_ns(schedule, number)) {
            counted.recorder.unsent(now_ns, due_ns);
        }
    }

    /// Something that came without having been asked for one by one, and how long it was on its way, if that is known.
    pub(super) fn received(&self, latencies_us: impl IntoIterator<Item = Option<u64>>) {
        let now_ns = self.now_ns();
        let mut counted = self.counted();
        for latency_us in latencies_us {
            counted.recorder.received(now_ns, latency_us);
        }
    }

    /// Somebody said no.
    pub(super) fn refused(&self, why: &str) {
        self.counted().recorder.refused(why);
    }

    /// Tells `observer` once a second what `working` counts, until it is done or `stop` is ready, and gives up what has not
    /// ended then.
    pub(super) async fn watch(
        &self,
        observer: &mut dyn Observer,
        stop: impl Future<Output = ()>,
        working: impl Future<Output = ()>,
    ) -> Outcome {
        let mut course = Course::default();
        course.begin(0);
        observer.starting(self.started);
        let mut ticks = interval_at(self.epoch + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        {
            // What works ends with this block, so that nothing ends any more once it was given up.
            let mut working = pin!(working);
            let mut stop = pin!(stop);
            loop {
                tokio::select! {
                    () = &mut working => break,
                    () = &mut stop => break,
                    _ = ticks.tick() => self.interval(&mut course, observer),
                }
            }
        }
        self.give_up();
        self.interval(&mut course, observer);
        let end_ns = self.now_ns().min(self.window.to_ns);
        Outcome {
            total: course.total,
            rows: course.rows,
            started: self.started,
            window_s: end_ns.saturating_sub(self.window.from_ns) as f64 / 1e9,
            connects_per_s: 0.0,
            devices: Vec::new(),
            heard: Default::default(),
        }
    }

    fn interval(&self, course: &mut Course, observer: &mut dyn Observer) {
        let interval = self.counted().recorder.take();
        course.close(self.now_ns(), &interval, observer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::engine::Unseen;

    #[test]
    fn each_end_is_counted_as_what_it_is() {
        let meter = Meter::start(Duration::ZERO, None, true);
        for end in [
            End::Done,
            End::Refused("429".to_owned()),
            End::Unknown("no answer in time".to_owned()),
        ] {
            let ticket = meter.begin(meter.now_ns());
            meter.end(ticket, end);
        }
        let late = meter.begin(0);
        meter.give_up();
        meter.end(late, End::Done);
        let interval = meter.counted().recorder.take();
        let tally = interval.tally;
        assert_eq!(
            (tally.sent, tally.acked, tally.refused, tally.unacked),
            (4, 1, 1, 2),
            "what was given up does not count twice"
        );
        let reasons: Vec<&str> = interval.reasons.keys().map(String::as_str).collect();
        assert_eq!(reasons, ["429", "no answer in time", GIVEN_UP]);
        // A refusal takes no time; whatever has no answer took as long as it is old.
        assert_eq!(interval.latency_us.len(), 3);
    }

    #[test]
    fn what_came_is_counted_and_measured_where_that_is_known() {
        let meter = Meter::start(Duration::ZERO, None, false);
        meter.received([Some(7), None]);
        let interval = meter.counted().recorder.take();
        assert_eq!((interval.tally.received, interval.latency_us.len()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_told_second_by_second_and_its_window_ends_with_it() {
        let meter = Meter::start(Duration::from_secs(1), None, false);
        let working = async {
            for _ in 0..5 {
                let ticket = meter.begin(meter.now_ns());
                tokio::time::sleep(Duration::from_millis(700)).await;
                meter.end(ticket, End::Done);
            }
        };
        let outcome = meter.watch(&mut Unseen, std::future::pending(), working).await;
        let tally = outcome.total.tally;
        // The first was done before the window.
        assert_eq!((tally.acked, tally.acked_in_window), (5, 4));
        assert_eq!(outcome.rows.len(), 4, "3.5 s: {:?}", outcome.rows);
        assert!((2.4..2.6).contains(&outcome.window_s), "{}", outcome.window_s);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_stopped_says_what_there_is_by_then() {
        let meter = Meter::start(Duration::ZERO, Some(Duration::from_secs(60)), false);
        let _open = meter.begin(0);
        let stop = tokio::time::sleep(Duration::from_secs(2));
        let outcome = meter.watch(&mut Unseen, stop, std::future::pending()).await;
        assert_eq!(outcome.total.tally.unacked, 1);
        assert!((1.9..2.1).contains(&outcome.window_s), "{}", outcome.window_s);
    }
}
