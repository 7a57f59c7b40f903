//! User names, topics, filters, property bags, device ids.

#![no_main]

dunlin_fuzz::target!(
    "names",
    dunlin_gateway::fuzzing::names,
    dunlin_gateway::fuzzing::names_seeds
);
