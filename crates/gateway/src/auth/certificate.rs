//! Client certificates: what a client has shown while it shook hands, held against what the registry knows of it and
//! whom the hub trusts.
//!
//! The handshake has proved that the client holds the leaf's key, and nothing else: who it is, is decided here, when it
//! says its name. A certificate that an authority has signed must be for that very name (its common name) and in force;
//! of one that is known by its thumbprint nothing else is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::identity::{Authentication, DeviceRecord, Thumbprints};
use dunlin_model::telemetry::AuthMethod;
use ring::digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use super::AuthError;

/// Certificates that a client may show: its own, and those up to an authority. A longer chain ends the handshake.
pub const CHAIN_MAX: usize = 6;

/// The certificates that a client has shown, its own first.
#[derive(Debug, Clone)]
pub(crate) struct Shown(pub(crate) Arc<[CertificateDer<'static>]>);

impl Shown {
    /// Those of a connection, if the client has shown any.
    pub(crate) fn of(connection: &rustls::ServerConnection) -> Option<Self> {
        let chain = connection.peer_certificates()?;
        let owned: Arc<[_]> = chain.iter().map(|one| one.clone().into_owned()).collect();
        (!owned.is_empty()).then_some(Self(owned))
    }

    /// Checks that these are a device's own. `authorities` are those that the hub trusts, as PEM by name.
    pub(crate) fn verify(
        &self,
        record: &DeviceRecord,
        authorities: &BTreeMap<String, String>,
        now_s: u64,
    ) -> Result<AuthMethod, AuthError> {
        match &record.spec.authentication {
            Authentication::SelfSigned(known) => {
                let shown = thumbprints(&self.0[0]);
                if !known.each().any(|known| shown.contains(known)) {
                    return Err(AuthError::WrongCertificate);
                }
            }
            Authentication::CertificateAuthority => {
                self.verify_chain(authorities, now_s)?;
                if !is_for(&self.0[0], record.device.as_str()) {
                    return Err(AuthError::WrongCertificate);
                }
            }
            Authentication::Sas(_) | Authentication::None => return Err(AuthError::WrongCertificate),
        }
        if record.is_disabled() {
            return Err(AuthError::Disabled);
        }
        Ok(AuthMethod::X509)
    }
}

impl Shown {
    /// Follows the chain up to one of `authorities`, PEM by name.
    pub(super) fn verify_chain(
        &self,
        authorities: &BTreeMap<String, String>,
        now_s: u64,
    ) -> Result<(), AuthError> {
        let anchors: Vec<String> = authorities.values().cloned().collect();
        self.is_signed_below(&anchors, &[], now_s)
    }

    /// Follows the chain up to one of `anchors` that is in force itself: of an anchor the verifier looks at the key
    /// alone. `between` are certificates that may stand in it without having been shown. All of them are PEM.
    pub(crate) fn is_signed_below(
        &self,
        anchors: &[String],
        between: &[String],
        now_s: u64,
    ) -> Result<(), AuthError> {
        let mut roots = RootCertStore::empty();
        let anchors = anchors.iter().filter_map(|pem| read_pem(pem));
        roots.add_parsable_certificates(anchors.filter(|anchor| is_in_force(anchor, now_s)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| AuthError::UnknownAuthority)?; // there are none
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_s));
        let between = between.iter().filter_map(|pem| read_pem(pem));
        let above: Vec<CertificateDer<'_>> = self.0[1..].iter().cloned().chain(between).collect();
        let verified = verifier.verify_client_cert(&self.0[0], &above, now);
        verified.map(|_| ()).map_err(|error| match error {
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => AuthError::CertificateExpired,
            _ => AuthError::UnknownAuthority,
        })
    }

    /// Whether a certificate (PEM) has the name of somebody whom what was shown calls its issuer. Only then is it worth
    /// looking whether it has signed.
    pub(crate) fn may_be_below(&self, pem: &str) -> bool {
        let Some(above) = read_pem(pem) else {
            return false;
        };
        let Ok((_, above)) = X509Certificate::from_der(&above) else {
            return false;
        };
        self.0.iter().any(|shown| {
            let read = X509Certificate::from_der(shown);
            read.is_ok_and(|(_, read)| read.issuer().as_raw() == above.subject().as_raw())
        })
    }

    /// How far above the leaf a certificate (PEM) stands in what was shown; above all of it if it was not shown.
    pub(crate) fn depth_of(&self, pem: &str) -> usize {
        let wanted = read_pem(pem);
        let place = self.0.iter().position(|shown| Some(shown) == wanted.as_ref());
        place.unwrap_or(self.0.len())
    }

    /// Whether the leaf is exactly this certificate (PEM).
    pub(crate) fn leaf_is(&self, pem: &str) -> bool {
        read_pem(pem).is_some_and(|wanted| self.0[0] == wanted)
    }

    /// Checks that the leaf's time has come and is not over.
    pub(crate) fn check_leaf_in_force(&self, now_s: u64) -> Result<(), AuthError> {
        if is_in_force(&self.0[0], now_s) {
            Ok(())
        } else {
            Err(AuthError::CertificateExpired)
        }
    }

    /// Whether `name` is the leaf's one common name, in any case.
    pub(crate) fn is_for_any_case(&self, name: &str) -> bool {
        common_name(&self.0[0]).is_some_and(|common| common.eq_ignore_ascii_case(name))
    }

    /// The leaf's one common name.
    pub(crate) fn common_name(&self) -> Option<String> {
        common_name(&self.0[0])
    }

    /// What the registry knows the leaf by.
    pub(crate) fn thumbprints(&self) -> Thumbprints {
        let [_, sha256] = thumbprints(&self.0[0]);
        Thumbprints {
            primary: Some(sha256),
            secondary: None,
        }
    }
}

pub(super) fn read_pem(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

/// What the registry knows a certificate (PEM) by.
pub(crate) fn thumbprint_of_pem(pem: &str) -> Option<String> {
    let [_, sha256] = thumbprints(&read_pem(pem)?);
    Some(sha256)
}

fn is_in_force(certificate: &CertificateDer<'_>, now_s: u64) -> bool {
    let now = i64::try_from(now_s)
        .ok()
        .and_then(|s| ASN1Time::from_timestamp(s).ok());
    match (X509Certificate::from_der(certificate), now) {
        (Ok((_, read)), Some(now)) => read.validity().is_valid_at(now),
        _ => false,
    }
}

/// Whether `name` is the one common name of a certificate.
fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    common_name(certificate).is_some_and(|common| common == name)
}

/// The common name of a certificate that has exactly one.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    let mut names = read.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(only), None) => Some(only.as_str().ok()?.to_owned()),
        _ => None,
    }
}

/// SHA-1 and SHA-256 of a certificate, as the registry spells them.
pub(super) fn thumbprints(certificate: &CertificateDer<'_>) -> [String; 2] {
    [&digest::SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA256].map(|algorithm| {
        let digest = digest::digest(algorithm, certificate);
        digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
    })
}

#[cfg(test)]
mod tests {
    use dunlin_model::id::DeviceId;
    use dunlin_model::identity::{DeviceSpec, DeviceStatus, SymmetricKeys};

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
        date_time_ymd,
    };

    use super::*;

    fn record(authentication: Authentication, status: DeviceStatus) -> DeviceRecord {
        let spec = DeviceSpec {
            status,
            ..DeviceSpec::enabled(authentication)
        };
        DeviceRecord {
            device: DeviceId::parse("d").expect("an id"),
            spec,
            version: 1,
            generation: 1,
            created_ms: 0,
            status_changed_ms: 0,
        }
    }

    fn prints(primary: &str, secondary: Option<&str>) -> Authentication {
        Authentication::SelfSigned(Thumbprints {
            primary: Some(primary.to_owned()),
            secondary: secondary.map(str::to_owned),
        })
    }

    #[test]
    fn either_thumbprint_of_either_kind_opens() {
        let shown = Shown([CertificateDer::from(b"abc".to_vec())].into());
        let verify = |record: &DeviceRecord| shown.verify(record, &BTreeMap::new(), 0);
        // The vectors of FIPS 180 for "abc".
        let sha1 = "A9993E364706816ABA3E25717850C26C9CD0D89D";
        let sha256 = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        for authentication in [prints(sha1, None), prints("00", Some(sha256))] {
            let enabled = record(authentication.clone(), DeviceStatus::Enabled);
            assert_eq!(verify(&enabled), Ok(AuthMethod::X509));
            let disabled = record(authentication, DeviceStatus::Disabled);
            assert_eq!(verify(&disabled), Err(AuthError::Disabled));
        }
        for (authentication, why) in [
            (prints("00", None), AuthError::WrongCertificate),
            (
                Authentication::SelfSigned(Thumbprints::default()),
                AuthError::WrongCertificate,
            ),
            (
                Authentication::Sas(SymmetricKeys::default()),
                AuthError::WrongCertificate,
            ),
            (Authentication::CertificateAuthority, AuthError::UnknownAuthority),
            (Authentication::None, AuthError::WrongCertificate),
        ] {
            let other = record(authentication, DeviceStatus::Enabled);
            assert_eq!(verify(&other), Err(why));
        }
    }

    /// A certificate with its key, which may sign others.
    struct Signer(CertifiedIssuer<'static, KeyPair>);

    fn params(name: &str, is_ca: bool) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
        params
    }

    impl Signer {
        fn root(name: &str) -> Self {
            let key = KeyPair::generate().expect("a key");
            Self(CertifiedIssuer::self_signed(params(name, true), key).expect("a root"))
        }

        fn intermediate(&self, name: &str, is_ca: bool) -> Self {
            let key = KeyPair::generate().expect("a key");
            Self(CertifiedIssuer::signed_by(params(name, is_ca), key, &self.0).expect("signed"))
        }

        fn leaf(&self, params: CertificateParams) -> CertificateDer<'static> {
            let key = KeyPair::generate().expect("a key");
            params.signed_by(&key, &self.0).expect("signed").der().clone()
        }

        fn der(&self) -> CertificateDer<'static> {
            self.0.der().clone()
        }
    }

    /// Within 2026.
    const NOW_S: u64 = 1_780_000_000;

    #[test]
    fn a_chain_to_an_authority_opens_for_the_name_in_it_alone() {
        let (root, stranger) = (Signer::root("root"), Signer::root("stranger"));
        let authorities = BTreeMap::from([("ours".to_owned(), root.0.pem())]);
        let middle = root.intermediate("middle", true);
        let device = record(Authentication::CertificateAuthority, DeviceStatus::Enabled);
        let verify = |chain: Vec<CertificateDer<'static>>, now_s: u64| {
            Shown(chain.into()).verify(&device, &authorities, now_s)
        };
        let own = || params("d", false);
        assert_eq!(verify(vec![root.leaf(own())], NOW_S), Ok(AuthMethod::X509));
        let through = vec![middle.leaf(own()), middle.der()];
        assert_eq!(verify(through, NOW_S), Ok(AuthMethod::X509));
        for year in [2025, 2028] {
            let mut other = own();
            (other.not_before, other.not_after) = (date_time_ymd(year, 1, 1), date_time_ymd(year, 6, 1));
            let late = verify(vec![root.leaf(other)], NOW_S);
            assert_eq!(late, Err(AuthError::CertificateExpired), "{year}");
        }
        // An authority whose own time is over counts for nobody.
        let mut forever = own();
        forever.not_after = date_time_ymd(2100, 1, 1);
        let late = verify(vec![root.leaf(forever)], NOW_S + 366 * 24 * 3600);
        assert_eq!(late, Err(AuthError::UnknownAuthority));
        let mut two_names = own();
        two_names
            .distinguished_name
            .push(DnType::CustomDnType(vec![2, 5, 4, 3]), "e");
        for (chain, why) in [
            (vec![root.leaf(params("e", false))], AuthError::WrongCertificate),
            (vec![root.leaf(params("D", false))], AuthError::WrongCertificate),
            (vec![root.leaf(params("d/m", false))], AuthError::WrongCertificate),
            (vec![root.leaf(two_names)], AuthError::WrongCertificate),
            (vec![stranger.leaf(own())], AuthError::UnknownAuthority),
            (
                vec![stranger.leaf(own()), stranger.der()],
                AuthError::UnknownAuthority,
            ),
            (
                vec![stranger.leaf(own()), root.der()],
                AuthError::UnknownAuthority,
            ),
            // The one between is missing, or may not sign.
            (vec![middle.leaf(own())], AuthError::UnknownAuthority),
            {
                let device = root.intermediate("d", false);
                let forged = device.leaf(own());
                (vec![forged, device.der()], AuthError::UnknownAuthority)
            },
            (
                vec![CertificateDer::from(b"noise".to_vec())],
                AuthError::UnknownAuthority,
            ),
        ] {
            assert_eq!(verify(chain, NOW_S), Err(why));
        }
        let none = Shown(vec![root.leaf(own())].into()).verify(&device, &BTreeMap::new(), NOW_S);
        assert_eq!(none, Err(AuthError::UnknownAuthority));
    }
}
