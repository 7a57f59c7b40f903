//! Where deeds go while they happen, so that they can be written down outside the nodes' reach.
//!
//! Devices hand over what they did ([`Recorder::note`]) and never wait for a disk; whoever writes takes
//! it away in batches ([`Recorder::take`]). Deeds of one device stay in order. What does not fit is
//! dropped and said so: an incomplete record proves nothing, and no run with one passes.

use serde::{Deserialize, Serialize};

use crate::oracle::Deed;
use crate::waiting::Waiting;

/// Deeds that may wait for the writer, about 48 MiB of them.
pub const DEEDS_WAITING_MAX: usize = 1_000_000;

/// A deed and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Place of the device in the history.
    #[serde(rename = "d")]
    pub device: u32,
    /// What it did.
    #[serde(flatten)]
    pub deed: Deed,
}

/// Deeds that wait to be written down.
#[derive(Debug)]
pub struct Recorder(Waiting<Recorded>);

impl Default for Recorder {
    fn default() -> Self {
        Self(Waiting::new(DEEDS_WAITING_MAX))
    }
}

impl Recorder {
    /// Takes in a deed.
    pub fn note(&self, device: u32, deed: Deed) {
        self.0.note(Recorded { device, deed });
    }

    /// Everything that waits, and how many deeds were dropped so far.
    pub fn take(&self) -> (Vec<Recorded>, u64) {
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let recorder = Recorder::default();
        for us in 0..=DEEDS_WAITING_MAX as u64 {
            recorder.note(1, Deed::Lost { us });
        }
        let (deeds, dropped) = recorder.take();
        assert_eq!((deeds.len(), dropped), (DEEDS_WAITING_MAX, 1));
        recorder.note(2, Deed::Opened { node: 0, us: 1 });
        let (deeds, dropped) = recorder.take();
        assert_eq!((deeds.len(), deeds[0].device, dropped), (1, 2, 1));
        let line = serde_json::to_string(&deeds[0]).unwrap();
        assert_eq!(line, r#"{"d":2,"op":"opened","node":0,"us":1}"#);
        assert_eq!(serde_json::from_str::<Recorded>(&line).unwrap(), deeds[0]);
    }
}
