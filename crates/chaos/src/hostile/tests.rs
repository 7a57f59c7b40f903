//! The verdict shown reports that must fail, and options that make no sense.

use super::count::Counted;
use super::memory::resident_kib;
use super::*;
use crate::oracle::tests::{history, stored};

fn report() -> Report {
    let latency = Latency {
        count: 10,
        ..Latency::default()
    };
    Report {
        kinds: vec![Kind::Malformed],
        seed: 1,
        rounds: 1,
        attack_s: 1.0,
        counted: Counted {
            packets: 100,
            connections: 10,
            ..Counted::default()
        },
        connections: [(Kind::Malformed, 10)].into(),
        good_acked: 2,
        good_connections_lost: 0,
        quiet: latency,
        attacked: latency,
        p99_ratio: 1.0,
        connects_quiet: latency,
        connects_attacked: latency,
        connects_failed: 0,
        nodes: vec![NodeMemory {
            pid: 1,
            is_alive: true,
            before_kib: 1,
            max_kib: 1024,
            after_kib: 1,
        }],
        reasons: Vec::new(),
    }
}

#[test]
fn a_hub_that_stands_it_passes_and_every_way_not_to_is_told() {
    let options = Options {
        packets: Some(100),
        memory_mib_max: 1,
        ..Options::default()
    };
    let history = history(&[2]);
    let both = stored(&[(0, 0), (0, 1)]);
    let reasons = |report: &Report, stored: &[Stored]| judge(report, &options, &history, stored);
    assert_eq!(reasons(&report(), &both), Vec::<String>::new());
    assert_eq!(reasons(&report(), &stored(&[(0, 0)])).len(), 1, "lost");
    assert_eq!(
        reasons(&report(), &stored(&[(0, 1), (0, 0)])).len(),
        1,
        "out of order"
    );
    let spoiled: [fn(&mut Report); 8] = [
        |report| (report.attack_s, report.connects_attacked.count) = (10.0, 0),
        |report| report.connects_failed = 1,
        |report| report.nodes[0].is_alive = false,
        |report| report.nodes[0].max_kib = 1025,
        |report| report.good_connections_lost = 1,
        |report| report.attacked.count = 0,
        |report| report.connections = [(Kind::Malformed, 0)].into(),
        |report| report.counted.packets = 99,
    ];
    for (place, spoil) in spoiled.into_iter().enumerate() {
        let mut report = report();
        spoil(&mut report);
        assert_eq!(reasons(&report, &both).len(), 1, "case {place}");
        report.reasons = reasons(&report, &both);
        assert!(!report.is_pass() && report.to_string().contains("FAIL"));
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for options in [
        Options {
            kinds: vec![],
            ..Options::default()
        },
        Options {
            attackers: 0,
            ..Options::default()
        },
        Options {
            attackers: ATTACKERS_MAX + 1,
            ..Options::default()
        },
        Options {
            rounds: 0,
            ..Options::default()
        },
        Options {
            good_devices: 0,
            ..Options::default()
        },
    ] {
        assert!(
            matches!(check(&options), Err(HostileError::Options(_))),
            "{options:?}"
        );
    }
    assert!(check(&Options::default()).is_ok());
    for (name, kind) in KINDS {
        assert_eq!(name.parse(), Ok(*kind));
    }
    assert!("nice".parse::<Kind>().is_err());
}

#[test]
fn memory_of_this_process_is_seen_and_of_none_is_not() {
    assert!(resident_kib(std::process::id()).is_some_and(|kib| kib > 1_000));
    // The kernel gives out no such id.
    assert_eq!(resident_kib(u32::MAX), None);
}
