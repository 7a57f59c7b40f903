//! Panics of the simulated nodes: tokio catches them, so they would pass unseen. In a run each of them is a
//! violation; none is expected.

use std::cell::RefCell;
use std::sync::Once;

/// Panics that are kept.
const PANICS_MAX: usize = 10;

thread_local! {
    /// Those of the run on this thread; `None` between runs.
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}
static HOOK: Once = Once::new();

/// Watches this thread until it ends.
pub(super) struct Watch(());

impl Watch {
    pub(super) fn begin() -> Watch {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                let is_ours = SEEN.with_borrow_mut(|seen| {
                    let Some(seen) = seen else { return false };
                    if seen.len() < PANICS_MAX {
                        seen.push(panic.to_string().replace('\n', " "));
                    }
                    true
                });
                if !is_ours {
                    before(panic);
                }
            }));
        });
        SEEN.set(Some(Vec::new()));
        Watch(())
    }

    /// What was seen.
    pub(super) fn end(self) -> Vec<String> {
        SEEN.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_somebody_catches_is_seen_all_the_same() {
        let watch = Watch::begin();
        assert!(std::panic::catch_unwind(|| panic!("in a task")).is_err());
        let seen = watch.end();
        assert_eq!(seen.len(), 1);
        assert!(seen[0].contains("in a task"), "{seen:?}");
        assert!(Watch::begin().end().is_empty());
    }
}
