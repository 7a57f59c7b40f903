//! Requests of Kafka: of a stranger, as they come through the socket, and of somebody known, down to the codec.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest, FindCoordinatorRequest,
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest,
    MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    SyncGroupRequest,
};

use crate::kafka::api::Api;
use crate::kafka::call::{Call, Frame};
use crate::kafka::machine::Machine;

/// Requests are understood or refused; what is refused by its shape never reaches the codec.
pub fn kafka(data: &[u8]) {
    let mut machine = Machine::new();
    let mut buffer = BytesMut::from(data);
    while machine.handle_bytes(&mut buffer) == Ok(true) {
        while let Ok(Some(_)) = machine.poll_work() {}
    }
    assert!(machine.principal().is_none(), "nobody has looked at a password");
    if let Ok(Frame::Call(call)) = Frame::read(&Bytes::copy_from_slice(data)) {
        take(call);
    }
}

fn take(mut call: Call) {
    match call.api() {
        Api::Produce => drop(call.take::<ProduceRequest>()),
        Api::Fetch => drop(call.take::<FetchRequest>()),
        Api::ListOffsets => drop(call.take::<ListOffsetsRequest>()),
        Api::Metadata => drop(call.take::<MetadataRequest>()),
        Api::OffsetCommit => drop(call.take::<OffsetCommitRequest>()),
        Api::OffsetFetch => drop(call.take::<OffsetFetchRequest>()),
        Api::FindCoordinator => drop(call.take::<FindCoordinatorRequest>()),
        Api::JoinGroup => drop(call.take::<JoinGroupRequest>()),
        Api::Heartbeat => drop(call.take::<HeartbeatRequest>()),
        Api::LeaveGroup => drop(call.take::<LeaveGroupRequest>()),
        Api::SyncGroup => drop(call.take::<SyncGroupRequest>()),
        Api::DescribeGroups => drop(call.take::<DescribeGroupsRequest>()),
        Api::ListGroups => drop(call.take::<ListGroupsRequest>()),
        Api::OffsetForLeaderEpoch => drop(call.take::<OffsetForLeaderEpochRequest>()),
        Api::DescribeConfigs => drop(call.take::<DescribeConfigsRequest>()),
        Api::DeleteGroups => drop(call.take::<DeleteGroupsRequest>()),
        // A stranger's, above.
        Api::ApiVersions | Api::SaslHandshake | Api::SaslAuthenticate => {}
    }
}

/// A request with its header: kind, version, number, client.
fn request(key: u16, version: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    for number in [key, version, 0, 7] {
        frame.extend_from_slice(&number.to_be_bytes());
    }
    frame.extend_from_slice(b"\0\x01x");
    frame.extend_from_slice(body);
    frame
}

/// Seeds of [`kafka`].
pub fn kafka_seeds() -> Vec<Vec<u8>> {
    let handshake = request(17, 1, b"\0\x05PLAIN");
    let token = request(36, 0, b"\0\0\0\x06\0u\0p=;");
    let mut entering = Vec::new();
    for frame in [&handshake, &token] {
        entering.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        entering.extend_from_slice(frame);
    }
    vec![
        entering,
        // Metadata of one topic.
        request(3, 1, b"\0\0\0\x01\0\x08messages"),
        // Where a partition ends.
        request(
            2,
            1,
            b"\xff\xff\xff\xff\0\0\0\x01\0\x08messages\0\0\0\x01\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
        // A join with one protocol.
        request(
            11,
            2,
            b"\0\x01g\0\0\x17\x70\0\0\x17\x70\0\0\0\x08consumer\0\0\0\x01\0\x05range\0\0\0\x02ab",
        ),
        // A heartbeat, and one with tags.
        request(12, 0, b"\0\x01g\0\0\0\x01\0\x01m"),
        request(12, 4, b"\0\x02g\0\0\0\x01\x02m\0\0"),
    ]
}
