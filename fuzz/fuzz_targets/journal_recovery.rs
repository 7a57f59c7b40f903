//! A journal's folder of fuzzed bytes, on a disk in memory.

#![no_main]

dunlin_fuzz::target!(
    "journal_recovery",
    dunlin_storage::fuzzing::journal_recovery,
    dunlin_storage::fuzzing::journal_recovery_seeds
);
