//! Twins over MQTT: what a request becomes, and what its answer looks like.
//!
//! Documents are checked here before anything is submitted; how they merge is the model's part. An answer has
//! the status in its topic, and for the SDKs only that counts.

use bytes::Bytes;
use dunlin_model::command::{Consistency, Outcome, Query, Refusal, Settled, View, WriteReceipt};
use dunlin_model::id::DeviceId;
use dunlin_model::port::{QueryError, ShardClient, SubmitError};
use dunlin_model::twin::document::versioned;
use dunlin_model::twin::{Object, TEXT_BYTES_MAX, Twin, check, text_of};
use serde_json::{Value, json};

use crate::quota::Over;

/// What a device is told about its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    status: u16,
    version: Option<u64>,
    body: Bytes,
    /// Version of what is desired, if the answer tells it.
    desired_version: Option<u64>,
    /// Where the device's own change took effect, if the answer is to one.
    receipt: Option<WriteReceipt>,
}

/// Why there is no answer: the session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fenced;

impl Answer {
    fn error(status: u16, message: &str) -> Self {
        let body = json!({ "errorCode": u32::from(status) * 1000 + 1, "message": message });
        Self {
            status,
            version: None,
            body: body.to_string().into(),
            desired_version: None,
            receipt: None,
        }
    }

    /// That the request itself makes no sense.
    pub(crate) fn invalid(message: &str) -> Self {
        Self::error(400, message)
    }

    /// That the hub's plan does not allow it now.
    pub(crate) fn over(over: Over) -> Self {
        match over {
            Over::Rate => Self::error(429, &over.to_string()),
            Over::Day => Self::error(403, &over.to_string()),
            Over::Unreachable => Self::error(503, &over.to_string()),
        }
    }

    fn submit_error(error: &SubmitError) -> Self {
        let status = match error {
            SubmitError::Unknown => 504,
            SubmitError::Busy(_) => 429,
            SubmitError::CutOff | SubmitError::StorageFull => 503,
        };
        Self::error(status, &error.to_string())
    }

    /// Where it is published.
    pub(crate) fn topic(&self, rid: &str) -> String {
        let version = self.version.map(|version| format!("&$version={version}"));
        format!(
            "$iothub/twin/res/{}/?$rid={rid}{}",
            self.status,
            version.unwrap_or_default()
        )
    }

    /// Version of what is desired that the device knows with this.
    pub(crate) fn desired_version(&self) -> Option<u64> {
        self.desired_version
    }

    /// Where the device's own change took effect.
    pub(crate) fn receipt(&self) -> Option<WriteReceipt> {
        self.receipt
    }

    /// What is published.
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }
}

/// A merge document as it goes into a command: checked, and without spaces.
pub(crate) fn change_text(payload: &[u8]) -> Result<String, String> {
    let document: Value =
        serde_json::from_slice(payload).map_err(|error| format!("the body is no JSON: {error}"))?;
    let Value::Object(document) = document else {
        return Err("the body is no object".to_owned());
    };
    checked(&document)
}

/// The text of a section or of a change of one, if it may come in.
pub(crate) fn checked(section: &Object) -> Result<String, String> {
    check::check(section).map_err(|fault| fault.to_string())?;
    let text = text_of(section);
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("the document has more than {TEXT_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// `$iothub/twin/GET`: both sections as the device sees them, with every write that was acknowledged before.
pub(crate) async fn get(client: &dyn ShardClient, device: DeviceId) -> Answer {
    match read(client, device).await {
        Ok(twin) => Answer {
            status: 200,
            version: None,
            body: json!({ "desired": versioned(&twin.desired), "reported": versioned(&twin.reported) })
                .to_string()
                .into(),
            desired_version: Some(twin.desired.version),
            receipt: None,
        },
        Err(answer) => answer,
    }
}

/// The twin, with every write that was acknowledged before; otherwise what a device is told.
pub(crate) async fn read(client: &dyn ShardClient, device: DeviceId) -> Result<Twin, Answer> {
    let view = match client.query(Query::Twin(device), Consistency::Linearizable).await {
        Ok(View::Twin(Some(view))) => view,
        Ok(View::Twin(None)) => return Err(Answer::error(404, "the device does not exist")),
        Ok(_) => return Err(Answer::error(500, "an answer of another kind")),
        Err(error @ (QueryError::Unavailable(_) | QueryError::CutOff | QueryError::Unknown)) => {
            return Err(Answer::error(503, &error.to_string()));
        }
        Err(error) => return Err(Answer::error(500, &error.to_string())),
    };
    view.document()
        .map_err(|error| Answer::error(500, &error.to_string()))
}

/// What `$iothub/twin/PATCH/properties/reported` came to.
pub(crate) fn answer_report(settled: Result<Settled, SubmitError>) -> Result<Answer, Fenced> {
    let receipt = settled.as_ref().ok().map(|settled| settled.receipt);
    Ok(match settled.map(|settled| settled.outcome) {
        Ok(Outcome::TwinChanged { version }) => Answer {
            status: 204,
            version: Some(version),
            body: Bytes::new(),
            desired_version: None,
            receipt,
        },
        Ok(Outcome::Refused(Refusal::VersionMismatch)) => {
            Answer::error(412, "the reported properties have another version")
        }
        Ok(Outcome::Refused(refusal @ (Refusal::TwinTooLarge | Refusal::TwinUnreadable))) => {
            Answer::invalid(&refusal.to_string())
        }
        Ok(Outcome::Refused(_)) => return Err(Fenced),
        Ok(_) => Answer::error(500, "an outcome of another kind"),
        Err(error) => Answer::submit_error(&error),
    })
}

/// Topic and body of a note that services want something else.
pub(crate) fn desired_note(version: u64, patch: &str) -> (String, String) {
    let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
    let rest = patch.strip_prefix('{').unwrap_or("}");
    let comma = if rest == "}" { "" } else { "," };
    (topic, format!("{{\"$version\":{version}{comma}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_the_patch_with_its_version() {
        for (patch, body) in [
            ("{}", json!({"$version": 3})),
            (
                r#"{"a":null,"b":{"c":1}}"#,
                json!({"a": null, "b": {"c": 1}, "$version": 3}),
            ),
        ] {
            let (topic, note) = desired_note(3, patch);
            assert_eq!(topic, "$iothub/twin/PATCH/properties/desired/?$version=3");
            assert_eq!(serde_json::from_str::<Value>(&note).unwrap(), body);
        }
    }

    #[test]
    fn documents_are_checked_before_they_leave() {
        assert_eq!(change_text(b" { \"a\" : [ 1 ] } ").unwrap(), r#"{"a":[1]}"#);
        for wrong in [
            &b"[1]"[..],
            b"null",
            b"",
            b"{\"a\"",
            b"{\"$a\":1}",
            b"{\"a\":[null]}",
        ] {
            assert!(change_text(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        assert!(change_text(deep.as_bytes()).is_err());
        let large = json!({ "a": vec!["\u{1}".repeat(4000); 8] }).to_string();
        assert!(
            change_text(large.as_bytes()).is_err(),
            "192,000 bytes once escaped"
        );
    }

    #[test]
    fn an_answer_says_in_its_topic_what_came_of_it() {
        let answer = Answer {
            status: 204,
            version: Some(7),
            body: Bytes::new(),
            desired_version: None,
            receipt: None,
        };
        assert_eq!(answer.topic("r-1"), "$iothub/twin/res/204/?$rid=r-1&$version=7");
        assert_eq!(Answer::invalid("no").topic("r"), "$iothub/twin/res/400/?$rid=r");
    }
}
