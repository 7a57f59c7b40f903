//! What a hub may send to our own client.

#![no_main]

dunlin_fuzz::target!(
    "mqtt_client",
    dunlin_gateway::fuzzing::mqtt_client,
    dunlin_gateway::fuzzing::mqtt_client_seeds
);
