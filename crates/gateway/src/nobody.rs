//! An outside where nobody answers: for doors that are to ask nobody.

use dunlin_model::port::{BoxFuture, Outbound, OutboundAnswer, OutboundCall};

/// Answers nothing.
pub(crate) struct Nobody;

impl Outbound for Nobody {
    fn call(&self, _call: OutboundCall) -> BoxFuture<'_, Result<OutboundAnswer, String>> {
        Box::pin(std::future::ready(Err("nobody is asked from here".to_owned())))
    }
}
