//! Receipts of commands, and what a reader who shows receipts asks of shards.
//!
//! A message has a place among the events of its shard, so its [`Receipt`] names an offset. A command has none: its receipt
//! names the log entry in which it took effect. Both begin with the shard and end with the term, and whoever shows some may
//! mix them. How they travel is the doors' business; whether a shard has what they name is said by its leader.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{NoReceipt, Outcome, Receipt, ShardView};
use crate::id::ShardId;
use crate::limits::SHARD_COUNT_MAX;

/// Receipts that a reader may show at a time: one for each shard that there may be, since of those of one shard the last
/// says it all.
pub const RECEIPTS_SHOWN_MAX: usize = SHARD_COUNT_MAX as usize;

/// Where a command took effect. Text form `shard/@index/term`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriteReceipt {
    /// The shard.
    pub shard: ShardId,
    /// Index of the entry in the shard's log.
    pub index: u64,
    /// Term of the entry.
    pub term: u64,
}

impl std::fmt::Display for WriteReceipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/@{}/{}", self.shard, self.index, self.term)
    }
}

impl std::str::FromStr for WriteReceipt {
    type Err = NoReceipt;

    fn from_str(text: &str) -> Result<Self, NoReceipt> {
        let (shard, rest) = text.split_once("/@").ok_or(NoReceipt)?;
        let (index, term) = rest.split_once('/').ok_or(NoReceipt)?;
        Ok(Self {
            shard: ShardId(shard.parse().map_err(|_| NoReceipt)?),
            index: index.parse().map_err(|_| NoReceipt)?,
            term: term.parse().map_err(|_| NoReceipt)?,
        })
    }
}

/// What became of a command, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What became of it.
    pub outcome: Outcome,
    /// The entry that decided it.
    pub receipt: WriteReceipt,
}

/// The receipts of several commands: of each shard the last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteReceipts(BTreeMap<ShardId, WriteReceipt>);

impl WriteReceipts {
    /// One more.
    pub fn add(&mut self, receipt: WriteReceipt) {
        let last = self.0.entry(receipt.shard).or_insert(receipt);
        *last = receipt.max(*last);
    }

    /// Those of others as well.
    pub fn extend(&mut self, others: Self) {
        others.0.into_values().for_each(|receipt| self.add(receipt));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<WriteReceipt> for WriteReceipts {
    fn from(receipt: WriteReceipt) -> Self {
        Self([(receipt.shard, receipt)].into())
    }
}

impl std::fmt::Display for WriteReceipts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, receipt) in self.0.values().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{receipt}")?;
        }
        Ok(())
    }
}

/// What a shard must have so that a reader sees what it knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Least {
    next_offset: u64,
    applied_index: u64,
    term: u64,
}

impl Least {
    /// Whether a shard has it. One that has not is another hub's, or an older copy.
    pub fn is_in(&self, view: &ShardView) -> bool {
        view.next_offset >= self.next_offset
            && view.applied_index >= self.applied_index
            && view.term >= self.term
    }
}

/// What receipts ask of shards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted(BTreeMap<ShardId, Least>);

impl Wanted {
    /// Reads receipts of either kind, separated by commas; [`RECEIPTS_SHOWN_MAX`] at the most.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, NoReceipt> {
        let mut wanted = Self::default();
        let receipts = texts.into_iter().flat_map(|text| text.split(','));
        for (place, receipt) in receipts.enumerate() {
            if place >= RECEIPTS_SHOWN_MAX {
                return Err(NoReceipt);
            }
            wanted.add(receipt.trim())?;
        }
        Ok(wanted)
    }

    fn add(&mut self, text: &str) -> Result<(), NoReceipt> {
        let (shard, least) = match text.parse::<WriteReceipt>() {
            Ok(WriteReceipt { shard, index, term }) => {
                let least = Least {
                    applied_index: index,
                    term,
                    ..Least::default()
                };
                (shard, least)
            }
            Err(NoReceipt) => {
                let Receipt { shard, offset, term } = text.parse()?;
                let least = Least {
                    next_offset: offset.saturating_add(1),
                    term,
                    ..Least::default()
                };
                (shard, least)
            }
        };
        let known = self.0.entry(shard).or_default();
        *known = Least {
            next_offset: known.next_offset.max(least.next_offset),
            applied_index: known.applied_index.max(least.applied_index),
            term: known.term.max(least.term),
        };
        Ok(())
    }

    /// Shard by shard.
    pub fn each(&self) -> impl Iterator<Item = (ShardId, Least)> + '_ {
        self.0.iter().map(|(shard, least)| (*shard, *least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(shard: u32, index: u64, term: u64) -> WriteReceipt {
        let shard = ShardId(shard);
        WriteReceipt { shard, index, term }
    }

    #[test]
    fn a_receipt_comes_back_as_it_was() {
        for receipt in [written(0, 0, 0), written(255, u64::MAX, 7)] {
            assert_eq!(receipt.to_string().parse(), Ok(receipt));
        }
        assert_eq!(written(13, 4711, 2).to_string(), "13/@4711/2");
        for wrong in [
            "", "1/2/3", "1/@2", "1/@2/", "1/@x/3", "1/@2/3/4", "/@2/3", "@1/2/3", "1/@-2/3",
        ] {
            assert_eq!(wrong.parse::<WriteReceipt>(), Err(NoReceipt), "{wrong}");
        }
    }

    #[test]
    fn of_each_shard_the_last_is_shown() {
        let mut all = WriteReceipts::default();
        assert!(all.is_empty() && all.to_string().is_empty());
        for receipt in [
            written(2, 5, 1),
            written(0, 9, 3),
            written(2, 7, 1),
            written(2, 6, 1),
        ] {
            all.add(receipt);
        }
        all.extend(written(0, 8, 3).into());
        assert_eq!(all.to_string(), "0/@9/3, 2/@7/1");
    }

    #[test]
    fn a_shard_must_have_everything_that_any_receipt_names() {
        let wanted = Wanted::parse(["1/4/2, 1/@9/3", "1/@7/1,0/0/1"]).expect("receipts");
        let [(first, none), (second, some)] = wanted.each().collect::<Vec<_>>()[..] else {
            panic!("{wanted:?}");
        };
        assert_eq!((first, second), (ShardId(0), ShardId(1)));
        let view = |next_offset, applied_index, term| ShardView {
            next_offset,
            applied_index,
            term,
            ..ShardView::default()
        };
        assert!(none.is_in(&view(1, 0, 1)) && !none.is_in(&view(0, 99, 9)));
        assert!(some.is_in(&view(5, 9, 3)));
        for (what, older) in [
            ("the event is not there", view(4, 9, 3)),
            ("the entry is not there", view(5, 8, 3)),
            ("the leader is of an earlier term", view(5, 9, 2)),
        ] {
            assert!(!some.is_in(&older), "{what}");
        }
    }

    #[test]
    fn what_is_no_receipt_and_more_of_them_than_may_be_are_refused() {
        assert_eq!(Wanted::parse([]), Ok(Wanted::default()));
        for wrong in [
            "",
            "1/2",
            "1/2/3,",
            "1/2/3 4/5/6",
            "1/@2/3,x",
            &format!("1/{}0/3", u64::MAX),
        ] {
            assert_eq!(Wanted::parse([wrong]), Err(NoReceipt), "{wrong}");
        }
        let last = format!("0/{}/1", u64::MAX);
        assert!(Wanted::parse([last.as_str()]).is_ok(), "no sum runs over");
        let many = |count| vec!["3/@1/1"; count].join(",");
        assert!(Wanted::parse([many(RECEIPTS_SHOWN_MAX).as_str()]).is_ok());
        assert!(Wanted::parse([many(RECEIPTS_SHOWN_MAX + 1).as_str()]).is_err());
        assert!(Wanted::parse(vec!["3/@1/1"; RECEIPTS_SHOWN_MAX + 1]).is_err());
    }
}
