//! The registry with the SDKs that others wrote: what a service writes there opens and closes the door for modules and
//! for devices with certificates, while nodes die.

use dunlin_tests::field::Field;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use reqwest::{Method, StatusCode};
use ring::digest;
use serde_json::json;
use tempfile::TempDir;

use crate::clients::{SdkDevice, azure_field};

/// A certificate that its own key has signed, as files: its certificate, its key, and its thumbprint.
struct OwnCertificate {
    folder: TempDir,
    thumbprint: String,
}

impl OwnCertificate {
    fn make() -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::default()
            .self_signed(&key)
            .expect("a certificate");
        let folder = TempDir::new().expect("a folder for temporary files");
        for (name, text) in [("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())] {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate.der());
        let thumbprint = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { folder, thumbprint }
    }
}

fn named(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// An authority below which another one signs for `device`: the first one's certificate, and the files of the device.
fn signed_for(device: &str) -> (String, TempDir) {
    let key = || KeyPair::generate().expect("a key");
    let root = CertifiedIssuer::self_signed(named("plant", true), key()).expect("a root");
    let middle = CertifiedIssuer::signed_by(named("line", true), key(), &root).expect("an authority");
    let own = key();
    let leaf = named(device, false)
        .signed_by(&own, &middle)
        .expect("a certificate");
    let folder = TempDir::new().expect("a folder for temporary files");
    let chain = leaf.pem() + &middle.pem();
    for (name, text) in [("cert.pem", chain), ("key.pem", own.serialize_pem())] {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    (root.pem(), folder)
}

/// Has the service SDK go through the whole registry with devices of this name. `round` counts from 1.
async fn walk(service: &mut SdkDevice, name: &str, round: u64) {
    service.say(name).await;
    let left = json!({"devices": ["kept", "parent", "x509"], "room": round + 1});
    assert_eq!(service.hear("walked").await, left);
}

async fn call(field: &Field, path: &str, payload: u64) {
    let body = json!({"methodName": "echo", "payload": payload, "connectTimeoutInSeconds": 60});
    let (status, answer) = field.hub.call(Method::POST, path, Some(body)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["payload"], payload);
}

#[tokio::test]
async fn the_azure_sdks_share_a_registry_while_nodes_die() {
    let Some((_turn, mut field)) = azure_field().await else {
        return;
    };
    let ready = field.cluster.ready().clone();
    let own = OwnCertificate::make();
    let ca_file = ready.ca_file.as_os_str();
    let mut service = SdkDevice::start(
        "azure_service_registry.py",
        &[ready.connection_string.as_ref(), ca_file, own.thumbprint.as_ref()],
    );
    let made = service.hear("made").await;
    let key = made.as_str().expect("a key");
    walk(&mut service, "before", 1).await;

    let connection = format!("HostName=localhost;DeviceId=parent;ModuleId=cam;SharedAccessKey={key}");
    let mut module = SdkDevice::start(
        "azure_identity.py",
        &[ca_file, "module".as_ref(), connection.as_ref()],
    );
    let with_certificate = |device: &str, folder: &TempDir| {
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        SdkDevice::start(
            "azure_identity.py",
            &[
                ca_file,
                "x509".as_ref(),
                "localhost".as_ref(),
                device.as_ref(),
                certificate.as_os_str(),
                key.as_os_str(),
            ],
        )
    };
    let mut device = with_certificate("x509", &own.folder);
    assert_eq!(module.hear("twin").await["reported"]["kind"], "module");
    assert_eq!(device.hear("twin").await["reported"]["kind"], "x509");
    for node in [1, 2] {
        field.kill(node).await;
        walk(&mut service, &format!("without-{node}"), 2 * node as u64).await;
        for sdk in [&mut module, &mut device] {
            sdk.say(&format!("send {node}")).await;
            sdk.hear("sent").await;
        }
        call(&field, "/twins/parent/modules/cam/methods", node as u64).await;
        module.hear("called").await;
        call(&field, "/twins/x509/methods", node as u64).await;
        device.hear("called").await;
        field.restart(node).await;
        walk(&mut service, &format!("with-{node}"), 2 * node as u64 + 1).await;
    }
    service.end().await;
    assert_eq!(field.hub.read_device("x509").await, [b"1", b"2"]);
    let stored = field.hub.read_device("parent").await;
    assert_eq!(stored, [b"1", b"2"], "a module's messages are its device's");
    let (_, seen) = field
        .hub
        .call(Method::GET, "/twins/parent/modules/cam", None)
        .await;
    assert_eq!(
        (&seen["properties"]["reported"]["kind"], &seen["connectionState"]),
        (&json!("module"), &json!("Connected"))
    );
    device.end().await;
    module.end().await;

    // One that an authority has signed for.
    let (authority, files) = signed_for("by-ca");
    let body = json!({"authentication": {"type": "certificateAuthority"}});
    let (status, answer) = field.hub.call(Method::PUT, "/devices/by-ca", Some(body)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    field
        .must(json!({"op": "put-authority", "name": "plant", "certificate": authority}))
        .await;
    let mut device = with_certificate("by-ca", &files);
    assert_eq!(device.hear("twin").await["reported"]["kind"], "x509");
    device.say("send signed").await;
    device.hear("sent").await;
    assert_eq!(field.hub.read_device("by-ca").await, [b"signed"]);
    device.end().await;
    field.stop().await;
}
