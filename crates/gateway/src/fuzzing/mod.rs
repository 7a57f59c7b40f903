//! What comes through the doors, as fuzz targets: bytes in, a panic when a decoder breaks its word.
//!
//! Built for `fuzz/` and for tests only. [`mqtt`](mqtt_decode) has packets and sessions, [`amqp`] frames and selectors, [`kafka`] requests, `text` names,
//! tokens and what stands in requests. Seeds are made by the encoders themselves.

mod amqp;
mod kafka;
mod mqtt;
mod text;

pub use amqp::{amqp, amqp_seeds};
pub use kafka::{kafka, kafka_seeds};
pub use mqtt::{
    mqtt_client, mqtt_client_seeds, mqtt_decode, mqtt_decode_seeds, mqtt_session, mqtt_session_seeds,
};
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
