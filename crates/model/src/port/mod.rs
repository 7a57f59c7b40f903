//! The walls between the crates: one trait each, with the kinds of failure a caller can meet.
//!
//! A shell names only these and the vocabulary of this crate; who stands behind a trait is decided
//! once, in `node`.

mod audit;
mod blobs;
mod client;
mod clock;
mod outbound;
mod replication;
mod server;
pub mod store;
mod trace;

pub use audit::*;
pub use blobs::*;
pub use client::*;
pub use clock::*;
pub use outbound::*;
pub use replication::*;
pub use server::*;
pub use store::*;
pub use trace::*;

use std::future::Future;
use std::pin::Pin;

/// A future that can be kept and sent, as object-safe traits need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
