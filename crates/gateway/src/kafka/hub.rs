//! The hub behind the Kafka door: shards as partitions, policies, and consumer groups as commands and questions to the
//! shard that keeps them.
//!
//! Decides what is tried again here: a command on a group whose answer was lost, which the group takes as the same one.
//! What a group does is decided in [`dunlin_model::group`]. See [`backend`](super::backend) for what is promised.

use std::net::SocketAddr;
use std::sync::Arc;

use dunlin_model::audit::AuditRecord;
use dunlin_model::command::{Command, Consistency, Outcome, Query, ReadFrom, View};
use dunlin_model::directory::Right;
use dunlin_model::group::ask::{GroupAnswer, GroupAsk, GroupQuestion, GroupSaid};
use dunlin_model::group::request::{
    CommitRequest, JoinRequest, MemberAssignment, MemberIdentity, OffsetCommit, Protocol, SyncRequest,
};
use dunlin_model::group::{GroupError, MEMBER_ID_BYTES_MAX, Opaque, check_group_id};
use dunlin_model::id::{NodeId, ShardId};
use dunlin_model::port::{EventPage, QueryError, SubmitError};
use dunlin_model::routing::BUILT_IN;
use futures_util::future::BoxFuture;

use super::backend::{
    Backend, Bounds, Broker, Code, Committed, Described, Event, Join, JoinRefused, Joined, JoinedMember,
    Joining, Leaver, Listed, Member, Page, Place, Principal, ReadError, Refused, Synced, Syncing, USER,
};
use super::members::cut;
use crate::auth::{self, ConnectionString, news};
use crate::events::{self, endpoint};
use crate::http::claimed;
use crate::limits::KAFKA_ASKS_MAX;
use crate::provisioning::guid;
use crate::shared::Shared;

/// Name of the topic.
pub(crate) const TOPIC: &str = "messages";

/// See the file.
pub(crate) struct Hub {
    shared: Arc<Shared>,
}

impl Hub {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// A node as Kafka counts brokers: above all that clients make up for nodes they only know by address.
fn broker_id(node: NodeId) -> i32 {
    (node.0 & 0x3FFF_FFFF) as i32
}

fn read_error(error: QueryError) -> ReadError {
    match error {
        QueryError::Unavailable(_) | QueryError::CutOff | QueryError::Unknown => ReadError::Unavailable,
        QueryError::NoSuchShard(_) | QueryError::Refused(_) => ReadError::Other,
        QueryError::Store(why) => {
            tracing::warn!(error = %why, "a partition could not be read");
            ReadError::Other
        }
    }
}

fn identity(member: &str, instance: Option<&String>) -> MemberIdentity {
    MemberIdentity {
        member_id: member.to_owned(),
        instance_id: instance.cloned(),
    }
}

impl Hub {
    /// Has a group do something. A command whose answer was lost is sent again: to a group that is the same one.
    async fn ask(&self, group: &str, ask: GroupAsk) -> Result<GroupAnswer, GroupFailure> {
        check_group_id(group)?;
        let mut left = KAFKA_ASKS_MAX;
        loop {
            let command = Command::Group {
                group: group.to_owned(),
                ask: Box::new(ask.clone()),
            };
            left -= 1;
            match self.shared.client.submit(command).await {
                Ok(Outcome::Group(answer)) => return Ok(answer?),
                Ok(_) => return Err(GroupFailure::Code(Code::UNKNOWN_SERVER_ERROR)),
                Err(SubmitError::Unknown) if left > 0 => {}
                Err(SubmitError::Busy(_)) => {
                    return Err(GroupFailure::Code(Code::COORDINATOR_LOAD_IN_PROGRESS));
                }
                Err(_) => return Err(GroupFailure::Code(Code::COORDINATOR_NOT_AVAILABLE)),
            }
        }
    }

    /// Asks a group what it says without being changed.
    async fn question(
        &self,
        group: &str,
        question: GroupQuestion,
        consistency: Consistency,
    ) -> Result<GroupSaid, Code> {
        check_group_id(group).map_err(|error| Code::from(&error))?;
        let query = Query::Group {
            group: group.to_owned(),
            question,
        };
        match self.shared.client.query(query, consistency).await {
            Ok(View::Group(said)) => Ok(*said),
            Ok(_) => Err(Code::UNKNOWN_SERVER_ERROR),
            Err(error) => Err(match read_error(error) {
                ReadError::Unavailable => Code::COORDINATOR_NOT_AVAILABLE,
                ReadError::OffsetGone | ReadError::Other => Code::UNKNOWN_SERVER_ERROR,
            }),
        }
    }

    /// Whether `text` is a connection string of a policy that may read events.
    fn check(&self, user: &str, text: &str) -> Result<Principal, Refused> {
        let shown = ConnectionString::parse(text).map_err(|_| Refused::Wrong)?;
        let is_for_us = user == USER && shown.entity_path.as_deref().is_none_or(|path| path == TOPIC);
        let named = shown.shared_access_key_name.filter(|_| is_for_us);
        let policy = named.ok_or(Refused::Wrong)?;
        if !self.shared.client.is_fresh() {
            return Err(Refused::Unavailable);
        }
        let principal = Principal::new(policy, &shown.shared_access_key);
        let is_ours = auth::is_host(&self.shared.host_names, &shown.host_name);
        if is_ours && self.is_still_good(&principal) {
            Ok(principal)
        } else {
            Err(Refused::Wrong)
        }
    }

    async fn page(
        &self,
        partition: u32,
        from: ReadFrom,
        bytes_max: usize,
        wait_ms: u64,
    ) -> Result<EventPage, ReadError> {
        let reading = self
            .shared
            .client
            .read_events(ShardId(partition), from, bytes_max, wait_ms);
        reading.await.map_err(read_error)
    }
}

/// Why a group did not do something.
enum GroupFailure {
    /// It says so.
    Refused(GroupError),
    /// It could not be asked.
    Code(Code),
}

impl From<GroupError> for GroupFailure {
    fn from(error: GroupError) -> Self {
        Self::Refused(error)
    }
}

impl GroupFailure {
    fn code(&self) -> Code {
        match self {
            Self::Refused(error) => error.into(),
            Self::Code(code) => *code,
        }
    }
}

/// One end for each that was named.
fn each(answer: Result<GroupAnswer, GroupFailure>) -> Result<Vec<Code>, Code> {
    match answer {
        Ok(GroupAnswer::Each(each)) => {
            let code = |one: &Result<(), GroupError>| one.as_ref().err().map_or(Code::NONE, Code::from);
            Ok(each.iter().map(code).collect())
        }
        Ok(_) => Err(Code::UNKNOWN_SERVER_ERROR),
        Err(failure) => Err(failure.code()),
    }
}

/// An event as the door shows it.
fn event(event: events::Event) -> Event {
    Event {
        offset: event.place.offset,
        time_ms: event.place.time_ms,
        device: event.identity(),
        system: event.system,
        properties: event.properties,
        payload: event.payload,
    }
}

impl Backend for Hub {
    fn node_id(&self) -> i32 {
        broker_id(self.shared.client.node())
    }

    fn brokers(&self) -> Vec<Broker> {
        let mut brokers: Vec<Broker> = Vec::new();
        for (node, address) in self.shared.client.brokers() {
            let Some((host, port)) = address.rsplit_once(':') else {
                continue;
            };
            let node_id = broker_id(node);
            let Some(port) = port
                .parse()
                .ok()
                .filter(|_| brokers.iter().all(|one| one.node_id != node_id))
            else {
                continue;
            };
            let host = host.trim_matches(['[', ']']).to_owned();
            brokers.push(Broker { node_id, host, port });
        }
        brokers
    }

    fn partition_count(&self) -> u32 {
        self.shared.client.directory().shard_count
    }

    fn log_epoch(&self, partition: u32) -> i32 {
        let epoch = self.shared.client.directory().epoch_of(ShardId(partition));
        i32::try_from(epoch).unwrap_or(i32::MAX)
    }

    fn authorize<'a>(
        &'a self,
        user: &'a str,
        password: &'a str,
        peer: SocketAddr,
    ) -> BoxFuture<'a, Result<Principal, Refused>> {
        Box::pin(async move {
            let mut checked = self.check(user, password);
            if checked == Err(Refused::Wrong) {
                // The policy, or its key, may be new.
                news::hear_all(&self.shared).await;
                checked = self.check(user, password);
            }
            if checked == Err(Refused::Wrong) {
                let shown = ConnectionString::parse(password).unwrap_or_default();
                let who = claimed(&shown.shared_access_key_name.unwrap_or_default());
                let record = AuditRecord::refused("kafka.sign-in", who, "events", Refused::Wrong.to_string());
                let from = peer.to_string();
                self.shared.hooks.audit.refused(AuditRecord { from, ..record });
            }
            checked
        })
    }

    fn is_still_good(&self, principal: &Principal) -> bool {
        principal.is_good(&self.shared.client.directory(), Right::ServiceConnect)
    }

    fn bounds(&self, partition: u32) -> BoxFuture<'_, Result<Bounds, ReadError>> {
        Box::pin(async move {
            let query = Query::Shard(ShardId(partition));
            let asked = self.shared.client.query(query, Consistency::Linearizable).await;
            match asked.map_err(read_error)? {
                View::Shard(view) => Ok(Bounds {
                    first_offset: view.first_offset,
                    next_offset: view.next_offset,
                }),
                _ => Err(ReadError::Other),
            }
        })
    }

    fn offset_at(&self, partition: u32, time_ms: u64) -> BoxFuture<'_, Result<Option<Place>, ReadError>> {
        Box::pin(async move {
            let page = self.page(partition, ReadFrom::TimeMs(time_ms), 1, 0).await?;
            Ok(page.runs.first().map(|run| Place {
                offset: page.from.max(run.first_offset),
                time_ms: run.time_ms,
            }))
        })
    }

    fn read(
        &self,
        partition: u32,
        from: u64,
        bytes_max: usize,
        wait_ms: u64,
    ) -> BoxFuture<'_, Result<Page, ReadError>> {
        Box::pin(async move {
            let (shard, at) = (ShardId(partition), ReadFrom::Offset(from));
            let reading = endpoint::read(&self.shared, BUILT_IN, shard, at, (bytes_max, wait_ms));
            let page = reading.await.map_err(read_error)?;
            if from < page.first_offset {
                return Err(ReadError::OffsetGone);
            }
            Ok(Page {
                events: page.events.into_iter().map(event).collect(),
                next: page.next,
                first_offset: page.first_offset,
                next_offset: page.end_offset,
            })
        })
    }

    fn join(&self, join: Join) -> BoxFuture<'_, Result<Joining, JoinRefused>> {
        Box::pin(async move {
            // What a client calls itself leaves room for what makes it one of its kind.
            let name = cut(&join.client_id, MEMBER_ID_BYTES_MAX - 37);
            let protocols = join.protocols.into_iter().map(|(name, metadata)| Protocol {
                name,
                metadata: Opaque(metadata),
            });
            let request = JoinRequest {
                member: identity(&join.member, join.instance.as_ref()),
                drawn_id: format!("{name}-{}", guid(rand::random())),
                id_required: join.is_id_needed,
                client_id: join.client_id,
                client_host: join.client_host,
                session_timeout_ms: join.session_ms,
                rebalance_timeout_ms: join.rebalance_ms,
                protocol_type: join.protocol_type,
                protocols: protocols.collect(),
            };
            let refused = |code, member| Err(JoinRefused { code, member });
            match self.ask(&join.group, GroupAsk::Join(request)).await {
                Ok(GroupAnswer::Joining(joining)) => Ok(Joining {
                    instance: join.instance,
                    member: joining.member_id,
                    round: joining.generation.unsigned_abs().into(),
                }),
                Ok(_) => refused(Code::UNKNOWN_SERVER_ERROR, join.member),
                Err(GroupFailure::Refused(GroupError::MemberIdRequired { member_id })) => {
                    refused(Code::MEMBER_ID_REQUIRED, member_id)
                }
                Err(failure) => refused(failure.code(), join.member),
            }
        })
    }

    fn join_result<'a>(
        &'a self,
        group: &'a str,
        joining: &'a Joining,
    ) -> BoxFuture<'a, Result<Option<Joined>, Code>> {
        Box::pin(async move {
            let question = GroupQuestion::Joined {
                member: identity(&joining.member, joining.instance.as_ref()),
                generation: i32::try_from(joining.round).unwrap_or(i32::MAX),
            };
            let said = self.question(group, question, Consistency::Linearizable).await?;
            let GroupSaid::Joined(said) = said else {
                return Err(Code::UNKNOWN_SERVER_ERROR);
            };
            let Some(joined) = said.transpose().map_err(|error| Code::from(&error))? else {
                return Ok(None);
            };
            let members = joined.members.into_iter().map(|member| JoinedMember {
                member: member.member.member_id,
                instance: member.member.instance_id,
                metadata: member.metadata.0,
            });
            Ok(Some(Joined {
                generation: joined.generation,
                protocol_type: joined.protocol_type,
                protocol: joined.protocol,
                leader: joined.leader,
                member: joined.member_id,
                is_assigned: joined.skip_assignment,
                members: members.collect(),
            }))
        })
    }

    fn sync(&self, syncing: Syncing) -> BoxFuture<'_, Result<(), Code>> {
        Box::pin(async move {
            let assignments = syncing
                .assignments
                .into_iter()
                .map(|(member_id, share)| MemberAssignment {
                    member_id,
                    assignment: Opaque(share),
                });
            let request = SyncRequest {
                member: identity(&syncing.member.member, syncing.member.instance.as_ref()),
                generation: syncing.member.generation,
                protocol_type: syncing.protocol_type,
                protocol: syncing.protocol,
                assignments: assignments.collect(),
            };
            let asked = self.ask(&syncing.member.group, GroupAsk::Sync(request)).await;
            asked.map(|_| ()).map_err(|failure| failure.code())
        })
    }

    fn sync_result<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Option<Synced>, Code>> {
        Box::pin(async move {
            let question = GroupQuestion::Synced {
                member: identity(&member.member, member.instance.as_ref()),
                generation: member.generation,
            };
            let said = self
                .question(&member.group, question, Consistency::Linearizable)
                .await?;
            let GroupSaid::Synced(said) = said else {
                return Err(Code::UNKNOWN_SERVER_ERROR);
            };
            let synced = said.transpose().map_err(|error| Code::from(&error))?;
            Ok(synced.map(|synced| Synced {
                protocol_type: synced.protocol_type,
                protocol: synced.protocol,
                assignment: synced.assignment.0,
            }))
        })
    }

    fn heartbeat(&self, member: Member) -> BoxFuture<'_, Result<(), Code>> {
        Box::pin(async move {
            let who = identity(&member.member, member.instance.as_ref());
            let question = GroupQuestion::Fresh {
                member: who.clone(),
                generation: member.generation,
                now_ms: self.shared.now_ms(),
            };
            // Most need not go through the log: the member was heard of a moment ago.
            let said = self.question(&member.group, question, Consistency::Leader).await;
            if matches!(said, Ok(GroupSaid::Fresh(true))) {
                return Ok(());
            }
            let ask = GroupAsk::Heartbeat {
                member: who,
                generation: member.generation,
            };
            let asked = self.ask(&member.group, ask).await;
            asked.map(|_| ()).map_err(|failure| failure.code())
        })
    }

    fn leave(&self, group: String, leavers: Vec<Leaver>) -> BoxFuture<'_, Result<Vec<Code>, Code>> {
        Box::pin(async move {
            let leaving = leavers
                .iter()
                .map(|leaver| identity(&leaver.member, leaver.instance.as_ref()));
            each(self.ask(&group, GroupAsk::Leave(leaving.collect())).await)
        })
    }

    fn commit(&self, member: Member, offsets: Vec<Committed>) -> BoxFuture<'_, Result<Vec<Code>, Code>> {
        Box::pin(async move {
            let offsets = offsets.into_iter().map(|one| OffsetCommit {
                topic: TOPIC.to_owned(),
                partition: i32::try_from(one.partition).unwrap_or(i32::MAX),
                offset: i64::try_from(one.offset).unwrap_or(i64::MAX),
                leader_epoch: (one.log_epoch >= 0).then_some(one.log_epoch),
                metadata: one.metadata,
            });
            let request = CommitRequest {
                member: identity(&member.member, member.instance.as_ref()),
                generation: member.generation,
                offsets: offsets.collect(),
            };
            each(self.ask(&member.group, GroupAsk::Commit(request)).await)
        })
    }

    fn offsets(
        &self,
        group: String,
        partitions: Option<Vec<u32>>,
    ) -> BoxFuture<'_, Result<Vec<Committed>, Code>> {
        Box::pin(async move {
            let said = self
                .question(&group, GroupQuestion::Offsets, Consistency::Linearizable)
                .await?;
            let GroupSaid::Offsets(offsets) = said else {
                return Err(Code::UNKNOWN_SERVER_ERROR);
            };
            let of_topic = offsets.iter().filter(|(topic, ..)| *topic == TOPIC);
            let kept = of_topic.filter_map(|(_, partition, kept)| {
                let partition = u32::try_from(partition).ok()?;
                let is_wanted = partitions
                    .as_ref()
                    .is_none_or(|wanted| wanted.contains(&partition));
                is_wanted.then(|| Committed {
                    partition,
                    offset: u64::try_from(kept.offset).unwrap_or(0),
                    log_epoch: kept.leader_epoch.unwrap_or(-1),
                    metadata: kept.metadata.clone(),
                })
            });
            Ok(kept.collect())
        })
    }

    fn describe(&self, group: String) -> BoxFuture<'_, Result<Described, Code>> {
        Box::pin(async move {
            let question = GroupQuestion::Description;
            let said = self.question(&group, question, Consistency::Linearizable).await?;
            let GroupSaid::Description(said) = said else {
                return Err(Code::UNKNOWN_SERVER_ERROR);
            };
            let description = match said {
                Ok(description) => description,
                Err(GroupError::GroupIdNotFound) => {
                    return Ok(Described {
                        state: "Dead".to_owned(),
                        protocol_type: String::new(),
                        protocol: String::new(),
                        members: Vec::new(),
                    });
                }
                Err(error) => return Err(Code::from(&error)),
            };
            Ok(description.into())
        })
    }

    fn groups(&self) -> BoxFuture<'_, Result<Vec<Listed>, Code>> {
        Box::pin(async move {
            let mut all = Vec::new();
            for shard in self.shared.client.directory().shards() {
                let mut after = bytes::Bytes::new();
                loop {
                    let query = Query::Groups { shard, after };
                    let asked = self.shared.client.query(query, Consistency::Linearizable).await;
                    let View::Groups { found, next } = asked.map_err(|_| Code::COORDINATOR_NOT_AVAILABLE)?
                    else {
                        return Err(Code::UNKNOWN_SERVER_ERROR);
                    };
                    all.extend(found.into_iter().map(|line| Listed {
                        group: line.id,
                        protocol_type: line.listing.protocol_type,
                        state: line.listing.state,
                    }));
                    match next {
                        Some(next) => after = next,
                        None => break,
                    }
                }
            }
            Ok(all)
        })
    }

    fn delete(&self, group: String) -> BoxFuture<'_, Result<(), Code>> {
        Box::pin(async move {
            let asked = self.ask(&group, GroupAsk::Delete).await;
            asked.map(|_| ()).map_err(|failure| failure.code())
        })
    }
}
