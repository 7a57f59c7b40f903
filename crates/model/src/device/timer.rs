//! Every reason for which a device wakes without being told anything.
//!
//! A fixed table, one line per reason; which line is set is decided in [`super`], the waiting itself
//! is the shell's. Milliseconds are those of a monotonic clock.

/// Why a device may have to look at itself again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Nobody holds a session and nothing has concerned the device for a while: it may leave memory.
    /// Its state stays on disk, and whatever concerns it next brings it back.
    Passivate,
}

impl Timer {
    /// All of them, in the order in which they are served when several are due.
    pub const ALL: [Timer; 1] = [Timer::Passivate];
}

/// When each timer is due.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TimerTable {
    due_ms: [Option<u64>; Timer::ALL.len()],
}

impl TimerTable {
    pub(super) fn set(&mut self, timer: Timer, due_ms: u64) {
        self.due_ms[timer as usize] = Some(due_ms);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.due_ms[timer as usize] = None;
    }

    /// The earliest due time.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.due_ms.iter().flatten().min().copied()
    }

    /// Takes out one timer that is due at `now_ms`. Call until `None`.
    pub(super) fn poll_due(&mut self, now_ms: u64) -> Option<Timer> {
        let due = Timer::ALL
            .into_iter()
            .find(|timer| self.due_ms[*timer as usize].is_some_and(|at| at <= now_ms))?;
        self.stop(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_due_once() {
        let mut table = TimerTable::default();
        table.set(Timer::Passivate, 10);
        assert_eq!((table.next_ms(), table.poll_due(9)), (Some(10), None));
        assert_eq!(
            (table.poll_due(10), table.poll_due(10), table.next_ms()),
            (Some(Timer::Passivate), None, None)
        );
    }
}
