//! How the node asks somebody outside the cluster: over HTTPS, following no redirection and no proxy, taking no more
//! than it was told to take. Whom it may ask is decided where the calls are made.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_model::port::{BoxFuture, Outbound, OutboundAnswer, OutboundCall};
use dunlin_model::provisioning::book::LINKED_HUBS_MAX;
use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Clients that are kept, each with its connections: one per authority, and one for those whom the system trusts. Beyond
/// that all are made anew.
const CLIENTS_MAX: usize = LINKED_HUBS_MAX + 1;
/// How long a connection stays that nobody uses.
const IDLE_WAIT: Duration = Duration::from_secs(30);

/// Asks over HTTPS.
#[derive(Default)]
pub(crate) struct HttpOutbound {
    /// By the certificates of who vouches for the other side.
    clients: Mutex<BTreeMap<Option<String>, Client>>,
}

impl HttpOutbound {
    fn client(&self, authority: &Option<String>) -> Result<Client, String> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(authority) {
            return Ok(client.clone());
        }
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        let client = build(authority.as_deref())?;
        clients.insert(authority.clone(), client.clone());
        Ok(client)
    }
}

fn build(authority: Option<&str>) -> Result<Client, String> {
    let builder = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .pool_idle_timeout(IDLE_WAIT);
    let builder = match authority {
        None => {
            // With whatever authorities the system trusts.
            let _ = rustls::crypto::ring::default_provider().install_default();
            builder
        }
        Some(pem) => builder.tls_backend_preconfigured(trusting(pem)?),
    };
    builder.build().map_err(|error| format!("make a client: {error}"))
}

/// TLS that trusts the authorities in `pem`, and nobody else.
fn trusting(pem: &str) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("read authority: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("trust authority: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("set up TLS: {error}"))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn ask(client: Client, call: OutboundCall) -> Result<OutboundAnswer, String> {
    let method = Method::from_bytes(call.method.as_bytes()).map_err(|error| error.to_string())?;
    let mut request = client
        .request(method, &call.url)
        .timeout(Duration::from_millis(call.wait_ms))
        .body(call.body);
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    // The address may carry a secret.
    let told = |error: reqwest::Error| error.without_url().to_string();
    let mut response = request.send().await.map_err(told)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(told)? {
        if body.len() + chunk.len() > call.answer_bytes_max {
            return Err(format!(
                "the answer has more than {} bytes",
                call.answer_bytes_max
            ));
        }
        body.extend_from_slice(&chunk);
    }
    let body = body.into();
    Ok(OutboundAnswer { status, body })
}

impl Outbound for HttpOutbound {
    fn call(&self, call: OutboundCall) -> BoxFuture<'_, Result<OutboundAnswer, String>> {
        Box::pin(async move {
            let client = self.client(&call.authority)?;
            ask(client, call).await
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a client");
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        });
        format!("http://{address}/x?code=secret")
    }

    fn call(url: String) -> OutboundCall {
        OutboundCall {
            method: "POST",
            url,
            headers: vec![("content-type", "application/json".to_owned())],
            body: "{}".into(),
            authority: None,
            wait_ms: 20_000,
            answer_bytes_max: 16,
        }
    }

    #[tokio::test]
    async fn answers_are_bounded_and_redirections_not_followed() {
        let outbound = HttpOutbound::default();
        let moved =
            answering("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\nno")
                .await;
        let answer = outbound.call(call(moved)).await.expect("an answer");
        assert_eq!((answer.status, &answer.body[..]), (302, &b"no"[..]));
        let long = answering("HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n0123456789abcdefg").await;
        assert!(outbound.call(call(long)).await.is_err());
        let nobody = outbound
            .call(call("http://127.0.0.1:1/?code=secret".into()))
            .await;
        assert!(nobody.is_err_and(|why| !why.contains("secret")));
    }

    #[test]
    fn clients_are_kept_and_bounded() {
        let outbound = HttpOutbound::default();
        assert!(
            outbound.client(&Some("nonsense".into())).is_ok(),
            "it trusts nobody"
        );
        for n in 0..2 * CLIENTS_MAX {
            outbound.client(&Some(n.to_string())).expect("a client");
        }
        assert!(outbound.clients.lock().expect("no panic").len() <= CLIENTS_MAX);
    }
}
