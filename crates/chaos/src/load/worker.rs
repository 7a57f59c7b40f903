//! One thread of a load: its clients, the pacer that wakes them when a message is due, and what it brings
//! back.
//!
//! It meets the run's own task ([`super::engine`]) in a recorder and in the stage that it is told. A
//! client's task is [`super::connection`]; its machine outlives it, so that nothing is forgotten when a
//! task is ended.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::{self, Common, Machine, Seat, Stage};
use super::plan::{Action, Client, Listener, Plan};
use super::publisher::{self, Publisher, Span};
use super::recorder::Recorder;
use super::subscriber::{Heard, Subscriber};
use super::timer::Timer;
use crate::oracle::DeviceHistory;

/// Connects of one thread at a time.
const CONNECTS_AT_A_TIME: usize = 64;
/// The pacer gathers what is due within such a time, so that it does not wake for each message.
const PACE_NS_MIN: u64 = 50_000;
/// Time in which tasks end by themselves once all is over.
const ENDING: Duration = Duration::from_millis(50);

/// What the run tells its threads.
pub(super) type Orders = watch::Receiver<Stage>;

/// What a thread is given.
pub(super) struct Job {
    pub(super) plan: Arc<Plan>,
    pub(super) publish: Option<Arc<publisher::Publish>>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) clients: Vec<(u64, Client)>,
    pub(super) listener: Option<Listener>,
    pub(super) epoch: Instant,
    pub(super) epoch_us: u64,
    pub(super) recorder: Arc<Mutex<Recorder>>,
    pub(super) settled: Arc<AtomicUsize>,
    /// Clients, the listener aside, that have something left to do.
    pub(super) active: Arc<AtomicUsize>,
    pub(super) orders: Orders,
}

/// What a thread brings back.
#[derive(Default)]
pub(super) struct Brought {
    pub(super) devices: Vec<(u64, DeviceHistory)>,
    pub(super) heard: Option<(Vec<Heard>, bool)>,
}

/// What a thread does, from the first connect to the last answer.
pub(super) async fn work(mut job: Job) -> Brought {
    let common = Rc::new(Common {
        plan: Arc::clone(&job.plan),
        addresses: job.addresses.clone(),
        epoch: job.epoch,
        stage: Cell::new(Stage::default()),
        recorder: Arc::clone(&job.recorder),
        connects: Semaphore::new(CONNECTS_AT_A_TIME),
        settled: Arc::clone(&job.settled),
    });
    let seats = seats(&mut job);
    let mut tasks = JoinSet::new();
    for (place, seat) in &seats {
        let (seat, common, place) = (Rc::clone(seat), Rc::clone(&common), *place);
        let active = (!seat.is_listener).then(|| Arc::clone(&job.active));
        tasks.spawn_local(async move {
            connection::run(seat, common, place).await;
            if let Some(active) = active {
                active.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }
    let mut pacing = JoinSet::new();
    loop {
        tokio::select! {
            changed = job.orders.changed() => {
                if changed.is_err() {
                    break;
                }
                let stage = *job.orders.borrow_and_update();
                let is_first = common.stage.replace(stage).span.is_none();
                for (_, seat) in &seats {
                    seat.wake.notify_one();
                }
                if stage.is_over {
                    break;
                }
                if let (true, Some(span)) = (is_first, stage.span) {
                    pacing.spawn_local(pace(seats.clone(), Rc::clone(&common), span));
                }
            }
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
    // Most end by themselves once they are told; the others have had their time.
    let ending = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(ENDING, ending).await;
    tasks.shutdown().await;
    pacing.shutdown().await;
    gather(seats, &common)
}

fn seats(job: &mut Job) -> Vec<(u64, Rc<Seat>)> {
    let mut seats = Vec::with_capacity(job.clients.len() + 1);
    for (place, client) in std::mem::take(&mut job.clients) {
        let machine = match (&job.plan.action, &job.publish) {
            (
                Action::Publish {
                    count_max, clients, ..
                },
                Some(publish),
            ) => {
                let publish = match (publish.pace, count_max) {
                    (publisher::Pace::Closed(_), Some(count_max)) => {
                        let own = super::schedule::share_of(*count_max, *clients, client.index);
                        Arc::new(publisher::Publish {
                            pace: publisher::Pace::Closed(own),
                            ..(**publish).clone()
                        })
                    }
                    _ => Arc::clone(publish),
                };
                let (id, topic) = (client.id.clone(), client.topic.clone());
                Machine::Publish(Publisher::new(publish, client.index, id, topic))
            }
            (Action::Subscribe { qos }, _) => Machine::Subscribe(Subscriber::new(
                job.plan.version,
                client.topic.filter(),
                *qos,
                job.epoch_us,
            )),
            _ => Machine::Idle,
        };
        seats.push((place, Rc::new(Seat::new(client, machine, false))));
    }
    if let Some(Listener { client, writer }) = job.listener.take() {
        let subscriber = Subscriber::new(job.plan.version, client.topic.filter(), 1, job.epoch_us);
        let machine = Machine::Subscribe(subscriber.keeping(&writer));
        seats.push((0, Rc::new(Seat::new(client, machine, true))));
    }
    seats
}

/// Wakes each client when a message of its own is due.
async fn pace(seats: Vec<(u64, Rc<Seat>)>, common: Rc<Common>, span: Span) {
    let Action::Publish {
        schedule: Some(schedule),
        ..
    } = common.plan.action
    else {
        return wake_all_at(&seats, &common, span.start_ns).await;
    };
    let mut seats: Vec<Rc<Seat>> = seats.into_iter().map(|(_, seat)| seat).collect();
    seats.retain(|seat| !seat.is_listener);
    // In this order messages of one round are due one after the other.
    seats.sort_by_key(|seat| seat.client.index);
    let mut timer = match Timer::new() {
        Ok(timer) => timer,
        Err(error) => {
            tracing::error!(%error, "no timer, no load");
            return;
        }
    };
    let (mut round, mut place) = (0, 0);
    loop {
        let now_ns = common.now_ns();
        let next_ns = loop {
            let due_ns = match schedule.due_ns(seats[place].client.index, round) {
                Some(due_ns) => due_ns + span.start_ns,
                None => return,
            };
            if due_ns > now_ns {
                break due_ns;
            }
            seats[place].wake.notify_one();
            place += 1;
            if place == seats.len() {
                (round, place) = (round + 1, 0);
            }
        };
        if next_ns >= span.end_ns {
            return;
        }
        let until_ns = next_ns.max(now_ns + PACE_NS_MIN);
        let wait = Duration::from_nanos(until_ns.saturating_sub(common.now_ns()));
        if let Err(error) = timer.sleep(wait).await {
            tracing::error!(%error, "the timer fails, the load ends");
            return;
        }
    }
}

async fn wake_all_at(seats: &[(u64, Rc<Seat>)], common: &Common, ns: u64) {
    tokio::time::sleep_until(common.epoch + Duration::from_nanos(ns)).await;
    // The runtime's timer may be early by a fraction of its step.
    while common.now_ns() < ns {
        tokio::task::yield_now().await;
    }
    for (_, seat) in seats {
        seat.wake.notify_one();
    }
}

/// Counts what was given up and takes the histories out.
fn gather(seats: Vec<(u64, Rc<Seat>)>, common: &Common) -> Brought {
    let mut brought = Brought::default();
    let (now_ns, span) = (common.now_ns(), common.stage.get().span);
    for (_, seat) in seats {
        let machine = seat.machine.replace(Machine::Idle);
        match machine {
            Machine::Publish(mut publisher) => {
                if let Some(span) = span {
                    publisher.give_up(now_ns, span, &mut common.recorder());
                }
                if common.plan.keeps_history {
                    let (device, messages) = publisher.into_history();
                    let connections = seat.connections.take();
                    brought.devices.push((
                        seat.client.index,
                        DeviceHistory {
                            gave_up_us: None,
                            device,
                            messages,
                            connections,
                        },
                    ));
                }
            }
            Machine::Subscribe(subscriber) if seat.is_listener => {
                brought.heard = Some(subscriber.into_heard());
            }
            Machine::Subscribe(_) | Machine::Idle => {}
        }
    }
    brought
}
