//! What the tests share: a store in memory, a consensus that follows a script, a gateway that listens.

mod field;
mod gateway;
mod replication;
mod store;

pub(crate) use field::{Field, SHARD, pass, until};
pub(crate) use gateway::{Gateway, Heard, record};
pub(crate) use replication::Answer;
pub(crate) use store::MemoryStore;

use dunlin_model::command::{Command, Outcome};
use dunlin_model::id::{DeviceId, NodeId, StreamId};
use dunlin_model::identity::{Authentication, Condition, DeviceSpec, DeviceStatus, SymmetricKeys};
use dunlin_model::port::{FrameApplied, FrameResult};

pub(crate) fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

pub(crate) fn stream(gateway: u64) -> StreamId {
    StreamId {
        gateway: NodeId(gateway),
        incarnation: 1,
    }
}

pub(crate) fn spec(status: DeviceStatus, key: &str) -> DeviceSpec {
    let keys = SymmetricKeys {
        primary: key.into(),
        secondary: "other".into(),
    };
    DeviceSpec {
        status,
        ..DeviceSpec::enabled(Authentication::Sas(keys))
    }
}

pub(crate) fn put(name: &str) -> Command {
    let spec = spec(DeviceStatus::Enabled, "key");
    Command::DevicePut {
        device: device(name),
        spec,
        condition: Condition::Any,
    }
}

pub(crate) fn open(name: &str, generation: u64, held_by: StreamId) -> Command {
    Command::SessionOpen {
        device: device(name),
        generation,
        held_by,
        persistent: false,
    }
}

pub(crate) fn applied(result: FrameResult) -> FrameApplied {
    match result {
        FrameResult::Applied(applied) => applied,
        other => panic!("not applied but {other:?}"),
    }
}

pub(crate) fn generation(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Stored(record) => record.generation,
        other => panic!("not stored but {other:?}"),
    }
}

pub(crate) fn epoch(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::SessionOpened { epoch, .. } => *epoch,
        other => panic!("not opened but {other:?}"),
    }
}
