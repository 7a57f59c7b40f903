//! The front doors of Dunlin: devices over MQTT, services over HTTPS and AMQP, all as Azure IoT Hub's
//! clients expect them. It owns the listeners.
//!
//! The cluster is seen through one trait, [`ShardClient`], and nothing else; nothing is kept here that
//! a restart would lose. Start at [`mqtt`] for the way of a message, at [`http`] and `amqp` for services, at
//! [`auth`] for who may enter, at [`provisioning`] for devices that nobody knows yet. [`client`] is the device's side of the door. Bounds are in [`limits`].

#![forbid(unsafe_code)]

mod amqp;
pub mod auth;
pub mod bag;
mod byte_stream;
mod calling;
pub mod client;
mod configurations;
mod dispatch;
mod downward;
mod events;
mod feedback;
mod fleet;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handshakes;
pub mod http;
mod jobs;
pub mod kafka;
mod lease;
mod leftovers;
pub mod limits;
mod listen;
mod log_audit;
pub mod metrics;
pub mod mqtt;
mod nobody;
pub mod provisioning;
mod quota;
mod sessions;
mod shared;
pub mod tls;
pub mod uploads;
pub mod websocket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use dunlin_model::port::{AuditSink, BlobStore, DownlinkSink, Outbound, ShardClient, Tracer};
use tokio::net::TcpListener;

pub use metrics::Metrics;
use shared::Shared;
pub use tls::{TlsError, TlsIdentity};
pub use uploads::UploadConfig;

/// Whom the doors are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Devices, services and operators.
    Everyone,
    /// Operators alone: health, metrics and the cluster's administration. No MQTT, no AMQP, no registry, no
    /// events. For a node that is to be watched and run, and takes no part in what devices do.
    Operators,
}

/// Where the doors are and what they show.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Whom they are for. [`Audience::Operators`] allows no address for MQTT, AMQP or Kafka.
    pub audience: Audience,
    /// Names of the hub, without ports, the first being its own: what user names and tokens must name.
    pub host_names: Vec<String>,
    /// Addresses for MQTT over TLS (8883).
    pub mqtts: Vec<SocketAddr>,
    /// Addresses for HTTPS and MQTT over WebSocket (443).
    pub https: Vec<SocketAddr>,
    /// Addresses for AMQP over TLS (5671).
    pub amqps: Vec<SocketAddr>,
    /// Addresses for Kafka over TLS (9093).
    pub kafka: Vec<SocketAddr>,
    /// Address for MQTT without TLS; must be a loopback address.
    pub mqtt_plain: Option<SocketAddr>,
    /// Certificate and key of the TLS listeners.
    pub tls: TlsIdentity,
    /// Connections of all listeners together.
    pub connections_max: usize,
    /// Files that devices upload.
    pub uploads: UploadConfig,
}

/// Follows orders, and says what came of it.
pub type FaultsHook = Arc<dyn Fn(&[u8]) -> Result<serde_json::Value, String> + Send + Sync>;

/// What `node` lends the doors.
#[derive(Clone)]
pub struct Hooks {
    /// Milliseconds since 1970.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Answer of `/health`: whether this node is well, and what it has to say.
    pub health: Arc<dyn Fn() -> (bool, serde_json::Value) + Send + Sync>,
    /// Answer of `/metrics`.
    pub metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether this is an admin's token, compared in constant time. It opens everything.
    pub is_admin_token: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// What a node that joins is given: names of files, and what stands in them.
    pub join_files: Arc<dyn Fn() -> std::collections::BTreeMap<String, String> + Send + Sync>,
    /// Keeps records of security-relevant actions.
    pub audit: Arc<dyn AuditSink>,
    /// Answer of `/certificates`: what this node shows to whom, and until when.
    pub certificates: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Makes the node's certificates anew, or says why that did not work.
    pub renew_certificates: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Answer of `/faults`: what the node has done to itself as the body orders, or what is wrong with it. There
    /// is no such path without it.
    pub faults: Option<FaultsHook>,
    /// Asks linked hubs and webhooks.
    pub outbound: Arc<dyn Outbound>,
    /// Keeps files: what routes lead into storage, and what devices upload.
    pub blobs: Arc<dyn BlobStore>,
    /// Decides which messages are followed; nobody follows any without it.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// Answers whatever the hub's own paths do not, e.g. the console.
    pub extra: Option<Router>,
}

impl Default for Hooks {
    /// The system's clock, always healthy, no metrics, no admin token, an audit in the log, no certificates,
    /// nobody outside who answers, nobody followed, nothing extra.
    fn default() -> Self {
        Self {
            now_ms: Arc::new(|| {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_millis() as u64)
            }),
            health: Arc::new(|| (true, serde_json::json!({ "status": "ok" }))),
            metrics_text: Arc::new(String::new),
            is_admin_token: Arc::new(|_| false),
            join_files: Arc::new(Default::default),
            audit: Arc::new(log_audit::LogAudit),
            certificates: Arc::new(|| serde_json::json!({ "certificates": [] })),
            renew_certificates: Arc::new(|| Err("this node makes no certificates".to_owned())),
            faults: None,
            outbound: Arc::new(nobody::Nobody),
            blobs: Arc::new(nobody::Nobody),
            tracer: None,
            extra: None,
        }
    }
}

/// Why the doors did not open.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(&'static str),
    /// An address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Open doors. Dropping it leaves them open; [`drain`](Gateway::drain) closes them.
pub struct Gateway {
    shared: Arc<Shared>,
    mqtts: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    amqps: Vec<SocketAddr>,
    kafka: Vec<SocketAddr>,
    mqtt_plain: Option<SocketAddr>,
}

impl Gateway {
    /// Opens the doors. Those for devices attach to `client` first, so that no downlink is missed.
    pub async fn start(
        config: GatewayConfig,
        client: Arc<dyn ShardClient>,
        hooks: Hooks,
    ) -> Result<Gateway, StartError> {
        if config.host_names.iter().all(|name| name.is_empty()) {
            return Err(StartError::Config("the hub has no host name"));
        }
        if config
            .mqtt_plain
            .is_some_and(|address| !address.ip().is_loopback())
        {
            return Err(StartError::Config(
                "MQTT without TLS is served on loopback addresses only",
            ));
        }
        if uploads::container_problem(&config.uploads.container).is_some() {
            return Err(StartError::Config("no container of uploads may have that name"));
        }
        let is_for_devices = config.audience == Audience::Everyone;
        let has_mqtt = !config.mqtts.is_empty() || config.mqtt_plain.is_some();
        let has_events = !config.amqps.is_empty() || !config.kafka.is_empty();
        if !is_for_devices && (has_mqtt || has_events) {
            return Err(StartError::Config(
                "doors for operators alone take neither MQTT nor AMQP nor Kafka",
            ));
        }
        let mqtt_tls = config.tls.server_config(&[])?;
        let amqp_tls = config.tls.server_config(&[])?;
        let kafka_tls = config.tls.server_config(&[])?;
        let http_tls = config.tls.server_config(&[b"h2", b"http/1.1"])?;
        // Everything is bound before anything is served.
        let mqtts = bind_all(&config.mqtts).await?;
        let https = bind_all(&config.https).await?;
        let amqps = bind_all(&config.amqps).await?;
        let kafka = bind_all(&config.kafka).await?;
        let plain = bind_all(config.mqtt_plain.as_slice()).await?;
        let mut shared = Shared::new(
            client,
            config.host_names,
            config.connections_max,
            config.uploads,
            hooks,
        );
        shared.hub_address = http::files::hub_address(&shared.host_names, &addresses(&https));
        let shared = Arc::new(shared);
        if is_for_devices {
            let downlinks: Arc<dyn DownlinkSink> = shared.sessions.clone();
            shared.client.attach(downlinks);
        }
        let gateway = Gateway {
            mqtts: addresses(&mqtts),
            https: addresses(&https),
            amqps: addresses(&amqps),
            kafka: addresses(&kafka),
            mqtt_plain: addresses(&plain).first().copied(),
            shared: Arc::clone(&shared),
        };
        for listener in mqtts {
            listen::spawn_mqtts(&shared, listener, Arc::clone(&mqtt_tls));
        }
        for listener in amqps {
            listen::spawn_amqps(&shared, listener, Arc::clone(&amqp_tls));
        }
        let door = kafka::door(&shared);
        for listener in kafka {
            listen::spawn_kafka(&shared, listener, Arc::clone(&kafka_tls), &door);
        }
        for listener in plain {
            listen::spawn_mqtt_plain(&shared, listener);
        }
        auth::standing::spawn(&shared);
        if is_for_devices {
            configurations::runner::spawn(&shared);
            jobs::spawn(&shared);
            dispatch::runner::spawn(&shared);
            quota::spawn(&shared);
            uploads::sweep::spawn(&shared);
            leftovers::spawn(&shared);
        }
        let router = http::router(Arc::clone(&shared), config.audience);
        for listener in https {
            listen::spawn_https(&shared, listener, Arc::clone(&http_tls), router.clone());
        }
        Ok(gateway)
    }

    /// Addresses of MQTT over TLS, with the ports that were given.
    pub fn mqtts_addresses(&self) -> &[SocketAddr] {
        &self.mqtts
    }

    /// Addresses of HTTPS, with the ports that were given.
    pub fn https_addresses(&self) -> &[SocketAddr] {
        &self.https
    }

    /// Addresses of AMQP over TLS, with the ports that were given.
    pub fn amqps_addresses(&self) -> &[SocketAddr] {
        &self.amqps
    }

    /// Addresses of Kafka over TLS, with the ports that were given.
    pub fn kafka_addresses(&self) -> &[SocketAddr] {
        &self.kafka
    }

    /// Address of MQTT without TLS.
    pub fn mqtt_plain_address(&self) -> Option<SocketAddr> {
        self.mqtt_plain
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Closes the doors: accepts nobody, ends every session, and returns when the shards know, or
    /// after `wait`. Returns whether everything ended in time.
    pub async fn drain(&self, wait: Duration) -> bool {
        self.shared.draining.cancel();
        self.shared.sessions.evict_all();
        self.shared.tasks.close();
        tokio::time::timeout(wait, self.shared.tasks.wait()).await.is_ok()
    }
}

async fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| StartError::Listen { address, source })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect()
}
