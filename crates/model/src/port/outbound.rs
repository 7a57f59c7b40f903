//! How the doors ask somebody outside the cluster over HTTPS: another hub, or a webhook. `node` implements it.

use bytes::Bytes;

use super::BoxFuture;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundCall {
    /// `GET`, `PUT`, ...
    pub method: &'static str,
    /// Where; whoever calls has checked that it may be asked.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// May be empty.
    pub body: Bytes,
    /// Certificates (PEM) of who vouches for the other side, if not those whom the system trusts.
    pub authority: Option<String>,
    /// Time for the whole of it.
    pub wait_ms: u64,
    /// Bytes of an answer; a longer one is an error.
    pub answer_bytes_max: usize,
}

/// An answer, whatever its status. Redirections are answers, and are not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundAnswer {
    /// Its status.
    pub status: u16,
    /// What it says.
    pub body: Bytes,
}

/// Asks somebody outside, once.
pub trait Outbound: Send + Sync + 'static {
    /// The answer, or why there is none; then it is unknown whether the other side did what it was asked.
    fn call(&self, call: OutboundCall) -> BoxFuture<'_, Result<OutboundAnswer, String>>;
}
