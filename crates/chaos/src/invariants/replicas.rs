//! I12 — replica equality, as far as it shows from outside: whichever replica leads and answers, it has the
//! same records at the same offsets.
//!
//! Source: `docs/invariants.md` I12. Followers answer no reads, so each node is stopped in turn and
//! everything is read from those that lead instead. It shows events only, of those replicas that led at one
//! of the readings; state that no event shows is not compared.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::{Findings, Violation};
use crate::oracle::Stored;
use crate::run::folder::Reading;

/// Records of each shard and their fingerprint.
pub fn fingerprints(stored: &[Stored]) -> Vec<(u32, u64, u64)> {
    let mut shards: BTreeMap<u32, (u64, DefaultHasher)> = BTreeMap::new();
    for record in stored {
        let (count, hasher) = shards.entry(record.shard).or_default();
        *count += 1;
        (record.offset, record.device, record.digest).hash(hasher);
    }
    let line = |(shard, (count, hasher)): (u32, (u64, DefaultHasher))| (shard, count, hasher.finish());
    shards.into_iter().map(line).collect()
}

/// Shards that were read otherwise while a node was stopped.
pub fn check(stored: &[Stored], readings: &[Reading]) -> Findings {
    let mut findings = Findings::default();
    let expected: BTreeMap<u32, (u64, u64)> = fingerprints(stored)
        .into_iter()
        .map(|(shard, count, print)| (shard, (count, print)))
        .collect();
    for reading in readings {
        let mut missing = expected.clone();
        for (shard, count, print) in &reading.shards {
            let wanted = missing.remove(shard);
            if wanted != Some((*count, *print)) {
                let before = wanted.map_or(0, |(count, _)| count);
                findings.add(|| differs(*shard, reading.without, (before, *count)));
            }
        }
        for (shard, (count, _)) in missing {
            findings.add(|| differs(shard, reading.without, (count, 0)));
        }
    }
    findings
}

fn differs(shard: u32, without: usize, (before, count): (u64, u64)) -> Violation {
    Violation::of(format!(
        "shard {shard} reads otherwise without node {}: {count} records, {before} before",
        without + 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::tests::stored;

    #[test]
    fn another_content_another_count_and_a_missing_shard_are_found() {
        let records = stored(&[(0, 0), (0, 1)]);
        let reading = |records: &[Stored]| {
            vec![Reading {
                without: 2,
                shards: fingerprints(records),
            }]
        };
        assert!(check(&records, &reading(&records)).is_empty());
        let mut other = records.clone();
        other[1].digest ^= 1;
        assert_eq!(check(&records, &reading(&other)).count, 1);
        assert_eq!(check(&records, &reading(&records[..1])).count, 1);
        assert_eq!(check(&records, &reading(&[])).count, 1);
        assert_eq!(check(&[], &reading(&records)).count, 1);
    }
}
