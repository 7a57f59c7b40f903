//! `$cbs`: a client shows the token that the links of its connection need.
//!
//! Decides how a request is read and what it is answered. Whether a token counts is decided in
//! [`tokens`](super::tokens).

use dunlin_model::audit::AuditRecord;

use super::message::{Answer, Request};
use super::performative::condition;
use super::tokens::{Judge, TokenError, Tokens};
use crate::auth::SasToken;
use crate::http::authorize::claimed;

/// The only kind of token there is.
const TOKEN_TYPE: &str = "servicebus.windows.net:sastoken";

/// Answers a request; a refusal comes with its record.
pub(crate) fn answer(
    request: &Request,
    tokens: &mut Tokens,
    judge: Judge<'_>,
    is_fresh: bool,
) -> (Answer, Option<AuditRecord>) {
    let plain =
        |status, description: &str, condition| (Answer::new(status, description, Some(condition)), None);
    if request.application_text("operation") != Some("put-token") {
        return plain(501, "the operation is put-token", condition::NOT_IMPLEMENTED);
    }
    let kind = request.application_text("type");
    let (Some(audience), Some(text)) = (request.application_text("name"), request.body.text()) else {
        return plain(400, "a token has a name and a body", condition::INVALID_FIELD);
    };
    if kind.is_some_and(|kind| kind != TOKEN_TYPE) {
        return plain(400, "the token is of another type", condition::INVALID_FIELD);
    }
    // What a node does not know that starts or is cut off is no reason to turn somebody away.
    if !is_fresh {
        return plain(503, "cut off from the cluster", condition::TIMEOUT);
    }
    match tokens.put(audience, text, judge) {
        Ok(()) => (Answer::new(202, "Accepted", None), None),
        Err(TokenError::TooMany) => plain(429, &TokenError::TooMany.to_string(), condition::RESOURCE_LIMIT),
        Err(TokenError::Refused(why)) => {
            let token = SasToken::parse(text).ok();
            let who = token.and_then(|token| token.policy).unwrap_or_default();
            let record =
                AuditRecord::refused("amqp.token", claimed(&who), claimed(audience), why.to_string());
            // Clients look at the number only where no condition stands beside it.
            (Answer::new(401, "the token does not count", None), Some(record))
        }
    }
}
