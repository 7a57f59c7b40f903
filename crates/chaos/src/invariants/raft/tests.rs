//! Each violation in a small made-up sequence, and a sound one.

use super::*;

fn at(term: u64, index: u64) -> LogPosition {
    LogPosition {
        term,
        leader: 1,
        index,
    }
}

/// A follower in term 1 that has nothing.
fn sight(replica: u64) -> Sight {
    Sight {
        us: 0,
        node: replica as usize - 1,
        life: 1,
        run: 0,
        group: 1,
        replica,
        term: 1,
        leads: false,
        vote: Some((1, 1)),
        committed: None,
        applied: None,
    }
}

fn voters(ids: &[u64]) -> BTreeSet<u64> {
    ids.iter().copied().collect()
}

/// A replica of three that takes entries up to `committed` for committed, and has applied all of them.
fn seen(sight: Sight, committed: LogPosition) -> (Sight, Option<Inside>) {
    let inside = Inside {
        committed: Some(committed),
        applied: Some(committed),
        voters: [vec![voters(&[1, 2, 3])], vec![voters(&[1, 2, 3])]],
    };
    let index = Some(committed.index);
    let sight = Sight {
        committed: index,
        applied: index,
        ..sight
    };
    (sight, Some(inside))
}

fn leading(term: u64, replica: u64) -> Sight {
    Sight {
        term,
        leads: true,
        ..sight(replica)
    }
}

/// The whole log of a replica; an entry's digest is its term.
fn shown(replica: u64, entries: &[LogPosition]) -> Shown {
    Shown {
        group: 1,
        replica,
        purged: None,
        is_whole: true,
        entries: entries.iter().map(|at| (*at, at.term)).collect(),
    }
}

fn watched(rounds: Vec<Round>) -> Watch {
    let mut watch = Watch::default();
    rounds.iter().for_each(|round| watch.see(round));
    watch
}

fn wrong(rounds: Vec<Round>) -> String {
    let watch = watched(rounds);
    assert_eq!(watch.findings().count, 1, "{:?}", watch.findings());
    watch.findings().examples[0].what.clone()
}

fn round(logs: Vec<Shown>, sights: Vec<(Sight, Option<Inside>)>) -> Round {
    Round {
        sights,
        logs,
        ..Round::default()
    }
}

/// Entries of term 1.
fn entries(count: u64) -> Vec<LogPosition> {
    (0..count).map(|index| at(1, index)).collect()
}

#[test]
fn a_sound_sequence_with_a_new_leader_and_a_purge_passes() {
    let three = entries(3);
    let mut after = three[..2].to_vec();
    after.push(at(2, 2));
    let watch = watched(vec![
        round(
            vec![shown(1, &three), shown(2, &three[..2]), shown(3, &three[..1])],
            vec![seen(leading(1, 1), at(1, 1)), seen(sight(2), at(1, 0))],
        ),
        // The first leader is gone with an entry that nobody else has.
        round(
            vec![
                Shown {
                    purged: Some(at(1, 0)),
                    ..shown(2, &after[1..])
                },
                shown(3, &after),
            ],
            vec![
                seen(leading(2, 2), at(2, 2)),
                seen(Sight { term: 2, ..sight(3) }, at(1, 1)),
            ],
        ),
        // It comes back, and takes its entry back.
        round(
            vec![shown(1, &after)],
            vec![seen(
                Sight {
                    life: 2,
                    term: 2,
                    vote: Some((2, 2)),
                    ..sight(1)
                },
                at(1, 0),
            )],
        ),
    ]);
    assert!(watch.findings().is_empty(), "{:?}", watch.findings());
    assert_eq!(watch.sights(), 5);
}

#[test]
fn a_leadership_in_two_lives_is_found() {
    let mut again = leading(1, 1);
    again.life = 2;
    assert_eq!(check(&[leading(1, 1), again.clone()], &[]).count, 1);
    again.term = 2;
    assert!(check(&[leading(1, 1), again], &[]).is_empty());
    // openraft has several leaders of a term follow each other.
    assert!(check(&[leading(1, 1), leading(1, 2)], &[]).is_empty());
}

#[test]
fn a_vote_that_goes_back_is_found_unless_the_disk_was_put_back() {
    let mut sights = [sight(1), sight(1)];
    sights[0].vote = Some((3, 2));
    (sights[1].vote, sights[1].life, sights[1].us) = (Some((2, 1)), 2, 10);
    assert_eq!(check(&sights, &[]).count, 1);
    let mut restored = sights.to_vec();
    restored.insert(
        1,
        Sight {
            us: 5,
            ..sights[0].clone()
        },
    );
    assert!(check(&restored, &[(4, 6, 0)]).is_empty());
    assert!(check(&sights, &[(4, 6, 0)]).is_empty(), "nobody looked meanwhile");
    assert_eq!(check(&restored, &[(4, 6, 1)]).count, 1, "another node's was");
    sights[1].vote = Some((3, 1));
    assert_eq!(
        check(&sights, &[]).count,
        1,
        "for a lower replica in the same term"
    );
}

#[test]
fn what_goes_back_in_a_run_or_is_applied_too_early_is_found() {
    let of = |committed, applied| Sight {
        committed,
        applied,
        ..sight(1)
    };
    assert_eq!(check(&[of(Some(5), None), of(Some(4), None)], &[]).count, 1);
    assert_eq!(check(&[of(Some(5), Some(5)), of(Some(5), Some(3))], &[]).count, 1);
    assert_eq!(check(&[of(Some(5), Some(6))], &[]).count, 1);
    let next = Sight {
        run: 1,
        ..of(Some(4), Some(3))
    };
    assert!(
        check(&[of(Some(5), Some(5)), next], &[]).is_empty(),
        "another run"
    );
}

#[test]
fn another_content_or_another_predecessor_is_found() {
    let mut other = shown(2, &entries(2));
    other.entries[1].1 = 99;
    assert!(wrong(vec![round(vec![shown(1, &entries(2)), other], vec![])]).contains("another content"));
    let other = shown(2, &[at(0, 0), at(1, 1)]);
    assert!(wrong(vec![round(vec![shown(1, &entries(2)), other], vec![])]).contains("before"));
}

#[test]
fn two_entries_that_are_committed_at_one_index_are_found() {
    let logs = || {
        vec![
            shown(1, &entries(3)),
            shown(2, &entries(3)),
            shown(3, &entries(3)),
        ]
    };
    let claims = vec![seen(sight(1), at(1, 1)), seen(sight(2), at(0, 1))];
    // What is committed there, and what is applied.
    assert_eq!(watched(vec![round(logs(), claims)]).findings().count, 2);
    // Nobody claims the one that comes before what is committed.
    let first = round(logs(), vec![seen(sight(1), at(1, 1))]);
    let others = [at(0, 0), at(0, 1), at(2, 2)];
    let second = round(
        vec![shown(2, &others), shown(3, &others)],
        vec![seen(Sight { term: 2, ..sight(2) }, at(2, 2))],
    );
    let watch = watched(vec![first, second]);
    let found = &watch.findings().examples;
    assert!(
        found.iter().any(|found| found.what.contains("comes before")),
        "{found:?}"
    );
}

#[test]
fn a_leader_without_what_was_committed_is_found() {
    let first = round(
        vec![
            shown(1, &entries(2)),
            shown(2, &entries(2)),
            shown(3, &entries(1)),
        ],
        vec![seen(leading(1, 1), at(1, 1))],
    );
    let second = round(vec![], vec![seen(leading(2, 3), at(1, 0))]);
    assert!(wrong(vec![first, second]).contains("leads in term 2 without"));
}

#[test]
fn what_is_committed_without_a_majority_is_found() {
    let logs = vec![
        shown(1, &entries(2)),
        shown(2, &entries(1)),
        shown(3, &entries(1)),
    ];
    let claim = vec![seen(leading(1, 1), at(1, 1))];
    assert!(wrong(vec![round(logs, claim)]).contains("no majority"));
}

#[test]
fn while_members_change_a_majority_of_the_voters_that_come_is_not_enough() {
    let (old, new) = (voters(&[1, 2, 3]), voters(&[1, 4, 5]));
    let claimed = |holders: [u64; 3], committed: &[&BTreeSet<u64>], effective: &[&BTreeSet<u64>]| {
        let (sight, inside) = seen(leading(1, 1), at(1, 1));
        let sets = [committed, effective].map(|sets| sets.iter().map(|set| (*set).clone()).collect());
        let inside = inside.map(|inside| Inside {
            voters: sets,
            ..inside
        });
        let logs = holders.map(|replica| shown(replica, &entries(2)));
        watched(vec![round(logs.into(), vec![(sight, inside)])])
            .findings()
            .count
    };
    assert_eq!(claimed([1, 2, 4], &[&old], &[&old, &new]), 0);
    assert_eq!(claimed([1, 4, 5], &[&old], &[&old, &new]), 1);
    assert_eq!(claimed([1, 4, 5], &[&old, &new], &[&new]), 0);
    assert_eq!(claimed([1, 2, 3], &[&old, &new], &[&new]), 1);
}

#[test]
fn a_vote_of_the_next_life_is_not_held_against_what_the_last_one_showed_at_its_end() {
    let voted = |us, term| Voted {
        us,
        node: 0,
        group: 1,
        replica: 1,
        vote: (term, 1),
    };
    let count = |us| {
        let mut both = round(vec![], vec![(sight(1), None)]);
        both.sights[0].0.us = 10;
        both.votes = vec![voted(us, 2)];
        watched(vec![both]).findings().count
    };
    assert_eq!(count(20), 0);
    assert_eq!(count(5), 1, "the disk had it, and then had the older one");
}

#[test]
fn a_disk_that_loses_what_was_committed_is_found() {
    let all = || {
        vec![
            shown(1, &entries(2)),
            shown(2, &entries(2)),
            shown(3, &entries(2)),
        ]
    };
    let first = || round(all(), vec![seen(leading(1, 1), at(1, 1))]);
    let second = round(vec![shown(3, &entries(1))], vec![]);
    assert!(wrong(vec![first(), second]).contains("any more"));
    let let_go = Shown {
        purged: Some(at(1, 1)),
        ..shown(3, &[])
    };
    let watch = watched(vec![first(), round(vec![let_go], vec![])]);
    assert!(watch.findings().is_empty(), "{:?}", watch.findings());
}

#[test]
fn members_that_change_in_one_step_are_found() {
    let (old, new) = (voters(&[1, 2, 3]), voters(&[1, 4, 5]));
    let steps = [
        vec![old.clone()],
        vec![old.clone(), new.clone()],
        vec![new.clone()],
    ];
    let mut watch = Watch::default();
    for (index, step) in (0..).zip(&steps) {
        watch.see_members(1, at(1, index), step);
        watch.see_members(1, at(1, index), step);
    }
    assert!(watch.findings().is_empty(), "{:?}", watch.findings());
    watch.see_members(1, at(1, 1), &steps[2]);
    assert_eq!(
        watch.findings().count,
        1,
        "another replica has other members there"
    );
    let mut watch = Watch::default();
    watch.see_members(1, at(1, 0), &steps[0]);
    watch.see_members(1, at(1, 1), &steps[2]);
    assert_eq!(watch.findings().count, 1);
    // And so it is if a replica goes by them.
    let (sight, mut inside) = seen(sight(1), at(1, 0));
    inside.as_mut().unwrap().voters = [steps[0].clone(), steps[2].clone()];
    let logs = vec![shown(1, &entries(1)), shown(2, &entries(1))];
    assert!(wrong(vec![round(logs, vec![(sight, inside)])]).contains("goes by voters"));
}
