//! A consumer group as anybody sees it who may read events: FindCoordinator, OffsetFetch, DeleteGroups.
//!
//! None of them needs a place in the group; that is [`member`](super::member).

use bytes::{BufMut as _, BytesMut};

use super::connection::{DELETE_GROUP, FIND_COORDINATOR, OFFSET_FETCH};
use super::reader::{Reader, put_topic};
use super::wire::{Answer, Malformed, put_list, put_text};
use super::{Broker, Code, KafkaError};

/// Kind of a coordinator's key.
const GROUP: i8 = 0;
/// The offset of a partition that nobody has committed one of.
const NONE: i64 = -1;

/// A partition, and how far it is committed: an offset, or that there is none, or why nobody can tell.
pub type Committed = (u32, Result<Option<u64>, Code>);

impl Reader {
    /// The gateway that members of `group` are sent to. Any other serves it as well.
    pub async fn find_coordinator(&mut self, group: &str) -> Result<Broker, KafkaError> {
        let asked = |out: &mut BytesMut| {
            put_text(out, group);
            out.put_i8(GROUP);
        };
        let mut answer = self.connection.ask(FIND_COORDINATOR, asked).await?;
        let (code, broker) =
            read_coordinator(&mut answer).map_err(|error| FIND_COORDINATOR.malformed(error))?;
        FIND_COORDINATOR.check(code)?;
        broker.ok_or(FIND_COORDINATOR.malformed(Malformed::Missing))
    }

    /// How far `group` has committed.
    pub async fn committed(&mut self, group: &str, partitions: &[u32]) -> Result<Vec<Committed>, KafkaError> {
        let asked = |out: &mut BytesMut| put_committed(out, group, partitions);
        let mut answer = self.connection.ask(OFFSET_FETCH, asked).await?;
        let (told, code) = read_committed(&mut answer).map_err(|error| OFFSET_FETCH.malformed(error))?;
        OFFSET_FETCH.check(code)?;
        Ok(told)
    }

    /// Forgets `group`, if nobody is in it, and its offsets.
    pub async fn delete_group(&mut self, group: &str) -> Result<(), KafkaError> {
        let asked = |out: &mut BytesMut| put_list(out, [group].iter(), |out, group| put_text(out, group));
        let mut answer = self.connection.ask(DELETE_GROUP, asked).await?;
        let code = read_deleted(&mut answer).map_err(|error| DELETE_GROUP.malformed(error))?;
        DELETE_GROUP.check(code)
    }
}

fn read_coordinator(answer: &mut Answer) -> Result<(i16, Option<Broker>), Malformed> {
    let _throttled_ms = answer.i32()?;
    let (code, _message) = (answer.i16()?, answer.text()?);
    let (node_id, host, port) = (answer.i32()?, answer.text()?, answer.i32()?);
    let port = u16::try_from(port).ok();
    let broker = host.zip(port).map(|(host, port)| Broker { node_id, host, port });
    Ok((code, broker))
}

fn put_committed(out: &mut BytesMut, group: &str, partitions: &[u32]) {
    put_text(out, group);
    put_topic(out, |out| {
        put_list(out, partitions.iter(), |out, partition| {
            out.put_i32(*partition as i32)
        });
    });
}

fn read_committed(answer: &mut Answer) -> Result<(Vec<Committed>, i16), Malformed> {
    let _throttled_ms = answer.i32()?;
    let topics = answer.list(|topic| {
        let _name = topic.text()?;
        topic.list(|partition| {
            let (index, offset) = (partition.number()?, partition.i64()?);
            let (_metadata, code) = (partition.text()?, Code(partition.i16()?));
            let told = match (code, offset) {
                (Code::NONE, NONE) => Ok(None),
                (Code::NONE, offset) => Ok(Some(u64::try_from(offset).map_err(|_| Malformed::Number)?)),
                (code, _) => Err(code),
            };
            Ok((index, told))
        })
    })?;
    Ok((topics.into_iter().flatten().collect(), answer.i16()?))
}

fn read_deleted(answer: &mut Answer) -> Result<i16, Malformed> {
    let _throttled_ms = answer.i32()?;
    let codes = answer.list(|group| {
        let _name = group.text()?;
        group.i16()
    })?;
    codes.into_iter().next().ok_or(Malformed::Missing)
}

#[cfg(test)]
mod tests {
    use super::super::TOPIC;
    use super::super::testing::answered;
    use super::*;
    use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
    use kafka_protocol::messages::offset_fetch_response::{
        OffsetFetchResponsePartition, OffsetFetchResponseTopic,
    };
    use kafka_protocol::messages::{
        DeleteGroupsResponse, FindCoordinatorResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
    };
    use kafka_protocol::protocol::{Decodable as _, StrBytes};

    #[test]
    fn a_coordinator_is_read_or_that_there_is_none() {
        let response = FindCoordinatorResponse::default()
            .with_node_id(7.into())
            .with_host(StrBytes::from_static_str("h"))
            .with_port(9093);
        let mut answer = answered(FIND_COORDINATOR.version, &response);
        let broker = Broker {
            node_id: 7,
            host: "h".into(),
            port: 9093,
        };
        assert_eq!(read_coordinator(&mut answer), Ok((0, Some(broker))));
        assert!(answer.rest().is_empty());
        let none = response.with_error_code(15).with_port(-1);
        let mut answer = answered(FIND_COORDINATOR.version, &none);
        assert_eq!(read_coordinator(&mut answer), Ok((15, None)));
    }

    #[test]
    fn committed_offsets_are_asked_for_and_read() {
        let mut out = BytesMut::new();
        put_committed(&mut out, "g", &[1, 2]);
        let mut bytes = out.freeze();
        let request = OffsetFetchRequest::decode(&mut bytes, OFFSET_FETCH.version).unwrap();
        assert!(bytes.is_empty());
        assert_eq!(request.topics.unwrap()[0].partition_indexes, [1, 2]);
        let partition = |index, offset, code| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
                .with_error_code(code)
        };
        let topic = OffsetFetchResponseTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions(vec![
                partition(1, 40, 0),
                partition(2, -1, 0),
                partition(3, -1, 15),
            ]);
        let response = OffsetFetchResponse::default().with_topics(vec![topic]);
        let mut answer = answered(OFFSET_FETCH.version, &response);
        let (told, code) = read_committed(&mut answer).unwrap();
        let unreachable = Err(Code::COORDINATOR_NOT_AVAILABLE);
        assert_eq!(told, [(1, Ok(Some(40))), (2, Ok(None)), (3, unreachable)]);
        assert!(code == 0 && answer.rest().is_empty());
    }

    #[test]
    fn what_came_of_a_deletion_is_read() {
        let result = DeletableGroupResult::default().with_error_code(68);
        let response = DeleteGroupsResponse::default().with_results(vec![result]);
        let mut answer = answered(DELETE_GROUP.version, &response);
        assert_eq!(read_deleted(&mut answer), Ok(68));
        assert!(answer.rest().is_empty());
    }
}
