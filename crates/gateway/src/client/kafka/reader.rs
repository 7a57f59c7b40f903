//! What there is to read, from where, and the events themselves: Metadata, ListOffsets, Fetch.
//!
//! A reader asks one gateway for whatever partitions it is told, since each gateway serves all of them. It keeps no place:
//! that is the caller's.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::connection::{Connection, Door, FETCH, LIST_OFFSETS, METADATA};
use super::records::{self, Event};
use super::wire::{Answer, Malformed, put_list, put_text};
use super::{Code, KafkaError, TOPIC};

/// Stands for a replica that a consumer is none of.
const NO_REPLICA: i32 = -1;

/// A connection of somebody known.
pub struct Reader {
    pub(super) connection: Connection,
}

/// Where a partition is read from that nobody has a place in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The first event that is kept.
    Earliest,
    /// The next that comes.
    Latest,
}

impl From {
    /// What Kafka has instead of a time.
    fn time(self) -> i64 {
        match self {
            Self::Earliest => -2,
            Self::Latest => -1,
        }
    }
}

/// How long a fetch waits for how much.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The hub answers with less after this.
    pub wait: Duration,
    /// The hub answers at once with that much.
    pub bytes_min: u32,
    /// Bytes of all partitions together.
    pub bytes_max: u32,
}

/// A partition, and where it begins or ends, or why nobody can tell.
pub type Bound = (u32, Result<u64, Code>);

/// What came of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Which.
    pub partition: u32,
    /// Why there is nothing, or that nothing is wrong.
    pub code: Code,
    /// Bytes of the batches.
    pub bytes: usize,
    /// The events, from the offset on that was asked for.
    pub events: Vec<Event>,
    /// The offset to go on at: behind the events, and behind what routes lead elsewhere.
    pub next: u64,
}

impl Reader {
    /// Connects and signs in.
    pub async fn dial(door: &Door) -> Result<Self, KafkaError> {
        let connection = Connection::dial(door).await?;
        Ok(Self { connection })
    }

    /// The partitions that there are.
    pub async fn partitions(&mut self) -> Result<Vec<u32>, KafkaError> {
        let mut answer = self.connection.ask(METADATA, put_metadata).await?;
        let (code, partitions) = read_metadata(&mut answer).map_err(|error| METADATA.malformed(error))?;
        METADATA.check(code)?;
        Ok(partitions)
    }

    /// Where partitions begin or end.
    pub async fn list_offsets(&mut self, from: From, partitions: &[u32]) -> Result<Vec<Bound>, KafkaError> {
        let asked = |out: &mut BytesMut| put_list_offsets(out, from, partitions);
        let mut answer = self.connection.ask(LIST_OFFSETS, asked).await?;
        read_list_offsets(&mut answer).map_err(|error| LIST_OFFSETS.malformed(error))
    }

    /// Events of these partitions, each from its offset on.
    pub async fn fetch(
        &mut self,
        places: &BTreeMap<u32, u64>,
        wanted: Wanted,
    ) -> Result<Vec<Fetched>, KafkaError> {
        let asked = |out: &mut BytesMut| put_fetch(out, places, wanted);
        let wait = self.connection.wait() + wanted.wait;
        let mut answer = self.connection.ask_within(FETCH, wait, asked).await?;
        read_fetch(&mut answer, places).map_err(|error| FETCH.malformed(error))
    }
}

/// One topic, of the one that there is.
pub(super) fn put_topic(out: &mut BytesMut, partitions: impl FnOnce(&mut BytesMut)) {
    out.put_i32(1);
    put_text(out, TOPIC);
    partitions(out);
}

fn put_metadata(out: &mut BytesMut) {
    put_list(out, [TOPIC].iter(), |out, topic| put_text(out, topic));
}

fn read_metadata(answer: &mut Answer) -> Result<(i16, Vec<u32>), Malformed> {
    let _brokers = answer.list(|broker| {
        let _id = broker.i32()?;
        let _host = broker.text()?;
        let _port = broker.number()?;
        broker.text()
    })?;
    let _controller = answer.i32()?;
    let topics = answer.list(|topic| {
        let code = topic.i16()?;
        let (_name, _is_internal) = (topic.text()?, topic.i8()?);
        let partitions = topic.list(|partition| {
            // That nobody leads it now is for the fetch to find out.
            let _code = partition.i16()?;
            let index = partition.number()?;
            let _leader = partition.i32()?;
            let _replicas = partition.list(Answer::i32)?;
            let _in_sync = partition.list(Answer::i32)?;
            Ok(index)
        })?;
        Ok((code, partitions))
    })?;
    topics.into_iter().next().ok_or(Malformed::Missing)
}

fn put_list_offsets(out: &mut BytesMut, from: From, partitions: &[u32]) {
    out.put_i32(NO_REPLICA);
    put_topic(out, |out| {
        put_list(out, partitions.iter(), |out, partition| {
            out.put_i32(*partition as i32);
            out.put_i64(from.time());
        });
    });
}

fn read_list_offsets(answer: &mut Answer) -> Result<Vec<Bound>, Malformed> {
    let topics = answer.list(|topic| {
        let _name = topic.text()?;
        topic.list(|partition| {
            let (index, code) = (partition.number()?, Code(partition.i16()?));
            let (_time, offset) = (partition.i64()?, partition.i64()?);
            let offset = match code {
                Code::NONE => Ok(u64::try_from(offset).map_err(|_| Malformed::Number)?),
                code => Err(code),
            };
            Ok((index, offset))
        })
    })?;
    Ok(topics.into_iter().flatten().collect())
}

fn put_fetch(out: &mut BytesMut, places: &BTreeMap<u32, u64>, wanted: Wanted) {
    let signed = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    out.put_i32(NO_REPLICA);
    out.put_i32(i32::try_from(wanted.wait.as_millis()).unwrap_or(i32::MAX));
    out.put_i32(signed(wanted.bytes_min));
    out.put_i32(signed(wanted.bytes_max));
    out.put_i8(0); // Whatever isolation: there are no transactions.
    put_topic(out, |out| {
        put_list(out, places.iter(), |out, (partition, offset)| {
            out.put_i32(*partition as i32);
            out.put_i64(i64::try_from(*offset).unwrap_or(i64::MAX));
            out.put_i32(signed(wanted.bytes_max));
        });
    });
}

fn read_fetch(answer: &mut Answer, places: &BTreeMap<u32, u64>) -> Result<Vec<Fetched>, Malformed> {
    let _throttled_ms = answer.i32()?;
    let topics = answer.list(|topic| {
        let _name = topic.text()?;
        topic.list(|partition| {
            let (index, code) = (partition.number()?, Code(partition.i16()?));
            let (_next, _stable) = (partition.i64()?, partition.i64()?);
            let _aborted = partition.list(|one| Ok((one.i64()?, one.i64()?)))?;
            let records: Bytes = partition.blob()?.unwrap_or_default();
            let from = *places.get(&index).ok_or(Malformed::Number)?;
            let bytes = records.len();
            let (events, next) = records::read(records, from)?;
            Ok(Fetched {
                partition: index,
                code,
                bytes,
                events,
                next,
            })
        })
    })?;
    Ok(topics.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answered, asked};
    use super::*;
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::list_offsets_response::{
        ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
    };
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::{
        FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
        MetadataResponse, TopicName,
    };
    use kafka_protocol::protocol::StrBytes;

    fn topic() -> TopicName {
        TopicName(StrBytes::from_static_str(TOPIC))
    }

    #[test]
    fn metadata_is_asked_for_and_read() {
        let request: MetadataRequest = asked(METADATA.version, put_metadata);
        assert_eq!(request.topics.unwrap()[0].name, Some(topic()));
        let broker = MetadataResponseBroker::default().with_host(StrBytes::from_static_str("h"));
        let partition = |index| MetadataResponsePartition::default().with_partition_index(index);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(topic()))
            .with_partitions(vec![
                partition(0),
                partition(1).with_replica_nodes(vec![3.into()]),
            ]);
        let response = MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_topics(vec![topic]);
        let mut answer = answered(METADATA.version, &response);
        assert_eq!(read_metadata(&mut answer), Ok((0, vec![0, 1])));
        assert!(answer.rest().is_empty());
    }

    #[test]
    fn offsets_are_asked_for_and_read() {
        let request: ListOffsetsRequest = asked(LIST_OFFSETS.version, |out| {
            put_list_offsets(out, From::Latest, &[4]);
        });
        let partition = &request.topics[0].partitions[0];
        assert_eq!((partition.partition_index, partition.timestamp), (4, -1));
        let partition = ListOffsetsPartitionResponse::default().with_partition_index(4);
        let unled = partition.clone().with_error_code(Code::LEADER_NOT_AVAILABLE.0);
        let topic = ListOffsetsTopicResponse::default()
            .with_name(topic())
            .with_partitions(vec![partition.with_offset(9), unled]);
        let response = ListOffsetsResponse::default().with_topics(vec![topic]);
        let mut answer = answered(LIST_OFFSETS.version, &response);
        let offsets = read_list_offsets(&mut answer).unwrap();
        assert_eq!(offsets, [(4, Ok(9)), (4, Err(Code::LEADER_NOT_AVAILABLE))]);
        assert!(answer.rest().is_empty());
    }

    #[test]
    fn events_are_asked_for_and_read() {
        let places = BTreeMap::from([(2, 30), (5, 0)]);
        let wanted = Wanted {
            wait: Duration::from_millis(250),
            bytes_min: 1,
            bytes_max: 1000,
        };
        let request: FetchRequest = asked(FETCH.version, |out| put_fetch(out, &places, wanted));
        assert_eq!((request.max_wait_ms, request.min_bytes), (250, 1));
        let partitions = &request.topics[0].partitions;
        assert_eq!((partitions[0].partition, partitions[0].fetch_offset), (2, 30));
        let partition = |index| {
            PartitionData::default()
                .with_partition_index(index)
                .with_records(Some(Bytes::new()))
                .with_aborted_transactions(None)
        };
        let gone = partition(5).with_error_code(Code::OFFSET_OUT_OF_RANGE.0);
        let response = |partitions| {
            let topic = FetchableTopicResponse::default()
                .with_topic(topic())
                .with_partitions(partitions);
            FetchResponse::default().with_responses(vec![topic])
        };
        let mut answer = answered(FETCH.version, &response(vec![partition(2), gone]));
        let fetched = read_fetch(&mut answer, &places).unwrap();
        assert_eq!((fetched[0].partition, fetched[0].code), (2, Code::NONE));
        assert_eq!(fetched[1].code, Code::OFFSET_OUT_OF_RANGE);
        assert!(answer.rest().is_empty());
        let mut other = answered(FETCH.version, &response(vec![partition(7)]));
        assert_eq!(read_fetch(&mut other, &places), Err(Malformed::Number));
    }
}
