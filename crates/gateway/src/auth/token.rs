//! The shared access token: `SharedAccessSignature sr=..&sig=..&se=..[&skn=..]`, read and made.
//!
//! The signature covers the raw text of `sr` as it stands in the token, so that text is kept and
//! never re-encoded. Whether a token counts is decided in the parent module.

use std::borrow::Cow;

use base64::Engine as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::hmac;

use super::{AuthError, BASE64, decode_key};

/// Characters of a token at the most; longer ones are not read.
pub(super) const TOKEN_BYTES_MAX: usize = 4 * 1024;

const PREFIX: &str = "SharedAccessSignature";
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A token, taken apart; nothing of it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SasToken<'a> {
    /// `sr` exactly as it stands in the token.
    pub raw_resource: &'a str,
    /// `sig`, decoded.
    pub signature: Vec<u8>,
    /// `se` exactly as it stands in the token.
    pub(super) raw_expiry: &'a str,
    /// `se`: seconds since 1970.
    pub expiry_s: u64,
    /// `skn`: the policy whose key signed; `None` for a device's own.
    pub policy: Option<Cow<'a, str>>,
}

impl<'a> SasToken<'a> {
    /// Takes a token apart; fields may stand in any order, the first of a name counts.
    pub fn parse(text: &'a str) -> Result<Self, AuthError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed);
        }
        let text = text.trim();
        let (head, fields) = text.split_at_checked(PREFIX.len()).ok_or(AuthError::Malformed)?;
        if !head.eq_ignore_ascii_case(PREFIX) || !fields.starts_with(' ') {
            return Err(AuthError::Malformed);
        }
        let (mut sr, mut sig, mut se, mut skn) = (None, None, None, None);
        for field in fields.trim_start().split('&') {
            let (name, value) = field.split_once('=').ok_or(AuthError::Malformed)?;
            match name {
                "sr" => sr.get_or_insert(value),
                "sig" => sig.get_or_insert(value),
                "se" => se.get_or_insert(value),
                "skn" => skn.get_or_insert(value),
                _ => continue,
            };
        }
        let (Some(raw_resource), Some(sig), Some(raw_expiry)) = (sr, sig, se) else {
            return Err(AuthError::Malformed);
        };
        if raw_expiry.is_empty() || !raw_expiry.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AuthError::Malformed);
        }
        // Plain percent-decoding: a raw plus is a plus of Base64, never a space.
        let sig = percent_decode_str(sig)
            .decode_utf8()
            .map_err(|_| AuthError::Malformed)?;
        let signature = BASE64.decode(sig.as_bytes()).map_err(|_| AuthError::Malformed)?;
        let policy = match skn {
            None | Some("") => None,
            Some(name) => Some(
                percent_decode_str(name)
                    .decode_utf8()
                    .map_err(|_| AuthError::Malformed)?,
            ),
        };
        let expiry_s = raw_expiry.parse().map_err(|_| AuthError::Malformed)?;
        Ok(Self {
            raw_resource,
            signature,
            raw_expiry,
            expiry_s,
            policy,
        })
    }

    /// `sr`, decoded. Bytes that are not UTF-8 are replaced and then match nothing.
    pub fn resource(&self) -> Cow<'a, str> {
        percent_decode_str(self.raw_resource).decode_utf8_lossy()
    }

    /// Whether `key` made the signature, in constant time.
    pub(crate) fn is_signed_with(&self, key: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let signed = format!("{}\n{}", self.raw_resource, self.raw_expiry);
        hmac::verify(&key, signed.as_bytes(), &self.signature).is_ok()
    }
}

/// Makes a token for `resource` (not encoded, e.g. `hub.example/devices/dev-1`), valid until
/// `expiry_s` (seconds since 1970), signed with a Base64 key; `policy` names whose, if not a device's.
pub fn sign(resource: &str, key: &str, expiry_s: u64, policy: Option<&str>) -> Result<String, AuthError> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &decode_key(key)?);
    let resource = utf8_percent_encode(resource, UNRESERVED).to_string();
    let signature = BASE64.encode(hmac::sign(&key, format!("{resource}\n{expiry_s}").as_bytes()));
    let signature = utf8_percent_encode(&signature, UNRESERVED);
    let mut token = format!("{PREFIX} sr={resource}&sig={signature}&se={expiry_s}");
    if let Some(policy) = policy {
        token.push_str("&skn=");
        token.extend(utf8_percent_encode(policy, UNRESERVED));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn malformed_tokens_are_refused() {
        for text in [
            "",
            "SharedAccessSignature",
            "SharedAccessSignature ",
            "Bearer sr=a&sig=AAAA&se=1",
            "SharedAccessSignature sr=a&sig=AAAA",
            "SharedAccessSignature sr=a&se=1",
            "SharedAccessSignature sig=AAAA&se=1",
            "SharedAccessSignature sr=a&sig=AAAA&se=1.5",
            "SharedAccessSignature sr=a&sig=AAAA&se=-1",
            "SharedAccessSignature sr=a&sig=AAAA&se=99999999999999999999999",
            "SharedAccessSignature sr=a&sig=%%%&se=1",
            "SharedAccessSignature sr=a&sig=A A&se=1",
        ] {
            assert_eq!(SasToken::parse(text), Err(AuthError::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in ".{0,200}") {
            let _ = SasToken::parse(&noise);
            let text = format!("SharedAccessSignature sr={noise}&sig=AAAA&se=5");
            if let Ok(token) = SasToken::parse(&text) { let _ = token.resource(); }
        }
    }
}
