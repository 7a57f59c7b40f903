//! The journal of the state's database, and the names in it.

#![no_main]

dunlin_fuzz::target!(
    "state_journal",
    dunlin_storage::fuzzing::state_journal,
    dunlin_storage::fuzzing::state_journal_seeds
);
