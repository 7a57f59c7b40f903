//! What devices were told, compared with what a hub has: nothing lost, nothing invented, nothing reordered.
//!
//! Written apart from `dunlin-chaos` on purpose: two judges that agree are worth more than one.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Problems that are spelled out; the rest is counted.
const SHOWN_MAX: usize = 20;

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The shard.
    pub shard: u32,
    /// The offset in it.
    pub offset: u64,
}

/// What one device did and was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceLog {
    /// Its id.
    pub device: String,
    /// Every payload it ever handed to a connection, in order; no two are equal.
    pub sent: Vec<Vec<u8>>,
    /// Places in `sent` that were acknowledged, with what the receipt said. The others are unknown,
    /// never absent.
    pub acked: BTreeMap<usize, Place>,
    /// Connections that ended without its doing.
    pub connections_lost: u32,
}

/// A message as the hub has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where.
    pub place: Place,
    /// From whom, as the hub says.
    pub device: String,
    /// What.
    pub body: Vec<u8>,
}

/// Number of acknowledged messages.
pub fn acked_count(logs: &[DeviceLog]) -> usize {
    logs.iter().map(|log| log.acked.len()).sum()
}

/// Panics with every problem if there is one.
pub fn assert_kept(logs: &[DeviceLog], stored: &[Stored]) {
    let found = problems(logs, stored);
    assert!(
        found.is_empty(),
        "{} acked, {} stored, {} problems:\n{}",
        acked_count(logs),
        stored.len(),
        found.len(),
        found[..found.len().min(SHOWN_MAX)].join("\n")
    );
}

/// Everything that is wrong. `stored` has each shard's messages as they were read, from its beginning.
pub fn problems(logs: &[DeviceLog], stored: &[Stored]) -> Vec<String> {
    let mut found = Vec::new();
    let sent: HashMap<(&str, &[u8]), usize> = logs
        .iter()
        .flat_map(|log| {
            (0..)
                .zip(&log.sent)
                .map(|(seq, body)| ((log.device.as_str(), &body[..]), seq))
        })
        .collect();
    let mut next_offset: HashMap<u32, u64> = HashMap::new();
    let mut at: HashMap<Place, (&str, usize)> = HashMap::new();
    let mut seen: HashSet<(&str, usize)> = HashSet::new();
    let mut last: HashMap<&str, (usize, Place)> = HashMap::new();
    for message in stored {
        let (place, device) = (message.place, message.device.as_str());
        let due = next_offset.insert(place.shard, place.offset + 1).unwrap_or(0);
        if place.offset != due {
            found.push(format!("{place:?}: offset {due} was due"));
        }
        let Some(&seq) = sent.get(&(device, &message.body[..])) else {
            found.push(format!(
                "{place:?}: {device} never sent {:?}",
                String::from_utf8_lossy(&message.body)
            ));
            continue;
        };
        at.insert(place, (device, seq));
        // A message that was sent again after a reconnect stands there twice; its first place counts.
        if !seen.insert((device, seq)) {
            continue;
        }
        if let Some((before, where_)) = last.insert(device, (seq, place))
            && (before > seq || where_.shard != place.shard)
        {
            found.push(format!(
                "{place:?}: message {seq} of {device} stands behind message {before} at {where_:?}"
            ));
        }
    }
    for log in logs {
        for (&seq, place) in &log.acked {
            let device = log.device.as_str();
            if !seen.contains(&(device, seq)) {
                found.push(format!("LOST: message {seq} of {device}, acked at {place:?}"));
            } else if at.get(place) != Some(&(device, seq)) {
                found.push(format!(
                    "message {seq} of {device} is not at {place:?}, as its receipt says"
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(device: &str, seq: usize) -> Vec<u8> {
        format!("{device} says {seq}").into_bytes()
    }

    fn stored(messages: &[(&str, usize)]) -> Vec<Stored> {
        (0..)
            .zip(messages)
            .map(|(offset, (device, seq))| Stored {
                place: Place { shard: 0, offset },
                device: (*device).to_owned(),
                body: body(device, *seq),
            })
            .collect()
    }

    fn log(device: &str, sent: usize, acked: &[(usize, u64)]) -> DeviceLog {
        DeviceLog {
            device: device.to_owned(),
            sent: (0..sent).map(|seq| body(device, seq)).collect(),
            acked: acked
                .iter()
                .map(|&(seq, offset)| (seq, Place { shard: 0, offset }))
                .collect(),
            connections_lost: 0,
        }
    }

    fn only_problem(logs: &[DeviceLog], stored: &[Stored]) -> String {
        let found = problems(logs, stored);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    #[test]
    fn what_was_acked_and_is_there_is_no_problem_nor_is_an_unknown_message_or_a_second_copy() {
        let logs = [log("a", 3, &[(0, 0), (1, 1)]), log("b", 1, &[])];
        assert_eq!(
            problems(&logs, &stored(&[("a", 0), ("a", 1), ("a", 0)])),
            Vec::<String>::new()
        );
        assert_eq!(
            problems(&logs, &stored(&[("a", 0), ("a", 1), ("a", 2), ("b", 0)])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_lost_message_is_found() {
        let logs = [log("a", 2, &[(0, 0), (1, 1)])];
        assert!(only_problem(&logs, &stored(&[("a", 0)])).starts_with("LOST: message 1 of a"));
    }

    #[test]
    fn a_phantom_and_a_changed_content_are_found() {
        let logs = [log("a", 1, &[])];
        assert!(only_problem(&logs, &stored(&[("a", 7)])).contains("never sent"));
        assert!(only_problem(&logs, &stored(&[("b", 0)])).contains("b never sent"));
        let mut changed = stored(&[("a", 0)]);
        changed[0].body[0] ^= 1;
        assert!(only_problem(&logs, &changed).contains("never sent"));
    }

    #[test]
    fn a_message_behind_a_later_one_or_in_another_shard_is_found() {
        let logs = [log("a", 2, &[])];
        assert!(only_problem(&logs, &stored(&[("a", 1), ("a", 0)])).contains("stands behind"));
        let mut apart = stored(&[("a", 0), ("a", 1)]);
        apart[1].place = Place { shard: 1, offset: 0 };
        assert!(only_problem(&logs, &apart).contains("stands behind"));
    }

    #[test]
    fn a_receipt_that_names_another_message_and_a_hole_are_found() {
        let logs = [log("a", 2, &[(0, 1)])];
        assert!(only_problem(&logs, &stored(&[("a", 0), ("a", 1)])).contains("as its receipt says"));
        let mut holed = stored(&[("a", 0), ("a", 1)]);
        holed[1].place.offset = 2;
        assert!(only_problem(&[log("a", 2, &[])], &holed).contains("offset 1 was due"));
    }
}
