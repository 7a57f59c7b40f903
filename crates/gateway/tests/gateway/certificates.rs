//! Chains of certificates at the hub's own door: which of them a device of the type `certificateAuthority` may show over
//! MQTT, and how the others are turned away. Thumbprints are looked at in `registry`, enrolments in `provisioning`.

use dunlin_gateway::auth::CHAIN_MAX;
use dunlin_gateway::client::{Client, ClientError, ConnectOptions};
use dunlin_gateway::mqtt::Version;
use dunlin_model::audit::AuditOutcome;
use dunlin_model::id::DeviceId;
use dunlin_model::telemetry::AuthMethod;
use serde_json::json;

use crate::pki::{Chain, Issuer, THIS_YEAR, authority, authority_of_year, leaf, leaf_of_year, showing};
use crate::world::{HOST, World, next, puback};

const BOTH: [Version; 2] = [Version::V3, Version::V5];

/// A hub that trusts an authority, with a device `robot` that shows certificates below one.
async fn world() -> (World, Issuer) {
    let world = World::new().await;
    let root = authority("root", None);
    world.cluster.trust("plant-root", &root.pem());
    let body = json!({"authentication": {"type": "certificateAuthority"}}).to_string();
    let made = world.http("PUT", "/devices/robot", &[], &body).await;
    assert_eq!(made.status, 200, "{}", made.body);
    (world, root)
}

fn options(world: &World, certificate: &Chain, version: Version) -> ConnectOptions {
    ConnectOptions {
        password: None,
        version,
        ..ConnectOptions::new(showing(world, certificate), HOST, "robot", String::new())
    }
}

async fn assert_let_in(world: &World, certificate: &Chain, version: Version) {
    let mut client = Client::connect(&options(world, certificate, version))
        .await
        .unwrap();
    let id = client
        .publish("devices/robot/messages/events/", b"x")
        .await
        .unwrap();
    assert_eq!(next(&mut client).await, puback(id));
    client.disconnect().await;
}

#[tokio::test]
async fn a_chain_below_an_authority_of_the_hub_opens_for_the_name_in_it_and_in_its_time() {
    let (world, root) = world().await;
    let middle = authority("middle", Some(&root));
    let stranger = authority("stranger", None);
    let (past, future) = (THIS_YEAR - 1, THIS_YEAR + 1);
    let over = authority_of_year(past, "over", Some(&root));
    let late = "the certificate is not in force";
    let foreign = "the certificate is not one of this device";
    let unknown = "the certificate comes from no authority of this hub";
    for (version, code) in BOTH.into_iter().zip([5, 0x87]) {
        assert_let_in(&world, &leaf("robot", &root, &[]), version).await;
        assert_let_in(&world, &leaf("robot", &middle, &[&middle]), version).await;
        for (certificate, why) in [
            (leaf_of_year(past, "robot", &root, &[]), late),
            (leaf_of_year(future, "robot", &root, &[]), late),
            (leaf("robot", &over, &[&over]), late),
            (leaf("robot-2", &root, &[]), foreign),
            (leaf("robot", &stranger, &[]), unknown),
            (leaf("robot", &stranger, &[&stranger]), unknown),
            // What is between it and the authority is not shown.
            (leaf("robot", &middle, &[]), unknown),
        ] {
            let options = options(&world, &certificate, version);
            assert_eq!(world.refusal(&options).await, code, "{why}");
            let record = world.audit.next("mqtt.connect").await;
            assert_eq!(record.who, "robot");
            assert_eq!(record.outcome, AuditOutcome::Refused(why.to_owned()));
        }
    }
    let events = world.cluster.records(&DeviceId::parse("robot").unwrap());
    assert_eq!(events.len(), 4);
    assert!(events.iter().all(|event| event.auth == AuthMethod::X509));
}

#[tokio::test]
async fn a_chain_has_so_many_certificates_and_a_longer_one_ends_the_handshake() {
    let (world, root) = world().await;
    // From the one below the root down to the one above the leaf.
    let mut between = vec![authority("middle-1", Some(&root))];
    while between.len() < CHAIN_MAX {
        let name = format!("middle-{}", between.len() + 1);
        let below = authority(&name, between.last());
        between.push(below);
    }
    // So many certificates, each of which is needed.
    let chain = |shown: usize| {
        let above: Vec<&Issuer> = between[..shown - 1].iter().rev().collect();
        leaf("robot", above[0], &above)
    };
    // So many, of which the first two are needed.
    let padded = |shown: usize| {
        let above: Vec<&Issuer> = between[..shown - 1].iter().collect();
        leaf("robot", above[0], &above)
    };
    for version in BOTH {
        for longest in [chain(CHAIN_MAX), padded(CHAIN_MAX)] {
            assert_let_in(&world, &longest, version).await;
        }
        for longer in [chain(CHAIN_MAX + 1), padded(CHAIN_MAX + 1)] {
            let refused = Client::connect(&options(&world, &longer, version)).await;
            // There is no CONNACK: nobody was asked for a name.
            let error = refused.err().expect("it is turned away");
            assert!(matches!(error, ClientError::Lost(_)), "{error}");
        }
    }
}
