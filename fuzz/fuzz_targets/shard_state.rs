//! What a shard keeps by hand: outcomes, meta, notes, trace contexts, device records.

#![no_main]

dunlin_fuzz::target!(
    "shard_state",
    dunlin_model::fuzzing::shard_state,
    dunlin_model::fuzzing::shard_state_seeds
);
