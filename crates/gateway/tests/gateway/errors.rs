//! The list of errors: what `docs/errors.md` says is what the hub knows, and each of them can be met, in the form that
//! SDKs read.

use std::collections::BTreeMap;
use std::path::Path;

use dunlin_gateway::http::code::ErrorCode;
use dunlin_gateway::mqtt::Version;
use dunlin_model::configuration::CONFIGURATIONS_MAX;
use serde_json::json;

use crate::uploads::by_device;
use crate::world::{Answer, NOW_S, World, next};

/// Number and name of each row of the list.
fn documented() -> BTreeMap<u32, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let text = std::fs::read_to_string(path).unwrap();
    // The rest is provisioning's, which has its own form.
    let (text, _) = text.split_once("## Provisioning").unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
    });
    rows.collect()
}

#[test]
fn the_list_is_what_the_hub_knows() {
    let known: BTreeMap<u32, String> = ErrorCode::ALL
        .iter()
        .map(|(_, number, name)| (*number, (*name).to_owned()))
        .collect();
    assert_eq!(documented(), known);
}

#[tokio::test]
async fn each_error_is_met_in_the_form_that_sdks_read() {
    let world = World::new().await;
    let mut met: BTreeMap<String, u16> = BTreeMap::new();
    let mut meet = |answer: &Answer, expected: &str| {
        assert_eq!(answer.error_code(), expected, "{}", answer.body);
        let body = answer.json();
        let message = body["Message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("ErrorCode:{expected};")),
            "{message}"
        );
        assert!(
            body["ExceptionMessage"]
                .as_str()
                .unwrap()
                .starts_with("Tracking ID:")
        );
        met.insert(expected.to_owned(), answer.status);
        let retries = matches!(answer.status, 429 | 503 | 504);
        assert_eq!(answer.headers.contains_key("retry-after"), retries, "{expected}");
    };
    let any = &[("If-Match", "*")][..];
    let large =
        json!({"tags": {"a": "x".repeat(4000), "b": "x".repeat(4000), "c": "x".repeat(4000)}}).to_string();
    let list = |count: usize| {
        let entries: Vec<_> = (0..count).map(|n| json!({"id": format!("d{n}")})).collect();
        json!(entries).to_string()
    };
    let twice = json!([{"id": "a"}, {"id": "a"}]).to_string();
    let call = r#"{"methodName": "m"}"#;
    let job = |on: u32| {
        let twin = json!({"tags": {"on": on}});
        json!({"type": "scheduleUpdateTwin", "queryCondition": "*", "updateTwin": twin}).to_string()
    };
    let body = "x".repeat(300 * 1024);
    assert_eq!(
        world
            .http("PUT", "/devices/dev-1/modules/m", &[], "{}")
            .await
            .status,
        200
    );
    let made = world.http("PUT", "/configurations/c-0", &[], "{}").await;
    assert_eq!(made.status, 200, "{}", made.body);
    for (method, path, headers, body, expected) in [
        (
            "PATCH",
            "/twins/dev-1",
            &[][..],
            large.as_str(),
            "TwinPropertiesTooLarge",
        ),
        ("PUT", "/devices/new", &[], "[", "ArgumentInvalid"),
        ("POST", "/devices", &[], &twice, "DeviceDefinedMultipleTimes"),
        ("POST", "/devices", &[], &list(101), "TooManyDevices"),
        ("GET", "/events/99", &[], "", "NotFound"),
        ("GET", "/configurations/none", &[], "", "ConfigurationNotFound"),
        (
            "PUT",
            "/configurations/c-0",
            &[],
            "{}",
            "ConfigurationAlreadyExists",
        ),
        ("PATCH", "/devices/nobody", &[], "", "MethodNotAllowed"),
        ("GET", "/devices?top=x", &[], "", "ArgumentInvalid"),
        ("GET", "/devices/nobody", &[], "", "DeviceNotFound"),
        ("GET", "/devices/dev-1/modules/none", &[], "", "ModuleNotFound"),
        ("POST", "/twins/dev-1/methods", &[], call, "DeviceNotOnline"),
        ("PUT", "/devices/dev-1", &[], "{}", "DeviceAlreadyExists"),
        (
            "PUT",
            "/devices/dev-1/modules/m",
            &[],
            "{}",
            "ModuleAlreadyExistsOnDevice",
        ),
        (
            "DELETE",
            "/devices/dev-1",
            &[("If-Match", "\"x\"")],
            "",
            "PreconditionFailed",
        ),
        ("PUT", "/devices/dev-1", any, &body, "MessageTooLarge"),
    ] {
        meet(&world.http(method, path, headers, body).await, expected);
    }
    meet(&world.http("GET", "/jobs/v2/none", &[], "").await, "JobNotFound");
    assert_eq!(world.http("PUT", "/jobs/v2/j", &[], &job(1)).await.status, 200);
    let other = world.http("PUT", "/jobs/v2/j", &[], &job(2)).await;
    meet(&other, "JobAlreadyExists");
    world
        .cluster
        .until_job("j", |job| job.state.status.has_ended())
        .await;
    let over = world.http("POST", "/jobs/v2/j/cancel", &[], "").await;
    meet(&over, "InvalidOperation");
    let queue = "/devices/dev-1/messages/devicebound";
    let nobody = world.http_as("GET", "/devices", &[], b"").await;
    meet(&nobody, "IotHubUnauthorizedAccess");
    for _ in 0..50 {
        assert_eq!(world.http("POST", queue, &[], "x").await.status, 201);
    }
    meet(
        &world.http("POST", queue, &[], "x").await,
        "DeviceMaximumQueueDepthExceeded",
    );
    meet(
        &world
            .http("DELETE", "/messages/serviceBound/feedback/0-1", &[], "")
            .await,
        "DeviceMessageLockLost",
    );
    for number in 1..50 {
        let path = format!("/devices/dev-1/modules/m{number}");
        assert_eq!(world.http("PUT", &path, &[], "{}").await.status, 200);
    }
    let full = world.http("PUT", "/devices/dev-1/modules/more", &[], "{}").await;
    meet(&full, "TooManyModulesOnDevice");
    let place = [("Accept", "text/event-stream"), ("Last-Event-ID", "0@7")];
    let old = world.http("GET", "/events/0", &place, "").await;
    meet(&old, "Gone");

    // Uploads: one that nobody knows, one of which nothing came, one that is over, and one too many.
    world.cluster.pass_ms(NOW_S * 1000);
    let files = "/devices/dev-1/files";
    let begun = by_device(&world, files, r#"{"blobName": "x"}"#).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    let id = begun.json()["correlationId"].as_str().unwrap().to_owned();
    let ended = format!("{files}/notifications");
    let said = |id: &str, is_success: &str| format!(r#"{{"correlationId":"{id}","isSuccess":{is_success}}}"#);
    for (id, is_success, expected) in [
        ("none", "true", "InvalidFileUploadCorrelationId"),
        (id.as_str(), "\"yes\"", "InvalidFileUploadCompletionStatus"),
        (id.as_str(), "true", "InvalidStorageEndpointOrBlob"),
    ] {
        meet(&by_device(&world, &ended, &said(id, is_success)).await, expected);
    }
    for _ in 1..10 {
        assert_eq!(by_device(&world, files, r#"{"blobName": "x"}"#).await.status, 200);
    }
    meet(
        &by_device(&world, files, r#"{"blobName": "x"}"#).await,
        "DeviceMaximumActiveFileUploadLimitExceeded",
    );
    world.cluster.pass_ms(3_600_000);
    meet(
        &by_device(&world, &ended, &said(&id, "false")).await,
        "ExpiredFileUploadCorrelationId",
    );

    world.cluster.set_silent(true);
    meet(
        &world.http("PUT", "/devices/late", &[], "{}").await,
        "GatewayTimeout",
    );
    world.cluster.set_silent(false);
    world.cluster.set_cut_off(true);
    let token = world.service_token("service");
    let headers = [("Authorization", token.as_str())];
    meet(
        &world.http_as("GET", "/twins/dev-1", &headers, b"").await,
        "ServerBusy",
    );
    world.cluster.set_cut_off(false);
    world
        .cluster
        .fail_commands(dunlin_model::port::SubmitError::StorageFull);
    meet(
        &world.http("PUT", "/devices/more", &[], "{}").await,
        "StorageFull",
    );
    world
        .cluster
        .fail_commands(dunlin_model::port::SubmitError::Busy("a test"));
    meet(
        &world.http("PUT", "/devices/more", &[], "{}").await,
        "ThrottlingException",
    );
    world
        .cluster
        .fail_queries(dunlin_model::port::QueryError::Refused("a test".into()));
    meet(&world.http("GET", "/devices/dev-1", &[], "").await, "Refused");
    world
        .cluster
        .fail_queries(dunlin_model::port::QueryError::Store("a test".into()));
    meet(&world.http("GET", "/devices/dev-1", &[], "").await, "ServerError");
    // An order to the cluster that may have been carried out is not one that was not.
    world
        .cluster
        .fail_queries(dunlin_model::port::QueryError::Unknown);
    meet(
        &world.http("GET", "/devices/dev-1", &[], "").await,
        "GatewayTimeout",
    );

    // As many configurations as there may be.
    for number in 1..CONFIGURATIONS_MAX {
        let path = format!("/configurations/c-{number}");
        let made = world.http("PUT", &path, &[], "{}").await;
        assert_eq!(made.status, 200, "{}", made.body);
    }
    let again = world.http("PUT", "/configurations/more", &[], "{}").await;
    meet(&again, "IotHubQuotaExceeded");

    // A device that is asked too much, and one that goes away over it.
    let mut client = world.connect(Version::V3).await;
    client.subscribe("$iothub/methods/POST/#").await.unwrap();
    next(&mut client).await;
    world
        .cluster
        .fail_methods(dunlin_model::method::MethodError::TooMany("a test".into()));
    meet(
        &world.http("POST", "/twins/dev-1/methods", &[], call).await,
        "MethodCallsInFlightExceeded",
    );
    let asking = world.http("POST", "/twins/dev-1/methods", &[], call);
    let leaving = async {
        next(&mut client).await;
        drop(client);
    };
    meet(&tokio::join!(asking, leaving).0, "DeviceConnectionClosedRemotely");

    // One has a body of its own, which SDKs read where the header has its name.
    let list = json!([{"id": "dev-1", "importMode": "create"}, {"id": "dev-2", "importMode": "create"}]);
    let partly = world.http("POST", "/devices", &[], &list.to_string()).await;
    let name = "BulkRegistryOperationFailure";
    assert_eq!(partly.error_code(), name);
    let body = partly.json();
    assert_eq!(body["isSuccessful"], false);
    let errors = body["errors"].as_array().unwrap();
    assert_eq!(
        (errors.len(), &errors[0]["errorCode"]),
        (1, &json!("DeviceAlreadyExists"))
    );
    assert_eq!(world.http("GET", "/devices/dev-2", &[], "").await.status, 200);
    met.insert(name.to_owned(), partly.status);

    for (number, name) in documented() {
        let status = met.get(&name).unwrap_or_else(|| panic!("{name} was not met"));
        assert_eq!(u32::from(*status), number / 1000, "{name}");
    }
}
