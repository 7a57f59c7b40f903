//! Bodies, conditions, cursors and headers of HTTP requests.

#![no_main]

dunlin_fuzz::target!(
    "http_request",
    dunlin_gateway::fuzzing::http_request,
    dunlin_gateway::fuzzing::http_request_seeds
);
