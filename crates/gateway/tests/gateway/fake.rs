//! A cluster in memory behind the doors: one log per shard, acknowledgements that a test can hold back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use dunlin_model::command::{
    Command, Consistency, DeviceView, Outcome, Query, ReadFrom, Receipt, Refusal, ShardView, TelemetryAck,
    TwinView, View,
};
use dunlin_model::device::desired_downlink;
use dunlin_model::directory::{DEFAULT_POLICIES, Directory, Policy};
use dunlin_model::id::{DeviceId, NodeId, ShardId, StreamId};
use dunlin_model::identity::{
    Condition, DeviceRecord, DeviceSpec, DeviceStatus, SessionRecord, SymmetricKeys,
};
use dunlin_model::port::{
    AckSink, BoxFuture, Downlink, DownlinkKind, DownlinkSink, EventPage, EventRun, QueryError, SessionEnd,
    ShardClient, SubmitError,
};
use dunlin_model::telemetry::{Record, Source};
use dunlin_model::twin::Twin;
use dunlin_model::wire::Reader;
use tokio::sync::watch;

/// Key of every device and policy here: Base64 of bytes 0 to 31.
pub(crate) const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub(crate) const OTHER_KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
const SHARDS: u32 = 4;

struct Held {
    sink: Arc<dyn AckSink>,
    token: u64,
    record: Bytes,
}

#[derive(Default)]
struct State {
    devices: BTreeMap<DeviceId, DeviceRecord>,
    sessions: HashMap<DeviceId, SessionRecord>,
    twins: BTreeMap<DeviceId, Twin>,
    logs: Vec<Vec<EventRun>>,
    next_generation: u64,
    hold: bool,
    held: VecDeque<Held>,
    busy: bool,
    storage_full: bool,
    cut_off: bool,
    silent: bool,
    loses_downlinks: bool,
    commands: Vec<Command>,
}

pub(crate) struct FakeCluster {
    state: Mutex<State>,
    directory: Arc<Directory>,
    downlinks: Mutex<Option<Arc<dyn DownlinkSink>>>,
    /// Rises with every change, so that tests wait without sleeping.
    changes: watch::Sender<u64>,
}

impl FakeCluster {
    /// Whether doors have asked for what goes down to devices.
    pub(crate) fn is_attached(&self) -> bool {
        self.downlinks.lock().unwrap().is_some()
    }

    /// What goes down to devices is lost from now on, or no longer.
    pub(crate) fn lose_downlinks(&self, lose: bool) {
        self.lock().loses_downlinks = lose;
    }

    pub(crate) fn new() -> Arc<Self> {
        let mut directory = Directory {
            cluster_id: "fake".into(),
            shard_count: SHARDS,
            log_epoch: 1,
            ..Directory::default()
        };
        for (name, rights) in DEFAULT_POLICIES {
            let keys = SymmetricKeys {
                primary: KEY.into(),
                secondary: OTHER_KEY.into(),
            };
            directory.policies.insert(
                (*name).to_owned(),
                Policy {
                    keys,
                    rights: rights.to_vec(),
                },
            );
        }
        let state = State {
            logs: vec![Vec::new(); SHARDS as usize],
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            directory: Arc::new(directory),
            downlinks: Mutex::default(),
            changes: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut(&State) -> bool) {
        let mut changes = self.changes.subscribe();
        let waiting = async {
            while !is_so(&self.lock()) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), waiting)
            .await
            .unwrap_or_else(|_| panic!("{what}"));
    }

    pub(crate) fn add_device(&self, id: &str) -> DeviceId {
        let device = DeviceId::parse(id).unwrap();
        let keys = SymmetricKeys {
            primary: KEY.into(),
            secondary: OTHER_KEY.into(),
        };
        let spec = DeviceSpec {
            status: DeviceStatus::Enabled,
            status_reason: None,
            keys,
        };
        self.apply(Command::DevicePut {
            device: device.clone(),
            spec,
            condition: Condition::Absent,
        });
        device
    }

    pub(crate) fn disable(&self, device: &DeviceId) {
        let mut spec = self.lock().devices[device].spec.clone();
        spec.status = DeviceStatus::Disabled;
        self.apply(Command::DevicePut {
            device: device.clone(),
            spec,
            condition: Condition::Any,
        });
    }

    pub(crate) fn hold(&self, hold: bool) {
        self.lock().hold = hold;
    }

    pub(crate) fn set_busy(&self, busy: bool) {
        self.lock().busy = busy;
        self.changed();
    }

    pub(crate) fn set_storage_full(&self, full: bool) {
        self.lock().storage_full = full;
    }

    pub(crate) fn set_cut_off(&self, cut_off: bool) {
        self.lock().cut_off = cut_off;
    }

    /// Commands get no answer (unknown).
    pub(crate) fn set_silent(&self, silent: bool) {
        self.lock().silent = silent;
    }

    pub(crate) async fn until_held(&self, count: usize) {
        self.until("records held", |state| state.held.len() >= count)
            .await;
    }

    pub(crate) async fn until_stored(&self, count: u64) {
        self.until("records stored", |state| stored_count(state) >= count)
            .await;
    }

    /// Waits until `device` has no session held by a gateway.
    pub(crate) async fn until_disconnected(&self, device: &DeviceId) {
        self.until("session closed", |state| {
            state.sessions.get(device).is_some_and(|s| s.held_by.is_none())
        })
        .await;
    }

    /// Stores the first held record, and says so.
    pub(crate) fn release(&self) {
        let held = self.lock().held.pop_front().unwrap();
        let ack = self.store(&held.record);
        held.sink.on_ack(held.token, ack);
    }

    /// Ends the first held record in another way.
    pub(crate) fn release_as(&self, ack: TelemetryAck) {
        let held = self.lock().held.pop_front().unwrap();
        held.sink.on_ack(held.token, ack);
    }

    pub(crate) fn session(&self, device: &DeviceId) -> SessionRecord {
        self.lock().sessions.get(device).cloned().unwrap_or_default()
    }

    pub(crate) fn commands(&self) -> Vec<Command> {
        self.lock().commands.clone()
    }

    /// Stored records of a device, in order.
    pub(crate) fn records(&self, device: &DeviceId) -> Vec<Record> {
        let shard = self.shard_of(device);
        let state = self.lock();
        let decode = |run: &EventRun| Record::decode(&mut Reader::new(run.records.clone())).unwrap();
        let all = state.logs[shard.0 as usize].iter().map(decode);
        all.filter(|record| record.device_str() == device.as_str())
            .collect()
    }

    fn store(&self, bytes: &Bytes) -> TelemetryAck {
        let record = Record::decode(&mut Reader::new(bytes.clone())).unwrap();
        let device = DeviceId::parse(record.device_str()).unwrap();
        let shard = self.shard_of(&device);
        let mut state = self.lock();
        let current = match record.source {
            Source::Http => state.devices.get(&device).map_or(0, |device| device.generation),
            _ => state.sessions.get(&device).map_or(0, |session| session.epoch),
        };
        if record.fence != current {
            return TelemetryAck::Fenced;
        }
        let log = &mut state.logs[shard.0 as usize];
        let offset = log.len() as u64;
        let run = EventRun {
            index: offset,
            term: 7,
            time_ms: 1_000 + offset,
            first_offset: offset,
            count: 1,
            records: bytes.clone(),
        };
        log.push(run);
        drop(state);
        self.changed();
        TelemetryAck::Stored(Receipt {
            shard,
            offset,
            term: 7,
        })
    }

    fn apply(&self, command: Command) -> Outcome {
        let mut ended = None;
        let mut state = self.lock();
        let outcome = self.change(&mut state, command, &mut ended);
        ended = ended.filter(|_| !state.loses_downlinks);
        drop(state);
        if let (Some(downlink), Some(sink)) = (ended, &*self.downlinks.lock().unwrap()) {
            sink.on_downlink(downlink);
        }
        self.changed();
        outcome
    }

    fn change(&self, state: &mut State, command: Command, ended: &mut Option<Downlink>) -> Outcome {
        state.commands.push(command.clone());
        let end = |device: &DeviceId, session: &SessionRecord, why| Downlink {
            device: device.clone(),
            epoch: session.epoch,
            kind: DownlinkKind::SessionEnded(why),
        };
        match command {
            Command::DevicePut {
                device,
                spec,
                condition,
            } => {
                let old = state.devices.get(&device).cloned();
                match (&old, condition) {
                    (Some(_), Condition::Absent) => return Outcome::Refused(Refusal::AlreadyExists),
                    (None, Condition::Present | Condition::Version(_)) => {
                        return Outcome::Refused(Refusal::UnknownDevice);
                    }
                    (Some(old), Condition::Version(version)) if old.version != version => {
                        return Outcome::Refused(Refusal::VersionMismatch);
                    }
                    _ => {}
                }
                let revokes = old.as_ref().is_none_or(|old| {
                    old.spec.keys != spec.keys
                        || (old.spec.status != spec.status && spec.status == DeviceStatus::Disabled)
                });
                if revokes {
                    state.next_generation += 1;
                    if let Some(session) = state.sessions.get_mut(&device) {
                        if session.held_by.take().is_some() {
                            *ended = Some(end(&device, session, SessionEnd::CredentialRevoked));
                        }
                        session.epoch += 1;
                    }
                }
                let generation = if revokes {
                    state.next_generation
                } else {
                    old.as_ref().map_or(0, |old| old.generation)
                };
                let version = old.map_or(1, |old| old.version + 1);
                let record = DeviceRecord {
                    device: device.clone(),
                    spec,
                    version,
                    generation,
                    created_ms: 1,
                    status_changed_ms: 1,
                };
                state.devices.insert(device, record.clone());
                Outcome::Stored(record)
            }
            Command::DeviceDelete { device, condition } => {
                match (state.devices.get(&device), condition) {
                    (None, _) => return Outcome::Refused(Refusal::UnknownDevice),
                    (Some(old), Condition::Version(version)) if old.version != version => {
                        return Outcome::Refused(Refusal::VersionMismatch);
                    }
                    _ => {}
                }
                state.devices.remove(&device);
                if let Some(session) = state.sessions.get_mut(&device) {
                    *ended = Some(end(&device, session, SessionEnd::Deleted));
                    session.epoch += 1;
                    session.held_by = None;
                }
                Outcome::Done
            }
            Command::SessionOpen {
                device,
                generation,
                held_by,
                persistent,
            } => {
                let Some(record) = state.devices.get(&device) else {
                    return Outcome::Refused(Refusal::UnknownDevice);
                };
                if record.generation != generation {
                    return Outcome::Refused(Refusal::StaleGeneration);
                }
                let session = state.sessions.entry(device.clone()).or_default();
                if session.held_by.is_some() {
                    *ended = Some(end(&device, session, SessionEnd::TakenOver));
                }
                let present = persistent && session.persistent && session.epoch > 0;
                if !present {
                    session.subscriptions.clear();
                }
                session.epoch += 1;
                session.held_by = Some(held_by);
                session.persistent = persistent;
                Outcome::SessionOpened {
                    epoch: session.epoch,
                    present,
                    time_ms: 1,
                }
            }
            Command::SessionClose { device, epoch } => {
                let session = state.sessions.entry(device).or_default();
                if session.epoch == epoch {
                    session.held_by = None;
                }
                Outcome::Done
            }
            Command::Subscribe {
                device,
                epoch,
                filters,
            } => {
                let session = state.sessions.entry(device).or_default();
                if session.epoch != epoch {
                    return Outcome::Refused(Refusal::Fenced);
                }
                session.subscriptions.extend(filters);
                Outcome::Done
            }
            Command::Unsubscribe {
                device,
                epoch,
                filters,
            } => {
                let session = state.sessions.entry(device).or_default();
                if session.epoch != epoch {
                    return Outcome::Refused(Refusal::Fenced);
                }
                session
                    .subscriptions
                    .retain(|filter, _| !filters.contains(filter));
                Outcome::Done
            }
            Command::TwinReport {
                device,
                epoch,
                patch,
                version,
            } => {
                if state
                    .sessions
                    .get(&device)
                    .is_none_or(|session| session.epoch != epoch)
                {
                    return Outcome::Refused(Refusal::Fenced);
                }
                let twin = state.twins.entry(device).or_default();
                if version.is_some_and(|version| version != twin.reported.version) {
                    return Outcome::Refused(Refusal::VersionMismatch);
                }
                if !twin.report(&serde_json::from_str(&patch).unwrap(), 1) {
                    return Outcome::Refused(Refusal::TwinTooLarge);
                }
                let version = twin.reported.version;
                Outcome::TwinChanged { version }
            }
            Command::TwinChange {
                device,
                tags,
                desired,
                replaces,
                etag,
            } => {
                if !state.devices.contains_key(&device) {
                    return Outcome::Refused(Refusal::UnknownDevice);
                }
                let twin = state.twins.entry(device.clone()).or_default();
                if etag.is_some_and(|etag| etag != twin.etag) {
                    return Outcome::Refused(Refusal::VersionMismatch);
                }
                let parse = |text: Option<String>| text.map(|text| serde_json::from_str(&text).unwrap());
                let (tags, desired) = (parse(tags), parse(desired));
                let etag = twin.etag + 1;
                if !twin.change((tags.as_ref(), desired.as_ref()), replaces, etag, 1) {
                    return Outcome::Refused(Refusal::TwinTooLarge);
                }
                let (version, change) = (twin.version, twin.recent.last().cloned());
                let session = state.sessions.get(&device);
                *ended = session
                    .filter(|session| session.held_by.is_some())
                    .and_then(|session| Some(desired_downlink(&device, session.epoch, change.as_ref()?)));
                Outcome::TwinChanged { version }
            }
        }
    }

    fn view(state: &State, device: &DeviceId) -> Option<DeviceView> {
        let record = state.devices.get(device)?.clone();
        Some(DeviceView {
            record,
            session: state.sessions.get(device).cloned().unwrap_or_default(),
        })
    }
}

fn stored_count(state: &State) -> u64 {
    state.logs.iter().map(|log| log.len() as u64).sum()
}

impl ShardClient for FakeCluster {
    fn stream_id(&self, _device: &DeviceId) -> StreamId {
        StreamId {
            gateway: NodeId(1),
            incarnation: 1,
        }
    }

    fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    fn is_fresh(&self) -> bool {
        !self.lock().cut_off
    }

    fn shard_of(&self, device: &DeviceId) -> ShardId {
        self.directory.shard_of(device.slot())
    }

    fn submit_telemetry(
        &self,
        _device: &DeviceId,
        record: &[u8],
        sink: &Arc<dyn AckSink>,
        token: u64,
    ) -> Result<(), SubmitError> {
        let record = Bytes::from(BytesMut::from(record));
        {
            let mut state = self.lock();
            if state.busy {
                return Err(SubmitError::Busy("a test"));
            }
            if state.storage_full {
                return Err(SubmitError::StorageFull);
            }
            if state.hold {
                state.held.push_back(Held {
                    sink: Arc::clone(sink),
                    token,
                    record,
                });
                drop(state);
                self.changed();
                return Ok(());
            }
        }
        let ack = self.store(&record);
        sink.on_ack(token, ack);
        Ok(())
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut changes = self.changes.subscribe();
            while self.lock().busy {
                let _ = changes.changed().await;
            }
        })
    }

    fn submit(&self, command: Command) -> BoxFuture<'_, Result<Outcome, SubmitError>> {
        Box::pin(async move {
            if self.lock().silent {
                return Err(SubmitError::Unknown);
            }
            Ok(self.apply(command))
        })
    }

    fn query(&self, query: Query, _consistency: Consistency) -> BoxFuture<'_, Result<View, QueryError>> {
        Box::pin(async move {
            let state = self.lock();
            Ok(match query {
                Query::Device(device) => View::Device(Self::view(&state, &device)),
                Query::Twin(device) => View::Twin(Self::view(&state, &device).map(|view| {
                    TwinView {
                        device: view,
                        twin: state
                            .twins
                            .get(&device)
                            .map(|twin| serde_json::to_string(twin).unwrap()),
                    }
                })),
                Query::Devices {
                    shard,
                    after,
                    count_max,
                } => {
                    let after = String::from_utf8(after.to_vec()).unwrap();
                    let mut rest = state
                        .devices
                        .keys()
                        .filter(|device| self.shard_of(device) == shard && device.as_str() > after.as_str());
                    let page: Vec<_> = rest.by_ref().take(count_max).cloned().collect();
                    let next = rest
                        .next()
                        .and(page.last())
                        .map(|last| Bytes::from(last.to_string()));
                    let devices = page
                        .iter()
                        .filter_map(|device| Self::view(&state, device))
                        .collect();
                    View::Devices { devices, next }
                }
                Query::Shard(shard) => {
                    let of_shard = |device: &&DeviceId| self.shard_of(device) == shard;
                    let held =
                        |device: &&DeviceId| state.sessions.get(*device).is_some_and(|s| s.held_by.is_some());
                    View::Shard(ShardView {
                        device_count: state.devices.keys().filter(of_shard).count() as u64,
                        connected_count: state.devices.keys().filter(of_shard).filter(held).count() as u64,
                        next_offset: state.logs[shard.0 as usize].len() as u64,
                        term: 7,
                        ..ShardView::default()
                    })
                }
            })
        })
    }

    fn read_events(
        &self,
        shard: ShardId,
        from: ReadFrom,
        _bytes_max: usize,
        wait_ms: u64,
    ) -> BoxFuture<'_, Result<EventPage, QueryError>> {
        Box::pin(async move {
            let mut changes = self.changes.subscribe();
            let read = |from: u64| {
                let state = self.lock();
                let log = &state.logs[shard.0 as usize];
                let runs = log
                    .iter()
                    .filter(|run| run.first_offset >= from)
                    .cloned()
                    .collect();
                EventPage {
                    runs,
                    from,
                    first_offset: 0,
                    next_offset: log.len() as u64,
                }
            };
            let from = match from {
                ReadFrom::Offset(offset) => offset,
                ReadFrom::TimeMs(time_ms) => {
                    let state = self.lock();
                    let log = &state.logs[shard.0 as usize];
                    log.iter()
                        .find(|run| run.time_ms >= time_ms)
                        .map_or(log.len() as u64, |run| run.first_offset)
                }
                ReadFrom::End => read(0).next_offset,
            };
            let waiting = async {
                loop {
                    let page = read(from);
                    if !page.runs.is_empty() {
                        return page;
                    }
                    let _ = changes.changed().await;
                }
            };
            let wait = std::time::Duration::from_millis(wait_ms);
            Ok(tokio::time::timeout(wait, waiting)
                .await
                .unwrap_or_else(|_| read(from)))
        })
    }

    fn attach(&self, sink: Arc<dyn DownlinkSink>) {
        *self.downlinks.lock().unwrap() = Some(sink);
    }

    fn admin(&self, request: Bytes) -> BoxFuture<'_, Result<Bytes, QueryError>> {
        Box::pin(async move { Ok(request) })
    }
}
