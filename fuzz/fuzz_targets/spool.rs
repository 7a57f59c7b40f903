//! A spool whose file changes under it.

#![no_main]

dunlin_fuzz::target!(
    "spool",
    dunlin_storage::fuzzing::spool,
    dunlin_storage::fuzzing::spool_seeds
);
