//! How a client connects: where, as whom, and with what token.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use rmqtt_codec::types::{Protocol, QoS};
use rmqtt_codec::{v3, v5};
use rustls::ClientConfig;

use crate::auth::{self, AuthError};
use crate::mqtt::Version;
use crate::mqtt::wire::RECEIPT_PROPERTY;

/// How to reach the hub. Addresses are `host:port`.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Without TLS.
    Tcp {
        /// Where to dial.
        address: String,
    },
    /// MQTT over TLS.
    Tls {
        /// Where to dial.
        address: String,
        /// The name that the certificate must have.
        server_name: String,
        /// What to trust; see [`crate::tls::client_config`].
        config: Arc<ClientConfig>,
    },
    /// MQTT over WebSocket over TLS.
    WebSocket {
        /// Where to dial.
        address: String,
        /// The name that the certificate must have, and the `Host` of the request.
        server_name: String,
        /// What to trust.
        config: Arc<ClientConfig>,
    },
}

/// Everything that a connect needs.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// How to reach the hub.
    pub transport: Transport,
    /// Protocol version.
    pub version: Version,
    /// Client id; the device id.
    pub client_id: String,
    /// User name; see [`sdk_username`].
    pub username: String,
    /// Token; see [`device_token`].
    pub password: Option<String>,
    /// Whether to forget earlier subscriptions.
    pub clean: bool,
    /// Seconds; 0 for none.
    pub keep_alive_s: u16,
    /// Topic and payload of the will.
    pub will: Option<(String, Vec<u8>)>,
    /// QoS 1 messages that may be unacknowledged; an MQTT 5 hub may lower it.
    pub window: usize,
    /// MQTT 5: whether to ask for receipts.
    pub receipts: bool,
    /// Whether messages of QoS 1 are acknowledged as they come; otherwise the caller does it.
    pub acknowledges: bool,
    /// MQTT 5: messages that the client takes unacknowledged.
    pub receive_max: Option<u16>,
    /// MQTT 5: bytes of a packet that the client takes.
    pub packet_bytes_max: Option<u32>,
}

impl ConnectOptions {
    /// The options of an SDK: clean session 0, keep-alive 60 s, a window of 64, MQTT 3.1.1.
    pub fn new(transport: Transport, host: &str, device: &str, token: String) -> Self {
        Self {
            transport,
            version: Version::V3,
            client_id: device.to_owned(),
            username: sdk_username(host, device),
            password: Some(token),
            clean: false,
            keep_alive_s: 60,
            will: None,
            window: 64,
            receipts: false,
            acknowledges: true,
            receive_max: None,
            packet_bytes_max: None,
        }
    }

    pub(crate) fn connect_v3(&self) -> v3::Connect {
        v3::Connect {
            protocol: Protocol::default(),
            clean_session: self.clean,
            keep_alive: self.keep_alive_s,
            last_will: self.will.as_ref().map(|(topic, payload)| v3::LastWill {
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: topic.as_str().into(),
                message: payload.clone().into(),
            }),
            client_id: self.client_id.as_str().into(),
            username: Some(self.username.as_str().into()),
            password: self.password.clone().map(|token| token.into_bytes().into()),
            cert: None,
        }
    }

    pub(crate) fn connect_v5(&self) -> v5::Connect {
        let receipt = (RECEIPT_PROPERTY.into(), "1".into());
        v5::Connect {
            clean_start: self.clean,
            keep_alive: self.keep_alive_s,
            session_expiry_interval_secs: if self.clean { 0 } else { u32::MAX },
            auth_method: None,
            auth_data: None,
            request_problem_info: true,
            request_response_info: false,
            receive_max: self.receive_max.and_then(NonZeroU16::new),
            topic_alias_max: 0,
            user_properties: if self.receipts { vec![receipt] } else { Vec::new() },
            max_packet_size: self.packet_bytes_max.and_then(NonZeroU32::new),
            last_will: self.will.as_ref().map(|(topic, payload)| v5::LastWill {
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: topic.as_str().into(),
                message: payload.clone().into(),
                will_delay_interval_sec: None,
                correlation_data: None,
                message_expiry_interval: None,
                content_type: None,
                user_properties: Vec::new(),
                is_utf8_payload: None,
                response_topic: None,
            }),
            client_id: self.client_id.as_str().into(),
            username: Some(self.username.as_str().into()),
            password: self.password.clone().map(|token| token.into_bytes().into()),
            cert: None,
        }
    }
}

/// The user name as SDKs write it.
pub fn sdk_username(host: &str, device: &str) -> String {
    format!(
        "{host}/{device}/?api-version=2021-04-12&DeviceClientType=dunlin%2F{}",
        env!("CARGO_PKG_VERSION")
    )
}

/// A device's token, valid until `expiry_s` (seconds since 1970), signed with its Base64 key.
pub fn device_token(host: &str, device: &str, key: &str, expiry_s: u64) -> Result<String, AuthError> {
    auth::sign(&format!("{host}/devices/{device}"), key, expiry_s, None)
}
