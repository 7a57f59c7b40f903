//! What there is to read, and from where: Metadata, ListOffsets, OffsetForLeaderEpoch, DescribeConfigs.
//!
//! Decides that there is one topic, whose partitions all gateways share out among themselves. Partitions that cannot be
//! reached are said to have no leader, which readers ask about again.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::timeout;

use super::backend::{Bounds, Place, ReadError};
use super::batch::signed;
use super::code::Code;
use super::door::Door;
use super::fetch::{epoch_code, read_code};
use super::limits::{LOOK_WAIT, LOOKS_AT_A_TIME};

/// Instead of a time: where a reader begins that wants everything.
const EARLIEST: i64 = -2;
/// Instead of a time: where a reader begins that wants what is new.
const LATEST: i64 = -1;
/// An offset, a time or an epoch that there is none of.
const NONE: i64 = -1;

/// Brokers, and the topics asked for. None named means all; in version 0 an empty list means that too.
pub(super) fn metadata(door: &Door, request: &MetadataRequest, version: i16) -> MetadataResponse {
    let brokers = door.backend.brokers();
    let controller = brokers.iter().map(|broker| broker.node_id).min();
    let named = request
        .topics
        .as_ref()
        .filter(|topics| version > 0 || !topics.is_empty());
    let topics = match named {
        None => vec![topic(door, &name(&door.topic))],
        Some(named) => {
            // Each once: an answer is longer than its question.
            let names: BTreeSet<&TopicName> = named.iter().filter_map(|topic| topic.name.as_ref()).collect();
            names.into_iter().map(|name| topic(door, name)).collect()
        }
    };
    let brokers = brokers.into_iter().map(|broker| {
        MetadataResponseBroker::default()
            .with_node_id(broker.node_id.into())
            .with_host(StrBytes::from_string(broker.host))
            .with_port(broker.port.into())
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(StrBytes::from_string(door.cluster_id.clone())))
        .with_controller_id(controller.unwrap_or(-1).into())
        .with_topics(topics)
}

fn name(topic: &str) -> TopicName {
    StrBytes::from_string(topic.to_owned()).into()
}

fn topic(door: &Door, name: &TopicName) -> MetadataResponseTopic {
    let topic = MetadataResponseTopic::default().with_name(Some(name.clone()));
    if name.as_str() != door.topic {
        return topic.with_error_code(Code::UNKNOWN_TOPIC_OR_PARTITION.0);
    }
    let partitions = (0..door.backend.partition_count()).map(|partition| {
        let leader = door.backend.leader(partition);
        let code = if leader.is_some() {
            Code::NONE
        } else {
            Code::LEADER_NOT_AVAILABLE
        };
        let nodes: Vec<_> = leader.iter().map(|leader| (*leader).into()).collect();
        MetadataResponsePartition::default()
            .with_error_code(code.0)
            .with_partition_index(partition as i32)
            .with_leader_id(leader.unwrap_or(-1).into())
            .with_leader_epoch(door.backend.log_epoch(partition))
            .with_replica_nodes(nodes.clone())
            .with_isr_nodes(nodes)
    });
    topic.with_partitions(partitions.collect())
}

/// The offsets of times, of the beginning or of the end.
pub(super) async fn list_offsets(
    door: &Door,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let mut topics = Vec::new();
    for asked in request.topics {
        let name = asked.name.clone();
        let partitions = futures_util::stream::iter(asked.partitions)
            .map(|asked| list_offset(door, &name, asked, version))
            .buffered(LOOKS_AT_A_TIME)
            .collect();
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(asked.name)
                .with_partitions(partitions.await),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn list_offset(
    door: &Door,
    topic: &str,
    asked: ListOffsetsPartition,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let index = asked.partition_index;
    let answer = ListOffsetsPartitionResponse::default().with_partition_index(index);
    let refuse = |code: Code| {
        answer
            .clone()
            .with_error_code(code.0)
            .with_offset(NONE)
            .with_timestamp(NONE)
    };
    let Some(partition) = door.partition(topic, index) else {
        return refuse(Code::UNKNOWN_TOPIC_OR_PARTITION);
    };
    let log_epoch = door.backend.log_epoch(partition);
    match epoch_code(asked.current_leader_epoch, log_epoch) {
        Code::NONE => {}
        code => return refuse(code),
    }
    let found = match (asked.timestamp, u64::try_from(asked.timestamp)) {
        (EARLIEST, _) => bounds(door, partition)
            .await
            .map(|bounds| (signed(bounds.first_offset), NONE)),
        (LATEST, _) => bounds(door, partition)
            .await
            .map(|bounds| (signed(bounds.next_offset), NONE)),
        (_, Ok(time_ms)) => offset_at(door, partition, time_ms)
            .await
            .map(|found| match found {
                None => (NONE, NONE),
                Some(place) => (signed(place.offset), signed(place.time_ms)),
            }),
        (_, Err(_)) => return refuse(Code::UNSUPPORTED_VERSION),
    };
    match found {
        Err(error) => refuse(read_code(error)),
        Ok((offset, time_ms)) => {
            let answer = answer.with_offset(offset).with_timestamp(time_ms);
            // Earlier versions have no word for it.
            if version >= 4 && offset != NONE {
                answer.with_leader_epoch(log_epoch)
            } else {
                answer
            }
        }
    }
}

async fn bounds(door: &Door, partition: u32) -> Result<Bounds, ReadError> {
    let asked = timeout(LOOK_WAIT, door.backend.bounds(partition)).await;
    asked.unwrap_or(Err(ReadError::Unavailable))
}

async fn offset_at(door: &Door, partition: u32, time_ms: u64) -> Result<Option<Place>, ReadError> {
    let asked = timeout(LOOK_WAIT, door.backend.offset_at(partition, time_ms)).await;
    asked.unwrap_or(Err(ReadError::Unavailable))
}

/// Where lives of the log ended, so that readers notice when what they have read is lost (KIP-320).
pub(super) async fn epoch_ends(
    door: &Door,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::new();
    for asked in request.topics {
        let name = asked.topic.clone();
        let partitions = futures_util::stream::iter(asked.partitions)
            .map(|asked| epoch_end(door, &name, asked))
            .buffered(LOOKS_AT_A_TIME)
            .collect();
        topics.push(
            OffsetForLeaderTopicResult::default()
                .with_topic(asked.topic)
                .with_partitions(partitions.await),
        );
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

async fn epoch_end(door: &Door, topic: &str, asked: OffsetForLeaderPartition) -> EpochEndOffset {
    let answer = EpochEndOffset::default()
        .with_partition(asked.partition)
        .with_leader_epoch(-1)
        .with_end_offset(NONE);
    let Some(partition) = door.partition(topic, asked.partition) else {
        return answer.with_error_code(Code::UNKNOWN_TOPIC_OR_PARTITION.0);
    };
    let log_epoch = door.backend.log_epoch(partition);
    match epoch_code(asked.current_leader_epoch, log_epoch) {
        Code::NONE => {}
        code => return answer.with_error_code(code.0),
    }
    let end = match asked.leader_epoch {
        // A life that is still to come has no end, nor has one that nobody remembers the end of.
        epoch if epoch > log_epoch || epoch < 0 => Ok(None),
        epoch if epoch < log_epoch => Ok(door.backend.epoch_end(partition, epoch)),
        _ => bounds(door, partition)
            .await
            .map(|bounds| Some(bounds.next_offset)),
    };
    match end {
        Err(error) => answer.with_error_code(read_code(error).0),
        Ok(None) => answer,
        Ok(Some(end)) => answer
            .with_leader_epoch(asked.leader_epoch)
            .with_end_offset(signed(end)),
    }
}

/// Kinds of resources, of configuration values, and where values come from (Kafka's numbers).
mod config {
    pub(super) const TOPIC: i8 = 2;
    pub(super) const BROKER: i8 = 4;
    pub(super) const STRING: i8 = 2;
    pub(super) const STATIC_BROKER: i8 = 4;
}

/// What is true of the topic, for tools that show it. Nothing of it can be changed here.
const CONFIGS: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("compression.type", "uncompressed"),
    ("message.timestamp.type", "LogAppendTime"),
];

/// What there is to say of the topic and of brokers.
pub(super) fn describe_configs(door: &Door, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|asked| {
        let configs = match (asked.resource_type, asked.resource_name.as_str()) {
            (config::TOPIC, topic) if topic == door.topic => Ok(CONFIGS),
            (config::TOPIC, _) => Err(Code::UNKNOWN_TOPIC_OR_PARTITION),
            (config::BROKER, _) => Ok(&CONFIGS[..0]),
            _ => Err(Code::INVALID_REQUEST),
        };
        let is_asked = |name: &str| {
            let keys = asked.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
            keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
        };
        let told = configs
            .unwrap_or_default()
            .iter()
            .filter(|(name, _)| is_asked(name));
        let told = told.map(|(name, value)| {
            DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_static_str(value)))
                .with_read_only(true)
                .with_config_source(config::STATIC_BROKER)
                .with_config_type(config::STRING)
        });
        DescribeConfigsResult::default()
            .with_error_code(configs.err().unwrap_or(Code::NONE).0)
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone())
            .with_configs(told.collect())
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}
