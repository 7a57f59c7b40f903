//! What stands beside bodies in HTTP requests: places to go on from, locks, ETags, times, and the query of an upload.

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use dunlin_model::iso_time::iso_utc;
use dunlin_model::limits::FLEET_PAGE_MAX;
use dunlin_model::twin::document;

use crate::auth::BASE64;
use crate::feedback::BatchLock;
use crate::http::blob_fault::BLOB_CODES;
use crate::http::blobs::What;
use crate::http::messages::parse_lock;
use crate::http::queries::{ITEM_COUNT, cursor_text, page_size, parse_cursor};
use crate::http::time::parse_iso;
use crate::http::twins;
use crate::uploads::token::{digest, parameter};

/// The year 10000, milliseconds since 1970: clients' texts of later times are not ours.
const YEAR_10000_MS: u64 = 253_402_300_800_000;

/// The first byte says which.
pub fn http_marks(data: &[u8]) {
    is_read(data);
}

fn is_read(data: &[u8]) -> bool {
    let Some((kind, rest)) = data.split_first() else {
        return false;
    };
    let text = String::from_utf8_lossy(rest);
    match kind % 7 {
        0 => cursor(&text),
        1 => lock(&text),
        2 => batch_lock(&text),
        3 => time(&text),
        4 => twin_etag(&text),
        5 => count(rest),
        _ => upload(&text),
    }
}

fn cursor(text: &str) -> bool {
    let read = parse_cursor(text);
    if let Some(cursor) = &read {
        assert_eq!(parse_cursor(&cursor_text(cursor)).as_ref(), Some(cursor));
    }
    read.is_some()
}

fn lock(text: &str) -> bool {
    let read = parse_lock(text);
    if let Some((number, token)) = read {
        assert_eq!(parse_lock(&format!("\"{number:x}-{token:x}\"")), read);
    }
    read.is_some()
}

fn batch_lock(text: &str) -> bool {
    let read = BatchLock::parse(text);
    if let Some(lock) = read {
        assert_eq!(BatchLock::parse(&lock.text()), read);
    }
    read.is_some()
}

fn time(text: &str) -> bool {
    let read = parse_iso(text);
    if let Some(ms) = read.filter(|ms| *ms < YEAR_10000_MS) {
        assert_eq!(parse_iso(&iso_utc(ms)), read);
    }
    read.is_some()
}

/// One that cannot be read is that of no twin, 0.
fn twin_etag(text: &str) -> bool {
    let number = twins::number(text);
    assert_eq!(twins::number(&document::etag(number)), number);
    number > 0
}

fn count(bytes: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return false;
    };
    let mut headers = HeaderMap::new();
    headers.insert(ITEM_COUNT, value);
    let read = page_size(&headers).ok();
    assert!(read.is_none_or(|count| (1..=FLEET_PAGE_MAX).contains(&count)));
    read.is_some()
}

/// The query of an upload, and the kind of file on a line of its own. Nothing is taken in without a token.
fn upload(text: &str) -> bool {
    let (query, kind) = text.split_once('\n').unwrap_or((text, ""));
    let mut headers = HeaderMap::new();
    if let Ok(kind) = HeaderValue::from_str(kind) {
        headers.insert("x-ms-blob-type", kind);
    }
    let secret = parameter(query, "sig");
    if let Some(digest) = secret.as_deref().and_then(digest) {
        assert_eq!(BASE64.decode(digest).map(|digest| digest.len()), Ok(32));
    }
    match What::read(query, &headers) {
        Ok(_) => {
            assert!(secret.is_some());
            true
        }
        Err(fault) => {
            assert!(BLOB_CODES.iter().any(|(_, code)| *code == fault.code()));
            false
        }
    }
}

/// Seeds of [`http_marks`].
pub fn http_marks_seeds() -> Vec<Vec<u8>> {
    let secret = "sig=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8%3D";
    let query = format!("sv=2021-12-02&sr=b&sp=w&se=2030-01-01T00%3A00%3A00Z&{secret}");
    let tagged = |tag: u8, text: &str| [&[tag], text.as_bytes()].concat();
    vec![
        tagged(0, "3:ZGV2LTE="),
        tagged(0, "0::7"),
        tagged(1, "\"1f-2a\""),
        tagged(2, "3-ffffffffffffffff"),
        tagged(3, "2030-01-01T01:00:00.250+01:00"),
        tagged(3, "2030-01-01T00:00:00"),
        tagged(4, "\"AAAAAAAAAAE=\""),
        tagged(5, " 250 "),
        tagged(6, &format!("{query}\nBlockBlob")),
        tagged(6, &format!("comp=block&blockid=AAE%3D&{query}")),
        tagged(6, &format!("comp=blocklist&{query}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read() {
        for seed in http_marks_seeds() {
            assert!(is_read(&seed), "{:?}", String::from_utf8_lossy(&seed));
        }
    }
}
