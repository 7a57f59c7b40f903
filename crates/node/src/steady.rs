//! Identities of nodes that are the same bytes in every process, for simulations.
//!
//! Keys follow from numbers that everybody can read here, so they prove nothing to anybody and never open a
//! door of a hub that serves: `serve` has no way to them. With Ed25519 every signature has one length, and
//! the packets of a handshake leave at the same moments in every run; those of the usual keys vary by a byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_cluster::config::NodeIdentity;
use dunlin_model::id::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};

use crate::pki::{PkiError, named, set_validity};

/// What stands before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// Years that the certificates are valid.
const YEARS: i32 = 10;

/// An identity for each of `nodes`, from one authority.
pub fn identities(nodes: &[NodeId]) -> Result<Vec<NodeIdentity>, PkiError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name = named("Dunlin simulation CA");
    params.serial_number = Some(SerialNumber::from(1u64));
    set_validity(&mut params, YEARS);
    let key = key(0)?;
    let ca_pem = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    nodes
        .iter()
        .map(|node| identity(*node, &ca_pem, &issuer))
        .collect()
}

fn identity(node: NodeId, ca_pem: &str, issuer: &Issuer<'_, KeyPair>) -> Result<NodeIdentity, PkiError> {
    let mut params = CertificateParams::new(vec!["dunlin-node".to_owned()])?;
    params
        .subject_alt_names
        .push(SanType::URI(format!("dunlin://node/{node}").try_into()?));
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.distinguished_name = named("node");
    params.serial_number = Some(SerialNumber::from(node.0));
    set_validity(&mut params, YEARS);
    let key = key(node.0)?;
    Ok(NodeIdentity {
        ca_pem: ca_pem.to_owned(),
        cert_pem: params.signed_by(&key, issuer)?.pem(),
        key_pem: key.serialize_pem(),
        cluster_secret: b"simulation".to_vec(),
    })
}

/// The key that goes by `number`.
fn key(number: u64) -> Result<KeyPair, PkiError> {
    let mut der = PKCS8_PREFIX.to_vec();
    der.extend([number.wrapping_add(1); 4].map(u64::to_le_bytes).as_flattened());
    let text = STANDARD.encode(der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    Ok(KeyPair::from_pem(&pem)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_the_same_bytes_every_time_and_one_per_node() {
        let nodes = [NodeId(1), NodeId(2)];
        let (one, other) = (identities(&nodes).unwrap(), identities(&nodes).unwrap());
        for (one, other) in one.iter().zip(&other) {
            assert_eq!((&one.cert_pem, &one.key_pem), (&other.cert_pem, &other.key_pem));
        }
        assert_ne!(one[0].cert_pem, one[1].cert_pem);
        assert_eq!(one[0].cert_pem.len(), one[1].cert_pem.len());
    }
}
