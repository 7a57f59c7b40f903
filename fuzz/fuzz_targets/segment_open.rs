//! Event segments from a disk or a peer.

#![no_main]

dunlin_fuzz::target!(
    "segment_open",
    dunlin_storage::fuzzing::segment_open,
    dunlin_storage::fuzzing::segment_open_seeds
);
