//! A session that is fed packets, acknowledgements and time.

#![no_main]

dunlin_fuzz::target!(
    "mqtt_session",
    dunlin_gateway::fuzzing::mqtt_session,
    dunlin_gateway::fuzzing::mqtt_session_seeds
);
