//! Configurations at the gateway: reading and writing them, and bringing twins in line with them.
//!
//! [`store`] reads and writes, [`runner`] looks over the fleet, [`apply`] changes one device; how REST has it is in
//! `http::configurations`. What a configuration says of a twin is decided in `dunlin_model`. Nothing here is kept: whoever
//! looks finds in the twins' own marks what is still to be done.

pub(crate) mod apply;
pub(crate) mod runner;
pub(crate) mod store;
