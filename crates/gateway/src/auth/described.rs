//! Certificates as operators hand them in, and what is told of one.
//!
//! Whether anybody trusts them is decided where they are used.

use base64::Engine as _;
use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::BASE64;
use super::certificate::{read_pem, thumbprints};

/// Bytes of a certificate, as whatever text it comes.
const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;

/// What is told of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateInfo {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// Upper-case hexadecimal, as all digests and numbers here.
    pub(crate) sha1: String,
    pub(crate) sha256: String,
    pub(crate) serial: String,
    pub(crate) version: u32,
    /// Milliseconds since 1970; 0 for earlier.
    pub(crate) not_before_ms: u64,
    pub(crate) not_after_ms: u64,
}

/// The one certificate in a text, as PEM and nothing else: PEM, Base64 of PEM, or Base64 of DER, as tools and SDKs send
/// it. Otherwise what is wrong with it.
pub(crate) fn read_certificate(text: &str, is_authority: bool) -> Result<String, String> {
    if text.len() > CERTIFICATE_BYTES_MAX {
        return Err(format!(
            "a certificate has more than {CERTIFICATE_BYTES_MAX} bytes"
        ));
    }
    let found = read_pem(text).or_else(|| {
        let compact: String = text.split_whitespace().collect();
        let bytes = BASE64.decode(compact).ok()?;
        let inner = std::str::from_utf8(&bytes).ok().and_then(read_pem);
        inner.or_else(|| Some(CertificateDer::from(bytes)))
    });
    let der = found.ok_or("a certificate is neither PEM nor Base64")?;
    let (rest, read) =
        X509Certificate::from_der(&der).map_err(|_| "a certificate cannot be read".to_owned())?;
    if !rest.is_empty() {
        return Err("something follows a certificate".to_owned());
    }
    if is_authority && !read.is_ca() {
        return Err("a signing certificate's basic constraints do not say CA".to_owned());
    }
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    Ok(pem::encode_config(&Pem::new("CERTIFICATE", der.to_vec()), config))
}

/// What is told of a certificate (PEM).
pub(crate) fn certificate_info(pem: &str) -> Option<CertificateInfo> {
    let der = read_pem(pem)?;
    let (_, read) = X509Certificate::from_der(&der).ok()?;
    let [sha1, sha256] = thumbprints(&der);
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    let serial = read
        .raw_serial()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    Some(CertificateInfo {
        subject: read.subject().to_string(),
        issuer: read.issuer().to_string(),
        sha1,
        sha256,
        serial,
        // Of the largest number there is none above.
        version: read.version().0.saturating_add(1),
        not_before_ms: ms(read.validity().not_before.timestamp()),
        not_after_ms: ms(read.validity().not_after.timestamp()),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

    use super::*;

    fn certificate(is_ca: bool) -> (String, Vec<u8>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "plant");
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let made = params.self_signed(&key).expect("a certificate");
        (made.pem(), made.der().to_vec())
    }

    #[test]
    fn certificates_are_read_in_every_form_and_come_out_in_one() {
        let (pem, der) = certificate(false);
        let plain = read_certificate(&pem, false).expect("a certificate");
        for text in [BASE64.encode(&pem), BASE64.encode(&der), plain.clone()] {
            assert_eq!(read_certificate(&text, false).as_ref(), Ok(&plain));
        }
        let info = certificate_info(&plain).expect("something is told");
        assert!(info.subject.contains("plant") && info.version == 3);
        assert_eq!((info.sha1.len(), info.sha256.len()), (40, 64));
        assert!(read_certificate(&pem, true).is_err());
        assert!(read_certificate(&certificate(true).0, true).is_ok());
        let long = "A".repeat(CERTIFICATE_BYTES_MAX + 1);
        let more = BASE64.encode([&der[..], &[0]].concat());
        for wrong in ["", "x y", "AAAA", &long, &more] {
            assert!(read_certificate(wrong, false).is_err(), "{wrong:.40}");
        }
    }
}
