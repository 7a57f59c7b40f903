//! What commands on the uploads of devices do to a shard: where they lie, and who may begin and end one.
//!
//! How many there may be is decided in [`crate::upload`]; how services hear of them, in [`owed`].

use super::state::Entry;
use super::{keys, leftovers, owed, registry};
use crate::command::{Outcome, Refusal};
use crate::id::DeviceId;
use crate::port::StoreError;
use crate::upload::{
    EndError, FileNotice, NewFileNotice, UPLOAD_TTL_MS_MAX, UPLOAD_TTL_MS_MIN, Upload, Uploads,
};

/// What a door asks for.
pub(super) struct Begin<'a> {
    pub(super) id: &'a str,
    pub(super) blob: &'a str,
    pub(super) secret_digest: &'a str,
    pub(super) ttl_ms: u64,
}

pub(super) fn begin(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    generation: u64,
    begin: &Begin<'_>,
) -> Result<Outcome, StoreError> {
    if let Some(refusal) = registry::turned_away(entry, device, generation)? {
        return Ok(Outcome::Refused(refusal));
    }
    if leftovers::is_there(entry, device)? {
        return Ok(Outcome::Refused(Refusal::LeftoverThere));
    }
    let ttl_ms = begin.ttl_ms.clamp(UPLOAD_TTL_MS_MIN, UPLOAD_TTL_MS_MAX);
    let now_ms = entry.meta.time_ms;
    let new = Upload {
        id: begin.id.to_owned(),
        blob: begin.blob.to_owned(),
        secret_digest: begin.secret_digest.to_owned(),
        expires_ms: now_ms + ttl_ms,
        has_ended: false,
    };
    let mut uploads = open(entry, device)?;
    let Some(expires_ms) = uploads.begin(new, now_ms) else {
        return Ok(Outcome::Refused(Refusal::TooManyUploads));
    };
    close(entry, device, &uploads);
    Ok(Outcome::UploadBegun { expires_ms })
}

pub(super) fn end(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    generation: u64,
    id: &str,
    notice: Option<&NewFileNotice>,
) -> Result<Outcome, StoreError> {
    if let Some(refusal) = registry::turned_away(entry, device, generation)? {
        return Ok(Outcome::Refused(refusal));
    }
    let now_ms = entry.meta.time_ms;
    let mut uploads = open(entry, device)?;
    match uploads.end(id, now_ms) {
        Err(EndError::Unknown) => Ok(Outcome::Refused(Refusal::UnknownUpload)),
        Err(EndError::Lapsed) => Ok(Outcome::Refused(Refusal::UploadLapsed)),
        Ok(false) => Ok(Outcome::Done),
        Ok(true) => {
            close(entry, device, &uploads);
            let notice = notice.map(|file| FileNotice {
                device: device.clone(),
                file: file.clone(),
                enqueued_ms: now_ms,
            });
            if notice.is_some() {
                owed::push(entry, notice)?;
            }
            Ok(Outcome::Done)
        }
    }
}

fn open(entry: &Entry<'_>, device: &DeviceId) -> Result<Uploads, StoreError> {
    let stored = entry
        .overlay
        .get_json(&keys::uploads(device.as_str().as_bytes()))?;
    Ok(stored.unwrap_or_default())
}

fn close(entry: &mut Entry<'_>, device: &DeviceId, uploads: &Uploads) {
    entry
        .overlay
        .put_json(keys::uploads(device.as_str().as_bytes()), uploads);
}

/// Ids of all that are known.
pub(super) fn ids(entry: &Entry<'_>, device: &DeviceId) -> Result<Vec<String>, StoreError> {
    let known = open(entry, device)?.known;
    Ok(known.into_iter().map(|upload| upload.id).collect())
}

/// The device is gone, or whoever was let in before is to be cut off: nothing comes under its tokens any more.
pub(super) fn forget(entry: &mut Entry<'_>, device: &DeviceId) {
    entry.overlay.delete(keys::uploads(device.as_str().as_bytes()));
}
