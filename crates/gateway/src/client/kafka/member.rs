//! A place in a consumer group: JoinGroup, SyncGroup, Heartbeat, OffsetCommit, LeaveGroup.
//!
//! A member is its id and its generation, and no connection: it may go on over another one, at another gateway. It shares
//! out if it is asked to ([`shares`](super::shares)), keeps no offsets and decides nothing else. When to join again, and
//! what a commit is worth whose answer was lost, is the caller's to say.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::connection::{HEARTBEAT, JOIN_GROUP, LEAVE_GROUP, OFFSET_COMMIT, SYNC_GROUP};
use super::reader::{Reader, put_topic};
use super::shares::{self, PROTOCOL, PROTOCOL_TYPE};
use super::wire::{Answer, Malformed, put_blob, put_list, put_text};
use super::{Code, KafkaError};

/// How much longer than its rebalance time a member waits for the others. The hub gives up after two seconds.
const JOIN_GRACE: Duration = Duration::from_secs(5);
/// The generation of somebody who is in none.
const NO_GENERATION: i32 = -1;

/// What a member lets others wait for.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Silence after which it is gone. The hub takes 6 s at the least.
    pub session: Duration,
    /// Time that it gives others to join.
    pub rebalance: Duration,
}

/// What a member is to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The generation that it is of.
    pub generation: i32,
    /// The partitions.
    pub partitions: Vec<u32>,
}

/// See the file.
#[derive(Debug, Clone)]
pub struct Member {
    group: String,
    times: Times,
    /// Empty until the hub has given one.
    id: String,
    generation: i32,
}

impl Member {
    /// Somebody who is to join `group`.
    pub fn new(group: &str, times: Times) -> Self {
        Self {
            group: group.to_owned(),
            times,
            id: String::new(),
            generation: NO_GENERATION,
        }
    }

    /// Forgets who it was. For whom the group no longer knows.
    pub fn forget(&mut self) {
        (self.id, self.generation) = (String::new(), NO_GENERATION);
    }

    /// Joins, waits for the others, and says what is its share of `partitions`; if it is to share out, it does.
    pub async fn join(&mut self, reader: &mut Reader, partitions: &[u32]) -> Result<Share, KafkaError> {
        let mut joined = self.join_once(reader).await?;
        if Code(joined.code) == Code::MEMBER_ID_REQUIRED {
            self.id = joined.member;
            joined = self.join_once(reader).await?;
        }
        JOIN_GROUP.check(joined.code)?;
        (self.id, self.generation) = (joined.member, joined.generation);
        let shares = if joined.leader == self.id {
            shares::share_out(joined.members, partitions)
        } else {
            Vec::new()
        };
        let asked = |out: &mut BytesMut| {
            self.put_self(out);
            put_list(out, shares.iter(), |out, (member, share)| {
                put_text(out, member);
                put_blob(out, &shares::assignment(share));
            });
        };
        let wait = self.times.rebalance + JOIN_GRACE;
        let mut answer = reader.connection.ask_within(SYNC_GROUP, wait, asked).await?;
        let (code, share) = read_synced(&mut answer).map_err(|error| SYNC_GROUP.malformed(error))?;
        SYNC_GROUP.check(code)?;
        let partitions = shares::read_assignment(share).map_err(|error| SYNC_GROUP.malformed(error))?;
        Ok(Share {
            generation: self.generation,
            partitions,
        })
    }

    async fn join_once(&self, reader: &mut Reader) -> Result<Joined, KafkaError> {
        let wait = self.times.rebalance + JOIN_GRACE;
        let asked = |out: &mut BytesMut| self.put_join(out);
        let mut answer = reader.connection.ask_within(JOIN_GROUP, wait, asked).await?;
        read_joined(&mut answer).map_err(|error| JOIN_GROUP.malformed(error))
    }

    /// Is still there.
    pub async fn heartbeat(&self, reader: &mut Reader) -> Result<(), KafkaError> {
        let mut answer = reader.connection.ask(HEARTBEAT, |out| self.put_self(out)).await?;
        HEARTBEAT.check(read_code(&mut answer).map_err(|error| HEARTBEAT.malformed(error))?)
    }

    /// Commits offsets: of each partition the one that is read next. Each has an end of its own.
    pub async fn commit(
        &self,
        reader: &mut Reader,
        offsets: &[(u32, u64)],
    ) -> Result<Vec<(u32, Code)>, KafkaError> {
        let asked = |out: &mut BytesMut| self.put_commit(out, offsets);
        let mut answer = reader.connection.ask(OFFSET_COMMIT, asked).await?;
        read_committed(&mut answer).map_err(|error| OFFSET_COMMIT.malformed(error))
    }

    /// Goes.
    pub async fn leave(&mut self, reader: &mut Reader) -> Result<(), KafkaError> {
        let asked = |out: &mut BytesMut| {
            put_text(out, &self.group);
            put_text(out, &self.id);
        };
        let mut answer = reader.connection.ask(LEAVE_GROUP, asked).await?;
        let code = read_code(&mut answer).map_err(|error| LEAVE_GROUP.malformed(error))?;
        self.forget();
        LEAVE_GROUP.check(code)
    }

    fn put_self(&self, out: &mut BytesMut) {
        put_text(out, &self.group);
        out.put_i32(self.generation);
        put_text(out, &self.id);
    }

    fn put_join(&self, out: &mut BytesMut) {
        let ms = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
        put_text(out, &self.group);
        out.put_i32(ms(self.times.session));
        out.put_i32(ms(self.times.rebalance));
        put_text(out, &self.id);
        put_text(out, PROTOCOL_TYPE);
        put_list(out, [PROTOCOL].iter(), |out, protocol| {
            put_text(out, protocol);
            put_blob(out, &shares::subscription());
        });
    }

    fn put_commit(&self, out: &mut BytesMut, offsets: &[(u32, u64)]) {
        self.put_self(out);
        put_topic(out, |out| {
            put_list(out, offsets.iter(), |out, (partition, offset)| {
                out.put_i32(*partition as i32);
                out.put_i64(i64::try_from(*offset).unwrap_or(i64::MAX));
                put_text(out, "");
            });
        });
    }
}

/// The answer to a join.
#[derive(Debug, PartialEq, Eq)]
struct Joined {
    code: i16,
    generation: i32,
    leader: String,
    member: String,
    /// Everybody's ids, for the leader.
    members: Vec<String>,
}

fn read_joined(answer: &mut Answer) -> Result<Joined, Malformed> {
    let _throttled_ms = answer.i32()?;
    let (code, generation) = (answer.i16()?, answer.i32()?);
    let _protocol = answer.text()?;
    let (leader, member) = (answer.text()?, answer.text()?);
    let members = answer.list(|member| {
        let id = member.text()?;
        let _wants = member.blob()?;
        id.ok_or(Malformed::Missing)
    })?;
    Ok(Joined {
        code,
        generation,
        leader: leader.unwrap_or_default(),
        member: member.unwrap_or_default(),
        members,
    })
}

fn read_synced(answer: &mut Answer) -> Result<(i16, Bytes), Malformed> {
    let _throttled_ms = answer.i32()?;
    Ok((answer.i16()?, answer.blob()?.unwrap_or_default()))
}

fn read_code(answer: &mut Answer) -> Result<i16, Malformed> {
    let _throttled_ms = answer.i32()?;
    answer.i16()
}

fn read_committed(answer: &mut Answer) -> Result<Vec<(u32, Code)>, Malformed> {
    let _throttled_ms = answer.i32()?;
    let topics = answer.list(|topic| {
        let _name = topic.text()?;
        topic.list(|partition| Ok((partition.number()?, Code(partition.i16()?))))
    })?;
    Ok(topics.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::super::TOPIC;
    use super::super::testing::{answered, asked};
    use super::*;
    use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
    use kafka_protocol::messages::offset_commit_response::{
        OffsetCommitResponsePartition, OffsetCommitResponseTopic,
    };
    use kafka_protocol::messages::{
        HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, OffsetCommitRequest,
        OffsetCommitResponse, SyncGroupResponse, TopicName,
    };
    use kafka_protocol::protocol::StrBytes;

    fn member() -> Member {
        let times = Times {
            session: Duration::from_secs(6),
            rebalance: Duration::from_secs(3),
        };
        let mut member = Member::new("g", times);
        (member.id, member.generation) = ("m".into(), 4);
        member
    }

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    #[test]
    fn another_codec_reads_what_a_member_asks() {
        let member = member();
        let join: JoinGroupRequest = asked(JOIN_GROUP.version, |out| member.put_join(out));
        assert_eq!(
            (join.session_timeout_ms, join.rebalance_timeout_ms),
            (6_000, 3_000)
        );
        assert_eq!(
            (join.member_id.as_str(), join.protocols[0].name.as_str()),
            ("m", PROTOCOL)
        );
        let beat: HeartbeatRequest = asked(HEARTBEAT.version, |out| member.put_self(out));
        assert_eq!((beat.generation_id, beat.member_id.as_str()), (4, "m"));
        let commit: OffsetCommitRequest = asked(OFFSET_COMMIT.version, |out| {
            member.put_commit(out, &[(3, 70)]);
        });
        let partition = &commit.topics[0].partitions[0];
        assert_eq!((partition.partition_index, partition.committed_offset), (3, 70));
        assert_eq!(commit.generation_id_or_member_epoch, 4);
    }

    #[test]
    fn a_member_reads_what_another_codec_answers() {
        let other = JoinGroupResponseMember::default().with_member_id(text("other"));
        let response = JoinGroupResponse::default()
            .with_generation_id(5)
            .with_protocol_name(Some(text(PROTOCOL)))
            .with_leader(text("m"))
            .with_member_id(text("m"))
            .with_members(vec![other]);
        let mut answer = answered(JOIN_GROUP.version, &response);
        let joined = Joined {
            code: 0,
            generation: 5,
            leader: "m".into(),
            member: "m".into(),
            members: vec!["other".into()],
        };
        assert_eq!(read_joined(&mut answer), Ok(joined));
        assert!(answer.rest().is_empty());
        let response = SyncGroupResponse::default().with_assignment(shares::assignment(&[1]));
        let mut answer = answered(SYNC_GROUP.version, &response);
        assert_eq!(read_synced(&mut answer), Ok((0, shares::assignment(&[1]))));
        let mut answer = answered(
            HEARTBEAT.version,
            &HeartbeatResponse::default().with_error_code(27),
        );
        assert_eq!(read_code(&mut answer), Ok(27));
        let partition = OffsetCommitResponsePartition::default()
            .with_partition_index(3)
            .with_error_code(22);
        let topic = OffsetCommitResponseTopic::default()
            .with_name(TopicName(text(TOPIC)))
            .with_partitions(vec![partition]);
        let response = OffsetCommitResponse::default().with_topics(vec![topic]);
        let mut answer = answered(OFFSET_COMMIT.version, &response);
        assert_eq!(
            read_committed(&mut answer),
            Ok(vec![(3, Code::ILLEGAL_GENERATION)])
        );
        assert!(answer.rest().is_empty());
    }
}
