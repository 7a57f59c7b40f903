//! Certificates to node ids, and what administrators ask.

#![no_main]

dunlin_fuzz::target!(
    "identities",
    dunlin_cluster::fuzzing::identities,
    dunlin_cluster::fuzzing::identities_seeds
);
