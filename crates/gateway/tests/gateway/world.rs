//! A gateway on port 0 in front of a fake cluster, and clients of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dunlin_gateway::client::{Client, ClientError, ConnectOptions, Event, Transport, device_token};
use dunlin_gateway::mqtt::Version;
use dunlin_gateway::tls::client_config;
use dunlin_gateway::{Audience, Gateway, GatewayConfig, Hooks, TlsIdentity, UploadConfig, auth};
use dunlin_model::audit::AuditRecord;
use dunlin_model::id::DeviceId;
use dunlin_model::port::{
    AuditSink, BlobError, BlobInfo, BlobStore, BlobWrite, BoxFuture, FoundBlob, Outbound, OutboundAnswer,
    OutboundCall,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fake::{FakeCluster, KEY};
use crate::memory::MemoryBlobs;

pub(crate) const HOST: &str = "hub.example";
pub(crate) const NOW_S: u64 = 1_700_000_000;
/// Bytes of a file here, and of a block.
pub(crate) const FILE_BYTES_MAX: u64 = 100_000;
pub(crate) const BLOCK_BYTES_MAX: u64 = 40_000;

/// An audit that tells what was kept in it.
#[derive(Default)]
pub(crate) struct Kept {
    records: Mutex<Vec<AuditRecord>>,
    news: Notify,
}

impl Kept {
    /// Waits for the next record of `action` that was not told yet.
    pub(crate) async fn next(&self, action: &str) -> AuditRecord {
        let waiting = async {
            loop {
                let news = self.news.notified();
                {
                    let mut records = self.records.lock().unwrap();
                    if let Some(place) = records.iter().position(|record| record.action == action) {
                        return records.remove(place);
                    }
                }
                news.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        waited.unwrap_or_else(|_| panic!("{action} is kept"))
    }

    fn keep(&self, record: AuditRecord) {
        self.records.lock().unwrap().push(record);
        self.news.notify_one();
    }
}

impl AuditSink for Kept {
    fn record(&self, record: AuditRecord) -> BoxFuture<'_, ()> {
        self.keep(record);
        Box::pin(std::future::ready(()))
    }

    fn refused(&self, record: AuditRecord) {
        self.keep(record);
    }
}

type Answering = Box<dyn Fn(&OutboundCall) -> Result<(u16, String), String> + Send + Sync>;

/// Everybody outside: answers as a test says, and keeps what it was asked.
#[derive(Default)]
pub(crate) struct Outside {
    answering: Mutex<Option<Answering>>,
    asked: Mutex<Vec<OutboundCall>>,
}

impl Outside {
    pub(crate) fn answer(
        &self,
        with: impl Fn(&OutboundCall) -> Result<(u16, String), String> + Send + Sync + 'static,
    ) {
        *self.answering.lock().unwrap() = Some(Box::new(with));
    }

    /// What was asked since this was asked for last.
    pub(crate) fn asked(&self) -> Vec<OutboundCall> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Outbound for Outside {
    fn call(&self, call: OutboundCall) -> BoxFuture<'_, Result<OutboundAnswer, String>> {
        let answered = match &*self.answering.lock().unwrap() {
            Some(answering) => answering(&call),
            None => Err("nobody is there".to_owned()),
        };
        self.asked.lock().unwrap().push(call);
        let answer = answered.map(|(status, body)| OutboundAnswer {
            status,
            body: body.into(),
        });
        Box::pin(std::future::ready(answer))
    }
}

/// An object store that a test looks into.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) memory: MemoryBlobs,
    news: Notify,
}

impl Files {
    /// Waits until there are some, and takes them.
    pub(crate) async fn take(&self) -> BTreeMap<String, Bytes> {
        let waiting = async {
            loop {
                let news = self.news.notified();
                let kept = self.memory.take_all();
                if !kept.is_empty() {
                    return kept;
                }
                news.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        waited.expect("a file is written")
    }
}

impl BlobStore for Files {
    fn put(&self, path: String, content: Bytes) -> BoxFuture<'_, Result<(), String>> {
        let put = self.memory.put(path, content);
        self.news.notify_one();
        put
    }

    fn write(&self, path: String) -> BoxFuture<'_, Result<Box<dyn BlobWrite>, BlobError>> {
        self.memory.write(path)
    }

    fn read(&self, path: String) -> BoxFuture<'_, Result<Option<FoundBlob>, BlobError>> {
        self.memory.read(path)
    }

    fn info(&self, path: String) -> BoxFuture<'_, Result<Option<BlobInfo>, BlobError>> {
        self.memory.info(path)
    }

    fn delete(&self, path: String) -> BoxFuture<'_, Result<(), BlobError>> {
        self.memory.delete(path)
    }

    fn list(
        &self,
        folder: String,
        before_ms: Option<u64>,
        count_max: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobInfo>, BlobError>> {
        self.memory.list(folder, before_ms, count_max)
    }

    fn sweep(&self, before_ms: u64) -> BoxFuture<'_, Result<(), BlobError>> {
        self.memory.sweep(before_ms)
    }
}

pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) cluster: Arc<FakeCluster>,
    pub(crate) device: DeviceId,
    pub(crate) identity: TlsIdentity,
    pub(crate) roots: Vec<u8>,
    pub(crate) audit: Arc<Kept>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) files: Arc<Files>,
    /// The time of the doors, milliseconds since 1970.
    pub(crate) now_ms: Arc<AtomicU64>,
}

pub(crate) fn certificate() -> (Vec<u8>, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    (
        made.cert.pem().into_bytes(),
        made.signing_key.serialize_pem().into_bytes(),
    )
}

impl World {
    pub(crate) async fn new() -> World {
        Self::with_connections_max(1000).await
    }

    pub(crate) async fn with_connections_max(connections_max: usize) -> World {
        Self::with(Audience::Everyone, connections_max, UploadConfig::default()).await
    }

    pub(crate) async fn for_operators() -> World {
        Self::with(Audience::Operators, 1000, UploadConfig::default()).await
    }

    /// One where a body of a file may take so long.
    pub(crate) async fn with_body_wait(body_wait: Duration) -> World {
        let uploads = UploadConfig {
            body_wait,
            ..UploadConfig::default()
        };
        Self::with(Audience::Everyone, 1000, uploads).await
    }

    async fn with(audience: Audience, connections_max: usize, uploads: UploadConfig) -> World {
        let cluster = FakeCluster::new();
        let device = cluster.add_device("dev-1");
        let (chain, key) = certificate();
        let identity = TlsIdentity::from_pem(&chain, &key).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let mqtt = (audience == Audience::Everyone).then_some(any);
        let config = GatewayConfig {
            audience,
            host_names: vec![HOST.into(), "localhost".into()],
            mqtts: mqtt.into_iter().collect(),
            amqps: mqtt.into_iter().collect(),
            kafka: mqtt.into_iter().collect(),
            https: vec![any],
            mqtt_plain: mqtt,
            tls: identity.clone(),
            connections_max,
            uploads: UploadConfig {
                file_bytes_max: FILE_BYTES_MAX,
                block_bytes_max: BLOCK_BYTES_MAX,
                ..uploads
            },
        };
        let audit = Arc::new(Kept::default());
        let outside = Arc::new(Outside::default());
        let files = Arc::new(Files::default());
        let now_ms = Arc::new(AtomicU64::new(NOW_S * 1000));
        let clock = Arc::clone(&now_ms);
        let hooks = Hooks {
            outbound: outside.clone(),
            blobs: files.clone(),
            audit: audit.clone(),
            now_ms: Arc::new(move || clock.load(Ordering::Relaxed)),
            is_admin_token: Arc::new(|token| token == "the-admin"),
            metrics_text: Arc::new(|| "# EOF\n".into()),
            extra: Some(axum::Router::new().route("/console", axum::routing::get(|| async { "console" }))),
            ..Hooks::default()
        };
        let gateway = Gateway::start(config, cluster.clone(), hooks).await.unwrap();
        World {
            gateway,
            cluster,
            device,
            identity,
            roots: chain,
            audit,
            outside,
            files,
            now_ms,
        }
    }

    pub(crate) fn tcp(&self) -> Transport {
        Transport::Tcp {
            address: self.gateway.mqtt_plain_address().unwrap().to_string(),
        }
    }

    pub(crate) fn tls(&self) -> Transport {
        Transport::Tls {
            address: self.gateway.mqtts_addresses()[0].to_string(),
            server_name: "localhost".into(),
            config: client_config(&self.roots).unwrap(),
        }
    }

    pub(crate) fn websocket(&self) -> Transport {
        Transport::WebSocket {
            address: self.gateway.https_addresses()[0].to_string(),
            server_name: "localhost".into(),
            config: client_config(&self.roots).unwrap(),
        }
    }

    pub(crate) fn options(&self, version: Version) -> ConnectOptions {
        let token = device_token(HOST, "dev-1", KEY, NOW_S + 3600).unwrap();
        ConnectOptions {
            version,
            ..ConnectOptions::new(self.tcp(), HOST, "dev-1", token)
        }
    }

    pub(crate) async fn connect(&self, version: Version) -> Client {
        Client::connect(&self.options(version)).await.unwrap()
    }

    /// The code of a refused connect.
    pub(crate) async fn refusal(&self, options: &ConnectOptions) -> u8 {
        match Client::connect(options).await {
            Err(ClientError::Refused(code)) => code,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("admitted"),
        }
    }

    /// What the hub answers to these bytes on a new connection until it closes.
    pub(crate) async fn answer_to(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.gateway.mqtt_plain_address().unwrap())
            .await
            .unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset after what the hub had not read is a close as well.
        let reading = async {
            let mut chunk = [0; 1024];
            while let Ok(read) = stream.read(&mut chunk).await {
                if read == 0 {
                    break;
                }
                answer.extend_from_slice(&chunk[..read]);
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .expect("the hub closes");
        answer
    }

    pub(crate) fn service_token(&self, policy: &str) -> String {
        auth::sign(HOST, KEY, NOW_S + 3600, Some(policy)).unwrap()
    }

    /// Trusts the hub, and shows a certificate of its own: chain and key as PEM.
    pub(crate) fn showing(&self, (chain, key): &(Vec<u8>, Vec<u8>)) -> Arc<rustls::ClientConfig> {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let mut roots = rustls::RootCertStore::empty();
        let read = |pem: &[u8]| {
            CertificateDer::pem_slice_iter(pem)
                .map(Result::unwrap)
                .collect::<Vec<_>>()
        };
        read(&self.roots)
            .into_iter()
            .for_each(|root| roots.add(root).unwrap());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(read(chain), PrivateKeyDer::from_pem_slice(key).unwrap());
        Arc::new(config.unwrap())
    }

    pub(crate) async fn https(&self) -> TlsStream<TcpStream> {
        self.https_with(client_config(&self.roots).unwrap()).await
    }

    pub(crate) async fn https_with(&self, config: Arc<rustls::ClientConfig>) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.gateway.https_addresses()[0])
            .await
            .unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        TlsConnector::from(config).connect(name, stream).await.unwrap()
    }

    /// A request by `iothubowner`.
    pub(crate) async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let token = self.service_token("iothubowner");
        let mut all = vec![("Authorization", token.as_str())];
        all.extend_from_slice(headers);
        self.http_as(method, path, &all, body.as_bytes()).await
    }

    /// A request by `provisioningserviceowner`.
    pub(crate) async fn provisioning(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: serde_json::Value,
    ) -> Answer {
        let token = self.service_token("provisioningserviceowner");
        let mut all = vec![("Authorization", token.as_str())];
        all.extend_from_slice(headers);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.http_as(method, path, &all, body.as_bytes()).await
    }

    pub(crate) async fn http_as(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let stream = self.https().await;
        Self::ask(stream, (method, path), headers, body).await
    }

    /// A request on this connection, which ends with it.
    pub(crate) async fn ask(
        mut stream: TlsStream<TcpStream>,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let _ = stream.write_all(body).await;
        read_answer(stream).await
    }

    /// Opens an event stream; see [`read_until`].
    pub(crate) async fn event_stream(&self, path: &str, headers: &[(&str, &str)]) -> TlsStream<TcpStream> {
        let mut stream = self.https().await;
        let token = self.service_token("service");
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {token}\r\nAccept: text/event-stream\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

/// Reads an answer on a connection that ends with it.
pub(crate) async fn read_answer(mut stream: TlsStream<TcpStream>) -> Answer {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    Answer::parse(&bytes)
}

/// Reads until `pattern` has come; returns everything.
pub(crate) async fn read_until(stream: &mut TlsStream<TcpStream>, pattern: &str) -> String {
    let mut seen = String::new();
    let mut chunk = [0; 4096];
    let reading = async {
        while !seen.contains(pattern) {
            let read = stream.read(&mut chunk).await.unwrap();
            assert!(read > 0, "closed after {seen}");
            seen.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("the pattern comes");
    seen
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self {
            status,
            headers,
            body: body.to_owned(),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    pub(crate) fn error_code(&self) -> &str {
        self.headers.get("iothub-errorcode").map_or("", String::as_str)
    }
}

/// The next event, within a bound that only a hub that hangs would reach.
pub(crate) async fn next(client: &mut Client) -> Event {
    tokio::time::timeout(Duration::from_secs(20), client.next_event())
        .await
        .expect("an event comes")
}

pub(crate) fn puback(id: u16) -> Event {
    Event::Puback { id, receipt: None }
}

pub(crate) const TOPIC: &str = "devices/dev-1/messages/events/a=b";
