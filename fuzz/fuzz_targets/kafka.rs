//! Requests of Kafka's clients.

#![no_main]

dunlin_fuzz::target!(
    "kafka",
    dunlin_gateway::fuzzing::kafka,
    dunlin_gateway::fuzzing::kafka_seeds
);
