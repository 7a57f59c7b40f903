//! A TPM that others wrote judges the challenges: it opens those that are for it, signs with the key they brought, and
//! opens no others.
//!
//! Needs `swtpm` and `tpm2-tools`. Without swtpm nothing is tested, which is said aloud; where `CI` is set that is a
//! failure.

mod machine;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dunlin_gateway::provisioning::tpm::{EndorsementKey, HmacKey, StorageKey, challenge};
use serde_json::{Value, json};

use crate::world::{HOST, NOW_S, World};
use rand::Rng as _;
use ring::hmac;

use machine::{Challenge, Machine, STORAGE};

/// What a device signs: the resource of its token, and when that ends.
const TOKEN: &[u8] = b"0ne00000001%2Fregistrations%2Fpump-7\n1893456000";

fn made(endorsement: &[u8], storage: &[u8], key: &[u8], data: &[u8]) -> Vec<u8> {
    // As they come over the wire.
    let endorsement = EndorsementKey::from_base64(&BASE64.encode(endorsement)).expect("an endorsement key");
    let storage = StorageKey::from_base64(&BASE64.encode(storage)).expect("a storage key");
    let key = HmacKey::new(key).expect("a key");
    let mut random = |bytes: &mut [u8]| rand::rng().fill_bytes(bytes);
    challenge(&endorsement, &storage, &key, data, &mut random).expect("a challenge")
}

fn signed(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text).as_ref().to_vec()
}

fn drawn<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

#[test]
fn a_tpm_takes_in_the_key_and_signs_with_it() {
    if !machine::is_there() {
        return;
    }
    let machine = Machine::start();
    let (endorsement, storage) = (machine.endorsement(), machine.storage());
    let long = b"0123456789abcdef".repeat(200); // more than a TPM hashes at once
    // The key to register with, the hub's after it, and the bounds.
    for key in [&drawn::<32>()[..], &drawn::<32>(), &drawn::<16>(), &drawn::<64>()] {
        let blob = made(&endorsement, &storage, key, b"");
        let challenge = Challenge::take_apart(&blob);
        let inner = machine
            .activate(STORAGE, &challenge)
            .expect("the TPM opens what is for it");
        assert_eq!(inner.len(), 16);
        assert!(machine.import(&challenge, &inner));
        assert_eq!(machine.sign(TOKEN), signed(key, TOKEN));
        assert_eq!(machine.sign(&long), signed(key, &long));
    }
    assert!(!machine.gives_away(), "the key stays in the TPM");
}

#[test]
fn the_data_is_for_the_tpm_too() {
    if !machine::is_there() {
        return;
    }
    let machine = Machine::start();
    for data in [&b"hub.example.com"[..], &drawn::<154>(), &drawn::<1024>()] {
        let blob = made(&machine.endorsement(), &machine.storage(), &[7; 32], data);
        let challenge = Challenge::take_apart(&blob);
        let inner = machine
            .activate(STORAGE, &challenge)
            .expect("the TPM opens what is for it");
        assert_ne!(challenge.data, data);
        assert_eq!(machine.decrypt(&inner, challenge.data), data);
    }
}

#[test]
fn no_other_key_and_no_other_tpm_opens_it() {
    if !machine::is_there() {
        return;
    }
    let machine = Machine::start();
    let (other_handle, other_storage) = machine.another_storage();
    let for_other_key = made(&machine.endorsement(), &other_storage, &[7; 32], b"");
    let challenge = Challenge::take_apart(&for_other_key);
    assert_eq!(machine.activate(STORAGE, &challenge), None);
    let inner = machine
        .activate(other_handle, &challenge)
        .expect("the key that it is for");
    assert!(!machine.import(&challenge, &inner), "nor is the inner key enough");

    let other_machine = Machine::start();
    let for_other_machine = made(&other_machine.endorsement(), &machine.storage(), &[7; 32], b"");
    assert_eq!(
        machine.activate(STORAGE, &Challenge::take_apart(&for_other_machine)),
        None
    );

    // A secret for another RSA key makes libtpms answer as if it had failed (0x101). It has not.
    let its_own = made(&machine.endorsement(), &machine.storage(), &[7; 32], b"");
    let challenge = Challenge::take_apart(&its_own);
    let inner = machine
        .activate(STORAGE, &challenge)
        .expect("the TPM opens what is for it");
    assert!(machine.import(&challenge, &inner));
}

#[test]
fn a_damaged_challenge_is_not_taken() {
    if !machine::is_there() {
        return;
    }
    let machine = Machine::start();
    let blob = made(&machine.endorsement(), &machine.storage(), &[7; 32], b"");
    let whole = Challenge::take_apart(&blob);
    let inner = machine
        .activate(STORAGE, &whole)
        .expect("the TPM opens what is for it");
    // One byte in the credential, the duplicate's HMAC, the duplicate, the key's attributes, its digest.
    for at in [40, 320, 400, 721, 750] {
        let mut damaged = blob.clone();
        damaged[at] ^= 1;
        let challenge = Challenge::take_apart(&damaged);
        let opened = machine.activate(STORAGE, &challenge).is_some();
        assert_eq!(opened, at != 40, "byte {at}");
        assert!(at == 40 || !machine.import(&challenge, &inner), "byte {at}");
    }
    assert!(!machine.import(&whole, &[0; 16]), "another inner key");
    assert!(machine.import(&whole, &inner));
}

/// A token that the TPM has signed, as clients write it.
fn token(machine: &Machine, resource: &str, policy: &str) -> String {
    let expiry = NOW_S + 30;
    let resource = resource.replace('/', "%2F");
    let signature = BASE64.encode(machine.sign(format!("{resource}\n{expiry}").as_bytes()));
    let signature = signature
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}{policy}")
}

/// Has the TPM take in the key of a blob, as clients do.
fn take_in(machine: &Machine, blob: &Value) {
    let blob = BASE64.decode(blob.as_str().expect("a blob")).expect("Base64");
    let challenge = Challenge::take_apart(&blob);
    let inner = machine.activate(STORAGE, &challenge).expect("the TPM opens it");
    assert!(machine.import(&challenge, &inner));
}

#[tokio::test]
async fn a_device_registers_with_its_tpm_and_speaks_to_its_hub() {
    if !machine::is_there() {
        return;
    }
    let world = World::new().await;
    let machine = Machine::start();
    let [endorsement, storage] = [machine.endorsement(), machine.storage()].map(|key| BASE64.encode(key));
    let attestation = json!({"type": "tpm", "tpm": {"endorsementKey": endorsement}});
    let enrollment = json!({"registrationId": "pump-7", "attestation": attestation, "deviceId": "pump"});
    let made = world
        .provisioning("PUT", "/enrollments/pump-7", &[], enrollment)
        .await;
    assert_eq!(made.status, 200, "{}", made.body);
    let path = "/0neFAKE/registrations/pump-7";
    let register = format!("{path}/register");
    let keys = json!({"endorsementKey": endorsement, "storageRootKey": storage});
    let shown = json!({"registrationId": "pump-7", "tpm": keys}).to_string();

    // Somebody who has no such TPM is no worse off than with a wrong signature.
    let other = Machine::start();
    let foreign = json!({"endorsementKey": BASE64.encode(other.endorsement()), "storageRootKey": storage});
    let foreign = json!({"registrationId": "pump-7", "tpm": foreign}).to_string();
    let refused = world.http_as("PUT", &register, &[], foreign.as_bytes()).await;
    assert_eq!(
        (refused.status, &refused.json()["errorCode"]),
        (401, &json!(401_002))
    );
    assert_eq!(refused.json().get("authenticationKey"), None);

    let challenged = world.http_as("PUT", &register, &[], shown.as_bytes()).await;
    let body = challenged.json();
    assert_eq!(
        (challenged.status, &body["keyName"]),
        (401, &json!("registration"))
    );
    take_in(&machine, &body["authenticationKey"]);
    let wrong = token(&machine, "0neFAKE/registrations/pump-8", "&skn=registration");
    let refused = world
        .http_as("PUT", &register, &[("Authorization", &wrong)], shown.as_bytes())
        .await;
    assert_eq!(
        (refused.status, refused.json().get("authenticationKey")),
        (401, None)
    );

    // One client lowers the resource and does not show its keys again; another leaves the policy empty.
    let bare = json!({"registrationId": "pump-7"}).to_string();
    for (resource, policy, body) in [
        ("0nefake/registrations/pump-7", "&skn=registration", &bare),
        ("0neFAKE/registrations/pump-7", "&skn=", &shown),
    ] {
        let token = token(&machine, resource, policy);
        let headers = [("Authorization", token.as_str())];
        let asked = world.http_as("PUT", &register, &headers, body.as_bytes()).await;
        assert_eq!(asked.status, 202, "{}", asked.body);
        let operation = asked.json()["operationId"].as_str().expect("an id").to_owned();
        let told = world
            .http_as("GET", &format!("{path}/operations/{operation}"), &headers, b"")
            .await;
        let state = told.json()["registrationState"].clone();
        assert_eq!(
            (&state["status"], &state["deviceId"]),
            (&json!("assigned"), &json!("pump"))
        );
        if policy.ends_with('=') {
            take_in(&machine, &state["tpm"]["authenticationKey"]);
        }
    }
    let seen = world
        .provisioning("GET", "/registrations/pump-7", &[], Value::Null)
        .await;
    assert!(!seen.body.contains("authenticationKey"), "{}", seen.body);

    // The key that it has now is the one that the hub knows, and opens provisioning no more.
    let own = token(&machine, &format!("{HOST}/devices/pump"), "");
    let sent = world
        .http_as(
            "POST",
            "/devices/pump/messages/events",
            &[("Authorization", &own)],
            b"1",
        )
        .await;
    assert_eq!(sent.status, 204, "{}", sent.body);
    let stale = token(&machine, "0neFAKE/registrations/pump-7", "&skn=registration");
    let refused = world
        .http_as("PUT", &register, &[("Authorization", &stale)], shown.as_bytes())
        .await;
    assert_eq!(refused.status, 401);
}
