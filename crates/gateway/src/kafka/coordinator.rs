//! Which broker a group or a partition is sent to, where all of them could serve it.
//!
//! Decides by the highest of the hashes of (name, broker): a broker that comes or goes takes and leaves only its own.
//! Never whether the broker is well; who is not is not in the list.

use super::backend::Broker;

/// The broker for `name`, or `None` where there is none.
pub fn place(name: &[u8], brokers: &[Broker]) -> Option<i32> {
    let weighed = brokers
        .iter()
        .map(|broker| (weight(name, broker.node_id), broker.node_id));
    weighed.max().map(|(_, node_id)| node_id)
}

/// A hash in which each bit of both counts. CRC alone is linear: the same broker would win nearly everywhere.
fn weight(name: &[u8], node_id: i32) -> u64 {
    let crc = crc32c::crc32c(name);
    let mut mixed = (u64::from(crc) << 32) | u64::from(node_id as u32);
    // The finisher of splitmix64.
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(ids: &[i32]) -> Vec<Broker> {
        let broker = |node_id| Broker {
            node_id,
            host: "h".into(),
            port: 9093,
        };
        ids.iter().copied().map(broker).collect()
    }

    #[test]
    fn groups_spread_and_only_those_of_a_lost_broker_move() {
        assert_eq!(place(b"g", &[]), None);
        let (all, fewer) = (brokers(&[1, 2, 3]), brokers(&[3, 1]));
        let mut counts = [0; 4];
        for number in 0..3000 {
            let name = format!("group-{number}");
            let before = place(name.as_bytes(), &all).unwrap();
            let after = place(name.as_bytes(), &fewer).unwrap();
            counts[before as usize] += 1;
            assert!(before == 2 || before == after, "{name}");
        }
        assert!(
            counts[1..].iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn partitions_spread() {
        let all = brokers(&[1, 2, 3]);
        let mut counts = [0; 4];
        for partition in 0_u32..300 {
            counts[place(&partition.to_be_bytes(), &all).unwrap() as usize] += 1;
        }
        assert!(
            counts[1..].iter().all(|count| (70..130).contains(count)),
            "{counts:?}"
        );
    }
}
