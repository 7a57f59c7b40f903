//! A connection of AMQP that is fed a stranger's bytes.

#![no_main]

dunlin_fuzz::target!(
    "amqp_machine",
    dunlin_gateway::fuzzing::amqp_machine,
    dunlin_gateway::fuzzing::amqp_machine_seeds
);
