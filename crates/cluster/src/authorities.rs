//! The certificate authorities of devices, as an operator names them: what may become one, and what is shown of each.
//!
//! Whether a device's certificate comes from one is decided at the doors.

use dunlin_model::directory::{AUTHORITY_BYTES_MAX, Directory, is_plain_name};
use pem::{EncodeConfig, LineEnding, Pem};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::transport::tls;

/// Characters of a name.
const NAME_CHARS_MAX: usize = 64;

/// An authority, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityLine {
    /// Its name here.
    pub name: String,
    /// Its name in its certificate.
    pub subject: String,
    /// Until when its certificate is good, seconds since 1970.
    pub not_after_s: i64,
    /// The certificate as PEM.
    pub certificate: String,
}

/// Those of the directory, by name.
pub(crate) fn list(directory: &Directory) -> Vec<AuthorityLine> {
    let lines = directory.authorities.iter().map(|(name, certificate)| {
        let (_, subject, not_after_s) = look(certificate).unwrap_or_default();
        AuthorityLine {
            name: name.clone(),
            subject,
            not_after_s,
            certificate: certificate.clone(),
        }
    });
    lines.collect()
}

/// The certificate alone, as PEM, if this can be an authority at `now_s`; otherwise why not. What else stands in the text,
/// such as a key, goes no further.
pub(crate) fn check(name: &str, certificate: &str, now_s: i64) -> Result<String, String> {
    if !is_plain_name(name, NAME_CHARS_MAX) {
        return Err(format!(
            "the name of an authority is 1 to {NAME_CHARS_MAX} letters, digits and -._"
        ));
    }
    if certificate.len() > AUTHORITY_BYTES_MAX {
        return Err(format!(
            "the certificate of an authority has {AUTHORITY_BYTES_MAX} bytes at the most"
        ));
    }
    let (der, _, not_after_s) = look(certificate)?;
    if not_after_s <= now_s {
        return Err("the certificate of the authority has expired".to_owned());
    }
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    Ok(pem::encode_config(&Pem::new("CERTIFICATE", der), config))
}

/// The one certificate in `pem`, which must be an authority's, with its subject and its end.
fn look(pem: &str) -> Result<(Vec<u8>, String, i64), String> {
    let found = tls::certificates("certificate of an authority", pem).map_err(|error| error.to_string())?;
    let [one] = &found[..] else {
        return Err(format!(
            "there are {} certificates in the text, not one",
            found.len()
        ));
    };
    let (_, read) = X509Certificate::from_der(one).map_err(|error| format!("read certificate: {error}"))?;
    if !read.is_ca() {
        return Err("it is no authority's certificate: its basic constraints do not say CA".to_owned());
    }
    let not_after_s = read.validity().not_after.timestamp();
    Ok((one.to_vec(), read.subject().to_string(), not_after_s))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

    use super::*;

    fn certificate(is_ca: bool) -> String {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Plant 7");
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params.self_signed(&key).expect("a certificate").pem()
    }

    #[test]
    fn only_an_authority_becomes_one_and_only_its_certificate_is_kept() {
        let good = certificate(true);
        let kept = check("plant-7", &format!("{good}{KEY}"), 0).expect("an authority");
        assert!(!kept.contains("PRIVATE"), "{kept}");
        assert_eq!(look(&kept), look(&good));
        assert_eq!(check("plant-7", &kept, 0), Ok(kept.clone()));
        let other = certificate(false);
        for (name, pem) in [
            ("plant-7", other.as_str()),
            ("plant-7", "nonsense"),
            ("plant-7", ""),
            ("plant-7", &good.repeat(2)),
            ("plant-7", &good.repeat(20)),
            ("", &good),
            ("a b", &good),
        ] {
            assert!(check(name, pem, 0).is_err(), "{name} {pem:.40}");
        }
        assert!(check("plant-7", &good, i64::MAX).is_err(), "it has expired");
        let mut directory = Directory::default();
        directory.authorities.insert("plant-7".into(), kept.clone());
        let listed = list(&directory);
        assert_eq!(
            (listed[0].name.as_str(), &listed[0].certificate),
            ("plant-7", &kept)
        );
        assert!(listed[0].subject.contains("Plant 7") && listed[0].not_after_s > 0);
    }

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
}
