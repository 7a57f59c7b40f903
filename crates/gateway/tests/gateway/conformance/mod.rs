//! MQTT 3.1.1 and 5, statement by statement. Which test holds which statement, and what is left out and why, is in
//! `docs/mqtt-conformance.md`; `ledger` holds that page against the tests, and `raw` speaks to the hub in packets.
//!
//! Above each test stand the statements that it holds, by version. Its name begins with the first of them.

mod acknowledgement;
mod aliases;
mod connack;
mod connect;
mod expiry;
mod flow_control;
mod keep_alive;
mod ledger;
mod malformed;
mod order;
mod publish;
mod raw;
mod reason_codes;
mod sessions;
mod sizes;
mod subscribe;
mod topics;
mod transport;
mod will;
