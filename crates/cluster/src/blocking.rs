//! Work that blocks, kept off the threads that must not wait: the disk's, mostly.
//!
//! On a runtime with one thread there is nobody else to do it, and in a simulation it must happen at one
//! place in the order of things: there it is done at once.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

/// Does `work` where it may block. An error means that it panicked, or that the runtime ends.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
