//! A cluster in memory behind the doors: the shard machine itself, one replica per shard, acknowledgements that a test
//! can hold back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use dunlin_model::command::{
    Command, Consistency, DeviceView, Outcome, Place, Query, ReadFrom, Receipt, Settled, TelemetryAck, View,
    WriteReceipt,
};
use dunlin_model::device::owed_downlink;
use dunlin_model::directory::{Directory, DirectoryCommand, DirectoryRefusal, first_policies};
use dunlin_model::id::{DeviceId, LogPosition, NodeId, ShardId, StreamId};
use dunlin_model::identity::{
    Authentication, Condition, DeviceSpec, DeviceStatus, SessionRecord, SymmetricKeys,
};
use dunlin_model::job::{Job, JobId};
use dunlin_model::method::{Invocation, MethodAnswer, MethodError};
use dunlin_model::port::{
    AckSink, BookError, BoxFuture, DownlinkSink, EventPage, EventRun, Frame, FrameApplied, FrameResult,
    PlanError, QueryError, RoutingChangeError, ShardClient, SubmitError,
};
use dunlin_model::provisioning::book::BookChange;
use dunlin_model::quota::Plan;
use dunlin_model::routing::{EventSources, Routing};
use dunlin_model::shard::state::ShardState;
use dunlin_model::shard::{Batch, Notice, Part, read};
use dunlin_model::telemetry::Record;
use dunlin_model::wire::Reader;
use tokio::sync::watch;

use crate::store::MemoryStore;

/// Key of every device and policy here: Base64 of bytes 0 to 31.
pub(crate) const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub(crate) const OTHER_KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
const SHARDS: u32 = 4;
const TERM: u64 = 7;
/// The gateway under test.
const STREAM: StreamId = StreamId {
    gateway: NodeId(1),
    incarnation: 1,
};

struct Held {
    sink: Arc<dyn AckSink>,
    token: u64,
    record: Bytes,
}

/// A shard: its machine, and its events.
struct Shard {
    machine: ShardState,
    log: Vec<EventRun>,
    frames: u64,
    /// No entry has an earlier stamp.
    least_ms: u64,
    /// What the hub tells of itself.
    announced: EventSources,
}

impl Shard {
    fn new() -> Self {
        let mut shard = Self {
            machine: ShardState::open(Arc::new(MemoryStore::default())).unwrap(),
            log: Vec::new(),
            frames: 0,
            least_ms: 0,
            announced: EventSources::default(),
        };
        shard.apply(Part::StreamOpen(STREAM));
        shard
    }

    /// One entry. Its stamp is the one before and a millisecond.
    fn apply(&mut self, part: Part) -> (Option<FrameApplied>, Vec<Notice>) {
        let index = self.machine.meta().applied.map_or(1, |at| at.index + 1);
        let position = LogPosition {
            term: TERM,
            leader: 1,
            index,
        };
        let (time_ms, parts) = (self.least_ms, vec![part]);
        let mut batch = Batch { time_ms, parts };
        batch.announce(|| self.announced);
        let mut applied = self.machine.apply(position, &batch).unwrap();
        self.log.extend(applied.run);
        let frame = applied.outcomes.pop().map(|outcome| match outcome.result {
            FrameResult::Applied(frame) => frame,
            other => panic!("{other:?}"),
        });
        (frame, applied.notices)
    }

    fn apply_frame(
        &mut self,
        record: Option<&Bytes>,
        command: Option<Command>,
    ) -> (FrameApplied, Vec<Notice>) {
        self.frames += 1;
        let frame = Frame {
            stream: STREAM,
            sequence: self.frames,
            records: record.cloned().unwrap_or_default(),
            record_count: record.iter().len() as u32,
            commands: command.into_iter().collect(),
            trace: None,
        };
        let (applied, notices) = self.apply(Part::Frame(frame));
        (applied.expect("it was a frame"), notices)
    }

    fn read(&self, query: &Query) -> View {
        read::read(&**self.machine.store(), query).unwrap()
    }

    fn device(&self, device: &DeviceId) -> Option<DeviceView> {
        match self.read(&Query::Device(device.clone())) {
            View::Device(view) => view,
            other => panic!("{other:?}"),
        }
    }
}

struct State {
    shards: Vec<Shard>,
    hold: bool,
    held: VecDeque<Held>,
    busy: bool,
    storage_full: bool,
    cut_off: bool,
    silent: bool,
    /// Nobody leads it.
    lost_shard: Option<ShardId>,
    loses_downlinks: bool,
    hurries_methods: bool,
    /// Methods that are still to be sent to the wrong gateway.
    misdirected: u32,
    devices_looked_for: u32,
    /// Twins are read, and what was read is kept back.
    holds_twins: bool,
    twins_held: u32,
    commands: Vec<Command>,
    /// The next command, query or method has this end.
    failing_command: Option<SubmitError>,
    failing_query: Option<QueryError>,
    failing_method: Option<MethodError>,
}

impl State {
    fn shard(&mut self, shard: ShardId) -> &mut Shard {
        &mut self.shards[shard.0 as usize]
    }
}

pub(crate) struct FakeCluster {
    state: Mutex<State>,
    /// Changed, and not heard of here yet.
    newer: Mutex<Option<Arc<Directory>>>,
    directory: Mutex<Arc<Directory>>,
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
        let directory = Directory {
            cluster_id: "fake".into(),
            shard_count: SHARDS,
            log_epoch: 1,
            policies: first_policies(|| SymmetricKeys {
                primary: KEY.into(),
                secondary: OTHER_KEY.into(),
            }),
            ..Directory::default()
        };
        let state = State {
            shards: (0..SHARDS).map(|_| Shard::new()).collect(),
            hold: false,
            held: VecDeque::new(),
            busy: false,
            storage_full: false,
            cut_off: false,
            silent: false,
            lost_shard: None,
            loses_downlinks: false,
            hurries_methods: false,
            misdirected: 0,
            devices_looked_for: 0,
            holds_twins: false,
            twins_held: 0,
            commands: Vec::new(),
            failing_command: None,
            failing_query: None,
            failing_method: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            newer: Mutex::default(),
            directory: Mutex::new(Arc::new(directory)),
            downlinks: Mutex::default(),
            changes: watch::Sender::new(0),
        })
    }

    /// The directory is another one from now on.
    pub(crate) fn change_directory(&self, change: impl FnOnce(&mut Directory)) {
        let mut directory = self.directory.lock().unwrap();
        change(Arc::make_mut(&mut directory));
    }

    /// Changes the directory without this gateway's hearing of it before it asks.
    pub(crate) fn change_directory_elsewhere(&self, change: impl FnOnce(&mut Directory)) {
        let mut newer = self.newer.lock().unwrap();
        let mut changed = newer.clone().unwrap_or_else(|| self.directory());
        change(Arc::make_mut(&mut changed));
        *newer = Some(changed);
    }

    /// An authority of devices' certificates.
    pub(crate) fn trust(&self, name: &str, pem: &str) {
        self.change_directory(|directory| {
            directory.authorities.insert(name.to_owned(), pem.to_owned());
        });
    }

    /// Takes a policy out of the directory.
    pub(crate) fn remove_policy(&self, name: &str) {
        self.change_directory(|directory| {
            directory.policies.remove(name);
        });
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
        let spec = DeviceSpec::enabled(Authentication::Sas(keys));
        self.apply(Command::DevicePut {
            device: device.clone(),
            spec,
            condition: Condition::Absent,
        });
        device
    }

    pub(crate) fn disable(&self, device: &DeviceId) {
        let view = self.view(device).expect("it is registered");
        let spec = DeviceSpec {
            status: DeviceStatus::Disabled,
            ..view.record.spec
        };
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

    /// Devices have next to no time to answer methods from now on, or all they are given.
    pub(crate) fn hurry_methods(&self, hurry: bool) {
        self.lock().hurries_methods = hurry;
    }

    /// So many methods go to a gateway that does not hold the session.
    pub(crate) fn misdirect_methods(&self, count: u32) {
        self.lock().misdirected = count;
    }

    /// Waits until so many messages are left in the queue of `device`.
    pub(crate) async fn until_queued(&self, device: &DeviceId, count: u32) {
        let shard = self.shard_of(device).0 as usize;
        let queued = |state: &State| state.shards[shard].device(device).map(|view| view.message_count);
        self.until("messages left", |state| queued(state) == Some(count))
            .await;
    }

    /// Waits until so many devices were read.
    pub(crate) async fn until_looked_for(&self, count: u32) {
        self.until("devices read", |state| state.devices_looked_for >= count)
            .await;
    }

    /// What is read of twins is kept back from now on, or no longer.
    pub(crate) fn hold_twins(&self, hold: bool) {
        self.lock().holds_twins = hold;
        self.changed();
    }

    /// Waits until so many twins were read and are kept back.
    pub(crate) async fn until_twins_held(&self, count: u32) {
        self.until("twins held", |state| state.twins_held >= count).await;
    }

    /// The next entry of each shard comes so much later.
    pub(crate) fn pass_ms(&self, ms: u64) {
        for shard in &mut self.lock().shards {
            shard.least_ms = shard.machine.meta().time_ms + ms;
        }
    }

    /// A command of somebody else's, at once.
    pub(crate) fn submit_now(&self, command: Command) -> Outcome {
        self.apply(command)
    }

    /// Waits until a job is so, and returns it.
    pub(crate) async fn until_job(&self, id: &str, is_so: impl Fn(&Job) -> bool) -> Job {
        let id = JobId::parse(id).unwrap();
        let shard = self.shard_at(Place::Slot(id.slot())).0 as usize;
        let mut seen = None;
        self.until("the job", |state| {
            seen = match state.shards[shard].read(&Query::Job(id.clone())) {
                View::Job(job) => job.filter(|job| is_so(job)),
                other => panic!("{other:?}"),
            };
            seen.is_some()
        })
        .await;
        *seen.unwrap()
    }

    /// A service wants something of `device`.
    pub(crate) fn desire(&self, device: &DeviceId, patch: &str) {
        self.apply(Command::TwinChange {
            device: device.clone(),
            tags: None,
            desired: Some(patch.to_owned()),
            replaces: false,
            etag: None,
        });
    }

    /// The next command of the doors ends so.
    pub(crate) fn fail_commands(&self, error: SubmitError) {
        self.lock().failing_command = Some(error);
    }

    /// The next query of the doors ends so.
    pub(crate) fn fail_queries(&self, error: QueryError) {
        self.lock().failing_query = Some(error);
    }

    /// The next method ends so.
    pub(crate) fn fail_methods(&self, error: MethodError) {
        self.lock().failing_method = Some(error);
    }

    /// Commands get no answer (unknown).
    pub(crate) fn set_silent(&self, silent: bool) {
        self.lock().silent = silent;
    }

    /// Nobody leads this shard from now on, or all are led again; the gateway is as fresh as ever. Queries have no answer
    /// then, what commands come to is unknown, and records wait.
    pub(crate) fn lose_shard(&self, shard: Option<ShardId>) {
        self.lock().lost_shard = shard;
    }

    fn is_lost(&self, shard: ShardId) -> bool {
        self.lock().lost_shard == Some(shard)
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
        let shard = self.shard_of(device).0 as usize;
        self.until("session closed", |state| {
            let view = state.shards[shard].device(device);
            view.is_some_and(|view| view.session.epoch > 0 && view.session.held_by.is_none())
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

    fn view(&self, device: &DeviceId) -> Option<DeviceView> {
        let shard = self.shard_of(device);
        self.lock().shard(shard).device(device)
    }

    pub(crate) fn session(&self, device: &DeviceId) -> SessionRecord {
        self.view(device).map(|view| view.session).unwrap_or_default()
    }

    pub(crate) fn commands(&self) -> Vec<Command> {
        self.lock().commands.clone()
    }

    /// Stored records of a device, in order.
    pub(crate) fn records(&self, device: &DeviceId) -> Vec<Record> {
        let shard = self.shard_of(device);
        let mut state = self.lock();
        let decode = |run: &EventRun| Record::decode(&mut Reader::new(run.records.clone())).unwrap();
        let all = state.shard(shard).log.iter().map(decode);
        all.filter(|record| record.device_str() == device.as_str())
            .collect()
    }

    /// Stamps of the stored runs in the shard of a device, in order.
    pub(crate) fn stamps(&self, device: &DeviceId) -> Vec<u64> {
        let shard = self.shard_of(device);
        let mut state = self.lock();
        state.shard(shard).log.iter().map(|run| run.time_ms).collect()
    }

    fn store(&self, bytes: &Bytes) -> TelemetryAck {
        let record = Record::decode(&mut Reader::new(bytes.clone())).unwrap();
        let device = DeviceId::parse_identity(record.device_str()).unwrap();
        let shard = self.shard_of(&device);
        let (applied, _) = self.lock().shard(shard).apply_frame(Some(bytes), None);
        self.changed();
        if !applied.fenced.is_empty() {
            return TelemetryAck::Fenced;
        }
        TelemetryAck::Stored(Receipt {
            shard,
            offset: applied.first_offset,
            term: TERM,
        })
    }

    fn shard_at(&self, place: Place<'_>) -> ShardId {
        match place {
            Place::Device(device) => self.shard_of(device),
            Place::Shard(shard) => shard,
            Place::Slot(slot) => self.directory().shard_of(slot),
        }
    }

    pub(crate) fn apply(&self, command: Command) -> Outcome {
        self.settle(command).outcome
    }

    fn settle(&self, command: Command) -> Settled {
        let shard = self.shard_at(command.place());
        let (mut applied, notices, loses) = {
            let mut state = self.lock();
            state.commands.push(command.clone());
            let (applied, notices) = state.shard(shard).apply_frame(None, Some(command));
            (applied, notices, state.loses_downlinks)
        };
        let sink = self.downlinks.lock().unwrap().clone();
        if let Some(sink) = sink.filter(|_| !loses) {
            for (_, downlink) in notices.iter().filter_map(owed_downlink) {
                sink.on_downlink(downlink);
            }
        }
        self.changed();
        Settled {
            outcome: applied.outcomes.pop().expect("it was a command"),
            receipt: WriteReceipt {
                shard,
                index: applied.index,
                term: applied.term,
            },
        }
    }
}

fn stored_count(state: &State) -> u64 {
    state.shards.iter().map(|shard| shard.log.len() as u64).sum()
}

impl ShardClient for FakeCluster {
    fn stream_id(&self, _device: &DeviceId) -> StreamId {
        STREAM
    }

    fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.lock().unwrap())
    }

    fn directory_now(&self) -> BoxFuture<'_, Result<Arc<Directory>, QueryError>> {
        let is_cut_off = self.lock().cut_off;
        if let Some(newer) = self.newer.lock().unwrap().take() {
            *self.directory.lock().unwrap() = newer;
        }
        let directory = self.directory();
        Box::pin(async move {
            if is_cut_off {
                Err(QueryError::CutOff)
            } else {
                Ok(directory)
            }
        })
    }

    fn change_book(&self, change: BookChange) -> BoxFuture<'_, Result<(), BookError>> {
        let mut newer = self.newer.lock().unwrap();
        let known = newer.clone().unwrap_or_else(|| self.directory());
        let mut changed = Directory::clone(&known);
        let result = changed.book.apply(change);
        if result.is_ok() {
            changed.version += 1;
            *newer = Some(Arc::new(changed));
        }
        Box::pin(async move { Ok(result?) })
    }

    fn put_routing(
        &self,
        routing: Routing,
        if_version: Option<u64>,
    ) -> BoxFuture<'_, Result<(), RoutingChangeError>> {
        let mut newer = self.newer.lock().unwrap();
        let known = newer.clone().unwrap_or_else(|| self.directory());
        let mut changed = Directory::clone(&known);
        let routing = Box::new(routing);
        let result = match changed.apply(DirectoryCommand::RoutingPut { routing, if_version }) {
            Ok(_) => Ok(()),
            Err(DirectoryRefusal::Routing(error)) => Err(error.into()),
            Err(_) => Err(RoutingChangeError::Changed),
        };
        if result.is_ok() {
            let announced = changed.routing.announced();
            *newer = Some(Arc::new(changed));
            for shard in &mut self.lock().shards {
                shard.announced = announced;
            }
        }
        Box::pin(async move { result })
    }

    fn put_plan(&self, plan: Option<Plan>) -> BoxFuture<'_, Result<(), PlanError>> {
        let mut newer = self.newer.lock().unwrap();
        let known = newer.clone().unwrap_or_else(|| self.directory());
        let mut changed = Directory::clone(&known);
        let result = match changed.apply(DirectoryCommand::PlanPut(plan)) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(PlanError::Refused(refusal.to_string())),
        };
        if result.is_ok() {
            *newer = Some(Arc::new(changed));
        }
        Box::pin(async move { result })
    }

    fn is_fresh(&self) -> bool {
        !self.lock().cut_off
    }

    fn shard_of(&self, device: &DeviceId) -> ShardId {
        self.directory().shard_of(device.slot())
    }

    fn submit_telemetry(
        &self,
        device: &DeviceId,
        record: &[u8],
        sink: &Arc<dyn AckSink>,
        token: u64,
    ) -> Result<(), SubmitError> {
        let record = Bytes::from(BytesMut::from(record));
        let shard = self.shard_of(device);
        {
            let mut state = self.lock();
            if state.busy {
                return Err(SubmitError::Busy("a test"));
            }
            if state.storage_full {
                return Err(SubmitError::StorageFull);
            }
            if state.hold || state.lost_shard == Some(shard) {
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

    fn submit_for_receipt(&self, command: Command) -> BoxFuture<'_, Result<Settled, SubmitError>> {
        Box::pin(async move {
            // A gateway keeps its leases by itself.
            let is_of_doors = !matches!(command, Command::LeaseTake { .. });
            if is_of_doors && let Some(error) = self.lock().failing_command.take() {
                return Err(error);
            }
            let is_lost = self.is_lost(self.shard_at(command.place()));
            if is_lost || self.lock().silent {
                return Err(SubmitError::Unknown);
            }
            Ok(self.settle(command))
        })
    }

    fn query(&self, query: Query, _consistency: Consistency) -> BoxFuture<'_, Result<View, QueryError>> {
        Box::pin(async move {
            // A gateway looks for what is due by itself.
            let is_of_doors = !matches!(
                query,
                Query::DueJobs { .. }
                    | Query::Configurations { .. }
                    | Query::Targeted { .. }
                    | Query::Leftovers { .. }
            );
            if is_of_doors && let Some(error) = self.lock().failing_query.take() {
                return Err(error);
            }
            let shard = self.shard_at(query.place());
            if self.is_lost(shard) {
                return Err(QueryError::Unavailable(shard));
            }
            if matches!(query, Query::Device(_)) {
                self.lock().devices_looked_for += 1;
                self.changed();
            }
            let mut view = self.lock().shard(shard).read(&query);
            if let View::Shard(view) = &mut view {
                view.term = TERM;
            }
            if matches!(view, View::Twin(_)) && self.lock().holds_twins {
                let mut changes = self.changes.subscribe();
                self.lock().twins_held += 1;
                self.changed();
                while self.lock().holds_twins {
                    let _ = changes.changed().await;
                }
            }
            Ok(view)
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
            if self.is_lost(shard) {
                return Err(QueryError::Unavailable(shard));
            }
            let mut changes = self.changes.subscribe();
            let read = |from: u64| {
                let mut state = self.lock();
                let log = &state.shard(shard).log;
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
                    let mut state = self.lock();
                    let log = &state.shard(shard).log;
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

    fn invoke(
        &self,
        gateway: NodeId,
        mut invocation: Invocation,
    ) -> BoxFuture<'_, Result<MethodAnswer, MethodError>> {
        assert_eq!(gateway, STREAM.gateway, "there is one gateway");
        let mut state = self.lock();
        if let Some(error) = state.failing_method.take() {
            return Box::pin(std::future::ready(Err(error)));
        }
        if state.misdirected > 0 {
            state.misdirected -= 1;
            return Box::pin(std::future::ready(Err(MethodError::NotHere)));
        }
        if state.hurries_methods {
            invocation.wait_ms = 50;
        }
        drop(state);
        let sink = self.downlinks.lock().unwrap().clone();
        sink.expect("doors have attached").invoke(invocation)
    }

    fn brokers(&self) -> Vec<(NodeId, String)> {
        vec![(STREAM.gateway, "127.0.0.1:9093".to_owned())]
    }

    fn node(&self) -> NodeId {
        STREAM.gateway
    }

    fn attach(&self, sink: Arc<dyn DownlinkSink>) {
        *self.downlinks.lock().unwrap() = Some(sink);
    }

    fn admin(&self, request: Bytes) -> BoxFuture<'_, Result<Bytes, QueryError>> {
        Box::pin(async move { Ok(request) })
    }
}
