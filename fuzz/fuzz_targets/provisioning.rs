//! Devices that register, enrolments, and what webhooks and other hubs answer.

#![no_main]

dunlin_fuzz::target!(
    "provisioning",
    dunlin_gateway::fuzzing::provisioning,
    dunlin_gateway::fuzzing::provisioning_seeds
);
