//! The hub as a service sees it: over HTTPS, with the admin's token, through whichever node answers.
//!
//! Every call here may be repeated, and is: against the next node that is not known to be down, until
//! one answers or the attempts are used up.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dunlin_cluster::admin::{AdminRequest, ClusterStatus};
use dunlin_node::ready::Ready;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// Attempts of one call.
const ATTEMPTS_MAX: u32 = 40;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(250);
/// Time for one attempt.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Time to reach a node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Events on a page.
const PAGE_EVENTS: usize = 1000;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The client could not be made.
    #[error("set up HTTPS: {0}")]
    Setup(String),
    /// The hub refused.
    #[error("{method} {path}: {status}: {body}")]
    Refused {
        /// What was asked.
        method: Method,
        /// Of what.
        path: String,
        /// The answer.
        status: StatusCode,
        /// And its text.
        body: String,
    },
    /// Nobody answered, however often.
    #[error("{method} {path}: no answer after {ATTEMPTS_MAX} attempts: {last}")]
    NoAnswer {
        /// What was asked.
        method: Method,
        /// Of what.
        path: String,
        /// Why the last attempt failed.
        last: String,
    },
    /// An answer that cannot be read.
    #[error("{path}: {source}")]
    Json {
        /// Of what.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// One page of a shard's events.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// The events.
    pub events: Vec<PageEvent>,
    /// Where the next page begins.
    pub next: u64,
    /// The offset behind the shard's last event.
    pub end: u64,
}

/// An event, as far as it is compared.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageEvent {
    /// Its place.
    pub offset: u64,
    /// When it was stored: milliseconds since 1970, by the leader's clock.
    pub enqueued_time_ms: u64,
    /// Who sent it, as the hub says.
    pub device_id: String,
    /// Its payload in Base64.
    pub body: String,
}

/// An answer to one attempt.
#[derive(Debug, Clone)]
pub struct Answered {
    /// How it went.
    pub status: StatusCode,
    /// What stands before the body.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The hub's HTTPS side.
pub struct Hub {
    http: reqwest::Client,
    /// `host:port` of each; empty for one that is never asked.
    nodes: Mutex<Vec<String>>,
    /// A bit for each node that serves operators alone, and is asked only by name.
    for_operators: u32,
    /// The whole header that opens what is asked.
    authorization: String,
    /// A bit for each node that is known to be down.
    down: AtomicU32,
    /// The node that is asked first.
    first: AtomicUsize,
}

impl Hub {
    /// For the nodes in `ready`, trusting its certificate authority alone.
    pub fn new(ready: &Ready) -> Result<Self, HubError> {
        let setup = |error: &dyn std::fmt::Display| HubError::Setup(error.to_string());
        let roots = std::fs::read(&ready.ca_file).map_err(|error| setup(&error))?;
        let config = dunlin_gateway::tls::client_config(&roots).map_err(|error| setup(&error))?;
        let nodes = ready.nodes.iter().map(|node| node.https.clone()).collect();
        let hub = Self::of_nodes(nodes, &config, format!("Bearer {}", ready.admin_token))?;
        let without_devices = (0..).zip(&ready.nodes).filter(|(_, node)| node.mqtts.is_empty());
        Ok(Self {
            for_operators: without_devices.fold(0, |bits, (place, _)| bits | 1 << place),
            ..hub
        })
    }

    /// For nodes anywhere (`host:port` of HTTPS), with what opens them as an `Authorization` header.
    pub fn of_nodes(
        nodes: Vec<String>,
        config: &rustls::ClientConfig,
        authorization: String,
    ) -> Result<Self, HubError> {
        let setup = |error: &dyn std::fmt::Display| HubError::Setup(error.to_string());
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config.clone())
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| setup(&error))?;
        Ok(Self {
            http,
            nodes: Mutex::new(nodes),
            for_operators: 0,
            authorization,
            down: AtomicU32::new(0),
            first: AtomicUsize::new(0),
        })
    }

    /// Says that a node is down, so that it is not asked, or up again.
    pub fn set_down(&self, node: usize, is_down: bool) {
        if is_down {
            self.down.fetch_or(1 << node, Ordering::Relaxed);
        } else {
            self.down.fetch_and(!(1 << node), Ordering::Relaxed);
        }
    }

    /// Whether a node is known to be down.
    pub fn is_down(&self, node: usize) -> bool {
        self.down.load(Ordering::Relaxed) & (1 << node) != 0
    }

    /// Asks this node first from now on.
    pub fn prefer(&self, node: usize) {
        self.first.store(node, Ordering::Relaxed);
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Bytes, HubError> {
        let body = body.map(|body| body.to_string().into_bytes());
        let mut node = self.first.load(Ordering::Relaxed);
        let mut last = String::new();
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let count = self.node_count();
            for _ in 0..count {
                if self.answers_all(node % count) {
                    break;
                }
                node += 1;
            }
            let asked = node % count.max(1);
            node += 1;
            let address = self.address(asked);
            let answer = self.attempt(asked, (method.clone(), path), None, body.clone(), None);
            match answer.await {
                Ok((status, body)) if status.is_success() => return Ok(body),
                Ok((status, body)) => {
                    let body = String::from_utf8_lossy(&body).into_owned();
                    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
                        return Err(HubError::Refused {
                            method,
                            path: path.to_owned(),
                            status,
                            body,
                        });
                    }
                    last = format!("{address}: {status}: {body}");
                }
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(HubError::NoAnswer {
            method,
            path: path.to_owned(),
            last,
        })
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, HubError> {
        let body = self.call(Method::GET, path, None).await?;
        serde_json::from_slice(&body).map_err(|source| HubError::Json {
            path: path.to_owned(),
            source,
        })
    }

    /// Creates a device with this key. One that is there already was created by an earlier attempt.
    pub async fn create_device(&self, device: &str, key: &str) -> Result<(), HubError> {
        let body = json!({
            "deviceId": device,
            "authentication": { "type": "sas", "symmetricKey": { "primaryKey": key, "secondaryKey": key } },
        });
        match self
            .call(Method::PUT, &format!("/devices/{device}"), Some(body))
            .await
        {
            Ok(_) => Ok(()),
            Err(HubError::Refused {
                status: StatusCode::CONFLICT,
                ..
            }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// How the cluster is.
    pub async fn status(&self) -> Result<ClusterStatus, HubError> {
        let path = "/cluster/admin";
        let json_error = |source| HubError::Json {
            path: path.to_owned(),
            source,
        };
        let request = serde_json::to_value(AdminRequest::Status).map_err(json_error)?;
        let body = self.call(Method::POST, path, Some(request)).await?;
        serde_json::from_slice(&body).map_err(json_error)
    }

    /// Asks the operators' door for a change.
    pub async fn admin(&self, request: &AdminRequest) -> Result<(), HubError> {
        let path = "/cluster/admin";
        let request = serde_json::to_value(request).map_err(|source| HubError::Json {
            path: path.to_owned(),
            source,
        })?;
        self.call(Method::POST, path, Some(request)).await.map(drop)
    }

    /// Puts the routing document, in place of what there is.
    pub async fn put_routing(&self, document: &Value) -> Result<(), HubError> {
        let document = Some(document.clone());
        self.call(Method::PUT, "/routing", document).await.map(drop)
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<String>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a node can be asked whatever a service may ask.
    fn answers_all(&self, node: usize) -> bool {
        let is_for_operators = self.for_operators & (1 << node) != 0;
        !is_for_operators && !self.is_down(node) && !self.address(node).is_empty()
    }

    /// `host:port` of a node's HTTPS; empty for one that is not asked, or was not there at the beginning.
    pub fn address(&self, node: usize) -> String {
        self.nodes().get(node).cloned().unwrap_or_default()
    }

    /// Says where a node is reached from now on that was there at the beginning.
    pub fn set_address(&self, node: usize, address: &str) {
        if let Some(known) = self.nodes().get_mut(node) {
            address.clone_into(known);
        }
    }

    /// One attempt at one node, with a token of the caller's or the admin's, and the condition of an `If-Match`.
    ///
    /// # Errors
    /// Why there is no answer. What was asked for may have happened all the same.
    pub async fn attempt(
        &self,
        node: usize,
        (method, path): (Method, &str),
        token: Option<&str>,
        body: Option<Vec<u8>>,
        if_match: Option<&str>,
    ) -> Result<(StatusCode, Bytes), String> {
        // A device's token goes as it is.
        let mut headers = vec![("authorization", token.unwrap_or(&self.authorization))];
        headers.extend(if_match.map(|condition| ("if-match", condition)));
        headers.extend(body.is_some().then_some(("content-type", "application/json")));
        let answered = self.ask(node, (method, path), &headers, body).await?;
        Ok((answered.status, answered.body))
    }

    /// The same with these headers and no others, so with an `authorization` only where it is among them.
    ///
    /// # Errors
    /// Why there is no answer. What was asked for may have happened all the same.
    pub async fn ask(
        &self,
        node: usize,
        (method, path): (Method, &str),
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Answered, String> {
        let url = format!("https://{}{path}", self.address(node));
        let mut request = self.http.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = async {
            let response = request.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = response.bytes().await?;
            Ok::<_, reqwest::Error>(Answered {
                status,
                headers,
                body,
            })
        };
        answer.await.map_err(|error| error.to_string())
    }

    /// The header that opens everything.
    pub fn authorization(&self) -> &str {
        &self.authorization
    }

    /// Nodes that were there at the beginning.
    pub fn node_count(&self) -> usize {
        self.nodes().len()
    }

    /// The offset behind the last event of each shard.
    pub async fn shard_ends(&self) -> Result<Vec<(u32, u64)>, HubError> {
        #[derive(Deserialize)]
        struct Shards {
            shards: Vec<Shard>,
        }
        #[derive(Deserialize)]
        struct Shard {
            shard: u32,
            end: u64,
        }
        let answer: Shards = self.get("/shards").await?;
        Ok(answer
            .shards
            .iter()
            .map(|shard| (shard.shard, shard.end))
            .collect())
    }

    /// A page of a shard's events from `from` on.
    pub async fn events(&self, shard: u32, from: u64) -> Result<Page, HubError> {
        self.get(&format!("/events/{shard}?from={from}&max={PAGE_EVENTS}"))
            .await
    }
}

/// The name of the error in the body of an answer, as in `{"Message": "ErrorCode:Name;text"}`; empty if there is none.
pub fn error_code(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = body["Message"].as_str().unwrap_or_default();
    let code = message
        .split(';')
        .next()
        .and_then(|head| head.strip_prefix("ErrorCode:"));
    code.unwrap_or_default().to_owned()
}
