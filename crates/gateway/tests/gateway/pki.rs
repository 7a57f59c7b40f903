//! Certificate authorities of a test, and clients that show what they have signed.

use dunlin_gateway::client::Transport;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};

use crate::world::World;

/// An authority with its key, which may sign others.
pub(crate) type Issuer = CertifiedIssuer<'static, KeyPair>;
/// A chain of certificates and the key of its leaf, as PEM.
pub(crate) type Chain = (Vec<u8>, Vec<u8>);

/// The year of [`NOW_S`].
pub(crate) const THIS_YEAR: i32 = 2023;

/// What stands in a certificate that is in force in one year.
fn params(name: &str, is_ca: bool, year: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let begin = |year| rcgen::date_time_ymd(year, 1, 1);
    (params.not_before, params.not_after) = (begin(year), begin(year + 1));
    params
}

pub(crate) fn authority(name: &str, above: Option<&Issuer>) -> Issuer {
    authority_of_year(THIS_YEAR, name, above)
}

pub(crate) fn authority_of_year(year: i32, name: &str, above: Option<&Issuer>) -> Issuer {
    let (params, key) = (params(name, true, year), KeyPair::generate().unwrap());
    match above {
        None => CertifiedIssuer::self_signed(params, key).unwrap(),
        Some(above) => CertifiedIssuer::signed_by(params, key, above).unwrap(),
    }
}

/// A leaf's chain, as PEM, and its key.
pub(crate) fn leaf(name: &str, issuer: &Issuer, above: &[&Issuer]) -> Chain {
    leaf_of_year(THIS_YEAR, name, issuer, above)
}

pub(crate) fn leaf_of_year(year: i32, name: &str, issuer: &Issuer, above: &[&Issuer]) -> Chain {
    let key = KeyPair::generate().unwrap();
    let leaf = params(name, false, year).signed_by(&key, issuer).unwrap();
    let chain: String = above.iter().map(|above| above.pem()).collect();
    (
        (leaf.pem() + &chain).into_bytes(),
        key.serialize_pem().into_bytes(),
    )
}

pub(crate) fn showing(world: &World, certificate: &Chain) -> Transport {
    Transport::Tls {
        address: world.gateway.mqtts_addresses()[0].to_string(),
        server_name: "localhost".into(),
        config: world.showing(certificate),
    }
}
