//! Requests as clients write them, for tests: one of each kind, with something in every field.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiVersionsRequest, DeleteGroupsRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest,
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, RequestHeader, SaslAuthenticateRequest,
    SaslHandshakeRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::api::{Api, OFFERS};

pub(crate) const TOPIC: &str = "messages";

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn group() -> GroupId {
    GroupId(text("group"))
}

fn topic() -> TopicName {
    TopicName(text(TOPIC))
}

/// A frame without its length.
pub(crate) fn frame<R: Encodable>(api: Api, version: i16, correlation: i32, request: &R) -> Bytes {
    let offer = OFFERS.iter().find(|offer| offer.api == api).unwrap();
    let header = RequestHeader::default()
        .with_request_api_key(offer.key)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(text("tester")));
    let mut frame = BytesMut::new();
    let header_version = if offer.is_flexible(version) { 2 } else { 1 };
    header.encode(&mut frame, header_version).unwrap();
    request.encode(&mut frame, version).unwrap();
    frame.freeze()
}

/// A request with something in every field that the version has.
pub(crate) fn request(api: Api, version: i16) -> Bytes {
    macro_rules! of {
        ($request:expr) => {
            frame(api, version, 1, &$request)
        };
    }
    match api {
        Api::ApiVersions => of!(ApiVersionsRequest::default().with_client_software_name(text("c"))),
        Api::SaslHandshake => of!(SaslHandshakeRequest::default().with_mechanism(text("PLAIN"))),
        Api::SaslAuthenticate => {
            of!(SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0u\0p")))
        }
        Api::Produce => of!(produce(1)),
        Api::Fetch => of!(fetch(version, 0)),
        Api::ListOffsets => of!(list_offsets(&[-1, -2, 1000])),
        Api::Metadata => of!(metadata(version)),
        Api::OffsetCommit => of!(offset_commit(version)),
        Api::OffsetFetch => of!(offset_fetch(version)),
        Api::FindCoordinator => of!(find_coordinator(version)),
        Api::JoinGroup => of!(join(version)),
        Api::Heartbeat => of!(HeartbeatRequest::default()
            .with_group_id(group())
            .with_member_id(text("m"))),
        Api::LeaveGroup => of!(leave(version)),
        Api::SyncGroup => of!(sync(version)),
        Api::DescribeGroups => of!(DescribeGroupsRequest::default().with_groups(vec![group(), group()])),
        Api::ListGroups => of!(list_groups(version)),
        Api::DeleteGroups => of!(DeleteGroupsRequest::default().with_groups_names(vec![group()])),
        Api::OffsetForLeaderEpoch => of!(epoch_ends()),
        Api::DescribeConfigs => of!(describe_configs()),
    }
}

pub(crate) fn produce(acks: i16) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(Bytes::from_static(b"records")));
    let data = TopicProduceData::default()
        .with_name(topic())
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_topic_data(vec![data])
}

pub(crate) fn fetch(version: i16, offset: i64) -> FetchRequest {
    let partition = |index| {
        let partition = FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20);
        if version >= 9 {
            partition.with_current_leader_epoch(0)
        } else {
            partition
        }
    };
    let topics = vec![
        FetchTopic::default()
            .with_topic(topic())
            .with_partitions(vec![partition(0), partition(1)]),
    ];
    let request = FetchRequest::default()
        .with_max_wait_ms(10)
        .with_min_bytes(1)
        .with_topics(topics);
    match version {
        ..7 => request,
        _ => request.with_forgotten_topics_data(vec![
            ForgottenTopic::default()
                .with_topic(topic())
                .with_partitions(vec![1, 2]),
        ]),
    }
}

pub(crate) fn list_offsets(times: &[i64]) -> ListOffsetsRequest {
    let partitions = times.iter().zip(0..).map(|(time, index)| {
        ListOffsetsPartition::default()
            .with_partition_index(index % 2)
            .with_timestamp(*time)
    });
    let asked = ListOffsetsTopic::default()
        .with_name(topic())
        .with_partitions(partitions.collect());
    ListOffsetsRequest::default().with_topics(vec![asked])
}

fn metadata(version: i16) -> MetadataRequest {
    let named = MetadataRequestTopic::default().with_name(Some(topic()));
    let request = MetadataRequest::default().with_topics(Some(vec![named]));
    if version >= 4 {
        request.with_allow_auto_topic_creation(true)
    } else {
        request
    }
}

fn offset_commit(version: i16) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(7)
        .with_committed_metadata(Some(text("where I was")));
    let asked = OffsetCommitRequestTopic::default()
        .with_name(topic())
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_member_id(text("m"))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![asked]);
    if version >= 7 {
        request.with_group_instance_id(Some(text("i")))
    } else {
        request
    }
}

fn offset_fetch(version: i16) -> OffsetFetchRequest {
    if version >= 8 {
        let asked = OffsetFetchRequestTopics::default()
            .with_name(topic())
            .with_partition_indexes(vec![0, 1]);
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(group())
            .with_topics(Some(vec![asked]));
        return OffsetFetchRequest::default().with_groups(vec![asked]);
    }
    let asked = OffsetFetchRequestTopic::default()
        .with_name(topic())
        .with_partition_indexes(vec![0, 1]);
    OffsetFetchRequest::default()
        .with_group_id(group())
        .with_topics(Some(vec![asked]))
}

fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    let request = FindCoordinatorRequest::default();
    match version {
        ..4 => request.with_key(text("group")),
        _ => request.with_coordinator_keys(vec![text("group"), text("other")]),
    }
}

fn join(version: i16) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    let protocol = protocol.with_metadata(Bytes::from_static(b"me"));
    let request = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    if version >= 5 {
        request.with_group_instance_id(Some(text("i")))
    } else {
        request
    }
}

fn leave(version: i16) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(group());
    match version {
        ..3 => request.with_member_id(text("m")),
        _ => request.with_members(vec![MemberIdentity::default().with_member_id(text("m"))]),
    }
}

fn sync(version: i16) -> SyncGroupRequest {
    let share = SyncGroupRequestAssignment::default().with_member_id(text("m"));
    let request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_member_id(text("m"))
        .with_assignments(vec![share.with_assignment(Bytes::from_static(b"all"))]);
    if version >= 5 {
        request.with_protocol_type(Some(text("consumer")))
    } else {
        request
    }
}

fn list_groups(version: i16) -> ListGroupsRequest {
    let request = ListGroupsRequest::default();
    if version >= 4 {
        request.with_states_filter(vec![text("Stable")])
    } else {
        request
    }
}

fn epoch_ends() -> OffsetForLeaderEpochRequest {
    let asked = OffsetForLeaderTopic::default()
        .with_topic(topic())
        .with_partitions(vec![OffsetForLeaderPartition::default()]);
    OffsetForLeaderEpochRequest::default().with_topics(vec![asked])
}

fn describe_configs() -> DescribeConfigsRequest {
    let asked = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(TOPIC));
    let asked = asked.with_configuration_keys(Some(vec![text("cleanup.policy")]));
    DescribeConfigsRequest::default().with_resources(vec![asked])
}

/// Has the codec decode a body.
pub(crate) fn decode(api: Api, body: &mut Bytes, version: i16) -> Result<(), String> {
    macro_rules! of {
        ($request:ty) => {
            <$request>::decode(body, version).map(drop)
        };
    }
    let decoded = match api {
        Api::ApiVersions => of!(ApiVersionsRequest),
        Api::SaslHandshake => of!(SaslHandshakeRequest),
        Api::SaslAuthenticate => of!(SaslAuthenticateRequest),
        Api::Produce => of!(ProduceRequest),
        Api::Fetch => of!(FetchRequest),
        Api::ListOffsets => of!(ListOffsetsRequest),
        Api::Metadata => of!(MetadataRequest),
        Api::OffsetCommit => of!(OffsetCommitRequest),
        Api::OffsetFetch => of!(OffsetFetchRequest),
        Api::FindCoordinator => of!(FindCoordinatorRequest),
        Api::JoinGroup => of!(JoinGroupRequest),
        Api::Heartbeat => of!(HeartbeatRequest),
        Api::LeaveGroup => of!(LeaveGroupRequest),
        Api::SyncGroup => of!(SyncGroupRequest),
        Api::DescribeGroups => of!(DescribeGroupsRequest),
        Api::ListGroups => of!(ListGroupsRequest),
        Api::DeleteGroups => of!(DeleteGroupsRequest),
        Api::OffsetForLeaderEpoch => of!(OffsetForLeaderEpochRequest),
        Api::DescribeConfigs => of!(DescribeConfigsRequest),
    };
    decoded.map_err(|error| error.to_string())
}
