//! What a script needs to know of a running hub, as one line of JSON: printed when ready, kept in
//! the data directory for later commands.

use std::path::{Path, PathBuf};

use dunlin_model::directory::Role;
use serde::{Deserialize, Serialize};

/// Where commands look for a hub that runs with this data directory.
pub const ENDPOINT_FILE: &str = "endpoint.json";

/// A hub that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// `host:port` of MQTT over TLS; empty, and left out, where no node is a gateway.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mqtts: String,
    /// `host:port` of AMQP over TLS; empty, and left out, where no node is a gateway.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub amqps: String,
    /// `host:port` of Kafka over TLS; empty, and left out, where no node is a gateway.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kafka: String,
    /// `host:port` of HTTPS and of MQTT over WebSocket.
    pub https: String,
    /// `host:port` of MQTT without TLS, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<String>,
    /// Certificate that clients trust.
    pub ca_file: PathBuf,
    /// Opens everything.
    pub admin_token: String,
    /// Connection string of the policy `iothubowner`.
    pub connection_string: String,
    /// The nodes behind it.
    pub nodes: Vec<ReadyNode>,
}

/// One node of a hub that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyNode {
    /// Its id, sixteen hexadecimal digits.
    pub id: String,
    /// Its process.
    pub pid: u32,
    /// What it does.
    pub roles: Vec<Role>,
    /// `host:port` of its MQTT over TLS; empty, and left out, when it is no gateway.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mqtts: String,
    /// `host:port` of its AMQP over TLS; empty, and left out, when it is no gateway.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub amqps: String,
    /// `host:port` of its Kafka over TLS; empty, and left out, when it is no gateway.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kafka: String,
    /// `host:port` of its HTTPS; of a node that is no gateway it serves operators alone.
    pub https: String,
    /// `host:port` of its MQTT without TLS, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<String>,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
}

impl Ready {
    /// Whether what it names first is for devices and services, not for operators alone.
    pub fn is_gateway(&self) -> bool {
        !self.mqtts.is_empty()
    }

    /// Writes it to `folder`, readable by its owner alone: it opens everything.
    pub fn save(&self, folder: &Path) -> std::io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = folder.join(ENDPOINT_FILE);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(&serde_json::to_vec(self).map_err(std::io::Error::other)?)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(folder: &Path) -> std::io::Result<Self> {
        let bytes = std::fs::read(folder.join(ENDPOINT_FILE))?;
        serde_json::from_slice(&bytes).map_err(std::io::Error::other)
    }
}
