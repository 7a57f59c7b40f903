//! A hub as a service and a device see it: its REST interface, and where devices connect.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_gateway::client::{ConnectOptions, Transport, device_token};
use dunlin_gateway::mqtt::Version;
use dunlin_gateway::tls::client_config;
use dunlin_node::ready::{Ready, ReadyNode};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::judge::{Place, Stored};
use crate::{PATIENCE, eventually};

/// The hub's name in user names and tokens; every node's certificate has it.
pub const HOST: &str = "localhost";

/// Events that one request reads.
const PAGE_EVENTS: usize = 1000;

/// A registered device.
#[derive(Debug, Clone)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: String,
}

impl Device {
    /// A token that is good for an hour.
    pub fn token(&self) -> String {
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        device_token(HOST, &self.id, &self.key, now_s + 3600).expect("the key is one of ours")
    }
}

/// The doors of one node.
#[derive(Debug, Clone)]
pub struct Door {
    /// `host:port` of MQTT over TLS.
    pub mqtts: String,
    /// `host:port` of HTTPS and of MQTT over WebSocket.
    pub https: String,
    /// Trusts the hub's authority and nobody else.
    pub tls: Arc<rustls::ClientConfig>,
}

impl Door {
    /// How `device` connects over TLS, with MQTT 5 and receipts.
    pub fn options(&self, device: &Device) -> ConnectOptions {
        let transport = Transport::Tls {
            address: self.mqtts.clone(),
            server_name: HOST.to_owned(),
            config: self.tls.clone(),
        };
        ConnectOptions {
            version: Version::V5,
            receipts: true,
            ..ConnectOptions::new(transport, HOST, &device.id, device.token())
        }
    }

    /// The same through a WebSocket.
    pub fn websocket_options(&self, device: &Device) -> ConnectOptions {
        ConnectOptions {
            transport: Transport::WebSocket {
                address: self.https.clone(),
                server_name: HOST.to_owned(),
                config: self.tls.clone(),
            },
            ..self.options(device)
        }
    }
}

fn door(node: &ReadyNode, tls: &Arc<rustls::ClientConfig>) -> Door {
    Door {
        mqtts: node.mqtts.clone(),
        https: node.https.clone(),
        tls: tls.clone(),
    }
}

/// A hub that is ready, with an HTTPS client that trusts it.
#[derive(Clone)]
pub struct Hub {
    http: reqwest::Client,
    /// The doors of its gateways.
    pub doors: Vec<Door>,
    token: String,
}

impl Hub {
    /// The hub that said that it is ready.
    pub fn new(ready: &Ready) -> Hub {
        let roots = std::fs::read(&ready.ca_file).expect("the authority's certificate");
        let tls = client_config(&roots).expect("a certificate that can be read");
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(rustls::ClientConfig::clone(&tls))
            .timeout(PATIENCE)
            .no_proxy()
            .build()
            .expect("an HTTPS client");
        let gateways = ready.nodes.iter().filter(|node| !node.mqtts.is_empty());
        let doors = gateways.map(|node| door(node, &tls));
        Hub {
            http,
            doors: doors.collect(),
            token: ready.admin_token.clone(),
        }
    }

    /// The hub through these nodes only.
    pub fn through<'a>(&self, nodes: impl IntoIterator<Item = &'a ReadyNode>) -> Hub {
        let tls = &self.doors[0].tls;
        Hub {
            doors: nodes.into_iter().map(|node| door(node, tls)).collect(),
            ..self.clone()
        }
    }

    /// A request to the node in place `door`, without credentials.
    pub fn request(&self, door: usize, method: Method, path: &str) -> reqwest::RequestBuilder {
        let address = &self.doors[door].https;
        self.http.request(method, format!("https://{address}{path}"))
    }

    /// The same as the admin.
    pub fn request_as_admin(&self, door: usize, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request(door, method, path).bearer_auth(&self.token)
    }

    /// Asks the nodes in turn, as the admin, until one does not answer with trouble of its own.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.call_if(method, path, None, body).await
    }

    async fn call_if(
        &self,
        method: Method,
        path: &str,
        if_match: Option<&str>,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut door = 0;
        eventually(&format!("{method} {path} answered"), PATIENCE, || {
            let mut request = self.request_as_admin(door % self.doors.len(), method.clone(), path);
            door += 1;
            if let Some(version) = if_match {
                request = request.header("If-Match", version);
            }
            if let Some(body) = &body {
                request = request.json(body);
            }
            async move {
                let response = request.send().await.ok()?;
                let status = response.status();
                let text = response.text().await.ok()?;
                if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                    return None;
                }
                Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
            }
        })
        .await
    }

    async fn must(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method.clone(), path, body).await;
        assert!(status.is_success(), "{method} {path}: {status}: {answer}");
        answer
    }

    /// Registers a device; the hub draws its keys.
    pub async fn create(&self, id: &str) -> Device {
        let path = format!("/devices/{id}");
        let (status, answer) = self
            .call(Method::PUT, &path, Some(json!({ "deviceId": id })))
            .await;
        // An attempt whose answer was lost may have made it.
        let answer = match status {
            StatusCode::CONFLICT => self.must(Method::GET, &path, None).await,
            _ => answer,
        };
        let key = answer["authentication"]["symmetricKey"]["primaryKey"].as_str();
        Device {
            id: id.to_owned(),
            key: key
                .unwrap_or_else(|| panic!("{id}: {status}: {answer}"))
                .to_owned(),
        }
    }

    /// Registers `count` devices, `prefix` and a number each.
    pub async fn create_many(&self, prefix: &str, count: usize) -> Vec<Device> {
        let mut devices = Vec::new();
        for number in 0..count {
            devices.push(self.create(&format!("{prefix}{number}")).await);
        }
        devices
    }

    /// Sets whether a device may connect.
    pub async fn set_status(&self, device: &Device, status: &str) {
        let path = format!("/devices/{}", device.id);
        let body = json!({ "deviceId": device.id, "status": status });
        let (code, answer) = self.call_if(Method::PUT, &path, Some("*"), Some(body)).await;
        assert!(code.is_success(), "{path}: {code}: {answer}");
    }

    /// Removes a device from the registry.
    pub async fn remove(&self, device: &Device) {
        let path = format!("/devices/{}", device.id);
        let (code, answer) = self.call_if(Method::DELETE, &path, Some("*"), None).await;
        // An attempt whose answer was lost may have done it.
        let is_gone = code.is_success() || code == StatusCode::NOT_FOUND;
        assert!(is_gone, "{path}: {code}: {answer}");
    }

    /// Every message of every shard, each shard from its beginning to the end it says it has.
    pub async fn read_all(&self) -> Vec<Stored> {
        let shards = self.must(Method::GET, "/shards", None).await;
        let mut found = Vec::new();
        for line in shards["shards"].as_array().expect("a list of shards") {
            let shard = line["shard"].as_u64().expect("a shard's number") as u32;
            let end = line["end"].as_u64().expect("a shard's end");
            let mut next = 0;
            while next < end {
                let path = format!("/events/{shard}?from={next}&max={PAGE_EVENTS}");
                let page = self.must(Method::GET, &path, None).await;
                let events = page["events"].as_array().expect("a list of events");
                found.extend(events.iter().map(|event| to_stored(shard, event)));
                let after = page["next"].as_u64().expect("where the next page begins");
                assert!(
                    after > next,
                    "shard {shard} ends at {end} and shows nothing from {next} on"
                );
                next = after;
            }
        }
        found
    }

    /// The messages of one device, in order.
    pub async fn read_device(&self, device: &str) -> Vec<Vec<u8>> {
        let stored = self.read_all().await;
        let own = stored.into_iter().filter(|message| message.device == device);
        own.map(|message| message.body).collect()
    }

    /// How the cluster is, as `cluster::admin` shows it.
    pub async fn status(&self) -> Value {
        self.must(Method::POST, "/cluster/admin", Some(json!({ "op": "status" })))
            .await
    }
}

fn to_stored(shard: u32, event: &Value) -> Stored {
    let text = |name: &str| {
        event[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {event}"))
    };
    Stored {
        place: Place {
            shard,
            offset: event["offset"].as_u64().expect("an event's offset"),
        },
        device: text("deviceId").to_owned(),
        body: STANDARD.decode(text("body")).expect("a body in Base64"),
    }
}
