//! Operations that are really carried out, with what the document has for examples, and answers that are held against it.

use std::collections::BTreeSet;

use dunlin_gateway::client::device_token;
use serde_json::Value;

use super::schema::{follow, problems};
use super::{document, filled, operations};
use crate::fake::KEY;
use crate::world::{Answer, HOST, NOW_S, World};

/// A hub, its document, and what was asked of the hub so far.
struct Trial {
    world: World,
    document: Value,
    asked: BTreeSet<String>,
}

impl Trial {
    /// Asks with what the document has for an example, and holds the answer against it.
    async fn ask(
        &mut self,
        id: &str,
        ids: &[(&str, &str)],
        headers: &[(&str, &str)],
        expected: u16,
    ) -> Answer {
        let all = operations(&self.document);
        let found = all
            .into_iter()
            .find(|(_, operation)| operation["operationId"] == id);
        let ((method, path), operation) = found.unwrap_or_else(|| panic!("{id} is not in the document"));
        let path = filled(&self.document, &path, operation, ids);
        let content = operation["requestBody"]["content"].as_object();
        let example = content
            .and_then(|content| content.values().next())
            .map(|media| &media["example"]);
        let body = match example {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(example) => example.to_string(),
        };
        let policy = match operation["tags"][0].as_str().unwrap() {
            "Provisioning" => "provisioningserviceowner",
            _ => "iothubowner",
        };
        let token = self.world.service_token(policy);
        let mut all = vec![("Authorization", token.as_str())];
        if headers.iter().any(|(name, _)| *name == "Authorization") {
            all.clear();
        }
        all.extend_from_slice(headers);
        let answer = self
            .world
            .http_as(&method.to_uppercase(), &path, &all, body.as_bytes())
            .await;
        let at = format!("{method} {path}: {} {}", answer.status, answer.body);
        assert_eq!(answer.status, expected, "{at}");
        let reply = follow(&self.document, &operation["responses"][expected.to_string()]);
        assert!(reply.is_object(), "{at} is not in the document");
        match reply["content"].as_object() {
            None => assert_eq!(answer.body, "", "{at}"),
            Some(content) => {
                let kind = answer.headers["content-type"].split(';').next().unwrap();
                if let Some(media) = content.get(kind).filter(|_| kind.ends_with("json")) {
                    let found = problems(&self.document, &media["schema"], &answer.json(), id);
                    assert!(found.is_empty(), "{at}: {found:?}");
                } else {
                    assert!(
                        content.contains_key(kind) || content.contains_key("application/octet-stream"),
                        "{at}"
                    );
                }
            }
        }
        for name in reply["headers"]
            .as_object()
            .into_iter()
            .flat_map(|headers| headers.keys())
        {
            let is_sometimes = name.starts_with("x-ms-continuation");
            assert!(
                is_sometimes || answer.headers.contains_key(&name.to_lowercase()),
                "{at}: {name}"
            );
        }
        self.asked.insert(id.to_owned());
        answer
    }

    /// One after the other, each with this status.
    async fn all(&mut self, expected: u16, ids: &[&str]) {
        for id in ids {
            self.ask(id, &[], &[], expected).await;
        }
    }
}

#[tokio::test]
async fn answers_are_what_the_document_says() {
    let world = World::new().await;
    let document = document(&world).await;
    let mut trial = Trial {
        world,
        document,
        asked: BTreeSet::new(),
    };
    let nobody = [("id", "nobody")];
    trial
        .all(
            200,
            &[
                "putDevice",
                "getDevice",
                "listDevices",
                "changeDevices",
                "putModule",
                "getModule",
                "listModules",
                "countDevices",
                "countConnected",
                "updateTwin",
                "replaceTwin",
                "getTwin",
                "updateModuleTwin",
                "replaceModuleTwin",
                "getModuleTwin",
                "query",
            ],
        )
        .await;
    trial.ask("changeDevices", &[], &[], 200).await;
    trial.ask("putDevice", &[], &[], 409).await;
    trial.ask("putDevice", &[], &[("If-Match", "\"x\"")], 412).await;
    trial.ask("getDevice", &nobody, &[], 404).await;
    trial.ask("getTwin", &nobody, &[], 404).await;
    trial.all(404, &["invokeMethod", "invokeModuleMethod"]).await;

    trial
        .all(
            200,
            &[
                "putConfiguration",
                "getConfiguration",
                "listConfigurations",
                "testQueries",
            ],
        )
        .await;
    trial.all(409, &["putConfiguration"]).await;
    trial.all(204, &["applyConfigurationContent"]).await;
    trial.all(200, &["putJob", "getJob", "listJobs"]).await;
    trial.ask("cancelJob", &nobody, &[], 404).await;

    // A device speaks for itself.
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 3600).unwrap();
    let (dev, as_device) = ([("id", "dev-1")], [("Authorization", token.as_str())]);
    trial
        .ask("sendMessage", &dev, &[("iothub-ack", "full")], 201)
        .await;
    let fetched = trial.ask("fetchMessage", &dev, &as_device, 200).await;
    let lock = fetched.headers["etag"].trim_matches('"').to_owned();
    let locked = [("id", "dev-1"), ("lock", lock.as_str())];
    trial.ask("abandonMessage", &locked, &as_device, 204).await;
    trial.ask("completeMessage", &locked, &as_device, 412).await;
    trial.all(204, &["takeFeedback"]).await;
    trial.ask("purgeMessages", &dev, &[], 200).await;
    trial.ask("fetchMessage", &dev, &as_device, 204).await;
    let batch = trial.ask("takeFeedback", &[], &[], 200).await;
    let lock = batch.headers["etag"].trim_matches('"').to_owned();
    trial
        .ask("abandonFeedback", &[("lock", lock.as_str())], &[], 204)
        .await;
    trial
        .ask("completeFeedback", &[("lock", lock.as_str())], &[], 412)
        .await;
    trial.world.cluster.pass_ms(NOW_S * 1000);
    let begun = trial.ask("beginUpload", &dev, &as_device, 200).await.json();
    let token = begun["sasToken"].as_str().unwrap();
    let blob = format!("log.txt{token}");
    let file = [("device", "dev-1"), ("blob", blob.as_str())];
    let id = begun["correlationId"].as_str().unwrap();
    let whole = [("x-ms-blob-type", "BlockBlob")];
    trial.ask("getBlob", &file, &[], 404).await;
    trial.ask("putBlob", &file, &[], 400).await;
    trial.ask("putBlob", &file, &whole, 201).await;
    let read = trial
        .ask("getBlob", &[("device", "dev-1"), ("blob", "log.txt")], &[], 200)
        .await;
    assert_eq!(read.body, "hello");
    trial.ask("endUpload", &dev, &as_device, 400).await;
    let ended = [("id", "dev-1"), ("correlation", id)];
    trial.ask("takeFileNotification", &[], &[], 204).await;
    trial.ask("endUploadById", &ended, &as_device, 204).await;
    let notice = trial.ask("takeFileNotification", &[], &[], 200).await;
    let lock = notice.headers["etag"].trim_matches('"').to_owned();
    let locked = [("lock", lock.as_str())];
    trial.ask("abandonFileNotification", &locked, &[], 204).await;
    trial.ask("completeFileNotification", &locked, &[], 412).await;
    trial.ask("listDeadLetters", &dev, &[], 200).await;
    trial.ask("getDeadLetter", &dev, &[], 404).await;
    let sent = trial.ask("sendEvent", &dev, &as_device, 204).await;
    let shard = sent.headers["dunlin-receipt"]
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let page = trial
        .ask("readEvents", &[("shard", shard.as_str())], &[], 200)
        .await;
    assert_eq!(page.json()["events"][0]["json"]["temperature"], 21.5);
    trial.ask("readEvents", &[("shard", "99")], &[], 404).await;
    trial.all(200, &["listShards"]).await;

    trial
        .all(
            200,
            &[
                "getProvisioning",
                "putEnrollment",
                "getEnrollment",
                "listEnrollments",
                "changeEnrollments",
                "getEnrollmentKeys",
                "putEnrollmentGroup",
                "getEnrollmentGroup",
                "listEnrollmentGroups",
                "changeEnrollmentGroups",
                "getEnrollmentGroupKeys",
                "listRegistrations",
            ],
        )
        .await;
    trial.ask("putEnrollment", &[], &[], 409).await;
    trial.ask("getEnrollment", &nobody, &[], 404).await;
    trial
        .all(404, &["getRegistration", "deleteRegistration", "deleteLinkedHub"])
        .await;
    trial
        .all(204, &["deleteEnrollment", "deleteEnrollmentGroup"])
        .await;

    trial
        .all(
            200,
            &[
                "getHealth",
                "getMetrics",
                "listCertificates",
                "getDocument",
                "getPage",
            ],
        )
        .await;
    trial.all(500, &["renewCertificates"]).await;
    trial.all(404, &["getFaults"]).await;
    trial
        .all(204, &["deleteConfiguration", "deleteModule", "deleteDevice"])
        .await;
    let refused = [("Authorization", "nonsense")];
    for id in ["getDevice", "getEnrollment", "fetchMessage", "registerDevice"] {
        trial.ask(id, &[], &refused, 401).await;
    }
    assert!(trial.asked.len() > 60, "{}", trial.asked.len());
}
