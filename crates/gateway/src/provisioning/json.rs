//! Enrolments and registrations as services and devices write and read them: DPS's JSON, and what of it is stored.
//!
//! Pure. What is not sent of an attestation is kept as it was: services read enrolments without their keys and send them
//! back. Secrets are shown by [`attestation`] alone.

use dunlin_model::id::DeviceId;
use dunlin_model::identity::SymmetricKeys;
use dunlin_model::provisioning::{
    AllocationPolicy, Attestation, ENROLLMENT_BYTES_MAX, ENROLLMENT_HUBS_MAX, Enrollment, EnrollmentSpec,
    InitialTwin, Pair, ProofKind, Registration, ReprovisionPolicy, TpmAttestation, Webhook,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::{ProvisioningCode, ProvisioningError};
use super::substatus;
use crate::auth::{self, CertificateInfo};
use crate::mqtt::twin::checked;
use dunlin_model::identity::etag;
use dunlin_model::iso_time::iso_utc;

/// What services write of an enrolment or a group. What a service only reads is left alone: SDKs send back whole ones.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EnrollmentInput {
    /// Of an individual enrolment.
    pub(crate) registration_id: Option<String>,
    /// Of a group.
    pub(crate) enrollment_group_id: Option<String>,
    device_id: Option<String>,
    attestation: Option<AttestationInput>,
    capabilities: Option<Capabilities>,
    iot_hub_host_name: Option<String>,
    initial_twin: Option<TwinInput>,
    provisioning_status: Option<String>,
    reprovision_policy: Option<PolicyInput>,
    allocation_policy: Option<String>,
    iot_hubs: Option<Vec<String>>,
    custom_allocation_definition: Option<WebhookInput>,
    optional_device_information: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    #[serde(default)]
    iot_edge: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyInput {
    update_hub_assignment: Option<bool>,
    migrate_device_data: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WebhookInput {
    webhook_url: String,
    api_version: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttestationInput {
    #[serde(rename = "type")]
    kind: Option<String>,
    symmetric_key: Option<KeysInput>,
    x509: Option<X509Input>,
    tpm: Option<TpmInput>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct KeysInput {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct X509Input {
    client_certificates: Option<CertificatesInput>,
    signing_certificates: Option<CertificatesInput>,
    ca_references: Option<Pair>,
}

#[derive(Debug, Deserialize)]
struct CertificatesInput {
    primary: Option<CertificateInput>,
    secondary: Option<CertificateInput>,
}

#[derive(Debug, Deserialize)]
struct CertificateInput {
    certificate: Option<String>,
    info: Option<InfoInput>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InfoInput {
    sha256_thumbprint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TpmInput {
    endorsement_key: String,
    storage_root_key: Option<String>,
}

/// What a twin begins with, as services and webhooks write it.
#[derive(Debug, Deserialize)]
pub(crate) struct TwinInput {
    tags: Option<Map<String, Value>>,
    properties: Option<PropertiesInput>,
}

#[derive(Debug, Deserialize)]
struct PropertiesInput {
    desired: Option<Map<String, Value>>,
}

impl TwinInput {
    /// Checks it as a twin's own changes are checked.
    pub(crate) fn read(self) -> Result<InitialTwin, ProvisioningError> {
        let section = |name: &str, content: Option<Map<String, Value>>| {
            let Some(mut content) = content else {
                return Ok(None);
            };
            content.retain(|key, _| key != "$version" && key != "$metadata");
            let text = checked(&content);
            text.map(Some)
                .map_err(|why| ProvisioningError::invalid(format!("initialTwin, {name}: {why}")))
        };
        Ok(InitialTwin {
            tags: section("tags", self.tags)?,
            desired: section(
                "desired",
                self.properties.and_then(|properties| properties.desired),
            )?,
        })
    }
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

impl EnrollmentInput {
    /// Reads the body of a request.
    pub(crate) fn read(body: &[u8]) -> Result<Self, ProvisioningError> {
        serde_json::from_slice(body)
            .map_err(|error| ProvisioningError::invalid(format!("the body is not an enrollment: {error}")))
    }

    /// The spec to store in place of `before`.
    pub(crate) fn complete(
        self,
        before: Option<&EnrollmentSpec>,
        is_group: bool,
    ) -> Result<EnrollmentSpec, ProvisioningError> {
        let invalid = |why: String| ProvisioningError::invalid(why);
        let known = before.map(|spec| &spec.attestation);
        let attestation = match (self.attestation, known) {
            (Some(sent), known) => sent.complete(known, is_group)?,
            (None, Some(known)) => known.clone(),
            (None, None) => return Err(ProvisioningError::invalid("the enrollment has no attestation")),
        };
        let device = given(self.device_id).filter(|_| !is_group);
        let device = device.map(|device| DeviceId::parse(&device)).transpose();
        let webhook = self
            .custom_allocation_definition
            .map(WebhookInput::read)
            .transpose()?;
        let notes = self.optional_device_information.filter(|notes| !notes.is_null());
        let spec = EnrollmentSpec {
            is_enabled: match self.provisioning_status.as_deref() {
                None | Some("enabled") => true,
                Some("disabled") => false,
                Some(_) => {
                    return Err(ProvisioningError::invalid(
                        "provisioningStatus is enabled or disabled",
                    ));
                }
            },
            device: device.map_err(|error| invalid(error.to_string()))?,
            is_edge: self.capabilities.is_some_and(|sent| sent.iot_edge),
            hub: given(self.iot_hub_host_name),
            hubs: self.iot_hubs.unwrap_or_default(),
            allocation: allocation(self.allocation_policy.as_deref())?,
            webhook,
            initial_twin: self
                .initial_twin
                .map(TwinInput::read)
                .transpose()?
                .unwrap_or_default(),
            reprovision: self
                .reprovision_policy
                .map_or_else(ReprovisionPolicy::default, |sent| ReprovisionPolicy {
                    updates_hub: sent.update_hub_assignment.unwrap_or(true),
                    migrates_data: sent.migrate_device_data.unwrap_or(true),
                }),
            notes: notes.map(|notes| notes.to_string()),
            ..EnrollmentSpec::enabled(attestation)
        };
        if spec.hubs.len() > ENROLLMENT_HUBS_MAX {
            return Err(invalid(format!(
                "iotHubs names more than {ENROLLMENT_HUBS_MAX} hubs"
            )));
        }
        if spec.allocation == AllocationPolicy::Custom && spec.webhook.is_none() {
            return Err(ProvisioningError::invalid(
                "allocationPolicy custom without customAllocationDefinition",
            ));
        }
        if spec.bytes() > ENROLLMENT_BYTES_MAX {
            return Err(ProvisioningError::new(
                ProvisioningCode::TooLarge,
                format!("the enrollment has more than {ENROLLMENT_BYTES_MAX} bytes"),
            ));
        }
        Ok(spec)
    }
}

fn allocation(text: Option<&str>) -> Result<AllocationPolicy, ProvisioningError> {
    Ok(match text {
        None | Some("hashed") => AllocationPolicy::Hashed,
        Some("geoLatency") => AllocationPolicy::LowestLatency,
        Some("static") => AllocationPolicy::Static,
        Some("custom") => AllocationPolicy::Custom,
        Some(_) => {
            return Err(ProvisioningError::invalid(
                "allocationPolicy is hashed, geoLatency, static or custom",
            ));
        }
    })
}

impl WebhookInput {
    fn read(self) -> Result<Webhook, ProvisioningError> {
        check_webhook(&self.webhook_url)?;
        Ok(Webhook {
            url: self.webhook_url,
            api_version: self.api_version.unwrap_or_default(),
        })
    }
}

/// A webhook is asked from within the operator's own network, so it must show a certificate, unless it stands on the
/// gateway's own machine; addresses that only a machine's own services have are none.
fn check_webhook(url: &str) -> Result<(), ProvisioningError> {
    let uri: axum::http::Uri = url
        .parse()
        .map_err(|_| ProvisioningError::invalid("webhookUrl is no address"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let address: Option<std::net::IpAddr> = host.parse().ok();
    let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    let is_link_local = match address.map(|address| address.to_canonical()) {
        Some(std::net::IpAddr::V4(address)) => address.is_link_local() || address.is_unspecified(),
        Some(std::net::IpAddr::V6(address)) => address.is_unicast_link_local() || address.is_unspecified(),
        // Whatever else a resolver would take for an address.
        None => host
            .rsplit('.')
            .next()
            .is_none_or(|last| last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit())),
    };
    match uri.scheme_str() {
        _ if host.is_empty() || is_link_local => Err(ProvisioningError::invalid("webhookUrl leads nowhere")),
        Some("https") => Ok(()),
        Some("http") if is_here => Ok(()),
        _ => Err(ProvisioningError::invalid(
            "webhookUrl does not begin with https://",
        )),
    }
}

impl AttestationInput {
    fn complete(self, known: Option<&Attestation>, is_group: bool) -> Result<Attestation, ProvisioningError> {
        let invalid = ProvisioningError::invalid;
        let kind = match (self.kind.as_deref(), &self.x509, &self.tpm) {
            (Some(kind), ..) => kind,
            (None, Some(_), _) => "x509",
            (None, None, Some(_)) => "tpm",
            (None, None, None) => "symmetricKey",
        };
        match kind {
            "symmetricKey" => {
                let known = match known {
                    Some(Attestation::SymmetricKey(keys)) => Some(keys),
                    _ => None,
                };
                self.symmetric_key.unwrap_or_default().complete(known)
            }
            "x509" => {
                let sent = self.x509.ok_or_else(|| invalid("type x509 without x509"))?;
                sent.complete(known, is_group)
            }
            "tpm" if is_group => Err(invalid("a group has no TPM: type is symmetricKey or x509")),
            "tpm" => {
                let sent = self.tpm.ok_or_else(|| invalid("type tpm without tpm"))?;
                sent.complete(known)
            }
            _ => Err(invalid("attestation type is symmetricKey, x509 or tpm")),
        }
    }
}

impl KeysInput {
    fn complete(self, known: Option<&SymmetricKeys>) -> Result<Attestation, ProvisioningError> {
        let key = |sent: Option<String>, known: Option<&String>| match (given(sent), known) {
            (Some(sent), _) => auth::decode_key(&sent)
                .map(|_| sent)
                .map_err(|error| ProvisioningError::invalid(error.to_string())),
            (None, Some(known)) => Ok(known.clone()),
            (None, None) => Ok(auth::draw_key()),
        };
        Ok(Attestation::SymmetricKey(SymmetricKeys {
            primary: key(self.primary_key, known.map(|keys| &keys.primary))?,
            secondary: key(self.secondary_key, known.map(|keys| &keys.secondary))?,
        }))
    }
}

impl X509Input {
    fn complete(self, known: Option<&Attestation>, is_group: bool) -> Result<Attestation, ProvisioningError> {
        let invalid = ProvisioningError::invalid;
        let has_any = |pair: &Pair| pair.each().next().is_some();
        let none = Pair::default();
        let (known_client, known_signing) = match known {
            Some(Attestation::ClientCertificate(pair)) => (pair, &none),
            Some(Attestation::SigningCertificate(pair)) => (&none, pair),
            _ => (&none, &none),
        };
        match (
            self.client_certificates,
            self.signing_certificates,
            self.ca_references,
        ) {
            (Some(sent), None, None) if !is_group => {
                let pair = sent.complete(known_client, false)?;
                if !has_any(&pair) {
                    return Err(invalid("clientCertificates has no certificate"));
                }
                Ok(Attestation::ClientCertificate(pair))
            }
            (None, Some(sent), None) if is_group => {
                let pair = sent.complete(known_signing, true)?;
                if !has_any(&pair) {
                    return Err(invalid("signingCertificates has no certificate"));
                }
                Ok(Attestation::SigningCertificate(pair))
            }
            (None, None, Some(pair)) if is_group && has_any(&pair) => Ok(Attestation::Authority(pair)),
            _ if is_group => Err(invalid("a group has signingCertificates or caReferences")),
            _ => Err(invalid("an individual enrollment has clientCertificates")),
        }
    }
}

impl CertificatesInput {
    fn complete(self, known: &Pair, is_authority: bool) -> Result<Pair, ProvisioningError> {
        let read = |sent: Option<CertificateInput>| {
            let Some(sent) = sent else { return Ok(None) };
            if let Some(text) = given(sent.certificate) {
                let read = auth::read_certificate(&text, is_authority);
                return read.map(Some).map_err(ProvisioningError::invalid);
            }
            let wanted = sent.info.and_then(|info| info.sha256_thumbprint);
            let is_wanted = |pem: &&String| {
                let print = auth::thumbprint_of_pem(pem);
                wanted
                    .as_ref()
                    .zip(print)
                    .is_some_and(|(a, b)| a.eq_ignore_ascii_case(&b))
            };
            Ok(known.each().find(is_wanted).cloned())
        };
        Ok(Pair {
            primary: read(self.primary)?,
            secondary: read(self.secondary)?,
        })
    }
}

impl TpmInput {
    fn complete(self, known: Option<&Attestation>) -> Result<Attestation, ProvisioningError> {
        super::possession::check_endorsement_key(&self.endorsement_key)
            .map_err(|why| ProvisioningError::invalid(format!("endorsementKey: {why}")))?;
        let identity_key = match known {
            Some(Attestation::Tpm(tpm)) if tpm.endorsement_key == self.endorsement_key => {
                tpm.identity_key.clone()
            }
            _ => auth::draw_key(),
        };
        Ok(Attestation::Tpm(TpmAttestation {
            endorsement_key: self.endorsement_key,
            storage_root_key: given(self.storage_root_key),
            identity_key,
        }))
    }
}

/// An enrolment or a group as services see it, without its secrets; an individual one with its registration.
pub(crate) fn enrollment(
    enrollment: &Enrollment,
    is_group: bool,
    registration: Option<&Registration>,
) -> Value {
    let spec = &enrollment.spec;
    let mut shown = json!({
        "attestation": attestation(&spec.attestation, false),
        "capabilities": { "iotEdge": spec.is_edge },
        "etag": etag(enrollment.version),
        "provisioningStatus": if spec.is_enabled { "enabled" } else { "disabled" },
        "reprovisionPolicy": {
            "updateHubAssignment": spec.reprovision.updates_hub,
            "migrateDeviceData": spec.reprovision.migrates_data,
        },
        "createdDateTimeUtc": iso_utc(enrollment.created_ms),
        "lastUpdatedDateTimeUtc": iso_utc(enrollment.updated_ms),
        "allocationPolicy": match spec.allocation {
            AllocationPolicy::Hashed => "hashed",
            AllocationPolicy::LowestLatency => "geoLatency",
            AllocationPolicy::Static => "static",
            AllocationPolicy::Custom => "custom",
        },
    });
    let name = if is_group {
        "enrollmentGroupId"
    } else {
        "registrationId"
    };
    shown[name] = enrollment.name.clone().into();
    if let Some(device) = &spec.device {
        shown["deviceId"] = device.as_str().into();
    }
    if let Some(hub) = &spec.hub {
        shown["iotHubHostName"] = hub.clone().into();
    }
    if !spec.hubs.is_empty() {
        shown["iotHubs"] = json!(spec.hubs);
    }
    if let Some(webhook) = &spec.webhook {
        shown["customAllocationDefinition"] =
            json!({ "webhookUrl": webhook.url, "apiVersion": webhook.api_version });
    }
    let twin = initial_twin(&spec.initial_twin);
    if !twin.is_null() {
        shown["initialTwin"] = twin;
    }
    if let Some(notes) = spec
        .notes
        .as_deref()
        .and_then(|notes| serde_json::from_str::<Value>(notes).ok())
    {
        shown["optionalDeviceInformation"] = notes;
    }
    if let Some(registration) = registration {
        shown["registrationState"] = registration_state(registration);
    }
    shown
}

fn initial_twin(twin: &InitialTwin) -> Value {
    let section = |text: &Option<String>| {
        let text = text.as_deref()?;
        serde_json::from_str::<Value>(text).ok()
    };
    let mut shown = Map::new();
    if let Some(tags) = section(&twin.tags) {
        shown.insert("tags".into(), tags);
    }
    if let Some(desired) = section(&twin.desired) {
        shown.insert("properties".into(), json!({ "desired": desired }));
    }
    if shown.is_empty() {
        Value::Null
    } else {
        shown.into()
    }
}

/// An attestation; with `secrets` its keys as well.
pub(crate) fn attestation(attestation: &Attestation, secrets: bool) -> Value {
    let certificates = |pair: &Pair| {
        let shown = |pem: &Option<String>| {
            let info = pem.as_deref().and_then(auth::certificate_info);
            info.map(|info| json!({ "info": info_json(&info) }))
        };
        json!({ "primary": shown(&pair.primary), "secondary": shown(&pair.secondary) })
    };
    match attestation {
        Attestation::SymmetricKey(keys) if secrets => json!({
            "type": "symmetricKey",
            "symmetricKey": { "primaryKey": keys.primary, "secondaryKey": keys.secondary },
        }),
        Attestation::SymmetricKey(_) => json!({ "type": "symmetricKey" }),
        Attestation::ClientCertificate(pair) => json!({
            "type": "x509",
            "x509": { "clientCertificates": certificates(pair) },
        }),
        Attestation::SigningCertificate(pair) => json!({
            "type": "x509",
            "x509": { "signingCertificates": certificates(pair) },
        }),
        Attestation::Authority(pair) => json!({
            "type": "x509",
            "x509": { "caReferences": pair },
        }),
        Attestation::Tpm(tpm) => json!({
            "type": "tpm",
            "tpm": { "endorsementKey": tpm.endorsement_key, "storageRootKey": tpm.storage_root_key },
        }),
    }
}

fn info_json(info: &CertificateInfo) -> Value {
    json!({
        "subjectName": info.subject,
        "sha1Thumbprint": info.sha1,
        "sha256Thumbprint": info.sha256,
        "issuerName": info.issuer,
        "notBeforeUtc": iso_utc(info.not_before_ms),
        "notAfterUtc": iso_utc(info.not_after_ms),
        "serialNumber": info.serial,
        "version": info.version,
    })
}

/// A registration as services see it, and as its device does.
pub(crate) fn registration_state(registration: &Registration) -> Value {
    let spec = &registration.spec;
    let mut shown = json!({
        "registrationId": spec.name,
        "createdDateTimeUtc": iso_utc(registration.created_ms),
        "assignedHub": spec.hub,
        "deviceId": spec.device.as_str(),
        "status": "assigned",
        "substatus": substatus(spec.substatus),
        "lastUpdatedDateTimeUtc": iso_utc(registration.updated_ms),
        "etag": etag(registration.version),
    });
    let kind = match spec.proof {
        ProofKind::SymmetricKey => "symmetricKey",
        ProofKind::X509 => "x509",
        ProofKind::Tpm => "tpm",
    };
    shown[kind] = match &spec.group {
        Some(group) => json!({ "enrollmentGroupId": group }),
        None => json!({}),
    };
    let payload = spec.payload.as_deref();
    if let Some(payload) = payload.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        shown["payload"] = payload;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn complete(
        body: Value,
        before: Option<&EnrollmentSpec>,
        is_group: bool,
    ) -> Result<EnrollmentSpec, ProvisioningError> {
        EnrollmentInput::read(body.to_string().as_bytes())?.complete(before, is_group)
    }

    fn keys(spec: &EnrollmentSpec) -> (&str, &str) {
        match &spec.attestation {
            Attestation::SymmetricKey(keys) => (&keys.primary, &keys.secondary),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_are_drawn_kept_or_taken_and_never_shown_but_when_asked() {
        let sent = json!({"attestation": {"type": "symmetricKey"}, "etag": "x", "registrationState": {}});
        let made = complete(sent.clone(), None, false).expect("a spec");
        let (primary, secondary) = keys(&made);
        assert!(primary != secondary && auth::decode_key(primary).is_ok());
        let again = complete(sent, Some(&made), false).expect("a spec");
        assert_eq!(again, made);
        let rolled = json!({"attestation": {"symmetricKey": {"primaryKey": KEY, "secondaryKey": null}}});
        let rolled = complete(rolled, Some(&made), false).expect("a spec");
        assert_eq!(keys(&rolled), (KEY, secondary));
        let kept = Enrollment {
            name: "Sn-1".into(),
            spec: rolled,
            version: 7,
            created_ms: 0,
            updated_ms: 0,
        };
        let shown = enrollment(&kept, false, None);
        assert!(!shown.to_string().contains(KEY), "{shown}");
        assert_eq!(shown["registrationId"], "Sn-1");
        let secrets = attestation(&kept.spec.attestation, true);
        assert_eq!(secrets["symmetricKey"]["primaryKey"], KEY);
    }

    #[test]
    fn everything_that_is_said_is_kept_and_shown_again() {
        let sent = json!({
            "enrollmentGroupId": "Plant",
            "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}},
            "capabilities": {"iotEdge": true},
            "iotHubHostName": "a.example",
            "initialTwin": {"tags": {"a": 1}, "properties": {"desired": {"b": {"c": 2}}}},
            "provisioningStatus": "disabled",
            "reprovisionPolicy": {"updateHubAssignment": true, "migrateDeviceData": false},
            "allocationPolicy": "custom",
            "iotHubs": ["a.example", "b.example"],
            "customAllocationDefinition": {"webhookUrl": "https://fn.example/x", "apiVersion": "2019-03-31"},
            "optionalDeviceInformation": {"note": "x"},
        });
        let kept = Enrollment {
            name: "Plant".into(),
            spec: complete(sent.clone(), None, true).expect("a spec"),
            version: 1,
            created_ms: 0,
            updated_ms: 0,
        };
        let shown = enrollment(&kept, true, None);
        for key in sent
            .as_object()
            .expect("an object")
            .keys()
            .filter(|key| *key != "attestation")
        {
            assert_eq!(shown[key], sent[key], "{key}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let key = json!({"type": "symmetricKey"});
        let large = "x".repeat(ENROLLMENT_BYTES_MAX);
        for (wrong, is_group) in [
            (json!({}), false),
            (json!([]), false),
            (json!({"attestation": {"type": "magic"}}), false),
            (json!({"attestation": {"type": "x509"}}), false),
            (json!({"attestation": {"x509": {}}}), false),
            (
                json!({"attestation": {"x509": {"caReferences": {"primary": "a"}}}}),
                false,
            ),
            (json!({"attestation": {"x509": {"clientCertificates": {}}}}), true),
            (json!({"attestation": {"x509": {"caReferences": {}}}}), true),
            (
                json!({"attestation": {"type": "tpm", "tpm": {"endorsementKey": "AA=="}}}),
                true,
            ),
            (
                json!({"attestation": {"type": "tpm", "tpm": {"endorsementKey": "AA=="}}}),
                false,
            ),
            (
                json!({"attestation": {"symmetricKey": {"primaryKey": "short"}}}),
                false,
            ),
            (json!({"attestation": key, "provisioningStatus": "maybe"}), false),
            (json!({"attestation": key, "allocationPolicy": "best"}), false),
            (json!({"attestation": key, "allocationPolicy": "custom"}), false),
            (json!({"attestation": key, "deviceId": "a/b"}), false),
            (
                json!({"attestation": key, "initialTwin": {"tags": {"a.b": 1}}}),
                false,
            ),
            (
                json!({"attestation": key, "optionalDeviceInformation": large}),
                false,
            ),
            (
                json!({"attestation": key, "iotHubs": vec!["h"; ENROLLMENT_HUBS_MAX + 1]}),
                false,
            ),
        ] {
            assert!(complete(wrong.clone(), None, is_group).is_err(), "{wrong:.200}");
        }
    }

    #[test]
    fn webhooks_show_a_certificate_or_are_here() {
        for good in [
            "https://fn.example/api?code=1",
            "http://localhost:7071/x",
            "http://127.0.0.1/",
            "http://[::1]:1/",
        ] {
            assert!(check_webhook(good).is_ok(), "{good}");
        }
        for wrong in [
            "",
            "x",
            "/x",
            "http://fn.example/",
            "ftp://localhost/",
            "https://169.254.169.254/",
            "https://[fe80::1]/",
            "https://0.0.0.0/",
            "https://[::ffff:169.254.169.254]/",
            "https://2852039166/",
            "https://0xa9fea9fe/",
            "https://169.254.43518/",
        ] {
            assert!(check_webhook(wrong).is_err(), "{wrong}");
        }
    }
}
