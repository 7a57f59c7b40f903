//! Direct methods with the SDKs that others wrote: services call a device through a cluster whose nodes die, that of
//! the device among them.

use serde_json::{Value, json};

use crate::clients::{SdkDevice, azure_field, device_connection, service_at};

const SERVICE: &str = "azure_service_method.py";

/// Has a service SDK call the device, for which it may wait for `connect_s` seconds; what came of it.
async fn call(service: &mut SdkDevice, payload: &Value, connect_s: u64) -> (String, Value) {
    let arguments = json!({
        "method_name": "echo",
        "payload": payload,
        "connect_timeout_in_seconds": connect_s,
        "response_timeout_in_seconds": 30,
    });
    service.say(&format!("call {arguments}")).await;
    service.hear_any().await
}

/// The same, which the device answers, and is asked for once.
async fn call_once(service: &mut SdkDevice, sdk: &mut SdkDevice, payload: Value) {
    let (said, value) = call(service, &payload, 60).await;
    assert_eq!(said, "answered", "{value}");
    assert_eq!(value, json!({"status": 200, "payload": {"echo": payload}}));
    assert_eq!(
        sdk.hear("called").await,
        json!({"name": "echo", "payload": payload})
    );
}

#[tokio::test]
async fn the_azure_sdks_call_a_device_while_nodes_die() {
    let Some((_turn, mut field)) = azure_field().await else {
        return;
    };
    let device = field.hub.create("sdk").await;
    field.hub.create("offline").await;
    let ready = field.cluster.ready().clone();
    let connection = device_connection(&device);
    let mut sdk = SdkDevice::start(
        "azure_method.py",
        &[connection.as_ref(), ready.ca_file.as_os_str()],
    );
    sdk.hear("listening").await;

    let mut service = service_at(&field, 0, SERVICE).await;
    service.say("walk").await;
    service.hear("walked").await;
    for (name, payload) in [
        ("echo", json!({"in": [1, 2.5, null]})),
        ("echo", json!("text")),
        ("echo", json!(7)),
        ("echo", json!("")),
        ("unknown", json!("")),
        ("silent", json!("")),
    ] {
        assert_eq!(
            sdk.hear("called").await,
            json!({"name": name, "payload": payload})
        );
    }

    // The device and a service stay with the first node; the second and the third are asked, and die in turn.
    for node in [1, 2] {
        field.kill(node).await;
        call_once(&mut service, &mut sdk, json!({"without": node})).await;
        field.restart(node).await;
        let mut other = service_at(&field, node, SERVICE).await;
        call_once(&mut other, &mut sdk, json!({"through": node})).await;
        other.end().await;
    }
    service.end().await;

    // The first node dies, and with it the connection of the device, which subscribes to nothing again.
    let mut other = service_at(&field, 1, SERVICE).await;
    call_once(&mut other, &mut sdk, json!("before")).await;
    field.kill(0).await;
    let (said, value) = call(&mut other, &json!("away"), 0).await;
    assert_eq!(said, "refused", "{value}");
    assert!(
        value == json!([404, "DeviceNotOnline"]) || value == json!([504, "GatewayTimeout"]),
        "{value}"
    );
    field.restart(0).await;
    call_once(&mut other, &mut sdk, json!("again")).await;
    sdk.end().await;
    let (said, value) = call(&mut other, &json!("gone"), 0).await;
    assert_eq!(
        (said.as_str(), value),
        ("refused", json!([404, "DeviceNotOnline"]))
    );
    other.end().await;
    field.stop().await;
}
