//! AMQP 1.0's values: from bytes, and to bytes.
//!
//! Decides what a stranger's bytes may cost: nesting and the number of values are bounded before anything is built
//! from them, and no count that stands in the bytes is believed. Never knows what a value is for; frames are made of
//! values in [`frame`](super::frame) and [`performative`](super::performative), messages in
//! [`message`](super::message).

use bytes::{BufMut, BytesMut};

use crate::limits::{AMQP_DEPTH_MAX, AMQP_VALUES_MAX};

/// One value with its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Ubyte(u8),
    Ushort(u16),
    Uint(u32),
    Ulong(u64),
    Byte(i8),
    Short(i16),
    Int(i32),
    Long(i64),
    /// Milliseconds since 1970.
    Timestamp(i64),
    Uuid([u8; 16]),
    Binary(Vec<u8>),
    String(String),
    Symbol(String),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// Values of one type; whoever makes one keeps to symbols or strings.
    Array(Vec<Value>),
    /// Descriptor and value.
    Described(Box<Value>, Box<Value>),
    /// A type of fixed width that nothing here looks into (floats, decimals, characters): its code and its bytes.
    Opaque(u8, Vec<u8>),
}

/// Bytes that are no value, or one beyond the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a value of AMQP 1.0: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

impl Value {
    pub(crate) fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    pub(crate) fn symbol(text: impl Into<String>) -> Self {
        Self::Symbol(text.into())
    }

    /// A list behind a numeric descriptor, as performatives and sections are.
    pub(crate) fn described(code: u64, fields: Vec<Value>) -> Self {
        Self::Described(Box::new(Self::Ulong(code)), Box::new(Self::List(fields)))
    }

    /// The text of a string or a symbol.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Symbol(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative, of whatever width.
    pub(crate) fn unsigned(&self) -> Option<u64> {
        match *self {
            Self::Ubyte(n) => Some(n.into()),
            Self::Ushort(n) => Some(n.into()),
            Self::Uint(n) => Some(n.into()),
            Self::Ulong(n) => Some(n),
            _ => self.signed().and_then(|n| n.try_into().ok()),
        }
    }

    /// A signed whole number of whatever width.
    pub(crate) fn signed(&self) -> Option<i64> {
        match *self {
            Self::Byte(n) => Some(n.into()),
            Self::Short(n) => Some(n.into()),
            Self::Int(n) => Some(n.into()),
            Self::Long(n) => Some(n),
            _ => None,
        }
    }

    /// The entries of a map.
    pub(crate) fn entries(&self) -> &[(Value, Value)] {
        match self {
            Self::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Writes it to the end of `out`.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Null => out.put_u8(0x40),
            Self::Bool(true) => out.put_u8(0x41),
            Self::Bool(false) => out.put_u8(0x42),
            Self::Ubyte(n) => out.put_slice(&[0x50, *n]),
            Self::Ushort(n) => coded(out, 0x60, &n.to_be_bytes()),
            Self::Uint(n) => coded(out, 0x70, &n.to_be_bytes()),
            // Descriptors are small, and some clients read them in this form only.
            Self::Ulong(n) => match u8::try_from(*n) {
                Ok(n) => out.put_slice(&[0x53, n]),
                Err(_) => coded(out, 0x80, &n.to_be_bytes()),
            },
            Self::Byte(n) => coded(out, 0x51, &n.to_be_bytes()),
            Self::Short(n) => coded(out, 0x61, &n.to_be_bytes()),
            Self::Int(n) => coded(out, 0x71, &n.to_be_bytes()),
            Self::Long(n) => coded(out, 0x81, &n.to_be_bytes()),
            Self::Timestamp(n) => coded(out, 0x83, &n.to_be_bytes()),
            Self::Uuid(bytes) => coded(out, 0x98, bytes),
            Self::Binary(bytes) => encode_bytes(out, 0xa0, bytes),
            Self::String(text) => encode_bytes(out, 0xa1, text.as_bytes()),
            Self::Symbol(text) => encode_bytes(out, 0xa3, text.as_bytes()),
            Self::List(items) if items.is_empty() => out.put_u8(0x45),
            Self::List(items) => compound(out, 0xd0, items.len(), |out| {
                items.iter().for_each(|item| item.encode(out));
            }),
            Self::Map(entries) => compound(out, 0xd1, entries.len() * 2, |out| {
                for (key, value) in entries {
                    key.encode(out);
                    value.encode(out);
                }
            }),
            Self::Array(items) => encode_array(out, items),
            Self::Described(descriptor, value) => {
                out.put_u8(0x00);
                descriptor.encode(out);
                value.encode(out);
            }
            Self::Opaque(code, bytes) => coded(out, *code, bytes),
        }
    }
}

fn coded(out: &mut BytesMut, code: u8, bytes: &[u8]) {
    out.put_u8(code);
    out.put_slice(bytes);
}

/// Bytes with their length before them: one byte of length behind `code`, four behind `code + 0x10`.
fn encode_bytes(out: &mut BytesMut, code: u8, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => out.put_slice(&[code, length]),
        Err(_) => {
            out.put_u8(code + 0x10);
            out.put_u32(bytes.len() as u32);
        }
    }
    out.put_slice(bytes);
}

fn compound(out: &mut BytesMut, code: u8, count: usize, fill: impl FnOnce(&mut BytesMut)) {
    out.put_u8(code);
    let at = out.len();
    out.put_u32(0);
    out.put_u32(count as u32);
    fill(out);
    let size = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

fn encode_array(out: &mut BytesMut, items: &[Value]) {
    compound(out, 0xf0, items.len(), |out| {
        let is_text = matches!(items.first(), Some(Value::String(_)));
        out.put_u8(if is_text { 0xb1 } else { 0xb3 });
        for item in items {
            let text = item.text().unwrap_or_default();
            out.put_u32(text.len() as u32);
            out.put_slice(text.as_bytes());
        }
    });
}

/// Reads values from bytes, within bounds that all values of one reader share.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    values_left: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            values_left: AMQP_VALUES_MAX,
        }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next value.
    pub(crate) fn value(&mut self) -> Result<Value, Malformed> {
        self.nested(0)
    }

    fn nested(&mut self, depth: usize) -> Result<Value, Malformed> {
        if depth > AMQP_DEPTH_MAX {
            return Err(Malformed("nested too deep"));
        }
        match self.u8()? {
            0x00 => {
                let descriptor = self.nested(depth + 1)?;
                let value = self.nested(depth + 1)?;
                Ok(Value::Described(Box::new(descriptor), Box::new(value)))
            }
            code => self.coded(code, depth),
        }
    }

    /// The value behind its type's code.
    fn coded(&mut self, code: u8, depth: usize) -> Result<Value, Malformed> {
        self.values_left = self
            .values_left
            .checked_sub(1)
            .ok_or(Malformed("too many values"))?;
        Ok(match code {
            0x40 => Value::Null,
            0x41 => Value::Bool(true),
            0x42 => Value::Bool(false),
            0x43 => Value::Uint(0),
            0x44 => Value::Ulong(0),
            0x45 => Value::List(Vec::new()),
            0x50 => Value::Ubyte(self.u8()?),
            0x51 => Value::Byte(i8::from_be_bytes(self.array()?)),
            0x52 => Value::Uint(self.u8()?.into()),
            0x53 => Value::Ulong(self.u8()?.into()),
            0x54 => Value::Int(i8::from_be_bytes(self.array()?).into()),
            0x55 => Value::Long(i8::from_be_bytes(self.array()?).into()),
            0x56 => Value::Bool(self.u8()? != 0),
            0x60 => Value::Ushort(u16::from_be_bytes(self.array()?)),
            0x61 => Value::Short(i16::from_be_bytes(self.array()?)),
            0x70 => Value::Uint(u32::from_be_bytes(self.array()?)),
            0x71 => Value::Int(i32::from_be_bytes(self.array()?)),
            0x80 => Value::Ulong(u64::from_be_bytes(self.array()?)),
            0x81 => Value::Long(i64::from_be_bytes(self.array()?)),
            0x83 => Value::Timestamp(i64::from_be_bytes(self.array()?)),
            0x98 => Value::Uuid(self.array()?),
            0x72..=0x74 => Value::Opaque(code, self.take(4)?.to_vec()),
            0x82 | 0x84 => Value::Opaque(code, self.take(8)?.to_vec()),
            0x94 => Value::Opaque(code, self.take(16)?.to_vec()),
            0xa0 | 0xb0 => Value::Binary(self.sized(code)?.to_vec()),
            0xa1 | 0xb1 => Value::String(self.text(code)?),
            0xa3 | 0xb3 => Value::Symbol(self.text(code)?),
            0xc0 | 0xd0 => Value::List(self.items(code, depth)?),
            0xc1 | 0xd1 => Value::Map(pairs(self.items(code, depth)?)?),
            0xe0 | 0xf0 => self.elements(code, depth)?,
            _ => return Err(Malformed("unknown type")),
        })
    }

    fn text(&mut self, code: u8) -> Result<String, Malformed> {
        let bytes = self.sized(code)?.to_vec();
        String::from_utf8(bytes).map_err(|_| Malformed("text is not UTF-8"))
    }

    /// The bytes behind a length, whose width the code tells.
    fn sized(&mut self, code: u8) -> Result<&'a [u8], Malformed> {
        let length = self.length(code)?;
        self.take(length)
    }

    fn length(&mut self, code: u8) -> Result<usize, Malformed> {
        match code & 0x10 {
            0 => Ok(self.u8()?.into()),
            _ => Ok(u32::from_be_bytes(self.array()?) as usize),
        }
    }

    /// Reads what is inside of a list, a map or an array, and nothing beyond it.
    fn inside<T>(
        &mut self,
        code: u8,
        read: impl FnOnce(&mut Reader<'a>, usize) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let bytes = self.sized(code)?;
        let mut inner = Reader {
            rest: bytes,
            values_left: self.values_left,
        };
        let count = inner.length(code)?;
        let read = read(&mut inner, count)?;
        self.values_left = inner.values_left;
        if inner.rest.is_empty() {
            Ok(read)
        } else {
            Err(Malformed("longer than its items"))
        }
    }

    fn items(&mut self, code: u8, depth: usize) -> Result<Vec<Value>, Malformed> {
        // The vector grows with what is there: the count is a claim.
        self.inside(code, |inner, count| {
            (0..count).map(|_| inner.nested(depth + 1)).collect()
        })
    }

    fn elements(&mut self, code: u8, depth: usize) -> Result<Value, Malformed> {
        if depth >= AMQP_DEPTH_MAX {
            return Err(Malformed("nested too deep"));
        }
        self.inside(code, |inner, count| {
            let element = inner.u8()?;
            if element == 0x00 {
                return Err(Malformed("an array of described values"));
            }
            let items: Result<Vec<_>, _> = (0..count).map(|_| inner.coded(element, depth + 1)).collect();
            Ok(Value::Array(items?))
        })
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Malformed("cut off"))?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Malformed("cut off"))?;
        self.rest = rest;
        Ok(head)
    }
}

fn pairs(items: Vec<Value>) -> Result<Vec<(Value, Value)>, Malformed> {
    if !items.len().is_multiple_of(2) {
        return Err(Malformed("a map with half an entry"));
    }
    let mut items = items.into_iter();
    Ok(std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Value, Malformed> {
        Reader::new(bytes).value()
    }

    /// Lists around a list, nine bytes each.
    fn nested(depth: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for level in (0..depth).rev() {
            bytes.push(0xd0);
            bytes.extend_from_slice(&((level * 9 + 5) as u32).to_be_bytes());
            bytes.extend_from_slice(&1_u32.to_be_bytes());
        }
        bytes.push(0x45);
        bytes
    }

    #[test]
    fn nesting_and_counts_are_not_believed() {
        assert!(read(&nested(AMQP_DEPTH_MAX)).is_ok());
        assert_eq!(
            read(&nested(AMQP_DEPTH_MAX + 1)),
            Err(Malformed("nested too deep"))
        );
        assert_eq!(read(&nested(100_000)), Err(Malformed("nested too deep")));
        assert_eq!(read(&[0; 100_000]), Err(Malformed("nested too deep")));
        let many_nulls = [0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40];
        assert_eq!(read(&many_nulls), Err(Malformed("too many values")));
        let many_items = [0xd0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40];
        assert_eq!(read(&many_items), Err(Malformed("cut off")));
        assert_eq!(
            read(&[0xd1, 0, 0, 0, 5, 0, 0, 0, 1, 0x40]),
            Err(Malformed("a map with half an entry"))
        );
        assert_eq!(read(&[0xb0, 0xff, 0xff, 0xff, 0xff]), Err(Malformed("cut off")));
    }

    #[test]
    fn short_and_long_forms_are_one_value() {
        for (short, long) in [
            (&[0x43][..], &[0x70, 0, 0, 0, 0][..]),
            (&[0x53, 7], &[0x80, 0, 0, 0, 0, 0, 0, 0, 7]),
            (&[0xa1, 1, b'a'], &[0xb1, 0, 0, 0, 1, b'a']),
            (&[0xc0, 2, 1, 0x40], &[0xd0, 0, 0, 0, 5, 0, 0, 0, 1, 0x40]),
            (
                &[0xe0, 4, 1, 0xa3, 1, b's'],
                &[0xf0, 0, 0, 0, 10, 0, 0, 0, 1, 0xb3, 0, 0, 0, 1, b's'],
            ),
        ] {
            assert!(read(short).is_ok());
            assert_eq!(read(short), read(long), "{short:x?}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<u32>().prop_map(Value::Uint),
            any::<u64>().prop_map(Value::Ulong),
            any::<i32>().prop_map(Value::Int),
            any::<i64>().prop_map(Value::Timestamp),
            any::<[u8; 16]>().prop_map(Value::Uuid),
            ".{0,20}".prop_map(Value::String),
            "[a-z:]{0,300}".prop_map(Value::Symbol),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Binary),
            prop::collection::vec("[a-z]{0,4}".prop_map(Value::Symbol), 1..4).prop_map(Value::Array),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(Value::Map),
                (any::<u64>(), prop::collection::vec(inner, 0..3))
                    .prop_map(|(code, fields)| Value::described(code, fields)),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any_value()) {
            let mut out = BytesMut::new();
            value.encode(&mut out);
            prop_assert_eq!(read(&out), Ok(value));
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&noise);
            while reader.value().is_ok() {}
        }
    }
}
