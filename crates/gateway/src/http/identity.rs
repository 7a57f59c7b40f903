//! Identities as services write and read them: what stands in the JSON of a device or a module, and what of it is stored.
//!
//! Pure. Keys that a service does not send are kept, or drawn where there are none; which write takes place is decided by
//! the shard.

use dunlin_model::command::DeviceView;
use dunlin_model::identity::{
    Authentication, DeviceRecord, DeviceSpec, DeviceStatus, SymmetricKeys, Thumbprints, etag,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use crate::auth;
use crate::limits::STATUS_REASON_CHARS_MAX;
use dunlin_model::iso_time::{UNSET, iso_utc_or_unset};

/// How an identity proves itself, as services write it.
#[derive(Debug, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AuthenticationJson {
    symmetric_key: Option<KeysJson>,
    x509_thumbprint: Option<ThumbprintsJson>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct KeysJson {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ThumbprintsJson {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct CapabilitiesJson {
    iot_edge: bool,
}

/// What services write. Unknown fields are left alone: SDKs send back whole devices.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct IdentityInput {
    pub(crate) device_id: Option<String>,
    pub(crate) module_id: Option<String>,
    status: Option<DeviceStatus>,
    status_reason: Option<String>,
    authentication: Option<AuthenticationJson>,
    capabilities: Option<CapabilitiesJson>,
    managed_by: Option<String>,
}

/// What is to be stored, and whether something of it comes from what was stored before: then that must not have changed
/// meanwhile.
pub(crate) struct Completed {
    pub(crate) spec: DeviceSpec,
    pub(crate) keeps: bool,
}

impl IdentityInput {
    /// Reads the body of a request.
    pub(crate) fn read(body: &[u8]) -> Result<Self, ApiError> {
        // As an object first: where every field may be missing, an empty list would do as well.
        serde_json::from_slice::<Map<String, Value>>(body)
            .and_then(|body| serde_json::from_value(body.into()))
            .map_err(|error| ApiError::invalid(format!("the body is not a device: {error}")))
    }

    /// The spec to store in place of `before`. What a module cannot have of its own is not looked at.
    pub(crate) fn complete(
        &self,
        before: Option<&DeviceSpec>,
        is_module: bool,
    ) -> Result<Completed, ApiError> {
        for (name, text) in [
            ("status reason", &self.status_reason),
            ("managedBy", &self.managed_by),
        ] {
            let chars = text.as_ref().map_or(0, |text| text.chars().count());
            if chars > STATUS_REASON_CHARS_MAX {
                return Err(ApiError::invalid(format!(
                    "the {name} has more than {STATUS_REASON_CHARS_MAX} characters"
                )));
            }
        }
        let known = before.map(|spec| &spec.authentication);
        let (authentication, keeps) = match &self.authentication {
            None => match known {
                Some(known) => (known.clone(), true),
                None => AuthenticationJson::default().complete(None)?,
            },
            Some(sent) => sent.complete(known)?,
        };
        let mut spec = DeviceSpec::enabled(authentication);
        if is_module {
            spec.managed_by.clone_from(&self.managed_by);
        } else {
            spec.status = self.status.unwrap_or_default();
            spec.status_reason.clone_from(&self.status_reason);
            spec.is_edge = self.capabilities.as_ref().is_some_and(|sent| sent.iot_edge);
        }
        Ok(Completed { spec, keeps })
    }
}

/// Texts that SDKs send empty when they mean none.
fn given(text: Option<&String>) -> Option<&String> {
    text.filter(|text| !text.is_empty())
}

impl AuthenticationJson {
    fn complete(&self, known: Option<&Authentication>) -> Result<(Authentication, bool), ApiError> {
        let sent_keys = self.symmetric_key.as_ref();
        let sent_prints = self.x509_thumbprint.as_ref();
        let primary_print = given(sent_prints.and_then(|sent| sent.primary_thumbprint.as_ref()));
        let secondary_print = given(sent_prints.and_then(|sent| sent.secondary_thumbprint.as_ref()));
        let has_prints = primary_print.is_some() || secondary_print.is_some();
        match self.kind.as_deref() {
            Some("selfSigned") if !has_prints => {
                Err(ApiError::invalid("type selfSigned without a thumbprint"))
            }
            Some("selfSigned") => {
                let prints = Thumbprints {
                    primary: primary_print.map(|text| thumbprint(text)).transpose()?,
                    secondary: secondary_print.map(|text| thumbprint(text)).transpose()?,
                };
                Ok((Authentication::SelfSigned(prints), false))
            }
            Some("certificateAuthority") => Ok((Authentication::CertificateAuthority, false)),
            Some("none") => Ok((Authentication::None, false)),
            None | Some("sas") => {
                let primary = given(sent_keys.and_then(|sent| sent.primary_key.as_ref()));
                let secondary = given(sent_keys.and_then(|sent| sent.secondary_key.as_ref()));
                for key in [primary, secondary].into_iter().flatten() {
                    auth::decode_key(key).map_err(|error| ApiError::invalid(error.to_string()))?;
                }
                let known = known.and_then(Authentication::keys);
                let keeps = known.is_some() && (primary.is_none() || secondary.is_none());
                let keys = SymmetricKeys {
                    primary: primary
                        .or(known.map(|keys| &keys.primary))
                        .map_or_else(auth::draw_key, String::clone),
                    secondary: secondary
                        .or(known.map(|keys| &keys.secondary))
                        .map_or_else(auth::draw_key, String::clone),
                };
                Ok((Authentication::Sas(keys), keeps))
            }
            Some(other) => Err(ApiError::invalid(format!(
                "authentication type {other:?} does not exist: sas, selfSigned, certificateAuthority or none"
            ))),
        }
    }

    /// One that is stored.
    pub(crate) fn of(authentication: &Authentication) -> Self {
        let (keys, prints) = match authentication {
            Authentication::Sas(keys) => (Some(keys), None),
            Authentication::SelfSigned(prints) => (None, Some(prints)),
            Authentication::CertificateAuthority | Authentication::None => (None, None),
        };
        Self {
            symmetric_key: Some(KeysJson {
                primary_key: keys.map(|keys| keys.primary.clone()),
                secondary_key: keys.map(|keys| keys.secondary.clone()),
            }),
            x509_thumbprint: Some(ThumbprintsJson {
                primary_thumbprint: prints.and_then(|prints| prints.primary.clone()),
                secondary_thumbprint: prints.and_then(|prints| prints.secondary.clone()),
            }),
            kind: Some(authentication.kind().to_owned()),
        }
    }
}

/// A thumbprint in one spelling, without the colons that some tools put in.
fn thumbprint(text: &str) -> Result<String, ApiError> {
    let bare: String = text.chars().filter(|c| *c != ':').collect();
    let is_hex = bare.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && matches!(bare.len(), 40 | 64) {
        Ok(bare.to_ascii_uppercase())
    } else {
        Err(ApiError::invalid(
            "a thumbprint is 40 (SHA-1) or 64 (SHA-256) hexadecimal digits",
        ))
    }
}

/// A device or a module as services see it.
pub(crate) fn to_json(view: &DeviceView) -> Value {
    let DeviceRecord {
        device,
        spec,
        version,
        generation,
        status_changed_ms,
        ..
    } = &view.record;
    let session = &view.session;
    let mut json = json!({
        "deviceId": device.device_part(),
        "generationId": generation.to_string(),
        "etag": etag(*version),
        "connectionState": session.connection_state(),
        "connectionStateUpdatedTime": iso_utc_or_unset(session.changed_ms),
        "lastActivityTime": UNSET,
        "cloudToDeviceMessageCount": view.message_count,
        "authentication": AuthenticationJson::of(&spec.authentication),
    });
    match device.module_part() {
        Some(module) => {
            json["moduleId"] = module.into();
            json["managedBy"] = spec.managed_by.clone().into();
        }
        None => {
            json["status"] = json!(spec.status);
            json["statusReason"] = spec.status_reason.clone().into();
            json["statusUpdatedTime"] = iso_utc_or_unset(*status_changed_ms).into();
            json["capabilities"] = json!({ "iotEdge": spec.is_edge });
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn complete(body: Value, before: Option<&DeviceSpec>, is_module: bool) -> Result<Completed, ApiError> {
        let input: IdentityInput = serde_json::from_value(body).expect("an identity");
        input.complete(before, is_module)
    }

    fn keys(spec: &DeviceSpec) -> (&str, &str) {
        let keys = spec.authentication.keys().expect("it has keys");
        (&keys.primary, &keys.secondary)
    }

    #[test]
    fn keys_are_drawn_kept_or_taken() {
        let made = complete(json!({}), None, false).expect("a spec");
        let (primary, secondary) = keys(&made.spec);
        assert!(primary != secondary && !made.keeps);
        let roll = json!({"authentication": {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": ""}}});
        let rolled = complete(roll, Some(&made.spec), false).expect("a spec");
        assert_eq!(keys(&rolled.spec), (KEY, secondary));
        assert!(rolled.keeps, "the second key must still be the one that was read");
        let both =
            json!({"authentication": {"symmetricKey": {"primaryKey": secondary, "secondaryKey": primary}}});
        let swapped = complete(both, Some(&made.spec), false).expect("a spec");
        assert!(!swapped.keeps && !made.spec.authentication.loses_to(&swapped.spec.authentication));
        assert!(made.spec.authentication.loses_to(&rolled.spec.authentication));
    }

    #[test]
    fn ways_to_prove_oneself_are_read() {
        let print = "ab:".repeat(19) + "ab";
        let signed = |print: &str| json!({"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": print}}});
        let made = complete(signed(&print), None, false).expect("a spec").spec;
        let Authentication::SelfSigned(prints) = &made.authentication else {
            panic!("{made:?}")
        };
        assert_eq!(prints.primary.as_deref(), Some("AB".repeat(20).as_str()));
        let kept = complete(json!({"status": "disabled"}), Some(&made), false).expect("a spec");
        assert_eq!(kept.spec.authentication, made.authentication);
        assert!(kept.keeps && kept.spec.status == DeviceStatus::Disabled);
        let other = complete(signed(&"cd".repeat(32)), Some(&made), false).expect("a spec");
        assert!(made.authentication.loses_to(&other.spec.authentication));
        for kind in ["certificateAuthority", "none"] {
            let spec = complete(json!({"authentication": {"type": kind}}), None, true).expect("a spec");
            assert_eq!(spec.spec.authentication.kind(), kind);
        }
        for wrong in [
            signed(""),
            signed("abc"),
            signed(&"xy".repeat(20)),
            json!({"authentication": {"type": "magic"}}),
            json!({"authentication": {"symmetricKey": {"primaryKey": "short"}}}),
            json!({"statusReason": "x".repeat(129)}),
        ] {
            assert!(complete(wrong.clone(), None, false).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_module_has_no_status_of_its_own() {
        let body = json!({"status": "disabled", "managedBy": "edge", "capabilities": {"iotEdge": true}});
        let spec = complete(body.clone(), None, true).expect("a spec").spec;
        assert_eq!(
            (spec.status, spec.managed_by.as_deref()),
            (DeviceStatus::Enabled, Some("edge"))
        );
        assert!(!spec.is_edge);
        let spec = complete(body, None, false).expect("a spec").spec;
        assert!(spec.is_edge && spec.managed_by.is_none());
    }
}
