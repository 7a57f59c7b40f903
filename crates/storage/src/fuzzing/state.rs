//! The journal of the state's database as a power cut may leave it, and the names of replicas in it.

use super::Input;
use crate::state::db::{parse_id, pointer_key};
use crate::state::tail::{batch, sound_end};

/// Batches of a journal that is made up.
const BATCHES_MAX: u8 = 4;
/// Values of a batch.
const VALUES_MAX: u8 = 4;
/// Where a batch has its number, which nothing protects.
const NUMBER: std::ops::Range<usize> = 5..13;

/// The first byte says what it is: any bytes, a good journal of which one byte rots, or the name of a replica.
pub fn state_journal(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() % 3 {
        0 => anything(input.0),
        1 => rotten(&mut input),
        _ => {
            if let Some(id) = parse_id(&String::from_utf8_lossy(input.0)) {
                assert_eq!(parse_id(&pointer_key(id)), Some(id));
            }
        }
    }
}

/// What is kept is sound by itself, whatever comes behind it.
fn anything(bytes: &[u8]) {
    let end = sound_end(bytes);
    let kept = &bytes[..end];
    assert_eq!(sound_end(kept), end);
    assert_eq!(sound_end(&[kept, &[0; 50]].concat()), end);
}

/// A journal is cut at the batch that has rotted, and nowhere before.
fn rotten(input: &mut Input<'_>) {
    let mut journal = Vec::new();
    let mut starts = Vec::new();
    for _ in 0..=input.u8() % BATCHES_MAX {
        let count = input.u8() % VALUES_MAX;
        let values: Vec<&[u8]> = (0..count)
            .map(|_| {
                let length = usize::from(input.u8());
                input.take(length)
            })
            .collect();
        starts.push(journal.len());
        journal.extend(batch(&values));
    }
    assert_eq!(sound_end(&journal), journal.len(), "all of it is sound");
    let at = input.number(2) as usize % journal.len();
    let bits = input.u8();
    journal[at] ^= bits;
    let start = starts.into_iter().rfind(|start| *start <= at);
    let start = start.expect("the first begins at 0");
    let is_seen = bits != 0 && !NUMBER.contains(&(at - start));
    let expected = if is_seen { start } else { journal.len() };
    assert_eq!(sound_end(&journal), expected, "byte {at} of the batch at {start}");
}

/// Seeds of [`state_journal`].
pub fn state_journal_seeds() -> Vec<Vec<u8>> {
    let two = [batch(&[b"one", b"another"]), batch(&[])].concat();
    vec![
        [&[0], &two[..]].concat(),
        b"\x01\x02\x02\x03one\x02of\x01\x04more\x00\x00\x30\x01".to_vec(),
        b"\x01\x01\x00\x01\x05other\x00\x06\x40".to_vec(),
        b"\x023-7".to_vec(),
    ]
}
