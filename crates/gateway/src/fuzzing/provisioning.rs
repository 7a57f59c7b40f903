//! What devices say that register, what services write of enrolments, and what webhooks and other hubs answer.

use base64::Engine as _;
use bytes::Bytes;
use dunlin_model::port::OutboundAnswer;
use dunlin_model::provisioning::book::{BookChange, WEIGHT_MAX};
use dunlin_model::provisioning::{
    ENROLLMENT_BYTES_MAX, ENROLLMENT_HUBS_MAX, Enrollment, EnrollmentSpec, InitialTwin, PAYLOAD_BYTES_MAX,
};
use serde_json::{Value, json};

use super::certificates::{AUTHORITY, DEVICE, endorsement_key};
use super::text::KEY;
use crate::auth::{self, BASE64, ConnectionString};
use crate::http::linked_hubs;
use crate::mqtt::Version;
use crate::mqtt::provisioning::{self as topics, Applicant};
use crate::mqtt::wire::ConnectRequest;
use crate::provisioning::json::{EnrollmentInput, enrollment};
use crate::provisioning::{answer, hub, webhook};

/// The hub's own name.
const OWN: &str = "hub.example";
/// That of another one.
const OTHER: &str = "other.example";

/// The first byte says which.
pub fn provisioning(data: &[u8]) {
    is_read(data);
}

fn is_read(data: &[u8]) -> bool {
    let Some((kind, rest)) = data.split_first() else {
        return false;
    };
    match kind % 7 {
        0 => topic(&String::from_utf8_lossy(rest)),
        1 => registration(rest),
        2 => enrolment(rest, false),
        3 => enrolment(rest, true),
        4 => webhook_reply(rest),
        5 => hub_answer(rest),
        _ => linked_hub(rest),
    }
}

/// Names and topics: no device of this hub is taken for an applicant, and a request is answered by what stands in it.
fn topic(text: &str) -> bool {
    let connect = ConnectRequest {
        version: Version::V5,
        client_id: "sn-1".to_owned(),
        username: Some(text.to_owned()),
        password: None,
        clean: true,
        keep_alive_s: 60,
        will: None,
        receipts: false,
        receive_max: None,
        extended_auth: false,
    };
    let applicant = Applicant::of(&connect, &[OWN.to_owned()]);
    if applicant.is_some() {
        assert!(text.contains("/registrations/") && !text.starts_with("hub.example/"));
    }
    let request = topics::request(text);
    if let Some(topics::Request::Register { rid } | topics::Request::Operation { rid, .. }) = &request {
        assert!(text.starts_with("$dps/registrations/") && text.contains(&format!("$rid={rid}")));
    }
    applicant.is_some() || request.is_some()
}

fn registration(body: &[u8]) -> bool {
    match answer::read(body) {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(error.code.status(), 400 | 413), "{error:?}");
            false
        }
    }
}

/// An enrolment that is shown and sent back stays as it was, its secrets included, which are not shown.
fn enrolment(body: &[u8], is_group: bool) -> bool {
    let read = EnrollmentInput::read(body).and_then(|input| input.complete(None, is_group));
    let Ok(spec) = read else {
        return false;
    };
    assert!(spec.bytes() <= ENROLLMENT_BYTES_MAX && spec.hubs.len() <= ENROLLMENT_HUBS_MAX);
    // Numbers in documents may come back with another last digit.
    let spec = EnrollmentSpec {
        initial_twin: InitialTwin::default(),
        notes: None,
        ..spec
    };
    let kept = Enrollment {
        name: "sn-1".to_owned(),
        spec,
        version: 1,
        created_ms: 0,
        updated_ms: 0,
    };
    let shown = enrollment(&kept, is_group, None).to_string();
    let again = EnrollmentInput::read(shown.as_bytes());
    let again = again.and_then(|input| input.complete(Some(&kept.spec), is_group));
    assert_eq!(again.expect("what is shown can be sent"), kept.spec);
    true
}

fn webhook_reply(body: &[u8]) -> bool {
    let Ok(chosen) = webhook::read_reply(body) else {
        return false;
    };
    let is_short = |text: &String| text.len() <= PAYLOAD_BYTES_MAX;
    assert!(chosen.payload.as_ref().is_none_or(is_short));
    true
}

/// Another hub's word counts where it says that all is well; where it is out of breath, it is asked again.
fn hub_answer(data: &[u8]) -> bool {
    let [high, low, body @ ..] = data else {
        return false;
    };
    let status = u16::from_be_bytes([*high, *low]);
    let answer = OutboundAnswer {
        status,
        body: Bytes::copy_from_slice(body),
    };
    match hub::read::<Value>(answer) {
        Ok(_) => {
            assert!((200..300).contains(&status));
            true
        }
        Err(error) => {
            // What is no status at all is the other side's mistake.
            let is_status = (100..1000).contains(&status);
            let is_passing = !is_status || status == 429 || (500..600).contains(&status);
            assert_eq!(error.code.is_passing(), is_passing, "{status}");
            false
        }
    }
}

/// A hub that is linked is that of its name, and can be reached.
fn linked_hub(body: &[u8]) -> bool {
    let Ok(input) = serde_json::from_slice::<linked_hubs::Input>(body) else {
        return false;
    };
    let Ok(change) = linked_hubs::change(&[OWN.to_owned()], OTHER, input) else {
        return false;
    };
    let BookChange::HubPut { host, hub } = change else {
        panic!("another hub is linked, and nothing else");
    };
    assert!((1..=WEIGHT_MAX).contains(&hub.weight));
    let connection = ConnectionString::parse(&hub.connection_string).expect("it was just read");
    assert!(auth::is_host(&[host], &connection.host_name));
    assert!(auth::decode_key(&connection.shared_access_key).is_ok());
    true
}

/// Seeds of [`provisioning`].
pub fn provisioning_seeds() -> Vec<Vec<u8>> {
    let tagged = |tag: u8, text: &str| [&[tag], text.as_bytes()].concat();
    let made = |tag: u8, body: Value| tagged(tag, &body.to_string());
    let endorsement = BASE64.encode(endorsement_key());
    let certificate = |pem: &str| json!({ "primary": { "certificate": pem } });
    let keys = json!({
        "attestation": {
            "type": "symmetricKey", "symmetricKey": { "primaryKey": KEY, "secondaryKey": KEY },
        },
        "deviceId": "dev-1", "capabilities": { "iotEdge": true }, "iotHubHostName": "a.example",
        "initialTwin": { "tags": { "a": 1 }, "properties": { "desired": { "b": { "c": 2.5 } } } },
        "provisioningStatus": "disabled", "allocationPolicy": "custom", "iotHubs": ["a.example", "b.example"],
        "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": false },
        "customAllocationDefinition": { "webhookUrl": "https://fn.example/x", "apiVersion": "2019-03-31" },
        "optionalDeviceInformation": { "note": "x" },
    });
    let tpm = json!({ "endorsementKey": endorsement, "storageRootKey": "AAAA" });
    let x509 = |kind: &str, pair: Value| json!({ "attestation": { "x509": { kind: pair } } });
    let linked = format!("HostName={OTHER}:8443;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}");
    let reply = json!({
        "iotHubHostName": "a.example", "payload": { "a": [1, null] }, "initialTwin": { "tags": { "b": 1 } },
    });
    vec![
        tagged(
            0,
            "0ne00000001/registrations/sn-1/api-version=2019-03-31&ClientVersion=x%2F1",
        ),
        tagged(0, "$dps/registrations/PUT/iotdps-register/?$rid=ab-1"),
        tagged(
            0,
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=5.x.y",
        ),
        tagged(1, " "),
        made(
            1,
            json!({ "registrationId": "sn-1", "payload": { "a": 1 }, "tpm": tpm }),
        ),
        made(2, keys.clone()),
        made(2, json!({ "attestation": { "tpm": tpm } })),
        made(2, x509("clientCertificates", certificate(DEVICE))),
        made(3, keys),
        made(3, x509("signingCertificates", certificate(AUTHORITY))),
        made(
            3,
            x509("caReferences", json!({ "primary": "plant", "secondary": null })),
        ),
        made(4, reply),
        [&[5, 0, 200], &br#"{"deviceId":"dev-1","etag":"MQ=="}"#[..]].concat(),
        made(
            6,
            json!({ "connectionString": linked, "authority": AUTHORITY, "weight": 3 }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read() {
        for seed in provisioning_seeds() {
            assert!(is_read(&seed), "{:?}", String::from_utf8_lossy(&seed));
        }
    }
}
