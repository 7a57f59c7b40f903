//! Which changes of what is desired a device has been told: each once, in the order of their versions.
//!
//! Pure. Notes may come twice, out of order, or not at all, since leaders change while they are on their way. Where
//! one is missing, the twin itself is asked, which keeps its last changes.

use dunlin_model::twin::Twin;

use super::mailbox::Note;

/// What one connection was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The version that the device has, once that is known.
    version: Option<u64>,
    is_behind: bool,
}

impl Told {
    /// The device has read the twin, with `version` of what is desired.
    pub(crate) fn handle_read(&mut self, version: u64) {
        self.version = self.version.max(Some(version));
    }

    /// A note has come. Returns whether it is to be passed on now.
    pub(crate) fn handle_note(&mut self, version: u64) -> bool {
        match self.version {
            Some(known) if version <= known => false,
            Some(known) if version > known + 1 => {
                self.is_behind = true;
                false
            }
            _ => {
                self.version = Some(version);
                true
            }
        }
    }

    /// Whether a note is missing: then read the twin and call [`handle_twin`](Self::handle_twin).
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// What the twin keeps. Returns the notes that are due, or `None` if one of them is no longer kept: then the
    /// device has to connect again, and to read.
    pub(crate) fn handle_twin(&mut self, twin: &Twin) -> Option<Vec<Note>> {
        self.is_behind = false;
        let mut notes = Vec::new();
        for change in &twin.recent {
            if self.version.is_some_and(|known| change.version > known + 1) {
                return None;
            }
            if self.version.is_none_or(|known| change.version > known) {
                self.version = Some(change.version);
                notes.push(Note {
                    version: change.version,
                    patch: change.patch.clone(),
                });
            }
        }
        (self.version >= Some(twin.desired.version)).then_some(notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twin(changes: u64) -> Twin {
        let mut twin = Twin::default();
        for n in 0..changes {
            let desired = [("n".to_owned(), n.into())].into_iter().collect();
            assert!(twin.change((None, Some(&desired)), false, n, n));
        }
        twin
    }

    #[test]
    fn each_change_is_told_once_and_in_order() {
        let mut told = Told::default();
        told.handle_read(3);
        let passed: Vec<bool> = [2, 3, 4, 4, 5]
            .into_iter()
            .map(|version| told.handle_note(version))
            .collect();
        assert_eq!(passed, [false, false, true, false, true]);
        assert!(!told.is_behind());
    }

    #[test]
    fn what_is_missing_is_taken_from_the_twin() {
        let mut told = Told::default();
        told.handle_read(1);
        assert!(!told.handle_note(4) && told.is_behind());
        let versions = |notes: Vec<Note>| notes.iter().map(|note| note.version).collect::<Vec<_>>();
        assert_eq!(told.handle_twin(&twin(3)).map(versions), Some(vec![2, 3, 4]));
        assert!(!told.is_behind() && !told.handle_note(4) && told.handle_note(5));
        assert!(!told.handle_note(90));
        assert_eq!(told.handle_twin(&twin(89)), None, "the twin keeps its last eight");
    }

    #[test]
    fn a_device_that_never_read_is_told_what_comes() {
        let mut told = Told::default();
        assert!(told.handle_note(7) && told.handle_note(8) && !told.handle_note(7));
        assert!(!told.handle_note(10) && told.is_behind());
    }
}
