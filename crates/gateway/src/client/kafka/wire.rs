//! Numbers, texts and lists as Kafka lays them out where lengths are not compact, and record batches beside them.
//!
//! Decides what is believed of an answer: a length counts as far as there are bytes for it, and a list has
//! [`ELEMENTS_MAX`] elements. What stands where is decided by those who ask ([`reader`](super::reader),
//! [`group`](super::group), [`member`](super::member)).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Elements of one list of an answer: partitions of the topic, events of a batch. The hub's own bounds are far below.
pub(super) const ELEMENTS_MAX: usize = 1024 * 1024;
/// Bytes of a number of 64 bits where each has seven.
const VARINT_BYTES_MAX: usize = 10;

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends too early, or has a length that cannot be.
    #[error("a length goes beyond the answer")]
    Short,
    /// A list is too long.
    #[error("a list has more than {ELEMENTS_MAX} elements")]
    Elements,
    /// A number that is none of its kind.
    #[error("a number is out of its range")]
    Number,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// It answers another request.
    #[error("it answers another request")]
    Correlation,
    /// A batch of records is of another kind than the hub's.
    #[error("a batch is compressed, or of another version")]
    Batch,
    /// A batch is not what was written.
    #[error("the checksum of a batch is wrong")]
    Checksum,
    /// Something is not there that was asked for.
    #[error("something is missing that was asked for")]
    Missing,
}

/// What is not read yet of an answer.
#[derive(Debug, Clone)]
pub(super) struct Answer(Bytes);

impl Answer {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// What was not read.
    pub(super) fn rest(&self) -> &Bytes {
        &self.0
    }

    pub(super) fn take(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.0.len() {
            return Err(Malformed::Short);
        }
        Ok(self.0.split_to(count))
    }

    pub(super) fn i8(&mut self) -> Result<i8, Malformed> {
        self.0.try_get_i8().map_err(|_| Malformed::Short)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        self.0.try_get_i16().map_err(|_| Malformed::Short)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.0.try_get_i32().map_err(|_| Malformed::Short)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.0.try_get_i64().map_err(|_| Malformed::Short)
    }

    /// A number that cannot be negative: a partition, a port.
    pub(super) fn number(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.i32()?).map_err(|_| Malformed::Number)
    }

    /// A number of seven bits a byte, small ones short ("zigzag").
    pub(super) fn varint(&mut self) -> Result<i64, Malformed> {
        let mut value = 0_u64;
        for place in 0..VARINT_BYTES_MAX {
            let byte = self.i8()? as u8;
            value |= u64::from(byte & 0x7f).checked_shl(7 * place as u32).unwrap_or(0);
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(Malformed::Number)
    }

    /// A text, or none.
    pub(super) fn text(&mut self) -> Result<Option<String>, Malformed> {
        let length = self.i16()?;
        let Some(bytes) = self.blob_of(length.into())? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| Malformed::Text)?;
        Ok(Some(text.to_owned()))
    }

    /// Bytes, or none.
    pub(super) fn blob(&mut self) -> Result<Option<Bytes>, Malformed> {
        let length = self.i32()?;
        self.blob_of(length.into())
    }

    /// Bytes of a length that was read, -1 being none.
    pub(super) fn blob_of(&mut self, length: i64) -> Result<Option<Bytes>, Malformed> {
        match length {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Malformed::Short)?;
                self.take(length).map(Some)
            }
        }
    }

    /// A list. Room is made for what is read, not for what is announced.
    pub(super) fn list<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.i32()?.max(0) as usize;
        if count > ELEMENTS_MAX {
            return Err(Malformed::Elements);
        }
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(one(self)?);
        }
        Ok(list)
    }
}

/// Writes a text. Ours are short: names of groups and members have bounds of their own.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

pub(super) fn put_blob(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

pub(super) fn put_list<T>(
    out: &mut BytesMut,
    list: impl ExactSizeIterator<Item = T>,
    mut put: impl FnMut(&mut BytesMut, T),
) {
    out.put_i32(list.len() as i32);
    list.for_each(|one| put(out, one));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: &[u8]) -> Answer {
        Answer::new(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn a_length_counts_as_far_as_there_are_bytes() {
        assert_eq!(answer(&[0, 2, b'a', b'b', 9]).text(), Ok(Some("ab".into())));
        assert_eq!(answer(&[0xff, 0xff]).text(), Ok(None));
        assert_eq!(answer(&[0, 2, b'a']).text(), Err(Malformed::Short));
        assert_eq!(answer(&[0xff, 0xfe]).text(), Err(Malformed::Short));
        assert_eq!(answer(&[0, 1, 0xff]).text(), Err(Malformed::Text));
        assert_eq!(answer(&[0x7f, 0xff, 0xff, 0xff]).blob(), Err(Malformed::Short));
        assert_eq!(answer(&[0, 0, 0]).i32(), Err(Malformed::Short));
        assert_eq!(answer(&[0xff; 4]).number(), Err(Malformed::Number));
    }

    #[test]
    fn a_list_is_as_long_as_it_is_and_no_longer_than_its_bound() {
        let list = |bytes: &[u8]| answer(bytes).list(Answer::i8);
        assert_eq!(list(&[0, 0, 0, 2, 7, 8]), Ok(vec![7, 8]));
        assert_eq!(list(&[0xff; 4]), Ok(Vec::new()));
        assert_eq!(list(&[0, 0, 0, 3, 7, 8]), Err(Malformed::Short));
        assert_eq!(list(&[0x7f, 0xff, 0xff, 0xff, 7]), Err(Malformed::Elements));
    }

    #[test]
    fn small_numbers_are_short_and_long_ones_end() {
        for (bytes, value) in [
            (&[0][..], 0),
            (&[1], -1),
            (&[2], 1),
            (&[0xac, 2], 150),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                i64::MIN,
            ),
        ] {
            assert_eq!(answer(bytes).varint(), Ok(value), "{bytes:?}");
        }
        assert_eq!(answer(&[0x80; 11]).varint(), Err(Malformed::Number));
        assert_eq!(answer(&[0x80]).varint(), Err(Malformed::Short));
    }
}
