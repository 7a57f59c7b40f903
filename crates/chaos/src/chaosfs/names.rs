//! Which changes of names are not on disk yet, as a machine without a disk.
//!
//! A name is durable when a directory that its change touches was synced, and with it every earlier
//! change there: directories are written in the order of their changes. The tree itself always has the
//! newest names; a power cut undoes the pending changes, the latest first. Entries are known by
//! numbers, which stay theirs wherever they go; doing what is said here is the shell's work.

use std::collections::BTreeSet;
use std::ffi::OsString;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::pages::Tear;

/// Changes that may be pending; beyond it the oldest become durable, as a full journal makes them.
pub const NAME_CHANGES_MAX: usize = 64 * 1024;

/// A place in the tree: a directory and a name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory's number.
    pub folder: u64,
    /// The name.
    pub name: OsString,
}

/// A change that has been made and can be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A file was made.
    Created(Place),
    /// A directory was made.
    FolderMade(Place),
    /// A file was removed; it is kept aside under its number.
    Removed(Place, u64),
    /// A directory was removed, which was empty.
    FolderRemoved(Place, u64),
    /// Something got another name; what had that name before, if anything, is kept aside.
    Renamed(Place, Place, Option<u64>),
}

impl Change {
    fn folders(&self) -> impl Iterator<Item = u64> {
        let (first, second) = match self {
            Change::Created(place)
            | Change::FolderMade(place)
            | Change::Removed(place, _)
            | Change::FolderRemoved(place, _) => (place.folder, None),
            Change::Renamed(from, to, _) => (from.folder, Some(to.folder)),
        };
        [first].into_iter().chain(second)
    }
}

/// The changes that are not durable, oldest first.
#[derive(Debug, Default)]
pub struct Names {
    pending: Vec<Change>,
}

impl Names {
    /// A change was made. Returns changes that are durable by that, since too many are pending.
    pub fn handle_change(&mut self, change: Change) -> Vec<Change> {
        self.pending.push(change);
        if self.pending.len() <= NAME_CHANGES_MAX {
            return Vec::new();
        }
        self.pending.drain(..NAME_CHANGES_MAX / 2).collect()
    }

    /// A directory was synced. Returns the changes that are durable by that, oldest first: what was kept
    /// aside for them can go.
    pub fn handle_sync(&mut self, folder: u64) -> Vec<Change> {
        let mut folders = BTreeSet::from([folder]);
        let mut is_durable = vec![false; self.pending.len()];
        for (place, change) in self.pending.iter().enumerate().rev() {
            if change.folders().any(|touched| folders.contains(&touched)) {
                folders.extend(change.folders());
                is_durable[place] = true;
            }
        }
        let mut is_durable = is_durable.into_iter();
        self.pending
            .extract_if(.., |_| is_durable.next().unwrap_or(false))
            .collect()
    }

    /// The power is cut. Returns the changes that are lost, the latest first, in which order they are to
    /// be undone, and those that are kept.
    pub fn lose_power(&mut self, tear: Tear, random: &mut StdRng) -> (Vec<Change>, Vec<Change>) {
        let kept = match tear {
            Tear::Nothing => 0,
            _ => random.random_range(0..=self.pending.len()),
        };
        let mut lost = self.pending.split_off(kept);
        lost.reverse();
        (lost, std::mem::take(&mut self.pending))
    }

    /// How many changes are pending.
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rand::SeedableRng as _;

    use super::*;

    fn place(folder: u64, name: &str) -> Place {
        Place {
            folder,
            name: name.into(),
        }
    }

    fn random() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    #[test]
    fn a_sync_makes_the_changes_of_its_directory_durable_and_no_others() {
        let mut names = Names::default();
        let here = Change::Created(place(1, "here"));
        let there = Change::Created(place(2, "there"));
        let gone = Change::Removed(place(1, "old"), 9);
        for change in [&here, &there, &gone] {
            assert_eq!(names.handle_change(change.clone()), []);
        }
        assert_eq!(names.handle_sync(3), []);
        assert_eq!(names.handle_sync(1), [here, gone]);
        assert_eq!(
            names.lose_power(Tear::Nothing, &mut random()),
            (vec![there], vec![])
        );
    }

    #[test]
    fn a_rename_is_durable_with_either_directory_and_takes_what_was_before_it_along() {
        let mut names = Names::default();
        let made = Change::Created(place(1, "a"));
        let moved = Change::Renamed(place(1, "a"), place(2, "b"), None);
        let later = Change::Created(place(1, "c"));
        for change in [&made, &moved, &later] {
            names.handle_change(change.clone());
        }
        assert_eq!(
            names.handle_sync(2),
            [made, moved],
            "a file cannot be moved before it is there"
        );
        assert_eq!(names.pending_count(), 1);
        assert_eq!(names.lose_power(Tear::Nothing, &mut random()).0, [later]);
    }

    #[test]
    fn a_torn_cut_keeps_the_first_changes() {
        let changes: Vec<Change> = (0..9).map(|n| Change::Created(place(n, "x"))).collect();
        let mut counts = BTreeSet::new();
        for seed in 0..40 {
            let mut names = Names::default();
            for change in &changes {
                names.handle_change(change.clone());
            }
            let (mut lost, kept) = names.lose_power(Tear::Prefix, &mut StdRng::seed_from_u64(seed));
            lost.reverse();
            counts.insert(kept.len());
            assert_eq!([kept, lost].concat(), changes);
        }
        assert!(counts.len() > 5, "{counts:?}");
    }

    #[test]
    fn too_many_changes_make_the_oldest_durable() {
        let mut names = Names::default();
        for _ in 0..NAME_CHANGES_MAX {
            assert_eq!(names.handle_change(Change::Created(place(1, "x"))), []);
        }
        let durable = names.handle_change(Change::Created(place(1, "x")));
        assert_eq!(durable.len(), NAME_CHANGES_MAX / 2);
    }

    /// A tree of two directories, as names and what they stand for.
    type Tree = BTreeMap<(u64, String), u64>;

    fn key(place: &Place) -> (u64, String) {
        (place.folder, place.name.to_string_lossy().into_owned())
    }

    fn apply(tree: &mut Tree, change: &Change, id: u64) {
        match change {
            Change::Created(place) | Change::FolderMade(place) => {
                tree.insert(key(place), id);
            }
            Change::Removed(place, _) | Change::FolderRemoved(place, _) => {
                tree.remove(&key(place));
            }
            Change::Renamed(from, to, _) => {
                let moved = tree.remove(&key(from)).unwrap();
                tree.insert(key(to), moved);
            }
        }
    }

    fn undo(tree: &mut Tree, change: &Change) {
        match change {
            Change::Created(place) | Change::FolderMade(place) => {
                assert!(tree.remove(&key(place)).is_some(), "{change:?} undone twice");
            }
            Change::Removed(place, id) | Change::FolderRemoved(place, id) => {
                assert!(
                    tree.insert(key(place), *id).is_none(),
                    "{change:?} hits something"
                );
            }
            Change::Renamed(from, to, replaced) => {
                let moved = tree.remove(&key(to)).unwrap();
                assert!(tree.insert(key(from), moved).is_none());
                if let Some(replaced) = replaced {
                    tree.insert(key(to), *replaced);
                }
            }
        }
    }

    proptest! {
        /// Whatever is done and synced, undoing what is pending gives a tree in which the synced
        /// directories' changes all stand, and which one gets by making only the durable changes.
        #[test]
        fn undoing_what_is_pending_leaves_exactly_what_is_durable(
            steps in prop::collection::vec((0..5u8, 0..3u64, 0..3u8, 0..3u64, 0..3u8), 0..60)
        ) {
            let (mut names, mut tree, mut durable) = (Names::default(), Tree::new(), Tree::new());
            let mut ids = BTreeMap::new();
            for (number, (kind, folder, name, other_folder, other_name)) in (100..).zip(steps) {
                let at = place(folder, &name.to_string());
                let other = place(other_folder, &other_name.to_string());
                let found = tree.get(&key(&at)).copied();
                let change = match (kind, found) {
                    (0, None) => Change::Created(at),
                    (1, Some(id)) => Change::Removed(at, id),
                    (2, Some(_)) if at != other => {
                        let replaced = tree.get(&key(&other)).copied();
                        Change::Renamed(at, other, replaced)
                    }
                    (3, _) => {
                        for change in names.handle_sync(folder) {
                            let id = ids.get(&format!("{change:?}")).copied().unwrap_or(0);
                            apply(&mut durable, &change, id);
                        }
                        continue;
                    }
                    _ => continue,
                };
                ids.insert(format!("{change:?}"), number);
                apply(&mut tree, &change, number);
                names.handle_change(change);
            }
            let (lost, _) = names.lose_power(Tear::Nothing, &mut random());
            for change in &lost {
                undo(&mut tree, change);
            }
            prop_assert_eq!(tree.keys().collect::<Vec<_>>(), durable.keys().collect::<Vec<_>>());
        }
    }
}
