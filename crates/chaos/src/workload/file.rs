//! What devices did to bring files, and what services saw and heard of them.
//!
//! Plain data, written to `files.jsonl`; judged by [`crate::invariants::files`]. A file is named as `DEVICE/NAME`, and no
//! name comes twice.

use serde::{Deserialize, Serialize};

use super::operation::Outcome;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its length.
    pub bytes: u64,
    /// [`crate::oracle::digest`] of it.
    pub digest: u64,
}

/// Something that was done or seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A device was given an upload, and is about to bring the file.
    Begun(Content),
    /// The hub said that it has the file.
    Stored,
    /// The device said that it is done.
    Ended(Outcome),
    /// A service read it, or was told that it is not there.
    Read(Option<Content>),
    /// A service was told of it, and of its length.
    Told {
        /// The length.
        bytes: u64,
    },
    /// The service said that it has heard.
    Heard(Outcome),
    /// Of no file: services were told of all that had come, or waited long enough for it.
    HeardOut,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// Which file, if it is about one.
    pub file: String,
    /// What.
    pub what: What,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let content = Content { bytes: 1, digest: 2 };
        for what in [
            What::Begun(content),
            What::Stored,
            What::Ended(Outcome::Ok),
            What::Read(None),
            What::Read(Some(content)),
            What::Told { bytes: 1 },
            What::Heard(Outcome::Unknown),
            What::HeardOut,
        ] {
            let deed = Deed {
                file: "d/f".into(),
                what,
                invoked_us: 3,
                completed_us: 4,
            };
            let line = serde_json::to_string(&deed).unwrap();
            assert_eq!(serde_json::from_str::<Deed>(&line).unwrap(), deed, "{line}");
        }
    }
}
