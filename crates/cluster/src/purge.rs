//! What openraft is asked to let go of, so that it does.
//!
//! openraft puts a purge off while the replica leads and has still to send what would go. Once the replica leads no
//! more nobody carries that purge out, and asking for the same again is taken for what is already under way: the log
//! would stay for ever, and with it the segments of the journal. So what was asked and has not happened is asked for
//! with one entry more. Whether the stores can do without an entry is decided in `maintenance`.

/// What one replica was asked to let go of.
#[derive(Debug, Default)]
pub(crate) struct Purge {
    /// The last entry that openraft has on its list; 0 for none.
    asked: u64,
}

/// How far a log may be let go of, and how far it is. Indexes of entries; 0 is before the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The last entry that is gone.
    pub(crate) purged: u64,
    /// The last entry that should go.
    pub(crate) wanted: u64,
    /// The last entry that the stores can do without; not below `wanted`.
    pub(crate) durable: u64,
    /// The last entry in openraft's snapshot: it takes nothing beyond, whatever is asked.
    pub(crate) snapshot: u64,
}

impl Purge {
    /// The entry to ask openraft for, if there is anything to ask.
    pub(crate) fn next(&mut self, at: Bounds) -> Option<u64> {
        assert!(at.wanted <= at.durable, "only what is durable elsewhere goes");
        if at.wanted <= at.purged {
            return None;
        }
        let is_put_off = self.asked > at.purged && at.wanted <= self.asked;
        let ask = if is_put_off { self.asked + 1 } else { at.wanted };
        let taken = ask.min(at.snapshot);
        if taken > at.durable {
            return None;
        }
        self.asked = taken.max(self.asked);
        Some(ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// openraft's list, as far as it matters: `engine_impl.rs`, `trigger_purge_log`.
    #[derive(Default)]
    struct Openraft {
        listed: u64,
        purged: u64,
        /// Whether it leads, and a follower still needs what would go.
        puts_off: bool,
    }

    impl Openraft {
        fn ask(&mut self, index: u64, snapshot: u64) {
            if index <= self.listed {
                return;
            }
            self.listed = index.min(snapshot);
            if !self.puts_off {
                self.purged = self.listed;
            }
        }
    }

    struct Replica {
        purge: Purge,
        openraft: Openraft,
    }

    impl Replica {
        fn that(puts_off: bool) -> Replica {
            let openraft = Openraft {
                puts_off,
                ..Openraft::default()
            };
            Replica {
                purge: Purge::default(),
                openraft,
            }
        }

        fn round(&mut self, wanted: u64, durable: u64, snapshot: u64) -> u64 {
            let bounds = Bounds {
                purged: self.openraft.purged,
                wanted,
                durable,
                snapshot,
            };
            if let Some(ask) = self.purge.next(bounds) {
                self.openraft.ask(ask, snapshot);
            }
            self.openraft.purged
        }
    }

    #[test]
    fn what_is_wanted_goes() {
        let mut replica = Replica::that(false);
        assert_eq!(replica.round(10, 20, 20), 10);
        assert_eq!(replica.round(10, 20, 20), 10);
        assert_eq!(replica.round(12, 20, 20), 12);
    }

    #[test]
    fn a_purge_that_was_put_off_is_made_once_the_replica_leads_no_more() {
        // Below the end of the snapshot, and at it.
        for wanted in [140, 162] {
            let mut replica = Replica::that(true);
            assert_eq!(replica.round(wanted, 162, 162), 0);
            replica.openraft.puts_off = false;
            let purged = replica.round(wanted, 162, 162);
            assert!((wanted..=wanted + 1).contains(&purged), "{purged}");
        }
    }

    #[test]
    fn nothing_goes_that_is_not_durable_elsewhere() {
        let mut replica = Replica::that(true);
        assert_eq!(replica.round(140, 140, 162), 0);
        replica.openraft.puts_off = false;
        assert_eq!(replica.round(140, 140, 162), 0, "the next entry is still needed");
        assert_eq!(replica.round(140, 162, 162), 141);
    }
}
