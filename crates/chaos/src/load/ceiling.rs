//! What this generator reaches on this machine against a server that does nothing: its ceiling. And what
//! a server reaches that does nothing but sync logs: the floor.
//!
//! Both are a short burst of the same shape (clients, sizes, QoS, window, threads, TLS) at full windows
//! against a [`super::sink`] in this very process. A result near the ceiling says how fast the generator
//! is, not the server. A sink speaks MQTT without WebSocket; where it cannot play the server at all,
//! that is said instead of a figure.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dunlin_gateway::TlsIdentity;
use dunlin_gateway::client::{ConnectOptions, Transport};
use dunlin_node::pki::{Authority, PkiError};
use rustls::ClientConfig;

use super::dial::{Door, Wrapping};
use super::engine::{self, LoadError, Unseen};
use super::figures::{Figures, Floor};
use super::hdr::HdrError;
use super::plan::{Action, Plan};
use super::sink::{Sink, SinkError, SinkOptions};

/// How long it is measured, and what comes before that.
pub(super) const BURST: Duration = Duration::from_millis(800);
/// See above.
pub(super) const WARM_UP: Duration = Duration::from_millis(200);
const DRAIN: Duration = Duration::from_secs(5);
/// Clients of the burst at the most; connecting more takes longer than the burst.
const CLIENTS_MAX: usize = 500;
/// How long the burst's certificate is good for.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(3600);
/// Bytes of each log of a floor: enough for a burst, and zeroed within a second.
const FLOOR_LOG_BYTES: u64 = 64 * 1024 * 1024;
/// What a burst leaves out where the load is over WebSocket.
pub(super) const WITHOUT_WEBSOCKET: &str = "measured without WebSocket";

/// Why there is no ceiling, or no floor.
#[derive(Debug, thiserror::Error)]
pub enum CeilingError {
    /// The sink.
    #[error("start a null sink: {0}")]
    Sink(#[from] SinkError),
    /// Its certificate.
    #[error("make a certificate: {0}")]
    Certificate(#[from] PkiError),
    /// Its certificate, in use.
    #[error("use a certificate: {0}")]
    Tls(#[from] dunlin_gateway::tls::TlsError),
    /// A folder for it.
    #[error("make a folder: {0}")]
    Folder(#[from] io::Error),
    /// The burst.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Its figures.
    #[error(transparent)]
    Hdr(#[from] HdrError),
}

/// What a generator comes to against a sink.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ceiling {
    /// Per second; nothing where there is none.
    pub per_s: Option<f64>,
    /// Why there is none, or what it leaves out.
    pub note: Option<String>,
}

impl Ceiling {
    /// None, and why.
    pub fn none(why: impl fmt::Display) -> Self {
        Self {
            per_s: None,
            note: Some(format!("none: {why}")),
        }
    }

    /// So much, by a load that may be over WebSocket.
    pub(super) fn of(per_s: f64, is_websocket: bool) -> Self {
        Self {
            per_s: Some(per_s),
            note: is_websocket.then(|| WITHOUT_WEBSOCKET.to_owned()),
        }
    }
}

/// Messages, or connects, per second of this generator.
pub async fn measure(plan: &Plan) -> Result<Ceiling, CeilingError> {
    if matches!(plan.action, Action::Subscribe { .. }) {
        return Ok(Ceiling::none("a null sink has nothing to send to subscribers"));
    }
    let opposite = Opposite::start(plan.wrapping.tls.is_some(), 0, &std::env::temp_dir()).await?;
    let per_s = burst(plan, &opposite).await?;
    Ok(Ceiling::of(per_s, plan.wrapping.websocket.is_some()))
}

/// Messages per second of a sink that syncs each to so many logs, which are in the system's folder for
/// temporary files.
pub async fn floor(plan: &Plan, logs: usize) -> Result<Floor, CeilingError> {
    // The folder goes last, after the sink that writes there.
    let folder = tempfile::tempdir()?;
    let opposite = Opposite::start(plan.wrapping.tls.is_some(), logs, folder.path()).await?;
    let per_s = burst(plan, &opposite).await?;
    Ok(Floor {
        logs,
        folder: std::env::temp_dir().display().to_string(),
        per_s,
    })
}

/// The plan's own load, at full windows and for a moment.
async fn burst(plan: &Plan, opposite: &Opposite) -> Result<f64, CeilingError> {
    let mut burst = plan.clone();
    burst.doors = vec![Door {
        host: "localhost".into(),
        port: opposite.address().port(),
    }];
    burst.wrapping = Wrapping {
        tls: opposite.trust.clone(),
        websocket: None,
    };
    burst.clients.truncate(CLIENTS_MAX);
    if let Action::Publish {
        schedule, count_max, ..
    } = &mut burst.action
    {
        (*schedule, *count_max) = (None, None);
    }
    burst.listener = None;
    burst.connect_interval = Duration::ZERO;
    burst.warm_up = WARM_UP;
    burst.duration = Some(BURST);
    burst.drain = DRAIN;
    burst.start_at = None;
    let outcome = engine::run(burst.clone(), &mut Unseen, std::future::pending()).await?;
    Ok(Figures::new(&burst, "null sink", &outcome)?.per_s())
}

/// A sink, with what those who come to it need.
pub(super) struct Opposite {
    sink: Sink,
    trust: Option<Arc<ClientConfig>>,
}

impl Opposite {
    /// With TLS or without, and with logs in `folder`, if any.
    pub(super) async fn start(is_tls: bool, logs: usize, folder: &Path) -> Result<Self, CeilingError> {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (tls, trust) = if is_tls {
            let (identity, trust) = identity()?;
            (Some((anywhere, identity)), Some(trust))
        } else {
            (None, None)
        };
        let sink = Sink::start(SinkOptions {
            plain: anywhere,
            tls,
            logs,
            folder: folder.to_owned(),
            log_bytes: FLOOR_LOG_BYTES,
        })
        .await?;
        Ok(Self { sink, trust })
    }

    fn address(&self) -> SocketAddr {
        self.sink.tls.unwrap_or(self.sink.plain)
    }

    /// The same client, but one that comes here.
    pub(super) fn redirect(&self, options: &ConnectOptions) -> ConnectOptions {
        let address = self.address().to_string();
        let transport = match &self.trust {
            None => Transport::Tcp { address },
            Some(config) => Transport::Tls {
                address,
                server_name: "localhost".into(),
                config: Arc::clone(config),
            },
        };
        ConnectOptions {
            transport,
            ..options.clone()
        }
    }
}

/// A certificate for this machine, and a configuration that trusts it alone.
fn identity() -> Result<(TlsIdentity, Arc<ClientConfig>), CeilingError> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::open(folder.path())?;
    let addresses = [Ipv4Addr::LOCALHOST.into()];
    let certificate =
        authority.server_certificate(&["localhost".to_owned()], &addresses, CERTIFICATE_LIFE)?;
    let (chain, key) = (certificate.chain_pem, certificate.key_pem);
    let identity = TlsIdentity::from_pem(chain.as_bytes(), key.as_bytes())?;
    let trust = dunlin_gateway::tls::client_config(authority.ca_pem().as_bytes())?;
    Ok((identity, trust))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::content::{Content, Ring};
    use crate::load::plan::Client;
    use crate::load::schedule::Schedule;
    use crate::load::template::Template;

    /// Two clients that send a message a second to nobody.
    fn plan(action: impl FnOnce(Action) -> Action) -> Plan {
        let clients = (0..2).map(|index| Client {
            index,
            id: format!("c{index}"),
            username: None,
            password: None,
            topic: Template::parse("t").unwrap(),
            door: 0,
        });
        let publish = Action::Publish {
            qos: 1,
            window: 4,
            schedule: Some(Schedule::of_interval(1_000_000_000, 2, Some(4))),
            count_max: Some(4),
            clients: 2,
            content: Content::Ring(Arc::new(Ring::new(64))),
        };
        Plan {
            clients: clients.collect(),
            action: action(publish),
            wrapping: Wrapping {
                tls: None,
                websocket: Some("/mqtt".into()),
            },
            ..Plan::default()
        }
    }

    #[tokio::test]
    async fn a_ceiling_is_measured_at_full_windows_and_says_what_it_leaves_out() {
        let ceiling = measure(&plan(|publish| publish)).await.unwrap();
        assert!(ceiling.per_s.is_some_and(|per_s| per_s > 4.0), "{ceiling:?}");
        assert_eq!(ceiling.note.as_deref(), Some(WITHOUT_WEBSOCKET));
        let plain = Plan {
            wrapping: Wrapping::default(),
            ..plan(|publish| publish)
        };
        assert_eq!(measure(&plain).await.unwrap().note, None);
    }

    #[tokio::test]
    async fn where_no_sink_can_play_the_server_that_is_said() {
        let ceiling = measure(&plan(|_| Action::Subscribe { qos: 1 })).await.unwrap();
        assert_eq!(ceiling.per_s, None);
        assert!(
            ceiling
                .note
                .is_some_and(|note| note.starts_with("none: a null sink")),
            "it says why"
        );
    }

    #[tokio::test]
    async fn a_floor_names_its_logs() {
        let floor = floor(&plan(|publish| publish), 1).await.unwrap();
        assert_eq!((floor.logs, floor.per_s > 0.0), (1, true), "{floor:?}");
        assert!(!floor.folder.is_empty());
    }
}
