//! What a hub may do when it is told to keep to a plan: messages a day, and operations in a time, as IoT Hub sells them by
//! units. A hub without a plan has neither.
//!
//! [`keeper`] counts both for the whole hub, in one shard, and so exactly; [`window`] is how it counts operations in a time.
//! Which request is which operation, and what it weighs, is decided at the doors.
//!
//! Source of the figures: "IoT Hub quotas and throttling" and "Choose the right IoT Hub tier" in Azure's documents.

pub mod keeper;
pub mod window;

use serde::{Deserialize, Serialize};

const SECOND_MS: u64 = 1000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
/// A day of the quota; days begin at midnight UTC.
pub const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// A direct method is counted in steps of so many KiB.
pub const METHOD_STEP_KIB: u32 = 4;

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is IoT Hub's tier of its name")]
pub enum Tier {
    F1,
    S1,
    S2,
    S3,
}

impl Tier {
    /// All of them.
    pub const ALL: [Tier; 4] = [Tier::F1, Tier::S1, Tier::S2, Tier::S3];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Tier::F1 => "F1",
            Tier::S1 => "S1",
            Tier::S2 => "S2",
            Tier::S3 => "S3",
        }
    }

    /// The tier of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }

    /// Units that a plan may have.
    pub fn units_max(self) -> u32 {
        match self {
            Tier::F1 => 1,
            Tier::S1 | Tier::S2 => 200,
            Tier::S3 => 10,
        }
    }

    /// Bytes for which one message of the quota is counted.
    pub fn meter_bytes(self) -> usize {
        match self {
            Tier::F1 => 512,
            Tier::S1 | Tier::S2 | Tier::S3 => 4 * 1024,
        }
    }

    fn messages_per_day(self) -> u64 {
        match self {
            Tier::F1 => 8_000,
            Tier::S1 => 400_000,
            Tier::S2 => 6_000_000,
            Tier::S3 => 300_000_000,
        }
    }
}

/// What a hub is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What a unit is.
    pub tier: Tier,
    /// How many; from 1 to [`Tier::units_max`].
    pub units: u32,
}

/// So much in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How much: operations, or KiB of direct methods. At least 1.
    pub count: u64,
    /// In how long, in milliseconds.
    pub per_ms: u64,
}

/// Operations that are counted by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operation {
    /// Reading and changing devices and modules.
    Registry,
    /// Devices that connect.
    Connect,
    /// Messages from devices.
    DeviceMessage,
    /// Messages to devices.
    MessageToDevice,
    /// Devices that fetch a message over HTTPS.
    MessageFetch,
    /// Files that devices begin to upload.
    FileUpload,
    /// Direct methods, in KiB.
    DirectMethod,
    /// Queries, by page.
    Query,
    /// Twins that are read.
    TwinRead,
    /// Twins that are changed.
    TwinUpdate,
    /// Jobs that are made, read or cancelled.
    Job,
    /// Devices at which a job does something.
    JobDevice,
    /// Configurations that are read or changed.
    Configuration,
    /// What is known of an operation only when it is over: messages of the quota, and no operation.
    Afterwards,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 14] = [
        Operation::Registry,
        Operation::Connect,
        Operation::DeviceMessage,
        Operation::MessageToDevice,
        Operation::MessageFetch,
        Operation::FileUpload,
        Operation::DirectMethod,
        Operation::Query,
        Operation::TwinRead,
        Operation::TwinUpdate,
        Operation::Job,
        Operation::JobDevice,
        Operation::Configuration,
        Operation::Afterwards,
    ];

    /// Its name, as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Registry => "registry",
            Operation::Connect => "connect",
            Operation::DeviceMessage => "device-message",
            Operation::MessageToDevice => "message-to-device",
            Operation::MessageFetch => "message-fetch",
            Operation::FileUpload => "file-upload",
            Operation::DirectMethod => "direct-method",
            Operation::Query => "query",
            Operation::TwinRead => "twin-read",
            Operation::TwinUpdate => "twin-update",
            Operation::Job => "job",
            Operation::JobDevice => "job-device",
            Operation::Configuration => "configuration",
            Operation::Afterwards => "afterwards",
        }
    }
}

impl Plan {
    /// Whether there is such a plan; what is wrong with it otherwise.
    pub fn check(self) -> Result<(), String> {
        let max = self.tier.units_max();
        match (1..=max).contains(&self.units) {
            true => Ok(()),
            false => Err(format!("{} has 1 to {max} units", self.tier.name())),
        }
    }

    /// Messages that it allows a day.
    pub fn messages_per_day(self) -> u64 {
        self.tier.messages_per_day() * u64::from(self.units)
    }

    /// Messages of the quota that so many bytes are.
    pub fn metered(self, bytes: usize) -> u32 {
        let messages = bytes.max(1).div_ceil(self.tier.meter_bytes());
        u32::try_from(messages).unwrap_or(u32::MAX)
    }

    /// How much of an operation it allows; `None` for what is no operation.
    pub fn rate(self, operation: Operation) -> Option<Rate> {
        let units = u64::from(self.units);
        // By tier: F1 and S1, S2, S3.
        let of = |small: u64, medium: u64, large: u64| match self.tier {
            Tier::F1 | Tier::S1 => small,
            Tier::S2 => medium,
            Tier::S3 => large,
        };
        let each_second = |count: u64| Rate {
            count,
            per_ms: SECOND_MS,
        };
        let each_minute = |per_unit: u64| Rate {
            count: per_unit * units,
            per_ms: MINUTE_MS,
        };
        Some(match operation {
            Operation::Afterwards => return None,
            Operation::Connect | Operation::DeviceMessage => {
                each_second(of((12 * units).max(100), 120 * units, 6_000 * units))
            }
            Operation::DirectMethod => each_second(of(160, 480, 24 * 1024) * units),
            Operation::TwinRead => each_second(of(100, (10 * units).max(100), 500 * units)),
            Operation::TwinUpdate => each_second(of(50, (5 * units).max(50), 250 * units)),
            Operation::JobDevice => each_second(of(10, units.max(10), 50 * units)),
            Operation::Registry | Operation::MessageToDevice | Operation::FileUpload | Operation::Job => {
                each_minute(of(100, 100, 5_000))
            }
            Operation::MessageFetch => each_minute(of(1_000, 1_000, 50_000)),
            Operation::Query => each_minute(of(20, 20, 1_000)),
            Operation::Configuration => each_minute(20),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(tier: Tier, units: u32) -> Plan {
        Plan { tier, units }
    }

    fn per(rate: Option<Rate>) -> (u64, u64) {
        rate.map(|rate| (rate.count, rate.per_ms)).unwrap()
    }

    #[test]
    fn the_figures_are_those_of_the_documents() {
        let small = plan(Tier::S1, 1);
        assert_eq!(per(small.rate(Operation::DeviceMessage)), (100, 1000));
        assert_eq!(per(plan(Tier::S1, 20).rate(Operation::Connect)), (240, 1000));
        assert_eq!(
            per(plan(Tier::S3, 2).rate(Operation::DeviceMessage)),
            (12_000, 1000)
        );
        assert_eq!(per(plan(Tier::S2, 3).rate(Operation::Registry)), (300, 60_000));
        assert_eq!(per(plan(Tier::S2, 30).rate(Operation::TwinRead)), (300, 1000));
        assert_eq!(small.messages_per_day(), 400_000);
        assert_eq!(plan(Tier::F1, 1).messages_per_day(), 8_000);
        assert_eq!(
            [1, 4096, 4097].map(|bytes| small.metered(bytes)),
            [1, 1, 2],
            "4 KiB are one message"
        );
        assert_eq!(plan(Tier::F1, 1).metered(513), 2);
        assert_eq!(small.metered(0), 1, "nothing is a message too");
        for operation in Operation::ALL {
            let rate = small.rate(operation);
            assert_eq!(rate.is_none(), operation == Operation::Afterwards);
            assert!(rate.is_none_or(|rate| rate.count > 0 && rate.per_ms > 0));
        }
    }

    #[test]
    fn a_plan_has_the_units_of_its_tier() {
        for (tier, units) in [(Tier::F1, 1), (Tier::S1, 200), (Tier::S3, 10)] {
            assert_eq!(plan(tier, units).check(), Ok(()));
            assert!(plan(tier, units + 1).check().is_err());
            assert!(plan(tier, 0).check().is_err());
            assert_eq!(Tier::parse(tier.name()), Some(tier));
        }
        assert_eq!(Tier::parse("B1"), None);
    }
}
