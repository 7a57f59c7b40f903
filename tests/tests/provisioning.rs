//! Devices that nobody knows, with the provisioning SDK that others wrote: enrolled by the command line, registered over
//! every door that the SDK has, while nodes die.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dunlin_tests::field::Field;
use dunlin_tests::program::{dunlin, run};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::clients::{SdkDevice, azure_field_with_https};

/// What a command of ours says about this cluster, as its operator.
async fn ask(field: &Field, line: &[&str]) -> Value {
    let mut command = Command::new(dunlin());
    command
        .args(line)
        .args(["-o", "json", "--data"])
        .arg(field.data(0));
    let (status, text) = run(command).await;
    assert!(status.success(), "{line:?}: {text}");
    serde_json::from_str(text.trim()).unwrap_or(Value::String(text))
}

async fn words(field: &Field, line: &str) -> Value {
    ask(field, &line.split(' ').collect::<Vec<_>>()).await
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

/// Certificates in files: an authority, and those of a device below one that it has signed.
struct Files {
    folder: TempDir,
}

impl Files {
    fn make(device: &str) -> Self {
        let key = || KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(named("plant", true), key()).expect("a root");
        let middle = CertifiedIssuer::signed_by(named("line", true), key(), &root).expect("an authority");
        let own = key();
        let leaf = named(device, false)
            .signed_by(&own, &middle)
            .expect("a certificate");
        let files = Self {
            folder: TempDir::new().expect("a folder for temporary files"),
        };
        for (name, text) in [
            ("root.pem", root.pem()),
            ("chain.pem", leaf.pem() + &middle.pem()),
            ("leaf.pem", leaf.pem()),
            ("key.pem", own.serialize_pem()),
        ] {
            std::fs::write(files.path(name), text).expect("a file");
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("it is text").to_owned()
    }
}

async fn registers(sdk: &mut SdkDevice, wanted: &Value, device: &str) -> Value {
    sdk.say(&wanted.to_string()).await;
    let told = sdk.hear("registered").await;
    assert_eq!(
        (&told["status"], &told["device"]),
        (&json!("assigned"), &json!(device))
    );
    assert_eq!(told["hub"], "localhost");
    let sent = sdk.hear("sent").await;
    json!({ "substatus": told["substatus"], "desired": sent["desired"] })
}

#[tokio::test]
async fn the_azure_provisioning_sdk_registers_devices_while_nodes_die() {
    let Some((_turns, has_443, mut field)) = azure_field_with_https().await else {
        return;
    };
    let ready = field.cluster.ready().clone();
    let scope = words(&field, "dps show").await["idScope"]
        .as_str()
        .expect("a scope")
        .to_owned();
    let files = Files::make("by-group");
    let own = Files::make("by-own");
    ask(
        &field,
        &["cert", "authority", "add", "plant-ca", &files.text("root.pem")],
    )
    .await;
    words(
        &field,
        "enrollment-group create keyed --initial-twin-properties {\"fps\":5}",
    )
    .await;
    words(&field, "enrollment-group create signed --ca-name plant-ca").await;
    words(&field, "enrollment create single --device-id pump").await;
    ask(
        &field,
        &[
            "enrollment",
            "create",
            "by-own",
            "--certificate",
            &own.text("leaf.pem"),
        ],
    )
    .await;
    let key = async |name: &str| {
        let line = format!("enrollment-group compute-device-key keyed --registration-id {name}");
        let printed = words(&field, &line).await;
        printed.as_str().expect("a key").trim().to_owned()
    };
    let (first, second, third) = (key("robot-1").await, key("robot-2").await, key("robot-3").await);
    let keys = words(&field, "enrollment show single --keys").await;
    let single = keys["symmetricKey"]["secondaryKey"]
        .as_str()
        .expect("a key")
        .to_owned();

    let mut sdk = SdkDevice::start(
        "azure_provision.py",
        &["localhost".as_ref(), scope.as_ref(), ready.ca_file.as_os_str()],
    );
    let made = registers(
        &mut sdk,
        &json!({"id": "robot-1", "key": first, "payload": {"a": 1}}),
        "robot-1",
    )
    .await;
    assert_eq!(
        (&made["substatus"], &made["desired"]["fps"]),
        (&json!("initialAssignment"), &json!(5))
    );
    registers(&mut sdk, &json!({"id": "single", "key": single}), "pump").await;

    // The devices stay with the first node; the others die in turn.
    field.kill(1).await;
    let signed =
        json!({"id": "by-group", "cert": files.text("chain.pem"), "cert_key": files.text("key.pem")});
    registers(&mut sdk, &signed, "by-group").await;
    let again = registers(&mut sdk, &json!({"id": "robot-1", "key": first}), "robot-1").await;
    assert_eq!(again["substatus"], "reprovisionedToInitialAssignment");
    field.restart(1).await;
    field.kill(2).await;
    let pinned = json!({"id": "by-own", "cert": own.text("leaf.pem"), "cert_key": own.text("key.pem")});
    registers(&mut sdk, &pinned, "by-own").await;
    registers(&mut sdk, &json!({"id": "robot-2", "key": second}), "robot-2").await;
    if has_443 {
        registers(
            &mut sdk,
            &json!({"id": "robot-3", "key": third, "websockets": true}),
            "robot-3",
        )
        .await;
    }

    // Nobody, nobody yet, and nobody any more.
    let stranger = json!({"id": "robot-4", "key": BASE64.encode([7; 32])});
    sdk.say(&stranger.to_string()).await;
    assert_eq!(sdk.hear("refused").await["error"], "CredentialError");
    words(&field, "enrollment update single --provisioning-status disabled").await;
    sdk.say(&json!({"id": "single", "key": single}).to_string()).await;
    let (word, said) = sdk.hear_any().await;
    assert!(word == "refused" || said["status"] == "disabled", "{word} {said}");
    words(&field, "enrollment delete single --yes").await;
    sdk.say(&json!({"id": "single", "key": single}).to_string()).await;
    assert_eq!(sdk.hear("refused").await["error"], "CredentialError");
    sdk.end().await;

    let rows = words(&field, "dps registration list --group keyed").await;
    let mut names: Vec<&str> = rows
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|row| row["registrationId"].as_str())
        .collect();
    names.sort_unstable();
    let expected = ["robot-1", "robot-2", "robot-3"];
    assert_eq!(names, expected[..if has_443 { 3 } else { 2 }]);
    for device in ["robot-1", "pump", "by-group", "by-own"] {
        assert!(!field.hub.read_device(device).await.is_empty(), "{device}");
    }
    let (_, pump) = field.hub.call(Method::GET, "/devices/pump", None).await;
    assert_eq!(pump["status"], "enabled", "it stays at its hub");
    field.stop().await;
}
