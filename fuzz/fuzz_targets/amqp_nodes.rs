//! Frames, messages, requests and addresses of AMQP.

#![no_main]

dunlin_fuzz::target!(
    "amqp_nodes",
    dunlin_gateway::fuzzing::amqp_nodes,
    dunlin_gateway::fuzzing::amqp_nodes_seeds
);
