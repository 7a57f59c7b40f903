//! Who somebody is: shared access tokens against the keys of devices and policies, certificates against thumbprints.
//!
//! Every comparison of secrets runs through ring and takes the same time whatever is wrong. What is
//! not certain is refused. Nothing here asks the cluster; callers bring the record. Tokens are taken
//! apart in [`SasToken`].

mod certificate;
mod connection_string;
mod described;
pub(crate) mod news;
mod principal;
pub(crate) mod standing;
mod token;

pub use certificate::CHAIN_MAX;
pub(crate) use certificate::{Shown, thumbprint_of_pem};
pub use connection_string::{ConnectionString, ConnectionStringError};
pub(crate) use described::{CertificateInfo, certificate_info, read_certificate};
pub use principal::Principal;
pub(crate) use standing::{RestsOn, Standing};
pub use token::{SasToken, sign};

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use dunlin_model::directory::{Directory, Right};
use dunlin_model::identity::{Authentication, DeviceRecord, SymmetricKeys};
use dunlin_model::telemetry::AuthMethod;
use ring::hmac;

/// Bytes of a decoded key at least.
pub const KEY_BYTES_MIN: usize = 16;
/// Bytes of a decoded key at the most.
pub const KEY_BYTES_MAX: usize = 64;

/// Base64 of keys and signatures; SDKs differ in padding.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a credential does not count. Devices are never told which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Nothing was shown.
    #[error("neither token nor certificate")]
    Missing,
    /// Not a token.
    #[error("the token cannot be read")]
    Malformed,
    /// The token's time is over.
    #[error("the token has expired")]
    Expired,
    /// The token is for something else.
    #[error("the token does not cover this resource")]
    WrongScope,
    /// No key in question made the signature.
    #[error("the signature does not match")]
    BadSignature,
    /// The token names a policy that does not exist.
    #[error("the policy does not exist")]
    UnknownPolicy,
    /// The policy does not grant what was asked.
    #[error("the policy does not grant this")]
    MissingRight,
    /// The certificate is not one of the device's.
    #[error("the certificate is not one of this device")]
    WrongCertificate,
    /// The certificate, or one above it, is over, or not yet in force.
    #[error("the certificate is not in force")]
    CertificateExpired,
    /// The chain leads to none of the hub's authorities.
    #[error("the certificate comes from no authority of this hub")]
    UnknownAuthority,
    /// The device may not connect.
    #[error("the device is disabled")]
    Disabled,
    /// A key is not Base64 of [`KEY_BYTES_MIN`] to [`KEY_BYTES_MAX`] bytes.
    #[error("the key is not Base64 of 16 to 64 bytes")]
    BadKey,
}

/// What a token is used for: a hub under any of its names, and a path inside it.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// Names of the hub, without ports.
    pub hosts: &'a [String],
    /// Path segments, e.g. `["devices", "dev-1"]`.
    pub path: &'a [&'a str],
}

impl Scope<'_> {
    /// Whether `resource` (decoded) is a segment-wise prefix of this.
    pub(crate) fn is_covered_by(&self, resource: &str) -> bool {
        // Event Hubs' clients name an address, `sb://host/..`.
        let resource = resource.split_once("://").map_or(resource, |(_, rest)| rest);
        let mut segments = resource
            .split('/')
            .filter(|segment| !segment.is_empty())
            .peekable();
        let host = segments.next().unwrap_or_default();
        if !is_host(self.hosts, host) {
            return false;
        }
        let mut path = self.path.iter();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            // One documented sample carries the api-version as a last segment.
            if is_last && (segment.starts_with("api-version=") || segment.starts_with("?api-version=")) {
                return true;
            }
            let segment = if is_last {
                segment.split("?api-version=").next().unwrap_or(segment)
            } else {
                segment
            };
            if path.next() != Some(&segment) {
                return false;
            }
        }
        true
    }
}

/// Path segments of a device below `collection`, or of a module of it.
pub(crate) fn identity_path<'a>(
    collection: &'a str,
    device: &'a str,
    module: Option<&'a str>,
) -> Vec<&'a str> {
    let mut path = vec![collection, device];
    path.extend(module.into_iter().flat_map(|module| ["modules", module]));
    path
}

/// Whether `text` is one of `hosts`, in any case, with or without a port.
pub fn is_host(hosts: &[String], text: &str) -> bool {
    let bare = match text.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => text,
    };
    hosts
        .iter()
        .any(|host| host.eq_ignore_ascii_case(bare) || host.eq_ignore_ascii_case(text))
}

/// Checks everything of a token that needs no key: its time and what it covers.
pub fn check_claims(token: &SasToken<'_>, scope: Scope<'_>, now_s: u64) -> Result<(), AuthError> {
    if token.expiry_s <= now_s {
        return Err(AuthError::Expired);
    }
    if scope.is_covered_by(&token.resource()) {
        Ok(())
    } else {
        Err(AuthError::WrongScope)
    }
}

/// What somebody shows who says that it is a device or a module.
#[derive(Debug)]
pub(crate) enum Credential<'a> {
    /// A token; it counts where there is one, even if a certificate was shown as well.
    Token(SasToken<'a>, Scope<'a>),
    /// The certificates of its connection.
    Certificate(&'a Shown),
}

impl<'a> Credential<'a> {
    /// Reads it, and checks what needs no key, before anybody is asked for one.
    pub(crate) fn read(
        token: Option<&'a str>,
        shown: Option<&'a Shown>,
        scope: Scope<'a>,
        now_s: u64,
    ) -> Result<Self, AuthError> {
        match (token, shown) {
            (Some(text), _) => {
                let token = SasToken::parse(text)?;
                check_claims(&token, scope, now_s)?;
                Ok(Self::Token(token, scope))
            }
            (None, Some(shown)) => Ok(Self::Certificate(shown)),
            (None, None) => Err(AuthError::Missing),
        }
    }

    /// Checks that it is that of `record`.
    pub(crate) fn verify(
        &self,
        record: &DeviceRecord,
        directory: &Directory,
        now_s: u64,
    ) -> Result<AuthMethod, AuthError> {
        match self {
            Self::Token(token, scope) => verify_device(token, record, directory, *scope, now_s),
            Self::Certificate(shown) => shown.verify(record, &directory.authorities, now_s),
        }
    }

    /// What it rests on, once it has been verified to be that of `record`.
    pub(crate) fn rests_on(&self, record: &DeviceRecord, directory: &Directory, now_s: u64) -> RestsOn {
        match self {
            Self::Token(token, _) if token.policy.is_some() => {
                RestsOn::of_policy(token, directory, Right::DeviceConnect)
            }
            Self::Certificate(shown)
                if record.spec.authentication == Authentication::CertificateAuthority =>
            {
                let shown = (*shown).clone();
                RestsOn::Authority { shown, at_s: now_s }
            }
            Self::Token(..) | Self::Certificate(_) => RestsOn::Itself,
        }
    }

    /// When it ends by itself, seconds since 1970: a token does.
    pub(crate) fn expiry_s(&self) -> Option<u64> {
        match self {
            Self::Token(token, _) => Some(token.expiry_s),
            Self::Certificate(_) => None,
        }
    }
}

/// Checks a device's token: signed with one of its keys, or with a policy that may speak as a device.
pub fn verify_device(
    token: &SasToken<'_>,
    record: &DeviceRecord,
    directory: &Directory,
    scope: Scope<'_>,
    now_s: u64,
) -> Result<AuthMethod, AuthError> {
    check_claims(token, scope, now_s)?;
    let method = if token.policy.is_some() {
        verify_policy(token, directory, Right::DeviceConnect, scope, now_s)?;
        AuthMethod::HubPolicy
    } else {
        let keys = record.spec.authentication.keys();
        verify_keys(token, keys.ok_or(AuthError::BadSignature)?, KeyForm::Decoded)?;
        AuthMethod::DeviceKey
    };
    // Last, so that only the holder of a key learns anything by timing.
    if record.is_disabled() {
        Err(AuthError::Disabled)
    } else {
        Ok(method)
    }
}

/// Checks a service's token: signed with a key of the policy it names, which grants `right`.
pub fn verify_policy(
    token: &SasToken<'_>,
    directory: &Directory,
    right: Right,
    scope: Scope<'_>,
    now_s: u64,
) -> Result<(), AuthError> {
    verify_policy_as(token, directory, right, scope, now_s, KeyForm::Decoded)
}

/// What of a policy's key makes a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyForm {
    /// The bytes that its Base64 stands for, as IoT Hub's clients have it.
    Decoded,
    /// These, or the text as it stands, as Event Hubs' clients have it.
    DecodedOrText,
}

/// The same as [`verify_policy`] where clients of more than one kind come.
pub(crate) fn verify_policy_as(
    token: &SasToken<'_>,
    directory: &Directory,
    right: Right,
    scope: Scope<'_>,
    now_s: u64,
    form: KeyForm,
) -> Result<(), AuthError> {
    check_claims(token, scope, now_s)?;
    let name = token.policy.as_deref().ok_or(AuthError::UnknownPolicy)?;
    let policy = directory.policies.get(name).ok_or(AuthError::UnknownPolicy)?;
    verify_keys(token, &policy.keys, form)?;
    if policy.grants(right) {
        Ok(())
    } else {
        Err(AuthError::MissingRight)
    }
}

/// A sender's proof as the text that events carry.
pub(crate) fn method_text(method: AuthMethod) -> String {
    let (scope, kind) = match method {
        AuthMethod::DeviceKey => ("device", "sas"),
        AuthMethod::HubPolicy => ("hub", "sas"),
        AuthMethod::X509 => ("device", "x509"),
        AuthMethod::Hub => ("hub", "none"),
    };
    serde_json::json!({ "scope": scope, "type": kind, "issuer": "iothub" }).to_string()
}

/// Checks that a token is signed with one of `keys`.
pub(crate) fn verify_keys(
    token: &SasToken<'_>,
    keys: &SymmetricKeys,
    form: KeyForm,
) -> Result<(), AuthError> {
    let key = signing_key(token, keys, form);
    key.map(drop).ok_or(AuthError::BadSignature)
}

/// That of `keys` which a token is signed with.
fn signing_key<'a>(token: &SasToken<'_>, keys: &'a SymmetricKeys, form: KeyForm) -> Option<&'a str> {
    let is_signing = |text: &&str| {
        // A key that is not one as it should be counts in neither form.
        decode_key(text).is_ok_and(|key| {
            token.is_signed_with(&key)
                || (form == KeyForm::DecodedOrText && token.is_signed_with(text.as_bytes()))
        })
    };
    [keys.primary.as_str(), keys.secondary.as_str()]
        .into_iter()
        .find(is_signing)
}

/// Decodes a key and checks its length.
pub fn decode_key(key: &str) -> Result<Vec<u8>, AuthError> {
    let bytes = BASE64.decode(key).map_err(|_| AuthError::BadKey)?;
    if (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()) {
        Ok(bytes)
    } else {
        Err(AuthError::BadKey)
    }
}

/// A device's key in an enrolment group: Base64 of the HMAC-SHA256 of its registration id under the group's key.
pub fn derive_key(group_key: &str, registration: &str) -> Result<String, AuthError> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &decode_key(group_key)?);
    Ok(BASE64.encode(hmac::sign(&key, registration.as_bytes())))
}

/// Draws a key: Base64 of 32 random bytes.
pub fn draw_key() -> String {
    BASE64.encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_model::directory::first_policies;
    use dunlin_model::id::DeviceId;
    use dunlin_model::identity::{Authentication, DeviceSpec, DeviceStatus};

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

    fn hosts() -> Vec<String> {
        vec!["hub.example".into()]
    }

    fn record(primary: &str, secondary: &str, status: DeviceStatus) -> DeviceRecord {
        DeviceRecord {
            device: DeviceId::parse("dev-1").unwrap(),
            spec: DeviceSpec {
                status,
                ..DeviceSpec::enabled(Authentication::Sas(SymmetricKeys {
                    primary: primary.into(),
                    secondary: secondary.into(),
                }))
            },
            version: 1,
            generation: 1,
            created_ms: 0,
            status_changed_ms: 0,
        }
    }

    fn directory() -> Directory {
        Directory {
            policies: first_policies(|| SymmetricKeys {
                primary: OTHER.into(),
                secondary: KEY.into(),
            }),
            ..Directory::default()
        }
    }

    fn check(text: &str, path: &[&str], now_s: u64) -> Result<AuthMethod, AuthError> {
        let hosts = hosts();
        let token = SasToken::parse(text)?;
        let record = record(KEY, OTHER, DeviceStatus::Enabled);
        verify_device(
            &token,
            &record,
            &directory(),
            Scope { hosts: &hosts, path },
            now_s,
        )
    }

    const PATH: &[&str] = &["devices", "dev-1"];

    #[test]
    fn keys_of_groups_are_derived_as_azure_has_it() {
        let group = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let name = "sn-007-888-abc-mac-a1-b2";
        let derived = derive_key(group, name).expect("a key");
        assert_eq!(derived, "l6Rq0kavrR+hzFKfH+hUf7E3hlbCrl4k+yOwD25qnDQ=");
        let token = sign(
            &format!("0ne00000001/registrations/{name}"),
            &derived,
            1_893_456_000,
            None,
        );
        let token = token.expect("a token");
        assert!(
            token.contains("sig=kWvVQycGmm3UpvcZkRyHJR%2FIrhnaCr1r57wrgpY10%2FE%3D"),
            "{token}"
        );
        assert_eq!(derive_key("short", "x"), Err(AuthError::BadKey));
    }

    #[test]
    fn the_two_vectors_verify() {
        let device = "SharedAccessSignature sr=hub.example%2Fdevices%2Fdev-1&sig=h6S%2BxYWKUrul13Vc1BUmsRDimf1iORgTML8osQSqBQI%3D&se=1893456000";
        assert_eq!(check(device, PATH, 1), Ok(AuthMethod::DeviceKey));
        let owner = "SharedAccessSignature sr=hub.example&sig=PiP8idcaErdWcSDJE%2B8YqR13Pft5ddoPDMXjO7506gU%3D&se=1893456000&skn=iothubowner";
        assert_eq!(check(owner, PATH, 1), Ok(AuthMethod::HubPolicy));
        let hosts = hosts();
        let token = SasToken::parse(owner).unwrap();
        let scope = Scope {
            hosts: &hosts,
            path: &["devices"],
        };
        for right in [Right::RegistryRead, Right::ServiceConnect, Right::ClusterAdmin] {
            assert_eq!(verify_policy(&token, &directory(), right, scope, 1), Ok(()));
        }
    }

    #[test]
    fn order_case_and_raw_signs_do_not_matter() {
        for text in [
            "SharedAccessSignature se=1893456000&sig=h6S+xYWKUrul13Vc1BUmsRDimf1iORgTML8osQSqBQI=&sr=hub.example%2Fdevices%2Fdev-1",
            "SharedAccessSignature sig=h6S%2bxYWKUrul13Vc1BUmsRDimf1iORgTML8osQSqBQI%3d&se=1893456000&sr=hub.example%2Fdevices%2Fdev-1&skn=",
        ] {
            assert_eq!(check(text, PATH, 1), Ok(AuthMethod::DeviceKey), "{text}");
        }
        // The raw text is signed: another spelling of the same resource is another signature.
        let respelled = "SharedAccessSignature sr=hub.example%2fdevices%2fdev-1&sig=h6S%2BxYWKUrul13Vc1BUmsRDimf1iORgTML8osQSqBQI%3D&se=1893456000";
        assert_eq!(check(respelled, PATH, 1), Err(AuthError::BadSignature));
    }

    #[test]
    fn what_is_signed_here_verifies_here() {
        for (resource, policy, ok) in [
            ("hub.example/devices/dev-1", None, true),
            ("HUB.Example:8883/devices/dev-1", None, true),
            ("hub.example/devices/dev-1/api-version=2016-11-14", None, true),
            ("hub.example/devices/dev-1/?api-version=2016-11-14", None, true),
            ("hub.example/devices/dev-1?api-version=2016-11-14", None, true),
            ("hub.example/devices", None, true),
            ("hub.example", Some("device"), true),
            ("sb://hub.example/devices", None, true),
            ("sb://other.example/devices", None, false),
            ("hub.example", Some("service"), false),
            ("hub.example", Some("nobody"), false),
            ("hub.example/devices/dev-10", None, false),
            ("hub.example/devices/dev-", None, false),
            ("hub.example/devices/dev-1/modules/m", None, false),
            ("other.example/devices/dev-1", None, false),
            ("", None, false),
        ] {
            let token = sign(resource, KEY, 1_893_456_000, policy).unwrap();
            assert_eq!(check(&token, PATH, 1).is_ok(), ok, "{resource} {policy:?}");
        }
    }

    #[test]
    fn expired_truncated_and_disabled_are_refused() {
        let token = sign("hub.example/devices/dev-1", KEY, 1000, None).unwrap();
        assert_eq!(check(&token, PATH, 999), Ok(AuthMethod::DeviceKey));
        assert_eq!(check(&token, PATH, 1000), Err(AuthError::Expired));
        let hosts = hosts();
        let parsed = SasToken::parse(&token).unwrap();
        let disabled = record(KEY, OTHER, DeviceStatus::Disabled);
        let scope = Scope {
            hosts: &hosts,
            path: PATH,
        };
        assert_eq!(
            verify_device(&parsed, &disabled, &directory(), scope, 1),
            Err(AuthError::Disabled)
        );
        let short = parsed.signature.len() - 1;
        let cut = SasToken {
            signature: parsed.signature[..short].to_vec(),
            ..parsed
        };
        let enabled = record(KEY, OTHER, DeviceStatus::Enabled);
        assert_eq!(
            verify_device(&cut, &enabled, &directory(), scope, 1),
            Err(AuthError::BadSignature)
        );
    }

    #[test]
    fn both_keys_count_and_bad_keys_never_do() {
        let token = sign("hub.example/devices/dev-1", OTHER, 1000, None).unwrap();
        assert_eq!(check(&token, PATH, 1), Ok(AuthMethod::DeviceKey));
        let hosts = hosts();
        let scope = Scope {
            hosts: &hosts,
            path: PATH,
        };
        let empty = record("", "AAAA", DeviceStatus::Enabled);
        let parsed = SasToken::parse(&token).unwrap();
        assert_eq!(
            verify_device(&parsed, &empty, &directory(), scope, 1),
            Err(AuthError::BadSignature)
        );
        assert_eq!(decode_key(&draw_key()).unwrap().len(), 32);
        assert_eq!(decode_key("AAAA"), Err(AuthError::BadKey));
        assert_eq!(decode_key("not base64!"), Err(AuthError::BadKey));
    }
}
