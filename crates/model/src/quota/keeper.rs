//! Counts what a hub does against its plan, for all doors: they ask before they do anything, for everything that waits.
//!
//! Pure. Lies in the shard that the slot of [`NAME`] names; its time is the stamp of the entry, so that no death of a door or
//! a leader loses or forgives anything. Whoever asks first is served first. An answer that is lost on its way was counted.

use serde::{Deserialize, Serialize};

use super::window::Window;
use super::{DAY_MS, Operation, Plan};

/// Names the keeper's slot.
pub const NAME: &str = "$quota";
/// Things that one question may be about; others wait for the next.
pub const WANTS_MAX: usize = 1024;

/// Something that waits at a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// What it counts as an operation. More than the plan's rate counts as all of it.
    pub count: u32,
    /// What it counts as messages of the day.
    pub messages: u32,
}

/// What waits at a door, of one kind, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wants {
    /// Of which kind.
    pub operation: Operation,
    /// What; [`WANTS_MAX`] in all kinds together.
    pub wants: Vec<Want>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// Of which kind.
    pub operation: Operation,
    /// For the first ones of those that wait, in order: whether they may go on, or the day's quota is over for them. The others
    /// come too soon.
    pub may: Vec<bool>,
    /// Milliseconds after which the next one may go on; 0 if none is left.
    pub wait_ms: u64,
}

/// What a door is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// One per kind that was asked for, in that order.
    pub verdicts: Vec<Verdicts>,
    /// Messages of this day so far.
    pub used: u64,
    /// Stamp of the entry.
    pub time_ms: u64,
}

/// The messages of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Day {
    /// Which, counted from 1970.
    day: u64,
    used: u64,
}

impl Day {
    /// Messages of the day of `now_ms` so far; an earlier one is over.
    pub fn used(&mut self, now_ms: u64) -> u64 {
        let day = now_ms / DAY_MS;
        if day > self.day {
            *self = Self { day, used: 0 };
        }
        self.used
    }

    /// Decides about what waits of one kind, whose operations `window` counts.
    pub fn decide(&mut self, window: &mut Window, plan: Plan, now_ms: u64, asked: &Wants) -> Verdicts {
        let mut verdicts = Verdicts {
            operation: asked.operation,
            may: Vec::with_capacity(asked.wants.len()),
            wait_ms: 0,
        };
        let quota = plan.messages_per_day();
        let mut used = self.used(now_ms);
        let Some(rate) = plan.rate(asked.operation) else {
            // It was done. The day has as many messages as it has.
            for want in &asked.wants {
                used = used.saturating_add(u64::from(want.messages)).min(quota.max(used));
                verdicts.may.push(true);
            }
            self.used = used;
            return verdicts;
        };
        let mut room = window.room(now_ms, rate);
        for want in &asked.wants {
            if u64::from(want.messages) > quota.saturating_sub(used) {
                verdicts.may.push(false);
                continue;
            }
            let count = u64::from(want.count).min(rate.count);
            if count > room {
                verdicts.wait_ms = window.wait_ms(now_ms, rate, count).max(1);
                break;
            }
            if count > 0 {
                window.count(now_ms, count);
            }
            room -= count;
            used += u64::from(want.messages);
            verdicts.may.push(true);
        }
        self.used = used;
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tier;
    use super::*;

    const PLAN: Plan = Plan {
        tier: Tier::F1,
        units: 1,
    };
    const NOON: u64 = 1_000 * DAY_MS + DAY_MS / 2;

    fn asked(operation: Operation, wants: &[(u32, u32)]) -> Wants {
        let want = |&(count, messages)| Want { count, messages };
        Wants {
            operation,
            wants: wants.iter().map(want).collect(),
        }
    }

    #[test]
    fn as_many_messages_pass_as_a_day_has_and_not_one_more() {
        let (mut day, mut window) = (Day::default(), Window::default());
        let mut passed = 0;
        for second in 0..200 {
            let wants = asked(Operation::DeviceMessage, &[(1, 1); 120]);
            let verdicts = day.decide(&mut window, PLAN, NOON + second * 1_010, &wants);
            passed += verdicts.may.iter().filter(|may| **may).count();
        }
        assert_eq!(passed, 8_000);
        assert_eq!(day.used(NOON), 8_000);
        let midnight = 1_001 * DAY_MS;
        let again = asked(Operation::DeviceMessage, &[(1, 7_999), (1, 2), (1, 1), (1, 1)]);
        let verdicts = day.decide(&mut window, PLAN, midnight, &again);
        assert_eq!(
            verdicts.may,
            [true, false, true, false],
            "a small one fits behind a large one"
        );
        assert_eq!(day.used(midnight), 8_000);
        assert_eq!(day.used(midnight - 1), 8_000, "days do not go back");
    }

    #[test]
    fn whoever_comes_too_soon_is_told_when_to_come() {
        let (mut day, mut window) = (Day::default(), Window::default());
        let wants = asked(Operation::Registry, &[(60, 0), (30, 0), (20, 0), (1, 0)]);
        let verdicts = day.decide(&mut window, PLAN, NOON, &wants);
        assert_eq!(verdicts.may, [true, true], "the third is first in line now");
        assert!(
            (60_000..=60_600).contains(&verdicts.wait_ms),
            "{}",
            verdicts.wait_ms
        );
        let rest = asked(Operation::Registry, &[(20, 0), (1, 0)]);
        let verdicts = day.decide(&mut window, PLAN, NOON + verdicts.wait_ms, &rest);
        assert_eq!((verdicts.may, verdicts.wait_ms), (vec![true, true], 0));
        assert_eq!(day.used(NOON), 0, "the registry is free");
    }

    #[test]
    fn what_is_larger_than_the_rate_takes_all_of_it() {
        let (mut day, mut window) = (Day::default(), Window::default());
        let wants = asked(Operation::DeviceMessage, &[(500, 500), (1, 1)]);
        let verdicts = day.decide(&mut window, PLAN, NOON, &wants);
        assert_eq!(verdicts.may, [true]);
        assert_eq!(day.used(NOON), 500);
    }

    #[test]
    fn what_is_known_afterwards_is_counted_as_far_as_there_is_any_left() {
        let (mut day, mut window) = (Day::default(), Window::default());
        let wants = asked(Operation::Afterwards, &[(0, 7_000), (0, 7_000)]);
        let verdicts = day.decide(&mut window, PLAN, NOON, &wants);
        assert_eq!(verdicts.may, [true, true]);
        assert_eq!(day.used(NOON), 8_000);
        // A plan that has become smaller takes nothing back.
        let larger = Plan {
            tier: Tier::S1,
            units: 1,
        };
        let wants = asked(Operation::Afterwards, &[(0, 10_000)]);
        day.decide(&mut window, larger, NOON, &wants);
        day.decide(&mut window, PLAN, NOON, &wants);
        assert_eq!(day.used(NOON), 18_000);
    }
}
