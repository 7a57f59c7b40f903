//! Connection strings as IoT Hub writes them: `HostName=..;DeviceId=..;SharedAccessKey=..`, and those of policies as Event
//! Hubs does: `Endpoint=sb://../;SharedAccessKeyName=..;SharedAccessKey=..`.
//!
//! Names are compared without case, as the SDKs do. Unknown parts are ignored; keys are not checked
//! before they are used.

use std::fmt;

/// A device's or a service's connection string.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ConnectionString {
    /// The hub, possibly with a port.
    pub host_name: String,
    /// The device, for a device.
    pub device_id: Option<String>,
    /// The policy, for a service.
    pub shared_access_key_name: Option<String>,
    /// The Base64 key.
    pub shared_access_key: String,
    /// The host to dial instead of the hub.
    pub gateway_host_name: Option<String>,
    /// What it is for alone, if it names that: a topic.
    pub entity_path: Option<String>,
}

/// Why a text is not a connection string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// A part has no `=`.
    #[error("a part of the connection string has no '='")]
    NotAPair,
    /// A part that must be there is missing.
    #[error("the connection string has no {0}")]
    Missing(&'static str),
}

impl ConnectionString {
    /// Reads `text`. It must name a host, a key, and whose key that is.
    pub fn parse(text: &str) -> Result<Self, ConnectionStringError> {
        let mut found = Self::default();
        for part in text.trim().split(';').filter(|part| !part.trim().is_empty()) {
            // Keys end in '=': only the first one separates.
            let (name, value) = part.split_once('=').ok_or(ConnectionStringError::NotAPair)?;
            let value = value.trim().to_owned();
            match name.trim().to_ascii_lowercase().as_str() {
                "hostname" => found.host_name = value,
                "endpoint" => {
                    let bare = value.split_once("://").map_or(&*value, |(_, rest)| rest);
                    found.host_name = bare.trim_end_matches('/').to_owned();
                }
                "deviceid" => found.device_id = Some(value),
                "sharedaccesskeyname" => found.shared_access_key_name = Some(value),
                "sharedaccesskey" => found.shared_access_key = value,
                "entitypath" if !value.is_empty() => found.entity_path = Some(value),
                "gatewayhostname" => found.gateway_host_name = Some(value),
                _ => {}
            }
        }
        if found.host_name.is_empty() {
            return Err(ConnectionStringError::Missing("HostName"));
        }
        if found.shared_access_key.is_empty() {
            return Err(ConnectionStringError::Missing("SharedAccessKey"));
        }
        if found.device_id.is_none() && found.shared_access_key_name.is_none() {
            return Err(ConnectionStringError::Missing("DeviceId or SharedAccessKeyName"));
        }
        Ok(found)
    }

    /// Writes it as [`parse`](Self::parse) reads it.
    pub fn format(&self) -> String {
        let mut text = format!("HostName={}", self.host_name);
        for (name, value) in [
            ("DeviceId", self.device_id.as_deref()),
            ("SharedAccessKeyName", self.shared_access_key_name.as_deref()),
            ("SharedAccessKey", Some(self.shared_access_key.as_str())),
            ("GatewayHostName", self.gateway_host_name.as_deref()),
            ("EntityPath", self.entity_path.as_deref()),
        ] {
            if let Some(value) = value {
                text.push_str(&format!(";{name}={value}"));
            }
        }
        text
    }

    /// The host to dial.
    pub fn dialled_host(&self) -> &str {
        self.gateway_host_name.as_deref().unwrap_or(&self.host_name)
    }
}

/// Shows everything but the key.
impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = Self {
            shared_access_key: "..".into(),
            ..self.clone()
        };
        f.write_str(&hidden.format())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_form_of_event_hubs_is_read() {
        let events =
            "Endpoint=sb://hub/;SharedAccessKeyName=service;SharedAccessKey=AA==;EntityPath=messages;";
        let wanted = ConnectionString {
            host_name: "hub".into(),
            shared_access_key_name: Some("service".into()),
            shared_access_key: "AA==".into(),
            entity_path: Some("messages".into()),
            ..ConnectionString::default()
        };
        assert_eq!(ConnectionString::parse(events), Ok(wanted));
        let nowhere = ConnectionString::parse("Endpoint=sb:///;SharedAccessKeyName=p;SharedAccessKey=A");
        assert_eq!(nowhere, Err(ConnectionStringError::Missing("HostName")));
    }

    #[test]
    fn device_and_service_strings_are_read_and_written() {
        for text in [
            "HostName=hub.example;DeviceId=dev-1;SharedAccessKey=AAEC==",
            "HostName=localhost:8443;SharedAccessKeyName=iothubowner;SharedAccessKey=AAEC=",
            "HostName=hub;DeviceId=d;SharedAccessKey=A;GatewayHostName=edge",
        ] {
            let read = ConnectionString::parse(text).unwrap();
            assert_eq!(read.format(), text);
            assert!(!format!("{read:?}").contains("AAEC"));
        }
        let read = ConnectionString::parse(" hostname=h;deviceid=d;sharedaccesskey=k=;x=y; ").unwrap();
        assert_eq!(
            (read.host_name.as_str(), read.shared_access_key.as_str()),
            ("h", "k=")
        );
        assert_eq!(
            ConnectionString::parse("HostName=h;DeviceId=d"),
            Err(ConnectionStringError::Missing("SharedAccessKey"))
        );
        assert_eq!(ConnectionString::parse("x"), Err(ConnectionStringError::NotAPair));
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in ".{0,120}") { let _ = ConnectionString::parse(&noise); }
    }
}
