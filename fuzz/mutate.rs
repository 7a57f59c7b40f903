//! Mutations of known inputs, for machines that have no libFuzzer: each crate's tests take this file in
//! and drive their fuzz targets with it, over the same seeds that the fuzzer begins with.
//!
//! Deterministic: a target's name and a round give the same bytes everywhere. It never looks at coverage;
//! for that there is `.ci/fuzz`.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes that a mutated input has at the most.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Values that sit on borders of lengths and counts.
const EDGES: &[u8] = &[0, 1, 2, 0x7F, 0x80, 0x81, 0xFE, 0xFF];

/// Runs `target` over `seeds` as they are, then over `rounds` mutations of them.
///
/// # Panics
/// As `target` does, after it printed the input; that belongs into a unit test of the decoder.
pub(crate) fn exercise(name: &str, target: fn(&[u8]), seeds: Vec<Vec<u8>>, rounds: u64) {
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for (place, seed) in seeds.iter().enumerate() {
        run(name, target, seed, &format!("seed {place}"));
    }
    for round in 0..rounds {
        let mut draw = Draw::new(name, round);
        let mut input = seeds[draw.below(seeds.len())].clone();
        for _ in 0..=draw.below(4) {
            let other = &seeds[draw.below(seeds.len())];
            mutate(&mut input, other, &mut draw);
        }
        input.truncate(INPUT_BYTES_MAX);
        run(name, target, &input, &format!("round {round}"));
    }
}

fn run(name: &str, target: fn(&[u8]), input: &[u8], place: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        // On the error stream, where it stands beside the panic.
        eprintln!("fuzz target {name}, {place}: {input:?}");
        std::panic::resume_unwind(panic);
    }
}

/// Changes `input` in one way.
fn mutate(input: &mut Vec<u8>, other: &[u8], draw: &mut Draw) {
    if input.is_empty() {
        input.extend_from_slice(other);
        input.push(draw.byte());
        return;
    }
    let at = draw.below(input.len());
    let length = 1 + draw.below(16.min(input.len() - at));
    match draw.below(9) {
        0 => input[at] ^= 1 << draw.below(8),
        1 => input[at] = draw.byte(),
        2 => input[at] = EDGES[draw.below(EDGES.len())],
        3 => input[at..at + length].fill(EDGES[draw.below(EDGES.len())]),
        4 => drop(input.drain(at..at + length)),
        5 => {
            let part = input[at..at + length].to_vec();
            input.splice(at..at, part);
        }
        6 => input.truncate(at),
        7 if !other.is_empty() => {
            let from = draw.below(other.len());
            let part = other[from..(from + length).min(other.len())].to_vec();
            input.splice(at..at, part);
        }
        _ => {
            // An integer of some width, one more or one less.
            let change = if draw.byte() & 1 == 0 { 1 } else { u8::MAX };
            input[at] = input[at].wrapping_add(change);
        }
    }
}

/// Numbers that look random (SplitMix64).
struct Draw(u64);

impl Draw {
    fn new(name: &str, round: u64) -> Self {
        let name = name.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(name ^ round.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}
