//! Who a node is on the wire: certificates of the cluster's own authority that name node ids.

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::id::NodeId;
use quinn::ConnectionIdGenerator as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::cids::Cids;
use crate::config::{NodeIdentity, TlsSources};

/// The protocol between nodes, and its version.
const ALPN: &[u8] = b"dunlin/1";
/// The DNS name in every node's certificate; the node id, which matters, is checked beside it.
pub(super) const SERVER_NAME: &str = "dunlin-node";
/// The URI prefix that names a node.
const NODE_URI_PREFIX: &str = "dunlin://node/";

/// Round-trip time assumed before the first measurement.
const INITIAL_RTT: Duration = Duration::from_millis(5);
/// Silence after which a connection is over.
const IDLE_MAX: Duration = Duration::from_millis(2_000);
/// Pause after which a sign of life is sent.
const KEEP_ALIVE: Duration = Duration::from_millis(250);
/// Streams that a peer may have open on one connection.
const STREAMS_MAX: u32 = 4_096;
/// Bytes in flight on one stream.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes in flight on one connection.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// Largest packet to discover. Above it ten packets no longer fit one send, and segmentation offload collapses.
const MTU_MAX: u16 = 6_500;

/// Why the node's identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text does not hold what it should.
    #[error("read {what}: {reason}")]
    Pem {
        /// Which one.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// rustls or quinn refused the configuration.
    #[error("set up TLS between nodes: {0}")]
    Setup(String),
}

pub(super) struct Configs {
    pub(super) server: quinn::ServerConfig,
    pub(super) client: quinn::ClientConfig,
}

pub(super) fn configs(identity: &NodeIdentity, sources: &TlsSources) -> Result<Configs, TlsError> {
    let setup = |error: &dyn ToString| TlsError::Setup(error.to_string());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates("cluster CA", &identity.ca_pem)? {
        roots.add(certificate).map_err(|e| setup(&e))?;
    }
    let roots = Arc::new(roots);
    let chain = certificates("node certificate", &identity.cert_pem)?;
    let key = || {
        PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|error| TlsError::Pem {
            what: "node key",
            reason: error.to_string(),
        })
    };
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), sources.crypto.clone())
            .build()
            .map_err(|e| setup(&e))?;
    let mut server = rustls::ServerConfig::builder_with_details(sources.crypto.clone(), sources.time.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| setup(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key()?)
        .map_err(|e| setup(&e))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    let mut client = rustls::ClientConfig::builder_with_details(sources.crypto.clone(), sources.time.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| setup(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key()?)
        .map_err(|e| setup(&e))?;
    client.alpn_protocols = vec![ALPN.to_vec()];

    let transport = Arc::new(transport());
    let server_crypto = QuicServerConfig::try_from(server).map_err(|e| setup(&e))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(server_crypto));
    server.transport_config(transport.clone()).migration(false);
    let client_crypto = QuicClientConfig::try_from(client).map_err(|e| setup(&e))?;
    let mut client = quinn::ClientConfig::new(Arc::new(client_crypto));
    client.transport_config(transport);
    client.initial_dst_cid_provider(Arc::new(|| Cids.generate_cid()));
    Ok(Configs { server, client })
}

fn transport() -> quinn::TransportConfig {
    let mut mtu = quinn::MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    let mut transport = quinn::TransportConfig::default();
    transport
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(IDLE_MAX.try_into().expect("two seconds fit")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .mtu_discovery_config(Some(mtu));
    transport
}

pub(crate) fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(TlsError::Pem {
            what,
            reason: "no certificate in it".into(),
        }),
        Err(error) => Err(TlsError::Pem {
            what,
            reason: error.to_string(),
        }),
    }
}

/// The node that the other end of `connection` has proved to be.
pub(super) fn peer_node(connection: &quinn::Connection) -> Option<NodeId> {
    let identity = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    node_in_certificate(identity.first()?)
}

pub(crate) fn node_in_certificate(der: &[u8]) -> Option<NodeId> {
    use x509_parser::extensions::GeneralName;
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => NodeId::parse(uri.strip_prefix(NODE_URI_PREFIX)?),
        _ => None,
    })
}
