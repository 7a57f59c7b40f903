//! A device that registers over MQTT: a connection that is no session, where requests for provisioning are answered.
//!
//! It proves who it is with its CONNECT, asks by publishing, and is told on a topic of its own; nothing outlives the
//! connection. What becomes of a request is decided in [`crate::provisioning`].

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::DisconnectReasonCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::session::Session;
use super::socket::{Moved, Socket};
use super::topic::parameter;
use super::wire::{Codec, ConnectRequest, FilterCode, Incoming, Refused};
use crate::auth::{self, Shown};
use crate::limits::{ADMIT_WAIT, PROVISIONING_RETRY_S, PROVISIONING_SILENCE_WAIT, TOPIC_BYTES_MAX};
use crate::metrics::count;
use crate::provisioning::error::ProvisioningError;
use crate::provisioning::{self, Asked, answer};
use crate::shared::Shared;

/// What a device subscribes to, to be answered.
const ANSWERS_FILTER: &str = "$dps/registrations/res/#";
/// Bytes that wait to be written before we stop reading.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// A device that registers, as its CONNECT names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Applicant {
    scope: String,
    name: String,
    token: Option<String>,
}

impl Applicant {
    /// Reads the user name `{idScope}/registrations/{registrationId}/api-version=..`, which no device of `hosts` has.
    pub(crate) fn of(request: &ConnectRequest, hosts: &[String]) -> Option<Self> {
        let mut parts = request.username.as_deref()?.splitn(4, '/');
        let (scope, collection, name) = (parts.next()?, parts.next()?, parts.next()?);
        if collection != "registrations" || name.is_empty() || auth::is_host(hosts, scope) {
            return None;
        }
        let token = request.password.as_ref();
        Some(Self {
            scope: scope.to_owned(),
            name: name.to_owned(),
            // What is no text is no token, and is refused as one.
            token: token.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        })
    }

    fn asked<'a>(&'a self, shown: Option<&'a Shown>, peer: SocketAddr) -> Asked<'a> {
        Asked {
            scope: &self.scope,
            name: &self.name,
            token: self.token.as_deref(),
            shown,
            tpm: None,
            peer: Some(peer),
        }
    }
}

/// A request that a device publishes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    Register { rid: &'a str },
    Operation { rid: &'a str, operation: &'a str },
}

/// The request that `topic` names.
pub(crate) fn request(topic: &str) -> Option<Request<'_>> {
    let rest = topic.strip_prefix("$dps/registrations/")?;
    if topic.len() > TOPIC_BYTES_MAX {
        return None;
    }
    if let Some(query) = rest.strip_prefix("PUT/iotdps-register/") {
        let rid = parameter(query, "$rid")?;
        return Some(Request::Register { rid });
    }
    let query = rest.strip_prefix("GET/iotdps-get-operationstatus/")?;
    Some(Request::Operation {
        rid: parameter(query, "$rid")?,
        operation: parameter(query, "operationId")?,
    })
}

/// Where an answer goes. Clients take it apart at its `$`: there is one in front, and one before `rid`.
fn answer_topic(status: u16, rid: &str, retries: bool) -> String {
    let retry = if retries {
        format!("&retry-after={PROVISIONING_RETRY_S}")
    } else {
        String::new()
    };
    format!("$dps/registrations/res/{status}/?$rid={rid}{retry}")
}

/// Lets an applicant in: it has shown what an enrolment asks for, whether or not that is enabled. The answer to one that
/// has not, and why.
pub(crate) async fn admit(
    shared: &Shared,
    request: &ConnectRequest,
    applicant: &Applicant,
    (shown, peer): (Option<&Shown>, SocketAddr),
) -> Result<(), (Refused, String)> {
    if request.extended_auth {
        let why = "extended authentication is not offered".to_owned();
        return Err((Refused::AuthMethod, why));
    }
    if !request.client_id.eq_ignore_ascii_case(&applicant.name) {
        return Err((
            Refused::ClientId,
            "client id is not the registration's".to_owned(),
        ));
    }
    let asked = applicant.asked(shown, peer);
    let admitting = timeout(ADMIT_WAIT, provisioning::admit(shared, &asked));
    let admitted = admitting
        .await
        .unwrap_or_else(|_| Err(ProvisioningError::unavailable("no answer from the shard")));
    match admitted {
        Ok(attested) => {
            let delay = shared.damp(attested.id.as_device());
            if !delay.is_zero() {
                count(&shared.metrics.connects_damped);
                tokio::time::sleep(delay).await;
            }
            Ok(())
        }
        Err(error) if error.code.status() >= 429 => Err((Refused::Unavailable, error.message)),
        Err(error) => Err((Refused::NotAuthorized, error.message)),
    }
}

/// Serves an applicant that was let in, until it goes.
pub(super) async fn serve<S>(
    shared: &Arc<Shared>,
    socket: &mut Socket<S>,
    codec: &mut Codec,
    (applicant, keep_alive_s): (&Applicant, u16),
    (shown, peer): (Option<&Shown>, SocketAddr),
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    codec.open_up();
    let server_keep_alive_s = Session::server_keep_alive_s(keep_alive_s);
    codec.put_accepted(false, false, server_keep_alive_s, &mut socket.out);
    let mut visit = Visit {
        shared,
        asked: applicant.asked(shown, peer),
        is_subscribed: false,
    };
    let silence = silence(keep_alive_s);
    loop {
        loop {
            match codec.decode(&mut socket.read) {
                Ok(None) => break,
                Ok(Some(packet)) => {
                    if !visit.handle(packet, codec, socket).await {
                        return socket.farewell().await;
                    }
                }
                Err(error) => {
                    count(&shared.metrics.protocol_errors);
                    tracing::debug!(%peer, %error, "a device that registers is not understood");
                    return socket.farewell().await;
                }
            }
        }
        let may_read = socket.out.len() < OUT_BYTES_MAX;
        let moved = tokio::select! {
            () = shared.draining.cancelled() => return socket.farewell().await,
            moved = timeout(silence, poll_fn(|cx| socket.poll(cx, may_read))) => moved,
        };
        match moved {
            Ok(Ok(Moved::Read | Moved::Written)) => {}
            Ok(Ok(Moved::Ended) | Err(_)) | Err(_) => return,
        }
    }
}

/// How long an applicant may say nothing: what it promised, and half of it again (MQTT-3.1.2-24).
fn silence(keep_alive_s: u16) -> Duration {
    match keep_alive_s {
        0 => PROVISIONING_SILENCE_WAIT,
        seconds => PROVISIONING_SILENCE_WAIT.min(Duration::from_secs(seconds.into()) * 3 / 2),
    }
}

/// One connection of an applicant.
struct Visit<'a> {
    shared: &'a Arc<Shared>,
    asked: Asked<'a>,
    is_subscribed: bool,
}

impl Visit<'_> {
    /// Handles one packet; returns whether the connection goes on.
    async fn handle<S>(&mut self, packet: Incoming, codec: &mut Codec, socket: &mut Socket<S>) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match packet {
            Incoming::Publish(publish) => return self.publish(&publish, codec, socket).await,
            Incoming::Subscribe { packet_id, filters } => {
                let codes: Vec<FilterCode> = filters.iter().map(|filter| self.subscribe(filter)).collect();
                codec.put_suback(packet_id, &codes, &mut socket.out);
            }
            Incoming::Unsubscribe { packet_id, filters } => {
                if filters.iter().any(|filter| filter == ANSWERS_FILTER) {
                    self.is_subscribed = false;
                }
                codec.put_unsuback(packet_id, filters.len(), &mut socket.out);
            }
            Incoming::Ping => codec.put_pong(&mut socket.out),
            Incoming::Ack { .. } => {}
            Incoming::Disconnect { .. } => return false,
            Incoming::Connect(_) | Incoming::Unexpected | Incoming::Against(_) => {
                count(&self.shared.metrics.protocol_errors);
                codec.put_disconnect(DisconnectReasonCode::ProtocolError, &mut socket.out);
                return false;
            }
        }
        true
    }

    fn subscribe(&mut self, (filter, qos): &(String, u8)) -> FilterCode {
        if filter != ANSWERS_FILTER {
            return FilterCode::NotOwn;
        }
        self.is_subscribed = true;
        FilterCode::Granted((*qos).min(1))
    }

    /// Answers a request. One that is not understood ends the connection, as for devices.
    async fn publish<S>(&mut self, publish: &Publish, codec: &mut Codec, socket: &mut Socket<S>) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let wanted = request(&publish.topic).filter(|_| publish.qos != QoS::ExactlyOnce);
        let Some(wanted) = wanted else {
            count(&self.shared.metrics.protocol_errors);
            codec.put_disconnect(DisconnectReasonCode::TopicNameInvalid, &mut socket.out);
            return false;
        };
        if let (QoS::AtLeastOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
            codec.put_puback(packet_id.get(), None, &mut socket.out);
        }
        let (rid, answered) = match wanted {
            Request::Register { rid } => (
                rid,
                answer::register(self.shared, &self.asked, &publish.payload).await,
            ),
            Request::Operation { rid, operation } => {
                (rid, answer::operation(self.shared, &self.asked, operation).await)
            }
        };
        if !self.is_subscribed {
            return true;
        }
        let (status, body, retries) = match answered {
            Ok(answered) => (answered.status, answered.body, false),
            Err(error) => {
                let body = error.json(self.shared.now_ms());
                (error.code.status(), body, error.code.is_passing())
            }
        };
        let topic = answer_topic(status, rid, retries);
        codec.put_publish(&topic, Bytes::from(body.to_string()), &mut socket.out);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::*;

    fn connect(username: &str) -> ConnectRequest {
        ConnectRequest {
            version: Version::V3,
            client_id: "sn-1".into(),
            username: Some(username.into()),
            password: Some(b"SharedAccessSignature x".to_vec()),
            clean: true,
            keep_alive_s: 60,
            will: None,
            receipts: false,
            receive_max: None,
            extended_auth: false,
        }
    }

    #[test]
    fn applicants_are_told_from_devices() {
        let hosts = ["hub.example".to_owned()];
        let of = |username: &str| Applicant::of(&connect(username), &hosts);
        let python = "0ne00000001/registrations/sn-1/api-version=2019-03-31&ClientVersion=azure-iot-device-provisioning-py%2F2.14.0";
        let applicant = of(python).expect("an applicant");
        assert_eq!((&*applicant.scope, &*applicant.name), ("0ne00000001", "sn-1"));
        assert!(of("0ne00000001/registrations/sn-1").is_some());
        for other in [
            "hub.example/registrations/module/?api-version=1",
            "hub.example/sn-1/?api-version=1",
            "0ne00000001/registrations/",
            "0ne00000001/registrations",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn requests_are_read_as_sdks_send_them() {
        assert_eq!(
            request("$dps/registrations/PUT/iotdps-register/?$rid=ab-1"),
            Some(Request::Register { rid: "ab-1" })
        );
        assert_eq!(
            request("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=5.x.y"),
            Some(Request::Operation {
                rid: "2",
                operation: "5.x.y"
            })
        );
        let long = format!(
            "$dps/registrations/PUT/iotdps-register/?$rid={}",
            "x".repeat(TOPIC_BYTES_MAX)
        );
        for wrong in [
            "$dps/registrations/PUT/iotdps-register/",
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2",
            "$dps/registrations/res/#",
            "devices/sn-1/messages/events/",
            &long,
        ] {
            assert_eq!(request(wrong), None, "{wrong:.80}");
        }
    }

    #[test]
    fn answers_go_where_clients_look_for_them() {
        assert_eq!(
            answer_topic(200, "7", false),
            "$dps/registrations/res/200/?$rid=7"
        );
        let retry = answer_topic(503, "7", true);
        assert_eq!(retry, "$dps/registrations/res/503/?$rid=7&retry-after=2");
        assert_eq!(silence(0), PROVISIONING_SILENCE_WAIT);
        assert_eq!(silence(60), Duration::from_secs(90));
        assert_eq!(silence(u16::MAX), PROVISIONING_SILENCE_WAIT);
    }
}
