//! What the nodes of AMQP read: frames, messages to devices, requests and tokens, addresses, and what is asked of a
//! partition.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use dunlin_model::directory::{Directory, first_policies};
use dunlin_model::identity::SymmetricKeys;
use dunlin_model::messages::{MESSAGE_BYTES_MAX, MESSAGE_ID_BYTES_MAX};

use super::amqp::has_array;
use super::text::KEY;
use crate::amqp::frame;
use crate::amqp::management::Question;
use crate::amqp::message::{self, Answer, Request, property, section};
use crate::amqp::node::Node;
use crate::amqp::performative::{self, Performative, address, code};
use crate::amqp::tokens::{Judge, Tokens};
use crate::amqp::value::{Malformed, Reader, Value};
use crate::amqp::{cbs, devicebound, partition};
use crate::limits::AMQP_FRAME_BYTES_MAX;
use crate::{auth, bag};

/// Shards of the hub.
const SHARD_COUNT: u32 = 4;
/// Within the life of the tokens here.
const NOW_S: u64 = 1;
const SELECTOR: &str = "apache.org:selector-filter:string";

/// The first byte says which.
pub fn amqp_nodes(data: &[u8]) {
    is_read(data);
}

fn is_read(data: &[u8]) -> bool {
    let Some((kind, rest)) = data.split_first() else {
        return false;
    };
    let bytes = Bytes::copy_from_slice(rest);
    match kind % 5 {
        0 => frames(rest),
        1 => message_to_device(&bytes),
        2 => request(&bytes),
        3 => node(&String::from_utf8_lossy(rest)),
        _ => partition_asked(&bytes),
    }
}

/// Frames come back as they were when they are written again.
fn frames(bytes: &[u8]) -> bool {
    let mut buffer = BytesMut::from(bytes);
    let mut has_any = false;
    while let Ok(Some(taken)) = frame::take(&mut buffer, AMQP_FRAME_BYTES_MAX) {
        let Ok(read) = performative::read(&taken.body) else {
            continue;
        };
        has_any = true;
        let mut reader = Reader::new(&taken.body);
        let value = reader.value().expect("it was just read");
        if has_array(&value) {
            continue;
        }
        let mut out = BytesMut::new();
        frame::put(&mut out, taken.kind, taken.channel, &value, reader.rest());
        let again = frame::take(&mut out, usize::MAX).expect("a frame");
        let again = again.expect("all of a frame");
        assert_eq!((again.kind, again.channel), (taken.kind, taken.channel));
        assert_eq!(performative::read(&again.body), Ok(read));
    }
    has_any
}

/// A message to a device has what one may have, whoever wrote it.
fn message_to_device(bytes: &Bytes) -> bool {
    let Ok((device, message)) = devicebound::read(bytes) else {
        return false;
    };
    assert!(device.module_part().is_none());
    assert!(message.id.len() <= MESSAGE_ID_BYTES_MAX && message.content.bytes() <= MESSAGE_BYTES_MAX);
    assert_eq!(bag::check(message.content.bag.as_bytes()), Ok(()));
    true
}

/// A request is answered in a way that names it, and a token that is taken stays.
fn request(bytes: &Bytes) -> bool {
    let Ok(request) = Request::read(bytes) else {
        return false;
    };
    let asked = Question::read(&request);
    if let Err(answer) = &asked {
        check_answer(&request, answer);
    }
    let hosts = ["hub.example".to_owned()];
    let judge = Judge {
        hosts: &hosts,
        directory: directory(),
        now_s: NOW_S,
    };
    let mut tokens = Tokens::default();
    let (answer, record) = cbs::answer(&request, &mut tokens, judge, true);
    check_answer(&request, &answer);
    assert_eq!(
        record.is_some(),
        answer.status == 401,
        "a refusal is written down"
    );
    assert!(
        !tokens.handle_time(judge),
        "what was taken just now is not taken back"
    );
    let is_known = answer.status == 202;
    assert_eq!(!tokens.is_empty(), is_known);
    asked.is_ok() || is_known
}

fn check_answer(request: &Request, answer: &Answer) {
    let id = request.property(property::MESSAGE_ID);
    match Request::read(&answer.to_message(request)) {
        Ok(told) => assert!(has_array(id) || told.property(property::CORRELATION_ID) == id),
        // Fields of ours stand around a name that has as many values as there may be.
        Err(error) => assert_eq!(error, Malformed("too many values")),
    }
}

/// The address of a partition can be spelled from its parts.
fn node(text: &str) -> bool {
    let found = Node::parse(text);
    if let Some(Node::Partition(partition)) = &found {
        let [path, _] = partition.resources();
        assert_eq!(Node::parse(&path.join("/")), found);
    }
    found.is_some()
}

/// What a link asks of a partition is asked of one that there is.
fn partition_asked(body: &Bytes) -> bool {
    let Ok(Performative::Attach(attach)) = performative::read(body) else {
        return false;
    };
    let Some(Node::Partition(found)) = Node::parse(address(&attach.source).unwrap_or_default()) else {
        return false;
    };
    let asked = partition::read(&found, &attach, SHARD_COUNT);
    if let Ok(asked) = &asked {
        assert!(asked.shard.0 < SHARD_COUNT);
        assert_eq!(asked.shard.to_string(), found.partition);
    }
    asked.is_ok()
}

/// A directory with a hub's first policies, whose key is known here.
fn directory() -> &'static Directory {
    static DIRECTORY: OnceLock<Directory> = OnceLock::new();
    DIRECTORY.get_or_init(|| Directory {
        policies: first_policies(|| SymmetricKeys {
            primary: KEY.to_owned(),
            secondary: KEY.to_owned(),
        }),
        ..Directory::default()
    })
}

/// A frame with this performative, on channel 0, and what follows it.
pub(super) fn put(number: u64, fields: Vec<Value>, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put(
        &mut out,
        frame::AMQP,
        0,
        &Value::described(number, fields),
        payload,
    );
    out.to_vec()
}

/// A link is asked for that leads to `node`, from whichever end.
fn attach_fields(handle: u32, peer_receives: bool, node: Value) -> Vec<Value> {
    let mut fields = vec![
        Value::string(format!("link-{handle}")),
        Value::Uint(handle),
        Value::Bool(peer_receives),
        Value::Null,
        Value::Null,
        node.clone(),
        node,
        Value::Null,
        Value::Null,
        Value::Uint(0),
    ];
    fields.resize(13, Value::Null);
    let epoch = (Value::symbol("com.microsoft:epoch"), Value::Long(3));
    fields.push(Value::Map(vec![epoch]));
    fields
}

/// [`attach_fields`] as a frame.
pub(super) fn attach(handle: u32, peer_receives: bool, node: Value) -> Vec<u8> {
    put(code::ATTACH, attach_fields(handle, peer_receives, node), b"")
}

/// The events of a partition from an offset on.
pub(super) fn reader_source() -> Value {
    let mut fields = vec![Value::string("eh/ConsumerGroups/$Default/Partitions/0")];
    fields.resize(7, Value::Null);
    let text = Value::string("amqp.annotation.x-opt-offset > '5'");
    let filter = Value::Described(Box::new(Value::symbol(SELECTOR)), Box::new(text));
    fields.push(Value::Map(vec![(Value::symbol(SELECTOR), filter)]));
    Value::described(0x28, fields)
}

fn sections(to: &str, application: &[(&str, &str)], body: (u64, Value)) -> Vec<u8> {
    let mut properties = vec![Value::Null; property::COUNT];
    properties[property::MESSAGE_ID] = Value::Ulong(7);
    properties[property::TO] = Value::string(to);
    properties[property::REPLY_TO] = Value::string("reply");
    properties[property::ABSOLUTE_EXPIRY] = Value::Timestamp(1_893_456_000_000);
    let application = application
        .iter()
        .map(|(key, value)| (Value::string(*key), Value::string(*value)));
    let mut out = BytesMut::new();
    message::put(&mut out, section::PROPERTIES, Value::List(properties));
    message::put(&mut out, section::APPLICATION, Value::Map(application.collect()));
    message::put(&mut out, body.0, body.1);
    out.to_vec()
}

/// A token is shown to `$cbs`.
pub(super) fn token() -> Vec<u8> {
    let token = auth::sign("hub.example", KEY, 4_000_000_000, Some("service"));
    let application = [
        ("operation", "put-token"),
        ("type", "servicebus.windows.net:sastoken"),
        ("name", "sb://hub.example/eh"),
    ];
    let body = (section::VALUE, Value::string(token.expect("a good key")));
    sections("$cbs", &application, body)
}

/// A message to a device.
pub(super) fn to_device() -> Vec<u8> {
    let application = [("iothub-ack", "full"), ("a b", "c&d")];
    let body = (section::DATA, Value::Binary(b"21.5".to_vec()));
    sections("/devices/dev%2D1/messages/devicebound", &application, body)
}

/// A question to `$management`.
fn question(kind: &str) -> Vec<u8> {
    let application = [
        ("operation", "READ"),
        ("type", kind),
        ("name", "eh"),
        ("partition", "0"),
    ];
    sections("$management", &application, (section::VALUE, Value::Null))
}

/// Seeds of [`amqp_nodes`].
pub fn amqp_nodes_seeds() -> Vec<Vec<u8>> {
    let tagged = |tag: u8, bytes: &[u8]| [&[tag], bytes].concat();
    let reader = attach_fields(3, true, reader_source());
    let mut asked = BytesMut::new();
    Value::described(code::ATTACH, reader.clone()).encode(&mut asked);
    let transfer = vec![Value::Uint(1), Value::Uint(0), Value::Binary(vec![1])];
    let two = [
        put(code::ATTACH, reader, b""),
        put(code::TRANSFER, transfer, &to_device()),
    ];
    vec![
        tagged(0, &two.concat()),
        tagged(1, &to_device()),
        tagged(2, &token()),
        tagged(2, &question("com.microsoft:eventhub")),
        tagged(2, &question("com.microsoft:partition")),
        tagged(3, b"amqps://hub.example/$cbs"),
        tagged(3, b"/messages/serviceBound/feedback"),
        tagged(
            3,
            b"amqps://hub.example:5671/messages/events/ConsumerGroups/a.b_c-1/Partitions/3",
        ),
        tagged(4, &asked),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read() {
        for seed in amqp_nodes_seeds() {
            assert!(is_read(&seed), "{:?}", String::from_utf8_lossy(&seed));
        }
    }
}
