//! The segment files of the journal: making, taking into use, recycling.
//!
//! A spare is a file of full length whose blocks exist on disk, so that writing into it changes no
//! metadata. It decides when there may be one more file; it never decides which segment may go
//! (see [`super::log_state`]) and never reads records (see [`super::recovery`]).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::format::SegmentHeader;
use super::{JournalConfig, SEGMENTS_MIN};
use crate::disk::{Disk, DiskFile, is_full};
use dunlin_model::mutant::{self, Mutant};
use dunlin_model::point::Point;

/// The folder of the journal on its disk.
pub(super) const FOLDER: &str = "journal";

/// Zeros are written and synced in steps of this many bytes, so that a flush never waits for more.
const ZERO_STEP_BYTES: u64 = 1 << 20;

/// Spares that are made ahead while the flusher has nothing better to do.
const SPARES_AHEAD: usize = 2;

/// Beyond the smallest journal, spares are made only while this much of the disk is free: a journal that
/// grew into the last of it would leave the state and the events no room for what it holds.
pub(super) const SPARES_LEAVE_FREE_BYTES: u64 = 192 << 20;

/// A segment in use.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) seed: u32,
    pub(super) file: Arc<dyn DiskFile>,
}

pub(super) struct Files {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    segments_max: usize,
    /// What signatures are drawn from, unless the system draws them.
    seeded: Option<StdRng>,
    in_use: BTreeMap<u64, String>,
    spares: Vec<String>,
    next_spare: u64,
    half_made: Option<HalfMade>,
    /// Set when the disk refused another file; cleared when a segment changes hands.
    refused: bool,
}

struct HalfMade {
    name: String,
    file: Arc<dyn DiskFile>,
    zeroed_bytes: u64,
}

/// The path of segment `number`.
pub(super) fn segment_path(number: u64) -> String {
    format!("{FOLDER}/{number:020}.log")
}

fn spare_path(number: u64, suffix: &str) -> String {
    format!("{FOLDER}/spare-{number}.{suffix}")
}

impl Files {
    /// Takes over the folder: `in_use` by recovery, spares by name; leftovers of half-made files go.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        config: &JournalConfig,
        in_use: BTreeMap<u64, String>,
    ) -> io::Result<Files> {
        let mut files = Files {
            disk,
            segment_bytes: config.segment_bytes,
            segments_max: config.segments_max,
            seeded: config.signature_seed.map(StdRng::seed_from_u64),
            in_use,
            spares: Vec::new(),
            next_spare: 0,
            half_made: None,
            refused: false,
        };
        for name in files.disk.list(FOLDER)? {
            let Some(rest) = name.strip_prefix("spare-") else {
                continue;
            };
            let path = format!("{FOLDER}/{name}");
            let number = rest
                .strip_suffix(".seg")
                .and_then(|number| number.parse::<u64>().ok());
            let whole = number.is_some() && files.disk.open(&path)?.len()? == config.segment_bytes;
            match number {
                Some(number) if whole => {
                    files.next_spare = files.next_spare.max(number + 1);
                    files.spares.push(path);
                }
                _ => files.disk.remove(&path)?,
            }
        }
        Ok(files)
    }

    pub(super) fn spares(&self) -> usize {
        self.spares.len()
    }

    pub(super) fn in_use(&self) -> usize {
        self.in_use.len()
    }

    pub(super) fn in_use_from(&self, number: u64) -> usize {
        self.in_use.range(number..).count()
    }

    /// Whether there is a spare to be made ahead of need.
    pub(super) fn wants_spare(&self) -> bool {
        !self.refused && self.spares.len() < SPARES_AHEAD && self.may_grow()
    }

    fn may_grow(&self) -> bool {
        self.in_use.len() + self.spares.len() < self.segments_max
    }

    /// Makes a spare now unless there are `wanted` already or no more are allowed. `Ok(false)`
    /// when there is no room.
    pub(super) fn ensure_spares(&mut self, wanted: usize) -> io::Result<bool> {
        while self.spares.len() < wanted {
            if !self.may_grow() {
                return Ok(false);
            }
            self.refused = false;
            self.prepare_step()?;
            if self.refused {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes some more zeros of the next spare. A full disk is remembered, not an error.
    pub(super) fn prepare_step(&mut self) -> io::Result<()> {
        match self.try_prepare_step() {
            Err(error) if is_full(&error) => {
                self.refused = true;
                if let Some(half) = self.half_made.take() {
                    self.disk.remove(&half.name)?;
                }
                Ok(())
            }
            other => other,
        }
    }

    fn try_prepare_step(&mut self) -> io::Result<()> {
        if self.in_use.len() + self.spares.len() >= SEGMENTS_MIN
            && self.disk.free_bytes()? < SPARES_LEAVE_FREE_BYTES
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.half_made.is_none() {
            let name = spare_path(self.next_spare, "tmp");
            let file = self.disk.create(&name)?;
            self.half_made = Some(HalfMade {
                name,
                file,
                zeroed_bytes: 0,
            });
        }
        let half = self.half_made.as_mut().expect("set above");
        let step = ZERO_STEP_BYTES.min(self.segment_bytes - half.zeroed_bytes);
        half.file.write_at(&vec![0; step as usize], half.zeroed_bytes)?;
        half.file.sync_data()?;
        half.zeroed_bytes += step;
        if half.zeroed_bytes == self.segment_bytes {
            let ready = spare_path(self.next_spare, "seg");
            self.disk.rename(&half.name, &ready)?;
            self.disk.sync_dir(FOLDER)?;
            self.half_made = None;
            self.next_spare += 1;
            self.spares.push(ready);
        }
        Ok(())
    }

    /// Puts a spare in use as segment `number`. The header is durable before the name is.
    pub(super) fn take(&mut self, number: u64) -> io::Result<Segment> {
        let spare = self.spares.pop().expect("the caller made sure of a spare");
        let signature = match &mut self.seeded {
            Some(seeded) => seeded.random(),
            None => rand::rng().random(),
        };
        let header = SegmentHeader {
            number,
            signature,
            segment_bytes: self.segment_bytes,
        };
        let file = self.disk.open(&spare)?;
        file.write_at(&header.encode(), 0)?;
        file.sync_data()?;
        let path = segment_path(number);
        self.disk.rename(&spare, &path)?;
        if !mutant::is_on(Mutant::ForgetDirectorySync) {
            self.disk.sync_dir(FOLDER)?;
        }
        self.in_use.insert(number, path);
        self.refused = false;
        Ok(Segment {
            header,
            seed: header.seed(),
            file,
        })
    }

    /// Turns the segments below `oldest` into spares. Returns how many.
    pub(super) fn recycle_below(&mut self, oldest: u64) -> io::Result<usize> {
        let kept = self.in_use.split_off(&oldest);
        let gone = std::mem::replace(&mut self.in_use, kept);
        let count = gone.len();
        for path in gone.into_values() {
            if self.disk.open(&path)?.len()? != self.segment_bytes {
                // Made under another configuration.
                self.disk.remove(&path)?;
                continue;
            }
            let spare = spare_path(self.next_spare, "seg");
            self.next_spare += 1;
            self.disk.rename(&path, &spare)?;
            self.spares.push(spare);
            Point::SegmentRecycled.reach();
        }
        if count > 0 {
            self.disk.sync_dir(FOLDER)?;
            self.refused = false;
        }
        Ok(count)
    }

    /// The highest segment, readable or not.
    pub(super) fn newest(&self) -> Option<u64> {
        self.in_use.keys().next_back().copied()
    }
}
