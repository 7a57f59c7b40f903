//! TLS of the listeners: one identity, read from PEM, replaced without touching open connections.
//!
//! TLS 1.2 stays on beside 1.3, since the Python device SDK speaks nothing else. The provider is
//! ring, named here and taken from no global default. Clients are asked for a certificate and need have none; which one is
//! whose is decided in [`crate::auth`], when they say who they are.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};

use crate::auth::CHAIN_MAX;

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file holds none that can be read.
    #[error("no certificate in the PEM text: {0}")]
    Certificate(String),
    /// The key file holds none that can be read.
    #[error("no private key in the PEM text: {0}")]
    Key(String),
    /// Key and certificate do not belong together, or rustls refuses them.
    #[error("certificate or key refused: {0}")]
    Refused(#[from] rustls::Error),
}

/// The certificate chain and key that the listeners show. Cloning shares it.
#[derive(Clone)]
pub struct TlsIdentity {
    current: Arc<ArcSwap<CertifiedKey>>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(..)")
    }
}

impl TlsIdentity {
    /// Reads a chain (leaf first) and its key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(read(chain, key)?)),
        })
    }

    /// Replaces the identity for handshakes from now on. On an error the old one stays.
    pub fn reload(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(chain, key)?));
        Ok(())
    }

    /// A server configuration that follows reloads, with these application protocols.
    pub fn server_config(&self, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(AnyClient(Arc::new(provider::default_provider()))))
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // Tickets spare devices that reconnect the costly half of the handshake; 0-RTT stays off.
        config.ticketer = provider::Ticketer::new()?;
        Ok(Arc::new(config))
    }
}

/// Takes every certificate whose key the client proves to hold, or none.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if others.len() < CHAIN_MAX {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(rustls::Error::General("too many certificates".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl ResolvesServerCert for TlsIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate("none found".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
    Ok(CertifiedKey::from_der(chain, key, &provider::default_provider())?)
}

/// A client configuration that trusts the certificates in `roots` (PEM), for this crate's client and tests.
pub fn client_config(roots: &[u8]) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let mut store = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots) {
        store.add(root.map_err(|error| TlsError::Certificate(error.to_string()))?)?;
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
