//! Direct methods with the SDKs that others wrote: a service calls a device through a cluster whose nodes die.

use dunlin_tests::field::Field;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::clients::{SdkDevice, azure_field, must_succeed, python, script};

async fn call(field: &Field, body: Value) -> (StatusCode, Value) {
    let path = "/twins/sdk/methods";
    field.hub.call(Method::POST, path, Some(body)).await
}

#[tokio::test]
async fn the_azure_sdks_call_a_device_while_nodes_die() {
    let Some((_turn, mut field)) = azure_field().await else {
        return;
    };
    let device = field.hub.create("sdk").await;
    field.hub.create("offline").await;
    let ready = field.cluster.ready().clone();
    let connection = format!("HostName=localhost;DeviceId=sdk;SharedAccessKey={}", device.key);
    let mut sdk = SdkDevice::start(
        "azure_method.py",
        &[connection.as_ref(), ready.ca_file.as_os_str()],
    );
    sdk.hear("listening").await;

    let mut service = Command::new(python());
    service
        .arg(script("azure_service_method.py"))
        .arg(&ready.connection_string)
        .arg(&ready.ca_file)
        .arg("sdk");
    must_succeed(service).await;
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

    // The device stays with the first node throughout; the second and the third are asked, and die in turn.
    for node in [1, 2] {
        field.kill(node).await;
        let payload = json!({"node": node});
        let asked = json!({"methodName": "echo", "payload": payload, "connectTimeoutInSeconds": 30});
        let (status, answer) = call(&field, asked).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer, json!({"status": 200, "payload": {"echo": payload}}));
        assert_eq!(
            sdk.hear("called").await["payload"],
            payload,
            "each call comes once"
        );
        field.restart(node).await;
        let other = field.hub.through(field.cluster.node(node));
        let payload = json!({"through": node});
        let asked = json!({"methodName": "echo", "payload": payload, "connectTimeoutInSeconds": 30});
        let (status, answer) = other.call(Method::POST, "/twins/sdk/methods", Some(asked)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(sdk.hear("called").await["payload"], payload);
    }
    sdk.end().await;
    let (status, answer) = call(&field, json!({"methodName": "echo"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    field.stop().await;
}
