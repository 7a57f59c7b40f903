//! The protocol of one connection: bytes in, work out, answers in, bytes out.
//!
//! Decides what may be asked at which point: three requests of a stranger, everything else of somebody known. One
//! request is worked on at a time and the others wait, as in Kafka itself: their effects must come in their order, e.g.
//! two commits. It reads no clock and asks nobody; the socket is [`connection`](super::connection)'s, the work is done
//! in [`serve`](super::serve).

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::OwnedSemaphorePermit;

use super::api::{self, Api};
use super::backend::{Principal, Refused};
use super::call::{self, Call, Fault, Frame};
use super::code::Code;
use super::limits::{
    ANSWER_BYTES_MAX, REQUEST_BYTES_FIRST, REQUEST_BYTES_MAX, REQUESTS_WAITING_BYTES_MAX,
    REQUESTS_WAITING_MAX,
};
use super::outbox::Outbox;
use super::plain::{self, Shown};

/// What is to be done outside.
#[derive(Debug)]
pub(crate) enum Work {
    /// Find out who this is; the answer goes to [`Machine::handle_signed_in`].
    SignIn(Shown),
    /// Answer this; the answer goes to [`Machine::handle_answer`].
    Call(Call),
}

/// Where a peer is on its way in.
#[derive(Debug)]
enum Phase {
    /// Nobody knows who it is.
    Stranger,
    /// The mechanism is agreed on. What comes next is a token: bare, if the handshake was of version 0.
    Agreed { is_bare: bool },
    /// The token is looked at.
    Asked(Asked),
    /// Its sender is known.
    Known(Principal),
}

/// How a token came, and so how it is answered.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Bare,
    Call { correlation: i32, version: i16 },
}

/// See the file.
#[derive(Debug)]
pub(crate) struct Machine {
    /// What waits to be written.
    pub(crate) out: Outbox,
    phase: Phase,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// Whether a piece of work is outside.
    is_working: bool,
    is_closed: bool,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            out: Outbox::default(),
            phase: Phase::Stranger,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            is_working: false,
            is_closed: false,
        }
    }

    /// Whose connection it is.
    pub(crate) fn principal(&self) -> Option<&Principal> {
        match &self.phase {
            Phase::Known(principal) => Some(principal),
            _ => None,
        }
    }

    /// Whether it ends once everything is written.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether anything is asked that was not answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_working || !self.waiting.is_empty()
    }

    /// Whether a request waits for its turn.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether there is room for more requests.
    pub(crate) fn has_room(&self) -> bool {
        let bytes_max = match self.phase {
            Phase::Known(_) => REQUESTS_WAITING_BYTES_MAX,
            _ => REQUEST_BYTES_FIRST,
        };
        !self.is_closed && self.waiting.len() < REQUESTS_WAITING_MAX && self.waiting_bytes < bytes_max
    }

    /// Takes the whole requests out of `buffer`, as long as there is room. Says whether there was one.
    pub(crate) fn handle_bytes(&mut self, buffer: &mut BytesMut) -> Result<bool, Fault> {
        let mut is_any = false;
        while self.has_room()
            && let Some((length, _)) = buffer.split_first_chunk()
        {
            let length = i32::from_be_bytes(*length);
            let bytes_max = match self.phase {
                Phase::Known(_) => REQUEST_BYTES_MAX,
                _ => REQUEST_BYTES_FIRST,
            };
            let length = usize::try_from(length)
                .ok()
                .filter(|length| *length <= bytes_max)
                .ok_or(Fault::Size(length.into()))?;
            if buffer.len() - 4 < length {
                break;
            }
            buffer.advance(4);
            self.waiting.push_back(buffer.split_to(length).freeze());
            self.waiting_bytes += length;
            is_any = true;
        }
        Ok(is_any)
    }

    /// The next piece of work. There is none while one is outside or answers are not written yet.
    pub(crate) fn poll_work(&mut self) -> Result<Option<Work>, Fault> {
        while !self.is_working && !self.is_closed && self.out.is_empty() {
            let Some(frame) = self.waiting.pop_front() else {
                break;
            };
            self.waiting_bytes -= frame.len();
            let work = match self.phase {
                Phase::Agreed { is_bare: true } => Some(self.sign_in(&frame, Asked::Bare)?),
                _ => self.handle_frame(&frame)?,
            };
            if work.is_some() {
                self.is_working = true;
                return Ok(work);
            }
        }
        Ok(None)
    }

    fn handle_frame(&mut self, frame: &Bytes) -> Result<Option<Work>, Fault> {
        let mut call = match Frame::read(frame)? {
            Frame::Call(call) => call,
            Frame::Versions { correlation } => {
                let versions = versions(Code::UNSUPPORTED_VERSION);
                self.put(call::answer(correlation, 0, &versions, ANSWER_BYTES_MAX)?);
                return Ok(None);
            }
        };
        tracing::debug!(api = ?call.api(), version = call.version, client = %call.client_id, "kafka request");
        match (call.api(), &self.phase) {
            (Api::ApiVersions, _) => {
                let request: ApiVersionsRequest = call.take()?;
                let (name, version) = (request.client_software_name, request.client_software_version);
                tracing::debug!(client = %call.client_id, %name, %version, "kafka client");
                self.put(call.answer(&versions(Code::NONE))?);
                Ok(None)
            }
            (Api::SaslHandshake, Phase::Stranger) => {
                let request: SaslHandshakeRequest = call.take()?;
                let response = self.shake(&request, call.version);
                self.put(call.answer(&response)?);
                Ok(None)
            }
            (Api::SaslAuthenticate, Phase::Agreed { is_bare: false }) => {
                let request: SaslAuthenticateRequest = call.take()?;
                let asked = Asked::Call {
                    correlation: call.correlation,
                    version: call.version,
                };
                self.sign_in(&request.auth_bytes, asked).map(Some)
            }
            (api @ (Api::SaslHandshake | Api::SaslAuthenticate), Phase::Known(_)) => {
                Err(Fault::SignedInAlready(api))
            }
            (_, Phase::Known(_)) => Ok(Some(Work::Call(call))),
            (api, _) => Err(Fault::Stranger(api)),
        }
    }

    fn shake(&mut self, request: &SaslHandshakeRequest, version: i16) -> SaslHandshakeResponse {
        let is_spoken = request.mechanism.as_str() == plain::MECHANISM;
        let code = if is_spoken {
            self.phase = Phase::Agreed {
                is_bare: version == 0,
            };
            Code::NONE
        } else {
            self.is_closed = true;
            Code::UNSUPPORTED_SASL_MECHANISM
        };
        SaslHandshakeResponse::default()
            .with_error_code(code.0)
            .with_mechanisms(vec![StrBytes::from_static_str(plain::MECHANISM)])
    }

    fn sign_in(&mut self, token: &[u8], asked: Asked) -> Result<Work, Fault> {
        self.phase = Phase::Asked(asked);
        // What is no token is a password that does not count, to the same answer.
        let shown = plain::read(token).unwrap_or(Shown {
            user: String::new(),
            password: String::new(),
        });
        Ok(Work::SignIn(shown))
    }

    /// Takes what came of [`Work::SignIn`].
    pub(crate) fn handle_signed_in(&mut self, result: Result<Principal, Refused>) -> Result<(), Fault> {
        let Phase::Asked(asked) = self.phase else {
            return Ok(());
        };
        self.is_working = false;
        let refusal = match result {
            Ok(principal) => {
                self.phase = Phase::Known(principal);
                None
            }
            Err(Refused::Unavailable) => return Err(Fault::Undecided),
            Err(refused @ Refused::Wrong) => {
                self.is_closed = true;
                Some(refused.to_string())
            }
        };
        match asked {
            Asked::Call { correlation, version } => {
                let code = refusal
                    .as_ref()
                    .map_or(Code::NONE, |_| Code::SASL_AUTHENTICATION_FAILED);
                let response = SaslAuthenticateResponse::default()
                    .with_error_code(code.0)
                    .with_error_message(refusal.map(StrBytes::from_string));
                self.put(call::answer(correlation, version, &response, ANSWER_BYTES_MAX)?);
            }
            // A bare token is answered with an empty one, and a refusal with nothing.
            Asked::Bare if refusal.is_none() => self.put(Bytes::from_static(&[0; 4])),
            Asked::Bare => {}
        }
        Ok(())
    }

    /// Takes what came of [`Work::Call`], with what it holds until it is written.
    pub(crate) fn handle_answer(&mut self, frame: Bytes, held: Option<OwnedSemaphorePermit>) {
        self.is_working = false;
        self.out.push(frame, held);
    }

    fn put(&mut self, frame: Bytes) {
        self.out.push(frame, None);
    }
}

/// What is offered. With an error it must be readable by whoever knows version 0.
fn versions(code: Code) -> ApiVersionsResponse {
    let keys = api::OFFERS.iter().map(|offer| {
        ApiVersion::default()
            .with_api_key(offer.key)
            .with_min_version(offer.min)
            .with_max_version(offer.max)
    });
    ApiVersionsResponse::default()
        .with_error_code(code.0)
        .with_api_keys(keys.collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use bytes::BufMut as _;
    use kafka_protocol::messages::{HeartbeatRequest, MetadataRequest};

    fn put(buffer: &mut BytesMut, frame: &[u8]) {
        buffer.put_u32(frame.len() as u32);
        buffer.put_slice(frame);
    }

    fn metadata(correlation: i32) -> Bytes {
        testing::frame(Api::Metadata, 9, correlation, &MetadataRequest::default())
    }

    /// A machine whose peer is known.
    fn known() -> Machine {
        let mut machine = Machine::new();
        machine.phase = Phase::Known(Principal::new("service".into(), "a key"));
        machine
    }

    fn correlation(work: Option<Work>) -> Option<i32> {
        match work {
            Some(Work::Call(call)) => Some(call.correlation),
            _ => None,
        }
    }

    #[test]
    fn one_request_is_worked_on_at_a_time_and_in_order() {
        let (mut machine, mut buffer) = (known(), BytesMut::new());
        (1..=3).for_each(|number| put(&mut buffer, &metadata(number)));
        assert_eq!(machine.handle_bytes(&mut buffer), Ok(true));
        assert_eq!(correlation(machine.poll_work().unwrap()), Some(1));
        assert!(machine.poll_work().unwrap().is_none() && machine.has_waiting());
        machine.handle_answer(Bytes::from_static(b"one"), None);
        assert!(
            machine.poll_work().unwrap().is_none(),
            "the answer is to be written first"
        );
        machine.out.advance(3);
        assert_eq!(correlation(machine.poll_work().unwrap()), Some(2));
        machine.handle_answer(Bytes::new(), None);
        assert_eq!(correlation(machine.poll_work().unwrap()), Some(3));
        machine.handle_answer(Bytes::new(), None);
        assert!(machine.poll_work().unwrap().is_none() && !machine.is_busy());
    }

    #[test]
    fn requests_come_in_pieces() {
        let mut machine = known();
        let mut whole = BytesMut::new();
        put(&mut whole, &metadata(1));
        let mut buffer = BytesMut::new();
        for (place, byte) in whole.iter().enumerate() {
            buffer.put_u8(*byte);
            assert_eq!(machine.handle_bytes(&mut buffer), Ok(place + 1 == whole.len()));
        }
    }

    #[test]
    fn only_so_many_wait_and_only_so_many_bytes_of_them() {
        let small = testing::frame(Api::Heartbeat, 0, 1, &HeartbeatRequest::default());
        let mut machine = known();
        let mut buffer = BytesMut::new();
        (0..2 * REQUESTS_WAITING_MAX).for_each(|_| put(&mut buffer, &small));
        machine.handle_bytes(&mut buffer).unwrap();
        assert_eq!(
            (machine.waiting.len(), machine.has_room()),
            (REQUESTS_WAITING_MAX, false)
        );
        machine.poll_work().unwrap();
        assert!(machine.has_room(), "the first has begun");
        let mut buffer = BytesMut::new();
        let large = vec![0; REQUEST_BYTES_MAX];
        (0..3).for_each(|_| put(&mut buffer, &large));
        let mut machine = known();
        machine.handle_bytes(&mut buffer).unwrap();
        assert_eq!(machine.waiting.len(), 1);
        let mut stranger = Machine::new();
        let mut buffer = BytesMut::new();
        (0..3).for_each(|_| put(&mut buffer, &large[..REQUEST_BYTES_FIRST]));
        stranger.handle_bytes(&mut buffer).unwrap();
        assert_eq!(stranger.waiting.len(), 1);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for (mut machine, length, is_sound) in [
            (known(), REQUEST_BYTES_MAX as i32, true),
            (known(), REQUEST_BYTES_MAX as i32 + 1, false),
            (known(), -1, false),
            (Machine::new(), REQUEST_BYTES_FIRST as i32, true),
            (Machine::new(), REQUEST_BYTES_FIRST as i32 + 1, false),
        ] {
            let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
            assert_eq!(machine.handle_bytes(&mut buffer).is_ok(), is_sound, "{length}");
        }
    }

    #[test]
    fn nothing_is_said_where_nobody_can_decide() {
        let mut machine = Machine::new();
        machine.phase = Phase::Asked(Asked::Bare);
        assert_eq!(
            machine.handle_signed_in(Err(Refused::Unavailable)),
            Err(Fault::Undecided)
        );
        assert!(machine.out.is_empty());
    }
}
