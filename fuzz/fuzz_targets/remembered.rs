//! The files in which a node remembers its cluster.

#![no_main]

dunlin_fuzz::target!(
    "remembered",
    dunlin_cluster::fuzzing::remembered,
    dunlin_cluster::fuzzing::remembered_seeds
);
