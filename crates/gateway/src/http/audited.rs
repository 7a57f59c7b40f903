//! How the record of a call comes to the audit: as an extension of its answer, completed and kept by the
//! middleware that sees every answer.
//!
//! An answer that tells of a change leaves only when the record is on disk; a refusal waits for nothing.

use std::net::SocketAddr;

use axum::response::Response;
use dunlin_model::audit::{AuditOutcome, AuditRecord};

use super::error::ApiError;
use crate::shared::Shared;

/// A record on its way.
#[derive(Debug, Clone)]
pub(crate) struct Audited(pub(crate) AuditRecord);

/// Lets a record travel with the answer that it is about: as it is if the call went well, with the reason
/// if not.
pub(crate) fn audited(record: AuditRecord, answer: Result<Response, ApiError>) -> Result<Response, ApiError> {
    match answer {
        Ok(mut response) => {
            response.extensions_mut().insert(Audited(record));
            Ok(response)
        }
        Err(error) => {
            let outcome = error.audit_outcome();
            Err(error.audited(AuditRecord { outcome, ..record }))
        }
    }
}

/// Keeps what travels with `response`.
pub(crate) async fn keep(shared: &Shared, peer: Option<SocketAddr>, response: &mut Response) {
    if let Some(Audited(record)) = response.extensions_mut().remove::<Audited>() {
        write(shared, peer, record).await;
    }
}

/// Keeps one record of a call from `peer`, waiting for the disk unless it is of a refusal.
pub(crate) async fn write(shared: &Shared, peer: Option<SocketAddr>, mut record: AuditRecord) {
    record.from = peer.map(|peer| peer.to_string()).unwrap_or_default();
    match record.outcome {
        AuditOutcome::Refused(_) => shared.hooks.audit.refused(record),
        _ => shared.hooks.audit.record(record).await,
    }
}
