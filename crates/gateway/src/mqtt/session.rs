//! The machine of one admitted connection: packets, acknowledgements and time in; effects out.
//!
//! Pure: no socket, no clock, no cluster. The order of use is: [`Session::handle_packet`] for each
//! packet while [`Session::can_take`], the shell carries out the [`Effect`]; [`Session::handle_ack`]
//! for each end that the cluster reports; then [`Session::poll_puback`] until it is empty,
//! [`Session::handle_time`], and [`Session::poll_end`]. PUBACKs leave in the order of the PUBLISHes
//! and only for messages that are stored (invariant: no ack without a majority on disk).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dunlin_model::command::{Receipt, TelemetryAck};
use dunlin_model::id::DeviceId;
use dunlin_model::limits::MESSAGE_BYTES_MAX;
use dunlin_model::telemetry::{self, AuthMethod, Source};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{DisconnectReasonCode, PublishProperties};

use super::Version;
use super::topic::{self, TopicError, TwinRequest};
use super::twin;
use super::wire::Incoming;
pub use super::wire::{FilterCode, Will};
use crate::bag;
use crate::limits::{
    FILTERS_MAX, KEEP_ALIVE_S_MAX, KEEP_ALIVE_WAIT_MAX, RECEIVE_MAX, TOKEN_GRACE, TOPIC_ALIAS_MAX,
    TOPIC_BYTES_MAX, UPLINK_IN_FLIGHT_BYTES_MAX, UPLINK_IN_FLIGHT_MAX,
};

/// What was agreed when the connection was admitted.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The device.
    pub device: DeviceId,
    /// Epoch of its session; the fence of its records.
    pub epoch: u64,
    /// How it proved itself.
    pub auth: AuthMethod,
    /// Protocol version.
    pub version: Version,
    /// Keep-alive that the client asked for, in seconds; 0 for none.
    pub keep_alive_s: u16,
    /// How long the token is valid from now on.
    pub token_life: Duration,
    /// Whether PUBACKs carry receipts.
    pub receipts: bool,
    /// What to publish at an ungraceful end.
    pub will: Option<Will>,
}

/// What the shell has to do for a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The record is in the scratch buffer: submit it with this token.
    Submit(u64),
    /// Submit these filters (none if empty), then answer with these codes.
    Subscribe {
        /// Of the SUBSCRIBE.
        packet_id: u16,
        /// Filters that are granted, with their QoS.
        filters: Vec<(String, u8)>,
        /// One per filter of the packet.
        codes: Vec<FilterCode>,
    },
    /// Submit these filters (none if empty), then answer.
    Unsubscribe {
        /// Of the UNSUBSCRIBE.
        packet_id: u16,
        /// Own filters among them.
        filters: Vec<String>,
        /// Number of filters in the packet.
        count: usize,
    },
    /// Read the twin and answer; then [`Session::handle_answered`].
    TwinGet {
        /// Of the request.
        token: u64,
        /// What the answer must carry.
        rid: String,
    },
    /// Submit what the device reports and answer; then [`Session::handle_answered`].
    TwinReport {
        /// Of the request.
        token: u64,
        /// What the answer must carry; without one there is none.
        rid: Option<String>,
        /// A merge document as JSON text.
        patch: String,
        /// The version that `reported` must have.
        version: Option<u64>,
    },
    /// Answer a request about the twin with 400; then [`Session::handle_answered`].
    TwinRefuse {
        /// Of the request.
        token: u64,
        /// What the answer must carry; without one there is none.
        rid: Option<String>,
        /// What is wrong with it.
        message: String,
    },
    /// Give this answer to whoever called; then [`Session::handle_answered`].
    MethodAnswer {
        /// Of the message.
        token: u64,
        /// What the call carried.
        rid: String,
        /// A number of the device's own choice.
        status: i64,
        /// What stands in the message.
        payload: Bytes,
    },
    /// The device has acknowledged a message that it was sent, or refused it.
    Delivered {
        /// Of the message.
        packet_id: u16,
        /// Whether it was taken.
        accepted: bool,
    },
    /// Answer a ping.
    Pong,
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client said goodbye.
    Disconnected,
    /// The client said goodbye and wants its will published.
    DisconnectedWithWill,
    /// The socket was closed or failed.
    Lost,
    /// The client broke a rule.
    Broke(DisconnectReasonCode),
    /// The client was silent for too long.
    KeepAlive,
    /// The token is over, and so is its grace.
    TokenExpired,
    /// The client takes nothing of what we write.
    WriteStalled,
    /// A record was fenced: another session has taken over, or the credential is gone.
    Fenced,
    /// Nobody knows what became of a record.
    Unknown,
    /// The cluster is out of reach.
    Unavailable,
    /// The store is full.
    StorageFull,
    /// The hub does as much as its plan allows.
    OverQuota,
    /// The same device connected again.
    TakenOver,
    /// The device was disabled or deleted, or its key rolled.
    Revoked,
    /// What the session rests on besides its device is gone. The shard does not know, and is told.
    Fallen,
    /// The shard had given this gateway up.
    GatewayLost,
    /// This gateway is shutting down.
    Shutdown,
}

impl End {
    /// What MQTT 5 clients are told; `None` when they said goodbye or are gone.
    pub fn reason(self) -> Option<DisconnectReasonCode> {
        use DisconnectReasonCode as Code;
        Some(match self {
            End::Disconnected | End::DisconnectedWithWill | End::Lost | End::WriteStalled => return None,
            End::Broke(code) => code,
            End::KeepAlive => Code::KeepAliveTimeout,
            End::TokenExpired => Code::MaximumConnectTime,
            End::Fenced | End::TakenOver => Code::SessionTakenOver,
            // MQTT 5 has 0x88 for CONNACK only; of DISCONNECT's codes "busy" says to try again.
            End::Unknown | End::Unavailable => Code::ServerBusy,
            End::StorageFull | End::OverQuota => Code::QuotaExceeded,
            End::Revoked | End::Fallen => Code::NotAuthorized,
            End::GatewayLost => Code::ServerBusy,
            End::Shutdown => Code::ServerShuttingDown,
        })
    }

    /// Whether the will is published. Not for a session that lost its right to speak.
    pub fn fires_will(self) -> bool {
        !matches!(
            self,
            End::Disconnected | End::Fenced | End::TakenOver | End::Revoked | End::Fallen | End::GatewayLost
        )
    }

    /// Whether the client is gone by its own doing: what it sent before is still its word.
    pub fn is_parting(self) -> bool {
        matches!(self, End::Disconnected | End::DisconnectedWithWill | End::Lost)
    }

    /// Whether the shard ended the session itself and need not be told.
    pub fn is_known_above(self) -> bool {
        matches!(self, End::TakenOver | End::Revoked | End::GatewayLost)
    }
}

#[derive(Debug, Clone, Copy)]
struct Uplink {
    /// 0 for QoS 0.
    packet_id: u16,
    bytes: u32,
    end: Option<UplinkEnd>,
}

#[derive(Debug, Clone, Copy)]
enum UplinkEnd {
    Stored(Receipt),
    /// A request that has its answer.
    Answered,
    /// Nothing of it was done; MQTT 5 has a PUBACK for that.
    Refused,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    silence_max: Duration,
    heard: Instant,
    token_ends: Instant,
    /// In the order of their PUBLISHes; the first has token `first_token`.
    uplinks: VecDeque<Uplink>,
    first_token: u64,
    in_flight_bytes: usize,
    unacknowledged: u16,
    /// Aliased topics, by alias - 1.
    aliases: Vec<Option<Box<str>>>,
    bag: Vec<u8>,
    end: Option<End>,
}

impl Session {
    /// Begins at `now`.
    pub fn new(terms: Terms, now: Instant) -> Self {
        let silence_max = match terms.keep_alive_s {
            0 => KEEP_ALIVE_WAIT_MAX,
            seconds => (Duration::from_secs(u64::from(seconds)) * 3 / 2).min(KEEP_ALIVE_WAIT_MAX),
        };
        let token_ends = now + terms.token_life + TOKEN_GRACE;
        Self {
            silence_max,
            heard: now,
            token_ends,
            uplinks: VecDeque::new(),
            first_token: 0,
            in_flight_bytes: 0,
            unacknowledged: 0,
            aliases: Vec::new(),
            bag: Vec::new(),
            end: None,
            terms,
        }
    }

    /// What was agreed.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Keep-alive that an MQTT 5 client is told to use instead of its own, in seconds.
    pub fn server_keep_alive_s(keep_alive_s: u16) -> Option<u16> {
        (keep_alive_s == 0 || keep_alive_s > KEEP_ALIVE_S_MAX).then_some(KEEP_ALIVE_S_MAX)
    }

    /// Whether another packet may be handled: the connection goes on and its bounds are not reached.
    pub fn can_take(&self) -> bool {
        self.end.is_none()
            && self.uplinks.len() < UPLINK_IN_FLIGHT_MAX
            && self.in_flight_bytes < UPLINK_IN_FLIGHT_BYTES_MAX
    }

    /// Bytes came from the client at `now`: it is alive.
    pub fn handle_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Takes a packet. A record to submit replaces the content of `scratch`.
    pub(crate) fn handle_packet(&mut self, packet: Incoming, scratch: &mut BytesMut) -> Effect {
        match packet {
            Incoming::Publish(publish) => self.handle_publish(&publish, scratch),
            Incoming::Ping => Effect::Pong,
            Incoming::Ack { packet_id, accepted } => Effect::Delivered { packet_id, accepted },
            Incoming::Subscribe { packet_id, filters } => self.handle_subscribe(packet_id, filters),
            Incoming::Unsubscribe { packet_id, filters } => self.handle_unsubscribe(packet_id, filters),
            Incoming::Disconnect { with_will } => {
                self.handle_end(if with_will {
                    End::DisconnectedWithWill
                } else {
                    End::Disconnected
                });
                Effect::None
            }
            // MQTT-3.1.0-2: a second CONNECT is a protocol violation.
            Incoming::Connect(_) | Incoming::Unexpected => self.broke(DisconnectReasonCode::ProtocolError),
            Incoming::Against(code) => self.broke(code),
        }
    }

    fn broke(&mut self, code: DisconnectReasonCode) -> Effect {
        self.handle_end(End::Broke(code));
        Effect::None
    }

    fn handle_publish(&mut self, publish: &Publish, scratch: &mut BytesMut) -> Effect {
        if publish.qos == QoS::ExactlyOnce {
            return self.broke(DisconnectReasonCode::QosNotSupported);
        }
        let packet_id = match publish.qos {
            QoS::AtMostOnce => 0,
            _ => publish.packet_id.map_or(0, |id| id.get()),
        };
        if packet_id != 0 && self.terms.version == Version::V5 && self.unacknowledged >= RECEIVE_MAX {
            return self.broke(DisconnectReasonCode::ReceiveMaximumExceeded);
        }
        let topic = match self.resolve_topic(publish) {
            Ok(topic) => topic,
            Err(code) => return self.broke(code),
        };
        match topic::twin_request(&topic) {
            None => {}
            Some(Ok(request)) => return self.handle_twin_request(request, packet_id, &publish.payload),
            Some(Err(error)) => return self.broke(reason_of_topic(error)),
        }
        match topic::method_answer(&topic) {
            None => {}
            Some(Ok(answer)) => {
                return Effect::MethodAnswer {
                    token: self.push_uplink(packet_id, publish.payload.len()),
                    rid: answer.rid.to_owned(),
                    status: answer.status,
                    payload: publish.payload.clone(),
                };
            }
            Some(Err(error)) => return self.broke(reason_of_topic(error)),
        }
        if let Err(code) = self.fill_bag(publish, &topic) {
            return self.broke(code);
        }
        let source = if publish.retain {
            Source::MqttRetain
        } else {
            Source::Mqtt
        };
        match self.encode(source, &publish.payload, scratch) {
            Err(code) => self.broke(code),
            Ok(bytes) => Effect::Submit(self.push_uplink(packet_id, bytes)),
        }
    }

    fn push_uplink(&mut self, packet_id: u16, bytes: usize) -> u64 {
        let token = self.first_token + self.uplinks.len() as u64;
        self.uplinks.push_back(Uplink {
            packet_id,
            bytes: bytes as u32,
            end: None,
        });
        self.in_flight_bytes += bytes;
        self.unacknowledged += u16::from(packet_id != 0);
        token
    }

    fn handle_twin_request(&mut self, request: TwinRequest<'_>, packet_id: u16, payload: &[u8]) -> Effect {
        let token = self.push_uplink(packet_id, payload.len());
        match request {
            TwinRequest::Get { rid } => Effect::TwinGet {
                token,
                rid: rid.to_owned(),
            },
            TwinRequest::Report { rid, version } => {
                let rid = rid.map(str::to_owned);
                match twin::change_text(payload) {
                    Ok(patch) => Effect::TwinReport {
                        token,
                        rid,
                        patch,
                        version,
                    },
                    Err(message) => Effect::TwinRefuse { token, rid, message },
                }
            }
        }
    }

    /// The topic that the message names, itself or by an alias, which is kept if it is new.
    fn resolve_topic<'a>(&mut self, publish: &'a Publish) -> Result<Cow<'a, str>, DisconnectReasonCode> {
        let topic: &str = &publish.topic;
        let properties = publish.properties.as_ref();
        let Some(alias) = properties.and_then(|properties| properties.topic_alias) else {
            return match topic {
                "" => Err(DisconnectReasonCode::ProtocolError),
                topic => Ok(topic.into()),
            };
        };
        if alias.get() > TOPIC_ALIAS_MAX {
            return Err(DisconnectReasonCode::TopicAliasInvalid);
        }
        let place = usize::from(alias.get()) - 1;
        if topic.is_empty() {
            let known = self.aliases.get(place).and_then(Option::as_deref);
            return known
                .map(|topic| topic.to_owned().into())
                .ok_or(DisconnectReasonCode::ProtocolError);
        }
        if topic.len() > TOPIC_BYTES_MAX {
            return Err(DisconnectReasonCode::TopicNameInvalid);
        }
        if self.aliases.len() <= place {
            self.aliases.resize(place + 1, None);
        }
        self.aliases[place] = Some(topic.into());
        Ok(topic.into())
    }

    /// Leaves the property bag of a message to `topic` in `self.bag`.
    fn fill_bag(&mut self, publish: &Publish, topic: &str) -> Result<(), DisconnectReasonCode> {
        self.bag.clear();
        let bag = topic::telemetry_bag(topic, &self.terms.device).map_err(reason_of_topic)?;
        self.bag.extend_from_slice(bag.as_bytes());
        if let Some(properties) = &publish.properties {
            append_properties(&mut self.bag, properties);
            bag::check(&self.bag).map_err(|_| DisconnectReasonCode::QuotaExceeded)?;
        }
        Ok(())
    }

    fn encode(
        &self,
        source: Source,
        payload: &[u8],
        scratch: &mut BytesMut,
    ) -> Result<usize, DisconnectReasonCode> {
        if self.bag.len() + payload.len() > MESSAGE_BYTES_MAX {
            return Err(DisconnectReasonCode::PacketTooLarge);
        }
        scratch.clear();
        let terms = &self.terms;
        Ok(telemetry::encode(
            scratch,
            source,
            terms.auth,
            terms.epoch,
            &terms.device,
            (&self.bag, payload),
        ))
    }

    fn handle_subscribe(&mut self, packet_id: u16, wanted: Vec<(String, u8)>) -> Effect {
        if wanted.len() > FILTERS_MAX {
            return self.broke(DisconnectReasonCode::QuotaExceeded);
        }
        let (mut filters, mut codes) = (Vec::new(), Vec::with_capacity(wanted.len()));
        for (filter, qos) in wanted {
            if topic::is_own_filter(&filter, &self.terms.device) {
                let granted = qos.min(1);
                codes.push(FilterCode::Granted(granted));
                filters.push((filter, granted));
            } else if filter.starts_with("$share/") {
                codes.push(FilterCode::Shared);
            } else {
                codes.push(FilterCode::NotOwn);
            }
        }
        Effect::Subscribe {
            packet_id,
            filters,
            codes,
        }
    }

    fn handle_unsubscribe(&mut self, packet_id: u16, mut filters: Vec<String>) -> Effect {
        let count = filters.len();
        if count > FILTERS_MAX {
            return self.broke(DisconnectReasonCode::QuotaExceeded);
        }
        filters.retain(|filter| topic::is_own_filter(filter, &self.terms.device));
        Effect::Unsubscribe {
            packet_id,
            filters,
            count,
        }
    }

    /// The record of `token` has this end.
    pub fn handle_ack(&mut self, token: u64, ack: TelemetryAck) {
        let Some(uplink) = self.uplink(token) else {
            return;
        };
        match ack {
            TelemetryAck::Stored(receipt) => uplink.end = Some(UplinkEnd::Stored(receipt)),
            TelemetryAck::Fenced => self.handle_end(End::Fenced),
            TelemetryAck::Unknown => self.handle_end(End::Unknown),
        }
    }

    /// The request of `token` has its answer, or none was due.
    pub fn handle_answered(&mut self, token: u64) {
        if let Some(uplink) = self.uplink(token) {
            uplink.end = Some(UplinkEnd::Answered);
        }
    }

    /// The record of `token` was not taken, for want of room, and nothing of it was done. An MQTT 5 client is
    /// told so in its turn and may go on; MQTT 3.1.1 has no way to say it.
    pub fn handle_storage_full(&mut self, token: u64) {
        if self.terms.version == Version::V3 {
            return self.handle_end(End::StorageFull);
        }
        self.refuse(token);
    }

    /// The record of `token` was not taken, since the hub does as much as its plan allows. As with a full store; and QoS
    /// 0, of which nobody could be told, is not dropped in silence.
    pub fn handle_over_quota(&mut self, token: u64) {
        if self.terms.version == Version::V3 || self.uplink(token).is_some_and(|one| one.packet_id == 0) {
            return self.handle_end(End::OverQuota);
        }
        self.refuse(token);
    }

    fn uplink(&mut self, token: u64) -> Option<&mut Uplink> {
        let place = token.checked_sub(self.first_token)?;
        self.uplinks.get_mut(usize::try_from(place).ok()?)
    }

    fn refuse(&mut self, token: u64) {
        if let Some(uplink) = self.uplink(token) {
            uplink.end = Some(UplinkEnd::Refused);
        }
    }

    /// The next PUBACK of success that may leave: its packet id, and the receipt for those who asked for it.
    pub fn poll_puback(&mut self) -> Option<(u16, Option<Receipt>)> {
        loop {
            let front = *self.uplinks.front()?;
            match (front.end?, front.packet_id) {
                // Nobody waits for the end of QoS 0.
                (_, 0) => self.pop_uplink(front),
                (UplinkEnd::Stored(receipt), packet_id) => {
                    self.pop_uplink(front);
                    return Some((packet_id, self.terms.receipts.then_some(receipt)));
                }
                (UplinkEnd::Answered, packet_id) => {
                    self.pop_uplink(front);
                    return Some((packet_id, None));
                }
                (UplinkEnd::Refused, _) => return None,
            }
        }
    }

    /// The packet id of the next PUBACK that says "quota exceeded", if it is its turn. To be called when
    /// [`poll_puback`](Self::poll_puback) has nothing, until both have nothing.
    pub fn poll_refused(&mut self) -> Option<u16> {
        let front = *self.uplinks.front()?;
        matches!(front.end, Some(UplinkEnd::Refused)).then(|| {
            self.pop_uplink(front);
            front.packet_id
        })
    }

    fn pop_uplink(&mut self, front: Uplink) {
        self.uplinks.pop_front();
        self.first_token += 1;
        self.in_flight_bytes -= front.bytes as usize;
        self.unacknowledged -= u16::from(front.packet_id != 0);
    }

    /// Everything submitted with a token below this has its PUBACK.
    pub fn acknowledged_below(&self) -> u64 {
        self.first_token
    }

    /// When [`handle_time`](Self::handle_time) has something to do at the latest.
    pub fn poll_timeout(&self) -> Instant {
        (self.heard + self.silence_max).min(self.token_ends)
    }

    /// Looks at the time.
    pub fn handle_time(&mut self, now: Instant) {
        if now >= self.token_ends {
            self.handle_end(End::TokenExpired);
        } else if now.saturating_duration_since(self.heard) >= self.silence_max {
            self.handle_end(End::KeepAlive);
        }
    }

    /// The connection is over for this reason; the first one counts.
    pub fn handle_end(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// Whether the connection is over, and why.
    pub fn poll_end(&self) -> Option<End> {
        self.end
    }

    /// Writes the record of the will into `scratch`, if one is to be published for this end.
    pub fn take_will(&mut self, end: End, scratch: &mut BytesMut) -> bool {
        let Some(will) = self.terms.will.take() else {
            return false;
        };
        if !end.fires_will() {
            return false;
        }
        let Ok(bag) = topic::telemetry_bag(&will.topic, &self.terms.device) else {
            return false;
        };
        self.bag.clear();
        self.bag.extend_from_slice(bag.as_bytes());
        bag::append(&mut self.bag, "iothub-MessageType", "Will");
        if let Some(content_type) = &will.content_type {
            bag::append(&mut self.bag, "$.ct", content_type);
        }
        for (key, value) in &will.user_properties {
            bag::append(&mut self.bag, key, value);
        }
        bag::check(&self.bag).is_ok() && self.encode(Source::Will, &will.payload, scratch).is_ok()
    }
}

/// Whether `will` may be published by `device`; otherwise the CONNECT is refused.
pub(crate) fn is_own_will(will: &Will, device: &DeviceId) -> bool {
    topic::telemetry_bag(&will.topic, device).is_ok()
}

fn append_properties(bag: &mut Vec<u8>, properties: &PublishProperties) {
    if let Some(content_type) = &properties.content_type {
        bag::append(bag, "$.ct", content_type);
    }
    for (key, value) in &properties.user_properties {
        bag::append(bag, key, value);
    }
}

fn reason_of_topic(error: TopicError) -> DisconnectReasonCode {
    match error {
        TopicError::NotOwn => DisconnectReasonCode::TopicNameInvalid,
        TopicError::Bag(_) => DisconnectReasonCode::QuotaExceeded,
    }
}

#[cfg(test)]
mod tests;
