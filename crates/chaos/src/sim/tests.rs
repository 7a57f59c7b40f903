//! A few runs in every test run, and every plan that has ever failed.

use std::path::Path;

use super::{Plan, Simulator};

/// Seeds that every test run has; the campaigns of `dunlin chaos sim` have many more.
const SEEDS: std::ops::Range<u64> = 1..4;

#[test]
fn a_cluster_under_drawn_faults_keeps_every_promise() {
    let simulator = Simulator::new().unwrap();
    for seed in SEEDS {
        let plan = Plan::draw(seed);
        let one = simulator.run(&plan).unwrap();
        assert_eq!(one.violations, [""; 0], "seed {seed}");
        assert!(one.acked > 0 && one.acked == one.sent, "{one:?}");
        assert!(one.sights > 0 && one.words > 0, "nothing was looked at: {one:?}");
    }
}

/// The plans stand in `crates/chaos/regressions`, each named after what it found.
#[test]
fn plans_that_failed_once_fail_no_more() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let simulator = Simulator::new().unwrap();
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let plan: Plan = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let outcome = simulator.run(&plan).unwrap();
        assert_eq!(outcome.violations, [""; 0], "{}", path.display());
        count += 1;
    }
    assert!(count > 0, "there are none");
}
