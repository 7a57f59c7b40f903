//! What happens to a packet on one directed link, as a machine without clock or socket.
//!
//! Time, as a duration since the relay began, and the packet's length go in; a verdict comes out. The
//! draws come from a seed, so that a link does the same to the same packets again. Late packets wait
//! in [`DelayQueue`](super::delay::DelayQueue), which this room does not know.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::faults::{Cause, LinkFaults};

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is gone.
    Drop(Cause),
    /// It goes on.
    Pass(Pass),
}

/// When a packet goes on, how often, and in what state. A time of `now` means at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// When.
    pub at: Duration,
    /// When a copy of it goes, if one does.
    pub copy_at: Option<Duration>,
    /// When it comes again much later, if it does.
    pub replay_at: Option<Duration>,
    /// Whether it was held back so that others overtake it.
    pub held: bool,
    /// The bit that is flipped, counted from the packet's first.
    pub flipped_bit: Option<usize>,
}

/// Decides for one directed link.
#[derive(Debug)]
pub struct Impairer {
    faults: LinkFaults,
    random: StdRng,
    /// Packets that the present run of losses still takes.
    burst_left: u32,
    /// When the link has sent all that it was given.
    free_at: Duration,
}

impl Impairer {
    /// A link without faults whose draws come from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            faults: LinkFaults::default(),
            random: StdRng::seed_from_u64(seed),
            burst_left: 0,
            free_at: Duration::ZERO,
        }
    }

    /// What it is told at present.
    pub fn faults(&self) -> &LinkFaults {
        &self.faults
    }

    /// Tells it something else. A run of losses ends, and the link is idle; packets that were given a
    /// time keep it.
    pub fn set(&mut self, faults: LinkFaults) {
        self.faults = faults;
        self.burst_left = 0;
        self.free_at = Duration::ZERO;
    }

    /// Decides about a packet of `len` bytes that came at `now`.
    pub fn handle_packet(&mut self, now: Duration, len: usize) -> Verdict {
        if let Some(cause) = self.poll_loss(now, len) {
            return Verdict::Drop(cause);
        }
        let Some(sent_at) = self.poll_rate(now, len) else {
            return Verdict::Drop(Cause::RateQueueFull);
        };
        let faults = self.faults;
        let sent_at = sent_at.max(self.poll_standstill(now));
        let flipped_bit =
            (len > 0 && self.draw(faults.corrupt)).then(|| self.random.random_range(0..len * 8));
        let mut at = sent_at + Duration::from_millis(faults.delay_ms) + self.draw_jitter();
        let held = self.draw(faults.reorder);
        if held {
            at += Duration::from_millis(faults.reorder_ms);
        }
        let copy_at = self
            .draw(faults.duplicate)
            .then(|| sent_at + Duration::from_millis(faults.delay_ms) + self.draw_jitter());
        let replay_at = self
            .draw(faults.replay)
            .then(|| at + Duration::from_millis(faults.replay_after_ms));
        Verdict::Pass(Pass {
            at,
            copy_at,
            replay_at,
            held,
            flipped_bit,
        })
    }

    fn poll_loss(&mut self, now: Duration, len: usize) -> Option<Cause> {
        let faults = self.faults;
        if faults.cut {
            return Some(Cause::Cut);
        }
        if let Some(flap) = faults.flap {
            let up = Duration::from_millis(flap.up_ms).as_micros();
            let period = up + Duration::from_millis(flap.down_ms).as_micros();
            if now.as_micros() % period >= up {
                return Some(Cause::Flap);
            }
        }
        if faults.drop_larger_than.is_some_and(|most| len > most) {
            return Some(Cause::TooLarge);
        }
        if self.burst_left == 0 && self.draw(faults.burst) {
            self.burst_left = self.random.random_range(1..=2 * faults.burst_packets - 1);
        }
        if self.burst_left > 0 {
            self.burst_left -= 1;
            return Some(Cause::Burst);
        }
        self.draw(faults.loss).then_some(Cause::Loss)
    }

    /// When the link moves again; now, if it does.
    fn poll_standstill(&self, now: Duration) -> Duration {
        let Some(spike) = self.faults.spike else {
            return now;
        };
        let calm_us = Duration::from_millis(spike.calm_ms).as_micros();
        let period_us = calm_us + Duration::from_millis(spike.spike_ms).as_micros();
        match now.as_micros() % period_us {
            within_us if within_us < calm_us => now,
            // A phase is a minute at most.
            within_us => now + Duration::from_micros((period_us - within_us) as u64),
        }
    }

    /// When the packet has left a link of the given rate; `None` if too much waits already.
    fn poll_rate(&mut self, now: Duration, len: usize) -> Option<Duration> {
        let Some(rate) = self.faults.rate_bits_per_s else {
            return Some(now);
        };
        let begins = self.free_at.max(now);
        let waiting_bytes = (begins - now).as_secs_f64() * rate as f64 / 8.0;
        if waiting_bytes + len as f64 > self.faults.queue_bytes_max as f64 {
            return None;
        }
        self.free_at = begins + Duration::from_secs_f64(len as f64 * 8.0 / rate as f64);
        Some(self.free_at)
    }

    /// Whether something happens that happens to this share. Draws nothing where nothing can, so that a
    /// link without faults costs nothing.
    fn draw(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random_bool(share)
    }

    fn draw_jitter(&mut self) -> Duration {
        match self.faults.jitter_ms {
            0 => Duration::ZERO,
            most => Duration::from_micros(self.random.random_range(0..=most * 1_000)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::faults::{Flap, Spike};

    const PACKETS: usize = 10_000;
    const LEN: usize = 1_000;

    fn told(faults: LinkFaults) -> Impairer {
        faults.validate().unwrap();
        let mut link = Impairer::new(7);
        link.set(faults);
        link
    }

    fn ms(time_ms: u64) -> Duration {
        Duration::from_millis(time_ms)
    }

    fn pass(verdict: Verdict) -> Pass {
        match verdict {
            Verdict::Pass(pass) => pass,
            Verdict::Drop(cause) => panic!("dropped: {cause:?}"),
        }
    }

    /// How many of many packets, one each millisecond, `is_so` of.
    fn count(faults: LinkFaults, is_so: impl Fn(Duration, Verdict) -> bool) -> usize {
        let mut link = told(faults);
        let times = (0..PACKETS as u64).map(ms);
        times
            .filter(|now| is_so(*now, link.handle_packet(*now, LEN)))
            .count()
    }

    fn drops(faults: LinkFaults, cause: Cause) -> usize {
        count(faults, |_, verdict| verdict == Verdict::Drop(cause))
    }

    #[test]
    fn a_link_without_faults_passes_everything_at_once_and_untouched() {
        let untouched = |now, verdict| {
            verdict
                == Verdict::Pass(Pass {
                    at: now,
                    copy_at: None,
                    replay_at: None,
                    held: false,
                    flipped_bit: None,
                })
        };
        assert_eq!(count(LinkFaults::default(), untouched), PACKETS);
    }

    #[test]
    fn shares_are_met() {
        let none = LinkFaults::default();
        let near = |found: usize, share: f64| {
            let wanted = share * PACKETS as f64;
            assert!(
                (found as f64 - wanted).abs() < wanted * 0.1,
                "{found}, not {wanted}"
            );
        };
        assert_eq!(drops(LinkFaults::cut(), Cause::Cut), PACKETS);
        let flap = Some(Flap { up_ms: 3, down_ms: 1 });
        near(drops(LinkFaults { flap, ..none }, Cause::Flap), 0.25);
        near(drops(LinkFaults { loss: 0.3, ..none }, Cause::Loss), 0.3);
        let corrupted = |_, verdict| pass(verdict).flipped_bit.is_some_and(|bit| bit < LEN * 8);
        near(count(LinkFaults { corrupt: 0.2, ..none }, corrupted), 0.2);
        let copied = |now, verdict| pass(verdict).copy_at == Some(now);
        near(
            count(
                LinkFaults {
                    duplicate: 0.2,
                    ..none
                },
                copied,
            ),
            0.2,
        );
        let again = |now, verdict| pass(verdict).replay_at == Some(now + ms(1_000));
        near(count(LinkFaults { replay: 0.2, ..none }, again), 0.2);
        let held = |now, verdict| pass(verdict).held && pass(verdict).at == now + ms(5);
        near(count(LinkFaults { reorder: 0.2, ..none }, held), 0.2);
    }

    #[test]
    fn losses_in_bursts_come_one_after_the_other_and_in_the_length_asked_for() {
        let faults = LinkFaults {
            burst: 0.01,
            burst_packets: 20,
            ..LinkFaults::default()
        };
        let mut link = told(faults);
        let lost: Vec<bool> = (0..PACKETS)
            .map(|_| link.handle_packet(Duration::ZERO, LEN) == Verdict::Drop(Cause::Burst))
            .collect();
        let total = lost.iter().filter(|lost| **lost).count();
        let runs = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        let mean = total as f64 / runs as f64;
        assert!((15.0..25.0).contains(&mean), "{total} in {runs} runs");
    }

    #[test]
    fn a_packet_of_the_largest_size_passes_and_one_byte_more_does_not() {
        let mut link = told(LinkFaults {
            drop_larger_than: Some(1_200),
            ..LinkFaults::default()
        });
        assert_eq!(pass(link.handle_packet(ms(1), 1_200)).at, ms(1));
        assert_eq!(link.handle_packet(ms(1), 1_201), Verdict::Drop(Cause::TooLarge));
    }

    #[test]
    fn jitter_spreads_over_its_range_behind_the_delay() {
        let mut link = told(LinkFaults {
            delay_ms: 100,
            jitter_ms: 50,
            ..LinkFaults::default()
        });
        let times: Vec<Duration> = (0..1_000)
            .map(|_| pass(link.handle_packet(ms(7), LEN)).at - ms(7))
            .collect();
        let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(*first >= ms(100) && *first < ms(102), "{first:?}");
        assert!(*last <= ms(150) && *last > ms(148), "{last:?}");
    }

    #[test]
    fn what_comes_while_a_link_stands_still_goes_on_when_it_moves_again() {
        let mut link = told(LinkFaults {
            spike: Some(Spike {
                calm_ms: 10,
                spike_ms: 5,
            }),
            ..LinkFaults::default()
        });
        for (now, at) in [(0, 0), (9, 9), (10, 15), (14, 15), (15, 15), (24, 24), (26, 30)] {
            assert_eq!(
                pass(link.handle_packet(ms(now), LEN)).at,
                ms(at),
                "came at {now} ms"
            );
        }
    }

    #[test]
    fn a_slow_link_sends_one_packet_after_the_other_and_drops_what_its_queue_cannot_hold() {
        // 1,000 bytes take 8 ms.
        let mut link = told(LinkFaults {
            rate_bits_per_s: Some(1_000_000),
            queue_bytes_max: 3_000,
            ..LinkFaults::default()
        });
        let at: Vec<Verdict> = (0..5).map(|_| link.handle_packet(ms(0), LEN)).collect();
        for (place, verdict) in at.iter().take(3).enumerate() {
            assert_eq!(pass(*verdict).at, ms(8 * (place as u64 + 1)));
        }
        assert_eq!(at[3..], [Verdict::Drop(Cause::RateQueueFull); 2]);
        // One has gone, so there is room for one.
        assert_eq!(pass(link.handle_packet(ms(8), LEN)).at, ms(32));
        assert_eq!(
            link.handle_packet(ms(8), LEN),
            Verdict::Drop(Cause::RateQueueFull)
        );
        // An idle link does not save up.
        assert_eq!(pass(link.handle_packet(ms(100), LEN)).at, ms(108));
    }

    #[test]
    fn a_link_that_is_told_something_else_forgets_its_burst_and_its_queue() {
        let mut link = told(LinkFaults {
            burst: 1.0,
            burst_packets: 1_000,
            ..LinkFaults::default()
        });
        assert_eq!(link.handle_packet(ms(0), LEN), Verdict::Drop(Cause::Burst));
        link.set(LinkFaults::default());
        assert_eq!(pass(link.handle_packet(ms(0), LEN)).at, ms(0));
    }

    #[test]
    fn the_same_seed_does_the_same_and_another_does_not() {
        let faults = LinkFaults {
            loss: 0.5,
            jitter_ms: 9,
            duplicate: 0.5,
            ..LinkFaults::default()
        };
        let run = |seed| {
            let mut link = Impairer::new(seed);
            link.set(faults);
            (0..100)
                .map(|_| link.handle_packet(ms(0), LEN))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
