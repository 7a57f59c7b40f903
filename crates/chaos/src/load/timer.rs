//! A timer that is as fine as the kernel's: the runtime's own wakes in steps of a millisecond, which
//! would be most of the latency of a fast server.

use std::fs::File;
use std::io;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

/// One timer of this thread's runtime.
pub(super) struct Timer {
    file: File,
    /// The same timer, registered with the runtime. It is no pipe, but is waited for and read like one,
    /// and a pipe's end is what the runtime registers without `unsafe`.
    expired: Receiver,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let file = File::from(timerfd_create(TimerfdClockId::Monotonic, flags)?);
        Ok(Self {
            expired: Receiver::from_file_unchecked(file.try_clone()?)?,
            file,
        })
    }

    /// Waits so long.
    pub(super) async fn sleep(&mut self, wait: Duration) -> io::Result<()> {
        if wait.is_zero() {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let none = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let once = Itimerspec {
            it_interval: none,
            it_value: value,
        };
        timerfd_settime(&self.file, TimerfdTimerFlags::empty(), &once)?;
        // It gives the number of times that it expired.
        self.expired.read_u64_le().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn it_waits_at_least_as_long_as_it_is_told_and_again() {
        let mut timer = Timer::new().unwrap();
        for wait in [0, 1, 200, 3000] {
            let wait = Duration::from_micros(wait);
            let begun = Instant::now();
            timer.sleep(wait).await.unwrap();
            assert!(begun.elapsed() >= wait);
        }
    }
}
