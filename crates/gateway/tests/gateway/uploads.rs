//! Files of devices at the doors: begun and ended in IoT Hub's words, brought and read in Azure Storage's.

use std::sync::atomic::Ordering::Relaxed;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_gateway::client::device_token;
use dunlin_gateway::http::blob_fault::BLOB_CODES;
use dunlin_model::audit::AuditOutcome;
use dunlin_model::command::Command;
use dunlin_model::identity::Condition;
use dunlin_model::upload::UPLOADS_ALIVE_MAX;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::fake::KEY;
use crate::world::{Answer, BLOCK_BYTES_MAX, FILE_BYTES_MAX, HOST, NOW_S, World, read_until};

const FILES: &str = "/devices/dev-1/files?api-version=2019-10-01";
const ENDED: &str = "/devices/dev-1/files/notifications?api-version=2019-10-01";
const NOTICES: &str = "/messages/serviceBound/filenotifications";
pub(crate) const WHOLE: (&str, &str) = ("x-ms-blob-type", "BlockBlob");

/// A request by the device itself.
pub(crate) async fn by_device(world: &World, path: &str, body: &str) -> Answer {
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 9_000).unwrap();
    let headers = [("Authorization", token.as_str())];
    world.http_as("POST", path, &headers, body.as_bytes()).await
}

/// A hub whose shards go by the time of its doors.
pub(crate) async fn world() -> World {
    let world = World::new().await;
    world.cluster.pass_ms(NOW_S * 1000);
    world.files.memory.set_now((NOW_S + 5) * 1000);
    world
}

/// An upload that has begun.
pub(crate) struct Begun {
    id: String,
    /// Path and query.
    pub(crate) address: String,
}

impl Begun {
    /// The address with more in its query.
    pub(crate) fn with(&self, more: &str) -> String {
        format!("{}&{more}", self.address)
    }

    fn block(&self, id: &str) -> String {
        let id = STANDARD.encode(id).replace('=', "%3D").replace('+', "%2B");
        self.with(&format!("comp=block&blockid={id}"))
    }
}

pub(crate) async fn begin(world: &World, name: &str) -> Begun {
    let body = serde_json::json!({ "blobName": name }).to_string();
    let answer = by_device(world, FILES, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let text = |key: &str| answer[key].as_str().unwrap().to_owned();
    Begun {
        id: text("correlationId"),
        address: format!(
            "/{}/{}{}",
            text("containerName"),
            text("blobName").replace(' ', "%20"),
            text("sasToken")
        ),
    }
}

pub(crate) async fn put(world: &World, address: &str, body: &[u8]) -> Answer {
    world.http_as("PUT", address, &[WHOLE], body).await
}

async fn end(world: &World, upload: &Begun, is_success: bool) -> Answer {
    let body = serde_json::json!({
        "correlationId": upload.id, "isSuccess": is_success, "statusCode": 200, "statusDescription": "OK",
    });
    by_device(world, ENDED, &body.to_string()).await
}

/// What a file has, as the store has it.
fn stored(world: &World, name: &str) -> Option<Vec<u8>> {
    let path = format!("uploads/dev-1/{name}");
    world.files.memory.get(&path).map(|bytes| bytes.to_vec())
}

/// Whether nothing but whole files is in the store.
fn is_clear(world: &World) -> bool {
    world
        .files
        .memory
        .paths()
        .iter()
        .all(|path| path.starts_with("uploads/"))
}

/// Waits until the store has so many files: what became of blocks goes by and by.
async fn wait_for_paths(world: &World, count: usize) {
    let begun = std::time::Instant::now();
    while world.files.memory.paths().len() != count {
        let left = world.files.memory.paths();
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{left:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Where services are told that files are.
fn hub(world: &World) -> String {
    format!("https://{HOST}:{}", world.gateway.https_addresses()[0].port())
}

fn list(ids: &[&str]) -> String {
    let items = ids
        .iter()
        .map(|id| format!("<Latest>{}</Latest>", STANDARD.encode(id)));
    format!(
        "<?xml version='1.0' encoding='utf-8'?>\n<BlockList>{}</BlockList>",
        items.collect::<String>()
    )
}

#[track_caller]
pub(crate) fn assert_fault(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (
            answer.status,
            answer.headers.get("x-ms-error-code").map(String::as_str)
        ),
        (status, Some(code)),
        "{}",
        answer.body
    );
    assert!(BLOB_CODES.contains(&(status, code)));
    let start = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>");
    assert!(answer.body.starts_with(&start), "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/xml");
    assert!(answer.headers.contains_key("x-ms-request-id"));
    assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
}

#[tokio::test]
async fn a_file_comes_whole_and_a_service_hears_of_it_once() {
    let world = world().await;
    let begun = by_device(&world, FILES, r#"{"blobName":"a dir/log 1.txt"}"#).await;
    let answer = begun.json();
    assert_eq!(begun.status, 200, "{answer}");
    assert_eq!(answer["hostName"], HOST);
    assert_eq!(answer["containerName"], "uploads");
    assert_eq!(answer["blobName"], "dev-1/a dir/log 1.txt");
    let token = answer["sasToken"].as_str().unwrap();
    let start = "?sv=2021-12-02&sr=b&sp=w&se=2023-11-14T23%3A13%3A20Z&sig=";
    assert!(token.starts_with(start), "{token}");
    let sent = world.cluster.commands();
    let secret = token.strip_prefix(start).unwrap();
    assert!(
        !format!("{sent:?}").contains(secret),
        "the log does not know the secret"
    );
    let upload = Begun {
        id: answer["correlationId"].as_str().unwrap().to_owned(),
        address: format!("/uploads/dev-1/a%20dir/log%201.txt{token}"),
    };
    let answer = put(&world, &upload.address, b"hello").await;
    assert_eq!((answer.status, answer.body.as_str()), (201, ""));
    for name in ["etag", "last-modified", "x-ms-request-id", "x-ms-version"] {
        assert!(answer.headers.contains_key(name), "{name}");
    }
    assert_eq!(answer.headers["last-modified"], "Tue, 14 Nov 2023 22:13:25 GMT");
    assert_eq!(stored(&world, "a dir/log 1.txt").as_deref(), Some(&b"hello"[..]));
    assert_eq!(
        world.http("GET", NOTICES, &[], "").await.status,
        204,
        "it has not ended"
    );
    for _ in 0..2 {
        assert_eq!(end(&world, &upload, true).await.status, 204);
    }
    let notice = world.http("GET", NOTICES, &[], "").await;
    let kind = "application/vnd.microsoft.iothub.filenotification.json";
    assert_eq!(
        (notice.status, notice.headers["content-type"].as_str()),
        (200, kind)
    );
    let said = notice.json();
    assert!(
        said["enqueuedTimeUtc"]
            .as_str()
            .unwrap()
            .starts_with("2023-11-14T22:13:20")
    );
    assert_eq!(
        said,
        serde_json::json!({
            "deviceId": "dev-1",
            "blobUri": format!("{}/uploads/dev-1/a%20dir/log%201.txt", hub(&world)),
            "blobName": "dev-1/a dir/log 1.txt",
            "lastUpdatedTime": "2023-11-14T22:13:25.000Z",
            "blobSizeInBytes": 5,
            "enqueuedTimeUtc": said["enqueuedTimeUtc"],
        })
    );
    assert_eq!(
        world.http("GET", NOTICES, &[], "").await.status,
        204,
        "it is somebody's"
    );
    let lock = notice.headers["etag"].trim_matches('"').to_owned();
    let abandoned = world
        .http("POST", &format!("{NOTICES}/{lock}/abandon"), &[], "")
        .await;
    assert_eq!(abandoned.status, 204);
    let again = world.http("GET", NOTICES, &[], "").await;
    assert_eq!(again.json(), said);
    let lock = again.headers["etag"].trim_matches('"').to_owned();
    let path = format!("{NOTICES}/{lock}");
    assert_eq!(world.http("DELETE", &path, &[], "").await.status, 204);
    let late = world.http("DELETE", &path, &[], "").await;
    assert_eq!(late.error_code(), "DeviceMessageLockLost");
    assert_eq!(world.http("GET", NOTICES, &[], "").await.status, 204);
    assert_fault(
        &put(&world, &upload.address, b"late").await,
        403,
        "AuthenticationFailed",
    );
    assert_eq!(stored(&world, "a dir/log 1.txt").as_deref(), Some(&b"hello"[..]));
    let counted: std::collections::HashMap<_, _> = world.gateway.metrics().each().collect();
    let of = |name: &str| counted[name];
    assert_eq!((of("uploads_begun"), of("uploads_ended")), (1, 1));
    assert_eq!((of("uploads_refused"), of("upload_bytes")), (1, 5));
}

#[tokio::test]
async fn services_read_files_and_nobody_else_does() {
    let world = world().await;
    let upload = begin(&world, "x").await;
    let content = "0123456789".repeat(9_000);
    assert_eq!(put(&world, &upload.address, content.as_bytes()).await.status, 201);
    let token = world.service_token("service");
    let (path, headers) = ("/uploads/dev-1/x", [("Authorization", token.as_str())]);
    let read = world.http_as("GET", path, &headers, b"").await;
    assert_eq!(read.status, 200);
    assert!(read.body == content);
    let head = world.http_as("HEAD", path, &headers, b"").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for answer in [&read, &head] {
        assert_eq!(answer.headers["content-length"], "90000");
        assert_eq!(answer.headers["content-type"], "application/octet-stream");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["content-disposition"], "attachment");
        assert_eq!(answer.headers["etag"], read.headers["etag"]);
    }
    // The token of an upload is for bringing, not for reading.
    for path in ["/uploads/dev-1/x", upload.address.as_str()] {
        let nobody = world.http_as("GET", path, &[], b"").await;
        assert_eq!(
            (nobody.status, nobody.error_code()),
            (401, "IotHubUnauthorizedAccess")
        );
        assert_eq!(world.http_as("HEAD", path, &[], b"").await.status, 401);
    }
    let device = device_token(HOST, "dev-1", KEY, NOW_S + 60).unwrap();
    let reader = world.service_token("registryRead");
    for token in [device, reader] {
        let answer = world
            .http_as("GET", "/uploads/dev-1/x", &[("Authorization", &token)], b"")
            .await;
        assert_eq!(answer.status, 401);
    }
    for path in [
        "/uploads/dev-1/y",
        "/uploads/dev-2/x",
        "/uploads/dev-1/x/y",
        "/uploads/dev-1/..%2Fdev-1%2Fx",
        "/uploads/dev-1/a%00b",
        "/uploads/%2E%2E/x",
        "/uploads/dev%2F1/x",
    ] {
        assert_fault(&world.http("GET", path, &[], "").await, 404, "BlobNotFound");
    }
    let blocks = world.http("GET", "/.uploads/dev-1/x", &[], "").await;
    assert_eq!(blocks.status, 404, "no address leads to what waits");
}

#[tokio::test]
async fn blocks_become_a_file_in_the_order_of_their_list() {
    let world = world().await;
    let upload = begin(&world, "big").await;
    for (id, content) in [
        ("b2", "two "),
        ("b1", "one "),
        ("b3", "three"),
        ("b9", "never"),
        ("b2", "TWO "),
    ] {
        let answer = put(&world, &upload.block(id), content.as_bytes()).await;
        assert_eq!((answer.status, answer.body.as_str()), (201, ""));
    }
    assert_eq!(stored(&world, "big"), None, "blocks are no file");
    let made = upload.with("comp=blocklist");
    let fault = put(&world, &made, list(&["b1", "b7"]).as_bytes()).await;
    assert_fault(&fault, 400, "InvalidBlockList");
    assert_eq!(stored(&world, "big"), None);
    let ids = list(&["b1", "b2", "b3", "b1"]);
    // Whoever has not heard the answer says it again.
    for _ in 0..2 {
        let answer = put(&world, &made, ids.as_bytes()).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert!(answer.headers.contains_key("etag"));
        assert_eq!(stored(&world, "big").as_deref(), Some(&b"one TWO threeone "[..]));
        // The file and a mark.
        wait_for_paths(&world, 2).await;
    }
    let fault = put(&world, &made, list(&["b1", "b2"]).as_bytes()).await;
    assert_fault(&fault, 400, "InvalidBlockList");
    // The same names once more are another file.
    for (id, content) in [("b1", "1"), ("b2", "2"), ("b3", "3")] {
        put(&world, &upload.block(id), content.as_bytes()).await;
    }
    assert_eq!(put(&world, &made, ids.as_bytes()).await.status, 201);
    assert_eq!(stored(&world, "big").as_deref(), Some(&b"1231"[..]));
    // A client of another kind has the id in the path.
    let path = format!("/devices/dev-1/files/notifications/{}", upload.id);
    assert_eq!(
        by_device(&world, &path, r#"{"isSuccess":true,"statusCode":200}"#)
            .await
            .status,
        204
    );
    wait_for_paths(&world, 1).await;
    assert!(is_clear(&world), "{:?}", world.files.memory.paths());
    assert_eq!(
        world.http("GET", NOTICES, &[], "").await.json()["blobSizeInBytes"],
        4
    );
}

#[tokio::test]
async fn a_list_that_was_made_is_answered_alike_while_its_blocks_go() {
    let world = world().await;
    let upload = begin(&world, "x").await;
    for (id, content) in [("b1", "one "), ("b2", "two")] {
        assert_eq!(
            put(&world, &upload.block(id), content.as_bytes()).await.status,
            201
        );
    }
    let (made, ids) = (upload.with("comp=blocklist"), list(&["b1", "b2"]));
    let fresh = [WHOLE, ("If-None-Match", "*")];
    let make = async || {
        let answer = world.http_as("PUT", &made, &fresh, ids.as_bytes()).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert_eq!(stored(&world, "x").as_deref(), Some(&b"one two"[..]));
    };
    // None of its blocks go; then all but one.
    world.files.memory.stick(Some(".uploads/"));
    for _ in 0..3 {
        make().await;
    }
    let one = format!(".uploads/{}/{}", upload.id, "6231");
    world.files.memory.stick(Some(&one));
    make().await;
    wait_for_paths(&world, 3).await;
    assert!(world.files.memory.paths().contains(&one));
    make().await;
    world.files.memory.stick(None);
    assert_eq!(end(&world, &upload, true).await.status, 204);
    wait_for_paths(&world, 1).await;
    // What another upload has made is another matter.
    let other = begin(&world, "x").await;
    assert_eq!(put(&world, &other.block("b1"), b"1").await.status, 201);
    let made = other.with("comp=blocklist");
    let fault = world
        .http_as("PUT", &made, &fresh, list(&["b1"]).as_bytes())
        .await;
    assert_fault(&fault, 409, "BlobAlreadyExists");
}

#[tokio::test]
async fn a_file_that_was_there_before_is_nobodys_news() {
    let world = world().await;
    let first = begin(&world, "x").await;
    assert_eq!(put(&world, &first.address, b"old").await.status, 201);
    assert_eq!(end(&world, &first, true).await.status, 204);
    assert_eq!(world.http("GET", NOTICES, &[], "").await.status, 200);
    let second = begin(&world, "x").await;
    assert_fault_of_end(&end(&world, &second, true).await);
    assert_eq!(put(&world, &second.block("b"), b"x").await.status, 201);
    assert_fault_of_end(&end(&world, &second, true).await);
    assert_eq!(world.http("GET", NOTICES, &[], "").await.status, 204);
    assert_eq!(put(&world, &second.address, b"new").await.status, 201);
    assert_eq!(end(&world, &second, true).await.status, 204);
    assert_eq!(
        world.http("GET", NOTICES, &[], "").await.json()["blobSizeInBytes"],
        3
    );
}

#[tokio::test]
async fn services_are_told_the_hubs_own_name_whatever_the_device_calls_it() {
    let world = world().await;
    let upload = begin(&world, "x").await;
    assert_eq!(put(&world, &upload.address, b"x").await.status, 201);
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 60).unwrap();
    let body = format!(
        r#"{{"correlationId":"{}","isSuccess":true,"statusCode":200}}"#,
        upload.id
    );
    let request = format!(
        "POST {ENDED} HTTP/1.1\r\nHost: localhost:9999\r\nAuthorization: {token}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = world.https().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut stream, "204 No Content").await;
    assert_eq!(
        world.http("GET", NOTICES, &[], "").await.json()["blobUri"],
        format!("{}/uploads/dev-1/x", hub(&world))
    );
}

#[tokio::test]
async fn a_body_whose_time_is_over_takes_nobodys_place() {
    let wait = std::time::Duration::from_secs(1);
    let world = World::with_body_wait(wait).await;
    world.cluster.pass_ms(NOW_S * 1000);
    let upload = begin(&world, "x").await;
    assert_eq!(put(&world, &upload.address, b"before").await.status, 201);
    for address in [
        upload.address.clone(),
        upload.block("b"),
        upload.with("comp=blocklist"),
    ] {
        let mut stream = open(&world, &address, "Content-Length: 10").await;
        stream.write_all(b"12345").await.unwrap();
        let begun = std::time::Instant::now();
        read_until(&mut stream, "OperationTimedOut").await;
        assert!(begun.elapsed() >= wait / 2);
        let _ = stream.write_all(b"67890").await;
        assert_eq!(stored(&world, "x").as_deref(), Some(&b"before"[..]));
    }
    assert_eq!(world.files.memory.paths().len(), 2, "the file and its mark");
}

#[tokio::test]
async fn a_token_that_does_not_count_is_kept_in_the_audit_without_what_stands_in_it() {
    let world = world().await;
    let upload = begin(&world, "x").await;
    let wrong = upload.address.replace("/x?", "/y?");
    assert_fault(&put(&world, &wrong, b"x").await, 403, "AuthenticationFailed");
    let record = world.audit.next("http.request").await;
    assert_eq!(
        (record.who.as_str(), record.what.as_str()),
        ("dev-1", "/uploads/dev-1/y")
    );
    let why = AuditOutcome::Refused("AuthenticationFailed".to_owned());
    assert_eq!((&record.outcome, record.from.is_empty()), (&why, false));
}

#[tokio::test]
async fn blocks_of_an_upload_that_fails_go_with_it() {
    let world = world().await;
    let (one, other) = (begin(&world, "x").await, begin(&world, "x").await);
    for upload in [&one, &other] {
        assert_eq!(put(&world, &upload.block("b"), b"x").await.status, 201);
    }
    assert_eq!(end(&world, &one, false).await.status, 204);
    // Those of the other stay.
    wait_for_paths(&world, 1).await;
    assert_eq!(
        put(&world, &other.with("comp=blocklist"), list(&["b"]).as_bytes())
            .await
            .status,
        201
    );
    assert_eq!(
        world.http("GET", NOTICES, &[], "").await.status,
        204,
        "nobody hears of a failure"
    );
}

#[tokio::test]
async fn a_file_has_bounds_and_so_has_what_waits_to_be_one() {
    let world = world().await;
    let upload = begin(&world, "x").await;
    let body = vec![b'x'; FILE_BYTES_MAX as usize + 1];
    assert_fault(
        &put(&world, &upload.address, &body).await,
        413,
        "RequestBodyTooLarge",
    );
    assert_eq!(put(&world, &upload.address, &body[1..]).await.status, 201);
    let block = &body[..BLOCK_BYTES_MAX as usize];
    let fault = put(&world, &upload.block("b"), &body[..BLOCK_BYTES_MAX as usize + 1]).await;
    assert_fault(&fault, 413, "RequestBodyTooLarge");
    for id in ["b1", "b2", "b3"] {
        assert_eq!(put(&world, &upload.block(id), block).await.status, 201);
    }
    let fault = put(&world, &upload.block("b4"), b"x").await;
    assert_fault(&fault, 413, "RequestBodyTooLarge");
    let made = upload.with("comp=blocklist");
    let fault = put(&world, &made, list(&["b1", "b2", "b3"]).as_bytes()).await;
    assert_fault(&fault, 413, "RequestBodyTooLarge");
    assert_eq!(
        put(&world, &made, list(&["b1", "b2"]).as_bytes()).await.status,
        201
    );
    assert_eq!(
        stored(&world, "x").map(|bytes| bytes.len()),
        Some(2 * block.len())
    );
    let long = vec![b' '; 2 * 1024 * 1024 + 1];
    assert_fault(&put(&world, &made, &long).await, 413, "RequestBodyTooLarge");
    // In pieces, so that nothing is known before.
    let mut stream = open(&world, &upload.address, "Transfer-Encoding: chunked").await;
    for _ in 0..5 {
        let chunk = format!("{:x}\r\n{}\r\n", 30_000, "x".repeat(30_000));
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    read_until(&mut stream, "RequestBodyTooLarge").await;
    assert_eq!(
        stored(&world, "x").map(|bytes| bytes.len()),
        Some(2 * block.len()),
        "it stays"
    );
}

/// Sends the head of a request for a whole file.
pub(crate) async fn open(world: &World, address: &str, header: &str) -> TlsStream<TcpStream> {
    let mut stream = world.https().await;
    let head = format!(
        "PUT {address} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nx-ms-blob-type: BlockBlob\r\n{header}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_body_that_is_cut_leaves_nothing() {
    let world = world().await;
    let upload = begin(&world, "x").await;
    let mut stream = open(&world, &upload.address, "Content-Length: 1000").await;
    stream.write_all(&[b'x'; 999]).await.unwrap();
    drop(stream);
    let mut stream = open(&world, &upload.block("b"), "Transfer-Encoding: chunked").await;
    stream.write_all(b"5\r\nhello\r\n").await.unwrap();
    drop(stream);
    let begun = std::time::Instant::now();
    let refused = || world.gateway.metrics().uploads_refused.load(Relaxed);
    let ended = || refused() + world.gateway.metrics().upload_bytes.load(Relaxed);
    while ended() < 2 {
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(20),
            "{}",
            ended()
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(refused(), 2);
    assert_eq!(world.files.memory.paths(), [""; 0]);
    assert_fault_of_end(&end(&world, &upload, true).await);
    assert_eq!(put(&world, &upload.address, b"whole").await.status, 201);
    assert_eq!(end(&world, &upload, true).await.status, 204);
}

fn assert_fault_of_end(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.error_code()),
        (400, "InvalidStorageEndpointOrBlob")
    );
}

#[tokio::test]
async fn one_device_brings_so_many_bodies_at_a_time() {
    let world = world().await;
    let mut streams = Vec::new();
    for n in 0..8 {
        let upload = begin(&world, &format!("f{n}")).await;
        let mut stream = open(&world, &upload.address, "Content-Length: 10").await;
        stream.write_all(b"12345").await.unwrap();
        streams.push(stream);
    }
    let upload = begin(&world, "x").await;
    // They are under way when one more is turned away.
    let begun = std::time::Instant::now();
    loop {
        let answer = put(&world, &upload.address, b"x").await;
        if answer.status == 503 {
            assert_fault(&answer, 503, "ServerBusy");
            break;
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    }
    for stream in &mut streams {
        stream.write_all(b"67890").await.unwrap();
        read_until(stream, "201 Created").await;
    }
    assert_eq!(put(&world, &upload.address, b"x").await.status, 201);
    assert_eq!(stored(&world, "f7").as_deref(), Some(&b"1234567890"[..]));
}

#[tokio::test]
async fn tokens_count_for_their_file_and_as_long_as_their_device_does() {
    let world = world().await;
    let upload = begin(&world, "x").await;
    let other = begin(&world, "y").await;
    let token = upload.address.split_once('?').unwrap().1;
    let secret = token.split_once("sig=").unwrap().1;
    for wrong in [
        upload.address.replace("/x?", "/z?"),
        upload.address.replace("/x?", "/y?"),
        upload.address.replace("/dev-1/", "/dev-2/"),
        upload.address.replace("/dev-1/", "/no%20device/"),
        upload.address.replace(secret, "AAAA"),
        upload.address.replace(secret, ""),
        upload
            .address
            .replace(secret, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8%3D"),
    ] {
        assert_fault(&put(&world, &wrong, b"x").await, 403, "AuthenticationFailed");
    }
    let bare = upload.address.split('?').next().unwrap();
    assert_fault(&put(&world, bare, b"x").await, 401, "NoAuthenticationInformation");
    assert!(world.files.memory.paths().is_empty());
    // What is under way when the device is cut off comes to nothing.
    let mut stream = open(&world, &upload.address, "Content-Length: 10").await;
    stream.write_all(b"12345").await.unwrap();
    let begun = std::time::Instant::now();
    while put(&world, &other.address, b"x").await.status != 201 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    }
    world.cluster.disable(&world.device);
    stream.write_all(b"67890").await.unwrap();
    read_until(&mut stream, "AuthenticationFailed").await;
    assert_eq!(stored(&world, "x"), None);
    assert_fault(
        &put(&world, &other.address, b"x").await,
        403,
        "AuthenticationFailed",
    );
    world.cluster.submit_now(Command::DeviceDelete {
        device: world.device.clone(),
        condition: Condition::Any,
    });
    assert_fault(
        &put(&world, &other.address, b"x").await,
        403,
        "AuthenticationFailed",
    );
    assert_eq!(by_device(&world, FILES, r#"{"blobName":"x"}"#).await.status, 401);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_has_its_name() {
    let world = world().await;
    let upload = begin(&world, "x").await;
    for (more, code) in [
        ("comp=block", "InvalidBlockId"),
        ("comp=block&blockid=!", "InvalidBlockId"),
        ("comp=block&blockid=AAE", "InvalidBlockId"),
        ("comp=appendblock", "InvalidQueryParameterValue"),
        ("comp=blocklist", "InvalidXmlDocument"),
    ] {
        assert_fault(&put(&world, &upload.with(more), b"{}").await, 400, code);
    }
    for headers in [
        &[][..],
        &[("x-ms-blob-type", "PageBlob")],
        &[WHOLE, ("If-Match", "\"x\"")],
        &[WHOLE, ("If-None-Match", "\"x\"")],
    ] {
        let answer = world.http_as("PUT", &upload.address, headers, b"x").await;
        assert_fault(&answer, 400, "InvalidHeaderValue");
    }
    let fresh = [WHOLE, ("If-None-Match", "*")];
    assert_eq!(
        world.http_as("PUT", &upload.address, &fresh, b"x").await.status,
        201
    );
    let again = world.http_as("PUT", &upload.address, &fresh, b"y").await;
    assert_fault(&again, 409, "BlobAlreadyExists");
    let below = begin(&world, "x/y").await;
    assert_fault(
        &put(&world, &below.address, b"x").await,
        409,
        "ResourceTypeMismatch",
    );
    assert_eq!(stored(&world, "x").as_deref(), Some(&b"x"[..]));
}

#[tokio::test]
async fn a_store_or_a_shard_that_does_not_answer_is_asked_again() {
    let world = world().await;
    let upload = begin(&world, "x").await;
    world.files.memory.fail(true);
    assert_fault(&put(&world, &upload.address, b"x").await, 503, "ServerBusy");
    assert_eq!(end(&world, &upload, true).await.error_code(), "ServerBusy");
    let read = world.http("GET", "/uploads/dev-1/x", &[], "").await;
    assert_fault(&read, 503, "ServerBusy");
    world.files.memory.fail(false);
    world.cluster.fail_queries(dunlin_model::port::QueryError::CutOff);
    assert_fault(&put(&world, &upload.address, b"x").await, 503, "ServerBusy");
    assert_eq!(put(&world, &upload.address, b"x").await.status, 201);
    world.cluster.set_silent(true);
    assert_eq!(end(&world, &upload, true).await.error_code(), "GatewayTimeout");
    let body = r#"{"blobName":"y"}"#;
    assert_eq!(
        by_device(&world, FILES, body).await.error_code(),
        "GatewayTimeout"
    );
    world.cluster.set_silent(false);
    assert_eq!(end(&world, &upload, true).await.status, 204);
}

#[tokio::test]
async fn names_and_answers_are_checked() {
    let world = world().await;
    for body in [
        "",
        "{}",
        "[]",
        r#"{"blobName":""}"#,
        r#"{"blobName":7}"#,
        r#"{"blobName":"../x"}"#,
        r#"{"blobName":"a//b"}"#,
        "{\"blobName\":\"a\\u0000\"}",
    ] {
        let answer = by_device(&world, FILES, body).await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (400, "ArgumentInvalid"),
            "{body}"
        );
    }
    let nobody = world.http_as("POST", FILES, &[], b"{}").await;
    assert_eq!(nobody.status, 401);
    let service = world.http("POST", "/devices/dev-2/files", &[], "{}").await;
    assert_eq!(service.status, 401, "no such device");
    for (host, told) in [
        ("hub.example:8443", "hub.example:8443"),
        ("HUB.example:443", "HUB.example"),
        ("localhost:8443", "localhost:8443"),
        ("evil.example:8443", "hub.example:8443"),
        ("evil.example", "hub.example"),
        ("a@localhost", "localhost"),
    ] {
        let token = device_token(HOST, "dev-1", KEY, NOW_S + 60).unwrap();
        let body = r#"{"blobName":"x"}"#;
        let request = format!(
            "POST {FILES} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {token}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = world.https().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(
            answer.contains(&format!("\"hostName\":\"{told}\"")),
            "{host}: {answer}"
        );
    }
}

#[tokio::test]
async fn ten_are_under_way_and_time_makes_room() {
    let world = world().await;
    let mut uploads = Vec::new();
    for n in 0..UPLOADS_ALIVE_MAX {
        uploads.push(begin(&world, &format!("f{n}")).await);
    }
    let body = r#"{"blobName":"more"}"#;
    let full = by_device(&world, FILES, body).await;
    assert_eq!(full.error_code(), "DeviceMaximumActiveFileUploadLimitExceeded");
    assert_eq!(end(&world, &uploads[0], false).await.status, 204);
    begin(&world, "more").await;
    assert_eq!(by_device(&world, FILES, body).await.status, 403);
    world.cluster.pass_ms(3_600_001);
    world.now_ms.fetch_add(3_610_000, Relaxed);
    let late = end(&world, &uploads[1], false).await;
    assert_eq!(late.error_code(), "ExpiredFileUploadCorrelationId");
    assert_eq!(
        end(&world, &uploads[0], true).await.status,
        204,
        "it was told before"
    );
    begin(&world, "later").await;
    let forgotten = end(&world, &uploads[0], true).await;
    assert_eq!(forgotten.error_code(), "InvalidFileUploadCorrelationId");
}

#[tokio::test]
async fn no_route_leads_events_among_the_files_of_devices() {
    let world = world().await;
    let routing = |container: &str| {
        let endpoint = serde_json::json!({ "name": "cold", "containerName": container });
        serde_json::json!({ "endpoints": { "storageContainers": [endpoint] } }).to_string()
    };
    let refused = world.http("PUT", "/routing", &[], &routing("uploads")).await;
    assert_eq!(refused.error_code(), "ArgumentInvalid");
    assert_eq!(
        world.http("PUT", "/routing", &[], &routing("cold")).await.status,
        200
    );
}
