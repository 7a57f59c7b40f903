//! What every run needs before anything is disturbed: devices with their places, a way to reach each
//! gateway, and the two waits at the beginning.
//!
//! Decides which devices there are and where they connect; never starts or disturbs a node. The devices'
//! behaviour is in [`crate::fleet`]; what happens to the nodes, in [`crate::run`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_cluster::admin::ClusterStatus;
use dunlin_gateway::auth::{AuthError, ConnectionString, ConnectionStringError};
use dunlin_gateway::client::kafka::Door;
use dunlin_gateway::client::{Transport, device_token};
use dunlin_model::id::DeviceId;
use dunlin_node::ready::{Ready, ReadyNode};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio::time::Instant;

use crate::fleet::{DevicePlan, Fleet, Role};
use crate::hub::{Hub, HubError};

/// Devices that are created at a time.
const CREATES_AT_A_TIME: usize = 16;
/// Time for every shard to have a leader at the beginning.
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the whole fleet to connect.
const FLEET_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a gateway to let a reader in, and for each of its answers; then the reader goes elsewhere.
const READER_WAIT: Duration = Duration::from_secs(5);
/// Seconds that a token is valid.
const TOKEN_S: u64 = 24 * 3600;
/// Names that are tried to find one in a given shard.
const NAMES_MAX: u32 = 100_000;

/// Why a run cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A call over HTTPS.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The trusted certificate cannot be read.
    #[error("read the trusted certificate: {0}")]
    Trust(#[source] std::io::Error),
    /// The hub's own connection string cannot be read.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// A token cannot be made.
    #[error("make token: {0}")]
    Token(#[from] AuthError),
    /// The trusted certificate makes no sense.
    #[error("set up TLS: {0}")]
    Tls(#[from] dunlin_gateway::TlsError),
    /// No device id lives in this shard.
    #[error("no name for a device of shard {0}")]
    NoName(u32),
    /// The cluster has shards without a leader.
    #[error("the cluster is {health} after {waited_s} s")]
    Unhealthy {
        /// What it is instead.
        health: String,
        /// How long was waited.
        waited_s: u64,
    },
    /// The fleet did not connect.
    #[error("only {ready} of {all} devices connected in time; last: {last}")]
    NotConnected {
        /// Connected.
        ready: usize,
        /// Wanted.
        all: usize,
        /// Why one was not.
        last: String,
    },
}

/// A device and its Base64 key.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What the fleet is told.
    pub plan: DevicePlan,
    /// What the hub is told.
    pub key: String,
}

/// Who is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Devices of the load. They are spread evenly over gateways and shards.
    pub devices: usize,
    /// Messages per second of all of them together; 0 is as fast as possible.
    pub rate: u32,
    /// Gateways, which are nodes `0..gateways`.
    pub gateways: usize,
    /// Shards.
    pub shards: u32,
    /// Whether each gateway has a probe for each shard.
    pub has_probes: bool,
}

/// The devices of a run: those of the load first, then the probes. Names begin with `prefix`.
pub fn plan_devices(
    wanted: &Wanted,
    prefix: &str,
    host: &str,
    random: &mut StdRng,
) -> Result<Vec<Planned>, StageError> {
    let mut devices = Vec::new();
    for index in 0..wanted.devices {
        let home = index % wanted.gateways;
        let mut others: Vec<usize> = (0..wanted.gateways).filter(|node| *node != home).collect();
        others.shuffle(random);
        let role = if wanted.rate == 0 {
            Role::Load {
                period: None,
                offset: Duration::ZERO,
            }
        } else {
            let period = Duration::from_secs_f64(wanted.devices as f64 / f64::from(wanted.rate));
            Role::Load {
                period: Some(period),
                offset: period.mul_f64(random.random_range(0.0..1.0)),
            }
        };
        // Every shard has its share of the load, so that what all devices see is what all shards do.
        let shard = (index / wanted.gateways) as u32 % wanted.shards;
        let device = name_in_shard(&format!("{prefix}-{index:05}"), shard, wanted.shards)?;
        devices.push(planned(
            device,
            [vec![home], others].concat(),
            role,
            host,
            random,
        )?);
    }
    if wanted.has_probes {
        for node in 0..wanted.gateways {
            for shard in 0..wanted.shards {
                let device = name_in_shard(&format!("probe-{}-{shard}", node + 1), shard, wanted.shards)?;
                devices.push(planned(device, vec![node], Role::Probe { shard }, host, random)?);
            }
        }
    }
    Ok(devices)
}

fn planned(
    device: String,
    nodes: Vec<usize>,
    role: Role,
    host: &str,
    random: &mut StdRng,
) -> Result<Planned, StageError> {
    let key = draw_key(random);
    Ok(Planned {
        plan: DevicePlan {
            token: token(host, &device, &key)?,
            device,
            nodes,
            role,
        },
        key,
    })
}

/// A device's key, in Base64.
pub fn draw_key(random: &mut StdRng) -> String {
    STANDARD.encode(random.random::<[u8; 32]>())
}

/// When a token for the whole run ends, in seconds since 1970.
pub fn token_expiry_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs()) + TOKEN_S
}

/// A token for the whole run.
pub fn token(host: &str, device: &str, key: &str) -> Result<String, StageError> {
    Ok(device_token(host, device, key, token_expiry_s())?)
}

/// A device id that begins with `prefix` and lives in `shard` of a new cluster.
pub fn name_in_shard(prefix: &str, shard: u32, shard_count: u32) -> Result<String, StageError> {
    (0..NAMES_MAX)
        .map(|number| format!("{prefix}-{number}"))
        .find(|name| {
            DeviceId::parse(name).is_ok_and(|device| u32::from(device.slot().0) % shard_count == shard)
        })
        .ok_or(StageError::NoName(shard))
}

/// Creates the devices.
pub async fn create(hub: &Hub, devices: &[Planned]) -> Result<(), StageError> {
    let creates = devices
        .iter()
        .map(|device| hub.create_device(&device.plan.device, &device.key));
    stream::iter(creates)
        .buffer_unordered(CREATES_AT_A_TIME)
        .try_collect::<()>()
        .await?;
    Ok(())
}

/// The hub's name, as devices say it.
pub fn host_of(ready: &Ready) -> Result<String, StageError> {
    let host = ConnectionString::parse(&ready.connection_string)?.host_name;
    Ok(host.split(':').next().unwrap_or_default().to_owned())
}

/// How to reach the gateways, which are the first nodes.
pub fn gateways(ready: &Ready, host: &str) -> Result<Vec<Transport>, StageError> {
    let roots = std::fs::read(&ready.ca_file).map_err(StageError::Trust)?;
    let config = dunlin_gateway::tls::client_config(&roots)?;
    let transport = |node: &ReadyNode| match &node.mqtt {
        Some(address) => Transport::Tcp {
            address: address.clone(),
        },
        None => Transport::Tls {
            address: node.mqtts.clone(),
            server_name: host.to_owned(),
            config: Arc::clone(&config),
        },
    };
    let gateways = ready.nodes.iter().take_while(|node| !node.mqtts.is_empty());
    Ok(gateways.map(transport).collect())
}

/// How to read events at the gateways, with the connection string of the hub's owner.
pub fn readers(ready: &Ready, host: &str) -> Result<Vec<Door>, StageError> {
    let roots = std::fs::read(&ready.ca_file).map_err(StageError::Trust)?;
    let config = dunlin_gateway::tls::client_config(&roots)?;
    let door = |node: &ReadyNode| Door {
        address: node.kafka.clone(),
        server_name: host.to_owned(),
        config: Arc::clone(&config),
        connection_string: ready.connection_string.clone(),
        client_id: "reader".to_owned(),
        wait: READER_WAIT,
    };
    let gateways = ready.nodes.iter().filter(|node| !node.kafka.is_empty());
    Ok(gateways.map(door).collect())
}

/// Waits until every shard has all its replicas and a leader.
pub async fn wait_until_whole(hub: &Hub) -> Result<ClusterStatus, StageError> {
    let deadline = Instant::now() + HEALTHY_TIMEOUT;
    loop {
        let status = hub.status().await?;
        if status.shards > 0 && status.health == "healthy" {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(StageError::Unhealthy {
                health: status.health,
                waited_s: HEALTHY_TIMEOUT.as_secs(),
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until each of `all` devices was connected once.
pub async fn wait_for_fleet(fleet: &Fleet, all: usize) -> Result<(), StageError> {
    let deadline = Instant::now() + FLEET_TIMEOUT;
    loop {
        let ready = fleet.live().ready_count.load(Ordering::Relaxed);
        if ready == all {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let last = fleet
                .live()
                .last_error()
                .unwrap_or_else(|| "no attempt has ended".into());
            return Err(StageError::NotConnected { ready, all, last });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn devices_are_spread_over_gateways_and_shards_and_probes_live_in_theirs() {
        let wanted = Wanted {
            devices: 96,
            rate: 100,
            gateways: 3,
            shards: 16,
            has_probes: true,
        };
        let plan = || plan_devices(&wanted, "d", "localhost", &mut StdRng::seed_from_u64(1)).unwrap();
        let devices = plan();
        assert_eq!(devices.len(), 96 + 3 * 16);
        let shard_of = |planned: &Planned| {
            u32::from(DeviceId::parse(&planned.plan.device).unwrap().slot().0) % wanted.shards
        };
        let mut places = std::collections::BTreeMap::new();
        for device in &devices {
            match device.plan.role {
                Role::Probe { shard } => {
                    assert_eq!((shard_of(device), device.plan.nodes.len()), (shard, 1));
                }
                Role::Load { .. } => {
                    *places
                        .entry((device.plan.nodes[0], shard_of(device)))
                        .or_insert(0) += 1;
                }
            }
        }
        assert_eq!(places.len(), 48);
        assert!(places.values().all(|count| *count == 2), "{places:?}");
        assert!(
            devices
                .iter()
                .zip(plan())
                .all(|(one, other)| { one.plan.nodes == other.plan.nodes && one.key == other.key })
        );
    }
}
