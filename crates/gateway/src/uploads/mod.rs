//! Files that devices upload: what a gateway is told about them, which token counts for which file, and how many it takes
//! in, and gives out, at a time.
//!
//! Which uploads a device has is in its shard (`model::upload`); the files are in the object store, whole ones where
//! [`name`] says, and blocks that are to become one in [`blocks`]. Bytes come in through [`receive`]. The doors are
//! `http::files` and `http::blobs`.

pub(crate) mod blocks;
#[cfg(test)]
mod memory;
pub(crate) mod name;
pub(crate) mod receive;
pub(crate) mod room;
pub(crate) mod sweep;
pub(crate) mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use dunlin_model::command::{Consistency, Query, View};
use dunlin_model::id::DeviceId;
use dunlin_model::port::QueryError;
use dunlin_model::upload::{UPLOAD_TTL_MS_DEFAULT, Upload};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::limits::{
    UPLOAD_READS_AT_A_TIME, UPLOAD_WAIT, UPLOADS_AT_A_TIME, UPLOADS_CLEARED_AT_A_TIME,
    UPLOADS_OF_A_DEVICE_AT_A_TIME,
};
use crate::shared::Shared;
use room::Room;

/// What a gateway is told about files that devices upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadConfig {
    /// The first part of a file's path, in addresses and in the store.
    pub container: String,
    /// How long a device has for one upload.
    pub token_life: Duration,
    /// Whether services are told of files that came whole.
    pub notifies: bool,
    /// Bytes of a file at the most.
    pub file_bytes_max: u64,
    /// Bytes of a block of one.
    pub block_bytes_max: u64,
    /// How long one body may take.
    pub body_wait: Duration,
}

impl Default for UploadConfig {
    fn default() -> Self {
        Self {
            container: "uploads".to_owned(),
            token_life: Duration::from_millis(UPLOAD_TTL_MS_DEFAULT),
            notifies: true,
            file_bytes_max: 1024 * 1024 * 1024,
            block_bytes_max: 100 * 1024 * 1024,
            body_wait: UPLOAD_WAIT,
        }
    }
}

/// What is wrong with the name of a container, if anything is: Azure's rules, and it must begin no other path of the hub.
pub fn container_problem(name: &str) -> Option<&'static str> {
    let is_sign = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(3..=63).contains(&name.len()) || !name.bytes().all(is_sign) {
        return Some("has 3 to 63 characters, small letters, digits and -");
    }
    if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        return Some("neither begins nor ends with -, nor has two of them in a row");
    }
    let is_taken = TAKEN.iter().any(|taken| taken.eq_ignore_ascii_case(name));
    is_taken.then_some("begins another path of the hub")
}

/// First parts of the hub's own paths.
pub const TAKEN: &[&str] = &[
    "$iothub",
    "certificates",
    "cluster",
    "configurations",
    "devices",
    "docs",
    "enrollmentGroups",
    "enrollments",
    "events",
    "faults",
    "health",
    "jobs",
    "messages",
    "metrics",
    "openapi.json",
    "provisioning",
    "quota",
    "registrations",
    "routing",
    "shards",
    "statistics",
    "twins",
];

/// What a gateway has of uploads.
pub(crate) struct Uploads {
    pub(crate) config: UploadConfig,
    /// One permit per body that comes in.
    at_a_time: Arc<Semaphore>,
    /// How many of them are of one device.
    by_device: Mutex<HashMap<DeviceId, usize>>,
    /// One permit per file that is read.
    reads: Arc<Semaphore>,
    /// One permit per upload whose blocks are removed.
    clearing: Arc<Semaphore>,
    /// What waits under uploads.
    room: Room,
    /// Whose blocks become a file, or go, so that it is one of them at a time. Whoever has or awaits a turn has a seat, or a
    /// permit to remove; what nobody has goes.
    turns: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
}

/// The right to bring one body in.
pub(crate) struct Seat<'a> {
    uploads: &'a Uploads,
    device: DeviceId,
    _permit: OwnedSemaphorePermit,
}

impl Uploads {
    pub(crate) fn new(config: UploadConfig) -> Self {
        Self {
            config,
            at_a_time: Arc::new(Semaphore::new(UPLOADS_AT_A_TIME)),
            by_device: Mutex::default(),
            reads: Arc::new(Semaphore::new(UPLOAD_READS_AT_A_TIME)),
            clearing: Arc::new(Semaphore::new(UPLOADS_CLEARED_AT_A_TIME)),
            room: Room::default(),
            turns: Mutex::default(),
        }
    }

    /// Lets a body in, unless there are as many as there may be.
    pub(crate) fn enter(&self, device: &DeviceId) -> Option<Seat<'_>> {
        let permit = Arc::clone(&self.at_a_time).try_acquire_owned().ok()?;
        let mut by_device = self.by_device.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_device.entry(device.clone()).or_default();
        if *count >= UPLOADS_OF_A_DEVICE_AT_A_TIME {
            return None;
        }
        *count += 1;
        Some(Seat {
            uploads: self,
            device: device.clone(),
            _permit: permit,
        })
    }

    /// The right to read a file, unless as many are read as may be.
    pub(crate) fn enter_reading(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.reads).try_acquire_owned().ok()
    }

    /// The right to remove the blocks of an upload, unless those of as many go as may.
    fn enter_clearing(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.clearing).try_acquire_owned().ok()
    }

    /// Waits until nobody else here makes a file of the blocks of an upload, or removes them.
    pub(crate) async fn turn(&self, id: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            match turns.get(id).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::<AsyncMutex<()>>::default();
                    turns.insert(id.to_owned(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let by_device = &self.uploads.by_device;
        let mut by_device = by_device.lock().unwrap_or_else(PoisonError::into_inner);
        match by_device.get_mut(&self.device) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(by_device.remove(&self.device)),
        }
    }
}

/// Which upload somebody brings something for.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) device: DeviceId,
    pub(crate) upload: Upload,
}

impl Grant {
    /// The upload that a token is for, if it counts now: whoever was deleted or disabled, or has lost a key, has none. The
    /// shard's leader says so by itself; before a file is put in its place the others are asked as well.
    pub(crate) async fn of_token(
        shared: &Shared,
        device: &DeviceId,
        blob: &str,
        secret: &str,
    ) -> Result<Option<Grant>, QueryError> {
        let Some(digest) = token::digest(secret) else {
            return Ok(None);
        };
        let now_ms = shared.now_ms();
        let is_it = |upload: &Upload| {
            upload.blob == blob && upload.secret_digest == digest && upload.is_alive(now_ms)
        };
        let known = uploads_of(shared, device, Consistency::Leader).await?;
        let upload = known.into_iter().find(is_it);
        Ok(upload.map(|upload| Grant {
            device: device.clone(),
            upload,
        }))
    }

    /// Whether what has begun under it may come to its end, though its time be over by now.
    pub(crate) async fn still_counts(&self, shared: &Shared) -> Result<bool, QueryError> {
        let known = uploads_of(shared, &self.device, Consistency::Linearizable).await?;
        let is_it = |upload: &Upload| upload.id == self.upload.id && !upload.has_ended;
        Ok(known.iter().any(is_it))
    }

    /// Where in the store the file goes.
    pub(crate) fn path(&self, config: &UploadConfig) -> Option<String> {
        name::store_path(&config.container, &self.device, &self.upload.blob)
    }
}

/// The uploads of a device that its shard knows.
pub(crate) async fn uploads_of(
    shared: &Shared,
    device: &DeviceId,
    consistency: Consistency,
) -> Result<Vec<Upload>, QueryError> {
    let query = Query::Uploads(device.clone());
    match shared.client.query(query, consistency).await? {
        View::Uploads(uploads) => Ok(uploads.known),
        _ => Err(QueryError::Store("an answer of another kind".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_have_names_that_lead_to_nothing_else() {
        for name in ["uploads", "a1-b", "0ab", &"x".repeat(63)] {
            assert_eq!(container_problem(name), None, "{name}");
        }
        for name in [
            "",
            "ab",
            "Uploads",
            "a/b",
            "-ab",
            "ab-",
            "a--b",
            ".abc",
            "a_b",
            "devices",
            "twins",
            "quota",
            "enrollmentgroups",
            &"x".repeat(64),
        ] {
            assert!(container_problem(name).is_some(), "{name}");
        }
    }

    #[test]
    fn one_device_does_not_take_every_seat() {
        let uploads = Uploads::new(UploadConfig::default());
        let device = |n: usize| DeviceId::parse(&format!("d{n}")).expect("a name");
        let mut seats = Vec::new();
        for _ in 0..UPLOADS_OF_A_DEVICE_AT_A_TIME {
            seats.push(uploads.enter(&device(0)).expect("a seat"));
        }
        assert!(uploads.enter(&device(0)).is_none());
        seats.pop();
        seats.push(uploads.enter(&device(0)).expect("one is free again"));
        for n in 1..=UPLOADS_AT_A_TIME - UPLOADS_OF_A_DEVICE_AT_A_TIME {
            seats.push(uploads.enter(&device(n)).expect("a seat"));
        }
        assert!(uploads.enter(&device(99)).is_none(), "all are taken");
        drop(seats);
        assert!(uploads.by_device.lock().expect("nobody panicked").is_empty());
    }
}
