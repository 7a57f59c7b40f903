//! Consumer groups in the log: each command changes one group, whose state is one value, and says when it is to be looked
//! at next. What a group does is decided in [`crate::group`].

use super::keys;
use super::state::Entry;
use crate::command::Outcome;
use crate::group::Group;
use crate::group::ask::GroupAsk;
use crate::port::StoreError;

pub(super) fn apply(entry: &mut Entry<'_>, id: &str, ask: &GroupAsk) -> Result<Outcome, StoreError> {
    let key = keys::group(id);
    let stored: Option<Group> = entry.overlay.get_json(&key)?;
    let was_there = stored.is_some();
    let mut group = stored.unwrap_or_default();
    let due_ms = group.due_ms().filter(|_| was_there);
    let answer = ask.carry_out(&mut group, entry.meta.time_ms);
    // Time has passed for it whatever the answer is.
    if let Some(ms) = due_ms {
        entry.overlay.delete(keys::due_group(ms, id));
    }
    if group.is_absent() {
        entry.overlay.delete(key);
    } else {
        if let Some(ms) = group.due_ms() {
            entry.overlay.put(keys::due_group(ms, id), bytes::Bytes::new());
        }
        entry.overlay.put_json(key, &group);
    }
    Ok(Outcome::Group(answer))
}
