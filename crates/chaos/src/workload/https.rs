//! W2: messages over HTTPS, one attempt each, at one gateway after the other.
//!
//! The hub has no batches over HTTPS, so a message is a request. What is not answered stays unknown: it is
//! not sent again, since it may have been stored.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use tokio::time::Instant;

use super::Bench;
use crate::hub::Answered;
use crate::oracle::{self, Deed, Road};

/// What a message says of itself, so that conditions of routes can look into it.
const CONTENT: [(&str, &str); 2] = [
    ("iothub-contenttype", "application/json"),
    ("iothub-contentencoding", "utf-8"),
];

/// A device of this workload.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Place in the history.
    pub index: u32,
    /// Its id.
    pub device: String,
    /// Its token.
    pub token: String,
}

/// Sends until it is told to stop.
pub async fn run(mut bench: Bench, sender: Sender, period: Duration) {
    let path = format!(
        "/devices/{}/messages/events?api-version=2021-04-12",
        sender.device
    );
    let note = |bench: &Bench, deed| bench.shelf.recorder.note(sender.index, deed);
    // Over HTTPS nothing is open between two requests; one that never ends stands for all.
    let opened = Deed::Opened {
        node: 0,
        us: bench.now_us(),
    };
    note(&bench, opened);
    let mut due = Instant::now();
    let mut text = String::new();
    let mut node = sender.index as usize;
    for seq in 0.. {
        due = (due + period).max(Instant::now());
        if !bench.wait_until(due).await {
            return;
        }
        bench
            .payloads
            .write(&mut text, (sender.index as usize, &sender.device), seq);
        let sent = Deed::Sent {
            us: bench.now_us(),
            digest: oracle::digest(text.as_bytes()),
            road: Road::Https,
            former: false,
        };
        note(&bench, sent);
        let body = Some(text.clone().into_bytes());
        let asked = (Method::POST, path.as_str());
        let headers = [&[("authorization", sender.token.as_str())], &CONTENT[..]].concat();
        let answer = bench.hub.ask(bench.turn(&mut node), asked, &headers, body);
        if let Ok(Answered {
            status: StatusCode::NO_CONTENT,
            ..
        }) = answer.await
        {
            let us = bench.now_us();
            note(&bench, Deed::Acked { seq, us });
        }
    }
}
