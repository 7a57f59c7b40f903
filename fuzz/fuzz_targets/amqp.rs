//! Values of AMQP and selectors of its readers.

#![no_main]

dunlin_fuzz::target!(
    "amqp",
    dunlin_gateway::fuzzing::amqp,
    dunlin_gateway::fuzzing::amqp_seeds
);
