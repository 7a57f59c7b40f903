//! Reading a shard's state beside `apply`: any replica, any thread, no barrier of its own.

use bytes::Bytes;

use super::keys;
use super::meta::Meta;
use super::overlay::parse_json;
use crate::command::{DeviceView, Query, ShardView, TwinView, View};
use crate::id::DeviceId;
use crate::identity::{DeviceRecord, SessionRecord};
use crate::limits::{DEVICE_PAGE_MAX, MODULES_PER_DEVICE_MAX};
use crate::port::{ShardStore, StoreError};

/// Answers `query` from what `store` holds now. Offsets and the term of a [`ShardView`] are left to
/// the caller, who knows the event log.
pub fn read(store: &dyn ShardStore, query: &Query) -> Result<View, StoreError> {
    match query {
        Query::Device(device) => Ok(View::Device(device_view(store, device)?)),
        Query::Twin(device) => {
            let Some(view) = device_view(store, device)? else {
                return Ok(View::Twin(None));
            };
            let text = store.get(&keys::twin(device.as_str().as_bytes()))?;
            let twin = text.map(|text| String::from_utf8(text.into())).transpose();
            let twin = twin.map_err(|error| StoreError::Corrupt {
                what: "twin".into(),
                reason: error.to_string(),
            })?;
            Ok(View::Twin(Some(TwinView { device: view, twin })))
        }
        Query::Modules(device) => modules(store, device),
        Query::Devices { after, count_max, .. } => devices(store, after, (*count_max).min(DEVICE_PAGE_MAX)),
        Query::Shard(_) => {
            let meta = store
                .get(keys::META)?
                .map(Meta::decode)
                .transpose()?
                .unwrap_or_default();
            Ok(View::Shard(ShardView {
                device_count: meta.device_count,
                connected_count: meta.connected_count,
                disabled_count: meta.disabled_count,
                next_offset: meta.next_offset,
                applied_index: meta.applied.map_or(0, |at| at.index),
                ..ShardView::default()
            }))
        }
    }
}

fn device_view(store: &dyn ShardStore, device: &DeviceId) -> Result<Option<DeviceView>, StoreError> {
    let id = device.as_str().as_bytes();
    let Some(bytes) = store.get(&keys::record(id))? else {
        return Ok(None);
    };
    with_session(store, parse_json(&bytes)?).map(Some)
}

fn with_session(store: &dyn ShardStore, record: DeviceRecord) -> Result<DeviceView, StoreError> {
    let session = match store.get(&keys::session(record.device.as_str().as_bytes()))? {
        Some(bytes) => parse_json(&bytes)?,
        None => SessionRecord::default(),
    };
    Ok(DeviceView { record, session })
}

fn modules(store: &dyn ShardStore, device: &DeviceId) -> Result<View, StoreError> {
    let (from, to) = keys::modules_range(device.as_str().as_bytes());
    let rows = store.scan(&from, &to, MODULES_PER_DEVICE_MAX)?;
    let views = rows
        .into_iter()
        .map(|(_, value)| with_session(store, parse_json(&value)?));
    Ok(View::Devices {
        devices: views.collect::<Result<_, StoreError>>()?,
        next: None,
    })
}

fn devices(store: &dyn ShardStore, after: &Bytes, count_max: usize) -> Result<View, StoreError> {
    let mut devices = Vec::new();
    let mut cursor = after.to_vec();
    loop {
        let rows = store.scan(&cursor, keys::DEVICES_END, DEVICE_PAGE_MAX)?;
        let last_page = rows.len() < DEVICE_PAGE_MAX;
        for (key, value) in rows {
            // The smallest key above this one.
            cursor = [&key[..], &[0]].concat();
            if !keys::is_device_record(&key) {
                continue;
            }
            devices.push(with_session(store, parse_json(&value)?)?);
            if devices.len() >= count_max {
                return Ok(View::Devices {
                    devices,
                    next: Some(cursor.into()),
                });
            }
        }
        if last_page {
            return Ok(View::Devices { devices, next: None });
        }
    }
}
