//! What of one file is not on disk yet, as a machine without a disk.
//!
//! The file itself always has its newest bytes. Kept here is what was there before, for each page that
//! was written and not synced since: a power cut puts it back. A sync moves those pages aside while it
//! runs and forgets them when it has ended well; one that failed leaves them lost, as Linux does, which
//! calls them clean: they read as written until the power is cut, whatever is synced later. Which
//! bytes to read before a write, and which to put back, is said here; doing it is the shell's work.

use std::collections::BTreeMap;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

/// The unit that a power cut keeps or loses.
pub const SECTOR_BYTES: usize = 512;
/// The unit in which earlier bytes are kept.
pub const PAGE_BYTES: usize = 4096;
const SECTORS_PER_PAGE: u64 = (PAGE_BYTES / SECTOR_BYTES) as u64;

/// Which unsynced sectors of each file reach the disk when the power is cut (F20, F21).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tear {
    /// None: everything that was not synced is gone, names as well.
    #[default]
    Nothing,
    /// Those at the beginning, up to somewhere.
    Prefix,
    /// Those at the end, from somewhere on: what was written later came first.
    Suffix,
    /// A run that lacks its beginning and its end.
    Middle,
    /// Any of them, as a disk does that orders writes by its own taste.
    Scattered,
}

/// Something to be done to the file so that it is as the power cut left it. In order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// Cut or extend it.
    SetLen(u64),
    /// Put these bytes back.
    Write(u64, Vec<u8>),
}

/// What a power cut did to one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loss {
    /// What is to be done.
    pub repairs: Vec<Repair>,
    /// Sectors that had not been synced and are gone.
    pub sectors_lost: u64,
    /// Sectors that had not been synced and are there.
    pub sectors_kept: u64,
    /// Whether one of those is half there.
    pub is_torn: bool,
}

/// A page as it was before a write; without bytes it was all zero, or beyond the end of the file.
#[derive(Debug, Clone, Default)]
struct Page {
    before: Option<Box<[u8]>>,
    /// One bit for each sector that was written.
    dirty: u8,
}

#[derive(Debug, Default)]
struct Layer {
    pages: BTreeMap<u64, Page>,
    len_before: Option<u64>,
    /// The file's length when the layer was sealed.
    len_sealed: u64,
}

/// The unsynced state of one file.
#[derive(Debug, Default)]
pub struct FilePages {
    /// Written since the last sync began.
    pending: Layer,
    /// What syncs that are under way will make durable, by their tokens.
    sealed: BTreeMap<u64, Layer>,
    /// What failed syncs have left, oldest bytes first.
    lost: Layer,
    next_token: u64,
}

/// The pages that a range of bytes touches, as a range of bytes: what is to be read before a write.
pub fn page_range(offset: u64, len: u64) -> (u64, u64) {
    let page = PAGE_BYTES as u64;
    let begin = offset / page * page;
    (begin, (offset + len).div_ceil(page) * page - begin)
}

impl FilePages {
    /// Whether the pages of this range must be read before they are written.
    pub fn needs_before(&self, offset: u64, len: u64) -> bool {
        let mut pages = page_numbers(offset, len);
        pages.any(|number| !self.pending.pages.contains_key(&number))
    }

    /// A write of `len` bytes is about to happen to a file of `file_len` bytes. `before` are the bytes
    /// of all its pages as [`page_range`] tells, zeros beyond the end; it is not looked at where
    /// [`needs_before`](Self::needs_before) has said no.
    pub fn handle_write(&mut self, offset: u64, len: u64, file_len: u64, before: &[u8]) {
        if len == 0 {
            return;
        }
        self.pending.mark(offset, len, before);
        if offset + len > file_len {
            self.pending.len_before.get_or_insert(file_len);
        }
    }

    /// The file is about to get another length. `before` are the bytes of the pages from the cut on, as
    /// for a write of all that is cut off; empty where nothing is.
    pub fn handle_set_len(&mut self, len: u64, file_len: u64, before: &[u8]) {
        if len < file_len {
            self.pending.mark(len, file_len - len, before);
        }
        if len != file_len {
            self.pending.len_before.get_or_insert(file_len);
        }
    }

    /// A sync of a file of `file_len` bytes begins: what was written so far will be durable when it ends.
    /// The token names it.
    pub fn begin_sync(&mut self, file_len: u64) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        let mut layer = std::mem::take(&mut self.pending);
        layer.len_sealed = file_len;
        self.sealed.insert(token, layer);
        token
    }

    /// A sync has ended well. It covers all that were begun before it.
    pub fn end_sync(&mut self, token: u64) {
        let later = self.sealed.split_off(&(token + 1));
        for layer in std::mem::replace(&mut self.sealed, later).into_values() {
            self.lost.forget(&layer);
        }
    }

    /// A sync has failed: what it should have made durable is lost, though it still reads as written.
    pub fn fail_sync(&mut self, token: u64) {
        if let Some(layer) = self.sealed.remove(&token) {
            self.lost.keep_under(layer);
        }
    }

    /// What was written is on disk without anybody's asking, as happens when memory runs short.
    pub fn write_back(&mut self, file_len: u64) {
        let token = self.begin_sync(file_len);
        self.end_sync(token);
    }

    /// Whether a power cut would change anything.
    pub fn is_clean(&self) -> bool {
        self.layers()
            .all(|layer| layer.pages.is_empty() && layer.len_before.is_none())
    }

    /// Bytes that are kept here, about.
    pub fn kept_bytes(&self) -> usize {
        let pages = self.layers().flat_map(|layer| layer.pages.values());
        pages
            .map(|page| page.before.as_ref().map_or(0, |bytes| bytes.len()) + size_of::<Page>())
            .sum()
    }

    /// The page's durable bytes, if it has others in the file: what a disk returns that has lost a write.
    pub fn stale_page(&self, number: u64) -> Option<Vec<u8>> {
        let page = self.layers().find_map(|layer| layer.pages.get(&number))?;
        Some(
            page.before
                .as_ref()
                .map_or(vec![0; PAGE_BYTES], |bytes| bytes.to_vec()),
        )
    }

    /// The power is cut while the file has `file_len` bytes. Draws what is kept, and is clean then.
    pub fn lose_power(&mut self, tear: Tear, file_len: u64, random: &mut StdRng) -> Loss {
        let durable_len = self
            .layers()
            .find_map(|layer| layer.len_before)
            .unwrap_or(file_len);
        let sectors = self.dirty_sectors();
        *self = Self::default();
        let (kept, torn) = draw_kept(tear, sectors.len(), random);
        let keeps_len = tear != Tear::Nothing && random.random_bool(0.5);
        let len = if keeps_len { file_len } else { durable_len };
        let mut loss = Loss {
            is_torn: torn.is_some(),
            ..Loss::default()
        };
        if len != file_len {
            loss.repairs.push(Repair::SetLen(len));
        }
        for (place, (number, before)) in sectors.iter().enumerate() {
            let offset = number * SECTOR_BYTES as u64;
            // A torn sector is kept up to here and lost from here on.
            let kept_bytes = match torn {
                Some((torn, kept_bytes)) if torn == place => kept_bytes,
                _ if kept[place] => SECTOR_BYTES,
                _ => 0,
            };
            match kept_bytes {
                0 => loss.sectors_lost += 1,
                _ => loss.sectors_kept += 1,
            }
            let from = offset + kept_bytes as u64;
            let to = (offset + SECTOR_BYTES as u64).min(len);
            if from < to {
                let bytes = &before[kept_bytes..(to - offset) as usize];
                put_back(&mut loss.repairs, from, bytes);
            }
        }
        loss
    }

    /// Oldest first.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        let newer = self.sealed.values().chain([&self.pending]);
        [&self.lost].into_iter().chain(newer)
    }

    /// Every sector that was written, with the bytes that are durable there.
    fn dirty_sectors(&self) -> Vec<(u64, Vec<u8>)> {
        let mut found: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for layer in self.layers() {
            for (number, page) in &layer.pages {
                for sector in (0..SECTORS_PER_PAGE).filter(|sector| page.dirty & (1 << sector) != 0) {
                    let begin = sector as usize * SECTOR_BYTES;
                    let before = page.before.as_ref();
                    let bytes =
                        || before.map_or(vec![0; SECTOR_BYTES], |all| all[begin..][..SECTOR_BYTES].to_vec());
                    // The oldest layer is the one that knows what is on disk.
                    found
                        .entry(number * SECTORS_PER_PAGE + sector)
                        .or_insert_with(bytes);
                }
            }
        }
        found.into_iter().collect()
    }
}

impl Layer {
    fn mark(&mut self, offset: u64, len: u64, before: &[u8]) {
        let end = offset + len;
        let (begin, _) = page_range(offset, len);
        for number in page_numbers(offset, len) {
            let page_begin = number * PAGE_BYTES as u64;
            let page = self.pages.entry(number).or_insert_with(|| {
                let bytes = before
                    .get((page_begin - begin) as usize..)
                    .map_or(&[][..], |rest| &rest[..rest.len().min(PAGE_BYTES)]);
                Page {
                    before: keep(bytes),
                    dirty: 0,
                }
            });
            for sector in 0..SECTORS_PER_PAGE {
                let sector_begin = page_begin + sector * SECTOR_BYTES as u64;
                if sector_begin < end && sector_begin + SECTOR_BYTES as u64 > offset {
                    page.dirty |= 1 << sector;
                }
            }
        }
    }

    /// What the other layer has written is durable, so that nothing older is.
    fn forget(&mut self, durable: &Layer) {
        for (number, page) in &durable.pages {
            if let Some(own) = self.pages.get_mut(number) {
                own.dirty &= !page.dirty;
                if own.dirty == 0 {
                    self.pages.remove(number);
                }
            }
        }
        self.len_before = None;
        self.cut(durable.len_sealed);
    }

    /// The file ends here for good: what an older, longer one had behind it does not come back.
    fn cut(&mut self, len: u64) {
        let page = PAGE_BYTES as u64;
        drop(self.pages.split_off(&len.div_ceil(page)));
        let Some(last) = self.pages.get_mut(&(len / page)) else {
            return;
        };
        let within = (len % page) as usize;
        if let Some(bytes) = &mut last.before {
            bytes[within..].fill(0);
        }
        // Sectors that begin behind the end are zeros, whatever comes.
        let sectors = within.div_ceil(SECTOR_BYTES);
        last.dirty &= u8::MAX
            .checked_shr(SECTORS_PER_PAGE as u32 - sectors as u32)
            .unwrap_or(0);
    }

    /// Takes over a newer layer. Where both have bytes, the older ones are those on disk.
    fn keep_under(&mut self, newer: Layer) {
        for (number, page) in newer.pages {
            let Some(own) = self.pages.get_mut(&number) else {
                self.pages.insert(number, page);
                continue;
            };
            let more = page.dirty & !own.dirty;
            if more == 0 {
                continue;
            }
            let mut bytes = own.before.take().unwrap_or_else(|| vec![0; PAGE_BYTES].into());
            for sector in (0..SECTORS_PER_PAGE as usize).filter(|sector| more & (1 << sector) != 0) {
                let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                match &page.before {
                    Some(newer) => bytes[range.clone()].copy_from_slice(&newer[range]),
                    None => bytes[range].fill(0),
                }
            }
            own.before = Some(bytes);
            own.dirty |= more;
        }
        self.len_before = self.len_before.or(newer.len_before);
    }
}

fn page_numbers(offset: u64, len: u64) -> std::ops::Range<u64> {
    let page = PAGE_BYTES as u64;
    offset / page..(offset + len).div_ceil(page)
}

/// A page of zeros needs no bytes, and a journal that was zeroed in advance has many.
fn keep(bytes: &[u8]) -> Option<Box<[u8]>> {
    if bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    let mut page = vec![0; PAGE_BYTES];
    page[..bytes.len()].copy_from_slice(bytes);
    Some(page.into())
}

/// Which of `count` sectors are kept, and which one is torn after how many bytes.
fn draw_kept(tear: Tear, count: usize, random: &mut StdRng) -> (Vec<bool>, Option<(usize, usize)>) {
    if tear == Tear::Nothing || count == 0 {
        return (vec![false; count], None);
    }
    let mut cut = || random.random_range(0..=count);
    let (from, to) = match tear {
        Tear::Prefix => (0, cut()),
        Tear::Suffix => (cut(), count),
        _ => {
            let (one, other) = (cut(), cut());
            (one.min(other), one.max(other))
        }
    };
    let kept: Vec<bool> = match tear {
        Tear::Scattered => {
            let share = random.random_range(0.0..=1.0);
            (0..count).map(|_| random.random_bool(share)).collect()
        }
        _ => (0..count).map(|place| (from..to).contains(&place)).collect(),
    };
    // The sector at which the disk lost its power: the last one that it was writing.
    let last = kept.iter().rposition(|kept| *kept);
    let torn = last.filter(|_| random.random_bool(0.5));
    let torn = torn.map(|place| (place, random.random_range(1..SECTOR_BYTES)));
    (kept, torn)
}

/// Adds to the last repair where the bytes follow it, so that the shell has few writes to do.
fn put_back(repairs: &mut Vec<Repair>, offset: u64, bytes: &[u8]) {
    match repairs.last_mut() {
        Some(Repair::Write(begin, all)) if *begin + all.len() as u64 == offset => {
            all.extend_from_slice(bytes)
        }
        _ => repairs.push(Repair::Write(offset, bytes.to_vec())),
    }
}

#[cfg(test)]
mod tests;
