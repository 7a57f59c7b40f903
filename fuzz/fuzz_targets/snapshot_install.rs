//! A snapshot of fuzzed frames into a replica.

#![no_main]

dunlin_fuzz::target!(
    "snapshot_install",
    dunlin_cluster::fuzzing::snapshot_install,
    dunlin_cluster::fuzzing::snapshot_install_seeds
);
