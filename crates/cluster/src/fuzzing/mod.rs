//! What nodes tell each other, and what they remember, as fuzz targets: bytes in, a panic when a decoder
//! breaks its word.
//!
//! Built for `fuzz/` and for tests only. `messages` has everything that is decoded from one frame,
//! `snapshot` a whole snapshot into a replica, `kept` what a replica keeps for itself and what it answers to
//! whoever sends it a snapshot. A peer has shown a certificate of the cluster's authority before any of what it
//! sends is read; it may still be of another version, or broken.

mod kept;
mod messages;
mod snapshot;

pub use kept::{kept_state, kept_state_seeds};
pub use messages::{
    identities, identities_seeds, node_frames, node_frames_seeds, remembered, remembered_seeds,
};
pub use snapshot::{snapshot_install, snapshot_install_seeds};

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_word_under_mutation() {
        mutate::exercise("node_frames", node_frames, node_frames_seeds(), 20_000);
    }

    #[test]
    fn identities_keep_their_word_under_mutation() {
        mutate::exercise("identities", identities, identities_seeds(), 5_000);
    }

    #[test]
    fn what_a_node_remembers_keeps_its_word_under_mutation() {
        mutate::exercise("remembered", remembered, remembered_seeds(), 5_000);
    }

    #[test]
    fn what_a_replica_keeps_keeps_its_word_under_mutation() {
        mutate::exercise("kept_state", kept_state, kept_state_seeds(), 2_000);
    }

    #[test]
    fn snapshots_keep_their_word_under_mutation() {
        mutate::exercise(
            "snapshot_install",
            snapshot_install,
            snapshot_install_seeds(),
            5_000,
        );
    }
}
