//! What stands in a password: a connection string, of the hub or in the form that Event Hubs has.
//!
//! Decides what its parts are, without case in their names, as the SDKs do. Never whether they count.

use std::fmt;

/// User name of everybody who shows a connection string.
pub const USER: &str = "$ConnectionString";

/// `HostName=hub;SharedAccessKeyName=policy;SharedAccessKey=key`, or
/// `Endpoint=sb://hub/;SharedAccessKeyName=policy;SharedAccessKey=key;EntityPath=topic`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ConnectionString {
    /// The hub, possibly with a port.
    pub host: String,
    /// The policy.
    pub policy: String,
    /// Its Base64 key.
    pub key: String,
    /// The topic that it is for, if it names one.
    pub entity: Option<String>,
}

/// Shows everything but the key.
impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString")
            .field("host", &self.host)
            .field("policy", &self.policy)
            .field("entity", &self.entity)
            .finish_non_exhaustive()
    }
}

impl ConnectionString {
    /// Reads `text`; `None` unless it names a host, a policy and a key. Unknown parts are ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let mut found = Self::default();
        for part in text.trim().split(';').filter(|part| !part.trim().is_empty()) {
            // Keys end in '=': only the first one separates.
            let (name, value) = part.split_once('=')?;
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "hostname" => found.host = value.to_owned(),
                "endpoint" => {
                    let bare = value.split_once("://").map_or(value, |(_, rest)| rest);
                    found.host = bare.trim_end_matches('/').to_owned();
                }
                "sharedaccesskeyname" => found.policy = value.to_owned(),
                "sharedaccesskey" => found.key = value.to_owned(),
                "entitypath" if !value.is_empty() => found.entity = Some(value.to_owned()),
                _ => {}
            }
        }
        let is_whole = ![&found.host, &found.policy, &found.key]
            .iter()
            .any(|part| part.is_empty());
        is_whole.then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let hub =
            ConnectionString::parse("HostName=hub:8443;SharedAccessKeyName=service;SharedAccessKey=AA==");
        let mut wanted = ConnectionString {
            host: "hub:8443".into(),
            policy: "service".into(),
            key: "AA==".into(),
            entity: None,
        };
        assert_eq!(hub.as_ref(), Some(&wanted));
        assert!(!format!("{hub:?}").contains("AA=="));
        let events =
            "Endpoint=sb://hub/;SharedAccessKeyName=service;SharedAccessKey=AA==;EntityPath=messages;";
        (wanted.host, wanted.entity) = ("hub".into(), Some("messages".into()));
        assert_eq!(ConnectionString::parse(events), Some(wanted));
    }

    #[test]
    fn what_lacks_a_part_is_none() {
        for text in [
            "",
            "nothing",
            "HostName=hub;DeviceId=d;SharedAccessKey=A",
            "HostName=;SharedAccessKeyName=p;SharedAccessKey=A",
            "SharedAccessKeyName=p;SharedAccessKey=A",
            "Endpoint=sb:///;SharedAccessKeyName=p;SharedAccessKey=A",
        ] {
            assert_eq!(ConnectionString::parse(text), None, "{text}");
        }
    }
}
