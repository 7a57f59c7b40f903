//! Numbers for files and directories that stay theirs wherever they are moved, and their places.
//!
//! Filled as names are looked up; it never asks the disk, and what it has not met it does not know.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::names::Place;

/// The number of the root.
pub const ROOT: u64 = 1;
/// Entries that may be known; beyond it nothing that is unknown can be looked up.
pub const ENTRIES_MAX: usize = 1 << 20;

/// Where everything is that has been met.
#[derive(Debug)]
pub struct Tree {
    /// `None` for what has been put aside.
    places: HashMap<u64, Option<Place>>,
    ids: HashMap<(u64, OsString), u64>,
    next_id: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            ids: HashMap::new(),
            next_id: ROOT + 1,
        }
    }
}

impl Tree {
    /// The number of what is at a place, a fresh one if it has not been met; `None` when too many are known.
    pub fn id_at(&mut self, place: &Place) -> Option<u64> {
        if let Some(id) = self.ids.get(&key(place)) {
            return Some(*id);
        }
        if self.places.len() >= ENTRIES_MAX {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.put(id, place);
        Some(id)
    }

    /// Whether this number is in use.
    pub fn knows(&self, id: u64) -> bool {
        id == ROOT || self.places.contains_key(&id)
    }

    /// The path from the root; `None` for what is unknown, or aside, or below something that is.
    pub fn path(&self, id: u64) -> Option<PathBuf> {
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT {
            let place = self.places.get(&at)?.as_ref()?;
            names.push(&place.name);
            at = place.folder;
        }
        Some(names.into_iter().rev().collect())
    }

    /// The path of a place.
    pub fn path_of(&self, place: &Place) -> Option<PathBuf> {
        Some(self.path(place.folder)?.join(&place.name))
    }

    /// Puts what has this number at a place where nothing is.
    pub fn put(&mut self, id: u64, place: &Place) {
        let before = self.places.insert(id, Some(place.clone()));
        if let Some(Some(before)) = before {
            self.ids.remove(&key(&before));
        }
        self.ids.insert(key(place), id);
    }

    /// Takes away what is at a place, which keeps its number.
    pub fn put_aside(&mut self, place: &Place) -> Option<u64> {
        let id = self.ids.remove(&key(place))?;
        self.places.insert(id, None);
        Some(id)
    }

    /// Forgets a number for good, and all that is below it.
    pub fn forget(&mut self, id: u64) {
        let below: Vec<u64> = self
            .ids
            .iter()
            .filter(|((folder, _), _)| *folder == id)
            .map(|(_, id)| *id)
            .collect();
        for id in below {
            self.forget(id);
        }
        if let Some(Some(place)) = self.places.remove(&id) {
            self.ids.remove(&key(&place));
        }
    }
}

fn key(place: &Place) -> (u64, OsString) {
    (place.folder, place.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: u64, name: &str) -> Place {
        Place {
            folder,
            name: name.into(),
        }
    }

    #[test]
    fn numbers_stay_when_a_directory_above_is_moved() {
        let mut tree = Tree::default();
        let folder = tree.id_at(&place(ROOT, "a")).unwrap();
        let file = tree.id_at(&place(folder, "f")).unwrap();
        assert_eq!(tree.id_at(&place(folder, "f")), Some(file));
        assert_eq!(tree.path(file), Some("a/f".into()));
        tree.put(folder, &place(ROOT, "b"));
        assert_eq!(tree.path(file), Some("b/f".into()));
        assert_ne!(tree.id_at(&place(ROOT, "a")), Some(folder));
    }

    #[test]
    fn what_is_put_aside_keeps_its_number_and_has_no_path() {
        let mut tree = Tree::default();
        let at = place(ROOT, "f");
        let old = tree.id_at(&at).unwrap();
        assert_eq!(tree.put_aside(&at), Some(old));
        assert_eq!((tree.path(old), tree.knows(old)), (None, true));
        let new = tree.id_at(&at).unwrap();
        assert_ne!(new, old);
        tree.put_aside(&at);
        tree.put(old, &at);
        assert_eq!(tree.id_at(&at), Some(old));
    }

    #[test]
    fn a_forgotten_directory_takes_along_what_is_below_it() {
        let mut tree = Tree::default();
        let folder = tree.id_at(&place(ROOT, "a")).unwrap();
        let file = tree.id_at(&place(folder, "f")).unwrap();
        tree.forget(folder);
        assert!(!tree.knows(folder) && !tree.knows(file));
        assert_eq!(tree.path(ROOT), Some(PathBuf::new()));
    }
}
