//! What comes through the doors, as fuzz targets: bytes in, a panic when a decoder breaks its word.
//!
//! Built for `fuzz/` and for tests only. [`mqtt`](mqtt_decode) has packets and sessions; [`amqp`] values and selectors,
//! [`amqp_machine`] a connection and [`amqp_nodes`] what is behind it; [`kafka`] requests; [`provisioning`] devices that
//! register, and what is written of them; [`certificates`] those and the keys of TPMs; [`http_bodies`] and
//! [`http_marks`] what stands in requests of HTTP; `text` names, tokens, and what else stands there. Seeds are made by
//! the encoders themselves where there are any.

mod amqp;
mod amqp_machine;
mod amqp_nodes;
mod bodies;
mod certificates;
mod kafka;
mod marks;
mod mqtt;
mod provisioning;
mod text;

pub use amqp::{amqp, amqp_seeds};
pub use amqp_machine::{amqp_machine, amqp_machine_seeds};
pub use amqp_nodes::{amqp_nodes, amqp_nodes_seeds};
pub use bodies::{http_bodies, http_bodies_seeds};
pub use certificates::{certificates, certificates_seeds};
pub use kafka::{kafka, kafka_seeds};
pub use marks::{http_marks, http_marks_seeds};
pub use mqtt::{
    mqtt_client, mqtt_client_seeds, mqtt_decode, mqtt_decode_seeds, mqtt_session, mqtt_session_seeds,
};
pub use provisioning::{provisioning, provisioning_seeds};
pub use text::{http_request, http_request_seeds, names, names_seeds, tokens, tokens_seeds};

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_keep_their_word_under_mutation() {
        mutate::exercise("mqtt_decode", mqtt_decode, mqtt_decode_seeds(), 20_000);
    }

    #[test]
    fn sessions_keep_their_word_under_mutation() {
        mutate::exercise("mqtt_session", mqtt_session, mqtt_session_seeds(), 20_000);
    }

    #[test]
    fn the_devices_side_keeps_its_word_under_mutation() {
        mutate::exercise("mqtt_client", mqtt_client, mqtt_client_seeds(), 20_000);
    }

    #[test]
    fn frames_and_selectors_keep_their_word_under_mutation() {
        mutate::exercise("amqp", amqp, amqp_seeds(), 20_000);
    }

    #[test]
    fn connections_of_amqp_keep_their_word_under_mutation() {
        mutate::exercise("amqp_machine", amqp_machine, amqp_machine_seeds(), 5_000);
    }

    #[test]
    fn nodes_of_amqp_keep_their_word_under_mutation() {
        mutate::exercise("amqp_nodes", amqp_nodes, amqp_nodes_seeds(), 20_000);
    }

    #[test]
    fn provisioning_keeps_its_word_under_mutation() {
        mutate::exercise("provisioning", provisioning, provisioning_seeds(), 20_000);
    }

    #[test]
    fn certificates_keep_their_word_under_mutation() {
        mutate::exercise("certificates", certificates, certificates_seeds(), 2_000);
    }

    #[test]
    fn bodies_keep_their_word_under_mutation() {
        mutate::exercise("http_bodies", http_bodies, http_bodies_seeds(), 20_000);
    }

    #[test]
    fn marks_keep_their_word_under_mutation() {
        mutate::exercise("http_marks", http_marks, http_marks_seeds(), 20_000);
    }

    #[test]
    fn requests_of_kafka_keep_their_word_under_mutation() {
        mutate::exercise("kafka", kafka, kafka_seeds(), 20_000);
    }

    #[test]
    fn names_keep_their_word_under_mutation() {
        mutate::exercise("names", names, names_seeds(), 20_000);
    }

    #[test]
    fn tokens_keep_their_word_under_mutation() {
        mutate::exercise("tokens", tokens, tokens_seeds(), 20_000);
    }

    #[test]
    fn requests_keep_their_word_under_mutation() {
        mutate::exercise("http_request", http_request, http_request_seeds(), 20_000);
    }
}
