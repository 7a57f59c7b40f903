//! TLS handshakes per second and core without a hub: the floor under reconnects. Server and client are rustls with ring,
//! ECDSA P-256 certificates and no resumption, as a gateway and its devices have them, in one thread and in memory.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

/// Time for each round.
const ROUND: Duration = Duration::from_secs(3);
/// Rounds; the median is printed.
const ROUNDS: usize = 5;

fn main() {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let own = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], own)
        .expect("a server");
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.resumption = rustls::client::Resumption::disabled();
    let (server, client) = (Arc::new(server), Arc::new(client));
    let mut rates: Vec<f64> = (0..ROUNDS).map(|_| round(&server, &client)).collect();
    rates.sort_by(f64::total_cmp);
    println!(
        "{:.0} handshakes per second and core, both sides (median of {ROUNDS}; {:.0} to {:.0})",
        rates[ROUNDS / 2],
        rates[0],
        rates[ROUNDS - 1]
    );
}

fn round(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> f64 {
    let begun = Instant::now();
    let mut count = 0u64;
    while begun.elapsed() < ROUND {
        handshake(server, client);
        count += 1;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a client");
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a server");
    while client.is_handshaking() || server.is_handshaking() {
        let mut up = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut up).expect("memory");
        }
        let mut up = &up[..];
        while !up.is_empty() {
            server.read_tls(&mut up).expect("memory");
            server.process_new_packets().expect("a handshake");
        }
        let mut down = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut down).expect("memory");
        }
        let mut down = &down[..];
        while !down.is_empty() {
            client.read_tls(&mut down).expect("memory");
            client.process_new_packets().expect("a handshake");
        }
    }
    // One message, as CONNECT would be.
    client.writer().write_all(b"connect").expect("memory");
    let mut up = Vec::new();
    client.write_tls(&mut up).expect("memory");
    server.read_tls(&mut &up[..]).expect("memory");
    server.process_new_packets().expect("a message");
    let mut heard = [0; 7];
    server.reader().read_exact(&mut heard).expect("a message");
}
