//! Queries over the fleet with the service SDK, and from the command line, at a cluster whose nodes die.

use dunlin_tests::program::dunlin;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::clients::{SdkDevice, azure_field};

/// Devices `q-N`.
const DEVICES: usize = 30;

#[tokio::test]
async fn the_azure_sdk_finds_every_twin_while_nodes_die() {
    let Some((_turn, mut field)) = azure_field().await else {
        return;
    };
    let ready = field.cluster.ready().clone();
    for number in 0..DEVICES {
        field.hub.create(&format!("q-{number}")).await;
    }
    field.hub.create("another").await;
    let count = DEVICES.to_string();
    let arguments = [
        ready.connection_string.as_ref(),
        ready.ca_file.as_os_str(),
        count.as_ref(),
    ];
    let mut service = SdkDevice::start("azure_service_query.py", &arguments);
    service.hear("ready").await;
    for node in [1, 2] {
        field.kill(node).await;
        service.say("find").await;
        service.hear("found").await;
        field.restart(node).await;
    }
    service.end().await;
    let asked = "SELECT tags.floor AS floor, COUNT() AS n FROM devices WHERE IS_DEFINED(tags.floor) GROUP BY tags.floor";
    let mut command = Command::new(dunlin());
    command
        .args(["query", asked, "-o", "json", "--connection-string"])
        .arg(&ready.connection_string)
        .arg("--ca")
        .arg(&ready.ca_file);
    let output = command.output().await.expect("the program runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        rows,
        json!([{"floor": 0, "n": 10}, {"floor": 1, "n": 10}, {"floor": 2, "n": 10}])
    );
    field.stop().await;
}
