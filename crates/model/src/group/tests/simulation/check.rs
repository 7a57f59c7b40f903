//! What must hold of the world: while there is trouble, and after it.

use std::collections::BTreeSet;

use super::super::super::request::{CommitRequest, MemberIdentity};
use super::super::commit_of;
use super::World;
use super::client::{Client, PARTITIONS, partitions};

impl World {
    /// What became of the group.
    pub(super) fn look(&mut self, before: (i32, &'static str)) {
        let group = &self.desk.group;
        let generation = group.generation();
        assert!(generation >= before.0 || group.is_absent(), "generations rise");
        if group.is_absent() {
            self.assigned.clear();
        }
        if self.desk.word() == "Stable" && before != (generation, "Stable") {
            let members = group.members.iter();
            let parts = members.map(|member| (key(&member.identity()), member.assignment.clone()));
            let known = self.assigned.insert(generation, parts.collect());
            assert_eq!(known, None, "a generation is assigned once");
        }
        for _ in 0..2 {
            if self.former.is_empty() {
                break;
            }
            let place = self.random.below(self.former.len() as u64) as usize;
            let (member, generation) = self.former[place].clone();
            let is_current = generation == self.desk.group.generation()
                && self.desk.group.place_of_identity(&member).is_ok();
            let offsets = vec![commit_of("topic", 0, -7)];
            let request = CommitRequest {
                member,
                generation,
                offsets,
            };
            let answer = self.desk.group.clone().commit(&request, self.now_ms);
            assert!(
                is_current || answer.is_err(),
                "nobody commits for a generation that is over"
            );
        }
    }

    /// Whoever commits is of the current generation, and was assigned what it commits.
    pub(super) fn assert_owned(&self, commit: &CommitRequest) {
        assert_eq!(commit.generation, self.desk.group.generation());
        assert!(self.desk.group.place_of_identity(&commit.member).is_ok());
        let part = &self.assigned[&commit.generation][&key(&commit.member)];
        let owned = partitions(part);
        assert!(
            commit
                .offsets
                .iter()
                .all(|offset| owned.contains(&offset.partition))
        );
    }

    /// The group is whole: exactly those who live are in it, and each partition is read by one of them.
    pub(super) fn assert_whole(&self) {
        let live: Vec<&Client> = self.clients.iter().filter(|client| !client.is_gone()).collect();
        let group = &self.desk.group;
        if live.is_empty() {
            assert_eq!(self.desk.word(), "Empty");
            return;
        }
        assert_eq!(self.desk.word(), "Stable");
        let ids: BTreeSet<&str> = live.iter().map(|client| client.member_id.as_str()).collect();
        assert_eq!(self.desk.member_ids().into_iter().collect::<BTreeSet<_>>(), ids);
        for client in &live {
            assert!(client.is_steady() && client.generation == group.generation());
            let result = group.sync_result(&client.identity(), client.generation);
            let result = result.expect("an answer").expect("a result");
            assert_eq!(
                partitions(&result.assignment),
                client.owned,
                "what it was assigned is what it does"
            );
        }
        let mut owned: Vec<i32> = live.iter().flat_map(|client| client.owned.clone()).collect();
        owned.sort_unstable();
        assert_eq!(owned, (0..PARTITIONS).collect::<Vec<_>>());
    }
}

/// What stays the same as long as a member is the same to others.
pub(super) fn key(member: &MemberIdentity) -> String {
    member
        .instance_id
        .clone()
        .unwrap_or_else(|| member.member_id.clone())
}
