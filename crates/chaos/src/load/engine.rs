//! The engine: clients on few threads, taken through connecting, warming up, measuring and draining.
//!
//! Each thread has a runtime of its own and its share of the clients; it meets the others only in one
//! recorder, once per burst of messages. The run's own task, which is here, asks the recorders once a
//! second and tells the threads ([`super::worker`]) where the run stands. What a client does is in
//! [`super::publisher`] and `subscriber`; what came of it is put into words in [`super::report`].

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::connection::Stage;
use super::course::Course;
use super::dial::Door;
use super::plan::{Action, Plan, THREADS_MAX};
use super::publisher::{self, Span};
use super::recorder::{Interval, Recorder, Window};
use super::subscriber::Heard;
use super::worker::{Brought, Job, work};
use crate::oracle::DeviceHistory;

/// Time in which every client has to be connected or to have failed once, beyond its own interval.
const SETTLE_WAIT: Duration = Duration::from_secs(60);
/// From the decision to start to the start, so that every thread has heard of it.
const LEAD: Duration = Duration::from_millis(50);
/// Between two intervals.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at what there is no signal for.
const LOOK: Duration = Duration::from_millis(5);
/// Time after the load in which messages that were due and could not leave still do.
const BACKLOG_WAIT: Duration = Duration::from_secs(2);
/// After such a time without a message, what is missing is not on its way to the listener any more.
const SILENCE: Duration = Duration::from_secs(5);

/// Why a run has no figures.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A host that has no address.
    #[error("resolve {host}: {source}")]
    Resolve {
        /// Which.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody was let in.
    #[error("no client is connected: {0}")]
    NoneConnected(String),
    /// A thread or a timer.
    #[error("start the load: {0}")]
    Start(#[from] io::Error),
    /// A thread ended as none should.
    #[error("a thread of the load ended early; that is a defect")]
    Thread,
    /// Options that make no sense together.
    #[error("{0}")]
    Options(String),
}

/// What is told while a run goes on.
pub trait Observer {
    /// The load starts at this time.
    fn starting(&mut self, _at: SystemTime) {}
    /// The measured window begins.
    fn measuring(&mut self) {}
    /// The measured window is over; answers are waited for.
    fn measured(&mut self) {}
    /// An interval is over: a second, and at the end what is left.
    fn interval(&mut self, _row: &Row, _interval: &Interval) {}
}

/// An observer that looks away.
#[derive(Debug, Clone, Copy)]
pub struct Unseen;

impl Observer for Unseen {}

/// One interval in figures.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// Its beginning, in seconds after the start of the load.
    pub from_s: f64,
    /// Its end.
    pub to_s: f64,
    /// Acknowledged, and received, messages per second.
    pub acked_per_s: f64,
    /// See above.
    pub received_per_s: f64,
    /// Latencies in microseconds; 0 without any.
    pub p50_us: u64,
    /// See above.
    pub p99_us: u64,
    /// See above.
    pub max_us: u64,
    /// Connections that were lost in it.
    pub lost: u64,
    /// Connections at its end.
    pub connections: u64,
}

/// What a run brings back.
#[derive(Debug)]
pub struct Outcome {
    /// Everything, summed up.
    pub total: Interval,
    /// Interval by interval.
    pub rows: Vec<Row>,
    /// When the load started.
    pub started: SystemTime,
    /// Seconds of the measured window.
    pub window_s: f64,
    /// Connections made per second, until every client was connected or had failed once.
    pub connects_per_s: f64,
    /// What each client sent and heard, for a comparison.
    pub devices: Vec<DeviceHistory>,
    /// What the listener heard, and whether it is all of it.
    pub(super) heard: (Vec<Heard>, bool),
}

/// Runs a plan to its end, or until `stop` is ready, and tells `observer` on the way.
pub async fn run(
    plan: Plan,
    observer: &mut dyn Observer,
    stop: impl Future<Output = ()>,
) -> Result<Outcome, LoadError> {
    let mut run = Run::start(plan).await?;
    tokio::pin!(stop);
    let mut is_stopped = false;
    tokio::select! {
        settled = run.settle() => settled?,
        () = &mut stop => is_stopped = true,
    }
    if !is_stopped {
        let starting = run.begin();
        observer.starting(run.started());
        let measured = async {
            tokio::time::sleep_until(starting).await;
            run.measure(observer).await;
        };
        tokio::select! {
            () = measured => {}
            () = &mut stop => {}
        }
    }
    run.end(observer).await
}

/// A run, as its own task sees it.
struct Run {
    plan: Arc<Plan>,
    epoch: Instant,
    recorders: Vec<Arc<Mutex<Recorder>>>,
    settled: Arc<AtomicUsize>,
    active: Arc<AtomicUsize>,
    orders: watch::Sender<Stage>,
    brought: Vec<oneshot::Receiver<Brought>>,
    course: Course,
    window: Window,
    start_ns: u64,
    connects_per_s: f64,
}

impl Run {
    async fn start(plan: Plan) -> Result<Self, LoadError> {
        if plan.clients.is_empty() || plan.doors.is_empty() {
            return Err(LoadError::Options(
                "a load needs clients, and somewhere to go".into(),
            ));
        }
        let threads = plan.threads.clamp(1, THREADS_MAX).min(plan.clients.len());
        let mut addresses = Vec::new();
        for door in &plan.doors {
            addresses.push(resolve(door).await?);
        }
        let plan = Arc::new(plan);
        let (epoch, since) = (Instant::now(), SystemTime::now());
        let epoch_us = since
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        let publish = publish_of(&plan, epoch_us).map(Arc::new);
        let (orders, orders_seen) = watch::channel(Stage::default());
        let (settled, active) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(plan.clients.len())),
        );
        let (mut recorders, mut brought) = (Vec::new(), Vec::new());
        for thread in 0..threads {
            let recorder = Arc::new(Mutex::new(Recorder::default()));
            recorders.push(Arc::clone(&recorder));
            let (brought_to, brought_from) = oneshot::channel();
            brought.push(brought_from);
            let clients = (0..).zip(plan.clients.iter().cloned());
            let job = Job {
                publish: publish.clone(),
                addresses: addresses.clone(),
                clients: clients.skip(thread).step_by(threads).collect(),
                listener: plan.listener.clone().filter(|_| thread == 0),
                epoch,
                epoch_us,
                recorder,
                settled: Arc::clone(&settled),
                active: Arc::clone(&active),
                orders: orders_seen.clone(),
                plan: Arc::clone(&plan),
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            std::thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn(move || {
                    let done = LocalSet::new().block_on(&runtime, work(job));
                    // The receiver is gone only if the whole run was given up.
                    let _ = brought_to.send(done);
                })?;
        }
        Ok(Self {
            plan,
            epoch,
            recorders,
            settled,
            active,
            orders,
            brought,
            course: Course::default(),
            window: Window::default(),
            start_ns: 0,
            connects_per_s: 0.0,
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn at(&self, ns: u64) -> Instant {
        self.epoch + Duration::from_nanos(ns)
    }

    /// Waits until every client is connected, or has failed to.
    async fn settle(&mut self) -> Result<(), LoadError> {
        let wanted = self.plan.clients.len() + usize::from(self.plan.listener.is_some());
        let connecting = self
            .plan
            .connect_interval
            .saturating_mul(u32::try_from(wanted).unwrap_or(u32::MAX));
        let deadline = self.epoch + connecting + SETTLE_WAIT;
        while self.settled.load(Ordering::Relaxed) < wanted && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        self.add();
        let total = &self.course.total;
        self.connects_per_s = total.tally.connected as f64 / self.epoch.elapsed().as_secs_f64();
        if total.tally.connected == 0 {
            let reasons = total
                .reasons
                .iter()
                .map(|(why, count)| format!("{why} ({count} times)"));
            let why = reasons.collect::<Vec<_>>().join("; ");
            return Err(LoadError::NoneConnected(if why.is_empty() {
                "no answer".into()
            } else {
                why
            }));
        }
        Ok(())
    }

    /// Sets the start, tells everybody, and returns it.
    fn begin(&mut self) -> Instant {
        let wait = self
            .plan
            .start_at
            .and_then(|at| at.duration_since(SystemTime::now()).ok());
        let wait = wait.unwrap_or_default().max(LEAD);
        let ns = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.start_ns = self.now_ns().saturating_add(ns(wait));
        let from_ns = self.start_ns.saturating_add(ns(self.plan.warm_up));
        let to_ns = self
            .plan
            .duration
            .map_or(u64::MAX, |duration| from_ns.saturating_add(ns(duration)));
        self.set_window(Window {
            from_ns,
            to_ns,
            by_due: matches!(
                self.plan.action,
                Action::Publish {
                    schedule: Some(_),
                    ..
                }
            ),
        });
        let span = Span {
            start_ns: self.start_ns,
            end_ns: to_ns,
        };
        self.orders.send_modify(|stage| stage.span = Some(span));
        self.course.begin(self.start_ns);
        self.at(self.start_ns)
    }

    /// The start of the load by the clock on the wall.
    fn started(&self) -> SystemTime {
        let since = self.epoch.elapsed();
        SystemTime::now() - since + Duration::from_nanos(self.start_ns)
    }

    fn set_window(&mut self, window: Window) {
        self.window = window;
        for recorder in &self.recorders {
            recorder
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .set_window(window);
        }
    }

    /// Goes on until the window is over or nobody has anything left to do.
    async fn measure(&mut self, observer: &mut dyn Observer) {
        let mut has_told = false;
        let mut next = self.at(self.start_ns) + TICK;
        loop {
            let now_ns = self.now_ns();
            if !has_told && now_ns >= self.window.from_ns {
                observer.measuring();
                has_told = true;
            }
            if now_ns >= self.window.to_ns || self.active.load(Ordering::Relaxed) == 0 {
                return;
            }
            if Instant::now() >= next {
                self.interval(observer);
                next += TICK;
            }
            let mut until = next.min(Instant::now() + LOOK);
            if !has_told {
                until = until.min(self.at(self.window.from_ns));
            }
            if self.window.to_ns != u64::MAX {
                until = until.min(self.at(self.window.to_ns));
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// What came since the last time.
    fn take(&self) -> Interval {
        let mut interval = Interval::default();
        for recorder in &self.recorders {
            interval.add(&recorder.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        interval
    }

    /// Adds what came since the last time, without an interval of its own.
    fn add(&mut self) {
        let interval = self.take();
        self.course.total.add(&interval);
    }

    fn interval(&mut self, observer: &mut dyn Observer) {
        let now_ns = self.now_ns();
        let interval = self.take();
        self.course.close(now_ns, &interval, observer);
    }

    /// Waits for what was acknowledged and is on its way to the listener.
    async fn hear_out(&mut self, until: Instant) {
        let (mut received, mut since) = (0, Instant::now());
        while self.plan.listener.is_some() && Instant::now() < until {
            self.add();
            let tally = &self.course.total.tally;
            if tally.received >= tally.acked || since.elapsed() >= SILENCE {
                return;
            }
            if tally.received > received {
                (received, since) = (tally.received, Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops sending, waits for answers, and gathers everything.
    async fn end(mut self, observer: &mut dyn Observer) -> Result<Outcome, LoadError> {
        let end_ns = self.now_ns().min(self.window.to_ns);
        if self.window.to_ns > end_ns {
            self.set_window(Window {
                to_ns: end_ns,
                ..self.window
            });
        }
        observer.measured();
        self.interval(observer);
        let drain_until = Instant::now() + self.plan.drain;
        self.orders.send_modify(|stage| {
            stage.is_draining = true;
            if let Some(span) = &mut stage.span {
                span.end_ns = span.end_ns.min(end_ns);
            }
        });
        let mut next = Instant::now() + TICK;
        let closing = Instant::now() + BACKLOG_WAIT;
        while self.active.load(Ordering::Relaxed) > 0 && Instant::now() < drain_until {
            tokio::time::sleep(LOOK).await;
            if Instant::now() >= closing && !self.orders.borrow().is_closed {
                self.orders.send_modify(|stage| stage.is_closed = true);
            }
            if Instant::now() >= next {
                self.interval(observer);
                next += TICK;
            }
        }
        self.hear_out(drain_until).await;
        self.orders.send_modify(|stage| stage.is_over = true);
        let mut all = Brought::default();
        for brought in std::mem::take(&mut self.brought) {
            let brought = brought.await.map_err(|_| LoadError::Thread)?;
            all.devices.extend(brought.devices);
            all.heard = all.heard.or(brought.heard);
        }
        self.interval(observer);
        all.devices.sort_by_key(|(index, _)| *index);
        let window_ns = end_ns.saturating_sub(self.window.from_ns);
        let started = self.started();
        Ok(Outcome {
            total: self.course.total,
            rows: self.course.rows,
            started,
            window_s: window_ns as f64 / 1e9,
            connects_per_s: self.connects_per_s,
            devices: all.devices.into_iter().map(|(_, device)| device).collect(),
            heard: all.heard.unwrap_or_default(),
        })
    }
}

async fn resolve(door: &Door) -> Result<SocketAddr, LoadError> {
    let failed = |source| LoadError::Resolve {
        host: door.address(),
        source,
    };
    let mut found = tokio::net::lookup_host(door.address()).await.map_err(failed)?;
    found
        .next()
        .ok_or_else(|| failed(io::Error::from(io::ErrorKind::NotFound)))
}

fn publish_of(plan: &Plan, epoch_us: u64) -> Option<publisher::Publish> {
    let Action::Publish {
        qos,
        window,
        schedule,
        content,
        ..
    } = &plan.action
    else {
        return None;
    };
    Some(publisher::Publish {
        version: plan.version,
        qos: *qos,
        window: *window,
        pace: schedule.map_or(publisher::Pace::Closed(u64::MAX), publisher::Pace::Open),
        content: content.clone(),
        epoch_us,
        keeps_history: plan.keeps_history,
    })
}
