//! Groups by the group machine, as a shard would hold them: each operation is a command, reads look at what there is.

use std::collections::BTreeMap;

use crate::kafka::backend::*;

use super::{TOPIC, now_ms};
use dunlin_model::group::request::{
    CommitRequest, JoinRequest, MemberAssignment, MemberIdentity, OffsetCommit, Protocol, SyncRequest,
};
use dunlin_model::group::{Group, GroupError, Opaque};

#[derive(Default)]
pub struct Groups {
    groups: BTreeMap<String, Group>,
    drawn: u64,
    pub turns: u64,
}

fn identity(member: &str, instance: &Option<String>) -> MemberIdentity {
    MemberIdentity {
        member_id: member.to_owned(),
        instance_id: instance.clone(),
    }
}

fn identity_of(member: &Member) -> MemberIdentity {
    identity(&member.member, &member.instance)
}

impl Groups {
    /// A command, or a look, after time has passed.
    fn with<T>(&mut self, name: &str, act: impl FnOnce(&mut Group, u64) -> T) -> T {
        let mut group = self.groups.remove(name).unwrap_or_default();
        let (before, now) = (group.turn(), now_ms());
        group.tick(now);
        let result = act(&mut group, now);
        self.turns += u64::from(group.turn() != before);
        if !group.is_absent() {
            self.groups.insert(name.to_owned(), group);
        }
        result
    }

    pub fn join(&mut self, join: Join) -> Result<Joining, JoinRefused> {
        self.drawn += 1;
        let protocols = join.protocols.into_iter();
        let request = JoinRequest {
            member: identity(&join.member, &join.instance),
            drawn_id: format!("member-{}", self.drawn),
            id_required: join.is_id_needed,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_ms,
            rebalance_timeout_ms: join.rebalance_ms,
            protocol_type: join.protocol_type,
            protocols: protocols
                .map(|(name, metadata)| Protocol {
                    name,
                    metadata: Opaque(metadata),
                })
                .collect(),
        };
        match self.with(&join.group, |group, now| group.join(request, now)) {
            Ok(joining) => Ok(Joining {
                member: joining.member_id,
                instance: join.instance,
                round: joining.generation as u64,
            }),
            Err(error) => Err(JoinRefused {
                code: Code::from(&error),
                member: match error {
                    GroupError::MemberIdRequired { member_id } => member_id,
                    _ => join.member,
                },
            }),
        }
    }

    pub fn join_result(&mut self, name: &str, joining: &Joining) -> Result<Option<Joined>, Code> {
        let member = identity(&joining.member, &joining.instance);
        let result = self.with(name, |group, _| group.join_result(&member, joining.round as i32));
        let joined = result.transpose().map_err(|error| Code::from(&error))?;
        Ok(joined.map(|joined| Joined {
            generation: joined.generation,
            protocol_type: joined.protocol_type,
            protocol: joined.protocol,
            leader: joined.leader,
            member: joined.member_id,
            is_assigned: joined.skip_assignment,
            members: joined
                .members
                .into_iter()
                .map(|one| JoinedMember {
                    member: one.member.member_id,
                    instance: one.member.instance_id,
                    metadata: one.metadata.0,
                })
                .collect(),
        }))
    }

    pub fn sync(&mut self, syncing: Syncing) -> Result<(), Code> {
        let assignments = syncing.assignments.into_iter();
        let request = SyncRequest {
            member: identity_of(&syncing.member),
            generation: syncing.member.generation,
            protocol_type: syncing.protocol_type,
            protocol: syncing.protocol,
            assignments: assignments
                .map(|(member_id, assignment)| MemberAssignment {
                    member_id,
                    assignment: Opaque(assignment),
                })
                .collect(),
        };
        let result = self.with(&syncing.member.group, |group, now| group.sync(&request, now));
        result.map_err(|error| Code::from(&error))
    }

    pub fn sync_result(&mut self, member: &Member) -> Result<Option<Synced>, Code> {
        let asked = identity_of(member);
        let result = self.with(&member.group, |group, _| {
            group.sync_result(&asked, member.generation)
        });
        let synced = result.transpose().map_err(|error| Code::from(&error))?;
        Ok(synced.map(|synced| Synced {
            protocol_type: synced.protocol_type,
            protocol: synced.protocol,
            assignment: synced.assignment.0,
        }))
    }

    pub fn heartbeat(&mut self, member: &Member) -> Result<(), Code> {
        let asked = identity_of(member);
        let result = self.with(&member.group, |group, now| {
            group.heartbeat(&asked, member.generation, now)
        });
        result.map_err(|error| Code::from(&error))
    }

    pub fn leave(&mut self, name: &str, leavers: Vec<Leaver>) -> Result<Vec<Code>, Code> {
        let leaving: Vec<_> = leavers
            .iter()
            .map(|one| identity(&one.member, &one.instance))
            .collect();
        let result = self.with(name, |group, now| group.leave(&leaving, now));
        let codes = result.map_err(|error| Code::from(&error))?.into_iter();
        Ok(codes
            .map(|result| result.map_or_else(|error| Code::from(&error), |()| Code::NONE))
            .collect())
    }

    pub fn commit(&mut self, member: &Member, offsets: Vec<Committed>) -> Result<Vec<Code>, Code> {
        let offsets = offsets.into_iter().map(|kept| OffsetCommit {
            topic: TOPIC.to_owned(),
            partition: kept.partition as i32,
            offset: kept.offset as i64,
            leader_epoch: (kept.log_epoch >= 0).then_some(kept.log_epoch),
            metadata: kept.metadata,
        });
        let request = CommitRequest {
            member: identity_of(member),
            generation: member.generation,
            offsets: offsets.collect(),
        };
        let result = self.with(&member.group, |group, now| group.commit(&request, now));
        let codes = result.map_err(|error| Code::from(&error))?.into_iter();
        Ok(codes
            .map(|result| result.map_or_else(|error| Code::from(&error), |()| Code::NONE))
            .collect())
    }

    pub fn offsets(&mut self, name: &str, partitions: Option<Vec<u32>>) -> Vec<Committed> {
        let Some(group) = self.groups.get(name) else {
            return Vec::new();
        };
        let kept = group.offsets().iter().map(|(_, partition, kept)| Committed {
            partition: partition as u32,
            offset: kept.offset as u64,
            log_epoch: kept.leader_epoch.unwrap_or(-1),
            metadata: kept.metadata.clone(),
        });
        let is_asked = |partition: u32| partitions.as_ref().is_none_or(|asked| asked.contains(&partition));
        kept.filter(|kept| is_asked(kept.partition)).collect()
    }

    pub fn describe(&mut self, name: &str) -> Result<Described, Code> {
        let described = self.with(name, |group, _| group.describe());
        described.map(Described::from).map_err(|error| Code::from(&error))
    }

    pub fn list(&mut self) -> Vec<Listed> {
        let listed = self.groups.iter().filter_map(|(name, group)| {
            let listing = group.list()?;
            Some(Listed {
                group: name.clone(),
                protocol_type: listing.protocol_type,
                state: listing.state,
            })
        });
        listed.collect()
    }

    pub fn delete(&mut self, name: &str) -> Result<(), Code> {
        self.with(name, |group, now| group.delete(now))
            .map_err(|error| Code::from(&error))
    }
}
