//! Following one message through the house. `node` implements it; where nothing is followed there is
//! no tracer, and the price is one branch.

use std::fmt::Display;

use crate::trace::TraceContext;

/// Who decides which messages are followed, and where their spans go. Calls never block.
pub trait Tracer: Send + Sync + 'static {
    /// A message has come in at a door: a span that begins its trace, if it is one to be followed.
    fn begin(&self, name: &'static str) -> Option<Box<dyn TraceSpan>>;

    /// A span below `parent`, which may be a span of another node.
    fn child(&self, name: &'static str, parent: TraceContext) -> Box<dyn TraceSpan>;
}

/// Something that takes a while. It ends when it is dropped.
pub trait TraceSpan: Send + Sync {
    /// What its children need to know.
    fn context(&self) -> TraceContext;

    /// Adds a fact. Keys are the same words everywhere; never a secret or a payload.
    fn note(&self, key: &'static str, fact: &dyn Display);
}
