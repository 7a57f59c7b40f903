//! The pages against an oracle that keeps two whole copies of the file, and by hand where it matters.

use proptest::prelude::*;
use rand::SeedableRng as _;

use super::*;

const LEN_MAX: u64 = 5 * PAGE_BYTES as u64;

/// A file, its pages, and two copies of it: what reads see, and what is on disk.
#[derive(Default)]
struct World {
    file: Vec<u8>,
    pages: FilePages,
    durable: Vec<u8>,
    dirty: std::collections::BTreeSet<usize>,
}

impl World {
    fn before(&self, offset: u64, len: u64) -> Vec<u8> {
        let (begin, len) = page_range(offset, len);
        (begin..begin + len)
            .map(|place| self.file.get(place as usize).copied().unwrap_or(0))
            .collect()
    }

    fn mark(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let len = bytes.len() as u64;
        let before = match self.pages.needs_before(offset, len) {
            true => self.before(offset, len),
            false => Vec::new(),
        };
        self.pages
            .handle_write(offset, len, self.file.len() as u64, &before);
        let end = offset as usize + bytes.len();
        if end > self.file.len() && !bytes.is_empty() {
            self.file.resize(end, 0);
        }
        if !bytes.is_empty() {
            self.file[offset as usize..end].copy_from_slice(bytes);
            self.mark(offset as usize, end);
        }
    }

    fn set_len(&mut self, len: u64) {
        let old = self.file.len() as u64;
        let before = match len < old {
            true => self.before(len, old - len),
            false => Vec::new(),
        };
        self.pages.handle_set_len(len, old, &before);
        if len < old {
            self.mark(len as usize, old as usize);
        }
        self.file.resize(len as usize, 0);
    }

    fn sync(&mut self) {
        let token = self.pages.begin_sync(self.file.len() as u64);
        self.pages.end_sync(token);
        self.durable.resize(self.file.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let from = (sector * SECTOR_BYTES).min(self.file.len());
            let to = (from + SECTOR_BYTES).min(self.file.len());
            self.durable[from..to].copy_from_slice(&self.file[from..to]);
        }
    }

    fn fail_sync(&mut self) {
        let token = self.pages.begin_sync(self.file.len() as u64);
        self.pages.fail_sync(token);
        self.dirty.clear();
    }

    /// Cuts the power, and returns what is there then and what the machine said of it.
    fn cut(&mut self, tear: Tear, seed: u64) -> (Vec<u8>, Loss) {
        let mut random = StdRng::seed_from_u64(seed);
        let loss = self.pages.lose_power(tear, self.file.len() as u64, &mut random);
        let mut after = self.file.clone();
        for repair in &loss.repairs {
            match repair {
                Repair::SetLen(len) => after.resize(*len as usize, 0),
                Repair::Write(offset, bytes) => {
                    after[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        assert!(self.pages.is_clean());
        (after, loss)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, u8, usize),
    SetLen(u64),
    Sync,
    FailSync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..LEN_MAX, 1..=255u8, 0..9_000usize).prop_map(|(offset, byte, len)| Step::Write(offset, byte, len)),
        1 => (0..LEN_MAX).prop_map(Step::SetLen),
        2 => Just(Step::Sync),
        1 => Just(Step::FailSync),
    ]
}

fn played(steps: &[Step]) -> World {
    let mut world = World::default();
    for step in steps {
        match *step {
            Step::Write(offset, byte, len) => world.write(offset, &vec![byte; len]),
            Step::SetLen(len) => world.set_len(len),
            Step::Sync => world.sync(),
            Step::FailSync => world.fail_sync(),
        }
    }
    world
}

proptest! {
    #[test]
    fn a_power_cut_leaves_what_was_synced_and_nothing_else(steps in prop::collection::vec(step(), 0..30)) {
        let mut world = played(&steps);
        let (after, _) = world.cut(Tear::Nothing, 0);
        prop_assert_eq!(after, world.durable);
    }

    #[test]
    fn a_torn_cut_leaves_each_sector_old_or_new_but_for_one(
        steps in prop::collection::vec(step(), 0..30),
        seed: u64,
        tear in prop::sample::select(vec![Tear::Prefix, Tear::Suffix, Tear::Middle, Tear::Scattered]),
    ) {
        let mut world = played(&steps);
        let (after, loss) = world.cut(tear, seed);
        prop_assert!([world.file.len(), world.durable.len()].contains(&after.len()));
        let sector = |bytes: &[u8], number: usize| -> Vec<u8> {
            let all = (number * SECTOR_BYTES..(number + 1) * SECTOR_BYTES).take_while(|at| *at < after.len());
            all.map(|at| bytes.get(at).copied().unwrap_or(0)).collect()
        };
        let mut mixed = 0;
        for number in 0..after.len().div_ceil(SECTOR_BYTES) {
            let found = sector(&after, number);
            if found != sector(&world.durable, number) && found != sector(&world.file, number) {
                mixed += 1;
            }
        }
        prop_assert!(mixed <= usize::from(loss.is_torn), "{} sectors are neither old nor new", mixed);
    }
}

fn filled(len: usize) -> World {
    let mut world = World::default();
    world.write(0, &vec![1; len]);
    world.sync();
    world
}

#[test]
fn the_shapes_of_a_tear_are_what_their_names_say() {
    const SECTORS: usize = 64;
    for (tear, seeds) in [
        (Tear::Prefix, 0..50),
        (Tear::Suffix, 0..50),
        (Tear::Middle, 0..50),
        (Tear::Scattered, 0..50),
    ] {
        let (mut kept_some, mut runs_max) = (0, 0);
        for seed in seeds {
            let mut world = filled(SECTORS * SECTOR_BYTES);
            world.write(0, &vec![2; SECTORS * SECTOR_BYTES]);
            let (after, loss) = world.cut(tear, seed);
            let new: Vec<bool> = after.chunks(SECTOR_BYTES).map(|sector| sector[0] == 2).collect();
            let runs = new.windows(2).filter(|pair| pair[0] != pair[1]).count();
            runs_max = runs_max.max(runs);
            kept_some += usize::from(loss.sectors_kept > 0 && loss.sectors_lost > 0);
            assert_eq!(loss.sectors_kept + loss.sectors_lost, SECTORS as u64);
            match tear {
                Tear::Prefix => assert!(runs <= 1 && (new[0] || runs == 0), "{new:?}"),
                Tear::Suffix => assert!(runs <= 1 && (!new[0] || runs == 0), "{new:?}"),
                Tear::Middle => assert!(runs <= 2, "{new:?}"),
                _ => {}
            }
        }
        assert!(kept_some > 25, "{tear:?} tore only {kept_some} of 50");
        assert!(
            tear != Tear::Scattered || runs_max > 5,
            "{runs_max} runs at the most"
        );
    }
}

#[test]
fn what_is_written_while_a_sync_runs_is_not_covered_by_it() {
    let mut world = filled(1_000);
    world.write(0, &[2; 1_000]);
    let token = world.pages.begin_sync(world.file.len() as u64);
    world.write(0, &[3; 1_000]);
    world.pages.end_sync(token);
    assert_eq!(world.cut(Tear::Nothing, 0).0, [2; 1_000]);
}

#[test]
fn a_sync_that_has_not_ended_covers_nothing() {
    let mut world = filled(1_000);
    world.write(0, &[2; 1_000]);
    world.pages.begin_sync(world.file.len() as u64);
    world.write(500, &[3; 1_000]);
    assert_eq!(world.cut(Tear::Nothing, 0).0, [1; 1_000]);
}

#[test]
fn a_later_sync_covers_what_an_earlier_one_is_still_at() {
    let mut world = filled(1_000);
    world.write(0, &[2; 600]);
    let earlier = world.pages.begin_sync(world.file.len() as u64);
    world.write(500, &[3; 1_000]);
    let later = world.pages.begin_sync(world.file.len() as u64);
    world.pages.end_sync(later);
    world.pages.fail_sync(earlier);
    let wanted = [vec![2; 500], vec![3; 1_000]].concat();
    assert_eq!(world.cut(Tear::Nothing, 0).0, wanted);
}

#[test]
fn what_a_failed_sync_has_lost_stays_lost_until_it_is_written_and_synced_again() {
    let mut world = filled(2 * PAGE_BYTES);
    world.write(0, &vec![2; 2 * PAGE_BYTES]);
    world.fail_sync();
    world.write(0, &vec![2; PAGE_BYTES]);
    world.sync();
    let wanted = [vec![2; PAGE_BYTES], vec![1; PAGE_BYTES]].concat();
    assert_eq!(world.cut(Tear::Nothing, 0).0, wanted);
}

#[test]
fn what_a_durable_cut_took_does_not_come_back_with_a_later_loss() {
    let mut world = filled(6_000);
    world.set_len(0);
    world.fail_sync();
    world.sync();
    world.write(0, &[3]);
    world.fail_sync();
    world.sync();
    assert_eq!(world.cut(Tear::Nothing, 0).0, [0]);
}

#[test]
fn a_page_of_zeros_costs_no_bytes_and_a_written_page_is_read_once() {
    let mut world = World::default();
    world.set_len(LEN_MAX);
    world.sync();
    assert!(world.pages.needs_before(10, 20));
    world.write(10, &[7; 20]);
    assert!(world.pages.kept_bytes() < PAGE_BYTES);
    assert!(!world.pages.needs_before(4_000, 96) && world.pages.needs_before(4_000, 97));
    assert_eq!(world.pages.stale_page(0), Some(vec![0; PAGE_BYTES]));
    assert_eq!(world.pages.stale_page(1), None);
    world.pages.write_back(LEN_MAX);
    assert!(world.pages.is_clean());
}
