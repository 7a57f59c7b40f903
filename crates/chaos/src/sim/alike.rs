//! Replica equality (I12): states of one entry are the same, at any time; at the end all replicas of a group
//! are of one entry, and their events are the same too.
//!
//! Looks into the machines' stores directly, as no client could. Notes on rejected frames are a replica's own
//! and are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use bytes::Bytes;
use dunlin_model::id::{GroupId, GroupReplica, ReplicaId};
use dunlin_model::limits::READ_BYTES_MAX;
use dunlin_model::port::{EventLog, ShardStore as _};
use dunlin_model::shard::{keys, verdict};
use dunlin_model::telemetry;
use dunlin_storage::state::MemStore;

use super::machine::{Life, Machine};
use super::world::World;

/// Keys that differ between two replicas that are shown.
const DIFFERING_SHOWN_MAX: usize = 6;

type Pairs = BTreeMap<Bytes, Bytes>;

fn pairs_of(state: &MemStore) -> Pairs {
    let pairs = state.snapshot().flatten();
    pairs.filter(|(key, _)| !verdict::is_local(key)).collect()
}

/// What one has and the other has not, or has otherwise.
fn difference(one: &Pairs, other: &Pairs) -> Option<String> {
    let keys: BTreeSet<&Bytes> = one.keys().chain(other.keys()).collect();
    let differing: Vec<_> = keys
        .into_iter()
        .filter(|key| one.get(*key) != other.get(*key))
        .map(|key| (key, one.get(key), other.get(key)))
        .take(DIFFERING_SHOWN_MAX)
        .collect();
    (!differing.is_empty()).then(|| format!("{differing:?}"))
}

/// What the first of each kind had, to hold the others against.
struct Firsts<K, V>(BTreeMap<K, (usize, V)>);

impl<K: Ord, V> Firsts<K, V> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Says, with the first one's place, how `value` of the machine in `place` differs from the first of its kind.
    fn compare(
        &mut self,
        kind: K,
        (place, value): (usize, V),
        differs: impl FnOnce(&V, &V) -> Option<String>,
    ) -> Option<String> {
        match self.0.get(&kind) {
            Some((first_place, first)) => {
                let how = differs(first, &value)?;
                Some(format!("node {} and node {}: {how}", first_place + 1, place + 1))
            }
            None => {
                self.0.insert(kind, (place, value));
                None
            }
        }
    }
}

fn running(life: &Life) -> impl Iterator<Item = GroupReplica> {
    let groups = life.cluster.status().groups.into_iter();
    groups.map(|(group, status)| GroupReplica {
        group: GroupId(group),
        replica: ReplicaId(status.replica),
    })
}

fn with_state<T>(machine: &Machine, id: GroupReplica, look: impl FnOnce(&MemStore) -> T) -> Option<T> {
    let states = machine.states.lock().unwrap_or_else(PoisonError::into_inner);
    states.get(&id).map(look)
}

/// Whether the states of a group's running replicas are of one entry. What a node reports of itself may be a
/// moment older than its state.
pub(super) fn stand_at_one_entry(world: &World) -> bool {
    let mut first: BTreeMap<GroupId, Option<Bytes>> = BTreeMap::new();
    world.machines.iter().all(|machine| {
        let ids = machine.life.iter().flat_map(running);
        ids.into_iter().all(|id| {
            let at = with_state(machine, id, |state| state.get(keys::META).ok().flatten()).flatten();
            *first.entry(id.group).or_insert_with(|| at.clone()) == at
        })
    })
}

/// The first difference between states of one entry, whatever else is going on.
pub(super) fn first_difference(world: &World) -> Option<String> {
    let mut firsts = Firsts::new();
    for machine in &world.machines {
        let states = machine.states.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, state) in states.iter() {
            let Ok(Some(meta)) = state.get(keys::META) else {
                continue;
            };
            let of_machine = (machine.place, pairs_of(state));
            if let Some(how) = firsts.compare((id.group, meta), of_machine, difference) {
                let at_ms = world.now_us / 1000;
                return Some(format!(
                    "I12: at {at_ms} ms states of group {} differ at one entry, {how}",
                    id.group.0
                ));
            }
        }
    }
    None
}

/// All running replicas of a group have the same state and the same events. They stand at one entry.
pub(super) fn check(world: &World, found: &mut Vec<String>) {
    let (mut states, mut events) = (Firsts::new(), Firsts::new());
    for machine in &world.machines {
        let Some(life) = &machine.life else { continue };
        let logs = life.events.lock().unwrap_or_else(PoisonError::into_inner);
        for id in running(life) {
            if let Some(pairs) = with_state(machine, id, pairs_of)
                && let Some(how) = states.compare(id.group, (machine.place, pairs), difference)
            {
                found.push(format!("I12: states of group {} differ, {how}", id.group.0));
            }
            let Some(log) = logs.get(&id) else { continue };
            match payloads(&**log) {
                Ok(payloads) => {
                    let of_machine = (machine.place, payloads);
                    if let Some(how) = events.compare(id.group, of_machine, other_events) {
                        found.push(format!("I12: events of group {} differ, {how}", id.group.0));
                    }
                }
                Err(error) => found.push(format!("I12: {id} of node {}: {error}", machine.place + 1)),
            }
        }
    }
}

fn other_events(one: &Vec<Bytes>, other: &Vec<Bytes>) -> Option<String> {
    (one != other).then(|| format!("{} and {} events", one.len(), other.len()))
}

/// The payloads of all events, in order.
fn payloads(log: &dyn EventLog) -> Result<Vec<Bytes>, dunlin_model::port::StoreError> {
    let (mut found, (mut next, end)) = (Vec::new(), log.range());
    while next < end {
        for run in log.read(next, READ_BYTES_MAX)? {
            next = run.next_offset().max(next + 1);
            found.extend(
                telemetry::records(run.records)
                    .flatten()
                    .map(|record| record.payload),
            );
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(keys: &[&'static str]) -> Pairs {
        let pair = |key: &&'static str| (Bytes::from(*key), Bytes::from_static(b"value"));
        keys.iter().map(pair).collect()
    }

    #[test]
    fn a_key_that_one_has_not_or_has_otherwise_is_a_difference_wherever_it_stands() {
        let all = pairs(&["a", "b", "c"]);
        assert_eq!(difference(&all, &all), None);
        for fewer in [["b", "c"], ["a", "c"], ["a", "b"]] {
            assert!(difference(&all, &pairs(&fewer)).is_some(), "{fewer:?}");
            assert!(difference(&pairs(&fewer), &all).is_some(), "{fewer:?}");
        }
        let mut other = all.clone();
        other.insert(Bytes::from("c"), Bytes::from("another"));
        assert!(difference(&all, &other).is_some());
    }

    #[test]
    fn others_are_held_against_the_first_of_their_kind() {
        let mut firsts = Firsts::new();
        let differs = |one: &u32, other: &u32| (one != other).then(|| format!("{one} {other}"));
        assert_eq!(firsts.compare("kind", (0, 1), differs), None);
        assert_eq!(firsts.compare("other kind", (1, 2), differs), None);
        assert_eq!(firsts.compare("kind", (2, 1), differs), None);
        let found = firsts.compare("kind", (2, 3), differs);
        assert_eq!(found.as_deref(), Some("node 1 and node 3: 1 3"));
    }
}
