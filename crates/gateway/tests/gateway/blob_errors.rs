//! The list of errors about files: what `docs/errors.md` says is what the hub knows, and each of them can be met, in the
//! form that clients of Azure Storage read.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use dunlin_gateway::http::blob_fault::BLOB_CODES;
use dunlin_gateway::limits::UPLOAD_BLOCKS_MAX;
use dunlin_model::port::QueryError;
use tokio::io::AsyncWriteExt as _;

use crate::uploads::{WHOLE, assert_fault, begin, open, put, world};
use crate::world::{Answer, FILE_BYTES_MAX, NOW_S, World, read_answer};

#[test]
fn the_list_is_what_the_hub_knows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, text) = text.split_once("## Files").unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        Some((cells.next()?.parse().ok()?, cells.next()?))
    });
    assert_eq!(rows.collect::<Vec<(u16, &str)>>(), BLOB_CODES);
}

/// The answer to a body of which half comes, and then nothing.
async fn half(world: &World, address: &str, and_ends: bool) -> Answer {
    let mut stream = open(world, address, "Content-Length: 10").await;
    stream.write_all(b"12345").await.unwrap();
    if and_ends {
        stream.shutdown().await.unwrap();
    }
    read_answer(stream).await
}

#[tokio::test]
async fn each_error_of_the_list_is_met() {
    let world = world().await;
    let upload = begin(&world, "x").await;
    let address = upload.address.as_str();
    let mut met: BTreeSet<(u16, &str)> = BTreeSet::new();
    let mut meet = |answer: &Answer, status: u16, code: &'static str| {
        assert_fault(answer, status, code);
        met.insert((status, code));
    };
    let list = |count: usize| format!("<BlockList>{}</BlockList>", "<Latest>AAE=</Latest>".repeat(count));
    for (more, body, status, code) in [
        ("comp=block&blockid=!", "x", 400, "InvalidBlockId"),
        ("comp=blocklist", &list(1), 400, "InvalidBlockList"),
        ("comp=appendblock", "x", 400, "InvalidQueryParameterValue"),
        ("comp=blocklist", "{}", 400, "InvalidXmlDocument"),
        (
            "comp=blocklist",
            &list(UPLOAD_BLOCKS_MAX + 1),
            409,
            "BlockCountExceedsLimit",
        ),
    ] {
        let answer = put(&world, &upload.with(more), body.as_bytes()).await;
        meet(&answer, status, code);
    }
    let bare = world.http_as("PUT", address, &[], b"x").await;
    meet(&bare, 400, "InvalidHeaderValue");
    let (path, _) = address.split_once('?').unwrap();
    meet(&put(&world, path, b"x").await, 401, "NoAuthenticationInformation");
    let other = address.replace("/x?", "/y?");
    meet(&put(&world, &other, b"x").await, 403, "AuthenticationFailed");
    let large = vec![b'x'; FILE_BYTES_MAX as usize + 1];
    meet(&put(&world, address, &large).await, 413, "RequestBodyTooLarge");
    meet(&half(&world, address, true).await, 400, "IncompleteBody");
    // Nothing has come of any of these.
    meet(&world.http("GET", path, &[], "").await, 404, "BlobNotFound");

    assert_eq!(put(&world, address, b"x").await.status, 201);
    let fresh = [WHOLE, ("If-None-Match", "*")];
    let again = world.http_as("PUT", address, &fresh, b"y").await;
    meet(&again, 409, "BlobAlreadyExists");
    let below = begin(&world, "x/y").await;
    meet(
        &put(&world, &below.address, b"x").await,
        409,
        "ResourceTypeMismatch",
    );
    for (error, status, code) in [
        (QueryError::Store("a test".into()), 500, "InternalError"),
        (QueryError::CutOff, 503, "ServerBusy"),
    ] {
        world.cluster.fail_queries(error);
        meet(&put(&world, address, b"x").await, status, code);
    }

    let hasty = World::with_body_wait(Duration::from_secs(1)).await;
    hasty.cluster.pass_ms(NOW_S * 1000);
    let upload = begin(&hasty, "x").await;
    meet(
        &half(&hasty, &upload.address, false).await,
        408,
        "OperationTimedOut",
    );

    assert_eq!(met, BLOB_CODES.iter().copied().collect::<BTreeSet<_>>());
}
