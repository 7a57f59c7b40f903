//! Configurations with the service SDK, at a cluster whose nodes die while twins follow.

use crate::clients::{SdkDevice, azure_field};

/// Devices `c-N`, half of them on each floor.
const DEVICES: usize = 40;

#[tokio::test]
async fn twins_follow_the_azure_sdks_configurations_while_nodes_die() {
    let Some((_turn, mut field)) = azure_field().await else {
        return;
    };
    let ready = field.cluster.ready().clone();
    for number in 0..DEVICES {
        field.hub.create(&format!("c-{number}")).await;
    }
    let count = DEVICES.to_string();
    let arguments = [
        ready.connection_string.as_ref(),
        ready.ca_file.as_os_str(),
        count.as_ref(),
    ];
    let mut service = SdkDevice::start("azure_configurations.py", &arguments);
    service.hear("ready").await;
    // Whichever gateway looks over the fleet, it is killed in one of these.
    for (node, word) in [(1, "high"), (2, "all")] {
        field.kill(node).await;
        service.say(word).await;
        service.hear("done").await;
        field.restart(node).await;
    }
    service.end().await;
    field.stop().await;
}
