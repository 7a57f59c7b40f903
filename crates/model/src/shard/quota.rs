//! What a hub does against its plan, as the shard of [`keeper::NAME`] keeps it: the messages of the day, and a window for each
//! kind of operation.

use super::keys;
use super::state::Entry;
use crate::command::Outcome;
use crate::port::StoreError;
use crate::quota::Plan;
use crate::quota::keeper::{Answer, Day, WANTS_MAX, Wants};

/// Decides about what waits at a door.
pub(super) fn ask(entry: &mut Entry<'_>, plan: Plan, wants: &[Wants]) -> Result<Outcome, StoreError> {
    let now_ms = entry.meta.time_ms;
    let stored: Option<Day> = entry.overlay.get_json(&keys::quota_day())?;
    let before = stored.unwrap_or_default();
    let (mut day, mut left) = (before, WANTS_MAX);
    let mut verdicts = Vec::with_capacity(wants.len());
    for asked in wants {
        if asked.wants.len() > left {
            break;
        }
        left -= asked.wants.len();
        let key = keys::quota_window(asked.operation);
        let mut window = entry.overlay.get_json(&key)?.unwrap_or_default();
        verdicts.push(day.decide(&mut window, plan, now_ms, asked));
        if plan.rate(asked.operation).is_some() {
            entry.overlay.put_json(key, &window);
        }
    }
    let used = day.used(now_ms);
    if day != before {
        entry.overlay.put_json(keys::quota_day(), &day);
    }
    Ok(Outcome::Quota(Box::new(Answer {
        verdicts,
        used,
        time_ms: now_ms,
    })))
}
