//! What the webhook of a run was handed, parcel by parcel, and how it answered.
//!
//! Plain data, written to `deliveries.jsonl`; judged by [`crate::invariants::routes`]. Lines are in the order in which
//! parcels came.

use serde::{Deserialize, Serialize};

/// How the webhook answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// That it has the events.
    Taken,
    /// The same, after a while.
    Late,
    /// That it does not want them now.
    Refused,
    /// Not at all: it ended the connection.
    Dropped,
}

impl Reply {
    /// Whether the hub may count the events as delivered.
    pub fn is_taken(self) -> bool {
        matches!(self, Reply::Taken | Reply::Late)
    }
}

/// An event as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Where it stands, as the hub says: the shard.
    pub shard: u32,
    /// The offset in it.
    pub offset: u64,
    /// Who sent it, as the hub says.
    pub device: String,
    /// [`crate::oracle::digest`] of its body.
    pub digest: u64,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// When it was there.
    pub us: u64,
    /// How it was answered.
    pub reply: Reply,
    /// What was in it; nothing if it could not be read.
    pub events: Vec<Arrival>,
}

/// Any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// The routes are there: whatever is sent from now on and fits one is led to the webhook.
    Led {
        /// When.
        us: u64,
    },
    /// A parcel.
    Parcel(Parcel),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let arrival = Arrival {
            shard: 1,
            offset: 2,
            device: "d".into(),
            digest: 3,
        };
        let parcel = |reply| {
            Delivery::Parcel(Parcel {
                us: 4,
                reply,
                events: vec![arrival.clone()],
            })
        };
        let replies = [Reply::Taken, Reply::Late, Reply::Refused, Reply::Dropped];
        for delivery in replies.map(parcel).into_iter().chain([Delivery::Led { us: 5 }]) {
            let line = serde_json::to_string(&delivery).unwrap();
            assert_eq!(
                serde_json::from_str::<Delivery>(&line).unwrap(),
                delivery,
                "{line}"
            );
        }
    }
}
