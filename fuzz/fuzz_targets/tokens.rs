//! Shared access tokens and connection strings.

#![no_main]

dunlin_fuzz::target!(
    "tokens",
    dunlin_gateway::fuzzing::tokens,
    dunlin_gateway::fuzzing::tokens_seeds
);
