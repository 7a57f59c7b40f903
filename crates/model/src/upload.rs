//! Files that a device uploads: which of its uploads are under way, and what services are told of those that ended well.
//!
//! Pure: the stamp of the entry is the time, and what is drawn at random comes with the command. Where it lies in a shard
//! is decided in `shard::uploads`; where the files go, at the doors.

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;

/// Uploads that a device may have under way (IoT Hub: 10).
pub const UPLOADS_ALIVE_MAX: usize = 10;
/// Uploads of a device that are over and still known, so that their end can be told once more; the oldest goes when there
/// are more.
pub const UPLOADS_OVER_MAX: usize = 10;
/// Bytes of the name that a device gives a file (IoT Hub: 1024 characters).
pub const BLOB_NAME_BYTES_MAX: usize = 1024;
/// Parts of that name, which are separated by `/`. Each is a folder where the store has folders.
pub const BLOB_NAME_PARTS_MAX: usize = 32;
/// How long an upload may take unless it is configured (IoT Hub: an hour).
pub const UPLOAD_TTL_MS_DEFAULT: u64 = 3600 * 1000;
/// The least that may be configured.
pub const UPLOAD_TTL_MS_MIN: u64 = 60 * 1000;
/// The most (IoT Hub: a day).
pub const UPLOAD_TTL_MS_MAX: u64 = 24 * 3600 * 1000;
/// Notifications in one batch: services of IoT Hub are given one at a time.
pub const BATCH_NOTICES_MAX: u64 = 1;

/// One upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The correlation id, drawn for it.
    pub id: String,
    /// The name that the device gave the file.
    pub blob: String,
    /// SHA-256 of the secret in its token, in Base64. The secret itself is the device's alone.
    pub secret_digest: String,
    /// Until when the token counts.
    pub expires_ms: u64,
    /// Whether the device has told how it ended.
    pub has_ended: bool,
}

impl Upload {
    /// Whether files may still come under it.
    pub fn is_alive(&self, ms: u64) -> bool {
        !self.has_ended && ms < self.expires_ms
    }
}

/// The uploads of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Uploads {
    /// Those that are known, in the order in which they began.
    pub known: Vec<Upload>,
}

/// Why an upload was not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndError {
    /// There is none of this id.
    Unknown,
    /// Its time is over.
    Lapsed,
}

impl Uploads {
    /// The one of this id.
    pub fn get(&self, id: &str) -> Option<&Upload> {
        self.known.iter().find(|upload| upload.id == id)
    }

    /// Begins an upload, and says until when its token counts. One that has begun already goes on as it was. `None` if
    /// there are as many as there may be.
    pub fn begin(&mut self, new: Upload, ms: u64) -> Option<u64> {
        if let Some(known) = self.get(&new.id) {
            return Some(known.expires_ms);
        }
        let alive = self.known.iter().filter(|upload| upload.is_alive(ms)).count();
        if alive >= UPLOADS_ALIVE_MAX {
            return None;
        }
        let mut surplus = (self.known.len() - alive).saturating_sub(UPLOADS_OVER_MAX);
        self.known.retain(|upload| {
            let goes = surplus > 0 && !upload.is_alive(ms);
            surplus -= usize::from(goes);
            !goes
        });
        let expires_ms = new.expires_ms;
        self.known.push(new);
        Some(expires_ms)
    }

    /// The device says that an upload is over. Returns whether it was news.
    pub fn end(&mut self, id: &str, ms: u64) -> Result<bool, EndError> {
        let upload = self.known.iter_mut().find(|upload| upload.id == id);
        let upload = upload.ok_or(EndError::Unknown)?;
        if upload.has_ended {
            return Ok(false);
        }
        if !upload.is_alive(ms) {
            return Err(EndError::Lapsed);
        }
        upload.has_ended = true;
        Ok(true)
    }
}

/// What is known of a file at the end of its upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFileNotice {
    /// Address at which services read it.
    pub uri: String,
    /// Its name, with the device's in front.
    pub blob: String,
    /// When it was written, milliseconds since 1970.
    pub modified_ms: u64,
    /// Its size.
    pub bytes: u64,
}

/// What services are told of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileNotice {
    /// Whose it is.
    pub device: DeviceId,
    /// What is known of it.
    pub file: NewFileNotice,
    /// Stamp of the entry that ended the upload.
    pub enqueued_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: u64 = 1_000;

    fn upload(id: usize, begun_ms: u64) -> Upload {
        Upload {
            id: format!("u{id}"),
            blob: "x".to_owned(),
            secret_digest: String::new(),
            expires_ms: begun_ms + TTL,
            has_ended: false,
        }
    }

    fn ids(uploads: &Uploads) -> Vec<&str> {
        uploads.known.iter().map(|upload| upload.id.as_str()).collect()
    }

    fn full(ms: u64) -> Uploads {
        let mut uploads = Uploads::default();
        for n in 0..UPLOADS_ALIVE_MAX {
            assert_eq!(uploads.begin(upload(n, ms), ms), Some(ms + TTL));
        }
        uploads
    }

    #[test]
    fn the_eleventh_is_refused_until_one_is_over() {
        let mut uploads = full(0);
        assert_eq!(uploads.begin(upload(10, 5), 5), None);
        assert_eq!(uploads.known.len(), UPLOADS_ALIVE_MAX, "nothing of it is kept");
        assert_eq!(uploads.end("u3", 6), Ok(true));
        assert_eq!(uploads.begin(upload(10, 7), 7), Some(7 + TTL));
        assert_eq!(uploads.begin(upload(11, 8), 8), None);
        // All but the last have lapsed.
        assert_eq!(uploads.begin(upload(11, TTL - 1), TTL - 1), None);
        assert_eq!(uploads.begin(upload(11, TTL), TTL), Some(2 * TTL));
    }

    #[test]
    fn one_that_is_begun_again_is_the_one_that_there_is() {
        let mut uploads = full(0);
        assert_eq!(uploads.begin(upload(4, 500), 500), Some(TTL));
        assert_eq!(uploads.known.len(), UPLOADS_ALIVE_MAX);
        assert_eq!(uploads.end("u4", 600), Ok(true));
        assert_eq!(uploads.begin(upload(4, 700), 700), Some(TTL), "and has ended");
        assert!(uploads.get("u4").expect("it is known").has_ended);
    }

    #[test]
    fn an_end_is_news_once_and_only_in_time() {
        let mut uploads = full(0);
        assert_eq!(uploads.end("nobody", 1), Err(EndError::Unknown));
        assert_eq!(uploads.end("u0", TTL - 1), Ok(true));
        assert_eq!(uploads.end("u1", TTL), Err(EndError::Lapsed));
        // Whoever did not hear of it may say so once more, at any time.
        assert_eq!(uploads.end("u0", TTL + 1), Ok(false));
    }

    #[test]
    fn of_those_that_are_over_the_oldest_are_forgotten() {
        let mut uploads = Uploads::default();
        for n in 0..3 * UPLOADS_OVER_MAX {
            let ms = n as u64;
            uploads.begin(upload(n, ms), ms).expect("there is room");
            uploads.end(&format!("u{n}"), ms).expect("it is alive");
        }
        uploads.begin(upload(99, 30), 30).expect("there is room");
        let expected: Vec<String> = (20..30).chain([99]).map(|n| format!("u{n}")).collect();
        assert_eq!(ids(&uploads), expected);
        assert_eq!(uploads.end("u19", 31), Err(EndError::Unknown));
    }
}
