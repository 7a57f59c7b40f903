//! Makes a failing plan small: fewer steps, then fewer devices, as long as it fails.
//!
//! A smaller plan is another run, not a part of the same one, so whether it fails is tried, every time.

use super::Plan;

/// Runs that are tried at the most.
const TRIES_MAX: usize = 400;

/// The smallest plan found that `fails` still calls failing. `plan` itself must fail.
pub fn shrink(plan: &Plan, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    let mut tries = 0;
    let mut chunk = best.steps.len().div_ceil(2);
    while chunk > 0 && tries < TRIES_MAX {
        let mut from = 0;
        let mut has_shrunk = false;
        while from < best.steps.len() && tries < TRIES_MAX {
            let mut smaller = best.clone();
            let to = (from + chunk).min(smaller.steps.len());
            smaller.steps.drain(from..to);
            tries += 1;
            if fails(&smaller) {
                best = smaller;
                has_shrunk = true;
            } else {
                from = to;
            }
        }
        chunk = match (has_shrunk, chunk) {
            (true, chunk) => chunk.min(best.steps.len().div_ceil(2)),
            (false, 1) => 0,
            (false, chunk) => chunk.div_ceil(2),
        };
    }
    while best.devices > 1 && tries < TRIES_MAX {
        let mut smaller = best.clone();
        smaller.devices -= 1;
        tries += 1;
        if !fails(&smaller) {
            break;
        }
        best = smaller;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Step};
    use super::*;

    #[test]
    fn what_is_not_needed_for_the_failure_goes() {
        let mut plan = Plan::draw(5);
        plan.devices = 6;
        plan.steps = (0..40)
            .map(|at_ms| Step {
                at_ms,
                action: Action::Kill(at_ms as usize),
            })
            .collect();
        let needs = |plan: &Plan| {
            let has = |node| plan.steps.iter().any(|step| step.action == Action::Kill(node));
            has(7) && has(31) && plan.devices >= 2
        };
        let small = shrink(&plan, needs);
        let actions: Vec<_> = small.steps.iter().map(|step| step.action.clone()).collect();
        assert_eq!(actions, [Action::Kill(7), Action::Kill(31)]);
        assert_eq!(small.devices, 2);
    }
}
