//! Memberships, the directory, and answers to whoever sends a snapshot.

#![no_main]

dunlin_fuzz::target!(
    "kept_state",
    dunlin_cluster::fuzzing::kept_state,
    dunlin_cluster::fuzzing::kept_state_seeds
);
