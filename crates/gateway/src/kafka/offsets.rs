//! How far groups have read: OffsetCommit and OffsetFetch.
//!
//! Decides what is no offset of the topic. What a group keeps and of whom it takes it is decided behind
//! [`Backend`](super::backend::Backend).

use std::collections::BTreeMap;

use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::backend::{Committed, Member};
use super::batch::signed;
use super::code::Code;
use super::door::Door;
use super::groups::{check_group, timely};
use super::limits::{GROUPS_MAX, OFFSET_METADATA_BYTES_MAX};
use super::members::owned;

/// Keeps the offsets that can be kept; the others are answered each for itself.
pub(super) async fn commit(door: &Door, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let member = Member {
        group: owned(&request.group_id),
        member: owned(&request.member_id),
        instance: request.group_instance_id.as_deref().map(str::to_owned),
        generation: request.generation_id_or_member_epoch,
    };
    let asked = request.topics.iter();
    let asked = asked.flat_map(|topic| {
        topic
            .partitions
            .iter()
            .map(|asked| offset(door, &topic.name, asked))
    });
    let read: Vec<Result<Committed, Code>> = asked.collect();
    let kept: Vec<Committed> = read.iter().filter_map(|read| read.clone().ok()).collect();
    let result = match check_group(&request.group_id) {
        Err(code) => Err(code),
        Ok(()) if kept.is_empty() => Ok(Vec::new()),
        Ok(()) => timely(door.backend.commit(member, kept)).await,
    };
    // What was no offset has its own code; the others have the group's, in order.
    let mut codes = result.as_ref().map_or(&[][..], Vec::as_slice).iter().copied();
    let mut read = read.into_iter();
    let mut code = || match (read.next(), &result) {
        (Some(Err(code)), _) => code,
        (_, Err(code)) => *code,
        (_, Ok(_)) => codes.next().unwrap_or(Code::UNKNOWN_SERVER_ERROR),
    };
    let mut topics = Vec::new();
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|asked| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(code().0)
        });
        topics.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect()),
        );
    }
    OffsetCommitResponse::default().with_topics(topics)
}

fn offset(door: &Door, topic: &str, asked: &OffsetCommitRequestPartition) -> Result<Committed, Code> {
    let partition = door.partition(topic, asked.partition_index);
    let partition = partition.ok_or(Code::UNKNOWN_TOPIC_OR_PARTITION)?;
    let metadata = asked.committed_metadata.as_deref().unwrap_or_default();
    if metadata.len() > OFFSET_METADATA_BYTES_MAX {
        return Err(Code::OFFSET_METADATA_TOO_LARGE);
    }
    let offset = u64::try_from(asked.committed_offset);
    Ok(Committed {
        partition,
        offset: offset.map_err(|_| Code::INVALID_COMMIT_OFFSET_SIZE)?,
        log_epoch: asked.committed_leader_epoch,
        metadata: metadata.to_owned(),
    })
}

/// What somebody asks for: topics and their partitions, or all.
type Asked = Option<Vec<(TopicName, Vec<i32>)>>;

/// What is answered for a topic: for each partition its offset, or none, or why nobody knows.
type Told = (TopicName, Vec<(i32, Result<Option<Committed>, Code>)>);

/// The offsets of a group, or from version 8 on of several.
pub(super) async fn fetch(door: &Door, request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    if version < 8 {
        let topics = request.topics.map(|topics| {
            let topics = topics.into_iter();
            topics
                .map(|topic| (topic.name, topic.partition_indexes))
                .collect()
        });
        let (code, told) = told(door, &request.group_id, topics).await;
        // Version 1 has no place for an error of the group; it is said of each partition then.
        return OffsetFetchResponse::default()
            .with_error_code(code.0)
            .with_topics(told.into_iter().map(topic).collect());
    }
    let mut groups = Vec::new();
    for (number, asked) in request.groups.into_iter().enumerate() {
        let topics = asked.topics.map(|topics| {
            let topics = topics.into_iter();
            topics
                .map(|topic| (topic.name, topic.partition_indexes))
                .collect()
        });
        let (code, told) = match number {
            ..GROUPS_MAX => told(door, &asked.group_id, topics).await,
            _ => (Code::INVALID_REQUEST, Vec::new()),
        };
        groups.push(
            OffsetFetchResponseGroup::default()
                .with_group_id(asked.group_id)
                .with_error_code(code.0)
                .with_topics(told.into_iter().map(topic_of_many).collect()),
        );
    }
    OffsetFetchResponse::default().with_groups(groups)
}

async fn told(door: &Door, group: &str, asked: Asked) -> (Code, Vec<Told>) {
    let partitions = asked.as_ref().map(|topics| {
        let known = topics.iter().flat_map(|(topic, partitions)| {
            let known = partitions.iter();
            known.filter_map(|partition| door.partition(topic, *partition))
        });
        known.collect()
    });
    let kept = match check_group(group) {
        Err(code) => Err(code),
        Ok(()) => timely(door.backend.offsets(group.to_owned(), partitions)).await,
    };
    let code = kept.as_ref().err().copied().unwrap_or(Code::NONE);
    let kept = kept.map(|kept| {
        let kept = kept.into_iter();
        kept.map(|kept| (kept.partition as i32, kept))
            .collect::<BTreeMap<_, _>>()
    });
    let told = match (asked, kept) {
        (None, Err(_)) => Vec::new(),
        (None, Ok(kept)) if kept.is_empty() => Vec::new(),
        (None, Ok(kept)) => {
            let name = StrBytes::from_string(door.topic.clone()).into();
            let told = kept
                .into_iter()
                .map(|(partition, kept)| (partition, Ok(Some(kept))));
            vec![(name, told.collect())]
        }
        (Some(topics), kept) => {
            let topics = topics.into_iter();
            let told = topics.map(|(topic, partitions)| {
                let is_known = topic.as_str() == door.topic;
                let partitions = partitions.into_iter();
                let told = partitions.map(|partition| {
                    let found = kept
                        .as_ref()
                        .map(|kept| kept.get(&partition).filter(|_| is_known).cloned());
                    (partition, found.map_err(|code| *code))
                });
                (topic, told.collect())
            });
            told.collect()
        }
    };
    (code, told)
}

/// The parts of an answer for a partition: offset, epoch, metadata, code.
fn parts(told: Result<Option<Committed>, Code>) -> (i64, i32, Option<StrBytes>, i16) {
    match told {
        Err(code) => (-1, -1, Some(StrBytes::new()), code.0),
        Ok(None) => (-1, -1, Some(StrBytes::new()), Code::NONE.0),
        Ok(Some(kept)) => {
            let metadata = StrBytes::from_string(kept.metadata);
            (signed(kept.offset), kept.log_epoch, Some(metadata), Code::NONE.0)
        }
    }
}

fn topic((name, partitions): Told) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|(partition, told)| {
        let (offset, epoch, metadata, code) = parts(told);
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(metadata)
            .with_error_code(code)
    });
    OffsetFetchResponseTopic::default()
        .with_name(name)
        .with_partitions(partitions.collect())
}

/// The same once more: the codec has a type of its own for it.
fn topic_of_many((name, partitions): Told) -> OffsetFetchResponseTopics {
    let partitions = partitions.into_iter().map(|(partition, told)| {
        let (offset, epoch, metadata, code) = parts(told);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(metadata)
            .with_error_code(code)
    });
    OffsetFetchResponseTopics::default()
        .with_name(name)
        .with_partitions(partitions.collect())
}
