//! A hub in memory for tests: partitions, one policy, groups, and switches to make it misbehave.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "for tests, each of which uses some of it"
)]

pub mod groups;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::auth::ConnectionString;
use crate::kafka::backend::*;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use groups::Groups;

pub const TOPIC: &str = "messages";
pub const POLICY: &str = "service";
pub const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[derive(Default)]
pub struct Log {
    first_offset: u64,
    events: Vec<Event>,
}

#[derive(Default)]
struct State {
    logs: Vec<Log>,
    unreachable: BTreeSet<u32>,
    /// Partitions whose leader seems to have less than it has.
    behind: BTreeSet<u32>,
    brokers: Vec<Broker>,
    log_epoch: i32,
    is_revoked: bool,
    is_undecided: bool,
}

pub struct Fake {
    state: Mutex<State>,
    groups: Mutex<Groups>,
    changed: watch::Sender<u64>,
    reads: std::sync::atomic::AtomicUsize,
}

/// The hub as one of its gateways sees it.
pub struct Gateway(pub i32, pub Arc<Fake>);

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

impl Fake {
    pub fn new(partition_count: u32) -> Arc<Self> {
        let state = State {
            logs: (0..partition_count).map(|_| Log::default()).collect(),
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            groups: Mutex::default(),
            changed: watch::Sender::new(0),
            reads: Default::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_groups<T>(&self, act: impl FnOnce(&mut Groups) -> T) -> T {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let before = groups.turns;
        let result = act(&mut groups);
        let after = groups.turns;
        drop(groups);
        if before != after {
            self.changed.send_modify(|turn| *turn += 1);
        }
        result
    }

    pub fn connection_string() -> String {
        format!("HostName=localhost;SharedAccessKeyName={POLICY};SharedAccessKey={KEY}")
    }

    pub fn append(&self, partition: u32, time_ms: u64, device: &str, payload: &[u8]) -> u64 {
        let mut state = self.state();
        let log = &mut state.logs[partition as usize];
        let offset = log.first_offset + log.events.len() as u64;
        log.events.push(Event {
            offset,
            time_ms,
            device: device.into(),
            system: vec![
                ("iothub-connection-auth-method", "{\"scope\":\"device\"}".into()),
                ("iothub-message-source", "Telemetry".into()),
                ("content-type", "application/json".into()),
            ],
            properties: vec![("level".into(), Some("high".into())), ("alone".into(), None)],
            payload: Bytes::copy_from_slice(payload),
        });
        drop(state);
        self.changed.send_modify(|turn| *turn += 1);
        offset
    }

    fn partitions(&self) -> u32 {
        self.state().logs.len() as u32
    }

    /// `count` events in each partition, a second apart from `time_ms` on.
    pub fn fill(&self, count: u64, time_ms: u64) {
        for partition in 0..self.partitions() {
            for number in 0..count {
                let device = format!("dev-{partition}-{}", number % 3);
                let payload = format!("{{\"p\":{partition},\"n\":{number}}}");
                self.append(partition, time_ms + 1000 * number, &device, payload.as_bytes());
            }
        }
    }

    pub fn trim(&self, partition: u32, offset: u64) {
        let mut state = self.state();
        let log = &mut state.logs[partition as usize];
        let gone = (offset - log.first_offset) as usize;
        log.events.drain(..gone);
        log.first_offset = offset;
    }

    pub fn set_brokers(&self, brokers: Vec<Broker>) {
        self.state().brokers = brokers;
    }

    pub fn set_reachable(&self, partition: u32, is_reachable: bool) {
        let mut state = self.state();
        match is_reachable {
            true => state.unreachable.remove(&partition),
            false => state.unreachable.insert(partition),
        };
    }

    pub fn set_behind(&self, partition: u32, is_behind: bool) {
        let mut state = self.state();
        match is_behind {
            true => state.behind.insert(partition),
            false => state.behind.remove(&partition),
        };
    }

    pub fn set_revoked(&self, is_revoked: bool) {
        self.state().is_revoked = is_revoked;
    }

    pub fn set_undecided(&self, is_undecided: bool) {
        self.state().is_undecided = is_undecided;
    }

    pub fn set_log_epoch(&self, log_epoch: i32) {
        self.state().log_epoch = log_epoch;
    }

    /// Reads so far.
    pub fn reads(&self) -> usize {
        self.reads.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn look(&self, partition: u32) -> Result<Bounds, ReadError> {
        let state = self.state();
        if state.unreachable.contains(&partition) {
            return Err(ReadError::Unavailable);
        }
        let log = &state.logs[partition as usize];
        let next_offset = log.first_offset + log.events.len() as u64;
        Ok(Bounds {
            first_offset: log.first_offset,
            next_offset: if state.behind.contains(&partition) {
                log.first_offset
            } else {
                next_offset
            },
        })
    }

    fn page(&self, partition: u32, from: u64, bytes_max: usize) -> Result<Page, ReadError> {
        let Bounds {
            first_offset,
            next_offset,
        } = self.look(partition)?;
        if from < first_offset {
            return Err(ReadError::OffsetGone);
        }
        let state = self.state();
        let mut bytes = 0;
        let fits = |event: &&Event| {
            let is_first = bytes == 0;
            bytes += event.payload.len() + 100;
            is_first || bytes <= bytes_max
        };
        let log = &state.logs[partition as usize];
        let places = (from - first_offset) as usize..next_offset.saturating_sub(first_offset) as usize;
        let events = log.events.get(places).unwrap_or_default().iter();
        let events: Vec<Event> = events.take_while(fits).cloned().collect();
        let next = events.last().map_or(from, |event| event.offset + 1);
        Ok(Page {
            events,
            next,
            first_offset,
            next_offset,
        })
    }
}

impl Backend for Gateway {
    fn node_id(&self) -> i32 {
        self.0
    }

    fn brokers(&self) -> Vec<Broker> {
        self.1.state().brokers.clone()
    }

    fn partition_count(&self) -> u32 {
        self.1.state().logs.len() as u32
    }

    fn log_epoch(&self, _partition: u32) -> i32 {
        self.1.state().log_epoch
    }

    fn epoch_end(&self, partition: u32, log_epoch: i32) -> Option<u64> {
        let present = self.1.state().log_epoch;
        (log_epoch + 1 == present).then(|| self.1.look(partition).unwrap().next_offset)
    }

    fn authorize<'a>(
        &'a self,
        user: &'a str,
        password: &'a str,
        _peer: std::net::SocketAddr,
    ) -> BoxFuture<'a, Result<Principal, Refused>> {
        Box::pin(async move {
            if self.1.state().is_undecided {
                return Err(Refused::Unavailable);
            }
            let shown = ConnectionString::parse(password).map_err(|_| Refused::Wrong)?;
            let policy = shown.shared_access_key_name.ok_or(Refused::Wrong)?;
            let is_topic = shown.entity_path.as_deref().is_none_or(|path| path == TOPIC);
            let is_good = user == USER && is_topic && policy == POLICY && shown.shared_access_key == KEY;
            if !is_good || self.1.state().is_revoked {
                return Err(Refused::Wrong);
            }
            Ok(Principal::new(policy, KEY))
        })
    }

    fn is_still_good(&self, _principal: &Principal) -> bool {
        !self.1.state().is_revoked
    }

    fn bounds(&self, partition: u32) -> BoxFuture<'_, Result<Bounds, ReadError>> {
        Box::pin(async move { self.1.look(partition) })
    }

    fn offset_at(&self, partition: u32, time_ms: u64) -> BoxFuture<'_, Result<Option<Place>, ReadError>> {
        Box::pin(async move {
            self.1.look(partition)?;
            let state = self.1.state();
            let events = &state.logs[partition as usize].events;
            let found = events.iter().find(|event| event.time_ms >= time_ms);
            Ok(found.map(|event| Place {
                offset: event.offset,
                time_ms: event.time_ms,
            }))
        })
    }

    fn read(
        &self,
        partition: u32,
        from: u64,
        bytes_max: usize,
        wait_ms: u64,
    ) -> BoxFuture<'_, Result<Page, ReadError>> {
        Box::pin(async move {
            self.1.reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let until = Instant::now() + Duration::from_millis(wait_ms);
            let mut changes = self.1.changed.subscribe();
            loop {
                let page = self.1.page(partition, from, bytes_max);
                if let Err(ReadError::Unavailable) = page {
                    sleep(Duration::from_millis(30)).await;
                }
                if page.as_ref().map_or(true, |page| !page.events.is_empty()) {
                    return page;
                }
                if timeout_at(until, changes.changed()).await.is_err() {
                    return page;
                }
            }
        })
    }

    fn join(&self, join: Join) -> BoxFuture<'_, Result<Joining, JoinRefused>> {
        Box::pin(async move { self.1.with_groups(|groups| groups.join(join)) })
    }

    fn join_result<'a>(
        &'a self,
        group: &'a str,
        joining: &'a Joining,
    ) -> BoxFuture<'a, Result<Option<Joined>, Code>> {
        Box::pin(async move { self.1.with_groups(|groups| groups.join_result(group, joining)) })
    }

    fn sync(&self, syncing: Syncing) -> BoxFuture<'_, Result<(), Code>> {
        Box::pin(async move { self.1.with_groups(|groups| groups.sync(syncing)) })
    }

    fn sync_result<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Option<Synced>, Code>> {
        Box::pin(async move { self.1.with_groups(|groups| groups.sync_result(member)) })
    }

    fn heartbeat(&self, member: Member) -> BoxFuture<'_, Result<(), Code>> {
        Box::pin(async move { self.1.with_groups(|groups| groups.heartbeat(&member)) })
    }

    fn leave(&self, group: String, leavers: Vec<Leaver>) -> BoxFuture<'_, Result<Vec<Code>, Code>> {
        Box::pin(async move { self.1.with_groups(|groups| groups.leave(&group, leavers)) })
    }

    fn commit(&self, member: Member, offsets: Vec<Committed>) -> BoxFuture<'_, Result<Vec<Code>, Code>> {
        Box::pin(async move { self.1.with_groups(|groups| groups.commit(&member, offsets)) })
    }

    fn offsets(
        &self,
        group: String,
        partitions: Option<Vec<u32>>,
    ) -> BoxFuture<'_, Result<Vec<Committed>, Code>> {
        Box::pin(async move { Ok(self.1.with_groups(|groups| groups.offsets(&group, partitions))) })
    }

    fn describe(&self, group: String) -> BoxFuture<'_, Result<Described, Code>> {
        Box::pin(async move { self.1.with_groups(|groups| groups.describe(&group)) })
    }

    fn groups(&self) -> BoxFuture<'_, Result<Vec<Listed>, Code>> {
        Box::pin(async move { Ok(self.1.with_groups(|groups| groups.list())) })
    }

    fn delete(&self, group: String) -> BoxFuture<'_, Result<(), Code>> {
        Box::pin(async move { self.1.with_groups(|groups| groups.delete(&group)) })
    }
}
