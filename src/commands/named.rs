//! How a command line names devices: by their place in it, or with -d as `az iot` has it. Both say the same.
//!
//! Decides nothing about which names are good ([`parse_id`], [`parse_identity`]), and nothing about who is registered.

use clap::Args;
use dunlin_model::id::DeviceId;

use super::device::{parse_id, parse_identity};

/// What clap has seen to when it hands over one of these.
const ONE_IS_THERE: &str = "clap wants one of the two";

/// One device.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct OneDevice {
    /// Name of the device
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: Option<DeviceId>,
    /// The same, as `az iot` has it
    #[arg(short, long, value_name = "ID", value_parser = parse_id)]
    device_id: Option<DeviceId>,
}

impl OneDevice {
    /// Its name.
    pub(crate) fn id(&self) -> &DeviceId {
        let id = self.id.as_ref().or(self.device_id.as_ref());
        id.expect(ONE_IS_THERE)
    }
}

/// One device, or one of its modules.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct OneIdentity {
    /// Name of the device, or DEVICE/MODULE
    #[arg(value_name = "ID", value_parser = parse_identity)]
    id: Option<DeviceId>,
    /// The same, as `az iot` has it
    #[arg(short, long, value_name = "ID", value_parser = parse_identity)]
    device_id: Option<DeviceId>,
}

impl OneIdentity {
    /// Its name.
    pub(crate) fn id(&self) -> &DeviceId {
        let id = self.id.as_ref().or(self.device_id.as_ref());
        id.expect(ONE_IS_THERE)
    }
}

/// One device or more.
#[derive(Debug, Default, Args)]
#[group(required = true)]
pub(crate) struct ManyDevices {
    /// Names of the devices
    #[arg(value_name = "ID", value_parser = parse_id)]
    ids: Vec<DeviceId>,
    /// The same, as `az iot` has it; may be given more than once
    #[arg(short, long = "device-id", value_name = "ID", value_parser = parse_id)]
    device_ids: Vec<DeviceId>,
}

impl ManyDevices {
    /// Their names, those without -d first.
    pub(crate) fn ids(&self) -> Vec<DeviceId> {
        self.ids.iter().chain(&self.device_ids).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct One {
        #[command(flatten)]
        device: OneDevice,
    }

    #[derive(Parser)]
    struct Identity {
        #[command(flatten)]
        identity: OneIdentity,
    }

    #[derive(Parser)]
    struct Many {
        #[command(flatten)]
        devices: ManyDevices,
    }

    fn read<T: Parser>(line: &str) -> Option<T> {
        T::try_parse_from(line.split_whitespace()).ok()
    }

    #[test]
    fn a_device_is_named_by_its_place_or_with_d_and_only_once() {
        for line in ["x pump", "x -d pump", "x --device-id pump", "x --device-id=pump"] {
            let one: One = read(line).unwrap();
            assert_eq!(one.device.id().as_str(), "pump", "{line}");
        }
        for line in [
            "x",
            "x pump -d pump",
            "x -d a -d b",
            "x -d a/b",
            "x -d a#b",
            "x -d ..",
        ] {
            assert!(read::<One>(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_module_is_named_likewise() {
        for line in ["x pump/cam", "x -d pump/cam"] {
            let one: Identity = read(line).unwrap();
            assert_eq!(one.identity.id().as_str(), "pump/cam", "{line}");
        }
        for line in ["x", "x a -d a", "x -d a/b/c"] {
            assert!(read::<Identity>(line).is_none(), "{line}");
        }
    }

    #[test]
    fn several_devices_are_named_either_way() {
        let many: Many = read("x a -d c b --device-id d").unwrap();
        let ids: Vec<String> = many.devices.ids().iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["a", "b", "c", "d"]);
        assert!(read::<Many>("x").is_none());
    }
}
