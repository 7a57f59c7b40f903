//! Messages of AMQP 1.0: requests taken apart, answers put together.
//!
//! Decides what of a message's sections a node gets to see. What an event looks like is decided in
//! [`event`](super::event).

use bytes::{Bytes, BytesMut};

use super::performative::field;
use super::value::{Malformed, Reader, Value};

/// Numbers of a message's sections.
pub(crate) mod section {
    pub(crate) const ANNOTATIONS: u64 = 0x72;
    pub(crate) const PROPERTIES: u64 = 0x73;
    pub(crate) const APPLICATION: u64 = 0x74;
    pub(crate) const DATA: u64 = 0x75;
    pub(crate) const VALUE: u64 = 0x77;
}

/// Places of fields among the properties.
pub(crate) mod property {
    pub(crate) const MESSAGE_ID: usize = 0;
    pub(crate) const USER_ID: usize = 1;
    pub(crate) const TO: usize = 2;
    pub(crate) const REPLY_TO: usize = 4;
    pub(crate) const CORRELATION_ID: usize = 5;
    pub(crate) const CONTENT_TYPE: usize = 6;
    pub(crate) const CONTENT_ENCODING: usize = 7;
    pub(crate) const ABSOLUTE_EXPIRY: usize = 8;
    /// All fields there are.
    pub(crate) const COUNT: usize = 13;
}

/// A request, as far as nodes look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    properties: Vec<Value>,
    pub(crate) application: Vec<(Value, Value)>,
    /// The value of its body; null for other kinds of bodies.
    pub(crate) body: Value,
    /// What stands in its sections of data, one after the other.
    pub(crate) data: BytesMut,
}

impl Request {
    /// Takes a message apart.
    pub(crate) fn read(message: &Bytes) -> Result<Self, Malformed> {
        let mut request = Self {
            properties: Vec::new(),
            application: Vec::new(),
            body: Value::Null,
            data: BytesMut::new(),
        };
        let mut reader = Reader::new(message);
        while !reader.rest().is_empty() {
            let Value::Described(descriptor, value) = reader.value()? else {
                return Err(Malformed("a section is not described"));
            };
            match (descriptor.unsigned(), *value) {
                (Some(section::PROPERTIES), Value::List(fields)) => request.properties = fields,
                (Some(section::APPLICATION), Value::Map(entries)) => request.application = entries,
                (Some(section::VALUE), body) => request.body = body,
                (Some(section::DATA), Value::Binary(data)) => request.data.extend_from_slice(&data),
                _ => {}
            }
        }
        Ok(request)
    }

    /// A field of its properties.
    pub(crate) fn property(&self, place: usize) -> &Value {
        field(&self.properties, place)
    }

    /// The text of an application property.
    pub(crate) fn application_text(&self, name: &str) -> Option<&str> {
        let found = self.application.iter().find(|(key, _)| key.text() == Some(name));
        found.and_then(|(_, value)| value.text())
    }
}

/// How a request went, as management nodes tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// As HTTP has them.
    pub(crate) status: i32,
    pub(crate) description: String,
    /// The error condition that goes with it.
    pub(crate) condition: Option<&'static str>,
    pub(crate) body: Value,
}

impl Answer {
    /// One without a body.
    pub(crate) fn new(status: i32, description: impl Into<String>, condition: Option<&'static str>) -> Self {
        Self {
            status,
            description: description.into(),
            condition,
            body: Value::Null,
        }
    }

    /// The message that carries it, to the one who sent `request`.
    pub(crate) fn to_message(&self, request: &Request) -> Bytes {
        let mut properties = vec![Value::Null; property::COUNT];
        properties[property::CORRELATION_ID] = request.property(property::MESSAGE_ID).clone();
        let mut application = vec![
            (Value::string("status-code"), Value::Int(self.status)),
            (
                Value::string("status-description"),
                Value::string(&*self.description),
            ),
        ];
        if let Some(condition) = self.condition {
            application.push((Value::string("error-condition"), Value::symbol(condition)));
        }
        let mut out = BytesMut::new();
        put(&mut out, section::PROPERTIES, Value::List(properties));
        put(&mut out, section::APPLICATION, Value::Map(application));
        put(&mut out, section::VALUE, self.body.clone());
        out.freeze()
    }
}

/// Writes a section.
pub(crate) fn put(out: &mut BytesMut, section: u64, content: Value) {
    Value::Described(Box::new(Value::Ulong(section)), Box::new(content)).encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_request_with_the_type_that_it_had() {
        for id in [Value::Ulong(0), Value::Uuid([7; 16]), Value::string("seven")] {
            let mut message = BytesMut::new();
            put(&mut message, section::PROPERTIES, Value::List(vec![id.clone()]));
            let operation = (Value::string("operation"), Value::string("READ"));
            put(&mut message, section::APPLICATION, Value::Map(vec![operation]));
            put(&mut message, section::VALUE, Value::string("body"));
            let request = Request::read(&message.freeze()).unwrap();
            assert_eq!(request.application_text("operation"), Some("READ"));
            assert_eq!(request.body.text(), Some("body"));
            let answer = Request::read(&Answer::new(200, "OK", None).to_message(&request)).unwrap();
            assert_eq!(answer.property(property::CORRELATION_ID), &id);
            assert_eq!(answer.application[0].1, Value::Int(200));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [&b"\x40"[..], b"\x00\x53", b"\x00\x53\x73\xc0"] {
            assert!(Request::read(&Bytes::from_static(bytes)).is_err(), "{bytes:x?}");
        }
        assert!(Request::read(&Bytes::new()).is_ok());
    }
}
