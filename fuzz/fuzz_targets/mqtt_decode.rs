//! MQTT 3.1.1 and 5, at once and in pieces.

#![no_main]

dunlin_fuzz::target!(
    "mqtt_decode",
    dunlin_gateway::fuzzing::mqtt_decode,
    dunlin_gateway::fuzzing::mqtt_decode_seeds
);
