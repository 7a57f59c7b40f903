//! Cursors, locks, ETags, times and queries of HTTP requests.

#![no_main]

dunlin_fuzz::target!(
    "http_marks",
    dunlin_gateway::fuzzing::http_marks,
    dunlin_gateway::fuzzing::http_marks_seeds
);
