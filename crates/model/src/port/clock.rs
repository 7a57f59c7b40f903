//! Time, as shells ask for it. `node` gives them the machine's clock, tests and simulation their own.

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970 by the wall clock. May jump; nothing that must be safe rests on it.
    fn wall_ms(&self) -> u64;

    /// Milliseconds since some start, never going back. For time-outs and leases.
    fn monotonic_ms(&self) -> u64;
}
