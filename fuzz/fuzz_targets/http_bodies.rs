//! Bodies of HTTP requests.

#![no_main]

dunlin_fuzz::target!(
    "http_bodies",
    dunlin_gateway::fuzzing::http_bodies,
    dunlin_gateway::fuzzing::http_bodies_seeds
);
