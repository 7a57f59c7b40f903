//! All chance of the simulation, from one seed.

use super::super::REBALANCE_MS;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(super) struct Random {
    state: u64,
    last: u64,
    is_peace: bool,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: seed,
            last: 0,
            is_peace: false,
        }
    }

    /// From now on nothing goes wrong by chance.
    pub(super) fn make_peace(&mut self) {
        self.is_peace = true;
    }

    pub(super) fn is_peace(&self) -> bool {
        self.is_peace
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn is(&mut self, percent: u64) -> bool {
        !self.is_peace && self.below(100) < percent
    }

    /// None comes twice.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn id(&mut self) -> String {
        format!("rdkafka-{}", self.number())
    }

    /// How long an application takes to let go; some are slower than they said.
    pub(super) fn revoke_ms(&mut self) -> u64 {
        let slow = self.is(10);
        self.below(if slow { 2 * u64::from(REBALANCE_MS) } else { 800 })
    }

    pub(super) fn delay_ms(&mut self) -> u64 {
        let slow = self.is(10);
        1 + self.below(if slow { 8_000 } else { 50 })
    }
}
