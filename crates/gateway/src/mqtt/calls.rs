//! Direct methods on one connection: which calls the device was sent, and who waits for the answers.
//!
//! Each call is sent once. Its number holds for this session alone, so that an answer that comes late, in a later
//! session, fits nothing. How long a caller waits is the caller's business: one that has gone leaves its place.

use std::collections::BTreeMap;

use dunlin_model::method::{METHOD_PAYLOAD_BYTES_MAX, MethodAnswer, MethodError};
use serde::de::IgnoredAny;
use tokio::sync::oneshot;

/// Calls that a device may have unanswered. One more is refused.
pub(crate) const CALLS_UNANSWERED_MAX: usize = 64;

type Answer = Result<MethodAnswer, MethodError>;

/// A call on its way to the device.
#[derive(Debug)]
pub(crate) struct Call {
    name: String,
    payload: String,
    caller: oneshot::Sender<Answer>,
}

impl Call {
    /// A call, and where its answer will come. Nothing comes there if the connection ends before.
    pub(crate) fn new(
        name: impl Into<String>,
        payload: impl Into<String>,
    ) -> (oneshot::Receiver<Answer>, Call) {
        let (caller, answer) = oneshot::channel();
        let (name, payload) = (name.into(), payload.into());
        (
            answer,
            Call {
                name,
                payload,
                caller,
            },
        )
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.caller.is_closed()
    }
}

/// The calls of one connection.
#[derive(Debug)]
pub(crate) struct Calls {
    epoch: u64,
    count: u64,
    unanswered: BTreeMap<u64, oneshot::Sender<Answer>>,
}

impl Calls {
    /// Those of the session of `epoch`.
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            count: 0,
            unanswered: BTreeMap::new(),
        }
    }

    /// Takes a call. Returns topic and payload to publish, or nothing for a call that is not to be sent.
    pub(crate) fn handle_call(&mut self, call: Call) -> Option<(String, String)> {
        if call.is_given_up() {
            return None;
        }
        self.unanswered.retain(|_, caller| !caller.is_closed());
        if self.unanswered.len() >= CALLS_UNANSWERED_MAX {
            let full = MethodError::TooMany("calls that this device has not answered".into());
            let _ = call.caller.send(Err(full)); // whoever has gone needs no answer
            return None;
        }
        self.count += 1;
        self.unanswered.insert(self.count, call.caller);
        let topic = format!(
            "$iothub/methods/POST/{}/?$rid={:x}-{:x}",
            call.name, self.epoch, self.count
        );
        Some((topic, call.payload))
    }

    /// Takes an answer. One that fits no call is nobody's.
    pub(crate) fn handle_answer(&mut self, rid: &str, status: i64, payload: &[u8]) {
        let number = rid
            .split_once('-')
            .filter(|(epoch, _)| u64::from_str_radix(epoch, 16) == Ok(self.epoch))
            .and_then(|(_, number)| u64::from_str_radix(number, 16).ok());
        let Some(caller) = number.and_then(|number| self.unanswered.remove(&number)) else {
            return;
        };
        let _ = caller.send(read(status, payload)); // whoever has gone needs no answer
    }
}

fn read(status: i64, payload: &[u8]) -> Answer {
    let text = std::str::from_utf8(payload).map_err(|_| MethodError::Unreadable)?;
    let is_json = text.is_empty() || serde_json::from_str::<IgnoredAny>(text).is_ok();
    if !is_json || text.len() > METHOD_PAYLOAD_BYTES_MAX {
        return Err(MethodError::Unreadable);
    }
    Ok(MethodAnswer {
        status,
        payload: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(calls: &mut Calls) -> (oneshot::Receiver<Answer>, String) {
        let (answer, call) = Call::new("reboot", r#"{"in": 5}"#);
        let (topic, payload) = calls.handle_call(call).expect("it is sent");
        assert_eq!(payload, r#"{"in": 5}"#);
        let rid = topic
            .strip_prefix("$iothub/methods/POST/reboot/?$rid=")
            .expect("the topic of a call");
        (answer, rid.to_owned())
    }

    #[test]
    fn an_answer_goes_to_its_call_and_to_no_other() {
        let mut calls = Calls::new(0x1f);
        let (mut first, rid_first) = sent(&mut calls);
        let (mut second, rid_second) = sent(&mut calls);
        assert_eq!((rid_first.as_str(), rid_second.as_str()), ("1f-1", "1f-2"));
        for stranger in ["", "1f-3", "1e-2", "2", "1f-", "-2", "1f-2-2", "é-2"] {
            calls.handle_answer(stranger, 200, b"1");
        }
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        calls.handle_answer(&rid_second, -7, b"");
        calls.handle_answer(&rid_second, 200, b"\"again\"");
        let answer = MethodAnswer {
            status: -7,
            payload: String::new(),
        };
        assert_eq!(second.try_recv(), Ok(Ok(answer)));
        calls.handle_answer(&rid_first, 200, b"{");
        assert_eq!(first.try_recv(), Ok(Err(MethodError::Unreadable)));
    }

    #[test]
    fn whoever_gives_up_leaves_a_place() {
        let mut calls = Calls::new(1);
        let (answer, call) = Call::new("m", "");
        drop(answer);
        assert_eq!(calls.handle_call(call), None, "nobody waits for it");
        let waiting: Vec<_> = (0..CALLS_UNANSWERED_MAX).map(|_| sent(&mut calls)).collect();
        let (mut answer, call) = Call::new("m", "");
        assert_eq!(calls.handle_call(call), None);
        assert!(matches!(answer.try_recv(), Ok(Err(MethodError::TooMany(_)))));
        drop(waiting);
        sent(&mut calls);
    }
}
