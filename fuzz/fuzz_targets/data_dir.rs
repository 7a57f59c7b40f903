//! The small files of a data directory.

#![no_main]

dunlin_fuzz::target!(
    "data_dir",
    dunlin_storage::fuzzing::data_dir,
    dunlin_storage::fuzzing::data_dir_seeds
);
