//! Telemetry records as they travel and rest.

#![no_main]

dunlin_fuzz::target!(
    "telemetry_record",
    dunlin_model::fuzzing::telemetry_record,
    dunlin_model::fuzzing::telemetry_record_seeds
);
