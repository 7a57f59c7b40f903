//! Services of a simulation: one beside each node, all reading and writing the same few registrations, below the
//! doors, with and without a version as condition.
//!
//! A service lives in its node's runtime; what it asked and was told lives here, and outlives every node. What was
//! under way when the node died is not known. Judged by [`crate::invariants::registrations`].

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_model::command::{Command, Consistency, Outcome, Query, Refusal, View};
use dunlin_model::id::DeviceId;
use dunlin_model::identity::{Authentication, Condition, DeviceSpec};
use dunlin_model::port::{ShardClient, SubmitError};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::fleet::Shared;
use super::machine::Life;
use crate::workload::access::{Access, Answer, Call};

/// Registrations that are fought over at the same time.
const SLOTS: usize = 2;
/// Mean pause of a service between two accesses, in milliseconds.
const PAUSE_MS: u64 = 100;
/// Accesses of a registration before another takes its place.
const ACCESSES_MAX: u32 = 100;
/// Outcomes that are not known before another takes its place: the search tries all of them everywhere.
const UNKNOWN_MAX: u32 = 5;

/// Which registrations are fought over now, the same for all services.
#[derive(Default)]
struct Slot {
    life: u32,
    accesses: u32,
    unknown: u32,
}

/// The registrations of a run.
#[derive(Default)]
pub(super) struct Slots(Mutex<[Slot; SLOTS]>);

impl Slots {
    fn lock(&self) -> MutexGuard<'_, [Slot; SLOTS]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device of a slot; the access to it is counted.
    fn enter(&self, slot: usize) -> String {
        let mut slots = self.lock();
        let now = &mut slots[slot];
        if now.accesses >= ACCESSES_MAX || now.unknown >= UNKNOWN_MAX {
            *now = Slot {
                life: now.life + 1,
                ..Slot::default()
            };
        }
        now.accesses += 1;
        format!("contended-{slot}-{}", now.life)
    }
}

/// What a service did and heard.
struct Book {
    random: StdRng,
    number: u32,
    /// The version that it saw last, by device.
    etags: BTreeMap<String, String>,
    /// What has no answer yet, and its slot.
    pending: Option<(usize, Access)>,
    accesses: Vec<Access>,
}

/// A service.
pub(super) struct Service {
    place: usize,
    book: Arc<Mutex<Book>>,
    slots: Arc<Slots>,
    task: Option<tokio::task::JoinHandle<()>>,
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    pub(super) fn new(place: usize, seed: u64, slots: &Arc<Slots>) -> Self {
        Self {
            place,
            book: Arc::new(Mutex::new(Book {
                random: StdRng::seed_from_u64(seed),
                number: 0,
                etags: BTreeMap::new(),
                pending: None,
                accesses: Vec::new(),
            })),
            slots: slots.clone(),
            task: None,
        }
    }

    /// Runs beside its node, as long as there is one.
    pub(super) fn follow(&mut self, life: Option<&Life>, shared: &Arc<Shared>) {
        match (life, &self.task) {
            (Some(life), None) => {
                let client = Client {
                    place: self.place,
                    client: life.client.clone(),
                    book: self.book.clone(),
                    slots: self.slots.clone(),
                    shared: shared.clone(),
                };
                self.task = Some(life.runtime.spawn(client.run()));
            }
            (None, Some(_)) => self.end(shared),
            _ => {}
        }
    }

    /// Its node is gone: what was under way may have happened.
    fn end(&mut self, shared: &Shared) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        let mut book = lock(&self.book);
        if let Some((slot, access)) = book.pending.take() {
            finish(
                &mut book,
                &self.slots,
                shared,
                (slot, access),
                Some(Answer::Unknown),
            );
        }
    }

    /// Everything that it did, what is still under way included.
    pub(super) fn accesses(&self) -> Vec<Access> {
        let book = lock(&self.book);
        let pending = book.pending.iter().map(|(_, access)| access);
        let changes = pending.filter(|access| access.call != Call::Read);
        book.accesses.iter().chain(changes).cloned().collect()
    }
}

/// Writes down how an access ended; nothing of one that was not tried, or of a read without an answer.
fn finish(
    book: &mut Book,
    slots: &Slots,
    shared: &Shared,
    (slot, mut access): (usize, Access),
    answer: Option<Answer>,
) {
    let Some(answer) = answer else { return };
    if answer == Answer::Unknown {
        if access.call == Call::Read {
            return;
        }
        slots.lock()[slot].unknown += 1;
    }
    if let Answer::There { etag, .. } = &answer {
        book.etags.insert(access.device.clone(), etag.clone());
    }
    access.completed_us = shared.now_us();
    access.answer = answer;
    let told = crate::oracle::digest(format!("{access:?}").as_bytes());
    shared.trace.event(access.completed_us, "access", &[told]);
    book.accesses.push(access);
}

/// A service as its node runs it.
struct Client {
    place: usize,
    client: Arc<dyn ShardClient>,
    book: Arc<Mutex<Book>>,
    slots: Arc<Slots>,
    shared: Arc<Shared>,
}

impl Client {
    async fn run(self) {
        while !self.shared.is_stopped.load(Ordering::Relaxed) {
            let pause_ms = lock(&self.book)
                .random
                .random_range(PAUSE_MS / 2..PAUSE_MS * 3 / 2);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            // As a door does, which admits nobody while it has lost sight of the directory.
            if !self.client.is_fresh() {
                continue;
            }
            let (slot, access) = self.draw();
            let (device, call) = (access.device.clone(), access.call.clone());
            lock(&self.book).pending = Some((slot, access));
            let answer = self.ask(&device, call).await;
            let mut book = lock(&self.book);
            if let Some(pending) = book.pending.take() {
                finish(&mut book, &self.slots, &self.shared, pending, answer);
            }
        }
    }

    fn draw(&self) -> (usize, Access) {
        let mut book = lock(&self.book);
        let slot = book.random.random_range(0..SLOTS);
        let device = self.slots.enter(slot);
        book.number += 1;
        let value = format!("{}-{}", self.place, book.number);
        let Book { random, etags, .. } = &mut *book;
        let call = Call::draw(random, etags.get(&device).map(String::as_str), value);
        let invoked_us = self.shared.now_us();
        let access = Access {
            device,
            writer: self.place,
            call,
            node: self.place,
            invoked_us,
            completed_us: invoked_us,
            answer: Answer::Unknown,
        };
        (slot, access)
    }

    /// The answer; `None` if nothing was tried.
    async fn ask(&self, device: &str, call: Call) -> Option<Answer> {
        let device = DeviceId::parse(device).ok()?;
        let condition = match &call {
            Call::Read => return self.read(device).await,
            Call::Create { .. } => Condition::Absent,
            Call::Replace { .. } | Call::Delete => Condition::Present,
            Call::Swap { etag, .. } => Condition::Version(etag.parse().ok()?),
        };
        let command = match call {
            Call::Create { value } | Call::Replace { value } | Call::Swap { value, .. } => {
                Command::DevicePut {
                    device,
                    spec: DeviceSpec {
                        status_reason: Some(value),
                        ..DeviceSpec::enabled(Authentication::None)
                    },
                    condition,
                }
            }
            Call::Read | Call::Delete => Command::DeviceDelete { device, condition },
        };
        match self.client.submit(command).await {
            Ok(Outcome::Stored(record)) => Some(Answer::There {
                value: record.spec.status_reason.unwrap_or_default(),
                etag: record.version.to_string(),
            }),
            Ok(Outcome::Done) => Some(Answer::Deleted),
            Ok(Outcome::Refused(Refusal::UnknownDevice)) => Some(Answer::Missing),
            Ok(Outcome::Refused(Refusal::AlreadyExists)) => Some(Answer::Exists),
            Ok(Outcome::Refused(Refusal::VersionMismatch)) => Some(Answer::Mismatch),
            Err(SubmitError::Busy(_) | SubmitError::CutOff | SubmitError::StorageFull) => None,
            Ok(_) | Err(SubmitError::Unknown) => Some(Answer::Unknown),
        }
    }

    async fn read(&self, device: DeviceId) -> Option<Answer> {
        let asked = self
            .client
            .query(Query::Device(device), Consistency::Linearizable);
        match asked.await {
            Ok(View::Device(Some(view))) => Some(Answer::There {
                value: view.record.spec.status_reason.unwrap_or_default(),
                etag: view.record.version.to_string(),
            }),
            Ok(View::Device(None)) => Some(Answer::Missing),
            _ => None,
        }
    }
}
