//! The device's side: it registers over MQTT or HTTPS, and connects to its hub with the same key.
//!
//! One attempt each. What is told is read here; whether it may be so is for [`crate::invariants::provisioning`] to say.

use std::time::Duration;

use dunlin_gateway::client::ClientError;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use crate::registering;
use crate::stage;
use crate::workload::enrolling::{Assignment, Told};
use crate::workload::grant::Door;
use crate::workload::operation::Outcome;
use crate::workload::{Bench, TURNED_AWAY};

/// Time for a registration, and for a connection.
const WAIT: Duration = Duration::from_secs(10);

/// A device and the key that it has, Base64.
pub(super) struct Applicant<'a> {
    pub(super) bench: &'a Bench,
    pub(super) scope: &'a str,
    pub(super) id: &'a str,
    pub(super) key: &'a str,
}

impl Applicant<'_> {
    /// Registers at a node.
    pub(super) async fn register(&self, node: usize, door: Door) -> Told {
        let told = async {
            match door {
                Door::Mqtt => self.register_over_mqtt(node).await,
                Door::Https => self.register_over_https(node).await,
            }
        };
        let told = timeout(WAIT, told).await;
        told.unwrap_or_else(|_| unknown("no answer in time"))
    }

    async fn register_over_mqtt(&self, node: usize) -> Told {
        let transport = self.bench.gateways[node].clone();
        match registering::options(transport, self.scope, self.id, self.key) {
            Err(error) => unknown(error),
            Ok(options) => match registering::register(&options).await {
                Ok((_, answer)) => read(&answer),
                Err(ClientError::Refused(code)) if TURNED_AWAY.contains(&code) => Told::Refused,
                Err(error) => unknown(error),
            },
        }
    }

    /// Asks, and asks what came of it, as clients over HTTPS do.
    async fn register_over_https(&self, node: usize) -> Told {
        let token = match registering::token(self.scope, self.id, self.key) {
            Ok(token) => token,
            Err(error) => return unknown(error),
        };
        let path = format!("/{}/registrations/{}", self.scope, self.id);
        let register = format!("{path}/register?api-version=2019-03-31");
        let body = format!("{{\"registrationId\":\"{}\"}}", self.id).into_bytes();
        let asked = (Method::PUT, register.as_str());
        let answer = self
            .bench
            .hub
            .attempt(node, asked, Some(&token), Some(body), None);
        let operation = match answer.await {
            Err(error) => return unknown(error),
            Ok((StatusCode::ACCEPTED, body)) => parse(&body)["operationId"].clone(),
            Ok((_, body)) => return read(&parse(&body)),
        };
        let operation = operation.as_str().unwrap_or_default();
        let path = format!("{path}/operations/{operation}?api-version=2019-03-31");
        let asked = (Method::GET, path.as_str());
        match self
            .bench
            .hub
            .attempt(node, asked, Some(&token), None, None)
            .await
        {
            Ok((StatusCode::OK, body)) => read(&parse(&body)),
            // It was let in before: that it is not now says nothing about what came of that.
            Ok((status, _)) => unknown(format!("asked what came of it: {status}")),
            Err(error) => unknown(error),
        }
    }

    /// Connects to the hub at a node as the device that it was assigned.
    pub(super) async fn enter(&self, node: usize, device: &str) -> (Outcome, String) {
        match stage::token(&self.bench.host, device, self.key) {
            Ok(token) => self.bench.enter(node, device, token, WAIT).await,
            Err(error) => (Outcome::Unknown, error.to_string()),
        }
    }
}

fn unknown(why: impl ToString) -> Told {
    Told::Unknown { why: why.to_string() }
}

fn parse(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}

/// What an answer says. The first three digits of an error's number are those of a status.
pub(super) fn read(answer: &Value) -> Told {
    let state = &answer["registrationState"];
    match answer["status"].as_str() {
        Some("assigned") => match assignment(state) {
            Some(assignment) => Told::Assigned(assignment),
            None => unknown(format!("assigned to nothing: {answer}")),
        },
        Some("disabled") => Told::Disabled,
        Some("failed") => Told::Failed {
            code: state["errorCode"].as_u64().unwrap_or_default(),
        },
        Some(other) => unknown(other),
        None => match answer["errorCode"].as_u64() {
            Some(code) if code / 1000 == 401 => Told::Refused,
            Some(code) => unknown(format!("error {code}")),
            None => unknown("no answer of the provisioning service"),
        },
    }
}

/// Where a registration says that its device is.
pub(super) fn assignment(state: &Value) -> Option<Assignment> {
    let text = |name: &str| state[name].as_str().map(str::to_owned);
    Some(Assignment {
        hub: text("assignedHub")?,
        device: text("deviceId")?,
        created: text("createdDateTimeUtc")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_says_what_came_of_it_or_nothing() {
        let state =
            json!({ "assignedHub": "h", "deviceId": "d", "createdDateTimeUtc": "t", "status": "assigned" });
        let told = read(&json!({ "status": "assigned", "registrationState": state }));
        let assigned = Assignment {
            hub: "h".into(),
            device: "d".into(),
            created: "t".into(),
        };
        assert_eq!(told, Told::Assigned(assigned));
        assert_eq!(read(&json!({ "status": "disabled" })), Told::Disabled);
        let failed = json!({ "status": "failed", "registrationState": { "errorCode": 400_209 } });
        assert_eq!(read(&failed), Told::Failed { code: 400_209 });
        assert_eq!(read(&json!({ "errorCode": 401_002 })), Told::Refused);
        for nothing in [
            json!({ "errorCode": 503_001 }),
            json!({ "errorCode": 429_001 }),
            json!({ "status": "assigning" }),
            json!({ "status": "assigned" }),
            Value::Null,
        ] {
            assert!(matches!(read(&nothing), Told::Unknown { .. }), "{nothing}");
        }
    }
}
