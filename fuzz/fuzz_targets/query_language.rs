//! Queries over the fleet and conditions: what is read, and what it says about a twin.

#![no_main]

dunlin_fuzz::target!(
    "query_language",
    dunlin_model::fuzzing::query_language,
    dunlin_model::fuzzing::query_language_seeds
);
