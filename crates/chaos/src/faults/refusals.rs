//! F25, F26: the disk below a node refuses what it is asked: once, or until it is healed.
//!
//! Source: `docs/chaos.md`, fault list. Carried as the kinds of [`super::disk`] are. A node that loses its
//! journal or its state over it ends, and one that has to start on such a disk may not come up; whatever it
//! does, it says so. A failed sync is fatal whatever comes after it, so an error that comes once is the harder
//! one: the next sync succeeds, and proves nothing.

use super::disk::{DiskFault, kind};
use super::{Fault, Kind, Order, Parameter};
use crate::chaosfs::faults::{DiskError, DiskFaults, Failure, Operation};
use crate::scenario::target::Target;

/// Which part of the node's data an error meets.
const ROOM: Parameter = Parameter {
    name: "room",
    meaning: "0 for all of the node's data, 1 for the journal, 2 for the state, 3 for the events",
    usual: (1, 1),
    min: 0,
    max: 3,
};
/// Whether it goes away by itself.
const STICKY: Parameter = Parameter {
    name: "sticky",
    meaning: "0 for an error that comes once, 1 for one that stays",
    usual: (0, 1),
    min: 0,
    max: 1,
};
/// Whether the node has to start on this disk.
const STARTS: Parameter = Parameter {
    name: "starts",
    meaning: "1 for a node that is killed first and starts on this disk, 0 for one that runs on",
    usual: (0, 0),
    min: 0,
    max: 1,
};
/// What an error meets that a running node seldom asks for.
const AT_START: &[Parameter] = &[
    Parameter {
        usual: (0, 0),
        ..ROOM
    },
    STICKY,
    Parameter {
        usual: (1, 1),
        ..STARTS
    },
];

/// Operations that fail.
fn error(order: Order, on: Operation) -> Box<dyn Fault> {
    let faults = DiskFaults {
        fail: vec![failure(on, &order)],
        ..DiskFaults::default()
    };
    begin(order, faults)
}

fn failure(on: Operation, order: &Order) -> Failure {
    Failure {
        on,
        error: DiskError::Io,
        after: 0,
        times: (order.told("sticky") == 0).then_some(1),
        path: path(on, order.told("room")),
    }
}

/// What the paths of a room contain: a folder that is synced has no name behind it.
fn path(on: Operation, room: u64) -> Option<String> {
    let folder = match room {
        1 => "journal",
        2 => "state",
        3 => "events",
        _ => return None,
    };
    Some(match on {
        Operation::SyncFolder => folder.to_owned(),
        _ => format!("{folder}/"),
    })
}

fn begin(order: Order, faults: DiskFaults) -> Box<dyn Fault> {
    DiskFault::begin(order, faults, Some(|counters| counters.failed))
}

/// Any of these is an answer to an error: the node ends, a replica stops, or a file is said not to be written.
const ALARMS: &[&str] = &[
    "the journal has failed",
    "the state database has failed",
    "a replica does not serve",
    "cannot make a checkpoint",
    "events cannot be read",
    "write audit records",
    "cannot write",
    "cannot start: ",
];

/// A kind whose nodes may end over it, and must say so.
const fn refusal(
    name: &'static str,
    number: &'static str,
    how: &'static str,
    begin: fn(Order) -> Box<dyn Fault>,
) -> Kind {
    Kind {
        may_end: true,
        target: Target::MostLeaders,
        alarms: ALARMS,
        ..kind(name, number, how, begin)
    }
}

/// Syncs that fail.
pub(super) const SYNC: Kind = Kind {
    is_watched: true,
    with: &[ROOM, STICKY, STARTS],
    ..refusal(
        "sync-fails",
        "F25",
        "a sync of the journal, or of another part of the node's data, fails with EIO: once, and the next succeeds, or each",
        |order| error(order, Operation::Sync),
    )
};

/// Writes that fail.
pub(super) const WRITE: Kind = Kind {
    is_watched: true,
    with: &[ROOM, STICKY, STARTS],
    ..refusal(
        "write-fails",
        "F25",
        "a write fails with EIO, once or each",
        |order| error(order, Operation::Write),
    )
};

/// Reads that fail.
pub(super) const READ: Kind = Kind {
    with: AT_START,
    ..refusal(
        "read-fails",
        "F25",
        "a read fails with EIO, once or each; usually the node is killed first and has to start so",
        |order| error(order, Operation::Read),
    )
};

/// Renames that fail.
pub(super) const RENAME: Kind = Kind {
    with: AT_START,
    ..refusal(
        "rename-fails",
        "F25",
        "a rename fails with EIO, once or each; usually the node is killed first and has to start so",
        |order| error(order, Operation::Rename),
    )
};

/// Syncs of folders that fail.
pub(super) const FOLDER_SYNC: Kind = Kind {
    with: AT_START,
    ..refusal(
        "folder-sync-fails",
        "F25",
        "a sync of a folder fails with EIO, once or each; usually the node is killed first and has to start so",
        |order| error(order, Operation::SyncFolder),
    )
};

/// No room.
pub(super) const FULL: Kind = Kind {
    alarms: &["the disk is full", "the state database has failed"],
    ..refusal(
        "full-disk",
        "F26",
        "nothing is free on the node's disk, and what would grow fails with ENOSPC",
        |order| {
            let faults = DiskFaults {
                full: true,
                ..DiskFaults::default()
            };
            // The node sees that nothing is free before anything of it fails.
            DiskFault::begin(order, faults, None)
        },
    )
};

/// No room for this user.
pub(super) const OVER_QUOTA: Kind = refusal(
    "over-quota",
    "F26",
    "what would grow fails with EDQUOT, though as much is free on the node's disk as before",
    |order| {
        let faults = DiskFaults {
            over_quota: true,
            ..DiskFaults::default()
        };
        begin(order, faults)
    },
);

/// No changes.
pub(super) const READ_ONLY: Kind = Kind {
    is_watched: true,
    with: &[STARTS],
    ..refusal(
        "read-only-disk",
        "F26",
        "every change fails with EROFS, as where the kernel has found an error and mounts anew",
        |order| {
            let faults = DiskFaults {
                read_only: true,
                ..DiskFaults::default()
            };
            begin(order, faults)
        },
    )
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaosfs::decider::Decider;

    /// What becomes of three operations of a sort on a path, when the disk is told this.
    fn answers(on: Operation, asked: Operation, at: &str, room: u64, sticky: bool) -> [bool; 3] {
        let order = Order {
            nodes: vec![0],
            for_ms: 0,
            with: [("room", room), ("sticky", sticky.into())].into(),
            seed: 0,
        };
        let mut disk = Decider::new(1);
        disk.set(DiskFaults {
            fail: vec![failure(on, &order)],
            ..DiskFaults::default()
        });
        [(); 3].map(|()| disk.handle(asked, at, false).error.is_some())
    }

    #[test]
    fn an_error_comes_once_or_stays_in_its_room_and_for_its_operation() {
        use Operation::{Read, SyncFolder, Write};
        let (none, once, all) = ([false; 3], [true, false, false], [true; 3]);
        for (on, asked, at, room, sticky, wanted) in [
            (Write, Write, "journal/1.log", 1, false, once),
            (Write, Write, "journal/1.log", 1, true, all),
            (Write, Write, "state/0.jnl", 1, true, none),
            (Write, Write, "state/0.jnl", 2, true, all),
            (Write, Read, "state/0.jnl", 2, true, none),
            (Read, Read, "events/1-2/x.seg", 3, false, once),
            (Read, Read, "format", 0, false, once),
            (SyncFolder, SyncFolder, "journal", 1, true, all),
            (SyncFolder, SyncFolder, "events/1-2", 3, true, all),
            (SyncFolder, SyncFolder, "", 0, true, all),
            (SyncFolder, SyncFolder, "", 3, true, none),
        ] {
            assert_eq!(answers(on, asked, at, room, sticky), wanted, "{on:?} {at} {room}");
        }
    }

    #[test]
    fn every_kind_that_refuses_must_be_told_of_and_may_end_the_node() {
        for kind in [
            &SYNC,
            &WRITE,
            &READ,
            &RENAME,
            &FOLDER_SYNC,
            &FULL,
            &OVER_QUOTA,
            &READ_ONLY,
        ] {
            assert!(kind.may_end && kind.damages, "{}", kind.name);
            assert!(!kind.alarms.is_empty(), "{} may pass in silence", kind.name);
        }
    }
}
