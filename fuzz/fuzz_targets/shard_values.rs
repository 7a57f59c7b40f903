//! What a shard keeps as JSON, and its keys.

#![no_main]

dunlin_fuzz::target!(
    "shard_values",
    dunlin_model::fuzzing::shard_values,
    dunlin_model::fuzzing::shard_values_seeds
);
