//! Twins with the SDKs that others wrote: a device and services at a cluster whose nodes die, that of the device among
//! them.

use serde_json::{Value, json};

use crate::clients::{SdkDevice, azure_field, device_connection, service_at};

const SERVICE: &str = "azure_service_twin.py";

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

/// Has a service SDK merge into what is desired, if the twin is as it saw it last.
async fn patch(service: &mut SdkDevice, wanted: Value) -> Value {
    service.say(&format!("patch {wanted}")).await;
    service.hear("patched").await
}

/// The twin as a service SDK sees it.
async fn look(service: &mut SdkDevice) -> Value {
    service.say("look").await;
    service.hear("looked").await
}

#[tokio::test]
async fn the_azure_sdks_share_a_twin_while_nodes_die() {
    let Some((_turn, mut field)) = azure_field().await else {
        return;
    };
    let device = field.hub.create("sdk").await;
    let ready = field.cluster.ready().clone();
    let connection = device_connection(&device);
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

    let mut service = service_at(&field, 0, SERVICE).await;
    service.say("walk").await;
    let walked = service.hear("walked").await;
    assert_eq!(walked["reported"]["firmware"], "1.0");
    let note = sdk.hear("desired").await;
    assert_eq!(
        note,
        json!({"interval": 5, "mode": {"night": true}, "$version": 2})
    );
    let note = sdk.hear("desired").await;
    assert_eq!(note, json!({"interval": 9, "mode": null, "$version": 3}));

    // The device and a service stay with the first node; the others die in turn.
    for node in [1, 2] {
        assert_eq!(look(&mut service).await["connected"], true);
        field.kill(node).await;
        let patched = patch(&mut service, json!({"node": node, "interval": null})).await;
        let note = sdk.hear("desired").await;
        assert_eq!((&note["node"], &note["interval"]), (&json!(node), &Value::Null));
        assert_eq!(note["$version"], patched["desired"]["$version"]);
        sdk.say(&format!(r#"report {{"parts": {{"a": null, "n": {node}}}}}"#))
            .await;
        sdk.hear("reported").await;
        assert_eq!(look(&mut service).await["reported"]["parts"]["n"], node);
        field.restart(node).await;
        let mut other = service_at(&field, node, SERVICE).await;
        assert_eq!(look(&mut other).await["desired"]["node"], node);
        patch(&mut other, json!({"through": node})).await;
        assert_eq!(sdk.hear("desired").await["through"], node);
        other.end().await;
    }
    service.end().await;

    // The first node dies, and with it the connection of the device, which subscribes to nothing again.
    let mut other = service_at(&field, 1, SERVICE).await;
    look(&mut other).await;
    field.kill(0).await;
    patch(&mut other, json!({"node": 0})).await;
    field.restart(0).await;
    assert_eq!(
        sdk.hear("desired").await["node"],
        0,
        "the SDK asks when it is back"
    );
    patch(&mut other, json!({"last": true})).await;
    assert_eq!(sdk.hear("desired").await["last"], true);
    sdk.say(r#"report {"parts": {"b": 3}}"#).await;
    sdk.hear("reported").await;
    sdk.say(r#"report {"a.b": 1}"#).await;
    sdk.hear("refused").await;
    sdk.say("twin").await;
    let twin = sdk.hear("twin").await;
    assert_eq!(
        twin["desired"],
        json!({"node": 0, "through": 2, "last": true, "$version": 9})
    );
    assert_eq!(
        twin["reported"],
        json!({"firmware": "1.0", "parts": {"b": 3, "n": 2}, "$version": 5})
    );
    let seen = look(&mut other).await;
    assert_eq!(seen["reported"]["parts"], json!({"b": 3, "n": 2}));
    assert_eq!(seen["connected"], true);
    assert_eq!(seen["tags"], json!({"floor": 1}));
    other.end().await;
    sdk.sdk.end().await;
    field.stop().await;
}
