//! Twins with the SDKs that others wrote: a device and a service at a cluster whose nodes die.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::clients::{SdkDevice, azure_field, must_succeed, python, script};

/// The device with its twin.
struct TwinDevice {
    sdk: SdkDevice,
    /// Version of what is desired that it heard of last.
    version: u64,
}

impl TwinDevice {
    async fn say(&mut self, line: &str) {
        self.sdk.say(line).await;
    }

    /// What it says next of this kind. News of what it has heard before are passed over: they may come twice.
    async fn hear(&mut self, kind: &str) -> Value {
        loop {
            let (said, value) = self.sdk.hear_any().await;
            if said == "desired" {
                let version = value["$version"].as_u64().expect("a version");
                if version <= self.version {
                    continue;
                }
                assert_eq!(version, self.version + 1, "a change was never told: {value}");
                self.version = version;
            }
            assert_eq!(said, kind, "{value}");
            return value;
        }
    }
}

#[tokio::test]
async fn the_azure_sdks_share_a_twin_while_nodes_die() {
    let Some((_turn, mut field)) = azure_field().await else {
        return;
    };
    let device = field.hub.create("sdk").await;
    let ready = field.cluster.ready().clone();
    let connection = format!("HostName=localhost;DeviceId=sdk;SharedAccessKey={}", device.key);
    let arguments = [connection.as_ref(), ready.ca_file.as_os_str()];
    let mut sdk = TwinDevice {
        sdk: SdkDevice::start("azure_twin.py", &arguments),
        version: 1,
    };
    let twin = sdk.hear("twin").await;
    assert_eq!(
        twin,
        json!({"desired": {"$version": 1}, "reported": {"$version": 1}})
    );
    sdk.say(r#"report {"firmware": "1.0", "parts": {"a": 1, "b": 2}}"#)
        .await;
    sdk.hear("reported").await;

    let mut service = Command::new(python());
    service
        .arg(script("azure_service_twin.py"))
        .arg(&ready.connection_string)
        .arg(&ready.ca_file)
        .arg("sdk");
    must_succeed(service).await;
    let note = sdk.hear("desired").await;
    assert_eq!(
        note,
        json!({"interval": 5, "mode": {"night": true}, "$version": 2})
    );
    let note = sdk.hear("desired").await;
    assert_eq!(note, json!({"interval": 9, "mode": null, "$version": 3}));

    for node in [1, 2] {
        field.kill(node).await;
        let wanted = json!({"properties": {"desired": {"node": node, "interval": null}}});
        let (status, answer) = field.hub.call(Method::PATCH, "/twins/sdk", Some(wanted)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let note = sdk.hear("desired").await;
        assert_eq!((&note["node"], &note["interval"]), (&json!(node), &Value::Null));
        sdk.say(&format!(r#"report {{"parts": {{"a": null, "n": {node}}}}}"#))
            .await;
        sdk.hear("reported").await;
        field.restart(node).await;
    }
    sdk.say(r#"report {"a.b": 1}"#).await;
    sdk.hear("refused").await;
    sdk.say("twin").await;
    let twin = sdk.hear("twin").await;
    assert_eq!(twin["desired"], json!({"node": 2, "$version": 5}));
    assert_eq!(
        twin["reported"],
        json!({"firmware": "1.0", "parts": {"b": 2, "n": 2}, "$version": 4})
    );
    let (_, seen) = field.hub.call(Method::GET, "/twins/sdk", None).await;
    assert_eq!(seen["properties"]["reported"]["parts"]["n"], 2);
    assert_eq!(seen["connectionState"], "Connected");
    sdk.sdk.end().await;
    field.stop().await;
}
