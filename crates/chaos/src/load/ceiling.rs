//! What this generator reaches on this machine against a server that does nothing: its ceiling.
//!
//! A short burst of the same shape (clients, sizes, QoS, window, threads, TLS) at full windows against a
//! [`super::sink`] in this very process. A result near it says how fast the generator is, not the
//! server. WebSocket is left out of the burst.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dunlin_gateway::TlsIdentity;
use dunlin_node::pki::{Authority, PkiError};

use super::dial::{Door, Wrapping};
use super::engine::{self, LoadError, Unseen};
use super::figures::Figures;
use super::hdr::HdrError;
use super::plan::{Action, Plan};
use super::sink::{LOG_BYTES, Sink, SinkError, SinkOptions};

/// How long it is measured, and what comes before that.
const BURST: Duration = Duration::from_millis(800);
const WARM_UP: Duration = Duration::from_millis(200);
const DRAIN: Duration = Duration::from_secs(5);
/// Clients of the burst at the most; connecting more takes longer than the burst.
const CLIENTS_MAX: usize = 500;
/// How long the burst's certificate is good for.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(3600);

/// Why there is no ceiling.
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
    Folder(#[from] std::io::Error),
    /// The burst.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Its figures.
    #[error(transparent)]
    Hdr(#[from] HdrError),
}

/// Messages, or connects, per second of this generator; `None` for a subscription, which a sink has
/// nothing for.
pub async fn measure(plan: &Plan) -> Result<Option<f64>, CeilingError> {
    if matches!(plan.action, Action::Subscribe { .. }) {
        return Ok(None);
    }
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (identity, trust) = match plan.wrapping.tls {
        None => (None, None),
        Some(_) => {
            let folder = tempfile::tempdir()?;
            let authority = Authority::open(folder.path())?;
            let addresses = [Ipv4Addr::LOCALHOST.into()];
            let certificate =
                authority.server_certificate(&["localhost".to_owned()], &addresses, CERTIFICATE_LIFE)?;
            let (chain, key) = (certificate.chain_pem, certificate.key_pem);
            let identity = TlsIdentity::from_pem(chain.as_bytes(), key.as_bytes())?;
            let trust = dunlin_gateway::tls::client_config(authority.ca_pem().as_bytes())?;
            (Some((anywhere, identity)), Some(trust))
        }
    };
    let sink = Sink::start(SinkOptions {
        plain: anywhere,
        tls: identity,
        logs: 0,
        folder: std::env::temp_dir(),
        log_bytes: LOG_BYTES,
    })
    .await?;
    let address = sink.tls.unwrap_or(sink.plain);
    let mut burst = plan.clone();
    burst.doors = vec![Door {
        host: "localhost".into(),
        port: address.port(),
    }];
    burst.wrapping = Wrapping {
        tls: trust,
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
    Ok(Some(Figures::new(&burst, "null sink", &outcome)?.per_s()))
}
