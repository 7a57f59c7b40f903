//! The performatives of AMQP 1.0: what a peer asks, taken apart, and what we answer, put together.
//!
//! Decides which fields count and which are wrong. Never what follows from one; that is the
//! [`machine`](super::machine)'s.

use bytes::Bytes;

use super::value::{Malformed, Reader, Value};

/// Numbers of the performatives and of what stands in them.
pub(crate) mod code {
    pub(crate) const OPEN: u64 = 0x10;
    pub(crate) const BEGIN: u64 = 0x11;
    pub(crate) const ATTACH: u64 = 0x12;
    pub(crate) const FLOW: u64 = 0x13;
    pub(crate) const TRANSFER: u64 = 0x14;
    pub(crate) const DISPOSITION: u64 = 0x15;
    pub(crate) const DETACH: u64 = 0x16;
    pub(crate) const END: u64 = 0x17;
    pub(crate) const CLOSE: u64 = 0x18;
    pub(crate) const ERROR: u64 = 0x1d;
    pub(crate) const ACCEPTED: u64 = 0x24;
    pub(crate) const REJECTED: u64 = 0x25;
    pub(crate) const RELEASED: u64 = 0x26;
    pub(crate) const SASL_MECHANISMS: u64 = 0x40;
    pub(crate) const SASL_INIT: u64 = 0x41;
    pub(crate) const SASL_OUTCOME: u64 = 0x44;
}

/// Error conditions that we answer with.
pub(crate) mod condition {
    pub(crate) const ARGUMENT: &str = "com.microsoft:argument-error";
    pub(crate) const DECODE: &str = "amqp:decode-error";
    pub(crate) const FORCED: &str = "amqp:connection:forced";
    pub(crate) const FRAMING: &str = "amqp:connection:framing-error";
    pub(crate) const HANDLE_IN_USE: &str = "amqp:session:handle-in-use";
    pub(crate) const ILLEGAL_STATE: &str = "amqp:illegal-state";
    pub(crate) const INVALID_FIELD: &str = "amqp:invalid-field";
    pub(crate) const MESSAGE_TOO_LARGE: &str = "amqp:link:message-size-exceeded";
    pub(crate) const NOT_ALLOWED: &str = "amqp:not-allowed";
    pub(crate) const NOT_FOUND: &str = "amqp:not-found";
    pub(crate) const NOT_IMPLEMENTED: &str = "amqp:not-implemented";
    pub(crate) const RESOURCE_LIMIT: &str = "amqp:resource-limit-exceeded";
    pub(crate) const STOLEN: &str = "amqp:link:stolen";
    /// Try again: the cluster does not answer just now.
    pub(crate) const TIMEOUT: &str = "com.microsoft:timeout";
    pub(crate) const TRANSFER_LIMIT: &str = "amqp:link:transfer-limit-exceeded";
    pub(crate) const UNATTACHED: &str = "amqp:session:unattached-handle";
    pub(crate) const UNAUTHORIZED: &str = "amqp:unauthorized-access";
    pub(crate) const WINDOW: &str = "amqp:session:window-violation";
}

/// Why a link or a connection ends, as its peer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) condition: &'static str,
    pub(crate) description: String,
}

impl Fault {
    pub(crate) fn new(condition: &'static str, description: impl Into<String>) -> Self {
        Self {
            condition,
            description: description.into(),
        }
    }

    fn to_value(&self) -> Value {
        let fields = vec![
            Value::symbol(self.condition),
            Value::string(&*self.description),
            Value::Null,
        ];
        Value::described(code::ERROR, fields)
    }
}

impl From<Malformed> for Fault {
    fn from(error: Malformed) -> Self {
        Self::new(condition::DECODE, error.to_string())
    }
}

/// What a peer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Performative {
    Open(Open),
    Begin(Begin),
    Attach(Box<Attach>),
    Flow(Flow),
    Transfer(Transfer, Bytes),
    /// What became of a delivery. Ours are settled when they leave, so nothing waits for one.
    Disposition(Disposition),
    Detach {
        handle: u32,
    },
    End,
    Close,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) frame_bytes_max: u32,
    pub(crate) idle_ms: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) is_answer: bool,
    pub(crate) next_outgoing_id: u32,
    pub(crate) incoming_window: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attach {
    pub(crate) name: String,
    pub(crate) handle: u32,
    /// Whether the peer is the one that receives.
    pub(crate) peer_receives: bool,
    pub(crate) source: Value,
    pub(crate) target: Value,
    pub(crate) initial_delivery_count: u32,
    /// Properties of the link.
    pub(crate) properties: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) next_incoming_id: Option<u32>,
    pub(crate) incoming_window: u32,
    pub(crate) handle: Option<u32>,
    pub(crate) delivery_count: Option<u32>,
    pub(crate) link_credit: Option<u32>,
    pub(crate) drain: bool,
    pub(crate) echo: bool,
}

/// Names a delivery of ours to the peer.
pub(crate) type Tag = [u8; 16];

/// What a peer makes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// It has it.
    Accepted,
    /// It cannot be taken.
    Rejected,
    /// It is to be given again.
    Released,
}

/// What a peer says of deliveries, ours or its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disposition {
    /// Whether they are ours.
    pub(crate) by_receiver: bool,
    /// The first of them.
    pub(crate) first: u32,
    /// The last of them.
    pub(crate) last: u32,
    /// Whether it forgets them with that.
    pub(crate) is_settled: bool,
    /// The end that they had, if they had one.
    pub(crate) word: Option<Word>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) handle: u32,
    pub(crate) delivery_id: Option<u32>,
    pub(crate) settled: bool,
    pub(crate) more: bool,
    pub(crate) aborted: bool,
}

/// The field of a list, or null where the list ends before it.
pub(crate) fn field(fields: &[Value], at: usize) -> &Value {
    fields.get(at).unwrap_or(&Value::Null)
}

/// Takes a described list apart: its number, its fields.
pub(crate) fn described_list(value: Value) -> Result<(u64, Vec<Value>), Malformed> {
    let Value::Described(descriptor, value) = value else {
        return Err(Malformed("not described"));
    };
    let code = descriptor
        .unsigned()
        .ok_or(Malformed("the descriptor is no number"))?;
    match *value {
        Value::List(fields) => Ok((code, fields)),
        _ => Err(Malformed("not a list")),
    }
}

/// The fields of a source or a target; none if it is missing.
pub(crate) fn terminus(value: &Value) -> &[Value] {
    match value {
        Value::Described(_, fields) => match &**fields {
            Value::List(fields) => fields,
            _ => &[],
        },
        _ => &[],
    }
}

/// The address of a source or a target.
pub(crate) fn address(value: &Value) -> Option<&str> {
    field(terminus(value), 0).text()
}

/// What a state of a delivery says; `None` for one that is no end.
fn word(state: &Value) -> Option<Word> {
    let Value::Described(descriptor, _) = state else {
        return None;
    };
    match descriptor.unsigned()? {
        code::ACCEPTED => Some(Word::Accepted),
        code::REJECTED => Some(Word::Rejected),
        // Released or modified: it is to be given again.
        0x26 | 0x27 => Some(Word::Released),
        _ => None,
    }
}

fn uint(fields: &[Value], at: usize) -> Result<Option<u32>, Malformed> {
    match field(fields, at) {
        Value::Null => Ok(None),
        value => {
            let number = value.unsigned().and_then(|number| u32::try_from(number).ok());
            number
                .map(Some)
                .ok_or(Malformed("a field is no number of 32 bits"))
        }
    }
}

fn must(number: Result<Option<u32>, Malformed>) -> Result<u32, Malformed> {
    number?.ok_or(Malformed("a field is missing"))
}

fn flag(fields: &[Value], at: usize) -> bool {
    *field(fields, at) == Value::Bool(true)
}

/// Reads the body of a frame.
pub(crate) fn read(body: &Bytes) -> Result<Performative, Malformed> {
    let mut reader = Reader::new(body);
    let (number, fields) = described_list(reader.value()?)?;
    let payload = body.slice(body.len() - reader.rest().len()..);
    let fields = &fields[..];
    Ok(match number {
        code::OPEN => Performative::Open(Open {
            frame_bytes_max: uint(fields, 2)?.unwrap_or(u32::MAX),
            idle_ms: uint(fields, 4)?.filter(|ms| *ms > 0),
        }),
        code::BEGIN => Performative::Begin(Begin {
            is_answer: *field(fields, 0) != Value::Null,
            next_outgoing_id: must(uint(fields, 1))?,
            incoming_window: must(uint(fields, 2))?,
        }),
        code::ATTACH => Performative::Attach(Box::new(Attach {
            name: field(fields, 0)
                .text()
                .ok_or(Malformed("a link without a name"))?
                .to_owned(),
            handle: must(uint(fields, 1))?,
            peer_receives: match field(fields, 2) {
                Value::Bool(peer_receives) => *peer_receives,
                _ => return Err(Malformed("a link without a role")),
            },
            source: field(fields, 5).clone(),
            target: field(fields, 6).clone(),
            initial_delivery_count: uint(fields, 9)?.unwrap_or(0),
            properties: field(fields, 13).clone(),
        })),
        code::FLOW => Performative::Flow(Flow {
            next_incoming_id: uint(fields, 0)?,
            incoming_window: must(uint(fields, 1))?,
            handle: uint(fields, 4)?,
            delivery_count: uint(fields, 5)?,
            link_credit: uint(fields, 6)?,
            drain: flag(fields, 8),
            echo: flag(fields, 9),
        }),
        code::TRANSFER => {
            let transfer = Transfer {
                handle: must(uint(fields, 0))?,
                delivery_id: uint(fields, 1)?,
                settled: flag(fields, 4),
                more: flag(fields, 5),
                aborted: flag(fields, 9),
            };
            Performative::Transfer(transfer, payload)
        }
        code::DISPOSITION => {
            let first = must(uint(fields, 1))?;
            Performative::Disposition(Disposition {
                by_receiver: flag(fields, 0),
                first,
                last: uint(fields, 2)?.unwrap_or(first),
                is_settled: flag(fields, 3),
                word: word(field(fields, 4)),
            })
        }
        code::DETACH => Performative::Detach {
            handle: must(uint(fields, 0))?,
        },
        code::END => Performative::End,
        code::CLOSE => Performative::Close,
        _ => return Err(Malformed("unknown performative")),
    })
}

// What we write has all its fields, down to the last one that anybody looks at: some clients count them.

pub(crate) fn open(container: &str, frame_bytes_max: u32, channel_max: u16, idle_ms: u32) -> Value {
    let mut fields = vec![
        Value::string(container),
        Value::Null,
        Value::Uint(frame_bytes_max),
        Value::Ushort(channel_max),
        Value::Uint(idle_ms),
    ];
    fields.resize(10, Value::Null);
    Value::described(code::OPEN, fields)
}

pub(crate) fn begin(channel: u16, next_outgoing_id: u32, windows: (u32, u32), handle_max: u32) -> Value {
    let mut fields = vec![
        Value::Ushort(channel),
        Value::Uint(next_outgoing_id),
        Value::Uint(windows.0),
        Value::Uint(windows.1),
        Value::Uint(handle_max),
    ];
    fields.resize(8, Value::Null);
    Value::described(code::BEGIN, fields)
}

/// The answer to `asked`. One that is refused has no terminus at our end.
pub(crate) fn attach(
    asked: &Attach,
    is_accepted: bool,
    message_bytes_max: u64,
    sends_settled: bool,
) -> Value {
    let we_send = asked.peer_receives;
    let ours = |terminus: &Value, is_ours: bool| match is_ours && !is_accepted {
        true => Value::Null,
        false => terminus.clone(),
    };
    let mut fields = vec![
        Value::string(&*asked.name),
        Value::Uint(asked.handle),
        Value::Bool(!we_send),
        // Who sends to us may wait for our word, or not.
        Value::Ubyte(match (we_send, sends_settled) {
            (false, _) => 2,
            (true, true) => 1,
            (true, false) => 0,
        }),
        Value::Ubyte(0),
        ours(&asked.source, we_send),
        ours(&asked.target, !we_send),
        Value::Null,
        Value::Bool(false),
        if we_send { Value::Uint(0) } else { Value::Null },
        Value::Ulong(message_bytes_max),
    ];
    fields.resize(14, Value::Null);
    Value::described(code::ATTACH, fields)
}

/// The state of a session as a flow tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) next_incoming_id: u32,
    pub(crate) incoming_window: u32,
    pub(crate) next_outgoing_id: u32,
    pub(crate) outgoing_window: u32,
}

/// A flow of a session, and of a link if one is named: handle, delivery count, credit.
pub(crate) fn flow(windows: Windows, link: Option<(u32, u32, u32)>) -> Value {
    let mut fields = vec![
        Value::Uint(windows.next_incoming_id),
        Value::Uint(windows.incoming_window),
        Value::Uint(windows.next_outgoing_id),
        Value::Uint(windows.outgoing_window),
    ];
    if let Some((handle, delivery_count, credit)) = link {
        fields.extend([handle, delivery_count, credit].map(Value::Uint));
    }
    fields.resize(11, Value::Null);
    Value::described(code::FLOW, fields)
}

/// A transfer, or a part of one. Tag and id stand in the first part alone, which has a tag therefore; what the peer is to
/// settle has one of its own.
pub(crate) fn transfer(
    handle: u32,
    delivery_id: u32,
    first: Option<Tag>,
    more: bool,
    is_settled: bool,
) -> Value {
    let mut fields = vec![Value::Uint(handle), Value::Null, Value::Null, Value::Null];
    if let Some(tag) = first {
        fields[1] = Value::Uint(delivery_id);
        fields[2] = Value::Binary(tag.to_vec());
        fields[3] = Value::Uint(0);
    }
    fields.extend([Value::Bool(is_settled), Value::Bool(more)]);
    fields.resize(11, Value::Null);
    Value::described(code::TRANSFER, fields)
}

/// Tells the peer that its word on deliveries of ours is known.
pub(crate) fn settled(first: u32, last: u32, word: Word) -> Value {
    let state = match word {
        Word::Accepted => code::ACCEPTED,
        Word::Rejected => code::REJECTED,
        Word::Released => code::RELEASED,
    };
    let fields = vec![
        Value::Bool(false),
        Value::Uint(first),
        Value::Uint(last),
        Value::Bool(true),
        Value::described(state, Vec::new()),
        Value::Null,
    ];
    Value::described(code::DISPOSITION, fields)
}

/// Settles a delivery of the peer: it is accepted, or rejected for a reason.
pub(crate) fn disposition(delivery_id: u32, rejected: Option<&Fault>) -> Value {
    let state = match rejected {
        None => Value::described(code::ACCEPTED, Vec::new()),
        Some(fault) => Value::described(code::REJECTED, vec![fault.to_value()]),
    };
    let id = Value::Uint(delivery_id);
    let fields = vec![
        Value::Bool(true),
        id.clone(),
        id,
        Value::Bool(true),
        state,
        Value::Null,
    ];
    Value::described(code::DISPOSITION, fields)
}

pub(crate) fn detach(handle: u32, fault: Option<&Fault>) -> Value {
    let error = fault.map_or(Value::Null, Fault::to_value);
    Value::described(code::DETACH, vec![Value::Uint(handle), Value::Bool(true), error])
}

pub(crate) fn end() -> Value {
    Value::described(code::END, vec![Value::Null])
}

pub(crate) fn close(fault: Option<&Fault>) -> Value {
    let error = fault.map_or(Value::Null, Fault::to_value);
    Value::described(code::CLOSE, vec![error])
}

pub(crate) fn sasl_mechanisms(names: &[&str]) -> Value {
    let names = names.iter().map(|name| Value::symbol(*name)).collect();
    Value::described(code::SASL_MECHANISMS, vec![Value::Array(names)])
}

/// 0 lets the client in, 1 refuses it.
pub(crate) fn sasl_outcome(outcome: u8) -> Value {
    Value::described(code::SASL_OUTCOME, vec![Value::Ubyte(outcome), Value::Null])
}
