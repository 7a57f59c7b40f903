//! Files of devices: devices bring them in three steps, whole or in blocks, each step through another gateway; services read
//! them and are told of them.
//!
//! What was not answered is said again, which the hub takes as the same. The files lie in a folder that all nodes share
//! ([`store`]), outside of what faults damage. What came of all this is for [`crate::invariants::files`] to say.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::file::{Content, Deed, What};
use super::operation::Outcome;
use super::{Bench, lock};
use crate::hub::Answered;
use crate::{oracle, stage};

/// Pause before something that was not answered is asked again.
const PAUSE: Duration = Duration::from_millis(300);
/// Files of a device before another takes its place.
const FILES_PER_DEVICE: u32 = 20;
/// Uploads of a device whose beginning was not answered: each may be under way, and ten are as many as may be.
const LOST_MAX: u32 = 5;
/// Attempts of one step.
const ATTEMPTS_MAX: u32 = 100;
/// Bytes of a file that comes whole, or of a block.
const BYTES_MAX: usize = 64 * 1024;
/// Blocks of a file.
const BLOCKS_MAX: usize = 4;
/// Files that are read again and again: the newest.
const NEWEST_MAX: usize = 256;
/// Services that are told of files at the same time.
const LISTENERS: usize = 2;
/// How long a service that has lost an answer may wait for what was in it: it was given for a minute.
const TOLD_WITHIN: Duration = Duration::from_secs(75);

/// Has a configuration written that lets all nodes keep files in one folder of the run's. Returns what nodes are told.
pub fn store(folder: &Path) -> io::Result<[String; 2]> {
    let folder = std::path::absolute(folder)?;
    let text = format!("object_store = \"file://{}\"\n", folder.join("objects").display());
    let path = folder.join("store.toml");
    std::fs::write(&path, text)?;
    Ok(["--config".to_owned(), path.display().to_string()])
}

/// What those who bring files and those who look at them share.
#[derive(Default)]
struct Board {
    /// The newest files.
    files: Vec<String>,
    /// Those that services are still to be told of.
    owed: BTreeSet<String>,
    /// Those that a service was told of before the device knew that it is done.
    told_early: BTreeSet<String>,
}

type Shared = Arc<Mutex<Board>>;

fn on<T>(board: &Shared, look: impl FnOnce(&mut Board) -> T) -> T {
    look(&mut board.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Brings files, so many devices at a time and a file of each every `period`, until it is told to stop; then waits until
/// services have been told of all that came.
pub async fn run(bench: Bench, devices: usize, period: Duration) {
    let board = Shared::default();
    let mut bringing = JoinSet::new();
    for slot in 0..devices {
        bringing.spawn(bring(bench.clone(), Arc::clone(&board), slot, period));
    }
    let (over, is_over) = watch::channel(false);
    let looking = look(
        desk(&bench, 1, 0xF11E),
        Arc::clone(&board),
        is_over.clone(),
        period,
    );
    let listening = (0..LISTENERS).map(|slot| {
        let desk = desk(&bench, slot, 0x11_57E4 + slot as u64);
        listen(desk, Arc::clone(&board), is_over.clone(), period)
    });
    let listening = async {
        join_all(listening).await;
        desk(&bench, 0, 0).note("", What::HeardOut, bench.now_us());
    };
    let all = async {
        while bringing.join_next().await.is_some() {}
        over.send_replace(true);
    };
    tokio::join!(all, looking, listening);
}

fn desk(bench: &Bench, node: usize, salt: u64) -> Desk {
    Desk {
        bench: bench.clone(),
        random: StdRng::seed_from_u64(bench.seed ^ salt),
        node,
    }
}

/// Whoever asks.
struct Desk {
    bench: Bench,
    random: StdRng,
    /// The node that is asked next.
    node: usize,
}

impl Desk {
    /// One attempt, at the next node; `authorization` goes with it unless it is empty.
    async fn ask(
        &mut self,
        (method, path): (Method, &str),
        (authorization, more): (&str, &[(&str, &str)]),
        body: Option<Vec<u8>>,
    ) -> Option<Answered> {
        let node = self.bench.turn(&mut self.node);
        let mut headers = more.to_vec();
        if !authorization.is_empty() {
            headers.push(("authorization", authorization));
        }
        self.bench
            .hub
            .ask(node, (method, path), &headers, body)
            .await
            .ok()
    }

    fn note(&self, file: &str, what: What, invoked_us: u64) {
        self.bench.shelf.files.note(Deed {
            file: file.to_owned(),
            what,
            invoked_us,
            completed_us: self.bench.now_us(),
        });
    }
}

/// What a device is told when it begins.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Grant {
    correlation_id: String,
    container_name: String,
    blob_name: String,
    sas_token: String,
}

/// One device after the other.
async fn bring(bench: Bench, board: Shared, slot: usize, period: Duration) {
    let mut desk = desk(&bench, slot, (slot as u64 + 1) << 20);
    for life in 0_u32.. {
        let device = format!("uploader-{slot}-{life}");
        let key = stage::draw_key(&mut desk.random);
        let Ok(token) = stage::token(&bench.host, &device, &key) else {
            return;
        };
        if !desk.bench.make_device(&device, &key).await {
            return;
        }
        let mut lost = 0;
        for number in 0..FILES_PER_DEVICE {
            let due = Instant::now() + period;
            let name = format!("some place/{number}.bin");
            match begin(&mut desk, &device, &token, &name).await {
                Some(grant) => finish(&mut desk, &board, &device, &token, &grant).await,
                None => lost += 1,
            }
            if !desk.bench.wait_until(due).await {
                return;
            }
            if lost >= LOST_MAX {
                break;
            }
        }
    }
}

/// The first step, once.
async fn begin(desk: &mut Desk, device: &str, token: &str, name: &str) -> Option<Grant> {
    let path = format!("/devices/{device}/files?api-version=2021-04-12");
    let body = json!({ "blobName": name }).to_string().into_bytes();
    let answered = desk.ask((Method::POST, &path), (token, &[]), Some(body)).await?;
    match answered.status {
        StatusCode::OK => serde_json::from_slice(&answered.body).ok(),
        _ => None,
    }
}

/// The other two.
async fn finish(desk: &mut Desk, board: &Shared, device: &str, token: &str, grant: &Grant) {
    let file = &grant.blob_name;
    let count = match desk.random.random_range(0..2) {
        0 => 0,
        _ => desk.random.random_range(1..=BLOCKS_MAX),
    };
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for _ in 0..count.max(1) {
        let mut part = vec![0; desk.random.random_range(0..=BYTES_MAX)];
        desk.random.fill(&mut part[..]);
        parts.push(part);
    }
    let whole = parts.concat();
    let content = Content {
        bytes: whole.len() as u64,
        digest: oracle::digest(&whole),
    };
    let invoked_us = desk.bench.now_us();
    desk.note(file, What::Begun(content), invoked_us);
    on(board, |board| {
        if board.files.len() >= NEWEST_MAX {
            board.files.remove(0);
        }
        board.files.push(file.clone());
    });
    let is_stored = match count {
        0 => put_whole(desk, grant, whole).await,
        _ => put_blocks(desk, grant, &parts).await,
    };
    if !is_stored {
        return;
    }
    desk.note(file, What::Stored, invoked_us);
    end(desk, board, (device, token), grant).await;
}

/// Where a file goes, in an address.
fn place(grant: &Grant) -> String {
    let name = grant.blob_name.replace(' ', "%20");
    format!("/{}/{name}{}", grant.container_name, grant.sas_token)
}

/// Puts something until the hub says that it has it; the last answer if it does not come to that.
async fn put(desk: &mut Desk, path: &str, body: &[u8]) -> Result<(), Option<StatusCode>> {
    let kind = [("x-ms-blob-type", "BlockBlob")];
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        let answered = desk
            .ask((Method::PUT, path), ("", &kind), Some(body.to_vec()))
            .await;
        last = answered.map(|answered| answered.status);
        match last {
            Some(StatusCode::CREATED) => return Ok(()),
            Some(StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN) => break,
            _ => sleep(PAUSE).await,
        }
    }
    Err(last)
}

async fn put_whole(desk: &mut Desk, grant: &Grant, whole: Vec<u8>) -> bool {
    put(desk, &place(grant), &whole).await.is_ok()
}

async fn put_blocks(desk: &mut Desk, grant: &Grant, parts: &[Vec<u8>]) -> bool {
    let place = place(grant);
    let ids: Vec<String> = (100..)
        .zip(parts)
        .map(|(number, _)| STANDARD.encode(format!("{number}")))
        .collect();
    let items = ids.iter().map(|id| format!("<Latest>{id}</Latest>"));
    let list = format!("<BlockList>{}</BlockList>", items.collect::<String>());
    // An attempt at a block that comes late spoils the list, which is put again then.
    for _ in 0..3 {
        for (id, part) in ids.iter().zip(parts) {
            let path = format!("{place}&comp=block&blockid={id}");
            if put(desk, &path, part).await.is_err() {
                return false;
            }
        }
        match put(desk, &format!("{place}&comp=blocklist"), list.as_bytes()).await {
            Ok(()) => return true,
            Err(Some(StatusCode::BAD_REQUEST)) => {}
            Err(_) => return false,
        }
    }
    false
}

/// The last step.
async fn end(desk: &mut Desk, board: &Shared, (device, token): (&str, &str), grant: &Grant) {
    let path = format!("/devices/{device}/files/notifications?api-version=2021-04-12");
    let body = json!({
        "correlationId": grant.correlation_id,
        "isSuccess": true,
        "statusCode": 200,
        "statusDescription": "done",
    });
    let body = body.to_string().into_bytes();
    let file = &grant.blob_name;
    let invoked_us = desk.bench.now_us();
    let mut outcome = Outcome::Unknown;
    for attempt in 0..ATTEMPTS_MAX {
        let answered = desk
            .ask((Method::POST, &path), (token, &[]), Some(body.clone()))
            .await;
        match answered.map(|answered| answered.status) {
            Some(StatusCode::NO_CONTENT) => {
                outcome = Outcome::Ok;
                break;
            }
            Some(StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                // One before it may have been taken.
                if attempt == 0 {
                    outcome = Outcome::Fail;
                }
                break;
            }
            _ => sleep(PAUSE).await,
        }
    }
    desk.note(file, What::Ended(outcome), invoked_us);
    if outcome == Outcome::Ok {
        on(board, |board| {
            if !board.told_early.remove(file) {
                board.owed.insert(file.clone());
            }
        });
    }
}

/// Reads files, whoever brings them and however far that is.
async fn look(mut desk: Desk, board: Shared, is_over: watch::Receiver<bool>, period: Duration) {
    let authorization = desk.bench.hub.authorization().to_owned();
    while !*is_over.borrow() {
        sleep(period).await;
        let random = &mut desk.random;
        let file = on(&board, |board| {
            let count = board.files.len();
            (count > 0).then(|| board.files[random.random_range(0..count)].clone())
        });
        let Some(file) = file else { continue };
        let path = format!("/uploads/{}", file.replace(' ', "%20"));
        let invoked_us = desk.bench.now_us();
        let answered = desk.ask((Method::GET, &path), (&authorization, &[]), None).await;
        let found = match answered {
            Some(Answered {
                status: StatusCode::OK,
                body,
                ..
            }) => Some(Content {
                bytes: body.len() as u64,
                digest: oracle::digest(&body),
            }),
            Some(Answered {
                status: StatusCode::NOT_FOUND,
                ..
            }) => None,
            _ => continue,
        };
        desk.note(&file, What::Read(found), invoked_us);
    }
}

/// Is told of files, and says so or lets go of what it was told. Goes on until it was told of all, or should have been.
async fn listen(mut desk: Desk, board: Shared, is_over: watch::Receiver<bool>, period: Duration) {
    let authorization = desk.bench.hub.authorization().to_owned();
    let mut told_at = Instant::now();
    loop {
        if *is_over.borrow() {
            if on(&board, |board| board.owed.is_empty()) || told_at.elapsed() > TOLD_WITHIN {
                return;
            }
        } else {
            told_at = Instant::now();
        }
        if listen_once(&mut desk, &board, &authorization).await {
            told_at = Instant::now();
        } else {
            sleep(period.min(PAUSE)).await;
        }
    }
}

/// Whether it was told of a file.
async fn listen_once(desk: &mut Desk, board: &Shared, authorization: &str) -> bool {
    const PATH: &str = "/messages/serviceBound/filenotifications";
    let invoked_us = desk.bench.now_us();
    let asked = format!("{PATH}?api-version=2021-04-12");
    let answered = desk.ask((Method::GET, &asked), (authorization, &[]), None).await;
    let Some(answered) = answered.filter(|answered| answered.status == StatusCode::OK) else {
        return false;
    };
    let notice: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
    let file = notice["blobName"].as_str().unwrap_or_default().to_owned();
    let bytes = notice["blobSizeInBytes"].as_u64().unwrap_or(u64::MAX);
    desk.note(&file, What::Told { bytes }, invoked_us);
    on(board, |board| {
        if !board.owed.remove(&file) {
            board.told_early.insert(file.clone());
        }
    });
    let lock = lock(&answered);
    // One that is let go of is told again.
    if desk.random.random_range(0..8) == 0 {
        let path = format!("{PATH}/{lock}/abandon?api-version=2021-04-12");
        desk.ask((Method::POST, &path), (authorization, &[]), None).await;
        return true;
    }
    let path = format!("{PATH}/{lock}?api-version=2021-04-12");
    let invoked_us = desk.bench.now_us();
    let answered = desk
        .ask((Method::DELETE, &path), (authorization, &[]), None)
        .await;
    let outcome = match answered.map(|answered| answered.status) {
        Some(StatusCode::NO_CONTENT) => Outcome::Ok,
        Some(StatusCode::PRECONDITION_FAILED) => Outcome::Fail,
        _ => Outcome::Unknown,
    };
    desk.note(&file, What::Heard(outcome), invoked_us);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_told_of_one_folder_wherever_they_run() {
        let folder = tempfile::tempdir().unwrap();
        let [flag, path] = store(folder.path()).unwrap();
        assert_eq!(flag, "--config");
        let told: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let address = told["object_store"].as_str().unwrap();
        assert!(
            address.starts_with("file:///") && address.ends_with("/objects"),
            "{address}"
        );
    }
}
