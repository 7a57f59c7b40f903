//! Services of a simulation: one beside each node, all reading and writing the same few registrations, and the twin of one
//! device after the other, below the doors, with and without a version as condition; they send messages to devices too.
//!
//! A service lives in its node's runtime; what it asked and was told lives here, and outlives every node. What was
//! under way when the node died is not known. Judged by [`crate::invariants::registrations`],
//! [`crate::invariants::twins`] and [`crate::invariants::messages`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use dunlin_model::command::{Command, Consistency, Found, Outcome, Query, Refusal, View};
use dunlin_model::id::DeviceId;
use dunlin_model::identity::{Authentication, Condition, DeviceSpec};
use dunlin_model::port::{ShardClient, SubmitError};
use dunlin_model::routing::{BUILT_IN, EventSource, Route, Routing};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::fleet::Shared;
use super::machine::Life;
use super::messages::message;
use super::plan::Plan;
use crate::workload::access::{Access, Answer, Call};
use crate::workload::exchange::{self, Exchange, Section, Sending};
use crate::workload::operation;

/// Registrations that are fought over at the same time.
const SLOTS: usize = 2;
/// Mean pause of a service between two accesses, in milliseconds.
const PAUSE_MS: u64 = 100;
/// Accesses of a registration before another takes its place.
const ACCESSES_MAX: u32 = 100;
/// Outcomes that are not known before another takes its place: the search tries all of them everywhere.
const UNKNOWN_MAX: u32 = 5;
/// Of a hundred things that a service does, those that are about a twin.
const TWINS_PERCENT: u32 = 40;
/// The same of messages, in runs that have them.
const MESSAGES_PERCENT: u32 = 25;

/// Which registrations are fought over now, the same for all services.
#[derive(Default)]
struct Slot {
    life: u32,
    accesses: u32,
    unknown: u32,
}

impl Slot {
    fn is_over(&self) -> bool {
        self.accesses >= ACCESSES_MAX || self.unknown >= UNKNOWN_MAX
    }
}

/// The registrations and twins of a run.
pub(super) struct Slots {
    registrations: Mutex<[Slot; SLOTS]>,
    /// Its life is the number of the device whose twin it is about.
    twin: Mutex<Slot>,
    /// Devices that have twins to be talked about.
    devices: u32,
    /// Whether the hub is to tell of its own changes.
    announces: bool,
    /// Whether devices are sent messages.
    messages: bool,
}

impl Slots {
    /// Those of a run.
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            announces: plan.announces,
            messages: plan.messages,
            registrations: Mutex::default(),
            twin: Mutex::default(),
            devices: u32::try_from(plan.devices).unwrap_or(u32::MAX),
        }
    }

    fn lock(&self) -> MutexGuard<'_, [Slot; SLOTS]> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn twin(&self) -> MutexGuard<'_, Slot> {
        self.twin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device whose twin is talked about; the access to it is counted. `None` when all have had their turn.
    fn enter_twin(&self) -> Option<String> {
        let mut now = self.twin();
        if now.is_over() {
            *now = Slot {
                life: now.life + 1,
                ..Slot::default()
            };
        }
        now.accesses += 1;
        (now.life < self.devices).then(|| super::fleet::name(now.life as usize))
    }

    /// The device of a slot; the access to it is counted.
    fn enter(&self, slot: usize) -> String {
        let mut slots = self.lock();
        let now = &mut slots[slot];
        if now.is_over() {
            *now = Slot {
                life: now.life + 1,
                ..Slot::default()
            };
        }
        now.accesses += 1;
        format!("contended-{slot}-{}", now.life)
    }
}

/// Something that a service does.
#[derive(Clone)]
enum Deed {
    /// With a registration, and its slot.
    Registration(usize, Access),
    Twin(exchange::Access),
    Message(Sending),
}

/// How it ended.
enum Told {
    Registration(Answer),
    Twin(exchange::Answer),
    Message(operation::Outcome),
}

impl Deed {
    /// What is told when nobody is there to tell.
    fn unknown(&self) -> Told {
        match self {
            Deed::Registration(..) => Told::Registration(Answer::Unknown),
            Deed::Twin(_) => Told::Twin(exchange::Answer::Unknown),
            Deed::Message(_) => Told::Message(operation::Outcome::Unknown),
        }
    }
}

/// What a service did and heard.
struct Book {
    random: StdRng,
    number: u32,
    /// The version that it saw last, by device.
    etags: BTreeMap<String, String>,
    /// The same of twins.
    twin_etags: BTreeMap<String, String>,
    /// What has no answer yet.
    pending: Option<Deed>,
    accesses: Vec<Access>,
    exchanges: Vec<exchange::Access>,
    sendings: Vec<Sending>,
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
                twin_etags: BTreeMap::new(),
                pending: None,
                accesses: Vec::new(),
                exchanges: Vec::new(),
                sendings: Vec::new(),
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
        if let Some(deed) = book.pending.take() {
            let unknown = deed.unknown();
            finish(&mut book, &self.slots, shared, deed, Some(unknown));
        }
    }

    /// Everything that it did with registrations, what is still under way included.
    pub(super) fn accesses(&self) -> Vec<Access> {
        let book = lock(&self.book);
        let mut all = book.accesses.clone();
        if let Some(Deed::Registration(_, access)) = &book.pending
            && access.call != Call::Read
        {
            all.push(access.clone());
        }
        all
    }

    /// Whether nothing that it asked is without an answer.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.book).pending.is_none()
    }

    /// Every message that it sent, what is still under way included.
    pub(super) fn sendings(&self) -> Vec<Exchange> {
        let book = lock(&self.book);
        let mut all = book.sendings.clone();
        if let Some(Deed::Message(sending)) = &book.pending {
            all.push(sending.clone());
        }
        all.into_iter().map(Exchange::Sending).collect()
    }

    /// Everything that it did with twins, what is still under way included.
    pub(super) fn exchanges(&self) -> Vec<Exchange> {
        let book = lock(&self.book);
        let mut all = book.exchanges.clone();
        if let Some(Deed::Twin(access)) = &book.pending
            && access.call != exchange::Call::Read
        {
            all.push(access.clone());
        }
        all.into_iter().map(Exchange::Access).collect()
    }
}

/// Writes down how a deed ended; nothing of one that was not tried, or of a read without an answer.
fn finish(book: &mut Book, slots: &Slots, shared: &Shared, deed: Deed, told: Option<Told>) {
    match (deed, told) {
        (Deed::Registration(slot, access), Some(Told::Registration(answer))) => {
            finish_registration(book, slots, shared, (slot, access), answer);
        }
        (Deed::Twin(access), Some(Told::Twin(answer))) => finish_twin(book, slots, shared, access, answer),
        (Deed::Message(mut sending), Some(Told::Message(outcome))) => {
            sending.completed_us = shared.now_us();
            sending.outcome = outcome;
            let told = crate::oracle::digest(format!("{sending:?}").as_bytes());
            shared.trace.event(sending.completed_us, "sent", &[told]);
            book.sendings.push(sending);
        }
        _ => {}
    }
}

fn finish_twin(
    book: &mut Book,
    slots: &Slots,
    shared: &Shared,
    mut access: exchange::Access,
    answer: exchange::Answer,
) {
    if answer == exchange::Answer::Unknown {
        if access.call == exchange::Call::Read {
            return;
        }
        slots.twin().unknown += 1;
    }
    if let exchange::Answer::Seen { etag: Some(etag), .. } = &answer {
        book.twin_etags.insert(access.device.clone(), etag.clone());
    }
    access.completed_us = shared.now_us();
    access.answer = answer;
    let told = crate::oracle::digest(format!("{access:?}").as_bytes());
    shared.trace.event(access.completed_us, "exchange", &[told]);
    book.exchanges.push(access);
}

fn finish_registration(
    book: &mut Book,
    slots: &Slots,
    shared: &Shared,
    (slot, mut access): (usize, Access),
    answer: Answer,
) {
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

/// Routes that want all events of the hub's own.
fn announcing() -> Routing {
    let route = |source: EventSource| {
        let route = Route {
            source,
            condition: "true".to_owned(),
            endpoints: BTreeSet::from([BUILT_IN.to_owned()]),
            is_enabled: true,
        };
        (format!("{source:?}"), route)
    };
    Routing {
        routes: EventSource::ALL.into_iter().map(route).collect(),
        ..Routing::default()
    }
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
            if !self.client.is_fresh() || self.shared.is_stopped.load(Ordering::Relaxed) {
                continue;
            }
            if self.slots.announces && self.client.directory().routing.announced().is_empty() {
                // Asked for again if it did not come about.
                let _ = self.client.put_routing(announcing(), None).await;
                continue;
            }
            let deed = self.draw();
            lock(&self.book).pending = Some(deed.clone());
            let told = match deed {
                Deed::Registration(_, access) => {
                    let answer = self.ask(&access.device, access.call).await;
                    answer.map(Told::Registration)
                }
                Deed::Twin(access) => {
                    let answer = self.ask_twin(&access.device, access.call).await;
                    answer.map(Told::Twin)
                }
                Deed::Message(sending) => {
                    let outcome = self.send(&sending.device, &sending.id).await;
                    outcome.map(Told::Message)
                }
            };
            let mut book = lock(&self.book);
            if let Some(pending) = book.pending.take() {
                finish(&mut book, &self.slots, &self.shared, pending, told);
            }
        }
    }

    fn draw(&self) -> Deed {
        let mut book = lock(&self.book);
        if self.slots.messages && book.random.random_range(0..100) < MESSAGES_PERCENT {
            return self.draw_message(&mut book);
        }
        let about_twin = book.random.random_range(0..100) < TWINS_PERCENT;
        if about_twin && let Some(device) = self.slots.enter_twin() {
            return self.draw_twin(&mut book, device);
        }
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
        Deed::Registration(slot, access)
    }

    fn draw_message(&self, book: &mut Book) -> Deed {
        book.number += 1;
        let device = book.random.random_range(0..self.slots.devices.max(1));
        let invoked_us = self.shared.now_us();
        Deed::Message(Sending {
            device: super::fleet::name(device as usize),
            id: format!("{}-{}", self.place, book.number),
            invoked_us,
            completed_us: invoked_us,
            outcome: operation::Outcome::Unknown,
        })
    }

    fn draw_twin(&self, book: &mut Book, device: String) -> Deed {
        book.number += 1;
        let value = format!("{}-{}", self.place, book.number);
        let etag = book.twin_etags.get(&device).cloned();
        let call = match (book.random.random_range(0..100), etag) {
            (0..40, _) => exchange::Call::Read,
            (40..80, Some(etag)) => exchange::Call::Swap { etag, value },
            _ => exchange::Call::Write { value },
        };
        let invoked_us = self.shared.now_us();
        Deed::Twin(exchange::Access {
            device,
            section: Section::Desired,
            call,
            invoked_us,
            completed_us: invoked_us,
            answer: exchange::Answer::Unknown,
        })
    }

    /// The answer; `None` if nothing was tried.
    async fn ask_twin(&self, device: &str, call: exchange::Call) -> Option<exchange::Answer> {
        let device = DeviceId::parse(device).ok()?;
        let (value, etag) = match call {
            // Every other service looks through the twins of the shard, rather than for this one.
            exchange::Call::Read if self.place % 2 == 1 => return self.find_twin(device).await,
            exchange::Call::Read => return self.read_twin(device).await,
            exchange::Call::Write { value } => (value, None),
            exchange::Call::Swap { etag, value } => (value, Some(etag.parse().ok()?)),
        };
        let command = Command::TwinChange {
            device,
            tags: None,
            desired: Some(serde_json::json!({ "value": value }).to_string()),
            replaces: false,
            etag,
        };
        match self.client.submit(command).await {
            Ok(Outcome::TwinChanged { .. }) => Some(exchange::Answer::Done { version: None }),
            Ok(Outcome::Refused(Refusal::VersionMismatch)) => Some(exchange::Answer::Mismatch),
            // Its device is not there yet.
            Ok(Outcome::Refused(Refusal::UnknownDevice)) => None,
            Err(SubmitError::Busy(_) | SubmitError::CutOff | SubmitError::StorageFull) => None,
            Ok(_) | Err(SubmitError::Unknown) => Some(exchange::Answer::Unknown),
        }
    }

    /// How it ended; `None` if nothing was tried.
    async fn send(&self, device: &str, id: &str) -> Option<operation::Outcome> {
        let command = Command::MessageSend {
            device: DeviceId::parse(device).ok()?,
            message: message(id),
        };
        match self.client.submit(command).await {
            Ok(Outcome::MessageQueued { .. }) => Some(operation::Outcome::Ok),
            // Its queue is full, or it is not there yet.
            Ok(Outcome::Refused(_)) => Some(operation::Outcome::Fail),
            Err(SubmitError::Busy(_) | SubmitError::CutOff | SubmitError::StorageFull) => None,
            Ok(_) | Err(SubmitError::Unknown) => Some(operation::Outcome::Unknown),
        }
    }

    async fn read_twin(&self, device: DeviceId) -> Option<exchange::Answer> {
        let asked = self.client.query(Query::Twin(device), Consistency::Linearizable);
        let Ok(View::Twin(Some(view))) = asked.await else {
            return None;
        };
        let twin = view.document().ok()?;
        let value = twin.desired.content.get("value").and_then(|value| value.as_str());
        Some(exchange::Answer::Seen {
            value: value.unwrap_or_default().to_owned(),
            version: twin.desired.version,
            etag: Some(twin.etag.to_string()),
        })
    }

    async fn find_twin(&self, device: DeviceId) -> Option<exchange::Answer> {
        let shard = self.client.shard_of(&device);
        let statement = format!(
            "SELECT etag, properties.desired.value AS value, properties.desired.$version AS version FROM devices \
             WHERE STARTSWITH(deviceId, '{device}') AND LENGTH(deviceId) = {}",
            device.as_str().len()
        );
        let mut after = Bytes::new();
        loop {
            let query = Query::Fleet {
                shard,
                statement: statement.clone(),
                after,
                count_max: 1,
            };
            let asked = self.client.query(query, Consistency::Linearizable);
            let Ok(View::Fleet {
                found: Found::Rows(rows),
                next,
            }) = asked.await
            else {
                return None;
            };
            if let Some(row) = rows.first() {
                let row: serde_json::Value = serde_json::from_str(row).ok()?;
                let etag = BASE64.decode(row["etag"].as_str()?).ok()?;
                return Some(exchange::Answer::Seen {
                    value: row["value"].as_str().unwrap_or_default().to_owned(),
                    version: row["version"].as_u64()?,
                    etag: Some(u64::from_be_bytes(etag.try_into().ok()?).to_string()),
                });
            }
            after = next?;
        }
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
