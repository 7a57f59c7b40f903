//! Walks over a request before it is decoded, and refuses what could hurt.
//!
//! The decoder makes room for as many elements as an array says it has, before it has seen one: four bytes of a
//! stranger would end the process. So each request is walked by its shape first, without making room for anything: each
//! length must fit the bytes that follow, and there are few elements and tags. What passes is decoded in memory
//! that grows with the request alone. The shapes stand in [`api`](super::api). The tests hold the two to each other.

use super::limits::{REQUEST_ELEMENTS_MAX, REQUEST_TAGS_MAX};

/// What stands at a place of a request.
#[derive(Debug)]
pub(crate) enum Shape {
    /// So many bytes: numbers, flags, or several of them in a row.
    Bytes(usize),
    /// A string, or none.
    Text,
    /// Bytes with their length, or none.
    Blob,
    /// An array of elements of so many bytes, or none.
    Words(usize),
    /// An array of strings, or none.
    Texts,
    /// An array of structures, or none.
    List(&'static [Field]),
}

/// A field of a request or of a structure in it.
#[derive(Debug)]
pub(crate) struct Field {
    from: i16,
    until: i16,
    shape: Shape,
}

impl Field {
    /// A field of every version.
    pub(crate) const fn always(shape: Shape) -> Self {
        Self::from(0, shape)
    }

    /// A field of this version and later ones.
    pub(crate) const fn from(from: i16, shape: Shape) -> Self {
        Self {
            from,
            until: i16::MAX,
            shape,
        }
    }

    /// A field of this version and earlier ones.
    pub(crate) const fn until(until: i16, shape: Shape) -> Self {
        Self {
            from: 0,
            until,
            shape,
        }
    }
}

/// Why a request is not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    /// It ends too early, or has a length that cannot be.
    #[error("a length goes beyond the request")]
    Short,
    /// There are more than [`REQUEST_ELEMENTS_MAX`] elements.
    #[error("there are more than {REQUEST_ELEMENTS_MAX} elements")]
    Elements,
    /// There are more than [`REQUEST_TAGS_MAX`] tagged fields.
    #[error("there are more than {REQUEST_TAGS_MAX} tagged fields")]
    Tags,
}

/// A walk over the bytes of one request.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    rest: &'a [u8],
    elements_left: usize,
    tags_left: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            elements_left: REQUEST_ELEMENTS_MAX,
            tags_left: REQUEST_TAGS_MAX,
        }
    }

    /// What was not walked yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Walks over a whole request body, or a structure.
    pub(crate) fn fields(
        &mut self,
        fields: &[Field],
        version: i16,
        is_flexible: bool,
    ) -> Result<(), ShapeError> {
        for field in fields {
            if (field.from..=field.until).contains(&version) {
                self.shape(&field.shape, version, is_flexible)?;
            }
        }
        if is_flexible { self.tags() } else { Ok(()) }
    }

    fn shape(&mut self, shape: &Shape, version: i16, is_flexible: bool) -> Result<(), ShapeError> {
        match shape {
            Shape::Bytes(count) => self.take(*count).map(drop),
            Shape::Text => self.text(is_flexible).map(drop),
            Shape::Blob => {
                let length = self.length(4, is_flexible)?;
                self.take(length.unwrap_or(0)).map(drop)
            }
            Shape::Words(size) => {
                let count = self.count(is_flexible)?;
                // There are few, so this cannot overflow.
                self.take(count * size).map(drop)
            }
            Shape::Texts => {
                for _ in 0..self.count(is_flexible)? {
                    self.text(is_flexible)?;
                }
                Ok(())
            }
            Shape::List(fields) => {
                for _ in 0..self.count(is_flexible)? {
                    self.fields(fields, version, is_flexible)?;
                }
                Ok(())
            }
        }
    }

    /// Elements of an array.
    fn count(&mut self, is_flexible: bool) -> Result<usize, ShapeError> {
        let count = self.length(4, is_flexible)?.unwrap_or(0);
        self.elements_left = self
            .elements_left
            .checked_sub(count)
            .ok_or(ShapeError::Elements)?;
        Ok(count)
    }

    /// A string, or none; whether it is UTF-8 is the decoder's to say.
    pub(crate) fn text(&mut self, is_flexible: bool) -> Result<Option<&'a [u8]>, ShapeError> {
        match self.length(2, is_flexible)? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// A length of `size` bytes, or a compact one; `None` for what is not there.
    fn length(&mut self, size: usize, is_flexible: bool) -> Result<Option<usize>, ShapeError> {
        let length = match (is_flexible, size) {
            (true, _) => i64::from(self.varint()?) - 1,
            (false, 2) => i64::from(self.i16()?),
            (false, _) => i64::from(self.i32()?),
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| ShapeError::Short),
        }
    }

    /// Tagged fields, whose meaning is nothing to us.
    pub(crate) fn tags(&mut self) -> Result<(), ShapeError> {
        let count = self.varint()? as usize;
        self.tags_left = self.tags_left.checked_sub(count).ok_or(ShapeError::Tags)?;
        for _ in 0..count {
            self.varint()?;
            let length = self.varint()? as usize;
            self.take(length)?;
        }
        Ok(())
    }

    pub(crate) fn i16(&mut self) -> Result<i16, ShapeError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, ShapeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A number of seven bits a byte, of 32 bits in all. Others would be read differently by different readers.
    fn varint(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0_u64;
        for place in 0..5 {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| ShapeError::Short);
            }
        }
        Err(ShapeError::Short)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ShapeError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(ShapeError::Short)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ShapeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(ShapeError::Short)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(bytes: &[u8], shape: Shape, is_flexible: bool) -> Result<usize, ShapeError> {
        let mut walk = Walk::new(bytes);
        walk.shape(&shape, 0, is_flexible)?;
        Ok(bytes.len() - walk.rest().len())
    }

    #[test]
    fn lengths_are_held_against_what_is_there() {
        for (bytes, shape, is_flexible, wanted) in [
            (&b"\0\x02abc"[..], Shape::Text, false, Ok(4)),
            (b"\xff\xff", Shape::Text, false, Ok(2)),
            (b"\xff\xfe", Shape::Text, false, Err(ShapeError::Short)),
            (b"\x7f\xffab", Shape::Text, false, Err(ShapeError::Short)),
            (b"\x03ab", Shape::Text, true, Ok(3)),
            (b"\x00", Shape::Text, true, Ok(1)),
            (b"\x04ab", Shape::Text, true, Err(ShapeError::Short)),
            (b"\0\0\0\x01a", Shape::Blob, false, Ok(5)),
            (b"\x7f\xff\xff\xffa", Shape::Blob, false, Err(ShapeError::Short)),
            (b"\0\0\0\x02abcd", Shape::Words(2), false, Ok(8)),
            (b"\0\0\0\x03abcd", Shape::Words(2), false, Err(ShapeError::Short)),
            (
                b"\x7f\xff\xff\xff",
                Shape::Words(4),
                false,
                Err(ShapeError::Elements),
            ),
            (
                b"\xff\xff\xff\xff\x0f",
                Shape::Texts,
                true,
                Err(ShapeError::Elements),
            ),
            (
                b"\xff\xff\xff\xff\x1f",
                Shape::Texts,
                true,
                Err(ShapeError::Short),
            ),
            (
                b"\x80\x80\x80\x80\x80\x00",
                Shape::Texts,
                true,
                Err(ShapeError::Short),
            ),
            (b"", Shape::Bytes(1), false, Err(ShapeError::Short)),
        ] {
            assert_eq!(walk(bytes, shape, is_flexible), wanted, "{bytes:?}");
        }
    }

    #[test]
    fn arrays_in_arrays_share_one_bound() {
        const INNER: &[Field] = &[Field::always(Shape::Words(1))];
        let mut bytes = 3_u32.to_be_bytes().to_vec();
        for _ in 0..3 {
            bytes.extend((REQUEST_ELEMENTS_MAX as u32 / 3).to_be_bytes());
            bytes.extend(vec![0; REQUEST_ELEMENTS_MAX / 3]);
        }
        assert_eq!(walk(&bytes, Shape::List(INNER), false), Err(ShapeError::Elements));
    }

    #[test]
    fn tags_are_few() {
        let tags = |count: u8| {
            let mut bytes = vec![count];
            bytes.extend((0..count).flat_map(|tag| [tag, 1, 0]));
            let mut walk = Walk::new(&bytes);
            walk.tags().map(|()| walk.rest().len())
        };
        assert_eq!(tags(REQUEST_TAGS_MAX as u8), Ok(0));
        assert_eq!(tags(REQUEST_TAGS_MAX as u8 + 1), Err(ShapeError::Tags));
    }
}
