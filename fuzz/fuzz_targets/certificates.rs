//! Certificates of devices and authorities, and public keys of TPMs.

#![no_main]

dunlin_fuzz::target!(
    "certificates",
    dunlin_gateway::fuzzing::certificates,
    dunlin_gateway::fuzzing::certificates_seeds
);
