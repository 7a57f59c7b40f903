//! How a command finds the hub and talks to it: the only room here that knows HTTP and TLS.
//!
//! A hub has several doors; one that does not answer is passed over. A request that may have happened
//! is never sent again: its outcome is said to be unknown.

use std::borrow::Cow;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use dunlin_gateway::auth::{self, ConnectionString, ConnectionStringError};
use dunlin_gateway::client::{Client, ClientError, ConnectOptions, Transport, device_token, sdk_username};
use dunlin_gateway::mqtt::Version;
use dunlin_model::id::DeviceId;
use dunlin_node::ready::{ENDPOINT_FILE, Ready};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::Format;

pub(crate) const DATA_DEFAULT: &str = "dunlin-data";
/// Header that pages of a listing are asked on with.
const CONTINUATION: &str = "x-ms-continuation";
const HTTPS_PORT_DEFAULT: u16 = 443;
const MQTTS_PORT_DEFAULT: u16 = 8883;
const KAFKA_PORT_DEFAULT: u16 = 9093;
/// Time for TCP and TLS; a door that needs longer is passed over.
const DIAL_WAIT: Duration = Duration::from_secs(5);
/// Time for an answer; the hub itself gives up after 40 s.
const ANSWER_WAIT: Duration = Duration::from_secs(45);
/// Time that a device may take to be let in: the hub may damp it for 5 s and search for 10 s.
const CONNECT_WAIT: Duration = Duration::from_secs(20);
/// How long a hub that is busy or elects a leader is asked again.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(15);
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// Seconds that a token for one request is valid.
const REQUEST_TOKEN_S: u64 = 3600;
/// Seconds that a device's token is valid; the hub ends the connection some time after that.
const DEVICE_TOKEN_S: u64 = 24 * 3600;

/// Header that names an error of provisioning.
const PROVISIONING_ERROR_HEADER: &str = "x-ms-error-code";
/// How rustls begins when it refuses a certificate; reqwest hands on no more than its text.
const CERTIFICATE_REFUSED: &str = "invalid peer certificate";

/// Which hub, and how to answer.
#[derive(Args, Debug, Clone)]
pub(crate) struct HubArgs {
    /// Data directory of a hub on this machine [default: dunlin-data]
    #[arg(long, value_name = "DIR", global = true, help_heading = "Which hub")]
    pub(crate) data: Option<PathBuf>,
    /// Connection string of a policy, for a hub anywhere else; --data stands over it
    #[arg(
        long,
        value_name = "TEXT",
        global = true,
        help_heading = "Which hub",
        env = "DUNLIN_CONNECTION_STRING",
        hide_env_values = true
    )]
    connection_string: Option<String>,
    /// Certificate to trust (PEM), beside a connection string
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        help_heading = "Which hub",
        env = "DUNLIN_CA"
    )]
    ca: Option<PathBuf>,
    /// host:port of MQTT over TLS, beside a connection string [default: its host, port 8883]
    #[arg(
        long,
        value_name = "HOST:PORT",
        global = true,
        help_heading = "Which hub",
        env = "DUNLIN_MQTTS"
    )]
    mqtts: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "text", global = true)]
    pub(crate) output: Format,
}

/// Why the hub cannot be asked, or what it answers instead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    /// No hub has run with this data directory.
    #[error(
        "no hub found in {0}: start one with `dunlin serve`, or say which with --data or --connection-string"
    )]
    NoHub(String),
    /// A file that should say where the hub is.
    #[error("read {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The node serves operators alone.
    #[error("the node in {0} has no role `gateway`; name the data directory of one that has")]
    NoGateway(String),
    /// A connection string that cannot be read.
    #[error("--connection-string: {0}; it looks like HostName=..;SharedAccessKeyName=..;SharedAccessKey=..")]
    ConnectionString(String),
    /// A connection string alone does not say whom to trust.
    #[error(
        "a connection string needs the hub's certificate as well: name its file with --ca (or DUNLIN_CA)"
    )]
    NoTrust,
    /// The certificate cannot be used.
    #[error("use {path}: {why}")]
    Trust {
        /// The CA file.
        path: String,
        /// Why not.
        why: String,
    },
    /// No door answers.
    #[error("the hub does not answer at {tried} ({why}); is it running?")]
    Unreachable {
        /// The doors.
        tried: String,
        /// What the last one said.
        why: String,
    },
    /// Somebody answers who cannot prove to be the hub.
    #[error("{door} is not the hub that {ca_file} is for ({why}); name its CA file with --ca")]
    Untrusted {
        /// Which door.
        door: String,
        /// What was to be trusted.
        ca_file: String,
        /// Why it is not.
        why: String,
    },
    /// The request was sent, and nothing came back.
    #[error("no answer from {door} ({why}): it may have happened or not; look before you try again")]
    Unknown {
        /// Which door.
        door: String,
        /// Why.
        why: String,
    },
    /// The credential does not count, or not for this.
    #[error(
        "the hub refuses the credential: it is of another hub, expired, or its policy does not allow this"
    )]
    Unauthorized,
    /// Nobody of this name is registered.
    #[error("there is no device {0}; `dunlin device list` shows those there are")]
    NoDevice(String),
    /// The hub says no.
    #[error("the hub refuses: {message}")]
    Refused {
        /// IoT Hub's name of the error.
        code: String,
        /// What it says.
        message: String,
        /// Whether it may say yes later.
        is_busy: bool,
    },
    /// An answer that is not understood.
    #[error("the hub's answer is not understood: {0}; is it of another version?")]
    Answer(String),
}

impl HubError {
    /// IoT Hub's name of the error, or provisioning's number, if the hub said no.
    pub(crate) fn code(&self) -> &str {
        match self {
            HubError::Refused { code, .. } => code,
            HubError::NoDevice(_) => "DeviceNotFound",
            _ => "",
        }
    }

    /// Whether the same may work later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(
            self,
            HubError::Unreachable { .. } | HubError::Unknown { .. } | HubError::Refused { is_busy: true, .. }
        )
    }
}

impl From<ConnectionStringError> for HubError {
    fn from(error: ConnectionStringError) -> Self {
        HubError::ConnectionString(error.to_string())
    }
}

/// Addresses of one node, `host:port`.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) https: String,
    /// Empty where the node is no gateway and serves operators alone.
    pub(crate) mqtts: String,
    /// Kafka over TLS; empty where the node has no such door.
    pub(crate) kafka: String,
    /// MQTT without TLS, where the node has it.
    pub(crate) mqtt: Option<String>,
}

impl Door {
    fn is_gateway(&self) -> bool {
        !self.mqtts.is_empty()
    }
}

enum Credential {
    Admin(String),
    Policy { host: String, name: String, key: String },
}

/// What is asked.
pub(crate) struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'static str, String)>,
    headers: Vec<(Cow<'static, str>, String)>,
    body: Option<String>,
    is_stream: bool,
    wait: Duration,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            is_stream: false,
            wait: ANSWER_WAIT,
        }
    }

    pub(crate) fn get(path: &'a [&'a str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(crate) fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn json(self, body: Value) -> Self {
        self.header("content-type", "application/json")
            .text(body.to_string())
    }

    /// Asks with this body, as it is.
    pub(crate) fn text(mut self, body: String) -> Self {
        self.body = Some(body);
        self
    }

    /// An answer may take this long.
    pub(crate) fn within(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Whether every node answers it, gateway or not.
    fn is_for_any_node(&self) -> bool {
        self.path.first() == Some(&"cluster")
    }

    /// The answer has no end.
    pub(crate) fn stream(mut self) -> Self {
        self.is_stream = true;
        self.header("accept", "text/event-stream")
    }
}

/// A hub that was found; whether it answers shows when it is asked.
pub(crate) struct Hub {
    http: reqwest::Client,
    /// Gateways first.
    doors: Vec<Door>,
    /// How many of them are gateways.
    gateways: usize,
    /// The door that answered last.
    first: AtomicUsize,
    /// Where it was found: a folder, or an address.
    found_in: String,
    credential: Credential,
    ca_file: PathBuf,
    trust: Arc<rustls::ClientConfig>,
    /// The name that devices are given.
    host_name: String,
}

impl Hub {
    /// Finds the hub that `args` mean.
    pub(crate) fn find(args: &HubArgs) -> Result<Hub, HubError> {
        match (&args.data, &args.connection_string) {
            (None, Some(text)) => Self::of_connection_string(args, text),
            (Some(folder), _) => Self::of_folder(folder),
            (None, None) => Self::of_folder(Path::new(DATA_DEFAULT)),
        }
    }

    fn of_folder(folder: &Path) -> Result<Hub, HubError> {
        let ready = Ready::load(folder).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => HubError::NoHub(folder.display().to_string()),
            _ => HubError::File {
                path: folder.join(ENDPOINT_FILE).display().to_string(),
                source,
            },
        })?;
        let doors: Vec<Door> = ready
            .nodes
            .iter()
            .filter(|node| !node.https.is_empty())
            .map(|node| Door {
                https: dialled(&node.https),
                mqtts: dialled(&node.mqtts),
                kafka: dialled(&node.kafka),
                mqtt: node.mqtt.as_deref().map(dialled),
            })
            .collect();
        let door = doors.iter().find(|door| door.is_gateway());
        let host_name = door.map_or("localhost", |door| host_of(&door.mqtts)).to_owned();
        let found_in = folder.display().to_string();
        let credential = Credential::Admin(ready.admin_token);
        Self::new(doors, found_in, credential, ready.ca_file, host_name, true)
    }

    fn of_connection_string(args: &HubArgs, text: &str) -> Result<Hub, HubError> {
        let found = ConnectionString::parse(text)?;
        let Some(name) = found.shared_access_key_name.clone() else {
            return Err(HubError::ConnectionString("this one is a device's".into()));
        };
        let ca_file = args.ca.clone().ok_or(HubError::NoTrust)?;
        let host = found.dialled_host();
        let https = if port_of(host).is_some() {
            host.to_owned()
        } else {
            format!("{host}:{HTTPS_PORT_DEFAULT}")
        };
        let mqtts = args
            .mqtts
            .clone()
            .unwrap_or_else(|| format!("{}:{MQTTS_PORT_DEFAULT}", host_of(host)));
        let kafka = format!("{}:{KAFKA_PORT_DEFAULT}", host_of(host));
        let host_name = host_of(&found.host_name).to_owned();
        auth::decode_key(&found.shared_access_key)
            .map_err(|error| HubError::ConnectionString(error.to_string()))?;
        let credential = Credential::Policy {
            host: found.host_name,
            name,
            key: found.shared_access_key,
        };
        let found_in = https.clone();
        let doors = vec![Door {
            https,
            mqtts,
            kafka,
            mqtt: None,
        }];
        Self::new(doors, found_in, credential, ca_file, host_name, false)
    }

    fn new(
        doors: Vec<Door>,
        found_in: String,
        credential: Credential,
        ca_file: PathBuf,
        host_name: String,
        is_local: bool,
    ) -> Result<Hub, HubError> {
        let (gateways, others): (Vec<Door>, Vec<Door>) = doors.into_iter().partition(Door::is_gateway);
        let path = ca_file.display().to_string();
        let pem = std::fs::read(&ca_file).map_err(|source| HubError::File {
            path: path.clone(),
            source,
        })?;
        let refused = |why: String| HubError::Trust {
            path: path.clone(),
            why,
        };
        let trust = dunlin_gateway::tls::client_config(&pem).map_err(|error| refused(error.to_string()))?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured((*trust).clone())
            .tls_info(true)
            .connect_timeout(DIAL_WAIT);
        if is_local {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| refused(root_cause(&error)))?;
        Ok(Hub {
            http,
            gateways: gateways.len(),
            doors: [gateways, others].concat(),
            first: AtomicUsize::new(0),
            found_in,
            credential,
            ca_file,
            trust,
            host_name,
        })
    }

    /// Every node.
    pub(crate) fn doors(&self) -> &[Door] {
        &self.doors
    }

    /// The nodes that devices and services may come to.
    pub(crate) fn gateways(&self) -> &[Door] {
        &self.doors[..self.gateways]
    }

    /// Its name, without a port.
    pub(crate) fn host_name(&self) -> &str {
        &self.host_name
    }

    /// Its name with the port of its services, as their connection strings have it.
    pub(crate) fn service_host(&self) -> String {
        let https = self.gateways().first().map(|door| door.https.as_str());
        match https.and_then(port_of).filter(|port| *port != HTTPS_PORT_DEFAULT) {
            Some(port) => format!("{}:{port}", self.host_name),
            None => self.host_name.clone(),
        }
    }

    /// How TLS connections to it are made.
    pub(crate) fn trust(&self) -> &Arc<rustls::ClientConfig> {
        &self.trust
    }

    /// The connection string of the policy that it is asked with; none if its administrator asks.
    pub(crate) fn policy_string(&self) -> Option<String> {
        match &self.credential {
            Credential::Admin(_) => None,
            Credential::Policy { host, name, key } => Some(
                ConnectionString {
                    host_name: host.clone(),
                    shared_access_key_name: Some(name.clone()),
                    shared_access_key: key.clone(),
                    ..ConnectionString::default()
                }
                .format(),
            ),
        }
    }

    /// The certificate that is trusted.
    pub(crate) fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The connection string of a device with this key.
    pub(crate) fn device_string(&self, device: &DeviceId, key: &str) -> String {
        ConnectionString {
            host_name: self.host_name.clone(),
            device_id: Some(device.to_string()),
            shared_access_key: key.to_owned(),
            ..ConnectionString::default()
        }
        .format()
    }

    /// The connection string of a device that proves itself with a certificate, as the SDKs write it.
    pub(crate) fn device_string_x509(&self, device: &DeviceId) -> String {
        format!("HostName={};DeviceId={device};x509=true", self.host_name)
    }

    /// The connection string of a device or a module with this key.
    pub(crate) fn identity_string(&self, identity: &DeviceId, key: &str) -> String {
        let device = identity.device_part();
        let module = identity.module_part();
        let module = module.map_or_else(String::new, |module| format!(";ModuleId={module}"));
        format!(
            "HostName={};DeviceId={device}{module};SharedAccessKey={key}",
            self.host_name
        )
    }

    /// What to tell about the port, which a device's connection string cannot carry.
    pub(crate) fn port_note(&self) -> Option<String> {
        let mqtts = &self.gateways().first()?.mqtts;
        (port_of(mqtts) != Some(MQTTS_PORT_DEFAULT)).then(|| {
            format!("note: SDKs dial port {MQTTS_PORT_DEFAULT}; this hub takes MQTT over TLS at {mqtts}")
        })
    }

    /// Asks, and returns the answer if it is a yes. Waits a while for a hub that is busy.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<Response, HubError> {
        let until = Instant::now() + BUSY_WAIT_MAX;
        loop {
            match self.call_each(call).await {
                Err(HubError::Refused { is_busy: true, .. }) if Instant::now() < until => {
                    sleep(BUSY_PAUSE).await
                }
                answer => return answer,
            }
        }
    }

    /// Asks one door after the other until one answers.
    async fn call_each(&self, call: &Call<'_>) -> Result<Response, HubError> {
        let doors = if call.is_for_any_node() {
            &self.doors
        } else {
            self.gateways()
        };
        let first = self.first.load(Ordering::Relaxed);
        let mut problem = None;
        for place in (first..first + doors.len()).map(|place| place % doors.len()) {
            match self.call_door(&doors[place], call).await {
                Ok(response) => {
                    self.first.store(place, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => match error {
                    HubError::Refused { is_busy: true, .. } => problem = Some(error),
                    // A busy door is nearer to an answer than one that is not there.
                    HubError::Unreachable { .. } => problem = problem.or(Some(error)),
                    error => return Err(error),
                },
            }
        }
        Err(match problem {
            Some(HubError::Unreachable { why, .. }) => {
                let tried: Vec<&str> = doors.iter().map(|door| door.https.as_str()).collect();
                HubError::Unreachable {
                    tried: tried.join(", "),
                    why,
                }
            }
            Some(error) => error,
            None => HubError::NoGateway(self.found_in.clone()),
        })
    }

    /// Asks this door and no other.
    pub(crate) async fn call_door(&self, door: &Door, call: &Call<'_>) -> Result<Response, HubError> {
        let request = self.request(door, call)?;
        let answer = timeout(call.wait, request.send()).await;
        let (why, was_sent) = match answer {
            Ok(Ok(response)) if response.status().is_success() => return Ok(response),
            Ok(Ok(response)) => return Err(refusal(response).await),
            Ok(Err(error)) => (root_cause(&error), !error.is_connect()),
            Err(_) => ("timed out".to_owned(), true),
        };
        if why.contains(CERTIFICATE_REFUSED) {
            let ca_file = self.ca_file.display().to_string();
            return Err(HubError::Untrusted {
                door: door.https.clone(),
                ca_file,
                why,
            });
        }
        // Reading twice does no harm.
        if was_sent && call.method != Method::GET {
            Err(HubError::Unknown {
                door: door.https.clone(),
                why,
            })
        } else {
            Err(HubError::Unreachable {
                tried: door.https.clone(),
                why,
            })
        }
    }

    fn request(&self, door: &Door, call: &Call<'_>) -> Result<RequestBuilder, HubError> {
        let mut url = url_of(door)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(call.path);
        }
        let mut request = self
            .http
            .request(call.method.clone(), url)
            .header("authorization", self.authorization()?);
        if !call.query.is_empty() {
            request = request.query(&call.query);
        }
        for (name, value) in &call.headers {
            request = request.header(&**name, value);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        Ok(if call.is_stream {
            request
        } else {
            request.timeout(call.wait)
        })
    }

    /// The header that opens what is asked.
    pub(crate) fn authorization(&self) -> Result<String, HubError> {
        match &self.credential {
            Credential::Admin(token) => Ok(format!("Bearer {token}")),
            Credential::Policy { host, name, key } => {
                auth::sign(host, key, now_s() + REQUEST_TOKEN_S, Some(name))
                    .map_err(|error| HubError::ConnectionString(error.to_string()))
            }
        }
    }

    /// Asks, and reads the answer as JSON.
    pub(crate) async fn call_json(&self, call: &Call<'_>) -> Result<Value, HubError> {
        let response = self.call(call).await?;
        response
            .json()
            .await
            .map_err(|error| HubError::Answer(root_cause(&error)))
    }

    /// Asks for one page of a listing: its rows, and what to ask the next one with, if there is more.
    pub(crate) async fn page(
        &self,
        mut call: Call<'_>,
        continuation: Option<String>,
    ) -> Result<(Vec<Value>, Option<String>), HubError> {
        if let Some(continuation) = continuation {
            call = call.header(CONTINUATION, continuation);
        }
        let response = self.call(&call).await?;
        let next = response.headers().get(CONTINUATION);
        let next = next.and_then(|next| next.to_str().ok()).map(str::to_owned);
        let rows = response.json().await;
        rows.map(|rows| (rows, next))
            .map_err(|error| HubError::Answer(root_cause(&error)))
    }

    /// What `/health` of one door answers, a no included.
    pub(crate) async fn health(&self, door: &Door) -> Result<Response, HubError> {
        let url = url_of(door)?
            .join("/health")
            .map_err(|error| HubError::Answer(error.to_string()))?;
        self.http
            .get(url)
            .timeout(DIAL_WAIT)
            .send()
            .await
            .map_err(|error| HubError::Unreachable {
                tried: door.https.clone(),
                why: root_cause(&error),
            })
    }

    /// The hub's name in user names and tokens of devices that come through this door.
    fn device_host<'a>(&'a self, door: &'a Door) -> &'a str {
        // A node of a local cluster answers to the name that was dialled; another hub has one name.
        match self.credential {
            Credential::Admin(_) => host_of(&door.mqtts),
            Credential::Policy { .. } => &self.host_name,
        }
    }

    /// User name and token with which a device comes through this door.
    pub(crate) fn introduction(
        &self,
        door: &Door,
        device: &DeviceId,
        key: &str,
    ) -> Result<(String, String), HubError> {
        let host = self.device_host(door);
        let token = device_token(host, device.as_str(), key, now_s() + DEVICE_TOKEN_S)
            .map_err(|error| HubError::Answer(error.to_string()))?;
        Ok((sdk_username(host, device.as_str()), token))
    }

    /// Connects as a device, with MQTT 5; `attempt` chooses the door.
    pub(crate) async fn connect(
        &self,
        device: &DeviceId,
        key: &str,
        how: Connect,
    ) -> Result<Client, ClientError> {
        let place = self.first.load(Ordering::Relaxed) + how.attempt;
        let Some(door) = self.gateways().get(place % self.gateways.max(1)) else {
            let none = HubError::NoGateway(self.found_in.clone());
            return Err(ClientError::Options(none.to_string()));
        };
        let host = self.device_host(door);
        let token = device_token(host, device.as_str(), key, now_s() + DEVICE_TOKEN_S)
            .map_err(|error| ClientError::Options(error.to_string()))?;
        let transport = Transport::Tls {
            address: door.mqtts.clone(),
            server_name: host_of(&door.mqtts).trim_matches(['[', ']']).to_owned(),
            config: Arc::clone(&self.trust),
        };
        let options = ConnectOptions {
            version: Version::V5,
            clean: true,
            window: how.window,
            receipts: how.receipts,
            ..ConnectOptions::new(transport, host, device.as_str(), token)
        };
        timeout(CONNECT_WAIT, Client::connect(&options))
            .await
            .map_err(|_| ClientError::TimedOut)?
    }
}

/// How a device connects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connect {
    /// Counts up, so that another door is tried.
    pub(crate) attempt: usize,
    /// Messages that may be unacknowledged.
    pub(crate) window: usize,
    /// Whether to ask for receipts.
    pub(crate) receipts: bool,
}

/// What the hub says instead of yes.
async fn refusal(response: Response) -> HubError {
    let status = response.status();
    if matches!(status, StatusCode::UNAUTHORIZED) {
        return HubError::Unauthorized;
    }
    let headers = response.headers();
    // Provisioning has a form of its own.
    let header = headers
        .get(dunlin_gateway::http::error::ERROR_CODE_HEADER)
        .or_else(|| headers.get(PROVISIONING_ERROR_HEADER));
    let code = header
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let body: Value = response.json().await.unwrap_or_default();
    let message = body.get("Message").or_else(|| body.get("message"));
    let message = message.and_then(Value::as_str).unwrap_or_default();
    // IoT Hub's form is `ErrorCode:Name;text`.
    let message = message.split_once(';').map_or(message, |(_, text)| text);
    HubError::Refused {
        message: if message.is_empty() {
            status.to_string()
        } else {
            super::shown(message)
        },
        is_busy: matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ),
        code,
    }
}

fn url_of(door: &Door) -> Result<Url, HubError> {
    Url::parse(&format!("https://{}/", door.https))
        .map_err(|error| HubError::ConnectionString(format!("{}: {error}", door.https)))
}

/// A node that listens on every address is dialled on this machine's own.
fn dialled(address: &str) -> String {
    match address
        .strip_prefix("0.0.0.0:")
        .or_else(|| address.strip_prefix("[::]:"))
    {
        Some(port) => format!("localhost:{port}"),
        None => address.to_owned(),
    }
}

pub(crate) fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

/// The part before the port.
pub(crate) fn host_of(address: &str) -> &str {
    match address.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => address,
    }
}

/// The innermost reason: the outer ones of reqwest say little.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> HubArgs {
        HubArgs {
            data: None,
            connection_string: Some(text.into()),
            ca: Some("/none".into()),
            mqtts: None,
            output: Format::Text,
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(
            (host_of("localhost:8883"), port_of("localhost:8883")),
            ("localhost", Some(8883))
        );
        assert_eq!((host_of("hub"), port_of("hub")), ("hub", None));
        assert_eq!(
            (host_of("[::1]:8883"), port_of("[::1]:8883")),
            ("[::1]", Some(8883))
        );
        assert_eq!(dialled("0.0.0.0:1"), "localhost:1");
        assert_eq!(dialled("127.0.0.2:1"), "127.0.0.2:1");
    }

    #[test]
    fn connection_strings_that_do_not_do_are_explained() {
        let problem = |text| {
            Hub::find(&args(text))
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert!(problem("HostName=h;DeviceId=d;SharedAccessKey=AAAA").contains("a device's"));
        assert!(problem("nonsense").contains("HostName="));
        let no_trust = HubArgs {
            ca: None,
            ..args("HostName=h;SharedAccessKeyName=n;SharedAccessKey=AAAA")
        };
        assert!(matches!(Hub::find(&no_trust), Err(HubError::NoTrust)));
    }

    #[test]
    fn a_folder_without_a_hub_is_explained() {
        let nowhere = HubArgs {
            data: Some("/nonexistent".into()),
            ..args("")
        };
        let problem = Hub::find(&nowhere)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(problem.contains("dunlin serve"), "{problem}");
    }
}
