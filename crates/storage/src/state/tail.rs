//! Where the state database's own journal stops making sense, and a cut there.
//!
//! Between checkpoints nothing of that journal is synced, so a power cut leaves any of its sectors: a batch
//! may be spoiled whose successors are whole. fjall cuts off an unfinished last batch by itself; a whole
//! one whose checksum is wrong it takes for damage, and does not open. The batches behind the last
//! checkpoint are not needed, since the node's journal feeds them again. If what is spoiled lies before
//! it, the cut leaves a state that ends before its log begins, and the replicas concerned are damaged:
//! whoever feeds them must see that. This room knows the layout of fjall's journal and nothing else of
//! fjall; it never changes a byte before the cut.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

/// What an entry begins with. A batch is a start, as many items as that says, and an end.
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// What a batch ends with.
const TRAILER: [u8; 4] = [b'F', b'J', b'L', 3];

/// Cuts the newest journal in `folder` behind its last sound batch. Returns how many bytes went, or `None`
/// if it is sound up to where it ends or was never written: then the fault is elsewhere.
pub(super) fn cut(folder: &Path) -> io::Result<Option<u64>> {
    let Some(path) = newest_journal(folder)? else {
        return Ok(None);
    };
    let bytes = fs::read(&path)?;
    let end = sound_end(&bytes);
    if !matches!(bytes.get(end), Some(&(START | ITEM | END | CLEAR))) {
        return Ok(None);
    }
    let file = File::options().write(true).open(&path)?;
    file.set_len(end as u64)?;
    file.sync_all()?;
    Ok(Some((bytes.len() - end) as u64))
}

fn newest_journal(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| is_journal)
            && newest.as_ref().is_none_or(|(newest, _)| number > *newest)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the last batch ends before which all are sound.
pub(crate) fn sound_end(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(len) = batch_bytes(&bytes[end..]) {
        end += len;
    }
    end
}

/// Bytes of the batch that begins here, if it is whole and is what was written.
fn batch_bytes(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    if take::<1>(&mut rest)? != [START] {
        return None;
    }
    let count = u32::from_le_bytes(take(&mut rest)?);
    let _sequence = take::<8>(&mut rest)?;
    let mut hash = Xxh3::new();
    for _ in 0..count {
        let (item, behind) = rest.split_at_checked(item_bytes(rest)?)?;
        hash.update(item);
        rest = behind;
    }
    if take::<1>(&mut rest)? != [END] {
        return None;
    }
    let is_sound = u64::from_le_bytes(take(&mut rest)?) == hash.digest();
    (is_sound && take(&mut rest)? == TRAILER).then(|| bytes.len() - rest.len())
}

/// Bytes that the item here says it has.
fn item_bytes(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    match take(&mut rest)? {
        [ITEM] => {
            let _kind_and_compression = take::<2>(&mut rest)?;
            let _keyspace = take::<8>(&mut rest)?;
            let key_bytes = u16::from_le_bytes(take(&mut rest)?);
            let _value_bytes = take::<4>(&mut rest)?;
            let stored_bytes = u32::from_le_bytes(take(&mut rest)?);
            Some(bytes.len() - rest.len() + usize::from(key_bytes) + stored_bytes as usize)
        }
        [CLEAR] => {
            let _keyspace = take::<8>(&mut rest)?;
            Some(bytes.len() - rest.len())
        }
        _ => None,
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// A batch of these values, as fjall writes it.
#[cfg(any(test, fuzzing))]
pub(crate) fn batch(values: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![START];
    bytes.extend((values.len() as u32).to_le_bytes());
    bytes.extend(7u64.to_le_bytes());
    let begin = bytes.len();
    for value in values {
        bytes.extend([ITEM, 0, 0]);
        bytes.extend(1u64.to_le_bytes());
        bytes.extend(1u16.to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
        bytes.push(b'k');
        bytes.extend(*value);
    }
    let mut hash = Xxh3::new();
    hash.update(&bytes[begin..]);
    bytes.push(END);
    bytes.extend(hash.digest().to_le_bytes());
    bytes.extend(TRAILER);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_sound_up_to_the_first_that_is_not() {
        let one = batch(&[b"a", b"longer"]);
        let two = batch(&[&[9; 300]]);
        let all = [&one[..], &two, &one, &[0; 50]].concat();
        assert_eq!(sound_end(&all), all.len() - 50);
        // Whichever byte of the second batch is another one, it ends before it, but for the sequence
        // number, which nothing protects, and for lengths that fjall does not use.
        for place in one.len()..one.len() + two.len() {
            let mut spoiled = all.clone();
            spoiled[place] ^= 0x40;
            let unprotected = one.len() + 5..one.len() + 13;
            if !unprotected.contains(&place) {
                assert_eq!(sound_end(&spoiled), one.len(), "byte {place}");
            }
        }
        for len in 0..one.len() {
            assert_eq!(sound_end(&one[..len]), 0);
        }
    }
}
