//! The TPM's wire form: numbers with their highest byte first, and byte strings that bring their length along. What a
//! field means is decided by whoever reads it.

/// Bytes not read yet.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// From the first byte on.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// A number of two bytes; `None` if fewer are left.
    pub(super) fn u16(&mut self) -> Option<u16> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*head))
    }

    /// A number of four bytes; `None` if fewer are left.
    pub(super) fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*head))
    }

    /// A byte string behind its length of two bytes (a TPM2B); `None` if less is left than it says.
    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    /// Whether all is read.
    pub(super) fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

/// A structure as it is written: fields one after the other.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// A number of two bytes.
    pub(super) fn u16(mut self, number: u16) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// A number of four bytes.
    pub(super) fn u32(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Bytes as they are.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A byte string behind its length. Nothing that is written here comes near the 64 KiB that a length can say.
    pub(super) fn sized(self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).expect("all that is written is bounded far below 64 KiB");
        self.u16(length).bytes(bytes)
    }

    /// What has been written.
    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = Writer::default()
            .u16(0x0102)
            .u32(0x0304_0506)
            .sized(b"ab")
            .bytes(b"c")
            .done();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 0, 2, b'a', b'b', b'c']);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u16(), Some(0x0102));
        assert_eq!(reader.u32(), Some(0x0304_0506));
        assert_eq!(reader.sized(), Some(&b"ab"[..]));
        assert!(!reader.is_done());
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert_eq!(Reader::new(&[0, 3, 1, 2]).sized(), None);
        assert_eq!(Reader::new(&[0]).sized(), None);
        assert_eq!(Reader::new(&[0, 0, 0]).u32(), None);
        assert_eq!(Reader::new(&[0, 0]).sized(), Some(&[][..]));
    }
}
