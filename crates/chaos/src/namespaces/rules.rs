//! What a node's namespace does to packets of others, as rules of `iptables`, and what these have counted.
//!
//! Each node has a chain of its own, which is replaced as a whole. A link's rules stand with its receiver and
//! bear its sender and their cause in a comment, by which their counters are told apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::relay::faults::{Cause, LinkFaults};

const CHAIN: &str = "DUNLIN";
/// Bytes of the headers of IPv4 and UDP.
const HEADER_BYTES: usize = 28;
/// Bytes that pass at once before a rate is felt.
const RATE_BURST_BYTES: u64 = 64 << 10;

/// What rules drop for.
pub(super) const CAUSES: [Cause; 4] = [Cause::Cut, Cause::TooLarge, Cause::Loss, Cause::RateQueueFull];

fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Cut => "cut",
        Cause::TooLarge => "large",
        Cause::Loss => "loss",
        _ => "rate",
    }
}

/// The chain, empty, where all that comes in passes through.
pub(super) fn initial() -> String {
    format!("*filter\n:{CHAIN} - [0:0]\n-A INPUT -p udp -j {CHAIN}\nCOMMIT\n")
}

/// What of these faults no rule can do, if anything.
pub(super) fn check(faults: &LinkFaults) -> Result<(), String> {
    faults.validate().map_err(|error| error.to_string())?;
    let can = LinkFaults {
        cut: faults.cut,
        drop_larger_than: faults.drop_larger_than,
        loss: faults.loss,
        rate_bits_per_s: faults.rate_bits_per_s,
        // Of these nothing is done by itself.
        queue_bytes_max: faults.queue_bytes_max,
        burst_packets: faults.burst_packets,
        reorder_ms: faults.reorder_ms,
        replay_after_ms: faults.replay_after_ms,
        ..LinkFaults::default()
    };
    match can == *faults {
        true => Ok(()),
        false => Err("in network namespaces the kernel only drops packets: no netem".to_owned()),
    }
}

/// The whole chain of a node: what is told to the links from each sender.
pub(super) fn all(told: &[(usize, Ipv4Addr, LinkFaults)]) -> String {
    let mut text = format!("*filter\n:{CHAIN} - [0:0]\n");
    for (from, address, faults) in told {
        let mut rule = |matches: &str, cause: Cause| {
            let word = word(cause);
            // Writing into a string does not fail.
            let _ = writeln!(
                text,
                "-A {CHAIN} -s {address} {matches} -m comment --comment {from}-{word} -j DROP"
            );
        };
        if faults.cut {
            rule("", Cause::Cut);
        }
        if let Some(bytes) = faults.drop_larger_than {
            rule(
                &format!("-m length --length {}:65535", bytes + HEADER_BYTES + 1),
                Cause::TooLarge,
            );
        }
        if faults.loss > 0.0 {
            let share = format!("-m statistic --mode random --probability {:.6}", faults.loss);
            rule(&share, Cause::Loss);
        }
        if let Some(bits) = faults.rate_bits_per_s {
            let limit = format!(
                "-m hashlimit --hashlimit-above {}b/s --hashlimit-burst {RATE_BURST_BYTES}b --hashlimit-name from{from}",
                bits / 8
            );
            rule(&limit, Cause::RateQueueFull);
        }
    }
    text + "COMMIT\n"
}

/// Reads what `iptables-save -c` lists: packets dropped, by sender and cause.
pub(super) fn dropped(listed: &str) -> BTreeMap<(usize, Cause), u64> {
    let mut dropped = BTreeMap::new();
    for line in listed.lines() {
        let Some((packets, rest)) = line.strip_prefix('[').and_then(|line| line.split_once(':')) else {
            continue;
        };
        let comment = rest.split_once("--comment ").map_or("", |(_, comment)| comment);
        let comment = comment.split_whitespace().next().unwrap_or("").trim_matches('"');
        let named = comment.split_once('-').and_then(|(from, of)| {
            let cause = CAUSES.into_iter().find(|cause| word(*cause) == of)?;
            Some((from.parse::<usize>().ok()?, cause))
        });
        if let (Some(of), Ok(count)) = (named, packets.parse::<u64>()) {
            *dropped.entry(of).or_default() += count;
        }
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    #[test]
    fn a_links_rules_name_its_sender_and_their_cause() {
        let faults = LinkFaults {
            cut: true,
            drop_larger_than: Some(1_200),
            loss: 0.05,
            rate_bits_per_s: Some(64_000),
            ..LinkFaults::default()
        };
        let text = all(&[(0, SENDER, faults), (2, SENDER, LinkFaults::default())]);
        let rules: Vec<&str> = text.lines().filter(|line| line.starts_with("-A")).collect();
        assert_eq!(rules.len(), 4, "{text}");
        assert!(
            rules
                .iter()
                .all(|rule| rule.contains("-s 10.77.0.1 ") && rule.ends_with("-j DROP"))
        );
        // 1200 bytes of UDP are 1228 of IPv4 and pass.
        assert!(rules[1].contains("--length 1229:65535") && rules[1].contains("--comment 0-large"));
        assert!(rules[2].contains("--probability 0.050000"));
        assert!(rules[3].contains("--hashlimit-above 8000b/s"));
    }

    #[test]
    fn counters_are_read_by_sender_and_cause_and_others_are_left_out() {
        let listed = "*filter\n:INPUT ACCEPT [9:900]\n:DUNLIN - [0:0]\n[7:700] -A INPUT -p udp -j DUNLIN\n\
            [5:500] -A DUNLIN -s 10.77.0.1/32 -m comment --comment 0-cut -j DROP\n\
            [3:300] -A DUNLIN -s 10.77.0.3/32 -m length --length 1229:65535 -m comment --comment \"2-large\" -j DROP\n\
            [1:100] -A DUNLIN -m comment --comment something -j DROP\nCOMMIT\n";
        let expected = BTreeMap::from([((0, Cause::Cut), 5), ((2, Cause::TooLarge), 3)]);
        assert_eq!(dropped(listed), expected);
    }

    #[test]
    fn what_only_netem_could_do_is_refused() {
        let late = LinkFaults {
            delay_ms: 1,
            ..LinkFaults::default()
        };
        let flapping = LinkFaults {
            flap: Some(crate::relay::faults::Flap { up_ms: 1, down_ms: 1 }),
            ..LinkFaults::default()
        };
        assert!(check(&late).is_err() && check(&flapping).is_err());
        assert_eq!(
            check(&LinkFaults {
                loss: 0.5,
                ..LinkFaults::cut()
            }),
            Ok(())
        );
    }
}
