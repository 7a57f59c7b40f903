//! The body of a log entry: a tag, and what the tag says. A new layout gets a new tag.

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_model::directory::DirectoryCommand;
use dunlin_model::shard::Batch;

use super::{Entry, EntryBody, convert};
use crate::codec::{self, CodecError};
use crate::messages::WireMembership;

const TAG_BLANK: u8 = 0;
const TAG_MEMBERSHIP: u8 = 1;
const TAG_BATCH: u8 = 2;
const TAG_DIRECTORY: u8 = 3;

/// What an entry holds.
pub(crate) enum Body {
    Batch(Batch),
    Directory(DirectoryCommand),
}

pub(crate) fn batch(batch: &Batch) -> EntryBody {
    EntryBody(codec::encode_batch(TAG_BATCH, batch))
}

pub(crate) fn directory(command: &DirectoryCommand) -> EntryBody {
    EntryBody(tagged(TAG_DIRECTORY, &codec::encode(command)))
}

/// What the data of an entry says.
pub(crate) fn read(body: &EntryBody) -> Result<Body, CodecError> {
    match body.0.first() {
        Some(&TAG_BATCH) => Ok(Body::Batch(codec::decode_batch(TAG_BATCH, body.0.clone())?)),
        Some(&TAG_DIRECTORY) => Ok(Body::Directory(codec::decode(&body.0[1..])?)),
        _ => Err(CodecError::Version),
    }
}

/// The bytes of an entry of any kind, for journal and wire.
pub(crate) fn to_bytes(entry: &Entry) -> Bytes {
    match &entry.payload {
        openraft::EntryPayload::Blank => Bytes::from_static(&[TAG_BLANK]),
        openraft::EntryPayload::Normal(body) => body.0.clone(),
        openraft::EntryPayload::Membership(membership) => tagged(
            TAG_MEMBERSHIP,
            &codec::encode(&convert::membership_out(membership)),
        ),
    }
}

/// The entry whose bytes these are.
pub(crate) fn from_bytes(position: dunlin_model::id::LogPosition, bytes: Bytes) -> Result<Entry, CodecError> {
    let payload = match bytes.first() {
        Some(&TAG_BLANK) => openraft::EntryPayload::Blank,
        Some(&TAG_MEMBERSHIP) => {
            let membership: WireMembership = codec::decode(&bytes[1..])?;
            openraft::EntryPayload::Membership(convert::membership_in(&membership))
        }
        Some(_) => openraft::EntryPayload::Normal(EntryBody(bytes)),
        None => return Err(CodecError::Version),
    };
    Ok(Entry {
        log_id: convert::log_id(position),
        payload,
    })
}

fn tagged(tag: u8, rest: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + rest.len());
    out.put_u8(tag);
    out.put_slice(rest);
    out.freeze()
}
