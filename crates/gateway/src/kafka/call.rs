//! One request, taken apart as far as its header, and the way back: an answer as a frame.
//!
//! Decides what may reach the decoder: only what is offered, in a version that is, and in the
//! [`shape`](super::shape) that it should have. What requests mean is decided in the rooms that answer them.

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use super::api::{self, Api, Offer};
use super::limits::ANSWER_BYTES_MAX;
use super::shape::{ShapeError, Walk};

/// Why a connection ends that is not just closed by its peer. Nobody is told; it is logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("a request of {0} bytes")]
    Size(i64),
    #[error("request {0} of version {1} is not offered")]
    NotOffered(i16, i16),
    #[error("{0:?} before the sender is known")]
    Stranger(Api),
    #[error("{0:?} once the sender is known")]
    SignedInAlready(Api),
    #[error("a request that is none: {0}")]
    Shape(#[from] ShapeError),
    #[error("a request that is none: {0}")]
    Decode(String),
    #[error("an answer that cannot be written: {0}")]
    Encode(String),
    #[error("an answer of {0} bytes")]
    Answer(usize),
    #[error("a producer that awaits no answer")]
    Unanswerable,
    #[error("policies cannot be read")]
    Undecided,
}

/// See the file.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) offer: &'static Offer,
    pub(crate) version: i16,
    /// What the client recognises the answer by.
    pub(crate) correlation: i32,
    /// What the client calls itself.
    pub(crate) client_id: String,
    /// What follows the header.
    body: Bytes,
}

/// What a frame turned out to be.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    Call(Call),
    /// `ApiVersions` in a version that is not offered, which alone has an answer all the same.
    Versions {
        correlation: i32,
    },
}

impl Frame {
    /// Reads a frame without its length. Its size was held against its bound by the caller.
    pub(crate) fn read(frame: &Bytes) -> Result<Self, Fault> {
        let mut walk = Walk::new(frame);
        let (key, version, correlation) = (walk.i16()?, walk.i16()?, walk.i32()?);
        let offer = api::find(key).ok_or(Fault::NotOffered(key, version))?;
        if !offer.has(version) {
            return match offer.api {
                Api::ApiVersions => Ok(Self::Versions { correlation }),
                _ => Err(Fault::NotOffered(key, version)),
            };
        }
        let is_flexible = offer.is_flexible(version);
        // In headers it has two bytes of length, compact or not.
        let client_id = walk.text(false)?.unwrap_or_default();
        if is_flexible {
            walk.tags()?;
        }
        let body = frame.slice(frame.len() - walk.rest().len()..);
        walk.fields(offer.fields, version, is_flexible)?;
        Ok(Self::Call(Call {
            offer,
            version,
            correlation,
            client_id: String::from_utf8_lossy(client_id).into_owned(),
            body,
        }))
    }
}

impl Call {
    pub(crate) fn api(&self) -> Api {
        self.offer.api
    }

    /// What stands in it. The body is gone then.
    pub(crate) fn take<R: Decodable>(&mut self) -> Result<R, Fault> {
        let mut body = std::mem::take(&mut self.body);
        R::decode(&mut body, self.version).map_err(|error| Fault::Decode(error.to_string()))
    }

    /// The answer as a frame of [`ANSWER_BYTES_MAX`] at the most.
    pub(crate) fn answer<R: Encodable + HeaderVersion>(&self, response: &R) -> Result<Bytes, Fault> {
        answer(self.correlation, self.version, response, ANSWER_BYTES_MAX)
    }
}

/// An answer as a frame with its length.
pub(crate) fn answer<R: Encodable + HeaderVersion>(
    correlation: i32,
    version: i16,
    response: &R,
    bytes_max: usize,
) -> Result<Bytes, Fault> {
    let body = response.compute_size(version);
    let body = body.map_err(|error| Fault::Encode(error.to_string()))?;
    // Tagged fields of the header: there are none.
    let is_tagged = R::header_version(version) >= 1;
    let size = 4 + usize::from(is_tagged) + body;
    if size > bytes_max {
        return Err(Fault::Answer(size));
    }
    let mut frame = BytesMut::with_capacity(4 + size);
    frame.put_u32(size as u32);
    frame.put_i32(correlation);
    if is_tagged {
        frame.put_u8(0);
    }
    let encoded = response.encode(&mut frame, version);
    encoded.map_err(|error| Fault::Encode(error.to_string()))?;
    debug_assert_eq!(frame.len(), 4 + size);
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use proptest::prelude::*;

    /// Decodes whatever passes, and says how much of it.
    fn pass(frame: &Bytes) -> Option<usize> {
        let Ok(Frame::Call(call)) = Frame::read(frame) else {
            return None;
        };
        let mut walk = Walk::new(&call.body);
        let is_flexible = call.offer.is_flexible(call.version);
        walk.fields(call.offer.fields, call.version, is_flexible).unwrap();
        let walked = call.body.len() - walk.rest().len();
        let mut body = call.body.clone();
        if testing::decode(call.api(), &mut body, call.version).is_err() {
            return None;
        }
        let decoded = call.body.len() - body.len();
        // A tag of Fetch that the decoder knows is read by its content there, and by its length here; nothing follows it.
        if call.api() != Api::Fetch || !is_flexible {
            assert_eq!(walked, decoded, "{:?} {}", call.api(), call.version);
        }
        Some(decoded)
    }

    #[test]
    fn each_request_of_each_version_passes_as_the_codec_writes_it() {
        for offer in api::OFFERS {
            for version in offer.min..=offer.max {
                let frame = testing::request(offer.api, version);
                let passed = pass(&frame);
                assert!(passed.is_some(), "{:?} {version}", offer.api);
                // Nothing of it may be missing.
                for length in 0..frame.len() {
                    assert!(
                        Frame::read(&frame.slice(..length)).is_err(),
                        "{:?} {version} {length}",
                        offer.api
                    );
                }
            }
        }
    }

    #[test]
    fn only_versions_are_answered_that_nobody_knows() {
        let frame = |key: i16, version: i16| {
            let mut frame = BytesMut::new();
            frame.put_i16(key);
            frame.put_i16(version);
            frame.put_i32(7);
            Frame::read(&frame.freeze())
        };
        assert!(matches!(frame(18, 99), Ok(Frame::Versions { correlation: 7 })));
        assert!(matches!(frame(1, 13), Err(Fault::NotOffered(1, 13))));
        assert!(matches!(frame(22, 0), Err(Fault::NotOffered(22, 0))));
        assert!(matches!(frame(-1, 0), Err(Fault::NotOffered(-1, 0))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn what_a_stranger_makes_of_a_request_is_refused_or_decoded(
            which in 0..api::OFFERS.len(),
            version in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
            is_cut in prop::bool::weighted(0.2),
            extra in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let offer = &api::OFFERS[which];
            let version = offer.min + version.index((offer.max - offer.min + 1) as usize) as i16;
            let mut frame = testing::request(offer.api, version).to_vec();
            for (place, value) in changes {
                let place = place.index(frame.len());
                frame[place] = value;
            }
            if is_cut {
                frame.truncate(cut.index(frame.len()));
            }
            frame.extend(extra);
            pass(&frame.into());
        }

        #[test]
        fn any_bytes_are_refused_or_decoded(
            which in 0..api::OFFERS.len(),
            version in any::<prop::sample::Index>(),
            body in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()], 0..200),
        ) {
            let offer = &api::OFFERS[which];
            let version = offer.min + version.index((offer.max - offer.min + 1) as usize) as i16;
            let mut frame = BytesMut::new();
            frame.put_i16(offer.key);
            frame.put_i16(version);
            frame.put_i32(1);
            frame.put_i16(-1);
            frame.extend_from_slice(&body);
            pass(&frame.freeze());
        }
    }
}
