//! W3, W4 and W5: services and a device that talk about its twin, send it messages and call its methods, all through
//! whatever gateways.
//!
//! Two services read and change what is desired, with and without conditions, find it by queries over all twins, call
//! methods and send messages; the device
//! reads its twin, reports, hears of changes, receives, and counts what it was asked ([`device`]). Nobody waits for
//! anybody, so what is right is for the whole history to say ([`crate::invariants::twins`], [`crate::invariants::messages`],
//! [`crate::invariants::methods`]). A device is left for another one after so much talk, or when too many of its outcomes
//! are not known: the search tries each of those at any later time. It stays a while for the rest of its messages.

mod device;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Bench;
use super::exchange::{Access, Answer, Call, Exchange, Leftover, MethodCall, Section, Sending};
use super::operation::Outcome;
use crate::hub::error_code;
use crate::stage;

/// Services that talk about one device.
const SERVICES: usize = 2;
/// Accesses of a device before another takes its place.
const ACCESSES_MAX: u32 = 300;
/// Outcomes of one section that are not known before another device takes its place.
const UNKNOWN_MAX: u32 = 6;
/// Seconds that a device has to answer a method, and to be there for it.
const METHOD_S: u64 = 5;
/// How long a device that nobody talks to any more stays for messages that wait, and the pause between two looks.
const REST_WAIT: Duration = Duration::from_secs(8);
const REST_PAUSE: Duration = Duration::from_millis(200);

/// A device that is talked about.
struct Talk {
    device: String,
    accesses: AtomicU32,
    unknown: AtomicU32,
    /// Nobody calls it any more, and it may go.
    is_left: AtomicBool,
}

impl Talk {
    fn is_over(&self) -> bool {
        self.accesses.load(Ordering::Relaxed) >= ACCESSES_MAX
            || self.unknown.load(Ordering::Relaxed) >= UNKNOWN_MAX
    }

    /// Writes an access down. A read without an answer has changed nothing, whatever it would have said.
    fn note(&self, bench: &Bench, access: Access) {
        self.accesses.fetch_add(1, Ordering::Relaxed);
        if access.answer == Answer::Unknown {
            if access.call == Call::Read {
                return;
            }
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        bench.shelf.exchanges.note(Exchange::Access(access));
    }
}

/// One device after the other, until it is told to stop. `slot` tells those apart that run at once; each of those who
/// talk waits `period` between two things.
pub async fn run(mut bench: Bench, slot: usize, period: Duration) {
    let mut random = StdRng::seed_from_u64(bench.seed ^ (slot as u64 + 1) << 16);
    for life in 0_usize.. {
        let begun = Instant::now();
        let talk = Arc::new(Talk {
            device: format!("talk-{slot}-{life}"),
            accesses: AtomicU32::new(0),
            unknown: AtomicU32::new(0),
            is_left: AtomicBool::new(false),
        });
        let key = stage::draw_key(&mut random);
        let made = bench.hub.create_device(&talk.device, &key).await;
        if let (Ok(()), Ok(token)) = (made, stage::token(&bench.host, &talk.device, &key)) {
            let seed = random.random();
            let own = device::run(
                bench.clone(),
                Arc::clone(&talk),
                (token, slot + life, seed),
                period,
            );
            let own = tokio::spawn(own);
            let mut services = JoinSet::new();
            for number in 0..SERVICES {
                let one = Service {
                    bench: bench.clone(),
                    talk: Arc::clone(&talk),
                    number,
                    random: StdRng::seed_from_u64(random.random()),
                    etag: None,
                };
                services.spawn(one.run(period));
            }
            while services.join_next().await.is_some() {}
            rest(&bench, &talk.device).await;
            talk.is_left.store(true, Ordering::Relaxed);
            let _ = own.await;
        }
        // Not faster than that, even where everything is refused at once.
        if !bench.wait_until(begun + period).await {
            return;
        }
    }
}

/// Waits until no message waits for `device`, and writes down how many do at last, if that can be learnt.
async fn rest(bench: &Bench, device: &str) {
    let path = format!("/devices/{device}?api-version=2021-04-12");
    let begun = Instant::now();
    let mut last = None;
    let mut node = 0;
    loop {
        let asked = (Method::GET, path.as_str());
        let answer = bench.ask_json(bench.turn(&mut node), asked, None, None).await;
        if let Some((StatusCode::OK, body)) = answer {
            last = body["cloudToDeviceMessageCount"].as_u64();
        }
        if last == Some(0) || begun.elapsed() > REST_WAIT {
            break;
        }
        tokio::time::sleep(REST_PAUSE).await;
    }
    if let Some(waiting) = last {
        let device = device.to_owned();
        bench
            .shelf
            .exchanges
            .note(Exchange::Leftover(Leftover { device, waiting }));
    }
}

/// What a section of a twin says, in the form of both sides.
fn seen(section: &Value, etag: Option<String>) -> Answer {
    Answer::Seen {
        value: section["value"].as_str().unwrap_or_default().to_owned(),
        version: section["$version"].as_u64().unwrap_or_default(),
        etag,
    }
}

struct Service {
    bench: Bench,
    talk: Arc<Talk>,
    number: usize,
    random: StdRng,
    /// The ETag that it saw last.
    etag: Option<String>,
}

impl Service {
    async fn run(mut self, period: Duration) {
        for count in 1.. {
            if self.talk.is_over() {
                return;
            }
            let begun = Instant::now();
            let name = format!("{}-{count}", self.number);
            match (self.random.random_range(0..100), self.etag.clone()) {
                (0..15, _) => self.read().await,
                (15..30, _) => self.query().await,
                (30..60, Some(etag)) => self.write(Call::Swap { etag, value: name }).await,
                (60..70, _) => self.write(Call::Write { value: name }).await,
                (70..85, _) => self.call(name).await,
                (85.., _) => self.send(name).await,
                _ => self.read().await,
            }
            let pause = period.mul_f64(self.random.random_range(0.5..1.5));
            if !self.bench.wait_until(begun + pause).await {
                return;
            }
        }
    }

    /// One request through some gateway; whether that has an answer, and between which times.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
        if_match: Option<&str>,
    ) -> (Result<(StatusCode, Bytes), String>, u64, u64) {
        let node = self.random.random_range(0..self.bench.gateways.len().max(1));
        let body = body.map(|body| body.to_string().into_bytes());
        let invoked_us = self.bench.now_us();
        let answer = self.bench.hub.attempt(node, (method, path), None, body, if_match);
        let answer = answer.await;
        (answer, invoked_us, self.bench.now_us())
    }

    async fn read(&mut self) {
        let path = format!("/twins/{}?api-version=2021-04-12", self.talk.device);
        let (answer, invoked_us, completed_us) = self.ask(Method::GET, &path, None, None).await;
        let Ok((StatusCode::OK, body)) = answer else {
            return;
        };
        let twin: Value = serde_json::from_slice(&body).unwrap_or_default();
        self.note_read(&twin, invoked_us, completed_us);
    }

    /// Reads the twin as one of all twins of the hub that a condition finds: by no name, so that every shard looks
    /// through its own.
    async fn query(&mut self) {
        let query = format!(
            "SELECT * FROM devices WHERE STARTSWITH(deviceId, '{}')",
            self.talk.device
        );
        let body = Some(json!({ "query": query }));
        let path = "/devices/query?api-version=2021-04-12";
        let (answer, invoked_us, completed_us) = self.ask(Method::POST, path, body, None).await;
        let Ok((StatusCode::OK, body)) = answer else {
            return;
        };
        // A page that ended early may be without it, which says nothing.
        let rows: Vec<Value> = serde_json::from_slice(&body).unwrap_or_default();
        let own = rows
            .into_iter()
            .find(|row| row["deviceId"] == self.talk.device.as_str());
        if let Some(twin) = own {
            self.note_read(&twin, invoked_us, completed_us);
        }
    }

    fn note_read(&mut self, twin: &Value, invoked_us: u64, completed_us: u64) {
        self.etag = twin["etag"].as_str().map(str::to_owned);
        for (section, name) in [(Section::Desired, "desired"), (Section::Reported, "reported")] {
            let answer = seen(&twin["properties"][name], self.etag.clone());
            let access = Access {
                device: self.talk.device.clone(),
                section,
                call: Call::Read,
                invoked_us,
                completed_us,
                answer,
            };
            self.talk.note(&self.bench, access);
        }
    }

    async fn write(&mut self, call: Call) {
        let path = format!("/twins/{}?api-version=2021-04-12", self.talk.device);
        let (value, condition) = match &call {
            Call::Read => return,
            Call::Write { value } => (value, None),
            Call::Swap { etag, value } => (value, Some(format!("\"{etag}\""))),
        };
        let body = json!({ "properties": { "desired": { "value": value } } });
        let asked = self.ask(Method::PATCH, &path, Some(body), condition.as_deref());
        let (answered, invoked_us, completed_us) = asked.await;
        let answer = match answered {
            // What comes with it was read afterwards, and may be of a later write.
            Ok((StatusCode::OK, _)) => Answer::Done { version: None },
            Ok((StatusCode::PRECONDITION_FAILED, _)) => Answer::Mismatch,
            Ok((StatusCode::GATEWAY_TIMEOUT | StatusCode::INTERNAL_SERVER_ERROR, _)) | Err(_) => {
                Answer::Unknown
            }
            // Turned away before anything was tried.
            Ok(_) => return,
        };
        let access = Access {
            device: self.talk.device.clone(),
            section: Section::Desired,
            call,
            invoked_us,
            completed_us,
            answer,
        };
        self.talk.note(&self.bench, access);
    }

    async fn send(&mut self, id: String) {
        let path = format!(
            "/devices/{}/messages/devicebound?api-version=2021-04-12",
            self.talk.device
        );
        let (answered, invoked_us, completed_us) = self.ask(Method::POST, &path, Some(json!(id)), None).await;
        let outcome = match answered {
            Ok((StatusCode::CREATED, _)) => Outcome::Ok,
            Ok((StatusCode::GATEWAY_TIMEOUT | StatusCode::INTERNAL_SERVER_ERROR, _)) | Err(_) => {
                Outcome::Unknown
            }
            Ok(_) => Outcome::Fail,
        };
        self.bench.shelf.exchanges.note(Exchange::Sending(Sending {
            device: self.talk.device.clone(),
            id,
            invoked_us,
            completed_us,
            outcome,
        }));
    }

    async fn call(&mut self, id: String) {
        let path = format!("/twins/{}/methods?api-version=2021-04-12", self.talk.device);
        let body = json!({
            "methodName": "echo",
            "payload": id,
            "responseTimeoutInSeconds": METHOD_S,
            "connectTimeoutInSeconds": METHOD_S,
        });
        let (answered, invoked_us, completed_us) = self.ask(Method::POST, &path, Some(body), None).await;
        let (outcome, answer) = judge(answered);
        self.bench.shelf.exchanges.note(Exchange::Call(MethodCall {
            device: self.talk.device.clone(),
            id,
            invoked_us,
            completed_us,
            outcome,
            answer,
        }));
    }
}

/// What the answer to a method call says of the device: that it was asked, that it was not, or neither.
fn judge(answered: Result<(StatusCode, Bytes), String>) -> (Outcome, String) {
    let (status, body) = match answered {
        Ok(answered) => answered,
        Err(error) => return (Outcome::Unknown, error),
    };
    if status == StatusCode::OK {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        return (
            Outcome::Ok,
            body["payload"].as_str().unwrap_or_default().to_owned(),
        );
    }
    let code = error_code(&body);
    let is_certain = match status {
        StatusCode::NOT_FOUND => code == "DeviceNotOnline",
        StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => true,
        _ => false,
    };
    let outcome = if is_certain {
        Outcome::Fail
    } else {
        Outcome::Unknown
    };
    (outcome, format!("{status} {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_came_to_is_read_from_status_and_code() {
        let refused =
            |code: &str| Bytes::from(json!({ "Message": format!("ErrorCode:{code};text") }).to_string());
        let outcome = |status, body| judge(Ok((status, body))).0;
        let ok = Bytes::from_static(br#"{"status": 200, "payload": "1-7"}"#);
        assert_eq!(judge(Ok((StatusCode::OK, ok))), (Outcome::Ok, "1-7".to_owned()));
        let offline = refused("DeviceNotOnline");
        assert_eq!(outcome(StatusCode::NOT_FOUND, offline), Outcome::Fail);
        let closed = refused("DeviceConnectionClosedRemotely");
        assert_eq!(outcome(StatusCode::NOT_FOUND, closed), Outcome::Unknown);
        let busy = refused("ServerBusy");
        assert_eq!(outcome(StatusCode::SERVICE_UNAVAILABLE, busy), Outcome::Fail);
        let late = refused("GatewayTimeout");
        assert_eq!(outcome(StatusCode::GATEWAY_TIMEOUT, late), Outcome::Unknown);
        assert_eq!(judge(Err("closed".into())).0, Outcome::Unknown);
    }
}
