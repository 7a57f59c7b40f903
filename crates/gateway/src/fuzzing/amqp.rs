//! AMQP from a stranger: selectors as text, and values of its codec.

use bytes::BytesMut;

use crate::amqp::selector;
use crate::amqp::value::{Reader, Value};

/// What is read can be written, and is then read as the same value. Selectors are read or refused.
pub fn amqp(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && selector::parse(text).is_ok()
    {
        assert!(text.contains("amqp.annotation.x-opt-") && text.contains('>'));
    }
    let mut reader = Reader::new(data);
    while !reader.rest().is_empty() {
        let Ok(value) = reader.value() else {
            return;
        };
        if has_array(&value) {
            continue;
        }
        let mut written = BytesMut::new();
        value.encode(&mut written);
        assert_eq!(Reader::new(&written).value(), Ok(value));
    }
}

/// Arrays are written of symbols and strings alone.
pub(super) fn has_array(value: &Value) -> bool {
    match value {
        Value::Array(_) => true,
        Value::List(items) => items.iter().any(has_array),
        Value::Map(entries) => entries
            .iter()
            .any(|(key, value)| has_array(key) || has_array(value)),
        Value::Described(descriptor, value) => has_array(descriptor) || has_array(value),
        _ => false,
    }
}

/// Seeds of [`amqp`].
pub fn amqp_seeds() -> Vec<Vec<u8>> {
    let mut begin = BytesMut::new();
    let fields = vec![
        Value::Null,
        Value::Uint(0),
        Value::Ulong(1 << 40),
        Value::string("x"),
    ];
    let map = Value::Map(vec![(Value::symbol("a"), Value::Long(-1))]);
    Value::described(0x11, [fields, vec![map]].concat()).encode(&mut begin);
    vec![
        begin.to_vec(),
        b"amqp.annotation.x-opt-offset > '@latest'".to_vec(),
        b"amqp.annotation.x-opt-sequence-number >= '7'".to_vec(),
        b"amqp.annotation.x-opt-enqueued-time > '1700000000000'".to_vec(),
    ]
}
